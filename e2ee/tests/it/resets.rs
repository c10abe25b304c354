//! ResetRequests: whose they are, and which the device obeys.

use unhidra_core::ids::DeviceId;
use unhidra_e2ee::envelope::{Envelope, ResetRequest};
use unhidra_e2ee::identity::{BadSignature, IdentitySecret};
use unhidra_e2ee::reset::{ResetReason, sign_reset};

use crate::pair::Pair;

fn request(bytes: &[u8]) -> ResetRequest<'_> {
    match Envelope::parse(bytes).unwrap() {
        Envelope::ResetRequest(request) => request,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_is_verified_for_its_device_and_node() {
    let pair = Pair::confirmed(1);
    let bytes = sign_reset(&pair.node_identity, &pair.id, ResetReason::RolledBack, &[7; 32]);
    let node = pair.node_identity.public();
    let verified = request(&bytes).verify(&pair.id, &node).unwrap();
    assert_eq!(verified.reason(), ResetReason::RolledBack);
    let other = DeviceId::parse("pump-70").unwrap();
    assert_eq!(request(&bytes).verify(&other, &node), Err(BadSignature));
    let stranger = IdentitySecret::from_seed(&[3; 32]).public();
    assert_eq!(request(&bytes).verify(&pair.id, &stranger), Err(BadSignature));
    for at in 0..bytes.len() {
        let mut forged = bytes;
        forged[at] ^= 1;
        let verifies = match Envelope::parse(&forged) {
            Ok(Envelope::ResetRequest(request)) => request.verify(&pair.id, &node).is_ok(),
            _ => false,
        };
        assert!(!verifies, "byte {at}");
    }
}

#[test]
fn a_device_obeys_what_names_the_key_it_now_sends_under() {
    let mut pair = Pair::confirmed(2);
    let node = pair.node_identity.public();
    let now_sends_under = *pair.device.present().unwrap().ratchet_key();
    let bytes = sign_reset(&pair.node_identity, &pair.id, ResetReason::UnknownKey, &now_sends_under);
    let verified = request(&bytes).verify(&pair.id, &node).unwrap();
    assert!(pair.device.obeys(&verified));
    pair.begin();
    assert!(!pair.device.obeys(&verified), "the request is old");
    pair.device = Default::default();
    assert!(!pair.device.obeys(&verified));
}

#[test]
fn a_reason_has_a_byte() {
    for byte in 0..=255 {
        assert_eq!(ResetReason::from_byte(byte).map(ResetReason::as_byte), (1..=5).contains(&byte).then_some(byte));
    }
}
