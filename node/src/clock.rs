//! The machine's clocks: the only place of the node that reads them.

use std::time::{Duration, Instant, SystemTime};

use rustix::time::{ClockId, clock_gettime};
use unhidra_core::time::{Clock, Timestamp, UnixTime};

/// The machine's clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// Begins to count.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock the others are given")]
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn since_boot(&self) -> Timestamp {
        let since = Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default();
        Timestamp::from_ms(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock the others are given")]
    fn unix_now(&self) -> UnixTime {
        // A clock before 1970 is not set yet: the epoch is as good a guess.
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        UnixTime::from_ms(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_clocks_go_on_and_the_calendar_is_of_this_age() {
        let clock = SystemClock::start();
        let (earlier, boot, unix) = (clock.now(), clock.since_boot(), clock.unix_now());
        assert!(clock.now() >= earlier && clock.since_boot() >= boot && clock.unix_now() >= unix);
        assert!(boot > Timestamp::ZERO, "the machine was started before this");
        assert!(unix > UnixTime::from_s(1_700_000_000));
    }
}
