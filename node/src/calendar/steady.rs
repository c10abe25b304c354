//! The two clocks side by side: whether the time of day went as the timer did.
//!
//! ```text
//! Steady --a jump of more than an hour--> doubted for a day of running time --> Steady
//!    |                                              ^  |
//!    +--start after a gap of hours--> for a quarter |  +--another jump: a day from there
//!                                     of the gap ---+
//! ```
//!
//! While the node runs nothing innocent moves the time of day by an hour against a timer that goes on
//! while the machine is suspended. (A virtual machine that its host stops has no such timer: what it is
//! set to afterwards is a jump.) The doubt is counted by the other timer, of the time in which somebody
//! may set the clock right. Over an end of the node
//! nobody can tell a gap from a jump: a node that is switched off each night must still forget what is
//! old, and one that comes up a year ahead must not at once. So a gap is doubted for a quarter of
//! itself, a day at most, counted while the node runs, over further starts.

use std::time::Duration;

use unhidra_core::time::{Timestamp, UnixTime};

/// By how much the time of day may part from the timer between two looks and be believed.
const JUMP: Duration = Duration::from_secs(60 * 60);

/// From here on it is said that it did.
const STEP: Duration = Duration::from_secs(5);

/// How long it is not believed after a jump.
const DOUBT: Duration = Duration::from_secs(24 * 60 * 60);

/// A gap between two lives of the node is doubted for one in so many parts of itself.
const GAP_PART: u32 = 4;

/// What the last life of the node has left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Left {
    /// The time of day as it was seen last.
    pub(super) seen: UnixTime,
    /// How long it was still to be doubted.
    pub(super) doubted_for: Duration,
}

/// Which way the time of day went, and by how much.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Jump {
    Forward(Duration),
    Back(Duration),
}

impl Jump {
    fn between(expected: UnixTime, found: UnixTime) -> Self {
        if found >= expected {
            Self::Forward(found.saturating_since(expected))
        } else {
            Self::Back(expected.saturating_since(found))
        }
    }

    const fn by(self) -> Duration {
        match self {
            Self::Forward(by) | Self::Back(by) => by,
        }
    }
}

/// The two clocks as they were seen last: the timer that goes on over a suspension, and the time of day.
#[derive(Debug, Default)]
pub(super) struct Steady {
    seen: Option<(Timestamp, UnixTime)>,
    /// Small steps since the last doubt, together: many of them are a jump too.
    stepped: Duration,
    doubted_until: Option<Timestamp>,
}

impl Steady {
    /// Goes on where the last life of the node ended. Gives the gap, where it is doubted for that.
    pub(super) fn resume(&mut self, left: Left, now: Timestamp, boot: Timestamp, unix: UnixTime) -> Option<Jump> {
        self.seen = Some((boot, unix));
        let gap = Jump::between(left.seen, unix);
        let doubted = match gap {
            Jump::Forward(by) if by > JUMP => (by / GAP_PART).min(DOUBT),
            Jump::Back(by) if by > JUMP => DOUBT,
            Jump::Forward(_) | Jump::Back(_) => Duration::ZERO,
        };
        let longest = left.doubted_for.min(DOUBT).max(doubted);
        self.doubted_until = (!longest.is_zero()).then(|| now.saturating_add(longest));
        (!doubted.is_zero()).then_some(gap)
    }

    /// Looks at both clocks. Gives how they have parted since the last look, where that is worth a word.
    pub(super) fn look(&mut self, now: Timestamp, boot: Timestamp, unix: UnixTime) -> Option<Jump> {
        let (timer, calendar) = self.seen.replace((boot, unix))?;
        let expected = calendar.saturating_add(boot.saturating_since(timer));
        let jump = Jump::between(expected, unix);
        if jump.by() < STEP {
            return None;
        }
        self.stepped = self.stepped.saturating_add(jump.by());
        if self.stepped > JUMP {
            self.stepped = Duration::ZERO;
            self.doubted_until = Some(now.saturating_add(DOUBT));
        }
        Some(jump)
    }

