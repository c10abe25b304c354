//! A client that is in.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use unhidra_core::delivery::{AckToken, DownlinkRow};
use unhidra_core::ids::ClientId;
use unhidra_core::time::Timestamp;
use unhidra_core::topic::{TopicFilter, TopicName};

use super::inflight::{Arrival, Carried, Inbound, Outbound, Reply};
use super::keep_alive::KeepAlive;
use super::{Event, Remains, Resumable, Rules, SessionError, Transmit};
use crate::acl::{PublishRight, SubscribeRight};
use crate::config::Limits;
use crate::doors::{Admitted, Outcome, Ticket};
use crate::packet::{
    Acknowledgement, Assurance, ConnAck, Connect, Disconnect, Packet, PacketId, Properties, Property, Publish, QoS,
    ReasonCode, SubAck, Subscribe, SubscribeFilter, SubscriptionOptions, Text, UnsubAck, Unsubscribe, Version, Will,
};
use crate::router::Subscription;
use crate::router::message::Queued;

/// A session's subscriptions in the router, by filter.
pub(crate) type Subscriptions = BTreeMap<Box<str>, Subscription>;

/// The rows a device listens on, each with the QoS it was granted.
pub(crate) type Rows = BTreeMap<DownlinkRow, QoS>;

type Transmits = VecDeque<Transmit>;
type Events = VecDeque<Event>;

/// A client that is in.
#[derive(Debug)]
pub(super) struct Open {
    who: Admitted,
    version: Version,
    packet_max: usize,
    keep_alive: KeepAlive,
    will: Option<Will>,
    expiry_s: u32,
    inbound: Inbound,
    outbound: Outbound,
    subscriptions: Subscriptions,
    rows: Rows,
    /// Messages of the node over the client's Receive Maximum, at most `downlinks_max`.
    downlinks: VecDeque<(DownlinkRow, Bytes, Ticket)>,
    /// Why the connection is to be closed once what was published before has left.
    owed_close: Option<ReasonCode>,
}

impl Open {
    #[expect(clippy::too_many_arguments, reason = "everything a session begins with")]
    pub(super) fn new(
        connect: Connect,
        who: Admitted,
        resumed: Option<Resumable>,
        assigned: Option<&ClientId>,
        rules: &Rules,
        now: Timestamp,
        transmit: &mut Transmits,
        events: &mut Events,
    ) -> Self {
        let session_present = resumed.is_some();
        let Resumable { subscriptions, rows, in_flight } = resumed.unwrap_or_default();
        let terms = Terms::of(&connect, &rules.limits);
        let properties = match connect.version {
            Version::V3_1_1 => Properties::default(),
            Version::V5 => terms.announced(&connect, assigned, &rules.limits),
        };
        let ack = ConnAck { session_present, reason: ReasonCode::Success, properties };
        transmit.push_back(Transmit::Packet(Packet::ConnAck(ack)));
        events.extend(rows.keys().map(|row| Event::Listen(*row)));
        let mut open = Self {
            who,
            version: connect.version,
            packet_max: terms.packet_max,
            keep_alive: KeepAlive::new(terms.keep_alive_s, now),
            will: connect.will,
            expiry_s: terms.expiry_s,
            inbound: Inbound::default(),
            outbound: Outbound::new(terms.in_flight_max),
            subscriptions,
            rows,
            downlinks: VecDeque::new(),
            owed_close: None,
        };
        for (packet_id, queued) in in_flight {
            open.outbound.send_again(packet_id, queued.clone());
            transmit.push_back(Transmit::Routed { queued, packet_id: Some(packet_id), dup: true });
        }
        open
    }

    pub(super) const fn version(&self) -> Version {
        self.version
    }

    pub(super) const fn packet_max(&self) -> usize {
        self.packet_max
    }

    pub(super) fn wants_packet(&self, limits: &Limits) -> bool {
        self.version == Version::V5 || self.inbound.len() < usize::from(limits.receive_max)
    }

    pub(super) fn unanswered(&self) -> usize {
        self.inbound.len()
    }

