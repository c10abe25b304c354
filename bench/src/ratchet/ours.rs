//! Ours: a device and a node, as the product holds them.

use std::hint::black_box;
use std::num::NonZeroU8;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use unhidra_core::durable::DurableSource;
use unhidra_core::ids::DeviceId;
use unhidra_core::time::UnixTime;
use unhidra_e2ee::delta::StateDelta;
use unhidra_e2ee::envelope::{Envelope, HandshakeInit, Message, PrekeyRequest};
use unhidra_e2ee::error::OpenError;
use unhidra_e2ee::handshake::{Enrolled, RespondError, initiate, respond};
use unhidra_e2ee::identity::IdentitySecret;
use unhidra_e2ee::lease::Lease;
use unhidra_e2ee::prekey::KemSeed;
use unhidra_e2ee::prekey::{BundleParts, OneTimePrekeySecret, SignedPrekeySecret};
use unhidra_e2ee::role::{DeviceRole, NodeRole};
use unhidra_e2ee::session::Session;
use unhidra_e2ee::sessions::Sessions;
use unhidra_e2ee::skipped::{SkippedKey, SkippedKeys};
use unhidra_e2ee::suite::Suite;

/// The node's skipped keys, out of line.
#[derive(Default)]
pub(crate) struct Shelf(Box<[SkippedKey]>);

impl SkippedKeys for Shelf {
    fn slots(&self) -> &[SkippedKey] {
        &self.0
    }
    fn slots_mut(&mut self) -> &mut [SkippedKey] {
        &mut self.0
    }
    fn grow(&mut self, len: usize) {
        if len > self.0.len() {
            let wanted = len.max(self.0.len() * 2);
            let kept = self.0.iter_mut().map(std::mem::take);
            self.0 = kept.chain(std::iter::repeat_with(SkippedKey::default)).take(wanted).collect();
        }
    }
}

pub(crate) type Node = NodeRole<Shelf>;

const NONCE: [u8; 16] = [5; 16];
const LEASE: NonZeroU8 = NonZeroU8::new(32).expect("32 is not 0");

/// The message of an envelope that carries one.
pub(crate) fn message(bytes: &[u8]) -> Message<'_> {
    match Envelope::parse(bytes) {
        Ok(Envelope::Message(message)) => message,
        Ok(Envelope::HandshakeInit(init)) => init.message(),
        other => panic!("no message: {other:?}"),
    }
}

fn handshake(bytes: &[u8]) -> HandshakeInit<'_> {
    match Envelope::parse(bytes) {
        Ok(Envelope::HandshakeInit(init)) => init,
        other => panic!("no handshake: {other:?}"),
    }
}

/// A device and a node.
pub(crate) struct Pair {
    pub(crate) rng: StdRng,
    pub(crate) now: UnixTime,
    suite: Suite,
    id: DeviceId,
    device_identity: IdentitySecret,
    node_identity: IdentitySecret,
    spk: SignedPrekeySecret,
    opk: OneTimePrekeySecret,
    pub(crate) device: Sessions<DeviceRole>,
    lease: Option<Lease>,
    pub(crate) node: Sessions<Node>,
    out: Vec<u8>,
}

impl Pair {
    /// Both enrolled, and nothing said.
    pub(crate) fn enrolled(suite: Suite) -> Self {
        let mut rng = StdRng::seed_from_u64(7);
        let opk = OneTimePrekeySecret::generate(1, &mut rng);
        Self {
            suite,
            now: UnixTime::from_s(1_900_000_000),
            id: DeviceId::parse("pump-7").expect("valid"),
            device_identity: IdentitySecret::generate(&mut rng),
            node_identity: IdentitySecret::generate(&mut rng),
            spk: SignedPrekeySecret::generate(1, &mut rng),
            opk: match suite {
                Suite::X3dh => opk,
                Suite::Pqxdh => opk.with_kem(KemSeed::generate(&mut rng)),
            },
            device: Sessions::default(),
            lease: None,
            node: Sessions::default(),
            out: vec![0; 70_000],
            rng,
        }
    }

    /// A session both sides have sent in, and the device's owed step taken.
    pub(crate) fn confirmed() -> Self {
        let mut pair = Self::enrolled(Suite::X3dh);
        let bundle = pair.bundle();
        let session = pair.initiate(&bundle);
        pair.device.begin(session, None);
        let first = pair.device_seals(b"first");
        let session = pair.respond(&first);
        pair.node.begin(session, None);
        pair.step();
        pair
    }

    /// A DH step of the device, and so of the node.
    pub(crate) fn step(&mut self) {
        let new = self.sealed_under_a_new_key(b"new key");
        self.node_opens(&new);
    }

