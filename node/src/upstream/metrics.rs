//! What is counted of outside brokers. Labels are their names in the configuration; none names a device.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use unhidra_bridge::{Stats, outcomes};

type Labels = [(&'static str, String); 1];
type Outcomes = [(&'static str, String); 2];

/// The numbers of all outside brokers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    messages: Family<Outcomes, Counter>,
    downlinks: Family<Outcomes, Counter>,
    connected: Family<Labels, Gauge>,
    connections: Family<Labels, Counter>,
    failures: Family<Labels, Counter>,
}

impl Metrics {
    /// Makes the numbers and registers them.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "upstream_messages",
            "Messages of outside brokers by what became of them",
            metrics.messages.clone(),
        );
        registry.register(
            "upstream_downlinks",
            "Messages to devices behind outside brokers by what became of them there",
            metrics.downlinks.clone(),
        );
        registry.register("upstream_connected", "Whether an outside broker is reached", metrics.connected.clone());
        registry.register(
            "upstream_connections",
            "Times an outside broker has let the node in",
            metrics.connections.clone(),
        );
        registry.register(
            "upstream_failures",
            "Connections to an outside broker that could not be made, or ended",
            metrics.failures.clone(),
        );
        metrics
    }

    /// A message of an outside broker was refused before the bridge saw it, or this was seen about it.
    pub(super) fn message(&self, upstream: &str, outcome: &'static str) {
        self.count(upstream, outcome, 1);
    }

    /// What the bridge found.
    pub(super) fn opened(&self, upstream: &str, stats: &Stats) {
        for (outcome, count) in outcomes(stats).into_iter().filter(|(_, count)| *count > 0) {
            self.count(upstream, outcome, count);
        }
    }

    /// So many messages are not acknowledged on this connection, and are to come again.
    pub(super) fn passed_by(&self, upstream: &str, count: u64) {
        self.count(upstream, "passed_by", count);
    }

    fn count(&self, upstream: &str, outcome: &'static str, count: u64) {
        let labels = [("upstream", upstream.to_owned()), ("outcome", outcome.to_owned())];
        self.messages.get_or_create(&labels).inc_by(count);
    }

    /// A message to a device came to this.
    pub(super) fn downlink(&self, upstream: &str, outcome: &'static str) {
        let labels = [("upstream", upstream.to_owned()), ("outcome", outcome.to_owned())];
        self.downlinks.get_or_create(&labels).inc();
    }

    /// An outside broker is reached, or is not.
    pub(super) fn reached(&self, upstream: &str, reached: bool) {
        let labels = [("upstream", upstream.to_owned())];
        self.connected.get_or_create(&labels).set(reached.into());
        if reached {
            self.connections.get_or_create(&labels).inc();
        }
    }

    /// A connection could not be made, or ended.
    pub(super) fn failed(&self, upstream: &str) {
        self.failures.get_or_create(&[("upstream", upstream.to_owned())]).inc();
    }
}
