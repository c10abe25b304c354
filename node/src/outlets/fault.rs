//! Why rows were not taken, and what an HTTP status means for them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelValue;
use unhidra_core::time::UnixTime;

use super::courier::{Answer, Rest};

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
pub(crate) enum Cause {
    /// Nobody answers there, or TLS does not come about.
    Connect,
    /// No answer in time.
    Timeout,
    /// The connection broke in the middle.
    Broken,
    /// It says that it cannot now: 5xx, or a reason like it.
    Unavailable,
    /// It asks for time: 408, 425, 429.
    Busy,
    /// It does not take what this node sends, whatever it is: 401, 404, a redirect.
    Endpoint,
    /// It does not want these rows.
    Refused,
}

/// What went wrong, for people.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Fault {
    pub(crate) cause: Cause,
    pub(crate) text: String,
}

/// What became of a run of rows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Sent {
    pub(crate) answer: Answer,
    pub(crate) fault: Option<Fault>,
    /// How many of those that were taken went to nobody: MQTT keeps nothing for who is not there.
    pub(crate) unread: usize,
}

impl Sent {
    pub(crate) const fn all(rows: usize) -> Self {
        Self { answer: Answer { taken: rows, rest: Rest::None }, fault: None, unread: 0 }
    }

    pub(crate) fn failed(taken: usize, cause: Cause, text: impl Into<String>) -> Self {
        let fault = Some(Fault { cause, text: text.into() });
        Self { answer: Answer { taken, rest: Rest::Failed { retry_after: None } }, fault, unread: 0 }
    }

    /// The other side had let us in, and failed over the row behind those it has taken, or one behind it.
    pub(crate) fn broke(taken: usize, cause: Cause, text: impl Into<String>) -> Self {
        let fault = Some(Fault { cause, text: text.into() });
        Self { answer: Answer { taken, rest: Rest::Broke }, fault, unread: 0 }
    }

    pub(crate) fn refused(taken: usize, rest: Rest, text: impl Into<String>) -> Self {
        let fault = Some(Fault { cause: Cause::Refused, text: text.into() });
        Self { answer: Answer { taken, rest }, fault, unread: 0 }
    }
}

/// What an HTTP status means for the rows of its request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Meaning {
    Taken,
    /// One of them is at fault.
    Refused,
    /// They are to be offered again.
    Failed(Cause),
}

impl Meaning {
    /// 2xx takes them. A status that speaks of who asks or where (401, 403, 404 and their like) is no
    /// fault of theirs: leaving rows behind for it would lose all of them, one after another. Redirects
    /// are not followed: readings go where the configuration says.
    pub(crate) const fn of(status: u16) -> Self {
        match status {
            200..=299 => Self::Taken,
            408 | 425 | 429 => Self::Failed(Cause::Busy),
            401 | 402 | 403 | 404 | 405 | 407 | 410 | 421 | 426 | 451 => Self::Failed(Cause::Endpoint),
            400..=499 => Self::Refused,
            500..=599 => Self::Failed(Cause::Unavailable),
            _ => Self::Failed(Cause::Endpoint),
        }
    }
}

/// What `Retry-After` asks for, in seconds or as a date, at most `max` (RFC 9110 section 10.2.3).
pub(crate) fn retry_after(value: &str, now: UnixTime, max: Duration) -> Option<Duration> {
    let value = value.trim();
    let asked = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at: SystemTime = httpdate::parse_http_date(value).ok()?;
            let now = UNIX_EPOCH.checked_add(Duration::from_millis(now.as_ms()))?;
            at.duration_since(now).unwrap_or_default()
        }
    };
    Some(asked.min(max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_whose_fault_it_was() {
        for (statuses, meaning) in [
            (&[200, 201, 202, 204, 299][..], Meaning::Taken),
            (&[400, 406, 409, 411, 413, 415, 418, 422, 431], Meaning::Refused),
            (&[408, 425, 429], Meaning::Failed(Cause::Busy)),
            (&[500, 502, 503, 504, 599], Meaning::Failed(Cause::Unavailable)),
            (&[301, 302, 307, 308, 401, 403, 404, 410, 100, 600], Meaning::Failed(Cause::Endpoint)),
        ] {
            for status in statuses {
                assert_eq!(Meaning::of(*status), meaning, "{status}");
            }
        }
    }

    #[test]
    fn as_much_time_as_is_asked_for_is_given_up_to_a_bound() {
        let max = Duration::from_secs(300);
        let now = UnixTime::from_s(1_445_412_480);
        for (value, seconds) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("999999", Some(300)),
            ("Wed, 21 Oct 2015 07:28:10 GMT", Some(10)),
            ("Wed, 21 Oct 2015 07:27:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(retry_after(value, now, max), seconds.map(Duration::from_secs), "{value:?}");
        }
    }
}
