//! What the broker counts. No label names a device or a client.

use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::packet::{QoS, ReasonCode, Version};
use crate::sys::{Present, Totals};

/// The broker's metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) connections: Family<ListenerLabels, Gauge<i64, AtomicI64>>,
    pub(crate) accepted: Counter,
    connects: Family<ConnectLabels, Counter>,
    /// CONNECTs of every outcome.
    connects_all: Counter,
    refusals: Family<RefusalLabels, Counter>,
    ends: Family<EndLabels, Counter>,
    sessions: Family<StandingLabels, Gauge<i64, AtomicI64>>,
    pub(crate) expired: Counter,
    pub(crate) subscriptions: Gauge<i64, AtomicI64>,
    shared_subscriptions: Gauge<i64, AtomicI64>,
    retained: Gauge<i64, AtomicI64>,
    retained_bytes: Gauge<i64, AtomicI64>,
    queued: Gauge<i64, AtomicI64>,
    queued_bytes: Gauge<i64, AtomicI64>,
    in_flight: Gauge<i64, AtomicI64>,
    pub(crate) read_bytes: Counter,
    pub(crate) written_bytes: Counter,
    packets_received: Counter,
    packets_sent: Counter,
    received: ByQos,
    received_bytes: Counter,
    sent: ByQos,
    sent_bytes: Counter,
    pub(crate) deliveries: Counter,
    routed: Counter,
    pub(crate) downlinks: Counter,
    answers: Family<ReasonLabels, Counter>,
    /// That of `answers` with Success.
    accepted_messages: Counter,
    pub(crate) answer_seconds: Histogram,
    dropped: Family<DropLabels, Counter>,
    dropped_all: Counter,
    pub(crate) inlet_full: Counter,
}

/// What one connection has counted and not told yet: plain numbers, told once a turn of its loop,
/// so that a message costs no shared write.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) packets_received: u32,
    pub(crate) packets_sent: u32,
    /// Messages of plain clients.
    pub(crate) routed: u32,
    /// Messages answered with Success.
    pub(crate) accepted: u32,
    received: [u32; 3],
    received_bytes: u64,
    sent: [u32; 3],
    sent_bytes: u64,
}

impl Tally {
    /// A PUBLISH has come, with so many bytes of payload.
    pub(crate) const fn received(&mut self, qos: QoS, bytes: usize) {
        self.received[qos.as_bits() as usize] += 1;
        self.received_bytes += bytes as u64;
    }

    /// Whether a PUBLISH has come or leaves.
    pub(crate) fn has_messages(&self) -> bool {
        self.received.iter().chain(&self.sent).any(|count| *count > 0)
    }

    /// A PUBLISH leaves, with so many bytes of payload.
    pub(crate) const fn sent(&mut self, qos: QoS, bytes: usize) {
        self.sent[qos.as_bits() as usize] += 1;
        self.sent_bytes += bytes as u64;
    }
}

/// One counter for each QoS, found without a look-up.
#[derive(Debug)]
struct ByQos {
    family: Family<QosLabels, Counter>,
    each: [Counter; 3],
}

impl Default for ByQos {
    fn default() -> Self {
        let family = Family::<QosLabels, Counter>::default();
        let each = [0, 1, 2].map(|qos| family.get_or_create_owned(&QosLabels { qos }));
        Self { family, each }
    }
}

impl ByQos {
    fn add(&self, counts: [u32; 3]) {
        for (counter, count) in self.each.iter().zip(counts) {
            add(counter, count);
        }
    }

    fn sum(&self) -> u64 {
        self.each.iter().map(Counter::get).sum()
    }
}

/// By which listener.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(crate) struct ListenerLabels {
    pub(crate) listener: &'static str,
}

/// A QoS as a number.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct QosLabels {
    qos: u8,
}

/// How a CONNECT ended, and in which version it was.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ConnectLabels {
    outcome: ConnectOutcome,
    version: &'static str,
}

/// How a CONNECT ended.
#[derive(Clone, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
pub(crate) enum ConnectOutcome {
    New,
    Resumed,
    Refused,
}

/// Why somebody was not let in.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RefusalLabels {
    cause: String,
}

