//! What an admitted client publishes, and how it is answered.

use unhidra_core::delivery::AckToken;
use unhidra_core::time::Timestamp;
use unhidra_core::topic::TopicName;

use super::error::words_of;
use super::inbound::{Arrival, Level, Release, Reply};
use super::keeping::After;
use super::open::{Open, answer, plain};
use super::{Change, Event, Out, Rules, SessionError};
use crate::acl::{PublishAsked, PublishRight};
use crate::packet::{Assurance, Packet, PacketId, Properties, Property, Publish, ReasonCode, Version};

impl Open {
    pub(super) fn publish(
        &mut self,
        mut publish: Publish,
        rules: &Rules,
        now: Timestamp,
        out: &mut Out,
    ) -> Result<(), SessionError> {
        check_properties(&publish.properties)?;
        if self.version == Version::V5 {
            let limits = &rules.limits;
            self.client_aliases.resolve(&mut publish, limits.topic_aliases_max, limits.topic_bytes_max)?;
        }
        let topic = TopicName::parse(publish.topic.as_str()).map_err(SessionError::TopicName)?;
        let (bytes, levels) = (topic.as_str().len(), topic.levels().count());
        if bytes > rules.limits.topic_bytes_max || levels > rules.limits.topic_levels_max {
            return Err(SessionError::TopicTooLarge { bytes, levels });
        }
        let qos = publish.assurance.qos();
        let (right, _) = rules.acl.publish(&self.who, PublishAsked { topic, qos, retain: publish.retain });
        let exchange = match publish.assurance {
            Assurance::AtMostOnce if right == PublishRight::Denied => return Err(SessionError::NotAuthorized),
            Assurance::AtMostOnce => None,
            Assurance::AtLeastOnce { packet_id, dup } => Some((packet_id, Level::AtLeastOnce, dup)),
            Assurance::ExactlyOnce { packet_id, dup } => Some((packet_id, Level::ExactlyOnce, dup)),
        };
        let token = match exchange {
            None => None,
            Some((packet_id, level, dup)) => {
                // 3.1.1 knows no Receive Maximum: what waits for our answer is bounded by reading no
                // more, what waits for PUBREL by the number of identifiers.
                let max = match self.version {
                    Version::V5 => usize::from(rules.limits.receive_max),
                    Version::V3_1_1 => usize::MAX,
                };
                match self.inbound.receive(packet_id, level, dup, max, now) {
                    Arrival::New(token) => Some(token),
                    Arrival::Repeat => {
                        self.answer_in_order(out);
                        return Ok(());
                    }
                    Arrival::IdentifierInUse => return Err(SessionError::PacketIdentifierInUse),
                    Arrival::TooMany => return Err(SessionError::ReceiveMaximum),
                }
            }
        };
        if rules.mqtt.payload_format_check && !is_as_it_says(&publish.properties, &publish.payload) {
            let Some(token) = token else { return Err(SessionError::PayloadFormat) };
            self.answer(token, Reply::Code(ReasonCode::PayloadFormatInvalid), out);
            return Ok(());
        }
        match (right, token) {
            (PublishRight::Denied, Some(token)) => self.answer(token, Reply::Code(ReasonCode::NotAuthorized), out),
            (PublishRight::Denied, None) => {}
            (PublishRight::Deliver(row), token) => out.events.push_back(Event::Deliver { row, publish, token }),
            (PublishRight::Route, token) => {
                if let (Some(token), Some((packet_id, Level::ExactlyOnce, _))) = (token, exchange) {
                    self.inbound.must_keep(token);
                    self.keep(|| Change::Received(packet_id), Some(After::Answer(token)), out);
                }
                out.events.push_back(Event::Route { publish, token });
            }
        }
        Ok(())
    }

    pub(super) fn answer(&mut self, token: AckToken, reply: Reply, out: &mut Out) {
        self.inbound.answer(token, reply);
        if reply == Reply::Retry {
            self.owed_close.get_or_insert(ReasonCode::ServerBusy);
        }
        self.answer_in_order(out);
    }

    pub(super) fn answer_in_order(&mut self, out: &mut Out) {
        // Once a close is owed no later answer leaves: the message before it has none.
        while self.owed_close.is_none() {
            let Some(answered) = self.inbound.pop() else { return };
            let Reply::Code(reason) = answered.reply else { return };
            out.events.push_back(Event::Answered { received_at: answered.received_at, reason });
            if self.version == Version::V3_1_1 && reason.is_error() {
                self.owed_close = Some(reason);
                return;
            }
            let packet = match answered.level {
                Level::AtLeastOnce => Packet::PubAck,
                Level::ExactlyOnce => Packet::PubRec,
            };
            let mut ack = plain(answered.packet_id, reason);
            if reason.is_error() && self.explains {
                // [MQTT-3.1.2-29]
                let words = words_of(reason).map(|words| Property::ReasonString(words.into()));
                words.into_iter().for_each(|words| ack.properties.push(words));
            }
            out.packet(packet(ack));
        }
    }

    /// PUBREL has come: the client will not send the message again (section 4.3.3).
    pub(super) fn released(&mut self, packet_id: PacketId, out: &mut Out) -> Result<(), SessionError> {
        let complete = |reason| After::Transmit(answer(Packet::PubComp, packet_id, reason));
        match self.inbound.release(packet_id) {
            Release::Done => {
                self.keep(|| Change::Released(packet_id), Some(complete(ReasonCode::Success)), out);
                Ok(())
            }
            // Behind a PUBCOMP that was lost, or of a session this node does not have.
            Release::Unknown => {
                out.transmit.push_back(answer(Packet::PubComp, packet_id, ReasonCode::PacketIdentifierNotFound));
                Ok(())
            }
            Release::TooEarly => Err(SessionError::OutOfPlace { packet: "PUBREL" }),
        }
    }
}

/// Whether the payload is UTF-8 where the Payload Format Indicator says so (section 3.3.2.3.2).
pub(super) fn is_as_it_says(properties: &Properties, payload: &[u8]) -> bool {
    let says_utf_8 = properties.iter().any(|property| *property == Property::PayloadFormatIndicator(true));
    !says_utf_8 || std::str::from_utf8(payload).is_ok()
}

/// What a client may not say in PUBLISH, nor of its Will.
pub(super) fn check_properties(properties: &Properties) -> Result<(), SessionError> {
    for property in properties.iter() {
        match property {
            Property::SubscriptionIdentifier(_) => return Err(SessionError::SubscriptionIdentifier),
            Property::ResponseTopic(topic) => {
                TopicName::parse(topic.as_str()).map_err(SessionError::ResponseTopic)?;
            }
            _ => {}
        }
    }
    Ok(())
}
