//! What the broker counts. No label names a device.

use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::packet::ReasonCode;

/// The broker's metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) connections: Gauge<i64, AtomicI64>,
    pub(crate) connects: Family<ConnectLabels, Counter>,
    pub(crate) closes: Family<ReasonLabels, Counter>,
    pub(crate) sessions: Gauge<i64, AtomicI64>,
    pub(crate) subscriptions: Gauge<i64, AtomicI64>,
    pub(crate) retained: Gauge<i64, AtomicI64>,
    pub(crate) read_bytes: Counter,
    pub(crate) written_bytes: Counter,
    pub(crate) deliveries: Counter,
    pub(crate) routed: Counter,
    pub(crate) sent: Counter,
    pub(crate) downlinks: Counter,
    pub(crate) answers: Family<ReasonLabels, Counter>,
    pub(crate) answer_seconds: Histogram,
    pub(crate) dropped: Family<DropLabels, Counter>,
    pub(crate) inlet_full: Counter,
}

/// How a CONNECT ended.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(crate) struct ConnectLabels {
    pub(crate) outcome: ConnectOutcome,
}

/// How a CONNECT ended.
#[derive(Clone, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
pub(crate) enum ConnectOutcome {
    New,
    Resumed,
    Refused,
}

/// A reason code as a number.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(crate) struct ReasonLabels {
    pub(crate) reason: u8,
}

impl From<ReasonCode> for ReasonLabels {
    fn from(reason: ReasonCode) -> Self {
        Self { reason: reason.as_byte() }
    }
}

/// Why a message did not reach a subscriber.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(crate) struct DropLabels {
    pub(crate) cause: DropCause,
}

/// Why a message did not reach a subscriber, or was not retained.
#[derive(Clone, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
pub(crate) enum DropCause {
    /// Its client is away, and it is of QoS 0.
    Away,
    /// Its client is away, and the queue is full.
    Full,
    /// Its client did not keep up, and the queue is full.
    Slow,
    /// A newer one took its place in a full queue.
    Evicted,
    /// Its Message Expiry Interval has passed.
    Expired,
    /// It is larger than its client takes.
    TooLarge,
    /// There is no room for one more retained message.
    NotRetained,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            connections: Gauge::default(),
            connects: Family::default(),
            closes: Family::default(),
            sessions: Gauge::default(),
            subscriptions: Gauge::default(),
            retained: Gauge::default(),
            read_bytes: Counter::default(),
            written_bytes: Counter::default(),
            deliveries: Counter::default(),
            routed: Counter::default(),
            sent: Counter::default(),
            downlinks: Counter::default(),
            answers: Family::default(),
            answer_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            dropped: Family::default(),
            inlet_full: Counter::default(),
        };
        let m = &metrics;
        registry.register("broker_connections", "Streams being served", m.connections.clone());
        registry.register("broker_connects", "CONNECTs by outcome", m.connects.clone());
        registry.register("broker_closes", "Connections this side closed, by reason code", m.closes.clone());
        registry.register("broker_sessions", "Sessions, live and stored", m.sessions.clone());
        registry.register("broker_subscriptions", "Subscriptions in the router", m.subscriptions.clone());
        registry.register("broker_retained_messages", "Retained messages", m.retained.clone());
        let bytes = Unit::Bytes;
        registry.register_with_unit("broker_read", "Bytes read", bytes.clone(), m.read_bytes.clone());
        registry.register_with_unit("broker_written", "Bytes written", bytes, m.written_bytes.clone());
        registry.register("broker_deliveries", "Messages of devices, inward", m.deliveries.clone());
        registry.register("broker_routed_messages", "Messages of plain clients", m.routed.clone());
        registry.register("broker_sent_messages", "Messages to subscribers", m.sent.clone());
        registry.register("broker_downlinks", "Messages of the node taken for devices", m.downlinks.clone());
        registry.register("broker_answers", "Answers to QoS 1 messages, by reason code", m.answers.clone());
        registry.register_with_unit(
            "broker_answer",
            "From a QoS 1 message to its answer",
            Unit::Seconds,
            m.answer_seconds.clone(),
        );
        registry.register("broker_dropped_messages", "Messages that did not arrive, by cause", m.dropped.clone());
        registry.register("broker_inlet_full", "Batches the node had no room for", m.inlet_full.clone());
        metrics
    }

    pub(crate) fn drop_message(&self, cause: DropCause) {
        self.dropped.get_or_create(&DropLabels { cause }).inc();
    }

    pub(crate) fn connect(&self, outcome: ConnectOutcome) {
        self.connects.get_or_create(&ConnectLabels { outcome }).inc();
    }
}
