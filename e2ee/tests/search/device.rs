//! The device: what firmware does with the crate, as PROTOCOL.md asks it to.

use std::collections::BTreeMap;
use std::num::NonZeroU8;

use unhidra_core::ids::DeviceId;
use unhidra_core::time::UnixTime;
use unhidra_e2ee::delta::StateDelta;
use unhidra_e2ee::envelope::{Envelope, Message, PreKeyBundle, PrekeyRequest, ResetRequest};
use unhidra_e2ee::error::OpenError;
use unhidra_e2ee::handshake::initiate;
use unhidra_e2ee::identity::{IdentityKey, IdentitySecret};
use unhidra_e2ee::lease::Lease;
use unhidra_e2ee::role::{DeviceRole, Role};
use unhidra_e2ee::session::Session;
use unhidra_e2ee::sessions::{Sessions, Slot};
use unhidra_e2ee::suite::Suite;

use crate::flash::{Cut, Flash, Half, More, PowerCut, encode};
use crate::ledger::Why;
use crate::outbox::{Outbox, Settled};
use crate::rule::Rule;
use crate::said::Said;
use crate::wire::{DownRow, UpPacket, bundle_nonce, inner_message};
use crate::world::{Broken, Env};

/// How long a bundle may take, in ms.
const PATIENCE: u64 = 30_000;
/// Command ids that are remembered.
const COMMANDS: usize = 64;

/// Why the device does not go on.
pub(crate) enum Halt {
    /// It lost its power.
    PowerCut,
    /// Something is wrong that never may be.
    Broken(Broken),
}

impl From<PowerCut> for Halt {
    fn from(PowerCut: PowerCut) -> Self {
        Self::PowerCut
    }
}

impl From<Broken> for Halt {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

/// Where the device has its calendar from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Calendar {
    /// A clock that runs through power cuts, off by so many ms.
    Clock(i64),
    /// The node alone: nothing after a boot.
    Node,
}

/// What it asked the node.
enum Question {
    None,
    Asked {
        nonce: [u8; 16],
        deadline: u64,
    },
    /// What came did not serve.
    Later {
        at: u64,
    },
}

pub(crate) struct Device {
    pub(crate) id: DeviceId,
    pub(crate) identity: IdentitySecret,
    pub(crate) calendar: Calendar,
    pub(crate) cut: Option<Cut>,
    pub(crate) flash: Flash,
    node: IdentityKey,
    suite: Suite,
    lease_len: NonZeroU8,
    ram: Ram,
}

struct Ram {
    booted_at: u64,
    /// What the node said the time was, in ms, and when.
    told: Option<(u64, u64)>,
    sessions: Sessions<DeviceRole>,
    present: Half,
    lease: Option<Lease>,
    opened_next: u64,
    commands: BTreeMap<u64, u64>,
    outbox: Outbox,
    must_begin: bool,
    should_begin: bool,
    question: Question,
    /// Why and when the present session was begun, until that is durable.
    begun: Option<(Why, u64)>,
}

/// All bytes that opening could change.
pub(crate) fn state<R: Role>(sessions: &Sessions<R>, encode: impl Fn(&Session<R>) -> Vec<u8>) -> Vec<u8> {
    let mut out: Vec<u8> = sessions.recent().tags().flat_map(|tag| tag.to_bytes()).collect();
    for session in [sessions.present(), sessions.previous()].into_iter().flatten() {
        out.extend(encode(session));
        // A device's record holds its lease's end in place of the first.
        let beside = [session.next_number(), session.unanswered(), session.is_confirmed().into()];
        out.extend(beside.into_iter().flat_map(u32::to_be_bytes));
    }
    out
}

impl Device {
    pub(crate) fn new(
        id: DeviceId,
        identity: IdentitySecret,
        node: IdentityKey,
        suite: Suite,
        lease_len: NonZeroU8,
        calendar: Calendar,
        now: u64,
    ) -> Self {
        let ram = boot(&Flash::default(), now);
        Self { id, identity, node, suite, lease_len, calendar, cut: None, flash: Flash::default(), ram }
    }

    /// Power is gone, and comes back.
    pub(crate) fn boots(&mut self, env: &mut Env) -> Result<(), Halt> {
        self.ram = boot(&self.flash, env.now);
        if !env.keeps(Rule::NoLeaseAtBoot) && self.ram.sessions.present().is_some() {
            self.take_lease(env)?;
        }
        Ok(())
    }

    /// A new identity: everything else is forgotten.
    pub(crate) fn enrolled(&mut self, identity: IdentitySecret, now: u64) {
        self.identity = identity;
        self.flash = Flash::default();
        self.ram = boot(&self.flash, now);
    }

