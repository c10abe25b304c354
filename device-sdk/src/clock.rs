//! The calendar, as far as the device knows it.

use core::time::Duration;

use unhidra_core::time::{Timestamp, UnixTime};

/// How long the node's word on the time holds. An oscillator that is 1 % off is a quarter of an hour off by then.
const LEARNT_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// How long after a question for the time the next one waits, and at most: an outside broker keeps them all for a node
/// that is away, in the queue that readings are in.
const ASKED_FOR: Duration = Duration::from_secs(30);
const ASKED_FOR_MAX: Duration = Duration::from_secs(60 * 60);

/// A calendar instant, the monotonic one it was learnt at, and from whom.
#[derive(Debug, Default)]
pub(crate) struct WallClock {
    known: Option<(UnixTime, Timestamp, Source)>,
    /// Before when the node is not asked again, and how long that was to wait.
    asked: Option<(Timestamp, Duration)>,
}

/// Whose word the calendar is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Source {
    /// The application's, which has a clock.
    Application,
    /// The node's, in a bundle.
    Node,
}

impl WallClock {
    /// Whether the calendar is good enough to say that something is over: the application says the time, or the node
    /// has, not long ago.
    pub(crate) fn is_believed(&self, now: Timestamp) -> bool {
        match self.known {
            None => false,
            Some((_, _, Source::Application)) => true,
            Some((_, at, Source::Node)) => now.saturating_since(at) < LEARNT_FOR,
        }
    }

    /// When the node is to be asked for the time; `None` where the application says it.
    pub(crate) fn asks_at(&self) -> Option<Timestamp> {
        let at = match self.known {
            None => Timestamp::default(),
            Some((_, _, Source::Application)) => return None,
            Some((_, at, Source::Node)) => at.saturating_add(LEARNT_FOR),
        };
        Some(self.asked.map_or(at, |(next, _)| at.max(next)))
    }

    /// The node is asked for a bundle, and with it for the time.
    pub(crate) fn asked(&mut self, now: Timestamp) {
        let wait = self.asked.map_or(ASKED_FOR, |(_, wait)| wait.saturating_mul(2).min(ASKED_FOR_MAX));
        self.asked = Some((now.saturating_add(wait), wait));
    }

    /// A connection begins: whoever did not answer on the last one may on this.
    pub(crate) const fn connected(&mut self) {
        self.asked = None;
    }

    /// What the application says.
    pub(crate) fn set(&mut self, unix: UnixTime, now: Timestamp) {
        self.known = Some((unix, now, Source::Application));
    }

    /// What the node says; the application's clock is above it.
    pub(crate) fn learn(&mut self, unix: UnixTime, now: Timestamp) {
        self.asked = None;
        if !matches!(self.known, Some((_, _, Source::Application))) {
            self.known = Some((unix, now, Source::Node));
        }
    }

    pub(crate) fn unix(&self, now: Timestamp) -> Option<UnixTime> {
        self.known.map(|(unix, at, _)| unix.saturating_add(now.saturating_since(at)))
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
        assert_eq!((clock.is_believed(at(0)), clock.asks_at()), (false, Some(at(0))));
        clock.learn(unix(1000), at(0));
        assert!(clock.is_believed(at(86_399_999)) && !clock.is_believed(at(86_400_000)));
        assert_eq!(clock.asks_at(), Some(at(86_400_000)));
        clock.learn(unix(500), at(10));
        assert_eq!(clock.unix(at(10)), Some(unix(500)), "back, too");
        clock.set(unix(7000), at(10));
        clock.learn(unix(500), at(10));
        assert_eq!((clock.unix(at(10)), clock.is_believed(at(u64::MAX))), (Some(unix(7000)), true));
        assert_eq!(clock.asks_at(), None);
    }

    #[test]
    fn a_node_that_does_not_answer_is_asked_ever_less_often() {
        let at = Timestamp::from_ms;
        let mut clock = WallClock::default();
        let mut asked = 0;
        let mut now = at(0);
        while now < at(86_400_000) {
            clock.asked(now);
            asked += 1;
            now = clock.asks_at().expect("nobody has said the time");
        }
        assert!((24..40).contains(&asked), "{asked} questions in a day");
        clock.connected();
        assert_eq!(clock.asks_at(), Some(at(0)));
        clock.asked(now);
        assert_eq!(clock.asks_at(), Some(now.saturating_add(ASKED_FOR)));
    }
}
