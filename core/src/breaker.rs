//! When to leave something outside alone: a circuit breaker, fed with what became of each attempt.
//!
//! ```text
//!            failures in a row            the rest is over: one probe
//!   Closed ---------------------> Open ------------------------------> HalfOpen
//!     ^ ^                           ^                                    |  |
//!     | +--- succeeded              +------------- failed ---------------+  |
//!     +------------------------------------------- succeeded ---------------+
//! ```
//!
//! It knows no clock and holds no queue: whoever is not admitted keeps what it has, and comes again
//! at [`Breaker::admits_at`].

use core::num::NonZeroU32;
use core::time::Duration;

use crate::time::Timestamp;

/// The bounds of a breaker.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BreakerOptions {
    /// Failures in a row that open it.
    pub failures: NonZeroU32,
    /// How long it then stays open before one attempt is let through.
    pub rest: Duration,
}

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum BreakerState {
    /// All attempts are let through.
    Closed,
    /// None is.
    Open,
    /// One is on its way, and decides.
    HalfOpen,
}

impl BreakerState {
    /// Its number in metrics: 0 closed, 1 open, 2 half open.
    #[must_use]
    pub const fn as_number(self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::Open => 1,
            Self::HalfOpen => 2,
        }
    }

    /// Its word in JSON and on screens.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half open",
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: Timestamp,
    },
    /// The probe is on its way. One that nobody speaks of by `until` is given up for lost.
    HalfOpen {
        until: Timestamp,
    },
}

/// Counts failures in a row of one target, and says whether to try it.
#[derive(Clone, Copy, Debug)]
pub struct Breaker {
    options: BreakerOptions,
    state: State,
}

impl Breaker {
    /// A closed one.
    #[must_use]
    pub const fn new(options: BreakerOptions) -> Self {
        Self { options, state: State::Closed { failures: 0 } }
    }

    /// Whether an attempt may be made now. An open breaker past its rest becomes half open with the
    /// first call that asks, and that call has the one probe; whoever was admitted says what became
    /// of it by [`succeeded`](Self::succeeded) or [`failed`](Self::failed).
    ///
    /// # Errors
    ///
    /// When to ask again.
    pub fn admit(&mut self, now: Timestamp) -> Result<(), Timestamp> {
        match self.state {
            State::Closed { .. } => Ok(()),
            State::Open { until } | State::HalfOpen { until } if now < until => Err(until),
            State::Open { .. } | State::HalfOpen { .. } => {
                self.state = State::HalfOpen { until: now.saturating_add(self.options.rest) };
                Ok(())
            }
        }
    }

    /// When the next attempt may be made; [`Timestamp::ZERO`] where it may at any time.
    #[must_use]
    pub const fn admits_at(&self) -> Timestamp {
        match self.state {
            State::Closed { .. } => Timestamp::ZERO,
            State::Open { until } | State::HalfOpen { until } => until,
        }
    }

    /// An attempt succeeded. Says whether the state is another one now.
    ///
    /// The success of an attempt that began before the breaker opened says nothing about the target
    /// as it is now, and leaves it open.
    pub fn succeeded(&mut self) -> bool {
        let before = self.state();
        if before != BreakerState::Open {
            self.state = State::Closed { failures: 0 };
        }
        self.state() != before
    }

    /// An attempt failed. Says whether the state is another one now.
    pub fn failed(&mut self, now: Timestamp) -> bool {
        let before = self.state();
        let until = now.saturating_add(self.options.rest);
        self.state = match self.state {
            State::Closed { failures } => match failures.saturating_add(1) {
                failures if failures >= self.options.failures.get() => State::Open { until },
                failures => State::Closed { failures },
            },
            State::HalfOpen { .. } => State::Open { until },
            // It failed before it rested: the rest is no longer for it.
            open @ State::Open { .. } => open,
        };
        self.state() != before
    }

    /// Where it stands.
    #[must_use]
    pub const fn state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const REST: Duration = Duration::from_secs(60);

    fn breaker(failures: u32) -> Breaker {
        let failures = NonZeroU32::new(failures).unwrap_or(NonZeroU32::MIN);
        Breaker::new(BreakerOptions { failures, rest: REST })
    }

