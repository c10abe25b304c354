//! What a device is told to begin a session with: an envelope that is parsed, verified and used.
//!
//! The first byte says who signed: with bit 0 the node itself does, over whatever the bytes then
//! are, so that what lies behind the signature is reached too: a node that was taken over must not
//! be able to stop a device.

use std::num::NonZeroU8;
use std::sync::LazyLock;

use ed25519_dalek::{Signer, SigningKey};
use unhidra_e2ee::envelope::Envelope;
use unhidra_e2ee::handshake::{BundleError, InitiateError, VerifiedBundle, initiate};
use unhidra_e2ee::prekey::{OneTimePrekeySecret, SignedPrekeySecret};
use unhidra_e2ee::suite::Suite;

use crate::fixed::{Fixed, rng};
use crate::pair::{NONCE, durable};

/// The node signs what follows.
const SIGNED: u8 = 1;

static FIXED: LazyLock<Fixed> = LazyLock::new(Fixed::new);

pub(crate) fn run(data: &[u8]) {
    let [flags, bytes @ ..] = data else { return };
    let mut bytes = bytes.to_vec();
    let signed = flags & SIGNED != 0;
    if signed {
        sign(&mut bytes);
    }
    let Ok(Envelope::PreKeyBundle(bundle)) = Envelope::parse(&bytes) else { return };
    let fields = Fields::of(&bytes);
    match bundle.verify(&FIXED.id, &FIXED.node_identity.public(), &NONCE) {
        Ok(verified) => {
            assert!(signed || FIXED.is_a_bundle(&bytes), "a forged bundle");
            assert_eq!((fields.nonce, fields.identity), (&NONCE[..], &FIXED.node_identity.public().as_bytes()[..]));
            begin(&verified, &fields);
        }
        Err(BundleError::Nonce) => assert_ne!(fields.nonce, NONCE),
        Err(BundleError::Identity) => assert_ne!(fields.identity, FIXED.node_identity.public().as_bytes()),
        Err(BundleError::Signature(_)) => assert!(!signed, "the node's own signature"),
    }
}

/// Where the fields are that both suites have.
struct Fields<'a> {
    suite: u8,
    nonce: &'a [u8],
    last_counter: u32,
    identity: &'a [u8],
    spk_id: u32,
    spk: &'a [u8],
    opk_id: u32,
    opk: &'a [u8],
}

impl<'a> Fields<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        let number = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Self {
            suite: bytes[1],
            nonce: &bytes[2..18],
            last_counter: number(18),
            identity: &bytes[30..62],
            spk_id: number(62),
            spk: &bytes[66..98],
            opk_id: number(98),
            opk: &bytes[102..134],
        }
    }
}

/// Begins a session, and seals in it. Where the keys are those the node holds, it opens there.
fn begin(verified: &VerifiedBundle, fields: &Fields<'_>) {
    let suite = Suite::from_byte(fields.suite).expect("it was parsed");
    let rng = &mut rng();
    let mut session = match initiate(&FIXED.device_identity, &FIXED.id, suite, verified, 0, FIXED.now, rng) {
        Ok(session) => session,
        Err(InitiateError::CounterSpent) => return assert_eq!(fields.last_counter, u32::MAX),
        Err(InitiateError::Suite { .. }) => panic!("the suite is the bundle's"),
        Err(_) => return,
    };
    assert_eq!(Some(session.counter()), fields.last_counter.checked_add(1));
    let (_, lease) = session.lease(NonZeroU8::MIN, FIXED.now, rng).expect("a lease");
    let lease = lease.grant(durable());
    let mut out = vec![0; session.sealed_len(5)];
    let sealed = session.seal_within(&lease, b"first", &mut out, FIXED.now).expect("a seal");
    let Ok(Envelope::HandshakeInit(init)) = Envelope::parse(sealed) else { panic!("no handshake") };
    assert_eq!((init.spk_id(), init.opk_id()), (fields.spk_id, fields.opk_id));
    if fields.spk == FIXED.spk.public() && fields.opk == FIXED.opk.public() {
        let spk = SignedPrekeySecret::from_bytes(fields.spk_id, FIXED.spk.secret());
        let opk = OneTimePrekeySecret::from_bytes(fields.opk_id, FIXED.opk.secret());
        assert_eq!(FIXED.respond(&init, &spk, &opk).as_deref(), Ok(&b"first"[..]));
    }
}

/// Signs as the node would, had it made these bytes.
fn sign(bytes: &mut [u8]) {
    let Some((text, signature)) = bytes.split_last_chunk_mut::<64>() else { return };
    let id = FIXED.id.as_bytes();
    let len = u8::try_from(id.len()).expect("at most 64");
    let signed = [b"unhidra/bundle/v1", &[len][..], id, text].concat();
    *signature = SigningKey::from_bytes(FIXED.node_identity.seed()).sign(&signed).to_bytes();
}
