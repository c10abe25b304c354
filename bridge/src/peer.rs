//! One device as the node holds it: its sessions, its record, its commands.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rand_core::CryptoRng;
use thiserror::Error;
use unhidra_core::command::Command;
use unhidra_core::delivery::{Answer, DownlinkRow, Refusal};
use unhidra_core::device::Device;
use unhidra_core::ids::{Offset, Version};
use unhidra_core::message::UplinkKind;
use unhidra_core::setting::Setting;
use unhidra_core::time::{Timestamp, UnixTime};
use unhidra_e2ee::delta::{Lane, StateDelta};
use unhidra_e2ee::envelope::{Envelope, Message};
use unhidra_e2ee::error::{OpenError, SealError};
use unhidra_e2ee::identity::{IdentityKey, IdentityKeyError};
use unhidra_e2ee::plaintext::{Kind, Plaintext};
use unhidra_e2ee::prekey::OneTimePrekeySecret;
use unhidra_e2ee::recent::{MessageTag, Recent};
use unhidra_e2ee::record::{STATE_LEN, StateError};
use unhidra_e2ee::reset::{ResetReason, sign_reset};
use unhidra_e2ee::role::{ALIVE_INTERVAL, NodeRole, PREVIOUS_KEPT};
use unhidra_e2ee::session::Session;
use unhidra_e2ee::sessions::Slot;
use unhidra_store::{Op, PrekeyKind, PrekeyRecord, Stored, StoredSession};
use zeroize::Zeroize;

use crate::commands::CommandQueue;
use crate::door::{Door, Doors, Way};
use crate::draft::{Connection, Effect, Payload, Publish, Ticket};
use crate::gaps::{Gaps, Place};
use crate::link::Link;
use crate::prekeys::{SignedPrekeysError, one_time};
use crate::record::{PeerRecord, PeerRecordError};
use crate::role::{NodeSessions, Shelf};
use crate::settings::SettingList;
use crate::shard::{Common, Now};
use crate::stats::Stats;
use crate::uplink::{self, ReadingIds};

/// One `hello` a minute serves all repeats of a handshake, and so does any message sealed within
/// it (e2ee/PROTOCOL.md section 9).
const HELLO_INTERVAL: Duration = Duration::from_secs(60);
const HELLO: &str = "hello";
/// What is said to a device so that it hears of the node's newest key (e2ee/PROTOCOL.md section 9).
const ALIVE: &str = "alive";

/// A device's records, as they were read.
#[derive(Debug)]
pub struct Loaded {
    /// Its entry in the registry.
    pub device: Arc<Device>,
    /// Its session records; empty for one that was never heard of.
    pub stored: Stored,
    /// The node's signed prekeys, which are not looked at, and the device's one-time prekey.
    pub prekeys: Vec<PrekeyRecord>,
    /// Its commands that are not final, oldest first.
    pub commands: Vec<Command>,
    /// Its settings.
    pub settings: Vec<Setting>,
    /// The reading ids of its newest rows and where those are, oldest first.
    pub reading_ids: Vec<(Offset, u64)>,
}

/// Whether these records hold message keys for late arrivals past their day: those of a device that
/// is away, and that [`Bridge::handle_look`](crate::Bridge::handle_look) is to be told of.
#[must_use]
pub fn holds_old_keys(stored: &Stored, now: UnixTime) -> bool {
    let holds = |stored: &StoredSession| {
        // Most keep none, and reading a session costs a multiplication on the curve.
        stored.whole.len() > STATE_LEN + 2
            && Session::<NodeRole<Shelf>>::decode(&stored.whole, None, None)
                .is_ok_and(|session| session.keys_expire_at().is_some_and(|at| at <= now))
    };
    stored.present.iter().chain(&stored.previous).any(holds)
}

/// Why a device's records cannot be used.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum RestoreError {
    /// The registry holds an identity key that is none.
    #[error("its identity key: {0}")]
    Identity(IdentityKeyError),
    /// A session's records are damaged, or of another version.
    #[error("its session: {0}")]
    Session(StateError),
    /// Its peer record is damaged, or of another version.
    #[error(transparent)]
    Record(PeerRecordError),
    /// Its one-time prekey is damaged.
    #[error(transparent)]
    Prekey(SignedPrekeysError),
}