    fn at(s: u64) -> Timestamp {
        Timestamp::from_ms(s * 1000)
    }

    #[test]
    fn it_opens_after_as_many_failures_in_a_row_and_lets_one_probe_through_after_its_rest() {
        let mut breaker = breaker(3);
        assert!(!breaker.failed(at(0)) && !breaker.failed(at(1)));
        assert!(!breaker.succeeded(), "a success starts the count anew, and changes nothing to be seen");
        assert!(!breaker.failed(at(2)) && !breaker.failed(at(3)) && breaker.failed(at(4)));
        assert_eq!((breaker.state(), breaker.admits_at()), (BreakerState::Open, at(64)));
        assert_eq!(breaker.admit(at(63)), Err(at(64)));
        assert_eq!(breaker.admit(at(64)), Ok(()));
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert_eq!(breaker.admit(at(65)), Err(at(124)), "one probe and no second");
    }

    #[test]
    fn the_probe_decides() {
        for (succeeds, expected) in [(true, BreakerState::Closed), (false, BreakerState::Open)] {
            let mut breaker = breaker(1);
            assert!(breaker.failed(at(0)) && breaker.admit(at(60)).is_ok());
            let changed = if succeeds { breaker.succeeded() } else { breaker.failed(at(61)) };
            assert!(changed && breaker.state() == expected);
            assert_eq!(breaker.admit(at(62)).is_ok(), succeeds);
        }
    }

    #[test]
    fn a_probe_that_nobody_speaks_of_is_made_again() {
        let mut breaker = breaker(1);
        breaker.failed(at(0));
        assert_eq!(breaker.admit(at(60)), Ok(()));
        assert_eq!(breaker.admit(at(119)), Err(at(120)));
        assert_eq!(breaker.admit(at(120)), Ok(()));
    }

    #[test]
    fn what_began_before_it_opened_neither_closes_it_nor_makes_it_rest_longer() {
        let mut breaker = breaker(1);
        breaker.failed(at(0));
        assert!(!breaker.succeeded() && !breaker.failed(at(30)));
        assert_eq!(breaker.admits_at(), at(60));
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Ask,
        Succeed,
        Fail,
        Wait(u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Ask),
            Just(Step::Succeed),
            Just(Step::Fail),
            Just(Step::Fail),
            (0_u16..100).prop_map(Step::Wait)
        ]
    }

    proptest! {
        /// Whatever comes: while it is not closed at most one attempt in each rest is admitted, it opens at
        /// the count and not before it, and it never shuts for good.
        #[test]
        fn it_is_never_knocked_at_more_often_than_once_a_rest(
            steps in proptest::collection::vec(step(), 0..200),
            failures in 1_u32..6,
        ) {
            let mut breaker = breaker(failures);
            let mut now = 0;
            let mut in_a_row = 0;
            let mut probes: Vec<u64> = Vec::new();
            for step in steps {
                let before = breaker.state();
                match step {
                    Step::Wait(s) => now += u64::from(s),
                    Step::Ask => {
                        let admitted = breaker.admit(at(now));
                        match before {
                            BreakerState::Closed => prop_assert!(admitted.is_ok()),
                            _ if admitted.is_ok() => {
                                let near = probes.last().is_some_and(|last| now - last < REST.as_secs());
                                prop_assert!(!near, "two probes within one rest");
                                probes.push(now);
                            }
                            _ => prop_assert!(admitted.is_err_and(|until| until > at(now))),
                        }
                    }
                    Step::Succeed => {
                        breaker.succeeded();
                        in_a_row = 0;
                        if breaker.state() == BreakerState::Closed {
                            probes.clear();
                        }
                    }
                    Step::Fail => {
                        breaker.failed(at(now));
                        if before == BreakerState::Closed {
                            in_a_row += 1;
                            prop_assert_eq!(breaker.state() == BreakerState::Open, in_a_row >= failures);
                        }
                        if breaker.state() == BreakerState::Open {
                            in_a_row = 0;
                        }
                    }
                }
            }
            let later = breaker.admits_at();
            prop_assert!(breaker.admit(later.max(at(now))).is_ok());
        }
    }
}
