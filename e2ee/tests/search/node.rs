//! The node: what a bridge does with the crate, as PROTOCOL.md asks it to.

use std::collections::VecDeque;
use std::time::Duration;

use unhidra_core::ids::DeviceId;
use unhidra_core::time::UnixTime;
use unhidra_e2ee::delta::StateDelta;
use unhidra_e2ee::envelope::{Envelope, HandshakeInit, Message, PrekeyRequest};
use unhidra_e2ee::error::OpenError;
use unhidra_e2ee::handshake::{Enrolled, respond};
use unhidra_e2ee::identity::{IdentityKey, IdentitySecret};
use unhidra_e2ee::prekey::BundleParts;
use unhidra_e2ee::recent::MessageTag;
use unhidra_e2ee::reset::{ResetReason, sign_reset};
use unhidra_e2ee::role::{ALIVE_INTERVAL, LONG_TRY_INTERVAL};
use unhidra_e2ee::sessions::{Handshake, Slot};
use unhidra_e2ee::suite::Suite;

use crate::commands::Commands;
use crate::device::state;
use crate::rule::Rule;
use crate::said::Said;
use crate::store::{NodeSession, NodeSessions, OneTime, PeerRecord, Signed, Store, Write, encode, write};
use crate::wire::{DownRow, UpPacket};
use crate::world::{Broken, Env};

mod writer;

use writer::{Draft, Effect};
pub(crate) use writer::{Fault, Out, Went};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const WEEK: u64 = 7 * 24 * HOUR;
/// Failed opens that cost a DH step, a minute.
const FAILURES_MAX: u32 = 10;

pub(crate) struct Node {
    pub(crate) identity: IdentitySecret,
    pub(crate) store: Store,
    pub(crate) fault: Option<Fault>,
    /// How many drafts the writer lets wait.
    pub(crate) busy: u8,
    id: DeviceId,
    suite: Suite,
    drafts: VecDeque<Draft>,
    ram: Ram,
}

/// What costs a DH step where it fails, counted apart.
#[derive(Clone, Copy)]
enum Costly {
    Message,
    Handshake,
}

struct Ram {
    sessions: NodeSessions,
    peer: PeerRecord,
    prekey: Option<OneTime>,
    reading_ids: VecDeque<u64>,
    commands: Commands,
    hello_due: bool,
    sealed_at: Option<u64>,
    /// Of messages, and of handshakes: since when, and how many.
    failures: [(u64, u32); 2],
    /// A ResetRequest that waits for the hour, and the message it answers.
    reset_owed: Option<(ResetReason, [u8; 32])>,
    tried_at: Option<u64>,
    alive_at: Option<u64>,
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("an interval")
}

fn unix(now: u64) -> UnixTime {
    UnixTime::from_ms(now)
}

fn read(store: &Store, restored_receives: bool) -> Ram {
    let mut sessions = store.sessions();
    if store.peer.restored && restored_receives {
        sessions.set_restored();
    }
    Ram {
        sessions,
        peer: store.peer,
        prekey: store.prekey.clone(),
        reading_ids: store.reading_ids.clone(),
        commands: Commands::read(&store.commands),
        hello_due: false,
        sealed_at: None,
        failures: [(0, 0); 2],
        reset_owed: None,
        tried_at: None,
        alive_at: None,
    }
}

impl Node {
    pub(crate) fn new(id: DeviceId, identity: IdentitySecret, suite: Suite, store: Store) -> Self {
        let ram = read(&store, true);
        Self { identity, store, fault: None, busy: 0, id, suite, drafts: VecDeque::new(), ram }
    }

    /// The process ends, and begins again with what is in the store.
    pub(crate) fn restarts(&mut self, env: &Env) {
        self.drafts.clear();
        self.ram = read(&self.store, env.keeps(Rule::RestoreReceives));
        if !env.keeps(Rule::RepeatAnew) {
            self.ram.commands.forget();
        }
    }

    /// The device is enrolled with another identity key.
    pub(crate) fn enrolls(&mut self, identity: [u8; 32], env: &mut Env) -> Result<(), Broken> {
        let counter = if env.keeps(Rule::NewIdentityCounter) { 0 } else { self.ram.peer.last_counter };
        let peer = PeerRecord { last_counter: counter, restored: false, identity, ..self.store.peer };
        let mut writes = vec![Write::Peer(peer)];
        if env.keeps(Rule::NewIdentityEnds) {
            writes.push(Write::EndAll);
        }
        self.store.apply(&writes, &mut env.ledger)?;
        self.restarts(env);
        Ok(())
    }