/// One device in memory, ahead of the store by the drafts on their way.
pub(crate) struct Peer {
    pub(crate) device: Arc<Device>,
    pub(crate) identity: IdentityKey,
    pub(crate) sessions: NodeSessions,
    pub(crate) record: PeerRecord,
    pub(crate) one_time: Option<OneTimePrekeySecret>,
    pub(crate) doors: Doors,
    gaps: Gaps,
    pub(crate) commands: CommandQueue,
    pub(crate) settings: SettingList,
    pub(crate) timer: Option<Timestamp>,
    /// The newest draft that holds something of this device.
    pub(crate) last_draft: u64,
    version: Version,
    reading_ids: ReadingIds,
    /// A handshake opened and the device has not been answered in its session yet.
    hello_due: bool,
    /// When a message was sealed in the present session.
    pub(crate) sealed_at: Option<Timestamp>,
    /// Records of another identity key are to be ended with the first write.
    ends_old_identity: bool,
}

impl Peer {
    /// A device from its records.
    pub(crate) fn restore(loaded: Loaded, common: &Common, now: Now) -> Result<Self, RestoreError> {
        let Loaded { device, stored, prekeys, commands, settings, reading_ids } = loaded;
        let identity = IdentityKey::from_bytes(&device.identity_key).map_err(RestoreError::Identity)?;
        let record = match &stored.peer {
            Some(bytes) => PeerRecord::decode(bytes).map_err(RestoreError::Record)?,
            None => PeerRecord::new(device.identity_key),
        };
        let is_same = record.identity_key == device.identity_key;
        let session = |stored: Option<StoredSession>| match stored.filter(|_| is_same) {
            Some(s) => Session::decode(&s.whole, s.receive.as_deref(), s.send.as_deref())
                .map(Some)
                .map_err(RestoreError::Session),
            None => Ok(None),
        };
        let recent = stored.recent.iter().map(|t| MessageTag { key: t.key, number: t.number, tag: t.tag });
        let own = |record: &&PrekeyRecord| record.kind == PrekeyKind::OneTime(device.id);
        let newest = prekeys.iter().filter(own).max_by_key(|record| record.id);
        let newest_id = reading_ids.last().map_or(record.ids_after, |(offset, _)| *offset);
        let record = if is_same { record } else { record.with_identity(device.identity_key, newest_id) };
        let own_ids = reading_ids.into_iter().filter(|(offset, _)| *offset > record.ids_after).map(|(_, id)| id);
        let (present, previous) = (session(stored.present)?, session(stored.previous)?);
        let mut sessions = NodeSessions::new(present, previous, Recent::from_tags(recent));
        if record.restored {
            sessions.set_restored();
        }
        let one_time = newest.map(one_time).transpose().map_err(RestoreError::Prekey)?;
        Ok(Self {
            settings: SettingList::restore(settings, record.last_counter, now.unix),
            identity,
            sessions,
            doors: Doors::new(record.reset_at, record.outside_reset_at),
            reading_ids: ReadingIds::restore(own_ids),
            record,
            one_time,
            gaps: Gaps::default(),
            commands: CommandQueue::restore(commands, common.config.pace(), now),
            timer: None,
            last_draft: 0,
            version: stored.version,
            hello_due: false,
            sealed_at: None,
            ends_old_identity: !is_same,
            device,
        })
    }

    /// Says that the draft in the making holds something of this device.
    pub(crate) fn touch(&mut self, common: &mut Common) {
        self.last_draft = common.draft_number;
    }

    /// Opens what a device published on its `messages` row, and says how it is answered.
    pub(crate) fn open(
        &mut self,
        bytes: &[u8],
        received_at: UnixTime,
        way: Way<'_>,
        common: &mut Common,
        now: Now,
        rng: &mut impl CryptoRng,
    ) -> Answer {
        self.end_old_identity(common, now);
        self.sessions.clock_is(now.unix);
        match Envelope::parse(bytes) {
            Ok(Envelope::Message(message)) => self.open_message(&message, received_at, way, common, now, rng),
            Ok(Envelope::HandshakeInit(init)) => self.open_handshake(&init, received_at, way, common, now, rng),
            Ok(Envelope::PreKeyBundle(_) | Envelope::ResetRequest(_)) | Err(_) => {
                common.stats.malformed += 1;
                Answer::Refused(Refusal::DoesNotOpen)
            }
        }
    }

