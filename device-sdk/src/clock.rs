//! The calendar, as far as the device knows it.

use unhidra_core::time::{Timestamp, UnixTime};

/// A calendar instant and the monotonic one it was learnt at.
#[derive(Debug, Default)]
pub(crate) struct WallClock(Option<(UnixTime, Timestamp)>);

impl WallClock {
    pub(crate) const fn is_known(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn set(&mut self, unix: UnixTime, now: Timestamp) {
        self.0 = Some((unix, now));
    }

    pub(crate) fn unix(&self, now: Timestamp) -> Option<UnixTime> {
        self.0.map(|(unix, at)| unix.saturating_add(now.saturating_since(at)))
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
}
