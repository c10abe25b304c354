//! The seeds of a run.

use std::env;

/// Seeds a scenario is run with where nobody names one.
const SEEDS: std::ops::Range<u64> = 1..9;

/// The seeds to run: `SIM_SEED` alone where it is set, or the first few.
///
/// # Panics
///
/// Where `SIM_SEED` is no number.
#[must_use]
pub fn seeds() -> Vec<u64> {
    match env::var("SIM_SEED") {
        Ok(text) => vec![text.parse().unwrap_or_else(|_| panic!("SIM_SEED={text} is no number"))],
        Err(_) => SEEDS.collect(),
    }
}
