//! What a device is told to begin a session with: an envelope that is parsed, verified and used.
//!
//! The first byte says who signed: with bit 0 the node itself does, over whatever the bytes then
//! are, so that what lies behind the signature is reached too: a node that was taken over must not
//! be able to stop a device.

use std::num::NonZeroU8;

use ed25519_dalek::{Signer, SigningKey};
use unhidra_e2ee::envelope::Envelope;
use unhidra_e2ee::handshake::{BundleError, InitiateError, VerifiedBundle, initiate};
use unhidra_e2ee::prekey::SignedPrekeySecret;
use unhidra_e2ee::suite::Suite;

use crate::fixed::{Fixed, LATER, rng};
use crate::pair::{NONCE, durable};

/// The node signs what follows.
const SIGNED: u8 = 1;

pub(crate) fn run(data: &[u8]) {
    let [flags, bytes @ ..] = data else { return };
    let mut bytes = bytes.to_vec();
    let suite = bytes.get(1).copied().and_then(Suite::from_byte).unwrap_or(Suite::X3dh);
    let fixed = Fixed::of(suite);
    let signed = flags & SIGNED != 0;
    if signed {
        sign(fixed, &mut bytes);
    }
    let Ok(Envelope::PreKeyBundle(bundle)) = Envelope::parse(&bytes) else { return };
    let fields = Fields::of(&bytes);
    match bundle.verify(&fixed.id, &fixed.node_identity.public(), &NONCE) {
        Ok(verified) => {
            assert!(signed || bytes == fixed.bundle, "a forged bundle");
            assert_eq!((fields.nonce, fields.identity), (&NONCE[..], &fixed.node_identity.public().as_bytes()[..]));
            begin(fixed, &verified, &fields);
        }
        Err(BundleError::Nonce) => assert_ne!(fields.nonce, NONCE),
        Err(BundleError::Identity) => assert_ne!(fields.identity, fixed.node_identity.public().as_bytes()),
        Err(BundleError::Signature(_)) => assert!(!signed, "the node's own signature"),
    }
}

/// Where the fields are that both suites have.
struct Fields<'a> {
    nonce: &'a [u8],
    last_counter: u32,
    identity: &'a [u8],
    spk_id: u32,
    spk: &'a [u8],
    opk_id: u32,
    opk: &'a [u8],
    /// The KEM key of suite 2.
    kem: &'a [u8],
}

impl<'a> Fields<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        let number = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Self {
            nonce: &bytes[2..18],
            last_counter: number(18),
            identity: &bytes[30..62],
            spk_id: number(62),
            spk: &bytes[66..98],
            opk_id: number(98),
            opk: &bytes[102..134],
            kem: &bytes[134..bytes.len() - 64],
        }
    }
}

/// Begins a session, and seals in it. Where the keys are those the node holds, it opens there.
fn begin(fixed: &Fixed, verified: &VerifiedBundle<'_>, fields: &Fields<'_>) {
    let (suite, rng) = (fixed.suite, &mut rng());
    let mut session = match initiate(&fixed.device_identity, &fixed.id, suite, verified, 0, LATER, rng) {
        Ok(session) => session,
        Err(InitiateError::CounterSpent) => return assert_eq!(fields.last_counter, u32::MAX),
        Err(InitiateError::Suite { .. }) => panic!("the suite is the bundle's"),
        Err(_) => return,
    };
    assert_eq!(Some(session.counter()), fields.last_counter.checked_add(1));
    let (_, lease) = session.lease(NonZeroU8::MIN, LATER, rng).expect("a lease");
    let lease = lease.grant(durable());
    let mut out = vec![0; session.sealed_len(5)];
    let sealed = session.seal_within(&lease, b"first", &mut out, LATER).expect("a seal");
    let Ok(Envelope::HandshakeInit(init)) = Envelope::parse(sealed) else { panic!("no handshake") };
    assert_eq!((init.spk_id(), init.opk_id()), (fields.spk_id, fields.opk_id));
    let honest = Fields::of(&fixed.bundle);
    if (fields.spk, fields.opk, fields.kem) == (honest.spk, honest.opk, honest.kem) {
        let spk = SignedPrekeySecret::from_bytes(fields.spk_id, fixed.spk.secret());
        let opk = fixed.opk_as(fields.opk_id);
        assert_eq!(fixed.respond(&init, &spk, &opk).as_deref(), Ok(&b"first"[..]));
    }
}

/// Signs as the node would, had it made these bytes.
fn sign(fixed: &Fixed, bytes: &mut [u8]) {
    let Some((text, signature)) = bytes.split_last_chunk_mut::<64>() else { return };
    let id = fixed.id.as_bytes();
    let len = u8::try_from(id.len()).expect("at most 64");
    let signed = [b"unhidra/bundle/v1", &[len][..], id, text].concat();
    *signature = SigningKey::from_bytes(fixed.node_identity.seed()).sign(&signed).to_bytes();
}
