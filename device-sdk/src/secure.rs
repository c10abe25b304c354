//! Sealing around the MQTT session: the device's two sessions, their leases, and what of them is
//! in storage before anything follows from it (e2ee/PROTOCOL.md section 8).
//!
//! A write that fails leaves storage in an unknown state, and the sessions here may be ahead of
//! it. The device then stops for good and is opened again, as after a reset.

use core::num::NonZeroU8;

use heapless::Vec;
use rand_core::CryptoRng;
use thiserror::Error;
use unhidra_core::durable::Durable;
use unhidra_core::ids::{CommandId, DeviceId};
use unhidra_core::time::UnixTime;
use unhidra_e2ee::delta::{Lane, StateDelta};
use unhidra_e2ee::envelope::{Message, PreKeyBundle, ResetRequest};
use unhidra_e2ee::error::OpenError;
use unhidra_e2ee::fingerprint::Fingerprint;
use unhidra_e2ee::handshake::{BundleError, InitiateError, VerifiedBundle, initiate};
use unhidra_e2ee::identity::{IdentityKey, IdentitySecret};
use unhidra_e2ee::lease::Lease;
use unhidra_e2ee::plaintext::{Kind, Plaintext, PlaintextError};
use unhidra_e2ee::recent::{MessageTag, Recent};
use unhidra_e2ee::record::StateError;
use unhidra_e2ee::role::DeviceRole;
use unhidra_e2ee::session::Session;
use unhidra_e2ee::sessions::{Sessions, Slot};
use unhidra_e2ee::suite::{Suite, is_built};
use zeroize::Zeroizing;

mod commands;
mod ring;

use crate::storage::{COMMANDS, Half, OPENED, RECORD_LEN_MAX, Record, Storage, Vault, Write};
use commands::SeenCommands;
use ring::{Remembered, place, record_len};

/// Who the device is, and whom it trusts.
#[derive(Debug)]
pub struct Identity {
    /// Its name.
    pub device: DeviceId,
    /// Its own identity key.
    pub secret: IdentitySecret,
    /// The node's, pinned at enrolment.
    pub node: IdentityKey,
    /// The key agreement, set at enrolment.
    pub suite: Suite,
}

impl Identity {
    /// What a person compares with the node's `unhidra device fingerprint`, so that nobody stands in
    /// between. Firmware shows its [`text`](Fingerprint::text) on a console or a display, or its
    /// [`code`](Fingerprint::code) as a QR code.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.device, &self.secret.public(), &self.node)
    }
}

/// Why the state in storage cannot be used.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum LoadError<E> {
    /// The medium failed.
    #[error("the storage failed")]
    Storage(E),
    /// A session's record is damaged, or of another version.
    #[error("a session in storage: {0}")]
    Session(StateError),
    /// The device was enrolled with a suite that this build leaves out.
    #[error("the device was enrolled with {0}, which this build leaves out: it needs the feature pqxdh")]
    SuiteNotBuilt(Suite),
    /// A record of what was seen last is damaged.
    #[error("the record {0:?} in storage is damaged")]
    Damaged(Record),
}

/// Why a message was not sealed.
#[derive(Debug)]
pub(crate) enum SealFault<E> {
    /// There is no session to seal in.
    NoSession,
    /// The session seals nothing more: its chain is spent.
    Spent,
    Storage(E),
}

/// Why a message of the node was not taken.
#[derive(Debug)]
pub(crate) enum OpenFault<E> {
    Open(OpenError),
    Storage(E),
}