    /// How long the time of day is still doubted.
    pub(super) fn doubted_for(&self, now: Timestamp) -> Duration {
        self.doubted_until.map_or(Duration::ZERO, |until| until.saturating_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;
    const DAY: u64 = 86_400;
    const YEAR: u64 = 365 * DAY;

    fn secs(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn at(s: u64) -> Timestamp {
        Timestamp::from_ms(s * 1000)
    }

    #[test]
    fn a_jump_either_way_is_doubted_for_a_day() {
        let mut steady = Steady::default();
        let mut look = |timer_s, unix_s| {
            let jump = steady.look(at(timer_s), at(timer_s), UnixTime::from_s(unix_s));
            (jump, steady.doubted_for(at(timer_s)))
        };
        assert_eq!(look(0, YEAR), (None, Duration::ZERO), "the first look knows no better");
        assert_eq!(look(HOUR, YEAR + HOUR + 4), (None, Duration::ZERO), "it is corrected a little");
        assert_eq!(look(2 * HOUR, 3 * YEAR), (Some(Jump::Forward(secs(2 * YEAR - 2 * HOUR - 4))), secs(DAY)));
        assert_eq!(look(3 * HOUR, 3 * YEAR + HOUR), (None, secs(DAY - HOUR)));
        assert_eq!(look(4 * HOUR, YEAR + 4 * HOUR), (Some(Jump::Back(secs(2 * YEAR - 2 * HOUR))), secs(DAY)));
        assert_eq!(look(4 * HOUR + DAY - 1, YEAR + 4 * HOUR + DAY - 1), (None, secs(1)));
        assert_eq!(look(4 * HOUR + DAY, YEAR + 4 * HOUR + DAY), (None, Duration::ZERO));
    }

    #[test]
    fn many_steps_are_a_jump() {
        let mut steady = Steady::default();
        let mut unix = YEAR;
        steady.look(at(0), at(0), UnixTime::from_s(unix));
        for n in 1..=3 {
            unix += 10 + 20 * 60;
            assert_eq!(steady.look(at(10 * n), at(10 * n), UnixTime::from_s(unix)), Some(Jump::Forward(secs(20 * 60))));
            assert!(steady.doubted_for(at(10 * n)).is_zero(), "an hour in all");
        }
        unix += 10 + 20 * 60;
        steady.look(at(40), at(40), UnixTime::from_s(unix));
        assert_eq!(steady.doubted_for(at(40)), secs(DAY));
    }

    #[test]
    fn a_gap_is_doubted_for_a_quarter_of_itself_and_a_day_at_most() {
        for (gap, doubted) in [(HOUR, 0), (8 * HOUR, 2 * HOUR), (3 * DAY, 18 * HOUR), (YEAR, DAY)] {
            let left = Left { seen: UnixTime::from_s(YEAR), doubted_for: Duration::ZERO };
            let mut steady = Steady::default();
            let jump = steady.resume(left, at(7), at(7), UnixTime::from_s(YEAR + gap));
            assert_eq!(steady.doubted_for(at(7)), secs(doubted), "{gap}");
            assert_eq!(jump, (doubted > 0).then_some(Jump::Forward(secs(gap))), "{gap}");
            let back = steady.resume(left, at(7), at(7), UnixTime::from_s(YEAR - gap.min(DAY)));
            assert_eq!(back.is_some(), gap > HOUR);
        }
    }

    /// Else a jump would be forgotten by who restarts the node.
    #[test]
    fn a_doubt_goes_on_over_a_restart_and_ends_after_a_day_of_running() {
        let left = Left { seen: UnixTime::from_s(YEAR), doubted_for: secs(20 * HOUR) };
        let mut steady = Steady::default();
        assert_eq!(steady.resume(left, at(0), at(0), UnixTime::from_s(YEAR + 60)), None);
        assert_eq!(steady.doubted_for(at(19 * HOUR)), secs(HOUR));
        assert_eq!(steady.doubted_for(at(20 * HOUR)), Duration::ZERO);
    }
}
