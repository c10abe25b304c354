//! Messages of the client between PUBLISH and the end of their exchange (sections 4.3.2, 4.3.3).

use std::collections::{BTreeMap, VecDeque};

use unhidra_core::delivery::{AckToken, Answer, Refusal};
use unhidra_core::time::Timestamp;

use crate::packet::{PacketId, ReasonCode};

/// Messages of QoS 1 and 2, in the order they came.
///
/// Answers come in any order; PUBACKs and PUBRECs leave in this one [MQTT-4.6.0-2, MQTT-4.6.0-3].
/// A QoS 2 message is routed as it comes, and its identifier kept until PUBREL: method B of
/// figure 4.3.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    /// The token of the oldest that waits.
    first: u64,
    waiting: VecDeque<Received>,
    /// QoS 2 messages that have had their PUBREC, until PUBREL comes.
    held: BTreeMap<PacketId, Counts>,
    /// What counts against the Receive Maximum we announced (section 4.9).
    used: usize,
}

#[derive(Debug)]
struct Received {
    packet_id: PacketId,
    level: Level,
    at: Timestamp,
    reply: Option<Reply>,
    /// Whether it must be stored before it may be answered, and is not.
    unkept: bool,
}

/// Which exchange a message is in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Level {
    /// QoS 1: PUBACK ends it.
    AtLeastOnce,
    /// QoS 2: PUBREC, then PUBREL, then PUBCOMP.
    ExactlyOnce,
}

/// Whether a held identifier counts against the Receive Maximum: one that an earlier connection has
/// left counts once its PUBLISH comes again in this one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Counts {
    Yes,
    No,
}

/// What a message is answered with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reply {
    /// PUBACK or PUBREC with this code; an error becomes a close in 3.1.1.
    Code(ReasonCode),
    /// No answer: the connection closes.
    Retry,
}

/// What a PUBLISH of QoS 1 or 2 is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Arrival {
    /// New: it is answered under this token.
    New(AckToken),
    /// Not new: its answer has been, or will be, determined without anybody's help.
    Repeat,
    /// Another message under an identifier that is not free.
    IdentifierInUse,
    /// One more than may wait.
    TooMany,
}

/// What a PUBREL releases.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Release {
    /// The message of the identifier.
    Done,
    /// Nothing is known of the identifier.
    Unknown,
    /// The message has not had its PUBREC.
    TooEarly,
}

