//! What waits to be sent, as plaintext: nothing is sealed without a connection, or a long outage
//! would exceed the jump the node can follow.
//!
//! ```text
//! Free --push--> Waiting --sent--> Sent --PUBACK--> Free, and its outcome waits to be told
//!                   ^               |
//!                   |               +--PUBACK 0x10, 0x80..--> Refused --new session, 10 min--+
//!                   +---------------------------------------------------------------------+
//! ```

use core::time::Duration;

use heapless::{Deque, String, Vec};
use thiserror::Error;
use unhidra_core::ids::CommandId;
use unhidra_core::time::{Timestamp, UnixTime};
use unhidra_e2ee::plaintext::{Kind, Plaintext, Status};

use crate::client::{Publication, Qos, RECEIVE_MAX, ReasonCode};

/// The most bytes of a name.
pub const NAME_LEN_MAX: usize = 64;

/// How many greetings wait at most: of more than these, the oldest says nothing the newer do not.
const GREETINGS_MAX: usize = 2;

/// How many messages that were acknowledged wait to be told of: of more than these the oldest are not.
const OUTCOMES_MAX: usize = 32;

/// How long a refused message waits to be sealed anew in the session that refused it
/// (e2ee/PROTOCOL.md section 8).
const REFUSED_WAIT: Duration = Duration::from_secs(600);

/// The device's own id of a reading, kept over repeats until it is acknowledged. The node takes a reading once
/// by it, as long as it is among the last 64 of the device (e2ee/PROTOCOL.md section 6, key 10).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ReadingId(pub u64);

/// What is done with a new reading when as many wait as may.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WhenFull {
    /// The oldest reading that is not on its way makes room.
    DropOldest,
    /// The new one is refused.
    RefuseNew,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum QueueError {
    /// As many wait as may, and the rule drops none, or all are on their way.
    #[error("as many messages wait as may")]
    Full,
    /// The name is empty or too long, or holds a control character.
    #[error("a name of {len} bytes; a name has 1 to 64 bytes of UTF-8 without control characters")]
    Name {
        /// Bytes found.
        len: usize,
    },
    /// The body is too long.
    #[error("a body of {len} bytes; at most {max} are allowed")]
    BodyTooLong {
        /// Bytes found.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
}

/// What a message says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Content {
    Reading,
    Event,
    Receipt {
        command: CommandId,
        status: Status,
    },
    /// The SDK's own word, so that the node learns of a session.
    Greeting,
}

impl Content {
    /// Whether the application published it and hears what becomes of it.
    const fn is_the_applications(self) -> bool {
        match self {
            Self::Reading | Self::Event => true,
            Self::Receipt { .. } | Self::Greeting => false,
        }
    }
}

/// A message that waits. `BODY` bounds its body in bytes.
#[derive(Debug)]
pub(crate) struct Entry<const BODY: usize> {
    pub(crate) id: ReadingId,
    pub(crate) content: Content,
    pub(crate) name: String<NAME_LEN_MAX>,
    pub(crate) body: Vec<u8, BODY>,
    pub(crate) device_time: Option<UnixTime>,
    pub(crate) qos: Qos,
    state: State,
    /// The session it was sealed in when it last did not open at the node.
    unopened_in: Option<u32>,
    order: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Waiting,
    Sent { publication: Publication, session: u32 },
    Refused { at: Timestamp, session: u32, reason: ReasonCode, told: bool },
}

/// What became of a message, for the application.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    Acknowledged(ReadingId),
    Refused(ReadingId, ReasonCode),
}

/// What a PUBACK came to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Answered {
    /// The message did not open at the node, nor did it before when it was sealed in the same session.
    pub(crate) unopened_again: bool,
    /// So many outcomes wait that the oldest is not told.
    pub(crate) untold: bool,
}