    /// Opens a Message in one of the two sessions.
    pub(crate) fn open_message(
        &mut self,
        message: &Message<'_>,
        received_at: UnixTime,
        way: Way<'_>,
        common: &mut Common,
        now: Now,
        rng: &mut impl CryptoRng,
    ) -> Answer {
        if self.doors.at(way.door).steps.is_spent(now.timer) && self.sessions.needs_dh_step(message, now.unix) {
            common.stats.over_budget += 1;
            return Answer::Refused(Refusal::DoesNotOpen);
        }
        let mut scratch = std::mem::take(&mut *common.scratch);
        if scratch.len() < message.ciphertext().len() {
            scratch.resize(message.ciphertext().len(), 0);
        }
        let mut result = self.sessions.open(message, &mut scratch, now.unix, rng);
        let may_be_long = result.as_ref().is_err_and(|error| error.is_within_long_try());
        if may_be_long && self.doors.at(way.door).long_tries.take(now.timer) {
            common.stats.long_tries += 1;
            result = self.sessions.open_by_long_try(message, &mut scratch, now.unix, rng);
        }
        let answer = match result {
            Ok((opened, moved)) => {
                self.write(moved.slot, moved.delta, common);
                self.add_row(opened.tag(), opened.plaintext(), received_at, common, now);
                if let Some(reason) = moved.reset_due {
                    self.ask_for_reset(reason, message.ratchet_key(), way, common, now);
                }
                Answer::Accepted
            }
            Err(error) => self.refuse(error, message, way, common, now),
        };
        wipe_into(common, scratch, message.ciphertext().len());
        answer
    }

    /// Counts what did not open, and answers it.
    pub(crate) fn refuse(
        &mut self,
        error: OpenError,
        message: &Message<'_>,
        way: Way<'_>,
        common: &mut Common,
        now: Now,
    ) -> Answer {
        count(&mut common.stats, error);
        if error == OpenError::Duplicate {
            return Answer::Accepted;
        }
        if error.spent_dh_step() {
            self.doors.at(way.door).steps.spend(now.timer);
        }
        // Restored, the node cannot tell what is at fault, and a new session ends it.
        let restored = self.record.restored.then_some(ResetReason::Restored);
        if let Some(reason) = restored.or(error.reset_due()) {
            self.ask_for_reset(reason, message.ratchet_key(), way, common, now);
        }
        tracing::debug!(device = %self.device.id, %error, "a message did not open");
        Answer::Refused(Refusal::DoesNotOpen)
    }

    /// Appends the row of an opened message, and does what it says.
    pub(crate) fn add_row(
        &mut self,
        tag: MessageTag,
        plaintext: &[u8],
        received_at: UnixTime,
        common: &mut Common,
        now: Now,
    ) {
        common.stats.opened += 1;
        let place = self.gaps.see(tag);
        match place {
            Place::After(missing) => common.stats.passed_over += u64::from(missing),
            Place::Late => common.stats.late += 1,
        }
        self.settings.heard(matches!(place, Place::After(1..)), now.timer);
        let mut said = uplink::read(self.device.id, plaintext, received_at);
        if let Some(id) = said.reading_id {
            if self.reading_ids.contains(id) {
                // Sealed anew after its first PUBACK was lost: the row must exist, for its tag, and
                // is shown to nobody.
                common.stats.repeated_readings += 1;
                said.kind = UplinkKind::Ignored;
                said.body = Bytes::new();
                said.reading_id = None;
            } else {
                self.reading_ids.push(id);
            }
        } else if said.kind == UplinkKind::Ignored {
            common.stats.ignored += 1;
        }
        if let UplinkKind::Receipt { command, status } = said.kind {
            self.take_receipt(command, status, &said, common, now);
        }
        common.draft.push_row(unhidra_store::MessageTag { key: tag.key, number: tag.number, tag: tag.tag }, said);
    }