    pub(super) fn can_deliver(&self) -> bool {
        self.outbound.has_room()
    }

    pub(super) const fn owed_close(&self) -> Option<ReasonCode> {
        self.owed_close
    }

    pub(super) const fn reading(&mut self, reads: bool, now: Timestamp) {
        self.keep_alive.reading(reads, now);
    }

    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.keep_alive.deadline()
    }

    pub(super) fn handle_packet(
        &mut self,
        packet: Packet,
        rules: &Rules,
        now: Timestamp,
        transmit: &mut Transmits,
        events: &mut Events,
    ) -> Result<(), SessionError> {
        self.keep_alive.packet(now);
        match packet {
            Packet::Publish(publish) => self.publish(publish, rules, now, transmit, events),
            Packet::PubAck(ack) => {
                self.acknowledged(&ack, rules, transmit, events);
                Ok(())
            }
            Packet::PubRel(release) => {
                // Left over from a session with a broker that serves QoS 2 [MQTT-4.3.3-11].
                let reason = ReasonCode::PacketIdentifierNotFound;
                let (packet_id, properties) = (release.packet_id, Properties::default());
                let complete = Acknowledgement { packet_id, reason, properties };
                transmit.push_back(Transmit::Packet(Packet::PubComp(complete)));
                Ok(())
            }
            Packet::Subscribe(subscribe) => {
                self.subscribe(subscribe, rules, transmit, events);
                Ok(())
            }
            Packet::Unsubscribe(unsubscribe) => {
                self.unsubscribe(unsubscribe, rules, transmit, events);
                Ok(())
            }
            Packet::PingReq => {
                transmit.push_back(Transmit::Packet(Packet::PingResp));
                Ok(())
            }
            Packet::Connect(_) => Err(SessionError::SecondConnect),
            Packet::ConnAck(_)
            | Packet::PubRec(_)
            | Packet::PubComp(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp
            | Packet::Disconnect(_)
            | Packet::Auth(_) => Err(SessionError::Unexpected { packet: packet.name() }),
        }
    }

    fn publish(
        &mut self,
        publish: Publish,
        rules: &Rules,
        now: Timestamp,
        transmit: &mut Transmits,
        events: &mut Events,
    ) -> Result<(), SessionError> {
        check_properties(&publish.properties)?;
        if publish.topic.is_empty() && self.version == Version::V5 {
            return Err(SessionError::NoTopic);
        }
        let topic = TopicName::parse(publish.topic.as_str()).map_err(SessionError::TopicName)?;
        let (bytes, levels) = (topic.as_str().len(), topic.levels().count());
        if bytes > rules.limits.topic_bytes_max || levels > rules.limits.topic_levels_max {
            return Err(SessionError::TopicTooLarge { bytes, levels });
        }
        let qos = publish.assurance.qos();
        let right = rules.acl.publish(&self.who, topic, qos, publish.retain);
        let token = match publish.assurance {
            Assurance::AtMostOnce if right == PublishRight::Denied => return Err(SessionError::NotAuthorized),
            Assurance::AtMostOnce => None,
            Assurance::AtLeastOnce { packet_id, dup } => {
                match self.inbound.receive(packet_id, dup, usize::from(rules.limits.receive_max), now) {
                    Arrival::New(token) => Some(token),
                    Arrival::Repeat => return Ok(()),
                    Arrival::IdentifierInUse => return Err(SessionError::PacketIdentifierInUse),
                    Arrival::TooMany => return Err(SessionError::ReceiveMaximum),
                }
            }
            Assurance::ExactlyOnce { .. } => return Err(SessionError::QosNotSupported),
        };
        match (right, token) {
            (PublishRight::Deliver(row), token) => events.push_back(Event::Deliver { row, publish, token }),
            (PublishRight::Route, token) => events.push_back(Event::Route { publish, token }),
            (PublishRight::Denied, Some(token)) => {
                self.answer(token, Reply::Code(ReasonCode::NotAuthorized), transmit, events);
            }
            (PublishRight::Denied, None) => {}
        }
        Ok(())
    }

    pub(super) fn answer(&mut self, token: AckToken, reply: Reply, transmit: &mut Transmits, events: &mut Events) {
        self.inbound.answer(token, reply);
        if reply == Reply::Retry {
            self.owed_close.get_or_insert(ReasonCode::ServerBusy);
        }
        // Once a close is owed no later PUBACK leaves: the message before it has none.
        while self.owed_close.is_none() {
            let Some(answered) = self.inbound.pop() else { return };
            let Reply::Code(reason) = answered.reply else { return };
            events.push_back(Event::Answered { received_at: answered.received_at, reason });
            if self.version == Version::V3_1_1 && reason.is_error() {
                self.owed_close = Some(reason);
                return;
            }
            let ack = Acknowledgement { packet_id: answered.packet_id, reason, properties: Properties::default() };
            transmit.push_back(Transmit::Packet(Packet::PubAck(ack)));
        }
    }

    pub(super) fn deliver(&mut self, queued: Queued, now: Timestamp, transmit: &mut Transmits) {
        if queued.message.is_expired(now) {
            return;
        }
        let packet_id = match queued.qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce | QoS::ExactlyOnce => Some(self.outbound.send(Carried::Routed(queued.clone()))),
        };
        transmit.push_back(Transmit::Routed { queued, packet_id, dup: false });
    }

    pub(super) fn not_sent(&mut self, packet_id: PacketId) {
        self.outbound.acknowledge(packet_id);
    }

    pub(super) fn send(
        &mut self,
        row: DownlinkRow,
        payload: Bytes,
        ticket: Ticket,
        rules: &Rules,
        transmit: &mut Transmits,
        events: &mut Events,
    ) {
        self.downlinks.push_back((row, payload, ticket));
        self.send_waiting(rules, transmit, events);
    }

    fn send_waiting(&mut self, rules: &Rules, transmit: &mut Transmits, events: &mut Events) {
        let Admitted::Device(device) = self.who else { return };
        while self.outbound.has_room() {
            let Some((row, payload, ticket)) = self.downlinks.pop_front() else { return };
            let assurance = match self.rows.get(&row) {
                None => {
                    events.push_back(Event::Published { ticket, outcome: Outcome::Lost });
                    continue;
                }
                // It asked for no acknowledgement, so that leaving is all there is to know.
                Some(QoS::AtMostOnce) => {
                    events.push_back(Event::Published { ticket, outcome: Outcome::Delivered });
                    Assurance::AtMostOnce
                }
                Some(QoS::AtLeastOnce | QoS::ExactlyOnce) => {
                    Assurance::AtLeastOnce { packet_id: self.outbound.send(Carried::Downlink(ticket)), dup: false }
                }
            };
            let topic = Text::from_checked(rules.acl.downlink_topic(&device, row));
            let publish = Publish { assurance, retain: false, topic, properties: Properties::default(), payload };
            transmit.push_back(Transmit::Packet(Packet::Publish(publish)));
        }
    }

    fn acknowledged(&mut self, ack: &Acknowledgement, rules: &Rules, transmit: &mut Transmits, events: &mut Events) {
        match self.outbound.acknowledge(ack.packet_id) {
            Some(Carried::Downlink(ticket)) => {
                let outcome = match ack.reason {
                    reason if reason.is_error() => Outcome::Refused(reason.as_byte()),
                    _ => Outcome::Delivered,
                };
                events.push_back(Event::Published { ticket, outcome });
            }
            // A routed message is done with; an identifier we do not know was done with before.
            Some(Carried::Routed(_)) | None => {}
        }
        self.send_waiting(rules, transmit, events);
    }

    fn subscribe(&mut self, subscribe: Subscribe, rules: &Rules, transmit: &mut Transmits, events: &mut Events) {
        let identifier = subscribe.properties.find(|property| match property {
            Property::SubscriptionIdentifier(id) => Some(*id),
            _ => None,
        });
        // SUBACK leaves before what is retained, which the events bring.
        let mut wanted = Vec::new();
        let reasons =
            subscribe.filters.into_iter().map(|filter| self.subscribe_one(filter, identifier, rules, &mut wanted));
        let reasons = reasons.collect();
        let (packet_id, properties) = (subscribe.packet_id, Properties::default());
        transmit.push_back(Transmit::Packet(Packet::SubAck(SubAck { packet_id, properties, reasons })));
        events.extend(wanted);
    }

    fn subscribe_one(
        &mut self,
        wanted: SubscribeFilter,
        identifier: Option<u32>,
        rules: &Rules,
        events: &mut Vec<Event>,
    ) -> ReasonCode {
        let text = wanted.filter.as_str();
        let Ok(filter) = TopicFilter::parse(text) else { return ReasonCode::TopicFilterInvalid };
        if text.len() > rules.limits.topic_bytes_max || filter.levels().count() > rules.limits.topic_levels_max {
            return ReasonCode::TopicFilterInvalid;
        }
        if self.version == Version::V5 && text.starts_with("$share/") {
            return ReasonCode::SharedSubscriptionsNotSupported;
        }
        let options = SubscriptionOptions { qos: wanted.options.qos.min(QoS::AtLeastOnce), ..wanted.options };
        match rules.acl.subscribe(&self.who, filter) {
            SubscribeRight::Denied => return ReasonCode::NotAuthorized,
            SubscribeRight::Listen(row) => {
                self.rows.insert(row, options.qos);
                events.push(Event::Listen(row));
            }
            SubscribeRight::Route => {
                let is_new = !self.subscriptions.contains_key(text);
                if is_new && self.subscriptions.len() >= rules.limits.subscriptions_per_session {
                    return ReasonCode::QuotaExceeded;
                }
                let subscription = Subscription { options, identifier };
                self.subscriptions.insert(text.into(), subscription);
                events.push(Event::Subscribe { filter: wanted.filter, subscription, is_new });
            }
        }
        match options.qos {
            QoS::AtMostOnce => ReasonCode::Success,
            QoS::AtLeastOnce | QoS::ExactlyOnce => ReasonCode::GrantedQos1,
        }
    }

    fn unsubscribe(&mut self, unsubscribe: Unsubscribe, rules: &Rules, transmit: &mut Transmits, events: &mut Events) {
        let reasons =
            unsubscribe.filters.into_iter().map(|filter| self.unsubscribe_one(filter, rules, events)).collect();
        let (packet_id, properties) = (unsubscribe.packet_id, Properties::default());
        transmit.push_back(Transmit::Packet(Packet::UnsubAck(UnsubAck { packet_id, properties, reasons })));
        self.send_waiting(rules, transmit, events);
    }

    fn unsubscribe_one(&mut self, text: Text, rules: &Rules, events: &mut Events) -> ReasonCode {
        let Ok(filter) = TopicFilter::parse(text.as_str()) else { return ReasonCode::TopicFilterInvalid };
        match rules.acl.subscribe(&self.who, filter) {
            SubscribeRight::Listen(row) if self.rows.remove(&row).is_some() => events.push_back(Event::Unlisten(row)),
            SubscribeRight::Route if self.subscriptions.remove(text.as_str()).is_some() => {
                events.push_back(Event::Unsubscribe { filter: text });
            }
            SubscribeRight::Listen(_) | SubscribeRight::Route | SubscribeRight::Denied => {
                return ReasonCode::NoSubscriptionExisted;
            }
        }
        ReasonCode::Success
    }

    /// The client ends the connection (section 3.14).
    pub(super) fn disconnected(&mut self, disconnect: &Disconnect, limits: &Limits) -> Result<(), SessionError> {
        let expiry_s = disconnect.properties.find(session_expiry_s);
        if let Some(expiry_s) = expiry_s {
            if self.expiry_s == 0 && expiry_s > 0 {
                return Err(SessionError::SessionExpiryRaised);
            }
            self.expiry_s = expiry_s.min(limits.session_expiry_max_s);
        }
        if disconnect.reason == ReasonCode::Success {
            // [MQTT-3.14.4-3]
            self.will = None;
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Remains {
        let waiting = self.downlinks.into_iter().map(|(_, _, ticket)| ticket);
        let mut lost = Vec::new();
        let mut in_flight = Vec::new();
        for sent in self.outbound.into_waiting() {
            match sent.what {
                Carried::Downlink(ticket) => lost.push(ticket),
                Carried::Routed(queued) => in_flight.push((sent.packet_id, queued)),
            }
        }
        lost.extend(waiting);
        let resumable = Resumable { subscriptions: self.subscriptions, rows: self.rows, in_flight };
        Remains { resumable, expiry_s: self.expiry_s, will: self.will, lost }
    }
}

/// What client and node have agreed on in CONNECT and CONNACK.
struct Terms {
    packet_max: usize,
    in_flight_max: u16,
    keep_alive_s: u16,
    expiry_s: u32,
}

impl Terms {
    fn of(connect: &Connect, limits: &Limits) -> Self {
        let properties = &connect.properties;
        let packet_max = properties.find(|property| match property {
            Property::MaximumPacketSize(bytes) => Some(usize::try_from(*bytes).unwrap_or(usize::MAX)),
            _ => None,
        });
        let receive_max = properties.find(|property| match property {
            Property::ReceiveMaximum(count) => Some(*count),
            _ => None,
        });
        let wanted_expiry_s = match (connect.version, connect.clean_start) {
            (Version::V5, _) => properties.find(session_expiry_s).unwrap_or(0),
            (Version::V3_1_1, true) => 0,
            (Version::V3_1_1, false) => u32::MAX,
        };
        let keep_alive_s = match connect.version {
            Version::V5 => connect.keep_alive_s.min(limits.keep_alive_max_s),
            Version::V3_1_1 => connect.keep_alive_s,
        };
        Self {
            packet_max: packet_max.unwrap_or(usize::MAX),
            in_flight_max: receive_max.unwrap_or(u16::MAX).min(limits.in_flight_max),
            keep_alive_s,
            expiry_s: wanted_expiry_s.min(limits.session_expiry_max_s),
        }
    }

    /// What CONNACK says, as far as it differs from what the client takes for granted.
    fn announced(&self, connect: &Connect, assigned: Option<&ClientId>, limits: &Limits) -> Properties {
        let packet_max = u32::try_from(limits.packet_bytes_max).unwrap_or(u32::MAX);
        let mut announced: Properties = [
            Property::ReceiveMaximum(limits.receive_max),
            Property::MaximumQos(true),
            Property::MaximumPacketSize(packet_max),
            Property::SharedSubscriptionAvailable(false),
        ]
        .into_iter()
        .collect();
        if self.expiry_s != connect.properties.find(session_expiry_s).unwrap_or(0) {
            announced.push(Property::SessionExpiryInterval(self.expiry_s));
        }
        if self.keep_alive_s != connect.keep_alive_s {
            announced.push(Property::ServerKeepAlive(self.keep_alive_s));
        }
        if let Some(id) = assigned {
            announced.push(Property::AssignedClientIdentifier(Text::from_checked(id.as_str().to_owned())));
        }
        announced
    }
}

fn session_expiry_s(property: &Property) -> Option<u32> {
    match property {
        Property::SessionExpiryInterval(s) => Some(*s),
        _ => None,
    }
}

/// What a client may not say in PUBLISH.
fn check_properties(properties: &Properties) -> Result<(), SessionError> {
    for property in properties.iter() {
        match property {
            Property::TopicAlias(_) => return Err(SessionError::TopicAlias),
            Property::SubscriptionIdentifier(_) => return Err(SessionError::SubscriptionIdentifier),
            Property::ResponseTopic(topic) => {
                TopicName::parse(topic.as_str()).map_err(SessionError::ResponseTopic)?;
            }
            _ => {}
        }
    }
    Ok(())
}
