//! Keys and signatures that nobody honest makes, wherever one comes in from outside: each has its
//! error, and none moves the state (the pair compares every byte of it after each failure).

use ed25519_dalek::{Signer, SigningKey};
use serde::Deserialize;
use unhidra_core::ids::DeviceId;
use unhidra_e2ee::envelope::{Envelope, head_len};
use unhidra_e2ee::error::OpenError;
use unhidra_e2ee::handshake::{BundleError, InitiateError, RespondError, initiate};
use unhidra_e2ee::identity::{BadSignature, IdentityKey, IdentityKeyError, IdentitySecret};
use unhidra_e2ee::reset::{ResetReason, sign_reset};

use crate::pair::{NONCE, NodeError, Pair, handshake, state, suites};

/// Computed by e2ee/oracle/hostile_vectors.py from the curve alone.
#[derive(Deserialize)]
struct Hostile {
    device_id: String,
    node_seed: String,
    node: String,
    x25519: X25519,
    ed25519: Ed25519,
    reset_requests: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct X25519 {
    low_order: Vec<String>,
    not_canonical: Vec<String>,
}

#[derive(Deserialize)]
struct Ed25519 {
    small_order: Vec<String>,
    not_canonical: Vec<String>,
    mixed_order_of_node: Vec<String>,
}

fn hostile() -> Hostile {
    serde_json::from_str(include_str!("../vectors/hostile.json")).unwrap()
}

fn keys(texts: &[String]) -> impl Iterator<Item = [u8; 32]> {
    texts.iter().map(|text| hex::decode(text).unwrap().try_into().unwrap())
}

fn with_key(sealed: &[u8], at: usize, key: [u8; 32]) -> Vec<u8> {
    let mut forged = sealed.to_vec();
    forged[at..at + 32].copy_from_slice(&key);
    forged
}

/// Where a ratchet key stands in a Message.
const RATCHET_KEY: usize = 1;
/// Where keys stand in a bundle.
const BUNDLE_SPK: usize = 66;
const BUNDLE_OPK: usize = 102;
/// Where the ephemeral key stands in a HandshakeInit; the inner Message follows the head.
const EPHEMERAL: usize = 34;

const TRIED: OpenError = OpenError::HostileKey { tried: true };
const UNTRIED: OpenError = OpenError::HostileKey { tried: false };
const UNKNOWN: OpenError = OpenError::UnknownKey { tried: true };

/// What a ratchet key of small order comes to: with its highest bit set it is not even tried.
fn small_order(key: [u8; 32]) -> OpenError {
    if key[31] & 0x80 == 0 { TRIED } else { UNTRIED }
}

#[test]
fn a_message_under_a_hostile_ratchet_key_moves_neither_side() {
    let Hostile { x25519, .. } = hostile();
    let mut pair = Pair::confirmed(1);
    let (up, down) = (pair.device_seals(b"up"), pair.node_seals(b"down"));
    let cases = keys(&x25519.low_order).map(|key| (key, small_order(key)));
    // One that is not canonical is a point like any other: it is tried, and the tag tells.
    let cases = cases.chain(keys(&x25519.not_canonical).map(|key| (key, UNKNOWN)));
    let mut seen = 0;
    for (key, expected) in cases {
        let found = pair.node_open(&with_key(&up, RATCHET_KEY, key)).map(drop);
        assert_eq!(found, Err(expected), "{key:02x?}");
        let found = pair.device_open(&with_key(&down, RATCHET_KEY, key)).map(drop);
        assert_eq!(found, Err(expected), "{key:02x?}");
        seen += 1;
    }
    assert_eq!(seen, 31);
    let node_key = *pair.node.present().unwrap().ratchet_key();
    let device_key = *pair.device.present().unwrap().ratchet_key();
    assert_eq!(pair.node_open(&with_key(&up, RATCHET_KEY, node_key)).map(drop), Err(UNTRIED), "its own");
    assert_eq!(pair.device_open(&with_key(&down, RATCHET_KEY, device_key)).map(drop), Err(UNTRIED), "its own");
    assert_eq!(pair.node_opens(&up).unwrap(), b"up");
    assert_eq!(pair.device_opens(&down).unwrap(), b"down");
}

#[test]
fn the_highest_bit_makes_no_second_key_of_one() {
    let mut pair = Pair::confirmed(2);
    // The node has opened under this key, the device under the node's: both are known.
    let (up, down) = (pair.device_seals(b"up"), pair.node_seals(b"down"));
    let high = |sealed: &[u8]| {
        let mut key: [u8; 32] = sealed[1..33].try_into().unwrap();
        key[31] |= 0x80;
        with_key(sealed, RATCHET_KEY, key)
    };
    assert_eq!(pair.node_open(&high(&up)).map(drop), Err(UNTRIED));
    assert_eq!(pair.device_open(&high(&down)).map(drop), Err(UNTRIED));
    // And one that is new, and would open but for the bit.
    pair.device_reboots();
    let stepped = pair.device_seals(b"stepped");
    assert_eq!(pair.node_open(&high(&stepped)).map(drop), Err(UNTRIED));
    assert_eq!(pair.node_opens(&stepped).unwrap(), b"stepped");
}

#[test]
fn the_signed_prekey_is_nobodys_ratchet_key() {
    let mut pair = Pair::begun(3);
    let spk = *pair.spk.public();
    let down = pair.node_seals(b"hello");
    let forged = with_key(&down, RATCHET_KEY, spk);
    assert_eq!(pair.device_open(&forged).map(drop), Err(UNTRIED), "where a device receives");
    for suite in suites() {
        let mut enrolled = Pair::enrolled_with(suite, 3);
        enrolled.begin();
        let sealed = enrolled.device_seals(b"x");
        let forged = with_key(&sealed, head_len(suite) + RATCHET_KEY, *enrolled.spk.public());
        assert_eq!(enrolled.node_opens(&forged), Err(NodeError::Respond(RespondError::Open(UNTRIED))), "its own");
    }
}

#[test]
fn a_handshake_with_a_hostile_key_begins_nothing() {
    let Hostile { x25519, ed25519, .. } = hostile();
    // One node that knows no session, and one that holds one.
    let pairs = suites().flat_map(|suite| [Pair::enrolled_with(suite, 4), Pair::confirmed_with(suite, 4)]);
    for mut pair in pairs {
        let inner = head_len(pair.suite);
        pair.begin();
        let sealed = pair.device_seals(b"x");
        let before = state(&pair.node);
        let mut refused = |at: usize, key: [u8; 32], expected: RespondError| {
            let found = pair.node_opens(&with_key(&sealed, at, key));
            assert_eq!(found, Err(NodeError::Respond(expected)), "{key:02x?} at {at}");
            assert_eq!(state(&pair.node), before);
        };
        for key in keys(&x25519.low_order) {
            refused(EPHEMERAL, key, RespondError::HostileKey);
            // All zero is what a session holds that has heard no key yet.
            let expected = if key == [0; 32] { UNTRIED } else { small_order(key) };
            refused(inner + RATCHET_KEY, key, RespondError::Open(expected));
        }
        for key in keys(&x25519.not_canonical) {
            refused(EPHEMERAL, key, RespondError::Open(UNKNOWN));
            refused(inner + RATCHET_KEY, key, RespondError::Open(UNKNOWN));
        }
        let mut high: [u8; 32] = sealed[EPHEMERAL..EPHEMERAL + 32].try_into().unwrap();
        high[31] |= 0x80;
        refused(EPHEMERAL, high, RespondError::Open(UNKNOWN));
        let all = ed25519.small_order.iter().chain(&ed25519.not_canonical).chain(&ed25519.mixed_order_of_node);
        for key in keys(&all.cloned().collect::<Vec<_>>()) {
            refused(2, key, RespondError::Identity);
        }
        assert_eq!(pair.node_opens(&sealed).unwrap(), b"x");
    }
}

/// A bundle as the pinned node would sign it, with whatever in it.
fn signed_bundle(pair: &Pair, at: usize, key: [u8; 32]) -> Vec<u8> {
    let mut bundle = with_key(&pair.bundle(), at, key);
    let signed_len = bundle.len() - 64;
    let text = [b"unhidra/bundle/v1\x06pump-7", &bundle[..signed_len]].concat();
    let signature = SigningKey::from_bytes(pair.node_identity.seed()).sign(&text);
    bundle[signed_len..].copy_from_slice(&signature.to_bytes());
    bundle
}

#[test]
fn a_bundle_with_a_key_of_small_order_begins_nothing_though_the_node_signed_it() {
    for suite in suites() {
        hostile_bundles(Pair::confirmed_with(suite, 5));
    }
}

fn hostile_bundles(mut pair: Pair) {
    let Hostile { x25519, ed25519, .. } = hostile();
    let node = pair.node_identity.public();
    let before = state(&pair.device);
    for key in keys(&x25519.low_order) {
        for at in [BUNDLE_SPK, BUNDLE_OPK] {
            let bytes = signed_bundle(&pair, at, key);
            let Ok(Envelope::PreKeyBundle(bundle)) = Envelope::parse(&bytes) else { panic!("no bundle") };
            let verified = bundle.verify(&pair.id, &node, &NONCE).unwrap();
            let (identity, id, now) = (&pair.device_identity, &pair.id, pair.now);
            let begun = initiate(identity, id, pair.suite, &verified, 0, now, &mut pair.rng).map(drop);
            assert_eq!(begun, Err(InitiateError::HostileKey), "{key:02x?} at {at}");
        }
    }
    for key in keys(&ed25519.small_order).chain(keys(&ed25519.mixed_order_of_node)) {
        let bytes = signed_bundle(&pair, 30, key);
        let Ok(Envelope::PreKeyBundle(bundle)) = Envelope::parse(&bytes) else { panic!("no bundle") };
        assert_eq!(bundle.verify(&pair.id, &node, &NONCE).map(drop), Err(BundleError::Identity), "{key:02x?}");
    }
    assert_eq!(state(&pair.device), before);
}

#[test]
fn an_identity_key_has_large_order_and_one_encoding() {
    let Hostile { ed25519, node, .. } = hostile();
    for key in keys(&ed25519.small_order) {
        assert_eq!(IdentityKey::from_bytes(&key), Err(IdentityKeyError::SmallOrder), "{key:02x?}");
    }
    for key in keys(&ed25519.not_canonical) {
        assert_eq!(IdentityKey::from_bytes(&key), Err(IdentityKeyError::NotCanonical), "{key:02x?}");
    }
    assert_eq!((ed25519.small_order.len(), ed25519.not_canonical.len()), (14, 20));
    // A point plus one of small order is a key of its own: it is compared by its bytes, and DH
    // clears what is of small order.
    let node = keys(&[node]).next().unwrap();
    for key in keys(&ed25519.mixed_order_of_node) {
        assert_ne!(IdentityKey::from_bytes(&key).unwrap(), IdentityKey::from_bytes(&node).unwrap());
    }
}

#[test]
fn a_signature_is_checked_strictly() {
    let Hostile { device_id, node_seed, node, reset_requests, .. } = hostile();
    let id = DeviceId::parse(&device_id).unwrap();
    let identity = IdentitySecret::from_seed(&keys(&[node_seed]).next().unwrap());
    assert_eq!(hex::encode(identity.public().as_bytes()), node);
    let mut refused = 0;
    for (name, bytes) in &reset_requests {
        let bytes = hex::decode(bytes).unwrap();
        let Ok(Envelope::ResetRequest(request)) = Envelope::parse(&bytes) else { panic!("no request") };
        let verified = request.verify(&id, &identity.public());
        if name == "honest" {
            assert_eq!(verified.unwrap().reason(), ResetReason::RolledBack);
        } else {
            assert_eq!(verified, Err(BadSignature), "{name}");
            refused += 1;
        }
    }
    assert_eq!(refused, 17);
}

#[test]
fn a_reset_request_that_names_a_hostile_key_is_not_obeyed() {
    let Hostile { x25519, .. } = hostile();
    let pair = Pair::confirmed(6);
    let before = state(&pair.device);
    let mut own_with_high_bit = *pair.device.present().unwrap().ratchet_key();
    own_with_high_bit[31] |= 0x80;
    for key in keys(&x25519.low_order).chain(keys(&x25519.not_canonical)).chain([own_with_high_bit]) {
        let bytes = sign_reset(&pair.node_identity, &pair.id, ResetReason::UnknownKey, &key);
        let Ok(Envelope::ResetRequest(request)) = Envelope::parse(&bytes) else { panic!("no request") };
        let verified = request.verify(&pair.id, &pair.node_identity.public()).unwrap();
        assert!(!pair.device.obeys(&verified), "{key:02x?}");
    }
    assert_eq!(state(&pair.device), before);
}

#[test]
fn a_handshake_is_read_where_its_fields_stand() {
    for suite in suites() {
        let mut pair = Pair::enrolled_with(suite, 7);
        pair.begin();
        let sealed = pair.device_seals(b"x");
        assert_eq!(handshake(&sealed).ephemeral(), &sealed[EPHEMERAL..EPHEMERAL + 32]);
        let key = head_len(suite) + RATCHET_KEY;
        assert_eq!(handshake(&sealed).message().ratchet_key(), &sealed[key..key + 32]);
    }
}
