//! Instants: monotonic ones for timers, calendar ones for what is written down. Both in ms.

use core::time::Duration;

/// A monotonic instant, in ms since an origin of the holder's choice. For timers only: it means
/// nothing on another machine or after a restart.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The origin.
    pub const ZERO: Self = Self(0);

    /// The instant `ms` after the origin.
    #[must_use]
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the origin.
    #[must_use]
    pub const fn as_ms(self) -> u64 {
        self.0
    }

    /// This instant and `duration` more, or the last representable one.
    #[must_use]
    pub const fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration_ms(duration)))
    }

    /// Time passed since `earlier`; zero where `earlier` is later.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// A calendar instant, in ms since the Unix epoch (1970-01-01T00:00:00Z).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct UnixTime(u64);

impl UnixTime {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);

    /// The instant `ms` after the epoch.
    #[must_use]
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// The instant `s` seconds after the epoch, or the last representable one.
    #[must_use]
    pub const fn from_s(s: u64) -> Self {
        Self(s.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn as_ms(self) -> u64 {
        self.0
    }

    /// Whole seconds since the epoch.
    #[must_use]
    pub const fn as_s(self) -> u64 {
        self.0 / 1000
    }

    /// This instant and `duration` more, or the last representable one.
    #[must_use]
    pub const fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration_ms(duration)))
    }

    /// Time passed since `earlier`; zero where `earlier` is later (a clock that was set back).
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Where a shell reads the time. Cores never hold one: `now` is their argument.
pub trait Clock {
    /// The monotonic instant, for timers.
    fn now(&self) -> Timestamp;
    /// The calendar instant, for records.
    fn unix_now(&self) -> UnixTime;
    /// A monotonic instant that goes on while the machine is suspended, which [`now`](Self::now) may not:
    /// for what the calendar is compared with, and for no timer. Its origin is its own.
    fn since_boot(&self) -> Timestamp {
        self.now()
    }
}

const fn duration_ms(duration: Duration) -> u64 {
    let ms = duration.as_millis();
    if ms > u64::MAX as u128 { u64::MAX } else { ms as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_stops_at_the_ends() {
        let last = Timestamp::from_ms(u64::MAX);
        assert_eq!(last.saturating_add(Duration::MAX), last);
        assert_eq!(Timestamp::ZERO.saturating_since(last), Duration::ZERO);
        assert_eq!(UnixTime::from_s(u64::MAX).as_ms(), u64::MAX);
    }
}
