//! A device and a node that have spoken, the same in every run, and messages on their way.

use std::sync::LazyLock;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use unhidra_core::ids::DeviceId;
use unhidra_core::time::UnixTime;
use unhidra_e2ee::envelope::{Envelope, HandshakeInit, Message as Inner};
use unhidra_e2ee::handshake::{Enrolled, RespondError, respond};
use unhidra_e2ee::identity::IdentitySecret;
use unhidra_e2ee::prekey::{KemSeed, OneTimePrekeySecret, SignedPrekeySecret};
use unhidra_e2ee::recent::{MessageTag, Recent};
use unhidra_e2ee::reset::{ResetReason, sign_reset};
use unhidra_e2ee::role::{DeviceRole, Role};
use unhidra_e2ee::session::Session;
use unhidra_e2ee::sessions::Sessions;
use unhidra_e2ee::suite::Suite;

use crate::pair::{NOON, Node, Pair, encode, state};

/// Past it a device that owes a DH step takes it.
const STEP_AFTER: Duration = Duration::from_secs(601);

/// When the last of the messages was sealed.
pub(crate) const LATER: UnixTime = NOON.saturating_add(STEP_AFTER);

const SEED: u64 = 7;

/// Who opens a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    Node,
    Device,
}

/// A message on its way.
pub(crate) struct Message {
    pub(crate) to: Side,
    pub(crate) sealed: Vec<u8>,
    pub(crate) plaintext: Vec<u8>,
}

/// Both sides after the first message, and what they have sent since.
pub(crate) struct Fixed {
    pub(crate) suite: Suite,
    pub(crate) id: DeviceId,
    pub(crate) device_identity: IdentitySecret,
    pub(crate) node_identity: IdentitySecret,
    pub(crate) reset: Vec<u8>,
    pub(crate) messages: Vec<Message>,
    pub(crate) spk: SignedPrekeySecret,
    pub(crate) opk: OneTimePrekeySecret,
    /// The HandshakeInit of the first message, which the node has opened.
    pub(crate) first_sealed: Vec<u8>,
    pub(crate) bundle: Vec<u8>,
    node: Vec<u8>,
    device: Vec<u8>,
    first: MessageTag,
}

impl Fixed {
    /// The pair of a suite.
    pub(crate) fn of(suite: Suite) -> &'static Self {
        static PAIRS: LazyLock<[Fixed; 2]> = LazyLock::new(|| Suite::ALL.map(Fixed::new));
        let [first, second] = &*PAIRS;
        match suite {
            Suite::X3dh => first,
            Suite::Pqxdh => second,
        }
    }

    fn new(suite: Suite) -> Self {
        let Pair { spk, opk, .. } = Pair::enrolled_with(suite, SEED);
        let mut pair = Pair::enrolled_with(suite, SEED);
        // The first is opened; the head goes with those behind it all the same.
        let bundle = pair.bundle().to_vec();
        pair.begin();
        let first_sealed = pair.device_seals(b"first");
        pair.node_opens(&first_sealed).expect("a session begins");
        let first = pair.node.recent().tags().next().expect("the first was opened");
        let mut messages = Vec::new();
        let mut send = |to, plaintext: &[u8], sealed| {
            messages.push(Message { to, sealed, plaintext: plaintext.to_vec() });
        };
        for plaintext in [&b"second"[..], b"third"] {
            send(Side::Node, plaintext, pair.device_seals(plaintext));
        }
        let device = pair.device.present().map(encode).expect("a session");
        let node = pair.node.present().map(encode).expect("a session");
        for plaintext in [&b"hello"[..], b"a command", &[0; 256]] {
            let sealed = pair.node_seals(plaintext);
            if plaintext == b"hello" {
                pair.device_opens(&sealed).expect("it opens");
            }
            send(Side::Device, plaintext, sealed);
        }
        // The device's last of its chain, and the first after its step.
        send(Side::Node, b"fourth", pair.device_seals(b"fourth"));
        pair.later(STEP_AFTER);
        for plaintext in [&b"fifth"[..], &[7; 256]] {
            send(Side::Node, plaintext, pair.device_seals(plaintext));
        }
        let present = pair.device.present().expect("a session");
        let reset = sign_reset(&pair.node_identity, &pair.id, ResetReason::UnknownKey, present.ratchet_key()).to_vec();
        let Pair { id, device_identity, node_identity, .. } = pair;
        Self {
            suite,
            id,
            device_identity,
            node_identity,
            reset,
            messages,
            spk,
            opk,
            first_sealed,
            bundle,
            node,
            device,
            first,
        }
    }

    /// The one-time prekey under another id.
    pub(crate) fn opk_as(&self, id: u32) -> OneTimePrekeySecret {
        let opk = OneTimePrekeySecret::from_bytes(id, self.opk.secret());
        match self.opk.kem_seed() {
            Some(seed) => opk.with_kem(KemSeed::from_bytes(seed.as_bytes())),
            None => opk,
        }
    }

    /// What a node without a session makes of a handshake.
    pub(crate) fn respond(
        &self,
        init: &HandshakeInit<'_>,
        spk: &SignedPrekeySecret,
        opk: &OneTimePrekeySecret,
    ) -> Result<Vec<u8>, RespondError> {
        let identity = self.device_identity.public();
        let enrolled = Enrolled { device: &self.id, identity: &identity, suite: self.suite };
        let mut out = vec![0; init.message().ciphertext().len()];
        let (_, opened): (Session<Node>, _) =
            respond(&self.node_identity, enrolled, spk, opk, init, &mut out, LATER, &mut rng())?;
        Ok(opened.plaintext().to_vec())
    }

    pub(crate) fn node(&self) -> Sessions<Node> {
        let session = Session::decode(&self.node, None, None).expect("our record");
        Sessions::new(Some(session), None, Recent::from_tags([self.first]))
    }

    pub(crate) fn device(&self) -> Sessions<DeviceRole> {
        let session = Session::decode(&self.device, None, None).expect("our record");
        Sessions::new(Some(session), None, Recent::default())
    }
}

/// Opens a message, or a handshake's; a failure must leave all as it was.
pub(crate) fn open<R: Role>(sessions: &mut Sessions<R>, bytes: &[u8], now: UnixTime) -> Option<Vec<u8>> {
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

pub(crate) fn rng() -> StdRng {
    StdRng::seed_from_u64(1)
}

fn inner(bytes: &[u8]) -> Option<Inner<'_>> {
    match Envelope::parse(bytes) {
        Ok(Envelope::Message(message)) => Some(message),
        Ok(Envelope::HandshakeInit(init)) => Some(init.message()),
        _ => None,
    }
}
