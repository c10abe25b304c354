//! When to dial again: exponential, with full jitter, so that a thousand devices that lost the
//! same node do not come back in the same second.

use core::time::Duration;

use rand_core::Rng;
use unhidra_core::backoff::BackoffBounds;
use unhidra_core::time::Timestamp;

/// The bounds of the wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BackoffOptions {
    /// The longest wait after the first failure; it doubles with each further one.
    pub first: Duration,
    /// The longest wait of all.
    pub max: Duration,
    /// How long a connection must have lasted for the wait to begin anew. A node that takes a
    /// connection and drops it at once is then not dialled in a tight loop.
    pub stable_after: Duration,
}

/// Counts failures and draws waits.
#[derive(Debug)]
pub(crate) struct Backoff {
    stable_after: Duration,
    waits: unhidra_core::backoff::Backoff,
}

impl Backoff {
    pub(crate) const fn new(options: BackoffOptions) -> Self {
        let bounds = BackoffBounds { base: options.first, cap: options.max };
        Self { stable_after: options.stable_after, waits: unhidra_core::backoff::Backoff::new(bounds) }
    }

    /// A connection that was dialled, and perhaps up since `up_since`, has ended at `now`: when to
    /// dial again.
    pub(crate) fn dial_at(&mut self, up_since: Option<Timestamp>, now: Timestamp, rng: &mut impl Rng) -> Timestamp {
        if up_since.is_some_and(|since| now.saturating_since(since) >= self.stable_after) {
            self.waits.reset();
        }
        self.waits.failed(now, rng.next_u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    const OPTIONS: BackoffOptions = BackoffOptions {
        first: Duration::from_millis(500),
        max: Duration::from_secs(60),
        stable_after: Duration::from_secs(10),
    };

    fn longest_wait(backoff: impl Fn() -> Backoff, up_since: Option<Timestamp>) -> u64 {
        let now = Timestamp::from_ms(100_000);
        let mut rng = StdRng::seed_from_u64(7);
        let waits = (0..2000).map(|_| backoff().dial_at(up_since, now, &mut rng).saturating_since(now));
        waits.max().map_or(0, |wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
    }

    fn after(failures: u32) -> Backoff {
        let mut backoff = Backoff::new(OPTIONS);
        for _ in 0..failures {
            let _ = backoff.waits.failed(Timestamp::ZERO, 0);
        }
        backoff
    }

    #[test]
    fn the_wait_is_anything_up_to_a_bound_that_doubles() {
        for (failures, bound) in [(0, 500), (1, 1000), (5, 16_000), (7, 60_000), (40, 60_000)] {
            let longest = longest_wait(|| after(failures), None);
            assert!(longest <= bound && longest > bound * 9 / 10, "{failures}: {longest} of {bound}");
        }
    }

    #[test]
    fn only_a_connection_that_lasted_starts_the_count_anew() {
        let stable = Timestamp::from_ms(90_000);
        assert!(longest_wait(|| after(5), Some(stable)) <= 500);
        assert!(longest_wait(|| after(5), Some(Timestamp::from_ms(90_001))) > 500);
    }

    #[test]
    fn a_wait_of_nothing_is_possible() {
        let options = BackoffOptions { first: Duration::ZERO, ..OPTIONS };
        let now = Timestamp::from_ms(5);
        assert_eq!(Backoff::new(options).dial_at(None, now, &mut StdRng::seed_from_u64(1)), now);
    }
}
