//! A client that publishes, as sections 4.3 and 4.4 have it.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::packet::{
    Acknowledgement, Assurance, Packet, PacketId, Properties, Property, Publish, QoS, ReasonCode, Text, Version,
};

/// What the node announces in these tests.
const RECEIVE_MAX: usize = 3;

/// How many it uses.
const IDENTIFIERS: usize = 6;

#[derive(Debug)]
pub(super) struct Publisher {
    version: Version,
    next_number: u32,
    next_id: PacketId,
    new: VecDeque<(u32, QoS)>,
    in_flight: VecDeque<InFlight>,
    /// Packets that are still to be sent again in this connection, by identifier.
    again: VecDeque<PacketId>,
    /// What counts against the node's Receive Maximum in this connection.
    used: Vec<PacketId>,
    knows_alias: bool,
    to_send: VecDeque<Packet>,
    published: Vec<(u32, QoS)>,
    promised_from: u32,
}

#[derive(Debug)]
struct InFlight {
    packet_id: PacketId,
    number: u32,
    qos: QoS,
    is_released: bool,
}

impl Publisher {
    pub(super) fn new(version: Version) -> Self {
        Self {
            version,
            next_number: 0,
            next_id: PacketId::FIRST,
            new: VecDeque::new(),
            in_flight: VecDeque::new(),
            again: VecDeque::new(),
            used: Vec::new(),
            knows_alias: false,
            to_send: VecDeque::new(),
            published: Vec::new(),
            promised_from: 0,
        }
    }

    pub(super) fn publish(&mut self, qos: QoS) {
        self.new.push_back((self.next_number, qos));
        self.published.push((self.next_number, qos));
        self.next_number += 1;
    }

    /// What was published is not promised to arrive any more: a session has ended.
    pub(super) fn nothing_more_is_promised(&mut self) {
        self.published.clear();
        self.promised_from = self.next_number;
    }

    /// The first number behind the last session that ended.
    pub(super) const fn promised_from(&self) -> u32 {
        self.promised_from
    }

    pub(super) fn promised(&self, qos: QoS) -> impl Iterator<Item = u32> {
        self.published.iter().filter(move |(_, of)| *of == qos).map(|(number, _)| *number)
    }

    pub(super) fn connected(&mut self, is_present: bool) {
        if !is_present {
            self.in_flight.drain(..).for_each(|gone| self.published.retain(|(number, _)| *number != gone.number));
        }
        self.again = self.in_flight.iter().map(|sent| sent.packet_id).collect();
    }

    pub(super) fn lost(&mut self) {
        self.again.clear();
        self.used.clear();
        self.to_send.clear();
        self.knows_alias = false;
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.new.is_empty() || !self.in_flight.is_empty()
    }

    /// What goes on the link now.
    pub(super) fn send(&mut self) -> VecDeque<Packet> {
        while let Some(packet_id) = self.again.front().copied() {
            let sent = self.in_flight.iter().find(|sent| sent.packet_id == packet_id).expect("in flight");
            let (number, qos, is_released) = (sent.number, sent.qos, sent.is_released);
            if is_released {
                self.to_send.push_back(Packet::PubRel(success(packet_id)));
            } else if self.used.len() < RECEIVE_MAX {
                self.used.push(packet_id);
                self.put(number, qos, Some(packet_id), true);
            } else {
                break;
            }
            self.again.pop_front();
        }
        while self.again.is_empty()
            && let Some((number, qos)) = self.new.front().copied()
        {
            if qos == QoS::AtMostOnce {
                self.put(number, qos, None, false);
            } else if self.used.len() < RECEIVE_MAX && self.in_flight.len() < IDENTIFIERS {
                let packet_id = self.free_id();
                self.used.push(packet_id);
                self.in_flight.push_back(InFlight { packet_id, number, qos, is_released: false });
                self.put(number, qos, Some(packet_id), false);
            } else {
                break;
            }
            self.new.pop_front();
        }
        std::mem::take(&mut self.to_send)
    }

    pub(super) fn handle(&mut self, packet: Packet) {
        match packet {
            Packet::ConnAck(ack) => assert_eq!(ack.reason, ReasonCode::Success),
            Packet::PubAck(ack) => self.end(ack.packet_id, QoS::AtLeastOnce),
            Packet::PubRec(ack) => {
                assert_eq!(ack.reason, ReasonCode::Success);
                if let Some(sent) = self.in_flight.iter_mut().find(|sent| sent.packet_id == ack.packet_id) {
                    sent.is_released = true;
                }
                self.to_send.push_back(Packet::PubRel(success(ack.packet_id)));
            }
            Packet::PubComp(ack) => self.end(ack.packet_id, QoS::ExactlyOnce),
            Packet::Disconnect(told) => assert_eq!(told.reason, ReasonCode::SessionTakenOver),
            other => panic!("{other:?}"),
        }
    }

    fn end(&mut self, packet_id: PacketId, qos: QoS) {
        self.used.retain(|used| *used != packet_id);
        if let Some(at) = self.in_flight.iter().position(|sent| sent.packet_id == packet_id) {
            assert_eq!(self.in_flight[at].qos, qos);
            self.in_flight.remove(at);
        }
    }

    /// Few identifiers, so that each is used often.
    fn free_id(&mut self) -> PacketId {
        while self.in_flight.iter().any(|sent| sent.packet_id == self.next_id) {
            self.next_id = self.next_id.next();
            if usize::from(self.next_id.get()) > IDENTIFIERS {
                self.next_id = PacketId::FIRST;
            }
        }
        self.next_id
    }

    fn put(&mut self, number: u32, qos: QoS, packet_id: Option<PacketId>, dup: bool) {
        let assurance = match (qos, packet_id) {
            (QoS::AtLeastOnce, Some(packet_id)) => Assurance::AtLeastOnce { packet_id, dup },
            (QoS::ExactlyOnce, Some(packet_id)) => Assurance::ExactlyOnce { packet_id, dup },
            _ => Assurance::AtMostOnce,
        };
        let mut properties = Properties::default();
        let mut topic = Text::from("some/topic");
        if self.version == Version::V5 {
            properties.push(Property::TopicAlias(2));
            if self.knows_alias {
                topic = Text::default();
            }
            self.knows_alias = true;
        }
        let payload = Bytes::copy_from_slice(&number.to_be_bytes());
        self.to_send.push_back(Packet::Publish(Publish { assurance, retain: false, topic, properties, payload }));
    }
}

pub(super) fn success(packet_id: PacketId) -> Acknowledgement {
    Acknowledgement { packet_id, reason: ReasonCode::Success, properties: Properties::default() }
}
