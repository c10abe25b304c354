//! A sensor that behaves like one: a daily curve, a drift, noise.

use std::f64::consts::TAU;

use rand::{Rng, RngExt};
use unhidra_core::time::UnixTime;

const DAY_MS: f64 = 86_400_000.0;

/// Temperature and humidity in one place.
#[derive(Debug)]
pub(super) struct Sensor {
    /// What this place is like on average.
    temperature_mean: f64,
    humidity_mean: f64,
    /// Where the weather has wandered to.
    drift: f64,
    /// When the day is warmest here, as a part of it.
    warmest: f64,
}

/// One measured value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) value: f64,
}

impl Sensor {
    /// A sensor somewhere.
    pub(super) fn new(rng: &mut impl Rng) -> Self {
        Self {
            temperature_mean: rng.random_range(17.0..24.0),
            humidity_mean: rng.random_range(38.0..58.0),
            drift: 0.0,
            warmest: rng.random_range(0.55..0.65),
        }
    }

    /// The `n`th sample: temperature and humidity take turns.
    pub(super) fn sample(&mut self, n: u64, now: UnixTime, rng: &mut impl Rng) -> Sample {
        // The drift wanders and is pulled home, so that it stays within a few degrees for ever.
        self.drift = self.drift * 0.999 + noise(rng) * 0.04;
        let day = (now.as_ms() as f64 % DAY_MS) / DAY_MS;
        let warmth = 3.0 * (TAU * (day - self.warmest)).cos() + self.drift;
        if n % 2 == 1 {
            let value = self.temperature_mean + warmth + noise(rng) * 0.05;
            Sample { name: "temperature", unit: "°C", value }
        } else {
            // Warmer air of the same water is drier.
            let value = (self.humidity_mean - 2.2 * warmth + noise(rng) * 0.3).clamp(1.0, 99.0);
            Sample { name: "humidity", unit: "%", value }
        }
    }
}

impl Sample {
    /// What is published: the device's number for it, the value, the unit.
    pub(super) fn body(&self, n: u64) -> String {
        format!("{{\"n\":{n},\"v\":{:.2},\"unit\":\"{}\"}}", self.value, self.unit)
    }
}

/// Noise around zero with a spread of about one: three draws are enough of a bell.
fn noise(rng: &mut impl Rng) -> f64 {
    (0..3).map(|_| rng.random_range(-1.0..1.0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn values_stay_where_a_room_could_be_and_move_slowly() {
        let mut rng = StdRng::seed_from_u64(3);
        let mut sensor = Sensor::new(&mut rng);
        let mut last = None;
        for n in 0..50_000 {
            let sample = sensor.sample(2 * n + 1, UnixTime::from_s(1_750_000_000 + 10 * n), &mut rng);
            assert!((5.0..40.0).contains(&sample.value), "{sample:?}");
            let step = last.map_or(0.0, |last: f64| (sample.value - last).abs());
            assert!(step < 1.0, "a step of {step}");
            last = Some(sample.value);
        }
    }

    #[test]
    fn the_day_is_warmer_than_the_night() {
        let mut rng = StdRng::seed_from_u64(4);
        let mut sensor = Sensor { warmest: 0.6, ..Sensor::new(&mut rng) };
        let midnight = UnixTime::from_s(1_750_032_000 / 86_400 * 86_400);
        let night = sensor.sample(1, UnixTime::from_ms(midnight.as_ms() + (DAY_MS * 0.1) as u64), &mut rng);
        let day = sensor.sample(1, UnixTime::from_ms(midnight.as_ms() + (DAY_MS * 0.6) as u64), &mut rng);
        assert!(day.value > night.value + 4.0, "{day:?} {night:?}");
    }

    #[test]
    fn a_body_is_json_with_the_devices_number() {
        let sample = Sample { name: "temperature", unit: "°C", value: 21.534 };
        assert_eq!(sample.body(17), r#"{"n":17,"v":21.53,"unit":"°C"}"#);
    }
}