    fn unix(&self, now: u64) -> Option<u64> {
        match self.calendar {
            Calendar::Clock(off) => Some(now.saturating_add_signed(off)),
            Calendar::Node => self.ram.told.map(|(unix, at)| unix.saturating_add(now.saturating_sub(at))),
        }
    }

    /// Without a calendar, the time since the boot.
    fn unix_or_uptime(&self, now: u64) -> UnixTime {
        UnixTime::from_ms(self.unix(now).unwrap_or(now.saturating_sub(self.ram.booted_at)))
    }

    pub(crate) fn sessions(&self) -> &Sessions<DeviceRole> {
        &self.ram.sessions
    }

    pub(crate) fn nonce(&self) -> Option<[u8; 16]> {
        match &self.ram.question {
            Question::Asked { nonce, .. } => Some(*nonce),
            Question::None | Question::Later { .. } => None,
        }
    }

    fn counter(&self) -> u32 {
        self.ram.sessions.present().map_or(0, Session::counter)
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.ram.outbox.is_quiet() && matches!(self.ram.question, Question::None)
    }

    /// Takes what is to be said, and forgets it where there is no room.
    pub(crate) fn say(&mut self, said: Said) -> bool {
        self.ram.outbox.push(said)
    }

    /// A connection: what is in flight goes first.
    pub(crate) fn connected(&mut self, env: &mut Env) -> Vec<UpPacket> {
        self.ram.question = Question::None;
        if !env.keeps(Rule::SameBytesAgain) {
            self.ram.outbox.forget_packets();
        }
        let again = self.ram.outbox.rewind();
        let packet = |(publication, is_get, bytes): (u64, bool, &[u8])| UpPacket::new(Some(publication), is_get, bytes);
        let mut again: Vec<UpPacket> = again.map(packet).collect();
        if !env.keeps(Rule::InFlightFirst) {
            again.reverse();
        }
        env.tally.add("repeated", again.len());
        let nothing_new = self.ram.outbox.next(self.counter()).is_none();
        if env.keeps(Rule::SpeaksUp) && self.ram.sessions.present().is_some() && nothing_new {
            self.ram.outbox.push(Said::Greeting);
        }
        again
    }

    /// PUBACK.
    pub(crate) fn acknowledged(&mut self, publication: u64, accepted: bool, env: &mut Env) -> Result<(), Broken> {
        let seal_anew = env.keeps(Rule::SealRefusedAnew);
        match self.ram.outbox.acknowledged(publication, accepted, env.now, seal_anew) {
            Settled::Done(Said::Reading(id)) => {
                env.tally.add("acknowledged", 1);
                return env.ledger.forgets(id);
            }
            Settled::RefusedAgain => self.ram.should_begin |= env.keeps(Rule::RestartWhenRefused),
            Settled::Done(_) | Settled::Waits => {}
        }
        Ok(())
    }

    /// What it sends now that it has a connection.
    pub(crate) fn poll(&mut self, env: &mut Env) -> Result<Vec<UpPacket>, Halt> {
        if let Some(known) = self.unix(env.now)
            && env.keeps(Rule::ClockSetBack)
        {
            self.ram.sessions.clock_is(UnixTime::from_ms(known));
        }
        let unix = self.unix_or_uptime(env.now);
        if self.ram.sessions.expire(unix) {
            drop(self.flash.delete(self.ram.present.other(), &mut self.cut)?);
        }
        self.ram.outbox.handle_time(env.now);
        let mut out = Vec::new();
        self.ask(unix, &mut out, env);
        self.seal_waiting(&mut out, env)?;
        Ok(out)
    }

    fn why_begin(&self, unix: UnixTime, env: &Env) -> Option<Why> {
        let sessions = &self.ram.sessions;
        if sessions.present().is_none() {
            return Some(Why::NoSession);
        }
        if self.ram.must_begin {
            return Some(Why::Reset);
        }
        let long = env.keeps(Rule::RestartWhenLong) && sessions.restart_due(unix);
        let far = env.keeps(Rule::RestartWhenFar) && self.ram.should_begin && sessions.may_restart(unix);
        (long || far).then_some(Why::Itself)
    }

    fn ask(&mut self, unix: UnixTime, out: &mut Vec<UpPacket>, env: &mut Env) {
        if matches!(self.ram.question, Question::Asked { deadline: at, .. } | Question::Later { at } if env.now >= at) {
            self.ram.question = Question::None;
        }
        let wanted = self.why_begin(unix, env).is_some() || self.unix(env.now).is_none();
        let asked = !matches!(self.ram.question, Question::None);
        if wanted && !asked && self.ram.outbox.has_room(env.keeps(Rule::Window)) {
            out.push(self.question(env));
        }
    }