    /// Asks the device for a new session by the door its message came by, unless it was asked there
    /// within the hour or does not listen there: then it is asked when the hour is over, or it listens.
    /// The hour is committed before the request leaves.
    pub(crate) fn ask_for_reset(
        &mut self,
        reason: ResetReason,
        ratchet_key: &[u8; 32],
        way: Way<'_>,
        common: &mut Common,
        now: Now,
    ) {
        self.doors.clock_is(now.unix);
        let allowance = self.doors.at(way.door);
        allowance.reset_owed = Some((reason, *ratchet_key));
        let target = way.target(DownlinkRow::Commands).filter(|target| Door::of(*target) == way.door);
        let Some(connection) = target.filter(|_| allowance.take_reset(now.unix)) else { return };
        let reason = if self.record.restored { ResetReason::Restored } else { reason };
        match way.door {
            Door::Front => self.record.reset_at = Some(now.unix),
            Door::Outside(_) => self.record.outside_reset_at = Some(now.unix),
        }
        // A device that begins again with an old copy takes a step of its own first, so that it mostly
        // comes with a key that follows from nothing in the session there is.
        let went_back = match reason {
            ResetReason::RolledBack | ResetReason::Counter => true,
            ResetReason::UnknownKey => self.sessions.present().is_some(),
            ResetReason::Restored | ResetReason::PreviousSession => false,
        };
        if went_back {
            self.record.goes_back(now.unix);
            common.stats.went_back += 1;
        }
        self.write_record(common);
        let request = sign_reset(&common.identity, &self.device.id, reason, ratchet_key);
        let ticket = common.ticket();
        common.stats.resets += 1;
        tracing::warn!(
            device = %self.device.id,
            cause = cause(reason, went_back),
            state_went_back = self.record.went_back,
            "the device is asked for a new session"
        );
        common.draft.effects.push(Effect::Publish(Publish {
            device: self.device.id,
            connection,
            row: DownlinkRow::Commands,
            ticket,
            payload: Payload::Plain(Bytes::copy_from_slice(&request)),
        }));
    }

    /// Says that a handshake waits for an answer in the present session.
    pub(crate) fn owe_hello(&mut self, now: Now) {
        let recently = self.sealed_at.is_some_and(|at| now.timer.saturating_since(at) < HELLO_INTERVAL);
        self.hello_due = !recently;
    }

    /// Seals what waits: commands while the window has room, and a `hello` or an `alive` where no
    /// command says as much.
    pub(crate) fn send_due(&mut self, link: Option<&Link>, common: &mut Common, now: Now, _rng: &mut impl CryptoRng) {
        let Some(connection) = link.and_then(|link| link.target(DownlinkRow::Commands)) else { return };
        let way = Way { door: Door::of(connection), link };
        if let Some((reason, ratchet_key)) = self.doors.at(way.door).reset_owed {
            self.ask_for_reset(reason, &ratchet_key, way, common, now);
        }
        if self.sessions.present().is_none() {
            return;
        }
        self.end_expired_commands(common, now);
        if !(self.send_setting_due(connection, common, now) && self.send_commands_due(connection, common, now)) {
            return;
        }
        if self.hello_due {
            self.send_word(HELLO, connection, common, now);
        } else if self.alive_due_at(link, now).is_some_and(|at| at <= now.timer) {
            self.send_word(ALIVE, connection, common, now);
        }
    }

    /// Seals an empty setting, a word of the node's own. One that cannot be sealed waits as long as
    /// one that was.
    fn send_word(&mut self, name: &str, connection: Connection, common: &mut Common, now: Now) {
        let said = Plaintext { name: Some(name), ..Plaintext::new(Kind::Setting) };
        self.sealed_at = Some(now.timer);
        if let Ok((write, pending)) = seal(&mut self.sessions, &said, common) {
            let ticket = common.ticket();
            self.after_seal(write, pending, connection, ticket, common, now);
        }
    }

    /// When `alive` is due: the device is here, its chain is old, and it has been sent nothing for
    /// an hour. Any message of ours has the device owe a step as well as `alive` does.
    fn alive_due_at(&self, link: Option<&Link>, now: Now) -> Option<Timestamp> {
        link.and_then(|link| link.target(DownlinkRow::Commands))?;
        let present = self.sessions.present().filter(|present| present.has_room_for_alive())?;
        let old_at = now.timer.saturating_add(present.alive_due_at().saturating_since(now.unix));
        let next_at = self.sealed_at.map_or(now.timer, |at| at.saturating_add(ALIVE_INTERVAL));
        Some(old_at.max(next_at))
    }