/// At most `SLOTS` messages. [`RECEIVE_MAX`] of them are kept for receipts, so that a full outbox
/// never silences the answer to a command.
pub(crate) struct Outbox<const SLOTS: usize, const BODY: usize> {
    slots: [Option<Entry<BODY>>; SLOTS],
    when_full: WhenFull,
    next_order: u64,
    /// Those that were acknowledged, oldest first. Apart from the slots, so that whoever asks for no outcome goes on
    /// publishing.
    acknowledged: Deque<ReadingId, OUTCOMES_MAX>,
}

impl<const SLOTS: usize, const BODY: usize> Outbox<SLOTS, BODY> {
    const READINGS_MAX: usize = {
        assert!(SLOTS > RECEIVE_MAX, "the outbox keeps RECEIVE_MAX slots for receipts and needs one more for readings");
        SLOTS - RECEIVE_MAX
    };

    pub(crate) const fn new(when_full: WhenFull) -> Self {
        Self { slots: [const { None }; SLOTS], when_full, next_order: 0, acknowledged: Deque::new() }
    }

    /// Takes a message; says which one made room for it.
    pub(crate) fn push(
        &mut self,
        id: ReadingId,
        content: Content,
        name: &str,
        body: &[u8],
        device_time: Option<UnixTime>,
        qos: Qos,
    ) -> Result<Option<ReadingId>, QueueError> {
        let name = parse_name(name, content)?;
        let body = Vec::from_slice(body).map_err(|_| QueueError::BodyTooLong { len: body.len(), max: BODY })?;
        let dropped = self.make_room(content)?;
        let free = self.slots.iter_mut().find(|slot| slot.is_none()).ok_or(QueueError::Full)?;
        let (state, order) = (State::Waiting, self.next_order);
        *free = Some(Entry { id, content, name, body, device_time, qos, state, unopened_in: None, order });
        self.next_order += 1;
        Ok(dropped)
    }

    fn make_room(&mut self, content: Content) -> Result<Option<ReadingId>, QueueError> {
        if content == Content::Greeting && self.count(|entry| entry.content == Content::Greeting) >= GREETINGS_MAX {
            self.take_oldest(|entry| entry.content == Content::Greeting);
        }
        if !content.is_the_applications() || self.count(Entry::is_reading) < Self::READINGS_MAX {
            return Ok(None);
        }
        match self.when_full {
            WhenFull::RefuseNew => Err(QueueError::Full),
            WhenFull::DropOldest => self.take_oldest(Entry::may_be_dropped).map(Some).ok_or(QueueError::Full),
        }
    }

    fn count(&self, which: impl Fn(&Entry<BODY>) -> bool) -> usize {
        self.slots.iter().flatten().filter(|entry| which(entry)).count()
    }

    fn take_oldest(&mut self, which: impl Fn(&Entry<BODY>) -> bool) -> Option<ReadingId> {
        let chosen = self.slots.iter_mut().filter(|slot| slot.as_ref().is_some_and(&which));
        chosen.min_by_key(|slot| slot.as_ref().map(|entry| entry.order))?.take().map(|entry| entry.id)
    }

    /// Whether a message of the application's with this id is here.
    pub(crate) fn holds(&self, id: ReadingId) -> bool {
        self.slots.iter().flatten().any(|entry| entry.is_reading() && entry.id == id)
    }

    /// Takes a message of the application's back that is not on its way; says whether there was one.
    pub(crate) fn withdraw(&mut self, id: ReadingId) -> bool {
        self.take_oldest(|entry| entry.id == id && entry.may_be_dropped()).is_some()
    }

    /// The message to seal next in the session `session`: the oldest that waits, or was refused in
    /// another session.
    pub(crate) fn next(&self, session: u32) -> Option<&Entry<BODY>> {
        let due = |entry: &&Entry<BODY>| match entry.state {
            State::Waiting => true,
            State::Refused { session: refused_by, .. } => refused_by != session,
            State::Sent { .. } => false,
        };
        self.slots.iter().flatten().filter(due).min_by_key(|entry| entry.order)
    }

