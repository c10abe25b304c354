//! Suite 2 beside suite 1: what one of them sends is never taken for the other's, and what ML-KEM
//! adds is held as fast as the rest.

use ed25519_dalek::{Signer, SigningKey};
use unhidra_core::durable::Durable;
use unhidra_e2ee::envelope::{
    BUNDLE_LEN, Envelope, EnvelopeError, HEAD_LEN, KEM_CIPHERTEXT_LEN, KEM_KEY_LEN, PrekeyRequest,
};
use unhidra_e2ee::error::OpenError;
use unhidra_e2ee::handshake::{InitiateError, RespondError, initiate};
use unhidra_e2ee::prekey::{BundleParts, KemSeed, OneTimePrekeySecret, PrekeySuite};
use unhidra_e2ee::reset::ResetReason;
use unhidra_e2ee::role::DeviceRole;
use unhidra_e2ee::session::Session;
use unhidra_e2ee::suite::Suite::{self, Pqxdh, X3dh};

use crate::pair::{NONCE, NodeError, Pair, durable, handshake, one_time, state};

/// What the device of `pair`, of `suite`, makes of a bundle.
fn begins(pair: &mut Pair, suite: Suite, bundle: &[u8]) -> Result<Session<DeviceRole>, InitiateError> {
    let Ok(Envelope::PreKeyBundle(bundle)) = Envelope::parse(bundle) else { panic!("no bundle") };
    let bundle = bundle.verify(&pair.id, &pair.node_identity.public(), &NONCE).unwrap();
    initiate(&pair.device_identity, &pair.id, suite, &bundle, 0, pair.now, &mut pair.rng)
}

/// The bundle with some bytes of its KEM key replaced, signed again by the node.
fn with_kem_key(pair: &Pair, edit: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bundle = pair.bundle();
    let end = bundle.len() - 64;
    edit(&mut bundle[end - KEM_KEY_LEN..end]);
    let mut text = b"unhidra/bundle/v1\x06pump-7".to_vec();
    text.extend(&bundle[..end]);
    let signature = SigningKey::from_bytes(pair.node_identity.seed()).sign(&text);
    bundle[end..].copy_from_slice(&signature.to_bytes());
    bundle
}

#[test]
fn a_device_takes_a_bundle_of_its_own_suite_alone() {
    for (device, node) in [(X3dh, Pqxdh), (Pqxdh, X3dh)] {
        let mut pair = Pair::enrolled_with(node, 1);
        let bundle = pair.bundle();
        let refused = begins(&mut pair, device, &bundle).map(drop);
        assert_eq!(refused, Err(InitiateError::Suite { found: node, expected: device }));
        assert!(begins(&mut pair, node, &bundle).is_ok());
    }
}

#[test]
fn a_node_takes_a_handshake_of_the_suite_enrolled_alone() {
    for (enrolled, sent) in [(X3dh, Pqxdh), (Pqxdh, X3dh)] {
        let mut pair = Pair::enrolled_with(sent, 2);
        pair.begin();
        let sealed = pair.device_seals(b"x");
        pair.suite = enrolled;
        let error = RespondError::Suite { found: sent, expected: enrolled };
        assert_eq!(pair.node_opens(&sealed), Err(NodeError::Respond(error)));
        assert!(!error.spent_dh_step() && error.reset_due().is_none());
        assert!(pair.node.present().is_none() && pair.last_counter == 0);
        pair.suite = sent;
        assert_eq!(pair.node_opens(&sealed).unwrap(), b"x");
    }
}

#[test]
fn a_one_time_prekey_serves_its_own_suite_alone() {
    for (prekey, sent) in [(X3dh, Pqxdh), (Pqxdh, X3dh)] {
        let mut pair = Pair::enrolled_with(sent, 3);
        pair.begin();
        let sealed = pair.device_seals(b"x");
        let right = std::mem::replace(&mut pair.opk, one_time(prekey, 1, &mut pair.rng));
        let error = RespondError::PrekeySuite { found: sent, expected: prekey };
        assert_eq!(pair.node_opens(&sealed), Err(NodeError::Respond(error)));
        assert_eq!((error.reset_due(), error.spent_dh_step()), (Some(ResetReason::UnknownKey), false));
        let request = PrekeyRequest { suite: sent, nonce: NONCE };
        let (device, last_counter, now, spk, opk) = (&pair.id, 0, pair.now, &pair.spk, &pair.opk);
        let parts = BundleParts { device, request, last_counter, now, spk, opk };
        let refused = parts.sign(&pair.node_identity).map(drop);
        assert_eq!(refused, Err(PrekeySuite { found: sent, expected: prekey }));
        pair.opk = right;
        assert_eq!(pair.node_opens(&sealed).unwrap(), b"x");
    }
}

