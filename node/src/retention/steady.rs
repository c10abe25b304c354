//! Whether the calendar can be believed when it says that something is old.
//!
//! A clock that is set a year ahead by mistake must not cost a year of readings: after a jump nothing
//! goes for its age until a day has passed without another. Whoever sets the clock right again within
//! that day, which is a jump too, has lost nothing.

use std::time::Duration;

use unhidra_core::time::{Timestamp, UnixTime};

/// By how much the calendar may part from the timer between two looks.
const JUMP: Duration = Duration::from_secs(60 * 60);

/// How long it is not believed then.
const DOUBT: Duration = Duration::from_secs(24 * 60 * 60);

/// The two clocks as they were seen last.
#[derive(Debug, Default)]
pub(super) struct Steady {
    seen: Option<(Timestamp, UnixTime)>,
    doubted_until: Option<Timestamp>,
}

/// What a look at the clocks says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Calendar {
    /// It can be believed.
    Steady,
    /// It has jumped just now, by so much.
    Jumped(Duration),
    /// It has jumped not long ago.
    Doubted,
}

impl Steady {
    pub(super) fn look(&mut self, now: Timestamp, unix: UnixTime) -> Calendar {
        let before = self.seen.replace((now, unix));
        if let Some((timer, calendar)) = before {
            let expected = calendar.saturating_add(now.saturating_since(timer));
            let apart = unix.saturating_since(expected).max(expected.saturating_since(unix));
            if apart > JUMP {
                self.doubted_until = Some(now.saturating_add(DOUBT));
                return Calendar::Jumped(apart);
            }
        }
        match self.doubted_until {
            Some(until) if now < until => Calendar::Doubted,
            _ => Calendar::Steady,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_either_way_is_doubted_for_a_day() {
        let mut steady = Steady::default();
        let mut look = |timer_s: u64, calendar_s: u64| {
            steady.look(Timestamp::from_ms(timer_s * 1000), UnixTime::from_s(calendar_s))
        };
        let (hour, day, year) = (3600, 86_400, 31_536_000);
        assert_eq!(look(0, year), Calendar::Steady, "the first look knows no better");
        assert_eq!(look(hour, year + hour + 3000), Calendar::Steady, "it is corrected by less than an hour");
        let ahead = look(2 * hour, 3 * year);
        assert!(matches!(ahead, Calendar::Jumped(by) if by.as_secs() > year), "{ahead:?}");
        assert_eq!(look(3 * hour, 3 * year + hour), Calendar::Doubted);
        let back = look(4 * hour, year + 4 * hour);
        assert!(matches!(back, Calendar::Jumped(_)), "{back:?}");
        assert_eq!(look(4 * hour + day - 1, year + 4 * hour + day - 1), Calendar::Doubted);
        assert_eq!(look(4 * hour + day, year + 4 * hour + day), Calendar::Steady);
    }
}
