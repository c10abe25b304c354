//! A device and a node, with what each has written down.

use std::collections::HashMap;
use std::num::NonZeroU8;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use unhidra_core::durable::DurableSource;
use unhidra_core::ids::DeviceId;
use unhidra_core::time::UnixTime;
use unhidra_e2ee::delta::{Lane, StateDelta};
use unhidra_e2ee::envelope::{Envelope, HandshakeInit, Message, PrekeyRequest};
use unhidra_e2ee::error::{OpenError, SealError};
use unhidra_e2ee::handshake::{Enrolled, RespondError, initiate, respond};
use unhidra_e2ee::identity::IdentitySecret;
use unhidra_e2ee::lease::Lease;
use unhidra_e2ee::prekey::{BundleParts, OneTimePrekeySecret, SignedPrekeySecret};
use unhidra_e2ee::recent::{MessageTag, Recent};
use unhidra_e2ee::reset::ResetReason;
use unhidra_e2ee::role::{DeviceRole, NodeRole, Role};
use unhidra_e2ee::session::{Opened, Session};
use unhidra_e2ee::sessions::{Handshake, Moved, Sessions, Slot};
use unhidra_e2ee::skipped::Inline;
use unhidra_e2ee::suite::{Suite, is_built};

pub(crate) type Node = NodeRole<Inline<128>>;

pub(crate) const NOON: UnixTime = UnixTime::from_s(1_900_000_000);

pub(crate) const NONCE: [u8; 16] = [5; 16];

/// The suites this build has.
pub(crate) fn suites() -> impl Iterator<Item = Suite> {
    Suite::ALL.into_iter().filter(|&suite| is_built(suite))
}

/// A one-time prekey of a suite.
pub(crate) fn one_time(suite: Suite, id: u32, rng: &mut StdRng) -> OneTimePrekeySecret {
    OneTimePrekeySecret::generate_for(suite, id, rng).unwrap()
}

/// A session's records as they lie.
#[derive(Clone, Default)]
pub(crate) struct Written {
    pub(crate) whole: Vec<u8>,
    pub(crate) receive: Option<Vec<u8>>,
    pub(crate) send: Option<Vec<u8>>,
}

impl Written {
    pub(crate) fn write<R: Role>(&mut self, session: &Session<R>, delta: &StateDelta) {
        match delta {
            StateDelta::Whole => *self = Self { whole: encode(session), receive: None, send: None },
            StateDelta::Chain { lane: Lane::Receive, bytes } => self.receive = Some(bytes.as_slice().to_vec()),
            StateDelta::Chain { lane: Lane::Send, bytes } => self.send = Some(bytes.as_slice().to_vec()),
        }
    }

    pub(crate) fn read<R: Role>(&self) -> Session<R> {
        Session::decode(&self.whole, self.receive.as_deref(), self.send.as_deref()).unwrap()
    }
}

pub(crate) fn encode<R: Role>(session: &Session<R>) -> Vec<u8> {
    let mut out = vec![0; session.encoded_len()];
    assert_eq!(session.encode(&mut out), Ok(out.len()));
    out
}

/// All bytes that opening could change: both sessions, and the memory of what was opened.
pub(crate) fn state<R: Role>(sessions: &Sessions<R>) -> Vec<u8> {
    let mut out = Vec::new();
    for session in [sessions.present(), sessions.previous()].into_iter().flatten() {
        out.extend(encode(session));
        // The record holds a lease's end in place of the first.
        out.extend(
            [session.next_number(), session.unanswered(), session.is_confirmed().into()].map(u32::to_be_bytes).concat(),
        );
    }
    out.extend(sessions.recent().tags().flat_map(|tag| tag.to_bytes()));
    out
}

pub(crate) struct Pair {
    pub(crate) rng: StdRng,
    pub(crate) now: UnixTime,
    pub(crate) id: DeviceId,
    pub(crate) suite: Suite,
    pub(crate) device_identity: IdentitySecret,
    pub(crate) node_identity: IdentitySecret,
    pub(crate) spk: SignedPrekeySecret,
    pub(crate) opk: OneTimePrekeySecret,
    pub(crate) last_counter: u32,
    pub(crate) device: Sessions<DeviceRole>,
    pub(crate) lease: Option<Lease>,
    pub(crate) lease_len: u8,
    pub(crate) device_disk: [Written; 2],
    /// A session was begun, and its first lease not yet written: what is on disk is the one before.
    pub(crate) begun_in_ram: bool,
    pub(crate) node: Sessions<Node>,
    pub(crate) node_disk: [Written; 2],
    /// Every ciphertext by ratchet key and number: none may ever have two.
    pub(crate) used: HashMap<([u8; 32], u32), Vec<u8>>,
}

pub(crate) fn message(bytes: &[u8]) -> Message<'_> {
    match Envelope::parse(bytes).unwrap() {
        Envelope::Message(message) => message,
        Envelope::HandshakeInit(init) => init.message(),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn handshake(bytes: &[u8]) -> HandshakeInit<'_> {
    match Envelope::parse(bytes).unwrap() {
        Envelope::HandshakeInit(init) => init,
        other => panic!("{other:?}"),
    }
}