/// What a message of the node says, once it is in storage that it came.
pub(crate) enum Said<'o> {
    /// A command that was not seen before.
    Command { id: CommandId, plaintext: Plaintext<'o> },
    /// A command that was: nothing is to be done.
    SeenCommand,
    /// `hello` and the like: that it opened was all.
    Word,
    /// A setting of an operator's, and its version.
    Setting { version: u64, plaintext: Plaintext<'o> },
    /// A kind this version does not know, or no plaintext at all.
    Ignored,
}

/// The device's side of everything sealed.
pub(crate) struct Secure<S> {
    identity: Identity,
    lease_len: NonZeroU8,
    sessions: Sessions<DeviceRole>,
    /// Where the present session stands, or will.
    present: Half,
    lease: Option<Lease>,
    opened_next: u64,
    seen: SeenCommands,
    /// The handshake counter of what was begun last, also where that serves no longer.
    counter: u32,
    vault: Vault<S>,
}

impl<S: Storage> Secure<S> {
    /// Reads back what survived.
    pub(crate) fn load(identity: Identity, lease_len: NonZeroU8, medium: S) -> Result<Self, LoadError<S::Error>> {
        if !is_built(identity.suite) {
            return Err(LoadError::SuiteNotBuilt(identity.suite));
        }
        let mut vault = Vault::new(medium);
        let (a, b) = (load_session(&mut vault, Half::A)?, load_session(&mut vault, Half::B)?);
        let counter_of = |session: &Option<Session<DeviceRole>>| session.as_ref().map_or(0, Session::counter);
        let counter = counter_of(&a).max(counter_of(&b));
        // One begun under another identity key or suite is of an earlier enrolment: the node would refuse all it
        // seals, and ask for nothing.
        let own = identity.secret.public();
        let serves = |session: &Session<DeviceRole>| session.serves(&own, identity.suite);
        let (a, b) = (a.filter(serves), b.filter(serves));
        let (present, sessions) = if counter_of(&a) >= counter_of(&b) { (Half::A, (a, b)) } else { (Half::B, (b, a)) };
        let (recent, opened_next) = load_recent(&mut vault)?;
        let seen = load_seen(&mut vault)?;
        let sessions = Sessions::new(sessions.0, sessions.1, recent);
        Ok(Self { identity, lease_len, sessions, present, lease: None, opened_next, seen, counter, vault })
    }

    pub(crate) const fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) const fn sessions(&self) -> &Sessions<DeviceRole> {
        &self.sessions
    }

    /// The handshake counter of the present session; 0 where there is none.
    pub(crate) fn session_counter(&self) -> u32 {
        self.sessions.present().map_or(0, Session::counter)
    }

    pub(crate) fn verify_bundle<'b>(
        &self,
        bundle: &PreKeyBundle<'b>,
        nonce: &[u8; 16],
    ) -> Result<VerifiedBundle<'b>, BundleError> {
        bundle.verify(&self.identity.device, &self.identity.node, nonce)
    }

    /// Whether a ResetRequest is the node's, for this device, and about what it now sends under.
    pub(crate) fn obeys(&self, request: &ResetRequest<'_>) -> bool {
        let verified = request.verify(&self.identity.device, &self.identity.node);
        verified.is_ok_and(|request| self.sessions.obeys(&request))
    }

    /// Begins a session. Nothing is written yet: the first lease is, before anything leaves.
    pub(crate) fn begin(
        &mut self,
        bundle: &VerifiedBundle<'_>,
        now: UnixTime,
        rng: &mut impl CryptoRng,
    ) -> Result<u32, InitiateError> {
        let Identity { device, secret, suite, .. } = &self.identity;
        let session = initiate(secret, device, *suite, bundle, self.counter, now, rng)?;
        let counter = session.counter();
        self.counter = counter;
        if self.sessions.present().is_some() {
            self.present = self.present.other();
        }
        self.sessions.begin(session, None);
        self.lease = None;
        Ok(counter)
    }

    /// How long the envelope of a plaintext of this length will be.
    pub(crate) fn sealed_len(&self, plaintext_len: usize) -> Option<usize> {
        self.sessions.present().map(|session| session.sealed_len(plaintext_len))
    }

    /// Seals a plaintext into the front of `out`; the bytes may leave. A lease, and a DH step that
    /// is due, are in storage before.
    pub(crate) fn seal<'o>(
        &mut self,
        plaintext: &[u8],
        out: &'o mut [u8],
        now: UnixTime,
        rng: &mut impl CryptoRng,
    ) -> Result<&'o [u8], SealFault<S::Error>> {
        let session = self.sessions.present_mut().ok_or(SealFault::NoSession)?;
        let lease = match self.lease.take() {
            Some(lease) if session.leased(&lease, now) > 0 => lease,
            _ => {
                let (delta, pending) = session.lease(self.lease_len, now, rng).map_err(|_| SealFault::Spent)?;
                let durable = write(&mut self.vault, session, self.present, &delta, &[]).map_err(SealFault::Storage)?;
                pending.grant(durable)
            }
        };
        let sealed = session.seal_within(&lease, plaintext, out, now);
        self.lease = Some(lease);
        sealed.map_err(|_| SealFault::Spent)
    }

    /// Opens a message of the node into the front of `out`. When it returns, storage knows that the
    /// message came, and of a command its id.
    pub(crate) fn open<'o>(
        &mut self,
        message: &Message<'_>,
        out: &'o mut [u8],
        now: UnixTime,
        rng: &mut impl CryptoRng,
    ) -> Result<Said<'o>, OpenFault<S::Error>> {
        let (opened, moved) = self.sessions.open(message, out, now, rng).map_err(OpenFault::Open)?;
        let plaintext = Plaintext::decode(opened.plaintext());
        let command = new_command(&plaintext, &self.seen);
        let (slot_session, half) = match moved.slot {
            Slot::Present => (self.sessions.present(), self.present),
            Slot::Previous => (self.sessions.previous(), self.present.other()),
        };
        let name = Remembered { sequence: self.opened_next, bytes: opened.tag().to_bytes() }.encode();
        let opened_write = Write { record: Record::Opened(place(self.opened_next, OPENED)), bytes: &name };
        let session = slot_session.ok_or(OpenFault::Open(OpenError::UnknownKey { tried: false }))?;
        let durable = match command {
            // A setting is not remembered as opened: that would acknowledge it when it comes again after
            // a reset, though the application never took it. It does not open twice, and so is sent anew.
            None if is_setting(&plaintext) => {
                let durable = write(&mut self.vault, session, half, &moved.delta, &[]).map_err(OpenFault::Storage)?;
                return Ok(self.said(plaintext, None, durable));
            }
            Some(id) => {
                let (at, record) = self.seen.next_record(&id);
                let record = record.encode();
                let seen_write = Write { record: Record::Command(at), bytes: &record };
                write(&mut self.vault, session, half, &moved.delta, &[opened_write, seen_write])
            }
            None => write(&mut self.vault, session, half, &moved.delta, &[opened_write]),
        }
        .map_err(OpenFault::Storage)?;
        self.opened_next = self.opened_next.saturating_add(1);
        Ok(self.said(plaintext, command, durable))
    }

    /// What may be acted on, now that it is written.
    fn said<'o>(
        &mut self,
        plaintext: Result<Plaintext<'o>, PlaintextError>,
        command: Option<CommandId>,
        _: Durable,
    ) -> Said<'o> {
        match (plaintext, command) {
            (Ok(plaintext), Some(id)) => {
                self.seen.remember(id);
                Said::Command { id, plaintext }
            }
            (Ok(Plaintext { kind: Kind::Command, command_id: Some(_), .. }), None) => Said::SeenCommand,
            (Ok(plaintext @ Plaintext { kind: Kind::Setting, reading_id: Some(version), .. }), None) => {
                Said::Setting { version, plaintext }
            }
            (Ok(Plaintext { kind: Kind::Setting, .. }), None) => Said::Word,
            _ => Said::Ignored,
        }
    }

    /// What the calendar is, where it is known.
    pub(crate) fn clock_is(&mut self, now: UnixTime) {
        self.sessions.clock_is(now);
    }

    /// Forgets the previous session once its day is over, in storage too.
    pub(crate) fn expire(&mut self, now: UnixTime) -> Result<(), S::Error> {
        if !self.sessions.expire(now) {
            return Ok(());
        }
        let half = self.present.other();
        let records = [Record::Session(half), Record::Receive(half), Record::Send(half)];
        self.vault.write(&records.map(|record| Write { record, bytes: &[] })).map(|_written| ())
    }

    pub(crate) fn into_medium(self) -> S {
        self.vault.into_medium()
    }
}