    pub(crate) fn sessions(&self) -> &NodeSessions {
        &self.ram.sessions
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.ram.commands.is_quiet() && self.drafts.is_empty()
    }

    /// A connection ended or begins: what was sealed on the one before is lost.
    pub(crate) fn relinked(&mut self) {
        self.ram.commands.connection_ended();
    }

    /// The device's answer to a publish.
    pub(crate) fn published(&mut self, ticket: u64, accepted: bool, draft: &mut Vec<Write>) {
        draft.extend(self.ram.commands.published(ticket, accepted));
    }

    /// Takes one publish of the device.
    pub(crate) fn take(&mut self, packet: &UpPacket, linked: bool, env: &mut Env) -> Result<(), Broken> {
        let mut draft = Draft::default();
        let accepted = match packet.is_get {
            true => self.give_bundle(&packet.bytes, linked, &mut draft, env),
            false => self.open(&packet.bytes, linked, &mut draft, env)?,
        };
        if packet.publication.is_some() && !accepted {
            env.tally.add("refused", 1);
        }
        draft.effects.push(Effect::Answer { publication: packet.publication, accepted });
        self.send_due(linked, &mut draft, env)?;
        self.drafts.push_back(draft);
        Ok(())
    }

    /// What the node does when nothing comes: commands, `alive`, what is over.
    pub(crate) fn poll(&mut self, linked: bool, writes: Vec<Write>, env: &mut Env) -> Result<(), Broken> {
        let mut draft = Draft { writes, ..Draft::default() };
        if self.ram.sessions.expire(unix(env.now)) {
            draft.writes.push(Write::EndPrevious);
        }
        let shorter: Vec<Slot> = self.ram.sessions.expire_keys(unix(env.now)).collect();
        for slot in shorter {
            draft.writes.extend(write(slot, &self.ram.sessions, &StateDelta::Whole));
        }
        self.send_due(linked, &mut draft, env)?;
        if !draft.writes.is_empty() || !draft.effects.is_empty() {
            self.drafts.push_back(draft);
        }
        Ok(())
    }

    /// Takes a command for the device.
    pub(crate) fn command(&mut self, id: u64, expires_at: u64) -> Vec<Write> {
        self.ram.commands.push(id, expires_at).into_iter().collect()
    }

    /// A week has passed since the signed prekey was made.
    pub(crate) fn rotate(&mut self, env: &mut Env) {
        while let Some(last) = self.store.signed.last()
            && env.keeps(Rule::RotatesPrekey)
            && env.now.saturating_sub(last.made_at) >= WEEK
        {
            let (id, made_at) = (last.id + 1, last.made_at + WEEK);
            let new = Signed::generate(id, made_at, &mut env.rng);
            self.store.signed.push(new);
            let kept = if env.keeps(Rule::KeepsOldPrekey) { 2 } else { 1 };
            let gone = self.store.signed.len().saturating_sub(kept);
            self.store.signed.drain(..gone);
        }
    }

    fn give_bundle(&mut self, bytes: &[u8], linked: bool, draft: &mut Draft, env: &mut Env) -> bool {
        let Ok(request) = PrekeyRequest::parse(bytes) else { return false };
        if request.suite != self.suite {
            return false;
        }
        if !linked {
            return true;
        }
        if !env.keeps(Rule::PrekeyWaits) {
            self.ram.prekey = None;
        }
        if self.ram.prekey.is_none() {
            let id = self.ram.peer.next_prekey_id;
            self.ram.peer.next_prekey_id += 1;
            let prekey = OneTime::generate(id, self.suite, &mut env.rng);
            draft.writes.push(Write::Peer(self.ram.peer));
            draft.writes.push(Write::Prekey(Some(prekey.clone())));
            self.ram.prekey = Some(prekey);
        }
        let (Some(spk), Some(opk)) = (self.store.signed.last(), &self.ram.prekey) else { return false };
        let (spk, opk) = (spk.secret(), opk.secret());
        let (now, last_counter) = (unix(env.now), self.ram.peer.last_counter);
        let parts = BundleParts { device: &self.id, request, last_counter, now, spk: &spk, opk: &opk };
        let Ok(bundle) = parts.sign(&self.identity) else { return false };
        let bytes = bundle.as_bytes().to_vec();
        env.tally.add("bundles", 1);
        draft.effects.push(Effect::Plain { row: DownRow::Prekeys, bytes, reset_at: None });
        true
    }

