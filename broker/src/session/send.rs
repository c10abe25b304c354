//! What an admitted client is sent, and how it answers.

use bytes::Bytes;
use unhidra_core::delivery::DownlinkRow;
use unhidra_core::time::Timestamp;

use super::keeping::After;
use super::open::{Open, answer};
use super::outbound::{Carried, Progress};
use super::{Change, Event, Out, Rules, SessionError, Transmit};
use crate::doors::{Outcome, Ticket};
use crate::packet::{Acknowledgement, Assurance, Packet, PacketId, Properties, Publish, QoS, ReasonCode, Text};
use crate::router::message::{Alias, Queued};

impl Open {
    pub(super) fn deliverable(&self) -> usize {
        self.outbound.room()
    }

    pub(super) fn deliver(&mut self, queued: Queued, now: Timestamp, out: &mut Out) -> bool {
        if queued.message.is_expired(now) {
            return false;
        }
        if queued.qos == QoS::AtMostOnce {
            let alias = self.alias(&queued);
            out.transmit.push_back(Transmit::Routed { queued, packet_id: None, dup: false, alias });
            return true;
        }
        let packet_id = self.outbound.send(Carried::Routed(queued.clone()));
        let is_kept = queued.qos == QoS::ExactlyOnce && self.keeping.is_some();
        // What waits to be stored leaves later than what comes after it, which must not name an alias
        // that it sets.
        let alias = if is_kept { None } else { self.alias(&queued) };
        let transmit = Transmit::Routed { queued: queued.clone(), packet_id: Some(packet_id), dup: false, alias };
        if queued.qos == QoS::ExactlyOnce {
            self.keep(|| Change::Sent { packet_id, queued }, Some(After::Transmit(transmit)), out);
        } else {
            // Sent under another identifier after a crash, it would have been sent at least once.
            self.keep(|| Change::Sent { packet_id, queued }, None, out);
            out.transmit.push_back(transmit);
        }
        true
    }

    /// What left in an earlier connection leaves again, as far as the client takes it.
    pub(super) fn send_again(&mut self, out: &mut Out) {
        while let Some((packet_id, queued)) = self.outbound.send_again() {
            let alias = self.alias(&queued);
            out.transmit.push_back(Transmit::Routed { queued, packet_id: Some(packet_id), dup: true, alias });
        }
    }

    /// What stands for the message's topic. None is set by one that may be too large to leave.
    fn alias(&mut self, queued: &Queued) -> Option<Alias> {
        let may_set = queued.size_max() <= self.packet_max;
        self.our_aliases.get(queued.message.topic_text(), may_set)
    }

    pub(super) fn not_sent(&mut self, packet_id: PacketId, out: &mut Out) {
        if self.outbound.forget(packet_id).is_some() {
            self.keep(|| Change::Done(packet_id), None, out);
            self.send_again(out);
        }
    }

    pub(super) fn send(&mut self, row: DownlinkRow, payload: Bytes, ticket: Ticket, rules: &Rules, out: &mut Out) {
        self.downlinks.push_back((row, payload, ticket));
        self.send_waiting(rules, out);
    }

    pub(super) fn send_waiting(&mut self, rules: &Rules, out: &mut Out) {
        let Some(device) = self.who.device().copied() else { return };
        while self.outbound.has_room() {
            let Some((row, payload, ticket)) = self.downlinks.pop_front() else { return };
            let Some(qos) = self.rows.get(&row).copied() else {
                out.events.push_back(Event::Published { ticket, outcome: Outcome::Lost });
                continue;
            };
            let topic = Text::from_checked(rules.acl.downlink_topic(&device, row));
            // The identifier is taken where it leaves; it is as long as any.
            let assurance = match qos {
                QoS::AtMostOnce => Assurance::AtMostOnce,
                QoS::AtLeastOnce | QoS::ExactlyOnce => {
                    Assurance::AtLeastOnce { packet_id: PacketId::FIRST, dup: false }
                }
            };
            let mut publish = Publish { assurance, retain: false, topic, properties: Properties::default(), payload };
            if publish.len(self.version) > self.packet_max {
                out.events.push_back(Event::Published { ticket, outcome: Outcome::TooLarge });
                continue;
            }
            match &mut publish.assurance {
                Assurance::AtLeastOnce { packet_id, .. } => *packet_id = self.outbound.send(Carried::Downlink(ticket)),
                // It asked for no acknowledgement, so that leaving is all there is to know.
                _ => out.events.push_back(Event::Published { ticket, outcome: Outcome::Delivered }),
            }
            out.packet(Packet::Publish(publish));
        }
    }

    /// PUBACK has come (section 3.4).
    pub(super) fn acknowledged(
        &mut self,
        ack: &Acknowledgement,
        rules: &Rules,
        out: &mut Out,
    ) -> Result<(), SessionError> {
        match self.outbound.acknowledge(ack.packet_id) {
            Progress::Ended(what) => self.ended(ack, &what, rules, out),
            Progress::OutOfPlace => return Err(SessionError::OutOfPlace { packet: "PUBACK" }),
            // What was done with before.
            Progress::Arrived | Progress::Repeat | Progress::Unknown => {}
        }
        Ok(())
    }

    /// PUBREC has come (section 3.5).
    pub(super) fn received(&mut self, ack: &Acknowledgement, rules: &Rules, out: &mut Out) -> Result<(), SessionError> {
        let packet_id = ack.packet_id;
        let release = |reason| answer(Packet::PubRel, packet_id, reason);
        match self.outbound.received(packet_id, ack.reason.is_error()) {
            Progress::Ended(what) => self.ended(ack, &what, rules, out),
            Progress::Arrived => {
                self.keep(|| Change::Releasing(packet_id), Some(After::Transmit(release(ReasonCode::Success))), out);
            }
            // [MQTT-4.3.3-4]. An error here ends nothing: the message has arrived.
            Progress::Repeat => out.transmit.push_back(release(ReasonCode::Success)),
            Progress::Unknown if ack.reason.is_error() => {}
            Progress::Unknown => out.transmit.push_back(release(ReasonCode::PacketIdentifierNotFound)),
            Progress::OutOfPlace => return Err(SessionError::OutOfPlace { packet: "PUBREC" }),
        }
        Ok(())
    }

    /// PUBCOMP has come (section 3.7).
    pub(super) fn completed(&mut self, packet_id: PacketId, rules: &Rules, out: &mut Out) -> Result<(), SessionError> {
        match self.outbound.complete(packet_id) {
            Ok(true) => {
                self.keep(|| Change::Done(packet_id), None, out);
                self.send_again(out);
                self.send_waiting(rules, out);
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(()) => Err(SessionError::OutOfPlace { packet: "PUBCOMP" }),
        }
    }

    fn ended(&mut self, ack: &Acknowledgement, what: &Carried, rules: &Rules, out: &mut Out) {
        match *what {
            Carried::Downlink(ticket) => {
                let outcome = match ack.reason {
                    reason if reason.is_error() => Outcome::Refused(reason.as_byte()),
                    _ => Outcome::Delivered,
                };
                out.events.push_back(Event::Published { ticket, outcome });
            }
            Carried::Routed(_) => self.keep(|| Change::Done(ack.packet_id), None, out),
        }
        self.send_again(out);
        self.send_waiting(rules, out);
    }
}
