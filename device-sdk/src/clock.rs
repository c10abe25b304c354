//! The calendar, as far as the device knows it.

use core::time::Duration;

use unhidra_core::time::{Timestamp, UnixTime};

/// How long the node's word on the time holds. An oscillator that is 1 % off is a quarter of an hour off by then.
const LEARNT_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// A calendar instant, the monotonic one it was learnt at, and from whom.
#[derive(Debug, Default)]
pub(crate) struct WallClock(Option<(UnixTime, Timestamp, Source)>);

/// Whose word the calendar is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Source {
    /// The application's, which has a clock.
    Application,
    /// The node's, in a bundle.
    Node,
}

impl WallClock {
    pub(crate) const fn is_known(&self) -> bool {
        self.0.is_some()
    }

    /// Whether the node is to be asked: nobody has said the time, or the node has and that was long ago.
    pub(crate) fn is_wanted(&self, now: Timestamp) -> bool {
        match self.0 {
            None => true,
            Some((_, _, Source::Application)) => false,
            Some((_, at, Source::Node)) => now.saturating_since(at) >= LEARNT_FOR,
        }
    }

    /// What the application says.
    pub(crate) fn set(&mut self, unix: UnixTime, now: Timestamp) {
        self.0 = Some((unix, now, Source::Application));
    }

    /// What the node says; the application's clock is above it.
    pub(crate) fn learn(&mut self, unix: UnixTime, now: Timestamp) {
        if !matches!(self.0, Some((_, _, Source::Application))) {
            self.0 = Some((unix, now, Source::Node));
        }
    }

    pub(crate) fn unix(&self, now: Timestamp) -> Option<UnixTime> {
        self.0.map(|(unix, at, _)| unix.saturating_add(now.saturating_since(at)))
    }

    /// For rules that need some instant: without a calendar, time since the start, which is
    /// earlier than anything written down, so that no wait is over too soon.
    pub(crate) fn unix_or_uptime(&self, now: Timestamp) -> UnixTime {
        self.unix(now).unwrap_or(UnixTime::from_ms(now.as_ms()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar_goes_on_from_where_it_was_set() {
        let mut clock = WallClock::default();
        let at = Timestamp::from_ms;
        assert_eq!((clock.unix(at(5)), clock.unix_or_uptime(at(5))), (None, UnixTime::from_ms(5)));
        clock.set(UnixTime::from_s(1000), at(400));
        assert_eq!(clock.unix(at(900)), Some(UnixTime::from_ms(1_000_500)));
        assert_eq!(clock.unix_or_uptime(at(900)), UnixTime::from_ms(1_000_500));
    }

    #[test]
    fn the_node_puts_right_what_it_said_and_not_what_the_application_did() {
        let (at, unix) = (Timestamp::from_ms, UnixTime::from_s);
        let mut clock = WallClock::default();
        assert!(clock.is_wanted(at(0)));
        clock.learn(unix(1000), at(0));
        assert!(!clock.is_wanted(at(86_399_999)) && clock.is_wanted(at(86_400_000)));
        clock.learn(unix(500), at(10));
        assert_eq!(clock.unix(at(10)), Some(unix(500)), "back, too");
        clock.set(unix(7000), at(10));
        clock.learn(unix(500), at(10));
        assert_eq!((clock.unix(at(10)), clock.is_wanted(at(u64::MAX))), (Some(unix(7000)), false));
    }
}