    pub(crate) fn after_seal(
        &mut self,
        delta: StateDelta,
        pending: unhidra_e2ee::session::Pending<BytesMut>,
        connection: Connection,
        ticket: Ticket,
        common: &mut Common,
        now: Now,
    ) {
        let write = self.write(Slot::Present, delta, common);
        self.touch(common);
        self.hello_due = false;
        self.sealed_at = Some(now.timer);
        common.stats.sealed += 1;
        common.draft.effects.push(Effect::Publish(Publish {
            device: self.device.id,
            connection,
            row: DownlinkRow::Commands,
            ticket,
            payload: Payload::Sealed { write, pending },
        }));
    }

    /// Ends what is over: commands past their expiry, the previous session and kept message keys
    /// past their day.
    pub(crate) fn expire(&mut self, common: &mut Common, now: Now) {
        self.end_expired_commands(common, now);
        if self.sessions.expire(now.unix) {
            let expect = self.next_version();
            common.draft.ops.push(Op::EndSessions { device: self.device.id, expect, present: false });
            self.touch(common);
        }
        for slot in self.sessions.expire_keys(now.unix) {
            self.write(slot, StateDelta::Whole, common);
            self.touch(common);
        }
    }

    /// Whether message keys are kept for late arrivals, which go after a day.
    pub(crate) fn keeps_keys(&self) -> bool {
        self.sessions.keys_expire_at().is_some()
    }

    /// When [`expire`](Self::expire) or [`send_due`](Self::send_due) has something to do.
    pub(crate) fn next_timeout(&self, link: Option<&Link>, common: &Common, now: Now) -> Option<Timestamp> {
        let previous_ends = match (self.sessions.previous(), self.sessions.present()) {
            // A millisecond past the day, when it is over for `Sessions` too.
            (Some(_), Some(present)) => {
                Some(present.began_at().saturating_add(PREVIOUS_KEPT + Duration::from_millis(1)))
            }
            _ => None,
        };
        let target = link.and_then(|link| link.target(DownlinkRow::Commands));
        let reset = target.and_then(|target| self.doors.reset_owed_at(Door::of(target)));
        let expiry = self.commands.next_expiry(common.config.pace());
        let ends = [expiry, previous_ends, self.sessions.keys_expire_at(), reset];
        let ends = ends.into_iter().flatten().min();
        let ends = ends.map(|at| now.timer.saturating_add(at.saturating_since(now.unix)));
        let silence = self.commands.opens_at(now).filter(|_| target.is_some());
        ends.into_iter().chain(self.alive_due_at(link, now)).chain(silence).min()
    }

    /// Writes what an open or a seal moved; says which session write of the draft it is.
    pub(crate) fn write(&mut self, slot: Slot, delta: StateDelta, common: &mut Common) -> usize {
        let (device, expect) = (self.device.id, self.next_version());
        let op = match delta {
            StateDelta::Chain { lane, bytes } => Op::Chain {
                device,
                slot: stored_slot(slot),
                lane: match lane {
                    Lane::Receive => unhidra_store::Lane::Receive,
                    Lane::Send => unhidra_store::Lane::Send,
                },
                expect,
                delta: Bytes::copy_from_slice(bytes.as_slice()),
            },
            StateDelta::Whole => Op::Session { device, slot: stored_slot(slot), expect, whole: self.encode(slot) },
        };
        common.draft.push_session(op)
    }

    fn encode(&self, slot: Slot) -> Bytes {
        let session: Option<&Session<_>> = match slot {
            Slot::Present => self.sessions.present(),
            Slot::Previous => self.sessions.previous(),
        };
        let Some(session) = session else { return Bytes::new() };
        let mut whole = vec![0; session.encoded_len()];
        let written = session.encode(&mut whole);
        assert!(written.is_ok(), "the buffer has the length the session asked for");
        whole.into()
    }

    /// Makes room for a new session: the present one becomes the previous one.
    pub(crate) fn rotate(&mut self, common: &mut Common) {
        if self.sessions.present().is_some() {
            let expect = self.next_version();
            common.draft.ops.push(Op::Rotate { device: self.device.id, expect });
        }
    }