    fn open(&mut self, bytes: &[u8], linked: bool, draft: &mut Draft, env: &mut Env) -> Result<bool, Broken> {
        match Envelope::parse(bytes) {
            Ok(Envelope::Message(message)) => self.open_message(&message, linked, draft, env),
            Ok(Envelope::HandshakeInit(init)) => self.open_handshake(&init, bytes, linked, draft, env),
            _ => Ok(false),
        }
    }

    fn open_message(
        &mut self,
        message: &Message<'_>,
        linked: bool,
        draft: &mut Draft,
        env: &mut Env,
    ) -> Result<bool, Broken> {
        let now = unix(env.now);
        if self.budget_is_spent(Costly::Message, env) && self.ram.sessions.needs_dh_step(message, now) {
            env.tally.add("over-budget", 1);
            return Ok(false);
        }
        let before = state(&self.ram.sessions, encode);
        let mut out = vec![0; message.ciphertext().len()];
        let mut opened = self.ram.sessions.open(message, &mut out, now, &mut env.rng);
        if let Err(error) = opened
            && error.is_within_long_try()
            && self.may_try_long(env)
        {
            self.ram.tried_at = Some(env.now);
            env.tally.add("tried-far", 1);
            opened = self.ram.sessions.open_by_long_try(message, &mut out, now, &mut env.rng);
        }
        match opened {
            Ok((opened, moved)) => {
                env.ledger.node_opens(message)?;
                let (tag, said) = (opened.tag(), Said::decode(opened.plaintext()));
                draft.writes.extend(write(moved.slot, &self.ram.sessions, &moved.delta));
                self.add_row(tag, *message.ratchet_key(), said, draft, env);
                if let Some(reason) = moved.reset_due
                    && (reason != ResetReason::Restored || env.keeps(Rule::RestoreAsks))
                {
                    self.ask_for_reset(reason, message, linked, draft, env);
                }
                Ok(true)
            }
            Err(error) => {
                if state(&self.ram.sessions, encode) != before {
                    return Err(Broken(format!("the node changed though a message did not open: {error}")));
                }
                Ok(self.refuse(error, message, linked, draft, env))
            }
        }
    }

    /// What did not open: whether it is acknowledged all the same.
    fn refuse(
        &mut self,
        error: OpenError,
        message: &Message<'_>,
        linked: bool,
        draft: &mut Draft,
        env: &mut Env,
    ) -> bool {
        if error == OpenError::Duplicate {
            env.tally.add("duplicates", 1);
            return env.keeps(Rule::DuplicateAcknowledged);
        }
        env.tally.add("too-far", usize::from(matches!(error, OpenError::TooFar { .. })));
        if error.spent_dh_step() {
            self.spend_budget(Costly::Message, env);
        }
        let unknown = matches!(error.reset_due(), Some(ResetReason::UnknownKey));
        if let Some(reason) = error.reset_due()
            && (!unknown || env.keeps(Rule::AnswersUnknown))
        {
            self.ask_for_reset(reason, message, linked, draft, env);
        }
        false
    }

    fn may_try_long(&self, env: &Env) -> bool {
        let since = |at: u64| env.now.saturating_sub(at);
        let recently = self.ram.tried_at.is_some_and(|at| since(at) < ms(LONG_TRY_INTERVAL));
        env.keeps(Rule::LongTry) && !(recently && env.keeps(Rule::LongTryOnce))
    }

    fn budget_is_spent(&self, costly: Costly, env: &Env) -> bool {
        let costly = if env.keeps(Rule::HandshakesApart) { costly } else { Costly::Message };
        let (since, failures) = self.ram.failures[costly as usize];
        env.keeps(Rule::StepBudget) && failures >= FAILURES_MAX && env.now.saturating_sub(since) < MINUTE
    }

    fn spend_budget(&mut self, costly: Costly, env: &mut Env) {
        env.tally.add("steps-failed", 1);
        let (since, failures) = self.ram.failures[costly as usize];
        self.ram.failures[costly as usize] = match env.now.saturating_sub(since) < MINUTE {
            true => (since, failures + 1),
            false => (env.now, 1),
        };
    }

    fn add_row(&mut self, tag: MessageTag, key: [u8; 32], said: Option<Said>, draft: &mut Draft, env: &mut Env) {
        let reading = match said {
            Some(Said::Reading(id)) if !self.ram.reading_ids.contains(&id) || !env.keeps(Rule::ReadingIds) => {
                env.tally.add("opened", 1);
                self.ram.reading_ids.push_back(id);
                if self.ram.reading_ids.len() > 64 {
                    self.ram.reading_ids.pop_front();
                }
                Some(id)
            }
            Some(Said::Receipt(id, _)) => {
                draft.writes.extend(self.ram.commands.answered(id));
                None
            }
            _ => None,
        };
        draft.writes.push(Write::Row(tag, key, reading));
    }

