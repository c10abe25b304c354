//! When to try again: exponential, with full jitter, so that all who lost the same peer do not come
//! back in the same second.

use core::time::Duration;

use crate::time::Timestamp;

/// The bounds of the wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BackoffBounds {
    /// The longest wait after the first failure; it doubles with each further one.
    pub base: Duration,
    /// The longest wait of all.
    pub cap: Duration,
}

/// Counts failures in a row and says how long to wait.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    bounds: BackoffBounds,
    failures: u32,
}

impl Backoff {
    /// One that has seen no failure.
    #[must_use]
    pub const fn new(bounds: BackoffBounds) -> Self {
        Self { bounds, failures: 0 }
    }

    /// An attempt failed at `now`: when to try again. `draw` is 64 bits of the caller's generator; the
    /// wait is drawn evenly from nothing to a bound that doubles with each failure.
    #[must_use]
    pub fn failed(&mut self, now: Timestamp, draw: u64) -> Timestamp {
        let longest = self.longest();
        self.failures = self.failures.saturating_add(1);
        let longest_ms = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        // A bound is at most some minutes: against 64 bits the remainder is as good as even.
        let wait_ms = draw.checked_rem(longest_ms.saturating_add(1)).unwrap_or(draw);
        now.saturating_add(Duration::from_millis(wait_ms))
    }

    /// An attempt succeeded: the next failure is the first again.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures in a row.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// The longest the next wait can be.
    fn longest(&self) -> Duration {
        let doubled = self.bounds.base.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        doubled.min(self.bounds.cap)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: BackoffBounds = BackoffBounds { base: Duration::from_millis(500), cap: Duration::from_secs(60) };

    #[test]
    fn the_bound_doubles_up_to_the_cap_and_begins_anew_after_a_success() {
        let mut backoff = Backoff::new(BOUNDS);
        for bound in [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000] {
            let mut at_the_bound = backoff;
            assert_eq!(at_the_bound.failed(Timestamp::ZERO, bound).as_ms(), bound, "the whole bound may be drawn");
            assert_eq!(backoff.failed(Timestamp::ZERO, bound + 1).as_ms(), 0, "and no more than it");
        }
        backoff.reset();
        assert_eq!(backoff.failed(Timestamp::ZERO, 501).as_ms(), 0);
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_its_bound(
            base in 0_u64..5_000,
            cap in 0_u64..100_000,
            failures in 0_u32..80,
            now in 0_u64..1_000_000,
            draw: u64,
        ) {
            let bounds = BackoffBounds { base: Duration::from_millis(base), cap: Duration::from_millis(cap) };
            let mut backoff = Backoff::new(bounds);
            for _ in 0..failures {
                let _ = backoff.failed(Timestamp::ZERO, 0);
            }
            prop_assert_eq!(backoff.failures(), failures);
            let bound = u128::from(base).saturating_mul(1 << failures.min(90)).min(u128::from(cap));
            let now = Timestamp::from_ms(now);
            let wait = backoff.failed(now, draw).saturating_since(now);
            prop_assert!(wait.as_millis() <= bound);
        }

        #[test]
        fn all_waits_up_to_the_bound_are_drawn(failures in 0_u32..8, share in 0_u64..=100) {
            let mut backoff = Backoff::new(BOUNDS);
            for _ in 0..failures {
                let _ = backoff.failed(Timestamp::ZERO, 0);
            }
            let wait = (500_u64 << failures).min(60_000) * share / 100;
            prop_assert_eq!(backoff.failed(Timestamp::ZERO, wait).as_ms(), wait);
        }
    }
}
