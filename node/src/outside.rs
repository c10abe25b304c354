//! What stands before everything outside that the node speaks to: a circuit breaker, and a wait that
//! grows. Its state is in the metrics and, when it changes, in the log.

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

/// What stands before one target. Whoever speaks to it asks [`Guard::admit`] before each attempt and
/// says what became of it.
#[derive(Debug)]
pub(crate) struct Guard {
    target: String,
    breaker: Breaker,
    backoff: Backoff,
    not_before: Timestamp,
    breakers: Breakers,
}

impl Guard {
    /// A closed one. `target` is its name in the metrics and the log, `upstream:factory` for instance.
    pub(crate) fn new(target: String, breaker: BreakerOptions, backoff: BackoffBounds, breakers: Breakers) -> Self {
        breakers.show(&target, BreakerState::Closed);
        let (breaker, backoff) = (Breaker::new(breaker), Backoff::new(backoff));
        Self { target, breaker, backoff, not_before: Timestamp::ZERO, breakers }
    }

    /// Whether an attempt may be made now.
    ///
    /// # Errors
    ///
    /// When to ask again.
    pub(crate) fn admit(&mut self, now: Timestamp) -> Result<(), Timestamp> {
        if now < self.not_before {
            return Err(self.not_before.max(self.breaker.admits_at()));
        }
        let before = self.breaker.state();
        let admitted = self.breaker.admit(now);
        if self.breaker.state() != before {
            self.changed();
        }
        admitted
    }

    /// An attempt succeeded.
    pub(crate) fn succeeded(&mut self) {
        self.backoff.reset();
        if self.breaker.succeeded() {
            self.changed();
        }
    }

    /// An attempt failed. `draw` is 64 random bits.
    pub(crate) fn failed(&mut self, now: Timestamp, draw: u64) {
        self.not_before = self.backoff.failed(now, draw);
        if self.breaker.failed(now) {
            self.changed();
        }
    }

    /// Where its breaker stands.
    pub(crate) const fn state(&self) -> BreakerState {
        self.breaker.state()
    }

    fn changed(&self) {
        let state = self.breaker.state();
        self.breakers.show(&self.target, state);
        match state {
            BreakerState::Open => {
                tracing::warn!(
                    target_name = self.target,
                    failures = self.backoff.failures(),
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
    use std::time::Duration;

    #[test]
    fn the_longer_of_the_two_waits_holds_and_the_metric_follows_the_breaker() {
        let mut registry = Registry::default();
        let breakers = Breakers::register(&mut registry);
        let options = BreakerOptions { failures: NonZeroU32::new(2).unwrap(), rest: Duration::from_secs(60) };
        let bounds = BackoffBounds { base: Duration::from_secs(1), cap: Duration::from_secs(8) };
        let mut guard = Guard::new("upstream:a".to_owned(), options, bounds, breakers);
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