/// Who ended a connection, and with which reason code; that of a connection that was lost is 0.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct EndLabels {
    by: EndedBy,
    reason: u8,
}

/// Who ended a connection.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
pub(crate) enum EndedBy {
    /// This side, or the node.
    Broker,
    /// The client, by DISCONNECT.
    Client,
    /// Nobody said anything: the stream broke off.
    Nobody,
}

/// Whether a session's client is here.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct StandingLabels {
    standing: &'static str,
}

/// A reason code as a number.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ReasonLabels {
    reason: u8,
}

impl From<ReasonCode> for ReasonLabels {
    fn from(reason: ReasonCode) -> Self {
        Self { reason: reason.as_byte() }
    }
}

/// Why a message did not reach a subscriber.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct DropLabels {
    cause: DropCause,
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
        let answers = Family::<ReasonLabels, Counter>::default();
        let m = Self {
            connections: Family::default(),
            accepted: Counter::default(),
            connects: Family::default(),
            connects_all: Counter::default(),
            refusals: Family::default(),
            ends: Family::default(),
            sessions: Family::default(),
            expired: Counter::default(),
            subscriptions: Gauge::default(),
            shared_subscriptions: Gauge::default(),
            retained: Gauge::default(),
            retained_bytes: Gauge::default(),
            queued: Gauge::default(),
            queued_bytes: Gauge::default(),
            in_flight: Gauge::default(),
            read_bytes: Counter::default(),
            written_bytes: Counter::default(),
            packets_received: Counter::default(),
            packets_sent: Counter::default(),
            received: ByQos::default(),
            received_bytes: Counter::default(),
            sent: ByQos::default(),
            sent_bytes: Counter::default(),
            deliveries: Counter::default(),
            routed: Counter::default(),
            downlinks: Counter::default(),
            accepted_messages: answers.get_or_create_owned(&ReasonCode::Success.into()),
            answers,
            answer_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            dropped: Family::default(),
            dropped_all: Counter::default(),
            inlet_full: Counter::default(),
        };
        m.register_clients(registry);
        m.register_messages(registry);
        m
    }

    fn register_clients(&self, registry: &mut Registry) {
        registry.register("broker_connections", "Streams being served, by listener", self.connections.clone());
        registry.register("broker_accepted", "Streams accepted", self.accepted.clone());
        registry.register("broker_connects", "CONNECTs by outcome and version", self.connects.clone());
        registry.register(
            "broker_connect_refusals",
            "Streams that came to no session, by cause",
            self.refusals.clone(),
        );
        registry.register("broker_ends", "Ends of connections, by who ended them and reason code", self.ends.clone());
        registry.register("broker_sessions", "Sessions, connected and away", self.sessions.clone());
        registry.register("broker_expired_sessions", "Sessions whose time had come", self.expired.clone());
        registry.register("broker_subscriptions", "Subscriptions in the router", self.subscriptions.clone());
        registry.register("broker_shared_subscriptions", "Those of them in groups", self.shared_subscriptions.clone());
        let bytes = || Unit::Bytes;
        registry.register_with_unit("broker_read", "Bytes read", bytes(), self.read_bytes.clone());
        registry.register_with_unit("broker_written", "Bytes written", bytes(), self.written_bytes.clone());
    }

    fn register_messages(&self, registry: &mut Registry) {
        let bytes = || Unit::Bytes;
        registry.register("broker_retained_messages", "Retained messages", self.retained.clone());
        registry.register_with_unit("broker_retained", "What they take", bytes(), self.retained_bytes.clone());
        registry.register("broker_queued_messages", "Messages in the queues of sessions", self.queued.clone());
        registry.register_with_unit("broker_queued", "What they take", bytes(), self.queued_bytes.clone());
        registry.register("broker_in_flight_messages", "Messages sent, not acknowledged", self.in_flight.clone());
        registry.register("broker_received_packets", "Control packets read", self.packets_received.clone());
        registry.register("broker_sent_packets", "Control packets written", self.packets_sent.clone());
        registry.register("broker_received_messages", "Messages of clients, by QoS", self.received.family.clone());
        registry.register_with_unit("broker_received_payload", "Their payloads", bytes(), self.received_bytes.clone());
        registry.register("broker_sent_messages", "Messages to clients, by QoS", self.sent.family.clone());
        registry.register_with_unit("broker_sent_payload", "Their payloads", bytes(), self.sent_bytes.clone());
        registry.register("broker_deliveries", "Messages of devices, inward", self.deliveries.clone());
        registry.register("broker_routed_messages", "Messages of plain clients", self.routed.clone());
        registry.register("broker_downlinks", "Messages of the node taken for devices", self.downlinks.clone());
        registry.register("broker_answers", "Answers to messages, by reason code", self.answers.clone());
        registry.register_with_unit(
            "broker_answer",
            "From a message to its answer, where that was not at once",
            Unit::Seconds,
            self.answer_seconds.clone(),
        );
        registry.register("broker_dropped_messages", "Messages that did not arrive, by cause", self.dropped.clone());
        registry.register("broker_inlet_full", "Batches the node had no room for", self.inlet_full.clone());
    }

    pub(crate) fn drop_message(&self, cause: DropCause) {
        self.dropped_all.inc();
        self.dropped.get_or_create(&DropLabels { cause }).inc();
    }

    pub(crate) fn connect(&self, outcome: ConnectOutcome, version: Version) {
        self.connects_all.inc();
        self.connects.get_or_create(&ConnectLabels { outcome, version: version.number() }).inc();
    }

    /// Somebody was not let in, for a cause in a word.
    pub(crate) fn refuse(&self, cause: &str) {
        self.refusals.get_or_create(&RefusalLabels { cause: cause.to_owned() }).inc();
    }

    pub(crate) fn end(&self, by: EndedBy, reason: u8) {
        self.ends.get_or_create(&EndLabels { by, reason }).inc();
    }

    /// A message is answered so.
    pub(crate) fn answer(&self, reason: ReasonCode) {
        self.answers.get_or_create(&reason.into()).inc();
    }

    /// Takes what a connection has counted.
    pub(crate) fn take(&self, tally: &mut Tally) {
        let Tally { packets_received, packets_sent, routed, accepted, received, received_bytes, sent, sent_bytes } =
            std::mem::take(tally);
        add(&self.routed, routed);
        add(&self.accepted_messages, accepted);
        if packets_received > 0 {
            self.packets_received.inc_by(packets_received.into());
            self.received.add(received);
            if received_bytes > 0 {
                self.received_bytes.inc_by(received_bytes);
            }
        }
        if packets_sent > 0 {
            self.packets_sent.inc_by(packets_sent.into());
            self.sent.add(sent);
            if sent_bytes > 0 {
                self.sent_bytes.inc_by(sent_bytes);
            }
        }
    }

    /// What has been counted since the start.
    pub(crate) fn totals(&self) -> Totals {
        Totals {
            bytes_received: self.read_bytes.get(),
            bytes_sent: self.written_bytes.get(),
            packets_received: self.packets_received.get(),
            packets_sent: self.packets_sent.get(),
            publishes_received: self.received.sum(),
            publishes_sent: self.sent.sum(),
            publishes_dropped: self.dropped_all.get(),
            publish_bytes_received: self.received_bytes.get(),
            publish_bytes_sent: self.sent_bytes.get(),
            sockets: self.accepted.get(),
            connects: self.connects_all.get(),
            expired: self.expired.get(),
        }
    }

    /// Shows what there is now.
    pub(crate) fn show(&self, present: &Present) {
        let gauge = |gauge: &Gauge<i64, AtomicI64>, count| {
            gauge.set(crate::gauge(count));
        };
        for (standing, count) in [("connected", present.connected), ("away", present.disconnected)] {
            gauge(&self.sessions.get_or_create(&StandingLabels { standing }), count);
        }
        gauge(&self.shared_subscriptions, present.shared_subscriptions);
        gauge(&self.retained, present.retained);
        gauge(&self.retained_bytes, present.retained_bytes);
        gauge(&self.queued, present.queued);
        gauge(&self.queued_bytes, present.queued_bytes);
        gauge(&self.in_flight, present.in_flight);
    }
}

fn add(counter: &Counter, count: u32) {
    if count > 0 {
        counter.inc_by(count.into());
    }
}
