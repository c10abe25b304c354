//! Latencies, counted in buckets 3 % wide.

/// Buckets for each power of two.
const FINE: u32 = 32;

/// Counts of nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; (64 * FINE) as usize], total: 0 }
    }

    /// Counts one.
    pub(crate) fn record(&mut self, ns: u64) {
        let ns = ns.max(u64::from(FINE));
        let power = 63 - ns.leading_zeros();
        let fine = (ns >> (power - FINE.trailing_zeros())) as u32 & (FINE - 1);
        self.counts[(power * FINE + fine) as usize] += 1;
        self.total += 1;
    }

    /// Counts all that another has counted.
    pub(crate) fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
    }

    /// The value that a share of all does not pass, in milliseconds; `None` where there is none.
    pub(crate) fn quantile_ms(&self, share: f64) -> Option<f64> {
        let rank = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if *count > 0 && seen >= rank {
                let (power, fine) = (index as u32 / FINE, index as u32 % FINE);
                return Some(f64::from(FINE + fine + 1) / f64::from(FINE) * 2_f64.powi(power as i32) / 1e6);
            }
        }
        None
    }
}
