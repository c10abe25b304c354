//! What is counted of it.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use unhidra_store::Reason;

/// Why rows went.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Why {
    reason: &'static str,
}

/// A clone counts into the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    rows: Family<Why, Counter>,
    bytes: Counter,
    commands: Counter,
    pub(super) disk_bytes: Gauge,
    pub(super) disk_bytes_max: Gauge,
    pub(super) oldest: Gauge,
    pub(super) held: Gauge,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let Self { rows, bytes, commands, disk_bytes, disk_bytes_max, oldest, held } = metrics.clone();
        registry.register("retention_rows_trimmed", "Readings that went, by why", rows);
        registry.register_with_unit("retention_trimmed", "About what they weighed", Unit::Bytes, bytes);
        registry.register("retention_commands_forgotten", "Commands that were over for long enough", commands);
        registry.register_with_unit("store_disk", "What the store takes of the disk", Unit::Bytes, disk_bytes);
        registry.register_with_unit(
            "store_disk_max",
            "What it may take; 0 without a bound",
            Unit::Bytes,
            disk_bytes_max,
        );
        registry.register_with_unit(
            "store_oldest_reading_timestamp",
            "When the oldest reading was received that is kept, since the Unix epoch; 0 without one",
            Unit::Seconds,
            oldest,
        );
        registry.register("store_readings_held", "1 while no readings are taken, for want of room", held);
        metrics
    }

    pub(super) fn trimmed(&self, reason: Reason, rows: u64) {
        let reason = match reason {
            Reason::Age => "age",
            Reason::Rows => "rows",
            Reason::Bytes => "bytes",
            Reason::Disk => "disk",
        };
        self.rows.get_or_create(&Why { reason }).inc_by(rows);
    }

    pub(super) fn freed(&self, bytes: u64) {
        self.bytes.inc_by(bytes);
    }

    pub(super) fn forgotten(&self, commands: usize) {
        self.commands.inc_by(commands as u64);
    }
}

/// What a gauge shows of a count.
pub(super) fn shown(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