    /// What was refused long enough ago waits again.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp) {
        for entry in self.slots.iter_mut().flatten() {
            if matches!(entry.state, State::Refused { at, .. } if now.saturating_since(at) >= REFUSED_WAIT) {
                entry.state = State::Waiting;
            }
        }
    }

    /// When a message that was refused waits again.
    pub(crate) fn poll_timeout(&self) -> Option<Timestamp> {
        let refused = self.slots.iter().flatten().filter_map(|entry| match entry.state {
            State::Refused { at, .. } => Some(at.saturating_add(REFUSED_WAIT)),
            State::Waiting | State::Sent { .. } => None,
        });
        refused.min()
    }

    /// The message was sealed in `session` and is on its way. At QoS 0 that is all.
    pub(crate) fn sent(&mut self, id: ReadingId, publication: Publication, session: u32) {
        for slot in &mut self.slots {
            match slot {
                Some(entry) if entry.id == id && entry.qos == Qos::AtMostOnce => *slot = None,
                Some(entry) if entry.id == id => entry.state = State::Sent { publication, session },
                _ => {}
            }
        }
    }

    /// PUBACK. A success ends the message; after a refusal it waits to be sealed anew.
    pub(crate) fn acknowledged(&mut self, publication: Publication, reason: ReasonCode, now: Timestamp) -> Answered {
        let mut answered = Answered::default();
        for slot in &mut self.slots {
            let Some(entry) = slot else { continue };
            let session = match entry.state {
                State::Sent { publication: sent, session } if sent == publication => session,
                _ => continue,
            };
            if reason.is_undelivered() {
                entry.state = State::Refused { at: now, session, reason, told: false };
                let again = reason == ReasonCode::IMPLEMENTATION_SPECIFIC;
                answered.unopened_again |= again && entry.unopened_in.replace(session) == Some(session);
                continue;
            }
            let told = entry.is_reading().then_some(entry.id);
            *slot = None;
            if let Some(id) = told {
                answered.untold |= self.acknowledged.is_full() && self.acknowledged.pop_front().is_some();
                let _ = self.acknowledged.push_back(id);
            }
        }
        answered
    }

    /// Takes its body from a receipt; whether it had one.
    pub(crate) fn shorten(&mut self, id: ReadingId) -> bool {
        let is_receipt = |entry: &&mut Entry<BODY>| entry.id == id && matches!(entry.content, Content::Receipt { .. });
        let Some(entry) = self.slots.iter_mut().flatten().find(is_receipt) else { return false };
        let had_one = !entry.body.is_empty();
        entry.body.clear();
        had_one
    }

    /// The message cannot be sent as things are, and waits like one that was refused.
    pub(crate) fn refused(&mut self, id: ReadingId, reason: ReasonCode, session: u32, now: Timestamp) {
        for entry in self.slots.iter_mut().flatten().filter(|entry| entry.id == id) {
            entry.state = State::Refused { at: now, session, reason, told: false };
        }
    }

    /// What the application has not heard yet, oldest first: what was acknowledged, then what was refused. Of
    /// receipts and greetings it hears nothing.
    pub(crate) fn take_outcome(&mut self) -> Option<Outcome> {
        if let Some(id) = self.acknowledged.pop_front() {
            return Some(Outcome::Acknowledged(id));
        }
        let untold =
            |entry: &&mut Entry<BODY>| entry.is_reading() && matches!(entry.state, State::Refused { told: false, .. });
        let entry = self.slots.iter_mut().flatten().filter(untold).min_by_key(|entry| entry.order)?;
        let State::Refused { reason, told, .. } = &mut entry.state else { return None };
        *told = true;
        Some(Outcome::Refused(entry.id, *reason))
    }

    /// How many messages are here, sent ones included.
    pub(crate) fn len(&self) -> usize {
        self.slots.iter().flatten().count()
    }
}