#[test]
fn a_suite_byte_that_was_changed_on_the_way_opens_nothing() {
    let mut pair = Pair::enrolled_with(Pqxdh, 4);
    pair.begin();
    let mut sealed = pair.device_seals(&[7; 2000]);
    let inner = sealed[HEAD_LEN];
    sealed[1] = 1;
    assert_eq!(Envelope::parse(&sealed), Err(EnvelopeError::InnerType { found: inner }), "its KEM ciphertext");
    sealed[HEAD_LEN] = 1;
    let error = RespondError::Suite { found: X3dh, expected: Pqxdh };
    assert_eq!(pair.node_opens(&sealed), Err(NodeError::Respond(error)));

    let mut pair = Pair::enrolled_with(X3dh, 4);
    pair.begin();
    let mut sealed = pair.device_seals(&[7; 2000]);
    sealed[1] = 2;
    let inner = sealed[HEAD_LEN + KEM_CIPHERTEXT_LEN];
    assert_eq!(Envelope::parse(&sealed), Err(EnvelopeError::InnerType { found: inner }), "its ciphertext");
    sealed[HEAD_LEN + KEM_CIPHERTEXT_LEN] = 1;
    let error = RespondError::Suite { found: Pqxdh, expected: X3dh };
    assert_eq!(pair.node_opens(&sealed), Err(NodeError::Respond(error)));
}

#[test]
fn a_kem_key_out_of_range_is_refused() {
    let mut pair = Pair::enrolled_with(Pqxdh, 5);
    let honest = with_kem_key(&pair, |_| ());
    assert_eq!(honest, pair.bundle());
    // 12 bits each: the first coefficient at q - 1 is one, at q is none (FIPS 203 section 7.2).
    for (coefficient, expected) in [(3328u16, true), (3329, false), (4095, false)] {
        let bundle = with_kem_key(&pair, |key| {
            key[0] = coefficient.to_le_bytes()[0];
            key[1] = key[1] & 0xf0 | coefficient.to_le_bytes()[1];
        });
        let begun = begins(&mut pair, Pqxdh, &bundle).map(drop);
        assert_eq!(begun, if expected { Ok(()) } else { Err(InitiateError::HostileKemKey) }, "{coefficient}");
    }
}

#[test]
fn a_kem_key_of_another_pair_begins_no_session() {
    let mut pair = Pair::enrolled_with(Pqxdh, 6);
    let other = Pair::enrolled_with(Pqxdh, 7).bundle();
    let bundle = with_kem_key(&pair, |key| key.copy_from_slice(&other[BUNDLE_LEN - 64..][..KEM_KEY_LEN]));
    let session = begins(&mut pair, Pqxdh, &bundle).unwrap();
    pair.device.begin(session, None);
    pair.begun_in_ram = true;
    let sealed = pair.device_seals(b"x");
    let error = RespondError::Open(OpenError::UnknownKey { tried: true });
    assert_eq!(pair.node_opens(&sealed), Err(NodeError::Respond(error)));
}

#[test]
fn a_seed_other_than_that_of_the_bundle_opens_nothing() {
    let mut pair = Pair::enrolled_with(Pqxdh, 8);
    pair.begin();
    let sealed = pair.device_seals(b"x");
    let seed = *pair.opk.kem_seed().unwrap().as_bytes();
    for at in [0, 31, 32, 63] {
        let mut wrong = seed;
        wrong[at] ^= 1;
        let secret = *pair.opk.secret();
        pair.opk = OneTimePrekeySecret::from_bytes(1, &secret).with_kem(KemSeed::from_bytes(&wrong));
        let opened = pair.respond(&handshake(&sealed), &mut [0; 64]).map(drop);
        // z is drawn in only where a ciphertext is refused (FIPS 203 section 6.3).
        let error = RespondError::Open(OpenError::UnknownKey { tried: true });
        assert_eq!(opened, if at < 32 { Err(error) } else { Ok(()) }, "byte {at}");
    }
}

#[test]
fn a_kem_ciphertext_that_was_changed_opens_nothing_and_moves_nothing() {
    let mut pair = Pair::confirmed_with(Pqxdh, 9);
    pair.begin();
    let sealed = pair.device_seals(b"x");
    let (before, counter) = (state(&pair.node), pair.last_counter);
    for at in [HEAD_LEN, HEAD_LEN + 500, HEAD_LEN + KEM_CIPHERTEXT_LEN - 1] {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        let error = RespondError::Open(OpenError::UnknownKey { tried: true });
        assert_eq!(pair.node_opens(&changed), Err(NodeError::Respond(error)), "byte {at}");
        assert!(error.spent_dh_step(), "it has cost agreements");
    }
    assert_eq!((state(&pair.node), pair.last_counter), (before, counter));
    assert_eq!(pair.node_opens(&sealed).unwrap(), b"x");
}

#[test]
fn a_one_time_prekey_serves_one_handshake() {
    for suite in [X3dh, Pqxdh] {
        let mut pair = Pair::enrolled_with(suite, 10);
        let bundle = pair.bundle();
        let [mut first, mut second] = [0, 1].map(|_| begins(&mut pair, suite, &bundle).unwrap());
        let [first, second] = [&mut first, &mut second].map(|session| {
            let (_, lease) = session.lease(std::num::NonZeroU8::MIN, pair.now, &mut pair.rng).unwrap();
            let granted: Durable = durable();
            let mut out = vec![0; session.sealed_len(1)];
            session.seal_within(&lease.grant(granted), b"x", &mut out, pair.now).unwrap();
            out
        });
        pair.node_opens(&first).unwrap();
        pair.last_counter = 0;
        let error = RespondError::Prekeys { spk_id: 1, opk_id: 1 };
        assert_eq!(pair.node_opens(&second), Err(NodeError::Respond(error)), "suite {suite}");
    }
}
