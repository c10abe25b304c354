//! An instant as an operator types it.
//!
//! ```text
//! 2026-01-31                 midnight, UTC
//! 2026-01-31T23:59:59Z       RFC 3339; with a fraction, with another offset such as +02:00
//! -24h                       so long before now: s, m, h, d or w
//! now
//! ```

use std::str::FromStr;

use thiserror::Error;
use unhidra_core::time::UnixTime;

/// A point in time, or a distance from now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Moment {
    /// That instant.
    At(UnixTime),
    /// So many ms before now.
    Before(u64),
}

/// A text that is no [`Moment`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{found:?} is no time: give 2026-01-31, 2026-01-31T23:59:59Z, -24h (s, m, h, d, w) or now")]
pub(super) struct MomentError {
    found: String,
}

impl Moment {
    /// The instant it means at `now`.
    pub(super) const fn at(self, now: UnixTime) -> UnixTime {
        match self {
            Self::At(instant) => instant,
            Self::Before(ms) => UnixTime::from_ms(now.as_ms().saturating_sub(ms)),
        }
    }
}

impl FromStr for Moment {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || MomentError { found: text.chars().take(80).collect() };
        if text == "now" {
            return Ok(Self::Before(0));
        }
        match text.strip_prefix('-') {
            Some(distance) => before(distance).map(Self::Before).ok_or_else(wrong),
            None => at(text).map(|ms| Self::At(UnixTime::from_ms(ms))).ok_or_else(wrong),
        }
    }
}

fn before(text: &str) -> Option<u64> {
    let (count, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let ms = match unit {
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 604_800_000,
        _ => return None,
    };
    digits(count)?.checked_mul(ms)
}

fn at(text: &str) -> Option<u64> {
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let ms = i64::try_from(day(date)?).ok()?.checked_mul(86_400_000)?;
    let ms = match time {
        None => ms,
        Some(time) => ms.checked_add(time_of_day(time)?)?,
    };
    u64::try_from(ms).ok()
}

/// Days since 1970-01-01 of a date of the Gregorian calendar.
fn day(text: &str) -> Option<u64> {
    let mut parts = text.split('-');
    let (year, month, day) = (fixed(parts.next()?, 4)?, fixed(parts.next()?, 2)?, fixed(parts.next()?, 2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if parts.next().is_some() || day == 0 || day > days || year < 1970 {
        return None;
    }
    // A year begins on 1 March, so that the leap day is its last.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let before = year * 365 + year / 4 - year / 100 + year / 400;
    (before + (153 * month + 2) / 5 + day - 1).checked_sub(719_468)
}

/// Ms of a time of day with its offset from UTC, which may reach into the day before or after.
fn time_of_day(text: &str) -> Option<i64> {
    let (clock, offset) = match text.strip_suffix(['Z', 'z']) {
        Some(clock) => (clock, 0),
        None => {
            let at = text.rfind(['+', '-'])?;
            let (clock, offset) = text.split_at_checked(at)?;
            let (hours, minutes) = offset.get(1..)?.split_once(':')?;
            let minutes = fixed(hours, 2)?.checked_mul(60)?.checked_add(fixed(minutes, 2)?)?;
            let ms = i64::try_from(minutes).ok()?.checked_mul(60_000)?;
            (clock, if offset.starts_with('-') { -ms } else { ms })
        }
    };
    let (clock, ms) = match clock.split_once('.') {
        None => (clock, 0),
        Some((clock, fraction)) => {
            digits(fraction)?;
            let ms: String = fraction.chars().chain("00".chars()).take(3).collect();
            (clock, digits(&ms)?)
        }
    };
    let mut parts = clock.split(':');
    let (h, m, s) = (fixed(parts.next()?, 2)?, fixed(parts.next()?, 2)?, fixed(parts.next()?, 2)?);
    // 60 is a leap second.
    if parts.next().is_some() || h > 23 || m > 59 || s > 60 {
        return None;
    }
    i64::try_from(((h * 60 + m) * 60 + s) * 1000 + ms).ok()?.checked_sub(offset)
}

fn fixed(text: &str, len: usize) -> Option<u64> {
    (text.len() == len).then(|| digits(text)).flatten()
}

/// A number of digits alone: `parse` would take a sign too.
fn digits(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::instant;

    #[test]
    fn instants_read_back_as_they_are_printed() {
        for ms in [0, 951_782_400_000, 1_709_251_199_999, 1_735_689_600_000, 4_107_542_400_001] {
            assert_eq!(instant(ms).parse(), Ok(Moment::At(UnixTime::from_ms(ms))), "{}", instant(ms));
        }
    }

    #[test]
    fn the_same_instant_has_many_names() {
        let ms = |text: &str| text.parse::<Moment>().unwrap().at(UnixTime::from_s(1_000_000));
        let expected = ms("2026-01-31T23:30:00Z");
        for text in [
            "2026-01-31T23:30:00.000Z",
            "2026-01-31 23:30:00Z",
            "2026-02-01T01:00:00+01:30",
            "2026-01-31t18:30:00-05:00",
        ] {
            assert_eq!(ms(text), expected, "{text}");
        }
        assert_eq!(ms("2026-01-31"), ms("2026-01-31T00:00:00Z"));
        assert_eq!(ms("2026-01-31T00:00:00.5Z").as_ms() - ms("2026-01-31").as_ms(), 500);
        assert_eq!(ms("2024-03-01").as_ms() - ms("2024-02-29").as_ms(), 86_400_000);
    }

    #[test]
    fn a_distance_counts_back_from_now() {
        let now = UnixTime::from_s(1_000_000);
        let at = |text: &str| text.parse::<Moment>().unwrap().at(now).as_ms() / 1000;
        assert_eq!(
            [at("now"), at("-1s"), at("-2m"), at("-24h"), at("-7d"), at("-1w"), at("-999w")],
            [1_000_000, 999_999, 999_880, 913_600, 395_200, 395_200, 0]
        );
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "-",
            "-h",
            "-1y",
            "--1h",
            "24h",
            "yesterday",
            "2026",
            "2026-1-31",
            "2026-02-29",
            "2026-13-01",
            "1969-12-31",
            "2026-01-31T",
            "2026-01-31T23:59:59",
            "2026-01-31T24:00:00Z",
            "2026-01-31T23:59Z",
            "2026-01-31T23:59:59+2:00",
            "2026-01-31T23:59:59.Z",
            "1970-01-01T00:00:00+01:00",
            "-99999999999999999999h",
            "2026-01-ä1",
        ] {
            assert!(text.parse::<Moment>().is_err(), "{text:?}");
        }
    }
}