impl<const BODY: usize> Entry<BODY> {
    /// What it says.
    pub(crate) fn plaintext(&self) -> Plaintext<'_> {
        let (kind, command_id, status) = match self.content {
            Content::Reading => (Kind::Reading, None, None),
            Content::Event | Content::Greeting => (Kind::Event, None, None),
            Content::Receipt { command, status } => (Kind::Receipt, Some(command), Some(status)),
        };
        Plaintext {
            name: (!self.name.is_empty()).then_some(self.name.as_str()),
            device_time: self.device_time,
            body: Some(&self.body),
            command_id,
            status,
            reading_id: self.is_reading().then_some(self.id.0),
            ..Plaintext::new(kind)
        }
    }

    const fn is_reading(&self) -> bool {
        self.content.is_the_applications()
    }

    /// What is on its way may be durable already, so only what is at rest is dropped.
    const fn may_be_dropped(&self) -> bool {
        self.is_reading() && matches!(self.state, State::Waiting | State::Refused { .. })
    }
}

fn parse_name(name: &str, content: Content) -> Result<String<NAME_LEN_MAX>, QueueError> {
    let error = QueueError::Name { len: name.len() };
    let may_be_empty = matches!(content, Content::Receipt { .. });
    if (name.is_empty() && !may_be_empty) || name.chars().any(char::is_control) {
        return Err(error);
    }
    String::try_from(name).map_err(|_| error)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::client::{Client, ClientOptions};
    use unhidra_core::ids::DeviceId;

    type Small = Outbox<{ RECEIVE_MAX + 2 }, 8>;

    const NOW: Timestamp = Timestamp::from_ms(1_000_000);
    const REFUSED: ReasonCode = ReasonCode::IMPLEMENTATION_SPECIFIC;

    /// The `nth` publication of a client, from 1.
    fn publication(nth: usize) -> Publication {
        let options = ClientOptions {
            client_id: DeviceId::parse("d").expect("a device id"),
            clean_start: true,
            session_expiry_s: 0,
            keep_alive_s: 0,
            response_timeout: Duration::from_secs(1),
        };
        let mut client = Client::<64, 8>::new(options);
        client.open(NOW);
        assert!(client.handle_bytes(&mut &[0x20, 3, 0, 0, 0][..], NOW).is_ok());
        let made = (0..nth).map(|_| client.publish("t", Qos::AtLeastOnce, b"").expect("a slot"));
        made.last().expect("at least one")
    }

    fn push(outbox: &mut Small, id: u64) -> Result<Option<ReadingId>, QueueError> {
        outbox.push(ReadingId(id), Content::Reading, "t", b"1", None, Qos::AtLeastOnce)
    }

    fn next(outbox: &Small, session: u32) -> Option<u64> {
        outbox.next(session).map(|entry| entry.id.0)
    }

    fn filled(when_full: WhenFull) -> Small {
        let mut outbox = Outbox::new(when_full);
        assert_eq!((push(&mut outbox, 1), push(&mut outbox, 2)), (Ok(None), Ok(None)));
        outbox
    }

    #[test]
    fn a_full_outbox_drops_the_oldest_or_refuses_the_new_one() {
        let mut drops = filled(WhenFull::DropOldest);
        assert_eq!(push(&mut drops, 3), Ok(Some(ReadingId(1))));
        assert_eq!(next(&drops, 1), Some(2));

        let mut refuses = filled(WhenFull::RefuseNew);
        assert_eq!(push(&mut refuses, 3), Err(QueueError::Full));
        assert_eq!(next(&refuses, 1), Some(1));
    }

    #[test]
    fn what_is_on_its_way_is_never_dropped() {
        let mut outbox = filled(WhenFull::DropOldest);
        outbox.sent(ReadingId(1), publication(1), 1);
        assert_eq!(push(&mut outbox, 3), Ok(Some(ReadingId(2))));
        outbox.sent(ReadingId(3), publication(2), 1);
        assert_eq!(push(&mut outbox, 4), Err(QueueError::Full));
    }

    #[test]
    fn a_receipt_finds_room_where_no_reading_does() {
        let mut outbox = filled(WhenFull::RefuseNew);
        let receipt = Content::Receipt { command: CommandId::new([7; 16]), status: Status::Done };
        for id in 0..RECEIVE_MAX as u64 {
            let pushed = outbox.push(ReadingId(10 + id), receipt, "", b"", None, Qos::AtLeastOnce);
            assert_eq!(pushed, Ok(None));
        }
        let one_more = outbox.push(ReadingId(99), receipt, "", b"", None, Qos::AtLeastOnce);
        assert_eq!(one_more, Err(QueueError::Full));
    }

    #[test]
    fn only_success_ends_a_message() {
        let mut outbox = filled(WhenFull::RefuseNew);
        assert_eq!(outbox.take_outcome(), None);
        outbox.sent(ReadingId(1), publication(1), 1);
        assert_eq!(outbox.take_outcome(), None);
        outbox.acknowledged(publication(1), ReasonCode::SUCCESS, NOW);
        assert_eq!(outbox.take_outcome(), Some(Outcome::Acknowledged(ReadingId(1))));
        assert_eq!((outbox.take_outcome(), outbox.len()), (None, 1));
    }

    #[test]
    fn what_the_server_had_nobody_to_give_to_is_kept_and_sent_again() {
        let mut outbox = filled(WhenFull::RefuseNew);
        let nobody = ReasonCode::NO_MATCHING_SUBSCRIBERS;
        outbox.sent(ReadingId(1), publication(1), 1);
        assert_eq!(outbox.acknowledged(publication(1), nobody, NOW), Answered::default());
        assert_eq!(outbox.take_outcome(), Some(Outcome::Refused(ReadingId(1), nobody)));
        outbox.handle_timeout(NOW.saturating_add(REFUSED_WAIT));
        assert_eq!((next(&outbox, 1), outbox.len()), (Some(1), 2));
    }

    #[test]
    fn whoever_asks_for_no_outcome_goes_on_publishing_and_hears_of_the_last() {
        let mut outbox = Outbox::<{ RECEIVE_MAX + 2 }, 8>::new(WhenFull::RefuseNew);
        let sent = publication(1);
        for id in 1..=40 {
            assert_eq!(push(&mut outbox, id), Ok(None));
            outbox.sent(ReadingId(id), sent, 1);
            assert_eq!(outbox.acknowledged(sent, ReasonCode::SUCCESS, NOW).untold, id > OUTCOMES_MAX as u64);
        }
        let told: std::vec::Vec<_> = std::iter::from_fn(|| outbox.take_outcome()).collect();
        assert_eq!(told, (9..=40).map(|id| Outcome::Acknowledged(ReadingId(id))).collect::<std::vec::Vec<_>>());
        assert_eq!(outbox.len(), 0);
    }

    #[test]
    fn greetings_leave_room_for_receipts() {
        let mut outbox = filled(WhenFull::RefuseNew);
        for id in 10..16 {
            let pushed = outbox.push(ReadingId(id), Content::Greeting, "session", b"", None, Qos::AtLeastOnce);
            assert_eq!(pushed, Ok(None));
            outbox.sent(ReadingId(id), publication(id as usize - 9), 1);
        }
        let receipt = Content::Receipt { command: CommandId::new([7; 16]), status: Status::Done };
        for id in 20..18 + RECEIVE_MAX as u64 {
            assert!(outbox.push(ReadingId(id), receipt, "", b"", None, Qos::AtLeastOnce).is_ok());
        }
    }

    #[test]
    fn only_what_is_at_rest_is_taken_back() {
        let mut outbox = filled(WhenFull::RefuseNew);
        outbox.sent(ReadingId(1), publication(1), 1);
        assert_eq!((outbox.withdraw(ReadingId(1)), outbox.withdraw(ReadingId(2))), (false, true));
        assert_eq!((outbox.withdraw(ReadingId(2)), outbox.len()), (false, 1));
        outbox.refused(ReadingId(1), ReasonCode::PACKET_TOO_LARGE, 1, NOW);
        assert_eq!((outbox.withdraw(ReadingId(1)), outbox.len()), (true, 0));
    }

    #[test]
    fn a_refused_message_waits_for_a_new_session_or_ten_minutes() {
        let mut outbox = filled(WhenFull::RefuseNew);
        outbox.sent(ReadingId(1), publication(1), 1);
        outbox.acknowledged(publication(1), REFUSED, NOW);
        assert_eq!(outbox.take_outcome(), Some(Outcome::Refused(ReadingId(1), REFUSED)));
        assert_eq!(outbox.take_outcome(), None, "told once");
        assert_eq!(next(&outbox, 1), Some(2));
        assert_eq!(next(&outbox, 2), Some(1), "a new session takes it at once");
        assert_eq!(outbox.poll_timeout(), Some(NOW.saturating_add(REFUSED_WAIT)));
        outbox.handle_timeout(NOW.saturating_add(REFUSED_WAIT));
        assert_eq!((next(&outbox, 1), outbox.poll_timeout()), (Some(1), None));
    }

    #[test]
    fn a_message_that_does_not_open_twice_in_one_session_is_told_from_one_that_is_late() {
        let mut outbox = filled(WhenFull::RefuseNew);
        let mut refused = |nth, session, reason| {
            outbox.sent(ReadingId(1), publication(nth), session);
            outbox.acknowledged(publication(nth), reason, NOW).unopened_again
        };
        assert!(!refused(1, 1, REFUSED));
        assert!(!refused(2, 2, REFUSED), "in another session");
        assert!(!refused(3, 2, ReasonCode::PACKET_TOO_LARGE), "for another reason");
        assert!(refused(4, 2, REFUSED));
    }

    #[test]
    fn qos_0_ends_when_it_is_on_its_way() {
        let mut outbox = Small::new(WhenFull::RefuseNew);
        assert!(outbox.push(ReadingId(1), Content::Event, "t", b"", None, Qos::AtMostOnce).is_ok());
        outbox.sent(ReadingId(1), publication(1), 1);
        assert_eq!((outbox.len(), outbox.take_outcome()), (0, None));
    }

    #[test]
    fn names_and_bodies_have_bounds() {
        let mut outbox = Small::new(WhenFull::RefuseNew);
        let mut push = |name: &str, body: &[u8]| {
            outbox.push(ReadingId(1), Content::Reading, name, body, None, Qos::AtLeastOnce).map(|_| ())
        };
        assert_eq!(push("", b""), Err(QueueError::Name { len: 0 }));
        assert_eq!(push("a\n", b""), Err(QueueError::Name { len: 2 }));
        assert_eq!(push(&"n".repeat(65), b""), Err(QueueError::Name { len: 65 }));
        assert_eq!(push("n", &[0; 9]), Err(QueueError::BodyTooLong { len: 9, max: 8 }));
        assert_eq!(push(&"n".repeat(64), &[0; 8]), Ok(()));
    }

    #[test]
    fn what_the_application_says_has_an_id_to_be_known_by_when_it_is_sealed_anew() {
        let receipt = Content::Receipt { command: CommandId::new([1; 16]), status: Status::Done };
        for (content, has_one) in
            [(Content::Reading, true), (Content::Event, true), (Content::Greeting, false), (receipt, false)]
        {
            let mut outbox = Small::new(WhenFull::RefuseNew);
            assert!(outbox.push(ReadingId(7), content, "t", b"", None, Qos::AtLeastOnce).is_ok());
            let entry = outbox.next(1).expect("it waits");
            assert_eq!(entry.plaintext().reading_id, has_one.then_some(7));
        }
    }
}
