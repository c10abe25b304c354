//! What stands before everything outside that the node speaks to: a circuit breaker, and a wait that
//! grows. Its state is in the metrics and, when it changes, in the log.

use std::time::Duration;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use unhidra_core::backoff::{Backoff, BackoffBounds};
use unhidra_core::breaker::{Breaker, BreakerOptions, BreakerState};
use unhidra_core::time::Timestamp;

/// The states of all breakers, by target.
#[derive(Clone, Debug, Default)]
pub(crate) struct Breakers(Family<[(&'static str, String); 1], Gauge>);

impl Breakers {
    /// Makes the metric and registers it.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let breakers = Self::default();
        registry.register(
            "outside_breaker",
            "The circuit breaker before a target outside: 0 closed, 1 open, 2 half open",
            breakers.0.clone(),
        );
        breakers
    }

    fn show(&self, target: &str, state: BreakerState) {
        self.0.get_or_create(&[("target", target.to_owned())]).set(state.as_number().into());
    }
}

/// When the next attempt at one target may be made: a plain value.
#[derive(Debug)]
pub(crate) struct Pace {
    breaker: Breaker,
    backoff: Backoff,
    not_before: Timestamp,
}

impl Pace {
    /// One that has seen no failure.
    pub(crate) const fn new(breaker: BreakerOptions, backoff: BackoffBounds) -> Self {
        Self { breaker: Breaker::new(breaker), backoff: Backoff::new(backoff), not_before: Timestamp::ZERO }
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

    /// An attempt succeeded.
    pub(crate) fn succeeded(&mut self) {
        self.backoff.reset();
        self.breaker.succeeded();
    }

    /// The target is there and does not want what it was offered. `draw` is 64 random bits.
    pub(crate) fn refused(&mut self, now: Timestamp, draw: u64) {
        self.breaker.succeeded();
        self.not_before = self.backoff.failed(now, draw);
    }

    /// An attempt failed, and the target may have asked to be left alone for so long. `draw` is 64
    /// random bits.
    pub(crate) fn failed(&mut self, now: Timestamp, retry_after: Option<Duration>, draw: u64) {
        self.breaker.failed(now);
        let asked = now.saturating_add(retry_after.unwrap_or_default());
        self.not_before = self.backoff.failed(now, draw).max(asked);
    }

    /// Where its breaker stands.
    pub(crate) const fn breaker(&self) -> BreakerState {
        self.breaker.state()
    }

    /// How many attempts have failed since the last that succeeded.
    const fn failures(&self) -> u32 {
        self.backoff.failures()
    }
}

/// What stands before one target. Whoever speaks to it asks [`Guard::admit`] before each attempt and
/// says what became of it.
#[derive(Debug)]
pub(crate) struct Guard {
    target: String,
    pace: Pace,
    breakers: Breakers,
}

impl Guard {
    /// A closed one. `target` is its name in the metrics and the log, `upstream:factory` for instance.
    pub(crate) fn new(target: String, pace: Pace, breakers: Breakers) -> Self {
        breakers.show(&target, pace.breaker());
        Self { target, pace, breakers }
    }

    /// Whether an attempt may be made now.
    ///
    /// # Errors
    ///
    /// When to ask again.
    pub(crate) fn admit(&mut self, now: Timestamp) -> Result<(), Timestamp> {
        if let Some(at) = self.pace.opens_at(now) {
            return Err(at);
        }
        self.watched(|pace| pace.begins(now));
        Ok(())
    }

    /// An attempt succeeded.
    pub(crate) fn succeeded(&mut self) {
        self.watched(Pace::succeeded);
    }

    /// An attempt failed. `draw` is 64 random bits.
    pub(crate) fn failed(&mut self, now: Timestamp, draw: u64) {
        self.watched(|pace| pace.failed(now, None, draw));
    }

    /// Where its breaker stands.
    pub(crate) const fn state(&self) -> BreakerState {
        self.pace.breaker()
    }

    /// Does something to its pace, and shows where the breaker has moved.
    fn watched(&mut self, change: impl FnOnce(&mut Pace)) {
        let before = self.pace.breaker();
        change(&mut self.pace);
        if self.pace.breaker() != before {
            self.changed();
        }
    }

    fn changed(&self) {
        let state = self.pace.breaker();
        self.breakers.show(&self.target, state);
        match state {
            BreakerState::Open => {
                tracing::warn!(
                    target_name = self.target,
                    failures = self.pace.failures(),
                    "left alone for a while: it fails"
                );
            }
            BreakerState::HalfOpen => tracing::info!(target_name = self.target, "one more attempt is made"),
            BreakerState::Closed => tracing::info!(target_name = self.target, "it serves again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    #[test]
    fn the_longer_of_the_two_waits_holds_and_the_metric_follows_the_breaker() {
        let mut registry = Registry::default();
        let breakers = Breakers::register(&mut registry);
        let options = BreakerOptions { failures: NonZeroU32::new(2).unwrap(), rest: Duration::from_secs(60) };
        let bounds = BackoffBounds { base: Duration::from_secs(1), cap: Duration::from_secs(8) };
        let mut guard = Guard::new("upstream:a".to_owned(), Pace::new(options, bounds), breakers);
        let shown = |registry: &Registry| {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
            text.lines().find(|line| line.starts_with("outside_breaker{")).unwrap().to_owned()
        };
        assert_eq!(shown(&registry), "outside_breaker{target=\"upstream:a\"} 0");
        let at = |ms| Timestamp::from_ms(ms);
        guard.failed(at(0), 700);
        assert_eq!(guard.admit(at(699)), Err(at(700)));
        assert_eq!(guard.admit(at(700)), Ok(()));
        guard.failed(at(700), 100);
        assert_eq!((guard.admit(at(750)), guard.state()), (Err(at(60_700)), BreakerState::Open));
        assert_eq!(shown(&registry), "outside_breaker{target=\"upstream:a\"} 1");
        assert_eq!(guard.admit(at(60_700)), Ok(()));
        assert_eq!(shown(&registry), "outside_breaker{target=\"upstream:a\"} 2");
        guard.succeeded();
        assert_eq!(shown(&registry), "outside_breaker{target=\"upstream:a\"} 0");
    }
}