    fn ask_for_reset(
        &mut self,
        reason: ResetReason,
        message: &Message<'_>,
        linked: bool,
        draft: &mut Draft,
        env: &mut Env,
    ) {
        self.ram.reset_owed = Some((reason, *message.ratchet_key())).filter(|_| env.keeps(Rule::ResetOwed));
        self.asks_for_reset(reason, message.ratchet_key(), linked, draft, env);
    }

    fn asks_for_reset(
        &mut self,
        reason: ResetReason,
        ratchet_key: &[u8; 32],
        linked: bool,
        draft: &mut Draft,
        env: &mut Env,
    ) {
        let recently = self.ram.peer.reset_at.is_some_and(|at| env.now.saturating_sub(at) < HOUR);
        if (recently && env.keeps(Rule::ResetOnce)) || !linked {
            return;
        }
        self.ram.reset_owed = None;
        self.ram.peer.reset_at = Some(env.now);
        if env.keeps(Rule::ResetHourCommitted) {
            draft.writes.push(Write::Peer(self.ram.peer));
        }
        let bytes = sign_reset(&self.identity, &self.id, reason, ratchet_key).to_vec();
        env.tally.add("resets", 1);
        draft.effects.push(Effect::Plain { row: DownRow::Commands, bytes, reset_at: Some(env.now) });
    }

    fn owe_hello(&mut self, env: &Env) {
        let minute = self.ram.sealed_at.is_some_and(|at| env.now.saturating_sub(at) < MINUTE);
        self.ram.hello_due = env.keeps(Rule::Hello) && !(minute && env.keeps(Rule::HelloOnce));
    }

    fn open_handshake(
        &mut self,
        init: &HandshakeInit<'_>,
        bytes: &[u8],
        linked: bool,
        draft: &mut Draft,
        env: &mut Env,
    ) -> Result<bool, Broken> {
        let inner = init.message();
        if env.keeps(Rule::RecentInit)
            && let Err(error) = self.ram.sessions.recent().check(&inner)
        {
            let accepted = self.refuse(error, &inner, linked, draft, env);
            if error == OpenError::Duplicate {
                self.owe_hello(env);
            }
            return Ok(accepted);
        }
        if init.suite() != self.suite || *init.identity() != self.ram.peer.identity {
            return Ok(false);
        }
        match self.ram.sessions.compare(init, self.ram.peer.last_counter) {
            Handshake::Same if env.keeps(Rule::SameCounterOpens) => {
                let accepted = self.open_message(&inner, linked, draft, env)?;
                if accepted {
                    self.owe_hello(env);
                }
                Ok(accepted)
            }
            Handshake::New => self.begin(init, bytes, linked, draft, env),
            Handshake::Same => Ok(false),
            Handshake::Refused(reason) => {
                if env.keeps(Rule::RefusedCounterAnswered) {
                    self.ask_for_reset(reason, &inner, linked, draft, env);
                }
                Ok(false)
            }
        }
    }

