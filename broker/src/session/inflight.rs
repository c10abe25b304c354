//! QoS 1 messages between PUBLISH and PUBACK, in both directions (section 4.3.2).

use std::collections::VecDeque;

use unhidra_core::delivery::{AckToken, Answer, Refusal};
use unhidra_core::time::Timestamp;

use crate::doors::Ticket;
use crate::packet::{PacketId, ReasonCode};
use crate::router::message::Queued;

/// Messages of the client that wait for their answer, in the order they came.
///
/// Answers come in any order and PUBACKs leave in this one [MQTT-4.6.0-2].
#[derive(Debug, Default)]
pub(super) struct Inbound {
    /// The token of the oldest.
    first: u64,
    waiting: VecDeque<Received>,
}

#[derive(Debug)]
struct Received {
    packet_id: PacketId,
    at: Timestamp,
    reply: Option<Reply>,
}

/// What a message is answered with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reply {
    /// PUBACK with this code; an error becomes a close in 3.1.1.
    Code(ReasonCode),
    /// No PUBACK: the connection closes.
    Retry,
}

/// What a PUBLISH of QoS 1 is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Arrival {
    /// New: it is answered under this token.
    New(AckToken),
    /// A repeat of one that waits: the answer to that one serves.
    Repeat,
    /// Another message under an identifier that is not free.
    IdentifierInUse,
    /// One more than may wait.
    TooMany,
}

/// An answered message whose turn has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Answered {
    pub(super) packet_id: PacketId,
    pub(super) reply: Reply,
    /// When the message came.
    pub(super) received_at: Timestamp,
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Accepted => Self::Code(ReasonCode::Success),
            Answer::Refused(Refusal::DoesNotOpen) => Self::Code(ReasonCode::ImplementationSpecificError),
            Answer::Refused(Refusal::NotAuthorized) => Self::Code(ReasonCode::NotAuthorized),
            Answer::Refused(Refusal::QuotaExceeded) => Self::Code(ReasonCode::QuotaExceeded),
            Answer::Retry => Self::Retry,
        }
    }
}

impl Inbound {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Takes note of a PUBLISH.
    pub(super) fn receive(&mut self, packet_id: PacketId, dup: bool, max: usize, now: Timestamp) -> Arrival {
        if self.waiting.iter().any(|received| received.packet_id == packet_id) {
            return if dup { Arrival::Repeat } else { Arrival::IdentifierInUse };
        }
        if self.waiting.len() >= max {
            return Arrival::TooMany;
        }
        let token = self.first + self.waiting.len() as u64;
        self.waiting.push_back(Received { packet_id, at: now, reply: None });
        Arrival::New(AckToken(token))
    }

    /// Takes note of an answer. One to a message that has been answered changes nothing.
    pub(super) fn answer(&mut self, token: AckToken, reply: Reply) {
        let index = token.0.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        if let Some(received) = index.and_then(|index| self.waiting.get_mut(index)) {
            received.reply.get_or_insert(reply);
        }
    }

    /// The oldest message, once it is answered.
    pub(super) fn pop(&mut self) -> Option<Answered> {
        let oldest = self.waiting.front()?;
        let answered = Answered { packet_id: oldest.packet_id, reply: oldest.reply?, received_at: oldest.at };
        self.waiting.pop_front();
        self.first += 1;
        Some(answered)
    }
}

/// Messages to the client that wait for its PUBACK, in the order they left.
#[derive(Debug)]
pub(super) struct Outbound {
    next: PacketId,
    waiting: VecDeque<Sent>,
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
    /// The node's to a device: it is not.
    Downlink(Ticket),
}

impl Outbound {
    /// At most `max` wait: the client's Receive Maximum or our own bound.
    pub(super) fn new(max: u16) -> Self {
        Self { next: PacketId::FIRST, waiting: VecDeque::new(), max: usize::from(max) }
    }

