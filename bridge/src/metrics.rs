//! The bridge's numbers, for Prometheus.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::stats::Stats;

type Labelled = Family<[(&'static str, &'static str); 1], Counter>;

/// The counters of all shards together. No label names a device.
#[derive(Debug, Default)]
pub struct Metrics {
    uplinks: Labelled,
    downlinks: Labelled,
    commands_expired: Counter,
    late_receipts: Counter,
    settings_known: Counter,
    long_tries: Counter,
    stale: Counter,
    went_back: Counter,
    /// Devices that are left alone for damaged records, of all shards: each adds and takes away its own.
    pub devices_damaged: Gauge,
}

impl Metrics {
    /// Makes the counters and registers them.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("bridge_uplinks", "Messages of devices by what became of them", metrics.uplinks.clone());
        registry.register("bridge_downlinks", "Messages to devices by kind", metrics.downlinks.clone());
        registry.register(
            "bridge_commands_expired",
            "Commands whose time was over before an answer",
            metrics.commands_expired.clone(),
        );
        registry.register(
            "bridge_late_receipts",
            "Receipts of commands that had ended or that there are not",
            metrics.late_receipts.clone(),
        );
        registry.register(
            "bridge_settings_known",
            "Settings that devices have acknowledged",
            metrics.settings_known.clone(),
        );
        registry.register(
            "bridge_long_tries",
            "Message numbers far ahead that were tried all the same",
            metrics.long_tries.clone(),
        );
        registry.register(
            "bridge_sessions_stale",
            "Devices whose sessions were damaged on the disk and begin anew",
            metrics.stale.clone(),
        );
        registry.register(
            "bridge_devices_went_back",
            "Times a device whose state had gone back, as with an old copy of it, was asked for a new session",
            metrics.went_back.clone(),
        );
        registry.register(
            "bridge_devices_damaged",
            "Devices that are not served because a record of theirs was damaged when it was read last",
            metrics.devices_damaged.clone(),
        );
        metrics
    }

    /// Adds what a shard has counted.
    pub fn add(&self, stats: &Stats) {
        let uplinks = outcomes(stats);
        let downlinks = [("bundle", stats.bundles), ("reset_request", stats.resets), ("message", stats.sealed)];
        for (family, counts) in [(&self.uplinks, &uplinks[..]), (&self.downlinks, &downlinks[..])] {
            for (outcome, count) in counts {
                if *count > 0 {
                    family.get_or_create(&[("outcome", *outcome)]).inc_by(*count);
                }
            }
        }
        self.commands_expired.inc_by(stats.expired);
        self.late_receipts.inc_by(stats.late_receipts);
        self.settings_known.inc_by(stats.settings_known);
        self.long_tries.inc_by(stats.long_tries);
        self.stale.inc_by(stats.stale);
        self.went_back.inc_by(stats.went_back);
    }
}

/// What became of messages of devices, by the name it has in metrics.
#[must_use]
pub const fn outcomes(stats: &Stats) -> [(&'static str, u64); 16] {
    [
        ("opened", stats.opened),
        ("session", stats.sessions),
        ("duplicate", stats.duplicates),
        ("repeated_reading", stats.repeated_readings),
        ("ignored", stats.ignored),
        ("malformed", stats.malformed),
        ("forged", stats.forged),
        ("too_old", stats.too_old),
        ("too_far", stats.too_far),
        ("rolled_back", stats.rolled_back),
        ("unknown", stats.unknown),
        ("refused_handshake", stats.refused_handshakes),
        ("over_budget", stats.over_budget),
        ("unreadable", stats.unreadable),
        // Of messages that have not come, and of those among the opened that came after later ones.
        ("passed_over", stats.passed_over),
        ("late", stats.late),
    ]
}