/// What the node makes of a message.
#[derive(Debug, PartialEq)]
pub(crate) enum NodeError {
    Open(OpenError),
    Respond(RespondError),
    Counter(ResetReason),
}

fn at(slot: Slot) -> usize {
    match slot {
        Slot::Present => 0,
        Slot::Previous => 1,
    }
}

impl Pair {
    /// Both enrolled with suite 1, and nothing said.
    pub(crate) fn enrolled(seed: u64) -> Self {
        Self::enrolled_with(Suite::X3dh, seed)
    }

    /// Both enrolled, and nothing said.
    pub(crate) fn enrolled_with(suite: Suite, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        Self {
            now: NOON,
            id: DeviceId::parse("pump-7").unwrap(),
            suite,
            device_identity: IdentitySecret::generate(&mut rng),
            node_identity: IdentitySecret::generate(&mut rng),
            spk: SignedPrekeySecret::generate(1, &mut rng),
            opk: one_time(suite, 1, &mut rng),
            last_counter: 0,
            device: Sessions::default(),
            lease: None,
            lease_len: 32,
            device_disk: Default::default(),
            begun_in_ram: false,
            node: Sessions::default(),
            node_disk: Default::default(),
            used: HashMap::new(),
            rng,
        }
    }

    /// A session, its first message opened, and its head still repeated.
    pub(crate) fn begun(seed: u64) -> Self {
        Self::begun_with(Suite::X3dh, seed)
    }

    pub(crate) fn begun_with(suite: Suite, seed: u64) -> Self {
        let mut pair = Self::enrolled_with(suite, seed);
        pair.begin();
        let first = pair.device_seals(b"first");
        assert_eq!(pair.node_opens(&first).unwrap(), b"first");
        pair
    }

    /// A session that both sides have sent in.
    pub(crate) fn confirmed(seed: u64) -> Self {
        Self::confirmed_with(Suite::X3dh, seed)
    }

    pub(crate) fn confirmed_with(suite: Suite, seed: u64) -> Self {
        let mut pair = Self::begun_with(suite, seed);
        let hello = pair.node_seals(b"hello");
        assert_eq!(pair.device_opens(&hello).unwrap(), b"hello");
        pair
    }

    pub(crate) fn bundle(&self) -> Vec<u8> {
        let bundle = BundleParts {
            device: &self.id,
            request: PrekeyRequest { suite: self.suite, nonce: NONCE },
            last_counter: self.last_counter,
            now: self.now,
            spk: &self.spk,
            opk: &self.opk,
        };
        bundle.sign(&self.node_identity).unwrap().as_bytes().to_vec()
    }

    /// The device begins a session.
    pub(crate) fn begin(&mut self) {
        let bundle = self.bundle();
        let Ok(Envelope::PreKeyBundle(bundle)) = Envelope::parse(&bundle) else { panic!("no bundle") };
        let bundle = bundle.verify(&self.id, &self.node_identity.public(), &NONCE).unwrap();
        let own = self.device.present().map_or(0, Session::counter);
        let session =
            initiate(&self.device_identity, &self.id, self.suite, &bundle, own, self.now, &mut self.rng).unwrap();
        self.device.begin(session, None);
        self.begun_in_ram = true;
        self.lease = None;
    }

    pub(crate) fn lease(&mut self) {
        let present = self.device.present_mut().unwrap();
        let count = NonZeroU8::new(self.lease_len).unwrap();
        let (delta, lease) = present.lease(count, self.now, &mut self.rng).unwrap();
        if std::mem::take(&mut self.begun_in_ram) {
            self.device_disk[1] = std::mem::take(&mut self.device_disk[0]);
        }
        self.device_disk[0].write(present, &delta);
        self.lease = Some(lease.grant(durable()));
    }

    pub(crate) fn device_seals(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let covered = self.lease.as_ref().zip(self.device.present()).map_or(0, |(l, s)| s.leased(l, self.now));
        if covered == 0 {
            self.lease();
        }
        let present = self.device.present_mut().unwrap();
        let mut out = vec![0; present.sealed_len(plaintext.len())];
        let sealed = present.seal_within(self.lease.as_ref().unwrap(), plaintext, &mut out, self.now).unwrap().to_vec();
        self.record_use(&sealed);
        sealed
    }

    pub(crate) fn try_node_seals(&mut self, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        let present = self.node.present_mut().unwrap();
        let out = vec![0; present.sealed_len(plaintext.len())];
        let (delta, pending) = present.seal(plaintext, out)?;
        self.node_disk[0].write(present, &delta);
        let sealed = pending.release(durable());
        self.record_use(&sealed);
        Ok(sealed)
    }

    pub(crate) fn node_seals(&mut self, plaintext: &[u8]) -> Vec<u8> {
        self.try_node_seals(plaintext).unwrap()
    }

    fn record_use(&mut self, sealed: &[u8]) {
        let message = message(sealed);
        let name = (*message.ratchet_key(), message.number());
        let before = self.used.insert(name, message.ciphertext().to_vec());
        assert_eq!(before, None, "message {} of one chain sealed twice", message.number());
    }

