//! When an outlet may speak to the other side: backoff with full jitter, and a circuit breaker.

use std::num::NonZeroU32;
use std::time::Duration;

use rand::Rng;
use unhidra_core::backoff::{Backoff, BackoffBounds};
use unhidra_core::breaker::{Breaker, BreakerOptions, BreakerState};
use unhidra_core::time::Timestamp;

use super::config::Config;

/// The longest wait after the first failure; it doubles with each further one.
const RETRY_BASE: Duration = Duration::from_millis(500);

/// When the next attempt may be made.
#[derive(Debug)]
pub(crate) struct Pace {
    breaker: Breaker,
    backoff: Backoff,
    not_before: Timestamp,
}

impl Pace {
    pub(crate) fn new(config: &Config) -> Self {
        let failures = NonZeroU32::new(config.breaker_failures).unwrap_or(NonZeroU32::MIN);
        let rest = Duration::from_secs(config.breaker_open_s);
        let cap = Duration::from_secs(config.retry_max_s);
        Self {
            breaker: Breaker::new(BreakerOptions { failures, rest }),
            backoff: Backoff::new(BackoffBounds { base: RETRY_BASE, cap }),
            not_before: Timestamp::ZERO,
        }
    }

    /// When an attempt may be made, where that is later than now.
    pub(crate) fn opens_at(&self, now: Timestamp) -> Option<Timestamp> {
        Some(self.not_before.max(self.breaker.admits_at())).filter(|at| *at > now)
    }

    /// An attempt is made.
    pub(crate) fn begins(&mut self, now: Timestamp) {
        // It was asked when it may be: the answer is known.
        let _ = self.breaker.admit(now);
    }

    pub(crate) fn succeeded(&mut self) {
        self.breaker.succeeded();
        self.backoff.reset();
    }

    /// The other side is there and does not want the rows.
    pub(crate) fn refused(&mut self, now: Timestamp, rng: &mut impl Rng) {
        self.breaker.succeeded();
        self.not_before = self.backoff.failed(now, rng.next_u64());
    }

    pub(crate) fn failed(&mut self, now: Timestamp, retry_after: Option<Duration>, rng: &mut impl Rng) {
        self.breaker.failed(now);
        let asked = now.saturating_add(retry_after.unwrap_or_default());
        self.not_before = self.backoff.failed(now, rng.next_u64()).max(asked);
    }

    pub(crate) const fn breaker(&self) -> BreakerState {
        self.breaker.state()
    }
}