    /// Asks for a bundle.
    pub(crate) fn question(&mut self, env: &mut Env) -> UpPacket {
        let nonce = env.bytes();
        self.ram.question = Question::Asked { nonce, deadline: env.now + PATIENCE };
        let request = PrekeyRequest { suite: self.suite, nonce }.encode();
        let publication = env.ticket();
        self.ram.outbox.publish(publication, true, &request);
        UpPacket::new(Some(publication), true, &request)
    }

    fn seal_waiting(&mut self, out: &mut Vec<UpPacket>, env: &mut Env) -> Result<(), Halt> {
        while !self.ram.must_begin && self.ram.outbox.has_room(env.keeps(Rule::Window)) {
            let session = self.counter();
            let Some((at, said)) = self.ram.outbox.next(session) else { break };
            let Some(sealed) = self.seal(said, env)? else { break };
            let publication = env.ticket();
            self.ram.outbox.publish(publication, false, &sealed);
            self.ram.outbox.sent(at, publication, session);
            out.push(UpPacket::new(Some(publication), false, &sealed));
        }
        Ok(())
    }

    /// Says something at QoS 0, if one more may be published.
    pub(crate) fn say_in_vain(&mut self, env: &mut Env) -> Result<Option<Vec<u8>>, Halt> {
        if !self.ram.outbox.has_room(env.keeps(Rule::Window)) {
            return Ok(None);
        }
        self.ram.outbox.published_in_vain();
        self.seal(Said::Greeting, env)
    }

    /// Takes what is unacknowledged for refused.
    pub(crate) fn give_up(&mut self, now: u64) {
        self.ram.outbox.give_up(now);
    }

    /// Seals, with a lease that is in flash before.
    pub(crate) fn seal(&mut self, said: Said, env: &mut Env) -> Result<Option<Vec<u8>>, Halt> {
        let now = self.unix_or_uptime(env.now);
        let Some(session) = self.ram.sessions.present() else { return Ok(None) };
        if self.ram.lease.as_ref().is_none_or(|lease| session.leased(lease, now) == 0) && !self.take_lease(env)? {
            self.ram.must_begin = true;
            return Ok(None);
        }
        let (Some(session), Some(lease)) = (self.ram.sessions.present_mut(), &self.ram.lease) else { return Ok(None) };
        let plaintext = said.encode();
        let mut out = vec![0; session.sealed_len(plaintext.len())];
        let Ok(sealed) = session.seal_within(lease, &plaintext, &mut out, now) else {
            self.ram.must_begin = true;
            return Ok(None);
        };
        env.tally.add("sealed", 1);
        if let Some(message) = inner_message(sealed) {
            env.ledger.released_up(&message)?;
        }
        Ok(Some(sealed.to_vec()))
    }

    /// Takes a lease. Whether the chain has one left.
    pub(crate) fn take_lease(&mut self, env: &mut Env) -> Result<bool, Halt> {
        let now = self.unix_or_uptime(env.now);
        let Some(session) = self.ram.sessions.present_mut() else { return Ok(false) };
        let before = *session.ratchet_key();
        let Ok((delta, pending)) = session.lease(self.lease_len, now, &mut env.rng) else { return Ok(false) };
        env.tally.add("steps", usize::from(before != *session.ratchet_key()));
        // Without the rule the lease stays in RAM, but for the whole that a boot must find.
        let durable = match env.keeps(Rule::LeaseWritten) || matches!(delta, StateDelta::Whole) {
            true => self.flash.write(self.ram.present, session, &delta, &More::default(), &mut self.cut)?,
            false => unhidra_core::durable::DurableSource::new_for_storage().durable(),
        };
        self.ram.lease = Some(pending.grant(durable));
        if let Some((why, at)) = self.ram.begun.take() {
            env.tally.add("begun", 1);
            env.ledger.begins(why, at)?;
        }
        Ok(true)
    }

