//! What the store counts.

use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::waiting::Weight;

/// The store's metrics. A clone counts into the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) commits: Counter,
    pub(crate) records: Counter,
    pub(crate) commit_duration: Histogram,
    pub(crate) refused: Counter,
    pub(crate) left_out: Counter,
    pub(crate) full: Counter,
    pub(crate) queued: Gauge,
    pub(crate) queued_bytes: Gauge,
    pub(crate) reopenings: Counter,
    pub(crate) power_cuts: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        // From a disk with a battery (0.1 ms) to one that stalls on a compaction (seconds).
        let seconds = [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
        Self {
            commits: Counter::default(),
            records: Counter::default(),
            commit_duration: Histogram::new(seconds),
            refused: Counter::default(),
            left_out: Counter::default(),
            full: Counter::default(),
            queued: Gauge::default(),
            queued_bytes: Gauge::default(),
            reopenings: Counter::default(),
            power_cuts: Counter::default(),
        }
    }

    /// Counts what was queued.
    pub(crate) fn queued(&self, weight: Weight) {
        self.queued.inc_by(signed(weight.records));
        self.queued_bytes.inc_by(signed(weight.bytes));
    }

    /// Counts what was taken from a queue.
    pub(crate) fn taken(&self, weight: Weight) {
        self.queued.dec_by(signed(weight.records));
        self.queued_bytes.dec_by(signed(weight.bytes));
    }

    /// Registers all of them.
    pub fn register(&self, registry: &mut Registry) {
        let Self {
            commits,
            records,
            commit_duration,
            refused,
            left_out,
            full,
            queued,
            queued_bytes,
            reopenings,
            power_cuts,
        } = self.clone();
        registry.register("store_commits", "Durable commits", commits);
        registry.register("store_records", "Records in durable commits", records);
        registry.register_with_unit(
            "store_commit_duration",
            "From taking a group of batches to its durability",
            Unit::Seconds,
            commit_duration,
        );
        registry.register("store_batches_refused", "Batches refused for their own sake", refused);
        registry.register(
            "store_devices_left_out",
            "Times a device was left out of a commit, which the others were written in: a record of it is damaged",
            left_out,
        );
        registry.register("store_batches_full", "Batches given back: the queue was full, or no rows were taken", full);
        registry.register("store_queued_records", "Records that wait for a writer", queued);
        registry.register_with_unit("store_queued", "What waits for a writer", Unit::Bytes, queued_bytes);
        registry.register("store_reopenings", "Reopenings after a failed commit", reopenings);
        registry.register(
            "store_power_cuts",
            "Openings that found a power cut which may have taken acknowledged readings",
            power_cuts,
        );
    }
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Measures a commit, and the time since the last sync where an operator set one. The one place of
/// the store that reads a clock.
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[allow(clippy::disallowed_methods, reason = "a duration of the writer's, which is a thread and not a core")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.elapsed().as_secs_f64()
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_their_units() {
        let mut registry = Registry::default();
        Metrics::new().register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for name in [
            "store_commits_total",
            "store_records_total",
            "store_commit_duration_seconds_count",
            "store_batches_refused_total",
            "store_devices_left_out_total",
            "store_batches_full_total",
            "store_queued_records",
            "store_queued_bytes",
            "store_reopenings_total",
            "store_power_cuts_total",
        ] {
            assert!(text.lines().any(|line| line.starts_with(&format!("{name} "))), "{name} in\n{text}");
        }
    }
}