/// Whether it is a setting of an operator's, which has a version.
fn is_setting(plaintext: &Result<Plaintext<'_>, PlaintextError>) -> bool {
    matches!(plaintext, Ok(Plaintext { kind: Kind::Setting, reading_id: Some(_), .. }))
}

/// The id of a command that was not seen before.
fn new_command(plaintext: &Result<Plaintext<'_>, PlaintextError>, seen: &SeenCommands) -> Option<CommandId> {
    match plaintext {
        Ok(Plaintext { kind: Kind::Command, command_id: Some(id), .. }) if !seen.contains(id) => Some(*id),
        _ => None,
    }
}

/// Writes what moved of a session, and `more` behind it. The session comes first: cut off after
/// it, a message that was not acted on is not known as one that was.
fn write<S: Storage>(
    vault: &mut Vault<S>,
    session: &Session<DeviceRole>,
    half: Half,
    delta: &StateDelta,
    more: &[Write<'_>],
) -> Result<Durable, S::Error> {
    let mut whole = Zeroizing::new([0; RECORD_LEN_MAX]);
    let first = match delta {
        StateDelta::Chain { lane: Lane::Receive, bytes } => {
            Write { record: Record::Receive(half), bytes: bytes.as_slice() }
        }
        StateDelta::Chain { lane: Lane::Send, bytes } => Write { record: Record::Send(half), bytes: bytes.as_slice() },
        StateDelta::Whole => {
            // RECORD_LEN_MAX is the bound of what encode writes.
            let len = session.encode(&mut *whole).unwrap_or(0);
            Write { record: Record::Session(half), bytes: whole.get(..len).unwrap_or_default() }
        }
    };
    let mut writes = Vec::<Write<'_>, 3>::new();
    // One of the session, and at most two more.
    let _ = writes.push(first);
    let _ = writes.extend_from_slice(more);
    vault.write(&writes)
}

fn load_session<S: Storage>(
    vault: &mut Vault<S>,
    half: Half,
) -> Result<Option<Session<DeviceRole>>, LoadError<S::Error>> {
    let mut whole = Zeroizing::new([0; RECORD_LEN_MAX]);
    let (mut receive, mut send) = (Zeroizing::new([0; 64]), Zeroizing::new([0; 64]));
    let Some(whole) = read_some(vault, Record::Session(half), &mut *whole)? else { return Ok(None) };
    let receive = read_some(vault, Record::Receive(half), &mut *receive)?;
    let send = read_some(vault, Record::Send(half), &mut *send)?;
    Session::decode(whole, receive, send).map(Some).map_err(LoadError::Session)
}

/// Reads a record; an empty one is one that was deleted.
fn read_some<'o, S: Storage>(
    vault: &mut Vault<S>,
    record: Record,
    out: &'o mut [u8],
) -> Result<Option<&'o [u8]>, LoadError<S::Error>> {
    let read = vault.read(record, out).map_err(LoadError::Storage)?;
    Ok(read.filter(|bytes| !bytes.is_empty()))
}

