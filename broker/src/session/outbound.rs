//! Messages to the client between PUBLISH and the end of their exchange (sections 4.3.2, 4.3.3).

use std::collections::VecDeque;

use crate::doors::Ticket;
use crate::packet::{PacketId, QoS};
use crate::router::message::Queued;

/// Messages of QoS 1 and 2 on their way to the client.
#[derive(Debug)]
pub(super) struct Outbound {
    next: PacketId,
    /// How many identifiers from `next` on are known to be free.
    free: u16,
    /// Those that left in this connection and had no answer, in the order they left.
    waiting: VecDeque<Sent>,
    /// QoS 2 messages between PUBREC and PUBCOMP, in the order of the PUBRECs.
    releasing: VecDeque<PacketId>,
    /// Those that left in an earlier connection and are still to leave in this one, before any
    /// other [MQTT-4.6.0-1].
    again: VecDeque<(PacketId, Queued)>,
    max: usize,
}

/// One message that has left.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) packet_id: PacketId,
    pub(super) what: Carried,
}

/// Whose message it is.
#[derive(Debug)]
pub(super) enum Carried {
    /// A subscriber's: it is sent again when the session is resumed.
    Routed(Queued),
    /// The node's to a device, at QoS 1: it is not.
    Downlink(Ticket),
}

/// What an answer of the client ends or moves on.
#[derive(Debug)]
pub(super) enum Progress {
    /// The exchange of this message.
    Ended(Carried),
    /// A QoS 2 message has arrived: PUBREL follows.
    Arrived,
    /// It had arrived before: PUBREL follows, again.
    Repeat,
    /// Nothing: the identifier is of no exchange.
    Unknown,
    /// Nothing: the packet does not answer a message of that QoS, or not yet.
    OutOfPlace,
}

impl Outbound {
    /// At most `max` wait: the client's Receive Maximum or our own bound.
    pub(super) fn new(max: u16, next: PacketId, in_flight: Vec<(PacketId, Queued)>, releasing: Vec<PacketId>) -> Self {
        let (releasing, again) = (releasing.into(), in_flight.into());
        Self { next, free: 0, waiting: VecDeque::new(), releasing, again, max: usize::from(max) }
    }

    /// Whether a new message may leave: the client takes one more [MQTT-3.3.4-9], and those it
    /// had have left again.
    pub(super) fn has_room(&self) -> bool {
        self.room() > 0
    }

    /// How many new messages may leave.
    pub(super) fn room(&self) -> usize {
        if self.again.is_empty() { self.quota() } else { 0 }
    }

