//! What a simulated device does when it is told to.

use std::fmt;
use std::time::Duration;

use unhidra_device_sdk::Status;

/// The bounds of `set-interval`, in seconds.
const INTERVAL_S: std::ops::RangeInclusive<f64> = 0.01..=3600.0;

/// What became of a command, and what follows from it.
#[derive(Clone, PartialEq)]
pub(super) struct Answer {
    pub(super) status: Status,
    pub(super) body: Vec<u8>,
    /// The time between two readings from now on.
    pub(super) interval: Option<Duration>,
}

impl fmt::Debug for Answer {
    // It may repeat what the device was told.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("body_len", &self.body.len())
            .field("interval", &self.interval)
            .finish()
    }
}

/// Obeys a command.
///
/// | name | body | |
/// | --- | --- | --- |
/// | `ping` | anything | answered with the same |
/// | `identify` | | as if a lamp blinked |
/// | `set-interval` | seconds, `2.5` for instance | the time between two readings from now on |
pub(super) fn obey(name: &str, body: &[u8]) -> Answer {
    let answer = |status, body: &[u8]| Answer { status, body: body.to_vec(), interval: None };
    match name {
        "ping" => answer(Status::Done, body),
        "identify" => answer(Status::Done, b"blinking"),
        "set-interval" => match interval(body) {
            Some(interval) => Answer { interval: Some(interval), ..answer(Status::Done, body) },
            None => answer(Status::Failed, b"seconds from 0.01 to 3600"),
        },
        _ => answer(Status::Unknown, b""),
    }
}

/// An interval in seconds, where it is one.
pub(super) fn interval(body: &[u8]) -> Option<Duration> {
    let seconds = std::str::from_utf8(body).ok()?.trim().parse().ok()?;
    INTERVAL_S.contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_commands_are_done_and_others_are_unknown() {
        assert_eq!(obey("ping", b"hi"), Answer { status: Status::Done, body: b"hi".to_vec(), interval: None });
        assert_eq!(obey("identify", b"").status, Status::Done);
        assert_eq!(obey("set-interval", b"2.5").interval, Some(Duration::from_millis(2500)));
        for bad in [&b""[..], b"0", b"-1", b"NaN", b"4000", b"\xff"] {
            assert_eq!((obey("set-interval", bad).status, obey("set-interval", bad).interval), (Status::Failed, None));
        }
        assert_eq!(obey("reboot", b"").status, Status::Unknown);
    }

    #[test]
    fn what_a_device_says_to_a_command_is_not_printed() {
        let printed = format!("{:?}", obey("ping", b"sesame"));
        // As text, and as a list of its bytes.
        assert!(!printed.contains("sesame") && !printed.contains("115"), "{printed}");
        assert!(printed.contains("body_len: 6"), "{printed}");
    }
}