fn load_recent<S: Storage>(vault: &mut Vault<S>) -> Result<(Recent, u64), LoadError<S::Error>> {
    let mut tags = Vec::<Remembered<12>, { OPENED as usize }>::new();
    for at in 0..OPENED {
        if let Some(tag) = load_remembered(vault, Record::Opened(at))? {
            let _ = tags.push(tag);
        }
    }
    tags.sort_unstable_by_key(|tag| tag.sequence);
    let next = tags.last().map_or(1, |last| last.sequence.saturating_add(1));
    Ok((Recent::from_tags(tags.iter().map(|tag| MessageTag::from_bytes(&tag.bytes))), next))
}

fn load_seen<S: Storage>(vault: &mut Vault<S>) -> Result<SeenCommands, LoadError<S::Error>> {
    let mut seen = SeenCommands::new();
    for at in 0..COMMANDS {
        if let Some(command) = load_remembered(vault, Record::Command(at))? {
            seen.restore(&command);
        }
    }
    Ok(seen)
}

fn load_remembered<S: Storage, const LEN: usize>(
    vault: &mut Vault<S>,
    record: Record,
) -> Result<Option<Remembered<LEN>>, LoadError<S::Error>> {
    let mut bytes = [0; record_len(16)];
    let Some(bytes) = vault.read(record, &mut bytes).map_err(LoadError::Storage)? else { return Ok(None) };
    Remembered::decode(bytes).map(Some).ok_or(LoadError::Damaged(record))
}