    /// How many exchanges are not complete.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.releasing.len() + self.again.len()
    }

    /// Where PUBREL has left and PUBCOMP has not come, in order.
    pub(super) fn releasing(&self) -> impl Iterator<Item = PacketId> {
        self.releasing.iter().copied()
    }

    /// The next message of an earlier connection, if the client takes one more.
    pub(super) fn send_again(&mut self) -> Option<(PacketId, Queued)> {
        if self.quota() == 0 {
            return None;
        }
        let (packet_id, queued) = self.again.pop_front()?;
        self.waiting.push_back(Sent { packet_id, what: Carried::Routed(queued.clone()) });
        Some((packet_id, queued))
    }

    /// Takes note of a message that leaves, and gives its identifier.
    pub(super) fn send(&mut self, what: Carried) -> PacketId {
        while self.free == 0 {
            self.find_free();
        }
        let packet_id = self.next;
        self.next = packet_id.next();
        self.free -= 1;
        self.waiting.push_back(Sent { packet_id, what });
        packet_id
    }

    /// PUBACK has come.
    pub(super) fn acknowledge(&mut self, packet_id: PacketId) -> Progress {
        match self.find(packet_id) {
            Some((index, QoS::AtLeastOnce)) => self.end(index),
            Some(_) => Progress::OutOfPlace,
            None => self.unknown(packet_id),
        }
    }

    /// PUBREC has come, with an error or without.
    pub(super) fn received(&mut self, packet_id: PacketId, is_error: bool) -> Progress {
        match self.find(packet_id) {
            Some((index, QoS::ExactlyOnce)) if is_error => self.end(index),
            Some((index, QoS::ExactlyOnce)) => {
                self.waiting.remove(index);
                self.releasing.push_back(packet_id);
                Progress::Arrived
            }
            Some(_) => Progress::OutOfPlace,
            None if self.releasing.contains(&packet_id) => Progress::Repeat,
            None => Progress::Unknown,
        }
    }

    /// PUBCOMP has come. Says whether it ends something.
    pub(super) fn complete(&mut self, packet_id: PacketId) -> Result<bool, ()> {
        if let Some(index) = self.releasing.iter().position(|id| *id == packet_id) {
            self.releasing.remove(index);
            return Ok(true);
        }
        if self.find(packet_id).is_some() { Err(()) } else { Ok(false) }
    }

    /// A message has not left after all.
    pub(super) fn forget(&mut self, packet_id: PacketId) -> Option<Carried> {
        let (index, _) = self.find(packet_id)?;
        self.waiting.remove(index).map(|sent| sent.what)
    }

    /// Takes it apart: what has had no answer, in order, what is being released, and the next
    /// identifier.
    pub(super) fn into_parts(self) -> (impl Iterator<Item = Sent>, Vec<PacketId>, PacketId) {
        let again = self.again.into_iter().map(|(packet_id, queued)| Sent { packet_id, what: Carried::Routed(queued) });
        (self.waiting.into_iter().chain(again), self.releasing.into(), self.next)
    }

    fn quota(&self) -> usize {
        self.max.saturating_sub(self.waiting.len() + self.releasing.len())
    }

    fn find(&self, packet_id: PacketId) -> Option<(usize, QoS)> {
        // The front, unless the client answers out of order.
        let index = self.waiting.iter().position(|sent| sent.packet_id == packet_id)?;
        let qos = match &self.waiting.get(index)?.what {
            Carried::Routed(queued) => queued.qos,
            Carried::Downlink(_) => QoS::AtLeastOnce,
        };
        Some((index, qos))
    }

    fn end(&mut self, index: usize) -> Progress {
        self.waiting.remove(index).map_or(Progress::Unknown, |sent| Progress::Ended(sent.what))
    }

    fn unknown(&self, packet_id: PacketId) -> Progress {
        if self.releasing.contains(&packet_id) { Progress::OutOfPlace } else { Progress::Unknown }
    }

    /// Counts how many identifiers from `next` on are free, once a lap; where `next` is not, it
    /// moves on.
    fn find_free(&mut self) {
        let next = self.next;
        let waiting = self.waiting.iter().map(|sent| sent.packet_id);
        let taken = waiting.chain(self.releasing.iter().copied()).chain(self.again.iter().map(|(id, _)| *id));
        // Fewer than 65 535 are taken, so that the search ends.
        self.free = taken.map(|id| next.distance_to(id)).min().unwrap_or(u16::MAX);
        if self.free == 0 {
            self.next = next.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Properties, Text};
    use crate::router::message::{Incoming, Message};
    use bytes::Bytes;
    use std::sync::Arc;
    use unhidra_core::time::Timestamp;

    fn id(number: u16) -> PacketId {
        PacketId::new(number).expect("not 0")
    }

    fn empty(max: u16) -> Outbound {
        Outbound::new(max, PacketId::FIRST, Vec::new(), Vec::new())
    }

    fn queued(qos: QoS) -> Queued {
        let (topic, payload, properties) = (&Text::from("t"), &Bytes::new(), &Properties::default());
        let incoming = Incoming { topic, payload, qos, retain: false, properties };
        let message = Arc::new(Message::new(incoming, Timestamp::ZERO));
        Queued { message, qos, retain: false, identifiers: Box::default(), group: None, kept: None }
    }

    fn routed(qos: QoS) -> Carried {
        Carried::Routed(queued(qos))
    }

    #[test]
    fn identifiers_skip_those_in_flight_and_never_are_0() {
        let mut outbound =
            Outbound::new(u16::MAX, PacketId::FIRST, vec![(id(3), queued(QoS::AtLeastOnce))], vec![id(2)]);
        let first = outbound.send(Carried::Downlink(Ticket(0)));
        let mut seen = Vec::new();
        for ticket in 0..65_532 {
            let sent = outbound.send(Carried::Downlink(Ticket(ticket)));
            assert!(matches!(outbound.acknowledge(sent), Progress::Ended(_)));
            seen.push(sent.get());
        }
        assert_eq!((first.get(), seen.first(), seen.last()), (1, Some(&4), Some(&65_535)));
        assert_eq!(outbound.send(Carried::Downlink(Ticket(0))).get(), 4, "1, 2 and 3 are taken");
        assert!(matches!(outbound.acknowledge(id(9)), Progress::Unknown));
    }

    #[test]
    fn a_qos_2_message_takes_room_until_pubcomp() {
        let mut outbound = empty(1);
        let sent = outbound.send(routed(QoS::ExactlyOnce));
        assert!(matches!(outbound.acknowledge(sent), Progress::OutOfPlace));
        assert_eq!(outbound.complete(sent), Err(()));
        assert!(matches!(outbound.received(sent, false), Progress::Arrived));
        assert!(matches!(outbound.received(sent, false), Progress::Repeat));
        assert!(matches!(outbound.acknowledge(sent), Progress::OutOfPlace));
        assert!(!outbound.has_room());
        assert_eq!((outbound.complete(sent), outbound.complete(sent)), (Ok(true), Ok(false)));
        assert!(outbound.has_room());
    }

    #[test]
    fn a_pubrec_with_an_error_ends_the_exchange() {
        let mut outbound = empty(1);
        let sent = outbound.send(routed(QoS::ExactlyOnce));
        assert!(matches!(outbound.received(sent, true), Progress::Ended(_)));
        assert!(outbound.has_room() && matches!(outbound.received(sent, false), Progress::Unknown));
        let sent = outbound.send(routed(QoS::AtLeastOnce));
        assert!(matches!(outbound.received(sent, false), Progress::OutOfPlace));
    }

    #[test]
    fn what_left_before_leaves_again_first_and_as_the_client_takes_it() {
        let before = [3, 1, 2].map(|number| (id(number), queued(QoS::AtLeastOnce)));
        let mut outbound = Outbound::new(2, id(4), before.into(), Vec::new());
        let again: Vec<u16> = std::iter::from_fn(|| outbound.send_again()).map(|(id, _)| id.get()).collect();
        assert_eq!(again, [3, 1]);
        outbound.acknowledge(id(3));
        assert!(!outbound.has_room(), "one is still to leave again");
        assert_eq!(outbound.send_again().map(|(id, _)| id.get()), Some(2));
        let (left, _, next) = outbound.into_parts();
        assert_eq!((left.map(|sent| sent.packet_id.get()).collect::<Vec<_>>(), next.get()), (vec![1, 2], 4));
    }
}
