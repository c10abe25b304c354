//! How long a thread rests that has computed for a newcomer.
//!
//! On a machine whose processors are all busy every wake waits for one, also those of the kernel on
//! which a sync depends, whatever the threads beside them are worth. So handshakes leave some of the
//! processors idle: the longer they have to wait for one themselves, the longer they rest.

use std::time::Duration;

/// What a handshake adds outweighs what there was by this: about the last fifty count.
const KEPT: f64 = 0.98;
/// Rest for each second of waiting.
const PER_WAITED: f64 = 20.0;
/// Rest for each second of computing, at most: a ninth of the time is a newcomer's in any case, so that
/// all come in also where something else keeps the processors busy.
const PER_COMPUTED_MAX: f64 = 8.0;
/// What is not worth a sleep.
const REST_MIN: Duration = Duration::from_micros(100);

/// What the last handshakes had of the processors, in seconds: the newest counts most.
#[derive(Debug, Default)]
pub(super) struct Pace {
    computed: f64,
    waited: f64,
}

impl Pace {
    /// How long to rest after a step of a handshake that computed for so long, and was ready to for so long
    /// before it had a processor.
    pub(super) fn rest(&mut self, computed: Duration, waited: Duration) -> Duration {
        let computed = computed.as_secs_f64();
        self.computed = self.computed * KEPT + computed;
        self.waited = self.waited * KEPT + waited.as_secs_f64();
        if self.computed <= 0.0 {
            return Duration::ZERO;
        }
        let rest = computed * (PER_WAITED * self.waited / self.computed).min(PER_COMPUTED_MAX);
        Duration::try_from_secs_f64(rest).ok().filter(|rest| *rest >= REST_MIN).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_micros(500);

    /// The rest after many equal steps.
    fn settled(waited: Duration) -> Duration {
        let mut pace = Pace::default();
        (0..500).map(|_| pace.rest(STEP, waited)).last().expect("some")
    }

    fn about(found: Duration, wanted: Duration) -> bool {
        found.abs_diff(wanted) < Duration::from_micros(5)
    }

    #[test]
    fn where_a_processor_is_free_nobody_rests() {
        assert_eq!(settled(Duration::ZERO), Duration::ZERO);
        assert_eq!(settled(Duration::from_micros(4)), Duration::ZERO, "80 us are not worth a sleep");
    }

    #[test]
    fn who_waits_for_a_processor_rests_in_proportion_and_to_a_bound() {
        assert!(about(settled(STEP / 10), STEP * 2));
        assert!(about(settled(STEP / 5), STEP * 4));
        assert!(about(settled(STEP * 100), STEP * 8), "however long it waited");
    }

    #[test]
    fn one_long_wait_is_spread_over_many_handshakes() {
        let mut pace = Pace::default();
        (0..500).for_each(|_| _ = pace.rest(STEP, Duration::ZERO));
        let rests: Vec<Duration> =
            (0..200).map(|n| pace.rest(STEP, if n == 0 { STEP * 2 } else { Duration::ZERO })).collect();
        assert!(about(rests[0], STEP * 40 / 50), "{:?}", rests[0]);
        assert!(rests.is_sorted_by(|a, b| a >= b) && rests[199].is_zero());
    }

    #[test]
    fn nothing_that_a_clock_says_makes_it_fail() {
        let mut pace = Pace::default();
        assert_eq!(pace.rest(Duration::ZERO, Duration::ZERO), Duration::ZERO);
        assert_eq!(pace.rest(Duration::ZERO, Duration::MAX), Duration::ZERO);
        assert!(pace.rest(Duration::MAX, Duration::MAX) <= Duration::MAX);
    }
}