    /// A message of the device under a key the node has not seen.
    pub(crate) fn sealed_under_a_new_key(&mut self, text: &[u8]) -> Vec<u8> {
        let down = self.node_seals(text);
        self.device_opens(&down);
        self.now = self.now.saturating_add(Duration::from_secs(601));
        self.lease = None;
        self.device_seals(text)
    }

    pub(crate) fn bundle(&self) -> Vec<u8> {
        let parts = BundleParts {
            device: &self.id,
            request: PrekeyRequest { suite: self.suite, nonce: NONCE },
            last_counter: 0,
            now: self.now,
            spk: &self.spk,
            opk: &self.opk,
        };
        parts.sign(&self.node_identity).expect("of this suite").as_bytes().to_vec()
    }

    /// Verifies a bundle and begins a session.
    pub(crate) fn initiate(&mut self, bundle: &[u8]) -> Session<DeviceRole> {
        let Ok(Envelope::PreKeyBundle(bundle)) = Envelope::parse(bundle) else { panic!("no bundle") };
        let bundle = bundle.verify(&self.id, &self.node_identity.public(), &NONCE).expect("signed so");
        initiate(&self.device_identity, &self.id, self.suite, &bundle, 0, self.now, &mut self.rng).expect("honest keys")
    }

    /// Answers a handshake, which opens its message.
    pub(crate) fn respond(&mut self, sealed: &[u8]) -> Session<Node> {
        self.try_respond(sealed).expect("honest keys")
    }

    pub(crate) fn try_respond(&mut self, sealed: &[u8]) -> Result<Session<Node>, RespondError> {
        let init = handshake(sealed);
        let identity = self.device_identity.public();
        let enrolled = Enrolled { device: &self.id, identity: &identity, suite: self.suite };
        let (spk, opk) = (&self.spk, &self.opk);
        let (session, opened) =
            respond(&self.node_identity, enrolled, spk, opk, &init, &mut self.out, self.now, &mut self.rng)?;
        black_box(opened.plaintext());
        Ok(session)
    }

    pub(crate) fn device_seals(&mut self, text: &[u8]) -> Vec<u8> {
        let mut out = vec![0; text.len() + 2000];
        let len = self.device_seals_into(text, &mut out);
        out.truncate(len);
        out
    }

    /// Seals as the device does: within a lease, a new one where the last is used up. Says how long
    /// the envelope is.
    pub(crate) fn device_seals_into(&mut self, text: &[u8], out: &mut [u8]) -> usize {
        let session = self.device.present_mut().expect("begun");
        let covered = self.lease.as_ref().map_or(0, |lease| session.leased(lease, self.now));
        if covered == 0 {
            let (delta, lease) = session.lease(LEASE, self.now, &mut self.rng).expect("numbers left");
            match &delta {
                StateDelta::Chain { bytes, .. } => drop(black_box(bytes.as_slice().to_vec())),
                StateDelta::Whole => {
                    let len = session.encode(&mut self.out).expect("room");
                    black_box(self.out.get(..len));
                }
            }
            self.lease = Some(lease.grant(DurableSource::new_for_storage().durable()));
        }
        let lease = self.lease.as_ref().expect("just granted");
        session.seal_within(lease, text, out, self.now).expect("leased").len()
    }

    pub(crate) fn node_seals(&mut self, text: &[u8]) -> Vec<u8> {
        let session = self.node.present_mut().expect("begun");
        let (_, pending) = session.seal(text, vec![0; session.sealed_len(text.len())]).expect("answered");
        pending.release(DurableSource::new_for_storage().durable())
    }

    pub(crate) fn device_opens(&mut self, sealed: &[u8]) {
        self.device.open(&message(sealed), &mut self.out, self.now, &mut self.rng).expect("honest");
    }

    /// Opens as the node does: from the bytes that arrived to the record that is to be written.
    pub(crate) fn node_opens(&mut self, sealed: &[u8]) {
        self.try_node_opens(sealed).expect("honest");
    }

    pub(crate) fn try_node_opens(&mut self, sealed: &[u8]) -> Result<(), OpenError> {
        let (opened, moved) = self.node.open(&message(sealed), &mut self.out, self.now, &mut self.rng)?;
        black_box(opened.plaintext());
        match &moved.delta {
            StateDelta::Chain { bytes, .. } => {
                black_box(bytes.as_slice());
            }
            StateDelta::Whole => self.encode_node(),
        }
        Ok(())
    }

    pub(crate) fn try_long(&mut self, sealed: &[u8]) -> Result<(), OpenError> {
        self.node.open_by_long_try(&message(sealed), &mut self.out, self.now, &mut self.rng).map(drop)
    }

    fn encode_node(&mut self) {
        let session = self.node.present().expect("begun");
        let len = session.encode(&mut self.out).expect("room");
        black_box(self.out.get(..len));
    }
}
