//! A device and a node that have spoken, the same in every run, and messages on their way.

use std::num::NonZeroU8;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use unhidra_core::durable::DurableSource;
use unhidra_core::ids::DeviceId;
use unhidra_core::time::UnixTime;
use unhidra_e2ee::envelope::{Envelope, HandshakeInit, Message as Inner, PrekeyRequest};
use unhidra_e2ee::handshake::{Enrolled, initiate, respond};
use unhidra_e2ee::identity::IdentitySecret;
use unhidra_e2ee::prekey::{BundleParts, OneTimePrekeySecret, SignedPrekeySecret};
use unhidra_e2ee::recent::{MessageTag, Recent};
use unhidra_e2ee::reset::{ResetReason, sign_reset};
use unhidra_e2ee::role::{DeviceRole, NodeRole, Role};
use unhidra_e2ee::session::Session;
use unhidra_e2ee::sessions::Sessions;
use unhidra_e2ee::skipped::Inline;
use unhidra_e2ee::suite::Suite;

pub(super) type Node = NodeRole<Inline<128>>;

pub(super) const NONCE: [u8; 16] = [5; 16];

/// Past it a device that owes a DH step takes it.
const STEP_AFTER: Duration = Duration::from_secs(601);

/// Who opens a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Side {
    Node,
    Device,
}

/// A message on its way.
pub(super) struct Message {
    pub(super) to: Side,
    pub(super) sealed: Vec<u8>,
    pub(super) plaintext: Vec<u8>,
}

/// Both sides after the first message, and what they have sent since.
pub(super) struct Pair {
    pub(super) id: DeviceId,
    pub(super) node_identity: IdentitySecret,
    pub(super) bundle: Vec<u8>,
    pub(super) reset: Vec<u8>,
    pub(super) messages: Vec<Message>,
    pub(super) now: UnixTime,
    device_identity: IdentitySecret,
    spk: SignedPrekeySecret,
    opk: OneTimePrekeySecret,
    node: Vec<u8>,
    device: Vec<u8>,
    first: MessageTag,
}

impl Pair {
    pub(super) fn new() -> Self {
        let mut rng = StdRng::seed_from_u64(7);
        let rng = &mut rng;
        let began = UnixTime::from_s(1_900_000_000);
        let now = began.saturating_add(STEP_AFTER);
        let id = DeviceId::parse("pump-7").expect("an id");
        let device_identity = IdentitySecret::generate(rng);
        let node_identity = IdentitySecret::generate(rng);
        let spk = SignedPrekeySecret::generate(1, rng);
        let opk = OneTimePrekeySecret::generate(1, rng);
        let request = PrekeyRequest { suite: Suite::X3dh, nonce: NONCE };
        let bundle = BundleParts { device: &id, request, last_counter: 0, now: began, spk: &spk, opk: &opk };
        let bundle = bundle.sign(&node_identity).expect("both of suite 1").as_bytes().to_vec();
        let Ok(Envelope::PreKeyBundle(parsed)) = Envelope::parse(&bundle) else { panic!("no bundle") };
        let verified = parsed.verify(&id, &node_identity.public(), &NONCE).expect("our bundle");
        let mut device =
            initiate(&device_identity, &id, Suite::X3dh, &verified, 0, began, rng).expect("a session begins");

        // The first is opened; the head goes with those behind it all the same.
        let first = seal_device(&mut device, b"first", began, rng);
        let enrolled = Enrolled { device: &id, identity: &device_identity.public(), suite: Suite::X3dh };
        let mut out = vec![0; first.len()];
        let (mut node, opened): (Session<Node>, _) =
            respond(&node_identity, enrolled, &spk, &opk, &handshake(&first), &mut out, began, rng)
                .expect("a session begins");
        let first_tag = opened.tag();
        let mut messages = Vec::new();
        let mut send = |to, plaintext: &[u8], sealed| {
            messages.push(Message { to, sealed, plaintext: plaintext.to_vec() });
        };
        for plaintext in [&b"second"[..], b"third"] {
            send(Side::Node, plaintext, seal_device(&mut device, plaintext, began, rng));
        }
        let before = encode(&device);
        let node_before = encode(&node);
        for plaintext in [&b"hello"[..], b"a command", &[0; 256]] {
            let out = vec![0; node.sealed_len(plaintext.len())];
            let (_, pending) = node.seal(plaintext, out).expect("a seal");
            let sealed = pending.release(DurableSource::new_for_storage().durable());
            if plaintext == b"hello" {
                let mut out = vec![0; sealed.len()];
                let _ = device.open(&inner(&sealed).expect("a message"), &mut out, began, rng).expect("it opens");
            }
            send(Side::Device, plaintext, sealed);
        }
        // The device's last of its chain, and the first after its step.
        send(Side::Node, b"fourth", seal_device(&mut device, b"fourth", began, rng));
        for plaintext in [&b"fifth"[..], &[7; 256]] {
            send(Side::Node, plaintext, seal_device(&mut device, plaintext, now, rng));
        }
        let reset = sign_reset(&node_identity, &id, ResetReason::UnknownKey, device.ratchet_key()).to_vec();
        let (node, device) = (node_before, before);
        Self {
            id,
            node_identity,
            bundle,
            reset,
            messages,
            now,
            device_identity,
            spk,
            opk,
            node,
            device,
            first: first_tag,
        }
    }