    /// Writes what outlives sessions.
    pub(crate) fn write_record(&mut self, common: &mut Common) {
        let bytes = Bytes::copy_from_slice(&self.record.encode());
        common.draft.ops.push(Op::Peer { device: self.device.id, bytes });
        self.touch(common);
    }

    /// The sessions of the identity key before this one end with the first write under it, and with them what was
    /// said in them: the device that had that key may have carried a command out and have a setting. This one has
    /// none of both, and would not know a repeat of that command as one.
    pub(crate) fn end_old_identity(&mut self, common: &mut Common, now: Now) {
        if std::mem::take(&mut self.ends_old_identity) {
            self.commands.replaced(now.unix).into_iter().for_each(|command| common.draft.push_command(command));
            self.settings.replaced().into_iter().for_each(|setting| common.draft.push_setting(setting));
            let expect = self.next_version();
            common.draft.ops.push(Op::EndSessions { device: self.device.id, expect, present: true });
            self.write_record(common);
        }
    }

    fn next_version(&mut self) -> Version {
        let expect = self.version;
        // 2^32 writes of one device are 136 years at one a second; the store refuses what is past.
        self.version = Version::new(expect.get().wrapping_add(1));
        expect
    }
}

/// Seals into a buffer of its own; the session is ahead of the store from here on.
pub(crate) fn seal(
    sessions: &mut NodeSessions,
    said: &Plaintext<'_>,
    common: &mut Common,
) -> Result<(StateDelta, unhidra_e2ee::session::Pending<BytesMut>), SealError> {
    let session: &mut Session<unhidra_e2ee::role::NodeRole<Shelf>> =
        sessions.present_mut().ok_or(SealError::ReceivesOnly)?;
    let len = said.padded_len();
    let mut scratch = std::mem::take(&mut *common.scratch);
    scratch.resize(scratch.len().max(len), 0);
    let sealed = match said.encode_padded(&mut scratch) {
        Ok(len) => {
            let out = BytesMut::zeroed(session.sealed_len(len));
            session.seal(scratch.get(..len).unwrap_or_default(), out)
        }
        Err(error) => Err(SealError::PlaintextTooLong { found: error.needed, max: error.max }),
    };
    wipe_into(common, scratch, len);
    sealed
}

/// Puts the scratch buffer back with nothing in it that was said: `used` bytes were, at most.
pub(crate) fn wipe_into(common: &mut Common, mut scratch: Vec<u8>, used: usize) {
    scratch.get_mut(..used).unwrap_or_default().zeroize();
    *common.scratch = scratch;
}

fn stored_slot(slot: Slot) -> unhidra_store::Slot {
    match slot {
        Slot::Present => unhidra_store::Slot::Present,
        Slot::Previous => unhidra_store::Slot::Previous,
    }
}

/// What an operator reads of a reset: at most once an hour for each device.
const fn cause(reason: ResetReason, went_back: bool) -> &'static str {
    match reason {
        ResetReason::UnknownKey if went_back => {
            "it goes on from what this node is past: it was restored from an old copy, or two devices have its identity"
        }
        ResetReason::UnknownKey => "it sealed in a session that this node does not have",
        ResetReason::RolledBack => {
            "its state went back: it was restored from an old copy, or two devices have its identity"
        }
        ResetReason::Restored => "this node's store went back to an earlier moment",
        ResetReason::Counter => {
            "it began a session under a counter that was used: it was restored from an old copy, or two devices have \
             its identity"
        }
        ResetReason::PreviousSession => "it goes on sealing in a session that was replaced",
    }
}

fn count(stats: &mut Stats, error: OpenError) {
    let counter = match error {
        OpenError::Duplicate => &mut stats.duplicates,
        OpenError::RolledBack { .. } => &mut stats.rolled_back,
        OpenError::TooOld { .. } => &mut stats.too_old,
        OpenError::TooFar { .. } => &mut stats.too_far,
        OpenError::UnknownKey { .. } => &mut stats.unknown,
        OpenError::HostileKey { .. } | OpenError::BadTag { .. } | OpenError::OutTooSmall { .. } => &mut stats.forged,
    };
    *counter += 1;
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("device", &self.device.id).field("version", &self.version).finish_non_exhaustive()
    }
}