    /// Whether one more may leave [MQTT-3.3.4-9].
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < self.max
    }

    /// Takes note of a message that leaves, and gives its identifier.
    pub(super) fn send(&mut self, what: Carried) -> PacketId {
        // Fewer than 65 535 wait, so that this ends.
        while self.waiting.iter().any(|sent| sent.packet_id == self.next) {
            self.next = self.next.next();
        }
        let packet_id = self.next;
        self.next = packet_id.next();
        self.waiting.push_back(Sent { packet_id, what });
        packet_id
    }

    /// Takes note of a message that left in an earlier connection, under its old identifier
    /// [MQTT-4.4.0-1].
    pub(super) fn send_again(&mut self, packet_id: PacketId, queued: Queued) {
        self.waiting.push_back(Sent { packet_id, what: Carried::Routed(queued) });
    }

    /// What a PUBACK is for. Nothing, where the client acknowledges what it was not sent.
    pub(super) fn acknowledge(&mut self, packet_id: PacketId) -> Option<Carried> {
        // The front, unless the client acknowledges out of order.
        let index = self.waiting.iter().position(|sent| sent.packet_id == packet_id)?;
        self.waiting.remove(index).map(|sent| sent.what)
    }

    /// Everything that is still unacknowledged, in order.
    pub(super) fn into_waiting(self) -> impl Iterator<Item = Sent> {
        self.waiting.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u16) -> PacketId {
        PacketId::new(number).expect("not 0")
    }

    fn new(inbound: &mut Inbound, number: u16) -> AckToken {
        match inbound.receive(id(number), false, 3, Timestamp::ZERO) {
            Arrival::New(token) => token,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn pubacks_leave_in_the_order_of_their_publishes() {
        let mut inbound = Inbound::default();
        let tokens = [new(&mut inbound, 5), new(&mut inbound, 9), new(&mut inbound, 7)];
        inbound.answer(tokens[2], Reply::Code(ReasonCode::Success));
        inbound.answer(tokens[1], Reply::Code(ReasonCode::NotAuthorized));
        assert_eq!(inbound.pop(), None);
        inbound.answer(tokens[0], Reply::Code(ReasonCode::Success));
        let order: Vec<u16> = std::iter::from_fn(|| inbound.pop()).map(|a| a.packet_id.get()).collect();
        assert_eq!(order, [5, 9, 7]);
        assert_ne!(new(&mut inbound, 5), tokens[0], "a token is not given twice");
    }

    #[test]
    fn a_repeat_is_known_and_a_reused_identifier_is_not_a_repeat() {
        let mut inbound = Inbound::default();
        let token = new(&mut inbound, 1);
        assert_eq!(inbound.receive(id(1), true, 3, Timestamp::ZERO), Arrival::Repeat);
        assert_eq!(inbound.receive(id(1), false, 3, Timestamp::ZERO), Arrival::IdentifierInUse);
        inbound.answer(token, Reply::Code(ReasonCode::Success));
        inbound.pop();
        assert!(matches!(inbound.receive(id(1), true, 3, Timestamp::ZERO), Arrival::New(_)));
    }

    #[test]
    fn no_more_wait_than_may() {
        let mut inbound = Inbound::default();
        (1..=3).for_each(|number| assert_eq!(new(&mut inbound, number).0, u64::from(number) - 1));
        assert_eq!(inbound.receive(id(4), false, 3, Timestamp::ZERO), Arrival::TooMany);
    }

    #[test]
    fn identifiers_skip_those_in_flight_and_never_are_0() {
        let mut outbound = Outbound::new(u16::MAX);
        let first = outbound.send(Carried::Downlink(Ticket(0)));
        for ticket in 1..65_535 {
            let sent = outbound.send(Carried::Downlink(Ticket(ticket)));
            assert!(outbound.acknowledge(sent).is_some());
        }
        assert_eq!((first.get(), outbound.send(Carried::Downlink(Ticket(0))).get()), (1, 2));
        assert!(outbound.acknowledge(id(9)).is_none());
    }
}