    /// What the node sent. Whether it is acknowledged with success.
    pub(crate) fn take(&mut self, row: DownRow, bytes: &[u8], env: &mut Env) -> Result<bool, Halt> {
        match (row, Envelope::parse(bytes)) {
            (DownRow::Prekeys, Ok(Envelope::PreKeyBundle(bundle))) => self.take_bundle(&bundle, bytes, env),
            (DownRow::Commands, Ok(Envelope::Message(message))) => self.take_message(&message, env),
            (DownRow::Commands, Ok(Envelope::ResetRequest(request))) => {
                self.take_reset(&request, env);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn take_reset(&mut self, request: &ResetRequest<'_>, env: &mut Env) {
        let Ok(request) = request.verify(&self.id, &self.node) else { return };
        if env.keeps(Rule::Obeys) && (self.ram.sessions.obeys(&request) || !env.keeps(Rule::ObeysPresent)) {
            env.tally.add("obeyed", 1);
            self.ram.must_begin = true;
        }
    }

    fn take_bundle(&mut self, bundle: &PreKeyBundle<'_>, bytes: &[u8], env: &mut Env) -> Result<bool, Halt> {
        let asked = match self.nonce() {
            None if env.keeps(Rule::BundleNonce) => return Ok(true),
            Some(nonce) if env.keeps(Rule::BundleNonce) => nonce,
            _ => bundle_nonce(bytes),
        };
        let Ok(bundle) = bundle.verify(&self.id, &self.node, &asked) else { return Ok(true) };
        self.ram.question = Question::None;
        let why = self.why_begin(self.unix_or_uptime(env.now), env);
        if self.ram.told.is_none() {
            self.ram.told = Some((bundle.now().as_ms(), env.now));
        }
        let Some(why) = why else { return Ok(true) };
        let now = self.unix_or_uptime(env.now);
        let own = self.counter();
        let Ok(session) = initiate(&self.identity, &self.id, self.suite, &bundle, own, now, &mut env.rng) else {
            self.ram.question = Question::Later { at: env.now + PATIENCE };
            return Ok(true);
        };
        if self.ram.sessions.present().is_some() {
            self.ram.present = self.ram.present.other();
        }
        self.ram.sessions.begin(session, None);
        self.ram.lease = None;
        self.ram.begun = Some((why, env.now));
        (self.ram.must_begin, self.ram.should_begin) = (false, false);
        let counter = self.counter();
        if self.ram.outbox.next(counter).is_none() {
            self.ram.outbox.push(Said::Greeting);
        }
        Ok(true)
    }

    fn take_message(&mut self, message: &Message<'_>, env: &mut Env) -> Result<bool, Halt> {
        let before = state(&self.ram.sessions, encode);
        let now = self.unix_or_uptime(env.now);
        let mut out = vec![0; message.ciphertext().len()];
        let opened = self.ram.sessions.open(message, &mut out, now, &mut env.rng);
        let (opened, moved) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                if state(&self.ram.sessions, encode) != before {
                    return Err(Broken(format!("the device changed though a message did not open: {error}")).into());
                }
                if error == OpenError::Duplicate {
                    return Ok(true);
                }
                env.tally.add("not-opened", 1);
                self.ram.should_begin |= error.restart_due();
                return Ok(false);
            }
        };
        env.ledger.device_opens(message)?;
        let said = Said::decode(opened.plaintext());
        let command = match said {
            Some(Said::Command(id, _)) if !self.ram.commands.values().any(|seen| *seen == id) => Some(id),
            _ => None,
        };
        let sequence = self.ram.commands.last_key_value().map_or(1, |(last, _)| last + 1);
        let kept = command.filter(|_| env.keeps(Rule::CommandIdKept)).map(|id| (sequence, id));
        let more = More { opened: Some((self.ram.opened_next, opened.tag())), command: kept };
        let acts_first = !env.keeps(Rule::WriteThenAct);
        if acts_first {
            self.act(said, command, env)?;
        }
        let (session, half) = match moved.slot {
            Slot::Present => (self.ram.sessions.present(), self.ram.present),
            Slot::Previous => (self.ram.sessions.previous(), self.ram.present.other()),
        };
        let session = session.ok_or(Broken("a session that opened is gone".into()))?;
        drop(self.flash.write(half, session, &moved.delta, &more, &mut self.cut)?);
        env.ledger.device_opened(message)?;
        self.ram.opened_next += 1;
        if let Some((sequence, id)) = kept {
            self.ram.commands.insert(sequence, id);
            if self.ram.commands.len() > COMMANDS {
                self.ram.commands.pop_first();
            }
        }
        if !acts_first {
            self.act(said, command, env)?;
        }
        Ok(true)
    }

    fn act(&mut self, said: Option<Said>, new: Option<u64>, env: &mut Env) -> Result<(), Broken> {
        let (Some(Said::Command(_, expires_at)), Some(id)) = (said, new) else { return Ok(()) };
        let is_over = match self.unix(env.now) {
            Some(unix) => unix >= expires_at && env.keeps(Rule::Expiry),
            None => env.keeps(Rule::ExpiryNeedsTime),
        };
        if is_over {
            env.tally.add("expired", 1);
        } else {
            env.tally.add("acted", 1);
            env.ledger.acts(id)?;
        }
        self.ram.outbox.push(Said::Receipt(id, !is_over));
        Ok(())
    }
}

fn boot(flash: &Flash, now: u64) -> Ram {
    let read = flash.read();
    Ram {
        booted_at: now,
        told: None,
        sessions: read.sessions,
        present: read.present,
        lease: None,
        opened_next: read.opened_next,
        commands: read.commands,
        outbox: Outbox::default(),
        must_begin: false,
        should_begin: false,
        question: Question::None,
        begun: None,
    }
}
