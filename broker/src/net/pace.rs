//! How long a thread rests that has computed for a newcomer.
//!
//! On a machine whose processors are all busy every wake waits for one, also those of the kernel on
//! which a sync depends, whatever the threads beside them are worth. So handshakes leave some of the
//! processors idle: the longer they have to wait for one themselves, the longer they rest.

use std::time::Duration;

/// What a handshake adds outweighs what there was by this: about the last fifty count.
const KEPT: f64 = 0.98;
/// Rest for each second of waiting.
const PER_WAITED: f64 = 50.0;
/// Rest for each second of computing, at most: a fifteenth of the time is a newcomer's in any case, so that
/// all come in also where something else keeps the processors busy.
const PER_COMPUTED_MAX: f64 = 14.0;
/// What is not worth a sleep.
const REST_MIN: Duration = Duration::from_micros(100);

/// What the last handshakes had of the processors, in seconds: the newest counts most.
#[derive(Debug)]
pub(super) struct Pace {
    computed: f64,
    waited: f64,
    /// What part of its patience the newest newcomer had used up when its first step began.
    used_up: f64,
    /// How long a newcomer may wait for its first step. Where it does, nobody rests: handshakes that run
    /// out of their time have cost the others as much, and for nothing.
    patience: Duration,
}

impl Pace {
    /// For handshakes that may take so long. Half of that a newcomer may wait for its first step: it waits for
    /// the last one too.
    pub(super) fn new(handshake_timeout: Duration) -> Self {
        Self { computed: 0.0, waited: 0.0, used_up: 0.0, patience: handshake_timeout / 2 }
    }

    /// A handshake begins that was ready to so long before.
    pub(super) fn begins(&mut self, waited: Duration) {
        self.used_up = if waited < self.patience { waited.div_duration_f64(self.patience) } else { 1.0 };
    }

    /// How long to rest after a step of a handshake that computed for so long, and was ready to for so long
    /// before it had a processor.
    pub(super) fn rest(&mut self, computed: Duration, waited: Duration) -> Duration {
        let computed = computed.as_secs_f64();
        self.computed = self.computed * KEPT + computed;
        self.waited = self.waited * KEPT + waited.as_secs_f64();
        if self.computed <= 0.0 {
            return Duration::ZERO;
        }
        let at_most = PER_COMPUTED_MAX * (1.0 - self.used_up);
        let rest = computed * (PER_WAITED * self.waited / self.computed).min(at_most);
        Duration::try_from_secs_f64(rest).ok().filter(|rest| *rest >= REST_MIN).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_micros(500);
    const TIMEOUT: Duration = Duration::from_secs(10);

    /// The rest after many equal steps.
    fn settled(waited: Duration) -> Duration {
        let mut pace = Pace::new(TIMEOUT);
        (0..500).map(|_| pace.rest(STEP, waited)).last().expect("some")
    }

    fn about(found: Duration, wanted: Duration) -> bool {
        found.abs_diff(wanted) < Duration::from_micros(5)
    }

    #[test]
    fn where_a_processor_is_free_nobody_rests() {
        assert_eq!(settled(Duration::ZERO), Duration::ZERO);
        assert_eq!(settled(Duration::from_nanos(1_600)), Duration::ZERO, "80 us are not worth a sleep");
    }

    #[test]
    fn who_waits_for_a_processor_rests_in_proportion_and_to_a_bound() {
        assert!(about(settled(STEP / 10), STEP * 5));
        assert!(about(settled(STEP / 5), STEP * 10));
        assert!(about(settled(STEP * 100), STEP * 14), "however long it waited");
    }

    #[test]
    fn the_longer_newcomers_wait_to_begin_the_less_anybody_rests() {
        let mut pace = Pace::new(TIMEOUT);
        let mut rest = |begins_after| {
            pace.begins(begins_after);
            pace.rest(STEP, STEP * 1000)
        };
        assert!(about(rest(Duration::ZERO), STEP * 14));
        assert!(about(rest(TIMEOUT / 4), STEP * 7));
        assert!(rest(TIMEOUT / 2).is_zero() && rest(Duration::MAX).is_zero(), "it would run out of its time");
        assert!(about(rest(TIMEOUT / 8), STEP * 21 / 2), "as soon as they begin in time again");
    }

    #[test]
    fn one_long_wait_is_spread_over_many_handshakes() {
        let mut pace = Pace::new(TIMEOUT);
        (0..500).for_each(|_| _ = pace.rest(STEP, Duration::ZERO));
        let rests: Vec<Duration> =
            (0..200).map(|n| pace.rest(STEP, if n == 0 { STEP * 2 } else { Duration::ZERO })).collect();
        assert!(about(rests[0], STEP * 100 / 50), "{:?}", rests[0]);
        assert!(rests.is_sorted_by(|a, b| a >= b) && rests[199].is_zero());
    }

    #[test]
    fn nothing_that_a_clock_says_makes_it_fail() {
        let mut pace = Pace::new(TIMEOUT);
        assert_eq!(pace.rest(Duration::ZERO, Duration::ZERO), Duration::ZERO);
        assert_eq!(pace.rest(Duration::ZERO, Duration::MAX), Duration::ZERO);
        assert!(pace.rest(Duration::MAX, Duration::MAX) <= Duration::MAX);
        let mut hasty = Pace::new(Duration::ZERO);
        hasty.begins(Duration::ZERO);
        assert!(hasty.rest(STEP, STEP).is_zero());
    }
}
