//! What the gateway counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::error::Close;

/// The gateway's metrics. `Default` makes them, [`Metrics::register`] shows them.
#[derive(Clone, Default)]
pub(crate) struct Metrics {
    pub(crate) clients: Gauge,
    pub(crate) connections: Gauge,
    pub(crate) subscriptions: Gauge,
    pub(crate) readings_committed: Counter,
    pub(crate) readings_encoded: Counter,
    pub(crate) readings_queued: Counter,
    pub(crate) readings_replayed: Counter,
    pub(crate) sent_frames: Counter,
    pub(crate) sent_bytes: Counter,
    pub(crate) fell_behind: Counter,
    pub(crate) intake_gaps: Counter,
    pub(crate) commands: Family<CommandOutcome, Counter>,
    pub(crate) refused: Family<RefusedWhy, Counter>,
    closed: Family<ClosedWhy, Counter>,
}

/// What became of a client's command at the door.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(crate) struct CommandOutcome {
    pub(crate) outcome: &'static str,
}

/// Why a connection or a token was turned away.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(crate) struct RefusedWhy {
    pub(crate) reason: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ClosedWhy {
    reason: &'static str,
}

impl Metrics {
    pub(crate) fn refuse(&self, reason: &'static str) {
        self.refused.get_or_create(&RefusedWhy { reason }).inc();
    }

    pub(crate) fn close(&self, close: Close) {
        self.closed.get_or_create(&ClosedWhy { reason: close.reason() }).inc();
    }

    pub(crate) fn command(&self, outcome: &'static str) {
        self.commands.get_or_create(&CommandOutcome { outcome }).inc();
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        let mut gauge = |name: &str, help: &str, metric: &Gauge| registry.register(name, help, metric.clone());
        gauge("gateway_clients", "WebSocket clients connected", &self.clients);
        gauge("gateway_connections", "Connections that speak plain HTTP", &self.connections);
        gauge("gateway_subscriptions", "Subscriptions of all clients", &self.subscriptions);
        let mut counter = |name: &str, help: &str, metric: &Counter| registry.register(name, help, metric.clone());
        counter("gateway_readings_committed", "Readings handed over by the store's writer", &self.readings_committed);
        counter("gateway_readings_encoded", "Readings encoded, once for all who watch live", &self.readings_encoded);
        counter("gateway_readings_queued", "Readings queued for clients", &self.readings_queued);
        counter("gateway_readings_replayed", "Readings read back from the store for a client", &self.readings_replayed);
        counter("gateway_sent_frames", "Frames written to clients", &self.sent_frames);
        counter("gateway_subscriptions_behind", "Subscriptions that fell back to the store", &self.fell_behind);
        counter("gateway_intake_gaps", "Times the dispatcher fell back to the store", &self.intake_gaps);
        registry.register_with_unit(
            "gateway_sent",
            "Bytes of frames written to clients",
            Unit::Bytes,
            self.sent_bytes.clone(),
        );
        registry.register(
            "gateway_commands",
            "Commands of clients by what became of the request",
            self.commands.clone(),
        );
        registry.register("gateway_refused", "Connections and tokens turned away", self.refused.clone());
        registry.register("gateway_closed", "WebSocket clients closed by this node", self.closed.clone());
    }
}
