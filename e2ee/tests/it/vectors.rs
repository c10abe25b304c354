//! A first contact as another program computes it from the text of PROTOCOL.md
//! (e2ee/oracle/handshake_vector.py): bundle, head, SAD, labels and the first message each way.

use std::num::NonZeroU8;

use rand_core::{TryCryptoRng, TryRng};
use serde::Deserialize;
use unhidra_core::ids::DeviceId;
use unhidra_core::time::UnixTime;
use unhidra_e2ee::envelope::{Envelope, PrekeyRequest};
use unhidra_e2ee::handshake::{Enrolled, initiate, respond};
use unhidra_e2ee::identity::IdentitySecret;
use unhidra_e2ee::prekey::{BundleParts, OneTimePrekeySecret, SignedPrekeySecret};
use unhidra_e2ee::reset::{ResetReason, sign_reset};
use unhidra_e2ee::session::Session;
use unhidra_e2ee::suite::Suite;

use crate::pair::{Node, durable, handshake, message};

#[derive(Deserialize)]
struct Vector {
    given: Given,
    expected: Expected,
}

#[derive(Deserialize)]
struct Given {
    device_id: String,
    device_seed: String,
    node_seed: String,
    spk: String,
    opk: String,
    ek: String,
    device_ratchet: String,
    node_ratchet: String,
    nonce: String,
    last_counter: u32,
    now_s: u64,
    spk_id: u32,
    opk_id: u32,
    #[cfg(feature = "pqxdh")]
    kem_seed: Option<String>,
    #[cfg(feature = "pqxdh")]
    kem_m: Option<String>,
}

#[derive(Deserialize)]
struct Expected {
    bundle: String,
    handshake_init: String,
    answer: String,
    reset: String,
}

/// A generator that gives these keys, in this order.
struct Keys(Vec<[u8; 32]>, usize);

impl TryRng for Keys {
    type Error = std::convert::Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(0)
    }
    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(0)
    }
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        out.copy_from_slice(&self.0[self.1]);
        self.1 += 1;
        Ok(())
    }
}

impl TryCryptoRng for Keys {}

fn bytes<const N: usize>(text: &str) -> [u8; N] {
    let mut out = [0; N];
    hex::decode_to_slice(text, &mut out).unwrap();
    out
}

#[test]
fn a_first_contact_has_the_bytes_that_the_protocol_says() {
    replay(Suite::X3dh, include_str!("../vectors/handshake.json"));
    #[cfg(feature = "pqxdh")]
    replay(Suite::Pqxdh, include_str!("../vectors/handshake-pqxdh.json"));
}

/// The one-time prekey, and what the device draws to begin a session, in its order.
fn drawn(given: &Given) -> (OneTimePrekeySecret, Vec<[u8; 32]>) {
    let opk = OneTimePrekeySecret::from_bytes(given.opk_id, &bytes(&given.opk));
    let draws = vec![bytes(&given.ek), bytes(&given.device_ratchet)];
    #[cfg(feature = "pqxdh")]
    if let (Some(seed), Some(m)) = (&given.kem_seed, &given.kem_m) {
        let opk = opk.with_kem(unhidra_e2ee::prekey::KemSeed::from_bytes(&bytes(seed)));
        return (opk, vec![draws[0], bytes(m), draws[1]]);
    }
    (opk, draws)
}

fn replay(suite: Suite, vector: &str) {
    let Vector { given, expected } = serde_json::from_str(vector).unwrap();
    let id = DeviceId::parse(&given.device_id).unwrap();
    let device_identity = IdentitySecret::from_seed(&bytes(&given.device_seed));
    let node_identity = IdentitySecret::from_seed(&bytes(&given.node_seed));
    let spk = SignedPrekeySecret::from_bytes(given.spk_id, &bytes(&given.spk));
    let (opk, draws) = drawn(&given);
    let nonce = bytes(&given.nonce);
    let now = UnixTime::from_s(given.now_s);

    let request = PrekeyRequest { suite, nonce };
    let parts = BundleParts { device: &id, request, last_counter: given.last_counter, now, spk: &spk, opk: &opk };
    let bundle = parts.sign(&node_identity).unwrap();
    assert_eq!(hex::encode(bundle.as_bytes()), expected.bundle);

    let Ok(Envelope::PreKeyBundle(bundle)) = Envelope::parse(bundle.as_bytes()) else { panic!("no bundle") };
    let bundle = bundle.verify(&id, &node_identity.public(), &nonce).unwrap();
    assert_eq!(bundle.now(), now);
    let mut keys = Keys(draws, 0);
    let mut device = initiate(&device_identity, &id, suite, &bundle, 0, now, &mut keys).unwrap();
    let (_delta, lease) = device.lease(NonZeroU8::MIN, now, &mut keys).unwrap();
    let mut out = [0; 1300];
    let init = device.seal_within(&lease.grant(durable()), b"first", &mut out, now).unwrap();
    assert_eq!(hex::encode(init), expected.handshake_init);

    let device_key = device_identity.public();
    let enrolled = Enrolled { device: &id, identity: &device_key, suite };
    let mut text = [0; 16];
    let mut keys = Keys(vec![bytes(&given.node_ratchet)], 0);
    let (mut node, opened): (Session<Node>, _) =
        respond(&node_identity, enrolled, &spk, &opk, &handshake(init), &mut text, now, &mut keys).unwrap();
    assert_eq!(opened.plaintext(), b"first");
    let (_delta, pending) = node.seal(b"hello", [0; 62]).unwrap();
    let answer = pending.release(durable());
    assert_eq!(hex::encode(answer), expected.answer);
    let (opened, _delta) = device.open(&message(&answer), &mut text, now, &mut keys).unwrap();
    assert_eq!(opened.plaintext(), b"hello");

    let reset = sign_reset(&node_identity, &id, ResetReason::RolledBack, handshake(init).message().ratchet_key());
    assert_eq!(hex::encode(reset), expected.reset);
}