    fn begin(
        &mut self,
        init: &HandshakeInit<'_>,
        bytes: &[u8],
        linked: bool,
        draft: &mut Draft,
        env: &mut Env,
    ) -> Result<bool, Broken> {
        let inner = init.message();
        if self.budget_is_spent(Costly::Handshake, env) {
            env.tally.add("over-budget", 1);
            return Ok(false);
        }
        if !env.keeps(Rule::CounterMovesWithOpen) {
            self.ram.peer.last_counter = init.counter();
            draft.writes.push(Write::Peer(self.ram.peer));
        }
        let spk = self.store.signed.iter().find(|signed| signed.id == init.spk_id()).map(Signed::secret);
        let opk = self.ram.prekey.as_ref().filter(|prekey| prekey.id == init.opk_id()).map(OneTime::secret);
        let identity = IdentityKey::from_bytes(&self.ram.peer.identity).map_err(|e| Broken(e.to_string()))?;
        let (Some(spk), Some(opk)) = (spk, opk) else {
            if env.keeps(Rule::AnswersUnknownPrekeys) {
                self.ask_for_reset(ResetReason::UnknownKey, &inner, linked, draft, env);
            }
            return Ok(false);
        };
        let enrolled = Enrolled { device: &self.id, identity: &identity, suite: self.suite };
        let mut out = vec![0; inner.ciphertext().len()];
        let responded = respond(&self.identity, enrolled, &spk, &opk, init, &mut out, unix(env.now), &mut env.rng);
        match responded {
            Ok((session, opened)) => {
                env.ledger.node_opens(&inner)?;
                let (tag, said) = (opened.tag(), Said::decode(opened.plaintext()));
                if self.ram.sessions.present().is_some() {
                    draft.writes.push(Write::Rotate);
                }
                self.ram.sessions.begin(session, Some(tag));
                self.ram.failures[Costly::Message as usize] = (0, 0);
                draft.writes.extend(write(Slot::Present, &self.ram.sessions, &StateDelta::Whole));
                (self.ram.peer.last_counter, self.ram.peer.restored) = (init.counter(), false);
                draft.writes.push(Write::Peer(self.ram.peer));
                if env.keeps(Rule::PrekeyGoes) {
                    self.ram.prekey = None;
                    draft.writes.push(Write::Prekey(None));
                }
                self.add_row(tag, *inner.ratchet_key(), said, draft, env);
                draft.begins = Some(bytes.to_vec());
                (self.ram.sealed_at, self.ram.reset_owed) = (None, None);
                self.ram.commands.release();
                self.owe_hello(env);
                Ok(true)
            }
            Err(error) => {
                if error.spent_dh_step() {
                    self.spend_budget(Costly::Handshake, env);
                }
                if !env.keeps(Rule::PrekeyGoesWithOpen) {
                    self.ram.prekey = None;
                }
                if let Some(reason) = error.reset_due()
                    && env.keeps(Rule::AnswersUnknownPrekeys)
                {
                    self.ask_for_reset(reason, &inner, linked, draft, env);
                }
                Ok(false)
            }
        }
    }

    /// Seals what waits.
    fn send_due(&mut self, linked: bool, draft: &mut Draft, env: &mut Env) -> Result<(), Broken> {
        if env.keeps(Rule::NodeExpires) {
            draft.writes.extend(self.ram.commands.expire(env.now));
        }
        if let Some((reason, ratchet_key)) = self.ram.reset_owed {
            self.asks_for_reset(reason, &ratchet_key, linked, draft, env);
        }
        if !linked || self.ram.sessions.present().is_none() {
            return Ok(());
        }
        while let Some((id, expires_at)) = self.ram.commands.next() {
            let Some(ticket) = self.seal(Said::Command(id, expires_at), draft, env) else { return Ok(()) };
            draft.writes.extend(self.ram.commands.sent(id, ticket));
            if env.keeps(Rule::HelloServed) {
                self.ram.hello_due = false;
            }
        }
        if self.ram.hello_due && self.seal(Said::Setting, draft, env).is_some() {
            self.ram.hello_due = false;
            env.tally.add("hellos", 1);
        }
        if self.alive_is_due(env) && self.seal(Said::Setting, draft, env).is_some() {
            self.ram.alive_at = Some(env.now);
            env.tally.add("alives", 1);
        }
        Ok(())
    }

    fn alive_is_due(&self, env: &Env) -> bool {
        let recently = self.ram.alive_at.is_some_and(|at| env.now.saturating_sub(at) < ms(ALIVE_INTERVAL));
        let due = |session: &NodeSession| session.has_room_for_alive() && unix(env.now) >= session.alive_due_at();
        let wanted = self.ram.sessions.present().is_some_and(due);
        wanted && env.keeps(Rule::Alive) && !(recently && env.keeps(Rule::AliveOnce))
    }

    fn seal(&mut self, said: Said, draft: &mut Draft, env: &mut Env) -> Option<u64> {
        let session = self.ram.sessions.present_mut()?;
        let plaintext = said.encode();
        let (delta, pending) = session.seal(&plaintext, vec![0; session.sealed_len(plaintext.len())]).ok()?;
        draft.writes.extend(write(Slot::Present, &self.ram.sessions, &delta));
        let ticket = env.ticket();
        draft.effects.push(Effect::Sealed { ticket, pending });
        self.ram.sealed_at = Some(env.now);
        Some(ticket)
    }

    /// Says something that has no ticket and is lost.
    pub(crate) fn say(&mut self, env: &mut Env) {
        let mut draft = Draft::default();
        if self.seal(Said::Setting, &mut draft, env).is_some() {
            self.drafts.push_back(draft);
        }
    }
}