    pub(crate) fn device_open(&mut self, sealed: &[u8]) -> Result<(Vec<u8>, Moved), OpenError> {
        let mut out = vec![0; sealed.len()];
        let before = state(&self.device);
        let result = self
            .device
            .open(&message(sealed), &mut out, self.now, &mut self.rng)
            .map(|(opened, moved)| (opened.plaintext().to_vec(), moved));
        match &result {
            Ok((_, moved)) => {
                let session = match moved.slot {
                    Slot::Present => self.device.present(),
                    Slot::Previous => self.device.previous(),
                };
                self.device_disk[at(moved.slot)].write(session.unwrap(), &moved.delta);
            }
            Err(error) => assert_eq!(state(&self.device), before, "{error} changed the device"),
        }
        result
    }

    pub(crate) fn device_opens(&mut self, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        self.device_open(sealed).map(|(plaintext, _)| plaintext)
    }

    pub(crate) fn node_open(&mut self, sealed: &[u8]) -> Result<(Vec<u8>, Moved), OpenError> {
        self.node_open_by(sealed, false)
    }

    pub(crate) fn node_opens_by_long_try(&mut self, sealed: &[u8]) -> Result<(Vec<u8>, Moved), OpenError> {
        self.node_open_by(sealed, true)
    }

    fn node_open_by(&mut self, sealed: &[u8], long_try: bool) -> Result<(Vec<u8>, Moved), OpenError> {
        let mut out = vec![0; sealed.len()];
        let before = state(&self.node);
        let result = match long_try {
            false => self.node.open(&message(sealed), &mut out, self.now, &mut self.rng),
            true => self.node.open_by_long_try(&message(sealed), &mut out, self.now, &mut self.rng),
        };
        let result = result.map(|(opened, moved)| (opened.plaintext().to_vec(), moved));
        match &result {
            Ok((_, moved)) => {
                let session = match moved.slot {
                    Slot::Present => self.node.present(),
                    Slot::Previous => self.node.previous(),
                };
                self.node_disk[at(moved.slot)].write(session.unwrap(), &moved.delta);
            }
            Err(error) => assert_eq!(state(&self.node), before, "{error} changed the node"),
        }
        result
    }

    /// What the bridge does with a message: handshakes too.
    pub(crate) fn node_opens(&mut self, sealed: &[u8]) -> Result<Vec<u8>, NodeError> {
        let Ok(Envelope::HandshakeInit(init)) = Envelope::parse(sealed) else {
            return self.node_open(sealed).map(|(plaintext, _)| plaintext).map_err(NodeError::Open);
        };
        self.node.recent().check(&init.message()).map_err(NodeError::Open)?;
        match self.node.compare(&init, self.last_counter) {
            Handshake::Same => self.node_open(sealed).map(|(plaintext, _)| plaintext).map_err(NodeError::Open),
            Handshake::Refused(reason) => Err(NodeError::Counter(reason)),
            Handshake::New => {
                let mut out = vec![0; sealed.len()];
                let (session, plaintext, tag) = self.respond(&init, &mut out).map_err(NodeError::Respond)?;
                self.last_counter = session.counter();
                self.opk = one_time(self.suite, self.opk.id() + 1, &mut self.rng);
                self.node_disk[1] = std::mem::take(&mut self.node_disk[0]);
                self.node_disk[0].write(&session, &StateDelta::Whole);
                self.node.begin(session, Some(tag));
                Ok(plaintext)
            }
        }
    }

    pub(crate) fn respond(
        &mut self,
        init: &HandshakeInit<'_>,
        out: &mut [u8],
    ) -> Result<(Session<Node>, Vec<u8>, MessageTag), RespondError> {
        let device = self.device_identity.public();
        let enrolled = Enrolled { device: &self.id, identity: &device, suite: self.suite };
        let (spk, opk) = (&self.spk, &self.opk);
        let (session, opened): (_, Opened<'_>) =
            respond(&self.node_identity, enrolled, spk, opk, init, out, self.now, &mut self.rng)?;
        Ok((session, opened.plaintext().to_vec(), opened.tag()))
    }

    /// The device loses its RAM.
    pub(crate) fn device_reboots(&mut self) {
        let recent = Recent::from_tags(self.device.recent().tags());
        self.begun_in_ram = false;
        self.device = Sessions::new(read(&self.device_disk[0]), read(&self.device_disk[1]), recent);
        self.lease = None;
    }

    /// The node dies and starts again.
    pub(crate) fn node_restarts(&mut self) {
        let recent = Recent::from_tags(self.node.recent().tags());
        self.node = Sessions::new(read(&self.node_disk[0]), read(&self.node_disk[1]), recent);
    }

    pub(crate) fn later(&mut self, by: Duration) {
        self.now = self.now.saturating_add(by);
    }
}

fn read<R: Role>(written: &Written) -> Option<Session<R>> {
    (!written.whole.is_empty()).then(|| written.read())
}

pub(crate) fn durable() -> unhidra_core::durable::Durable {
    DurableSource::new_for_storage().durable()
}