    pub(super) fn node(&self) -> Sessions<Node> {
        let session = Session::decode(&self.node, None, None).expect("our record");
        Sessions::new(Some(session), None, Recent::from_tags([self.first]))
    }

    pub(super) fn device(&self) -> Sessions<DeviceRole> {
        sessions_of(Session::decode(&self.device, None, None).expect("our record"))
    }

    /// What a node without a session opens with a handshake.
    pub(super) fn respond(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let Ok(Envelope::HandshakeInit(init)) = Envelope::parse(bytes) else { return None };
        let enrolled = Enrolled { device: &self.id, identity: &self.device_identity.public(), suite: Suite::X3dh };
        let mut out = vec![0; bytes.len()];
        let (_, opened): (Session<Node>, _) =
            respond(&self.node_identity, enrolled, &self.spk, &self.opk, &init, &mut out, self.now, &mut rng()).ok()?;
        Some(opened.plaintext().to_vec())
    }
}

pub(super) fn sessions_of<R: Role>(session: Session<R>) -> Sessions<R> {
    Sessions::new(Some(session), None, Recent::default())
}

/// Opens a message, or a handshake's; a failure must leave all as it was.
pub(super) fn open<R: Role>(sessions: &mut Sessions<R>, bytes: &[u8], now: UnixTime) -> Option<Vec<u8>> {
    let message = inner(bytes)?;
    let before = state(sessions);
    let mut out = vec![0; bytes.len()];
    match sessions.open(&message, &mut out, now, &mut rng()) {
        Ok((opened, _)) => Some(opened.plaintext().to_vec()),
        Err(error) => {
            assert_eq!(state(sessions), before, "{error} changed the session");
            None
        }
    }
}

pub(super) fn encode<R: Role>(session: &Session<R>) -> Vec<u8> {
    let mut out = vec![0; session.encoded_len()];
    assert_eq!(session.encode(&mut out), Ok(out.len()));
    out
}

/// All that opening could change.
fn state<R: Role>(sessions: &Sessions<R>) -> Vec<u8> {
    let mut out: Vec<u8> = sessions.present().map(encode).unwrap_or_default();
    out.extend(sessions.recent().tags().flat_map(|tag| tag.to_bytes()));
    out
}

fn rng() -> StdRng {
    StdRng::seed_from_u64(1)
}

fn inner(bytes: &[u8]) -> Option<Inner<'_>> {
    match Envelope::parse(bytes) {
        Ok(Envelope::Message(message)) => Some(message),
        Ok(Envelope::HandshakeInit(init)) => Some(init.message()),
        _ => None,
    }
}

fn handshake(bytes: &[u8]) -> HandshakeInit<'_> {
    match Envelope::parse(bytes) {
        Ok(Envelope::HandshakeInit(init)) => init,
        other => panic!("no handshake: {other:?}"),
    }
}

fn seal_device(device: &mut Session<DeviceRole>, plaintext: &[u8], now: UnixTime, rng: &mut StdRng) -> Vec<u8> {
    let (_, lease) = device.lease(NonZeroU8::MIN, now, rng).expect("a lease");
    let lease = lease.grant(DurableSource::new_for_storage().durable());
    let mut out = vec![0; device.sealed_len(plaintext.len())];
    device.seal_within(&lease, plaintext, &mut out, now).expect("a seal").to_vec()
}
