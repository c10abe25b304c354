//! A client that subscribes, as section 4.3 has it: method B of figure 4.3, and answers when told
//! to.

use std::collections::{BTreeSet, VecDeque};

use super::publisher::success;
use crate::packet::{Assurance, Packet, PacketId, Property, QoS, ReasonCode, Version};

/// What it announces.
pub(super) const RECEIVE_MAX: u16 = 2;

#[derive(Debug)]
pub(super) struct Subscriber {
    version: Version,
    /// QoS 2 messages it has and that are not released.
    held: BTreeSet<PacketId>,
    /// Messages of this connection whose exchange is not complete.
    open: BTreeSet<PacketId>,
    owed: VecDeque<Packet>,
    to_send: VecDeque<Packet>,
    knows_alias: bool,
    delivered: Vec<(QoS, u32)>,
}

impl Subscriber {
    pub(super) fn new(version: Version) -> Self {
        Self {
            version,
            held: BTreeSet::new(),
            open: BTreeSet::new(),
            owed: VecDeque::new(),
            to_send: VecDeque::new(),
            knows_alias: false,
            delivered: Vec::new(),
        }
    }

    pub(super) fn connected(&mut self, is_present: bool) {
        if !is_present {
            self.held.clear();
        }
    }

    pub(super) fn lost(&mut self) {
        self.open.clear();
        self.owed.clear();
        self.to_send.clear();
        self.knows_alias = false;
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.owed.is_empty() || !self.to_send.is_empty()
    }

    pub(super) fn delivered(&self, qos: QoS) -> Vec<u32> {
        self.delivered.iter().filter(|(of, _)| *of == qos).map(|(_, number)| *number).collect()
    }

    /// The oldest answer it owes leaves.
    pub(super) fn answer(&mut self) {
        let Some(packet) = self.owed.pop_front() else { return };
        match &packet {
            Packet::PubAck(ack) | Packet::PubComp(ack) => self.open.remove(&ack.packet_id),
            _ => true,
        };
        self.to_send.push_back(packet);
    }

    pub(super) fn send(&mut self) -> VecDeque<Packet> {
        std::mem::take(&mut self.to_send)
    }

    pub(super) fn handle(&mut self, packet: Packet) {
        match packet {
            Packet::ConnAck(ack) => assert_eq!(ack.reason, ReasonCode::Success),
            Packet::Publish(publish) => {
                let alias = publish.properties.iter().find_map(|property| match property {
                    Property::TopicAlias(number) => Some(*number),
                    _ => None,
                });
                match (alias, publish.topic.as_str()) {
                    (Some(1), "some/topic") => self.knows_alias = true,
                    (Some(1), "") => assert!(self.knows_alias, "an alias nobody has set"),
                    (None, "some/topic") => {}
                    other => panic!("{other:?}"),
                }
                let bytes: [u8; 4] = publish.payload.as_ref().try_into().expect("a number");
                let number = u32::from_be_bytes(bytes);
                match publish.assurance {
                    Assurance::AtMostOnce => self.delivered.push((QoS::AtMostOnce, number)),
                    Assurance::AtLeastOnce { packet_id, .. } => {
                        self.delivered.push((QoS::AtLeastOnce, number));
                        self.begin(packet_id);
                        self.owed.push_back(Packet::PubAck(success(packet_id)));
                    }
                    Assurance::ExactlyOnce { packet_id, .. } => {
                        if self.held.insert(packet_id) {
                            self.delivered.push((QoS::ExactlyOnce, number));
                        }
                        self.begin(packet_id);
                        self.owed.push_back(Packet::PubRec(success(packet_id)));
                    }
                }
            }
            Packet::PubRel(ack) => {
                self.held.remove(&ack.packet_id);
                self.owed.push_back(Packet::PubComp(success(ack.packet_id)));
            }
            Packet::Disconnect(told) => assert_eq!(told.reason, ReasonCode::SessionTakenOver),
            other => panic!("{other:?}"),
        }
    }

    fn begin(&mut self, packet_id: PacketId) {
        self.open.insert(packet_id);
        let max = if self.version == Version::V5 { RECEIVE_MAX } else { 4 };
        assert!(self.open.len() <= usize::from(max), "over the Receive Maximum: {:?}", self.open);
    }
}
