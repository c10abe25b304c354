//! The seeds of a run.

use std::env;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// Seeds a scenario is run with where nobody names one.
const SEEDS: std::ops::Range<u64> = 1..9;

/// The seeds to run: `SIM_SEED` alone where it is set, or the first few, `SIM_SEEDS` of them where
/// that is set.
///
/// # Panics
///
/// Where `SIM_SEED` is no number.
#[must_use]
pub fn seeds() -> Vec<u64> {
    match env::var("SIM_SEED") {
        Ok(text) => vec![text.parse().unwrap_or_else(|_| panic!("SIM_SEED={text} is no number"))],
        Err(_) => (SEEDS.start..SEEDS.start + count("SIM_SEEDS", SEEDS.end - SEEDS.start)).collect(),
    }
}

/// A generator for what is not repeated exactly anyway, real processes: seeded by `SIM_SEED`, or else
/// otherwise at each run. It prints its seed.
///
/// # Panics
///
/// Where `SIM_SEED` is no number.
#[must_use]
pub fn drawn() -> StdRng {
    let seed = count("SIM_SEED", RandomState::new().build_hasher().finish());
    println!("SIM_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// How often something is tried: what the environment says under `key`, or `usual`.
///
/// # Panics
///
/// Where it says something that is no number.
#[must_use]
pub fn count(key: &str, usual: u64) -> u64 {
    let Ok(text) = env::var(key) else { return usual };
    text.parse().unwrap_or_else(|_| panic!("{key}={text} is no number"))
}