/// An answered message whose turn has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Answered {
    pub(super) packet_id: PacketId,
    pub(super) level: Level,
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
    /// Goes on with what an earlier connection had taken and not seen released.
    pub(super) fn resume(received: Vec<PacketId>) -> Self {
        Self { held: received.into_iter().map(|id| (id, Counts::No)).collect(), ..Self::default() }
    }

    /// How many wait for their answer.
    pub(super) fn unanswered(&self) -> usize {
        self.waiting.len()
    }

    /// Takes note of a PUBLISH. At most `max` count at once.
    pub(super) fn receive(
        &mut self,
        packet_id: PacketId,
        level: Level,
        dup: bool,
        max: usize,
        now: Timestamp,
    ) -> Arrival {
        if let Some(received) = self.waiting.iter().find(|received| received.packet_id == packet_id) {
            let is_repeat = received.level == level && (dup || level == Level::ExactlyOnce);
            return if is_repeat { Arrival::Repeat } else { Arrival::IdentifierInUse };
        }
        let held = self.held.get(&packet_id).copied();
        let counts_already = held == Some(Counts::Yes) && level == Level::ExactlyOnce;
        if !counts_already {
            if self.used >= max {
                return Arrival::TooMany;
            }
            self.used += 1;
        }
        let reply = match (held, level) {
            (None, _) => None,
            (Some(_), Level::ExactlyOnce) => {
                self.held.insert(packet_id, Counts::Yes);
                Some(Reply::Code(ReasonCode::Success))
            }
            // The two sides' sessions do not match (section 3.4.2.1).
            (Some(_), Level::AtLeastOnce) => Some(Reply::Code(ReasonCode::PacketIdentifierInUse)),
        };
        let token = self.first + self.waiting.len() as u64;
        self.waiting.push_back(Received { packet_id, level, at: now, reply, unkept: false });
        if reply.is_some() { Arrival::Repeat } else { Arrival::New(AckToken(token)) }
    }

    /// A message may not be answered before it is stored.
    pub(super) fn must_keep(&mut self, token: AckToken) {
        if let Some(received) = self.waiting_mut(token) {
            received.unkept = true;
        }
    }

    /// A message is stored.
    pub(super) fn kept(&mut self, token: AckToken) {
        if let Some(received) = self.waiting_mut(token) {
            received.unkept = false;
        }
    }

    /// Takes note of an answer. One to a message that has been answered changes nothing.
    pub(super) fn answer(&mut self, token: AckToken, reply: Reply) {
        if let Some(received) = self.waiting_mut(token) {
            received.reply.get_or_insert(reply);
        }
    }

    /// The oldest message, once it is answered.
    pub(super) fn pop(&mut self) -> Option<Answered> {
        let oldest = self.waiting.front().filter(|received| !received.unkept)?;
        let Received { packet_id, level, at: received_at, .. } = *oldest;
        let reply = oldest.reply?;
        self.waiting.pop_front();
        self.first += 1;
        match (level, reply) {
            (Level::ExactlyOnce, Reply::Code(reason)) if !reason.is_error() => {
                self.held.insert(packet_id, Counts::Yes);
            }
            (Level::AtLeastOnce | Level::ExactlyOnce, _) => self.used = self.used.saturating_sub(1),
        }
        Some(Answered { packet_id, level, reply, received_at })
    }

    /// Takes note of a PUBREL.
    pub(super) fn release(&mut self, packet_id: PacketId) -> Release {
        if self.waiting.iter().any(|received| received.packet_id == packet_id && received.level == Level::ExactlyOnce) {
            return Release::TooEarly;
        }
        match self.held.remove(&packet_id) {
            Some(Counts::Yes) => {
                self.used = self.used.saturating_sub(1);
                Release::Done
            }
            Some(Counts::No) => Release::Done,
            None => Release::Unknown,
        }
    }

    /// The QoS 2 messages that must not be routed again, ascending: those that had their PUBREC,
    /// and those that were handed on and not refused.
    pub(super) fn into_received(self) -> Vec<PacketId> {
        let mut received: Vec<PacketId> = self.held.into_keys().collect();
        let handed_on = |received: &&Received| match received.reply {
            None => true,
            Some(Reply::Code(reason)) => !reason.is_error(),
            Some(Reply::Retry) => false,
        };
        let waiting = self.waiting.iter().filter(|received| received.level == Level::ExactlyOnce);
        received.extend(waiting.filter(handed_on).map(|received| received.packet_id));
        received.sort_unstable();
        received.dedup();
        received
    }

    fn waiting_mut(&mut self, token: AckToken) -> Option<&mut Received> {
        let index = token.0.checked_sub(self.first).and_then(|index| usize::try_from(index).ok())?;
        self.waiting.get_mut(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Level::{AtLeastOnce, ExactlyOnce};

    const OK: Reply = Reply::Code(ReasonCode::Success);

    fn id(number: u16) -> PacketId {
        PacketId::new(number).expect("not 0")
    }

    fn receive(inbound: &mut Inbound, number: u16, level: Level, dup: bool) -> Arrival {
        inbound.receive(id(number), level, dup, 3, Timestamp::ZERO)
    }

    fn new(inbound: &mut Inbound, number: u16, level: Level) -> AckToken {
        match receive(inbound, number, level, false) {
            Arrival::New(token) => token,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn answers_leave_in_the_order_of_their_publishes() {
        let mut inbound = Inbound::default();
        let tokens =
            [new(&mut inbound, 5, AtLeastOnce), new(&mut inbound, 9, ExactlyOnce), new(&mut inbound, 7, AtLeastOnce)];
        inbound.answer(tokens[2], OK);
        inbound.answer(tokens[1], Reply::Code(ReasonCode::NotAuthorized));
        assert_eq!(inbound.pop(), None);
        inbound.answer(tokens[0], OK);
        let order: Vec<u16> = std::iter::from_fn(|| inbound.pop()).map(|a| a.packet_id.get()).collect();
        assert_eq!(order, [5, 9, 7]);
        assert_ne!(new(&mut inbound, 5, AtLeastOnce), tokens[0], "a token is not given twice");
    }

    #[test]
    fn a_repeat_is_known_and_a_reused_identifier_is_not_a_repeat() {
        let mut inbound = Inbound::default();
        let token = new(&mut inbound, 1, AtLeastOnce);
        assert_eq!(receive(&mut inbound, 1, AtLeastOnce, true), Arrival::Repeat);
        assert_eq!(receive(&mut inbound, 1, AtLeastOnce, false), Arrival::IdentifierInUse);
        assert_eq!(receive(&mut inbound, 1, ExactlyOnce, true), Arrival::IdentifierInUse);
        inbound.answer(token, OK);
        inbound.pop();
        assert!(matches!(receive(&mut inbound, 1, AtLeastOnce, true), Arrival::New(_)));
    }

    #[test]
    fn a_qos_2_message_is_new_once_until_it_is_released() {
        let mut inbound = Inbound::default();
        let token = new(&mut inbound, 1, ExactlyOnce);
        assert_eq!(inbound.release(id(1)), Release::TooEarly);
        assert_eq!(receive(&mut inbound, 1, ExactlyOnce, true), Arrival::Repeat);
        inbound.answer(token, OK);
        assert!(inbound.pop().is_some() && inbound.pop().is_none(), "one PUBREC serves both");
        assert_eq!(receive(&mut inbound, 1, ExactlyOnce, false), Arrival::Repeat);
        assert_eq!(inbound.pop().map(|a| a.reply), Some(OK), "each later one has its own");
        assert_eq!(receive(&mut inbound, 1, AtLeastOnce, false), Arrival::Repeat);
        assert_eq!(inbound.pop().map(|a| a.reply), Some(Reply::Code(ReasonCode::PacketIdentifierInUse)));
        assert_eq!((inbound.release(id(1)), inbound.release(id(1))), (Release::Done, Release::Unknown));
        new(&mut inbound, 1, ExactlyOnce);
    }

    #[test]
    fn a_refused_qos_2_message_ends_with_its_pubrec() {
        let mut inbound = Inbound::default();
        let token = new(&mut inbound, 1, ExactlyOnce);
        inbound.answer(token, Reply::Code(ReasonCode::QuotaExceeded));
        inbound.pop();
        assert_eq!(inbound.release(id(1)), Release::Unknown);
        assert!(inbound.into_received().is_empty());
    }

    #[test]
    fn both_levels_count_until_their_exchange_ends() {
        let mut inbound = Inbound::default();
        let tokens =
            [new(&mut inbound, 1, AtLeastOnce), new(&mut inbound, 2, ExactlyOnce), new(&mut inbound, 3, ExactlyOnce)];
        assert_eq!(receive(&mut inbound, 4, AtLeastOnce, false), Arrival::TooMany);
        tokens.into_iter().for_each(|token| inbound.answer(token, OK));
        while inbound.pop().is_some() {}
        assert!(matches!(receive(&mut inbound, 4, ExactlyOnce, false), Arrival::New(_)), "PUBACK has left");
        assert_eq!(receive(&mut inbound, 5, AtLeastOnce, false), Arrival::TooMany, "PUBREC frees nothing");
        inbound.release(id(2));
        assert!(matches!(receive(&mut inbound, 5, AtLeastOnce, false), Arrival::New(_)));
    }

    #[test]
    fn what_an_earlier_connection_left_counts_when_it_comes_again() {
        let mut inbound = Inbound::resume(vec![id(1), id(2)]);
        for number in 3..=5 {
            new(&mut inbound, number, AtLeastOnce);
        }
        assert_eq!(receive(&mut inbound, 1, ExactlyOnce, true), Arrival::TooMany);
        assert_eq!(inbound.release(id(2)), Release::Done, "a PUBREL needs no room");
    }

    #[test]
    fn what_was_handed_on_is_not_routed_again_by_the_next_connection() {
        let mut inbound = Inbound::resume(vec![id(9)]);
        let tokens = [new(&mut inbound, 1, ExactlyOnce), new(&mut inbound, 2, ExactlyOnce)];
        inbound.answer(tokens[1], Reply::Retry);
        new(&mut inbound, 3, AtLeastOnce);
        assert_eq!(inbound.into_received(), [id(1), id(9)]);
    }

    #[test]
    fn nothing_is_answered_before_it_is_stored() {
        let mut inbound = Inbound::default();
        let token = new(&mut inbound, 1, ExactlyOnce);
        inbound.must_keep(token);
        inbound.answer(token, OK);
        assert_eq!(inbound.pop(), None);
        inbound.kept(token);
        assert!(inbound.pop().is_some());
    }
}
