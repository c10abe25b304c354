//! How sessions begin, and which of two a message belongs to.

use std::time::Duration;

use unhidra_core::ids::DeviceId;
use unhidra_e2ee::envelope::{Envelope, HEAD_LEN, HEAD_LEN_MAX, PreKeyBundle, bundle_len, head_len};
use unhidra_e2ee::error::OpenError;
use unhidra_e2ee::handshake::{BundleError, InitiateError, RespondError, initiate};
use unhidra_e2ee::identity::{BadSignature, IdentityKey, IdentityKeyError, IdentitySecret};
use unhidra_e2ee::prekey::{OneTimePrekeySecret, SignedPrekeySecret};
use unhidra_e2ee::reset::ResetReason;
use unhidra_e2ee::role::{DeviceRole, Role};
use unhidra_e2ee::session::Session;
use unhidra_e2ee::sessions::{Handshake, Slot};
use unhidra_e2ee::skipped::{Inline, SkippedKey};
use unhidra_e2ee::suite::Suite;

use crate::pair::{NONCE, NodeError, Pair, handshake, message, suites};

const HOUR: Duration = Duration::from_secs(3600);

fn bundle(bytes: &[u8]) -> PreKeyBundle<'_> {
    match Envelope::parse(bytes).unwrap() {
        Envelope::PreKeyBundle(bundle) => bundle,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_head_is_repeated_until_the_node_answers() {
    for suite in suites() {
        let mut pair = Pair::begun_with(suite, 1);
        pair.device_reboots();
        let second = pair.device_seals(b"second");
        assert_eq!(second.len(), head_len(suite) + 57 + 6);
        assert_eq!(pair.node.compare(&handshake(&second), pair.last_counter), Handshake::Same);
        assert_eq!(pair.node_opens(&second).unwrap(), b"second");
        let hello = pair.node_seals(b"hello");
        assert!(!pair.device.present().unwrap().is_confirmed());
        pair.device_opens(&hello).unwrap();
        assert!(pair.device.present().unwrap().is_confirmed());
        let third = pair.device_seals(b"third");
        assert!(matches!(Envelope::parse(&third), Ok(Envelope::Message(_))));
        assert_eq!(pair.node_opens(&third).unwrap(), b"third");
    }
}

#[test]
fn the_first_message_to_arrive_need_not_be_the_first_sealed() {
    for suite in suites() {
        let mut pair = Pair::enrolled_with(suite, 2);
        pair.begin();
        let sealed = [b"a", b"b", b"c"].map(|text| pair.device_seals(text));
        for at in [2, 0, 1] {
            assert_eq!(pair.node_opens(&sealed[at]).unwrap(), [b"a", b"b", b"c"][at]);
        }
    }
}

#[test]
fn a_bundle_is_taken_for_its_request_device_and_node_alone() {
    for suite in suites() {
        let mut pair = Pair::enrolled_with(suite, 3);
        bundle_is_taken(&pair);
        pair.id = DeviceId::parse(&"x".repeat(64)).unwrap();
        bundle_is_taken(&pair);
    }
}

fn bundle_is_taken(pair: &Pair) {
    let (ours, node) = (pair.bundle(), pair.node_identity.public());
    let verify =
        |bytes: &[u8], id: &DeviceId, node: &IdentityKey, nonce| bundle(bytes).verify(id, node, nonce).map(drop);
    assert_eq!(ours.len(), bundle_len(pair.suite));
    assert_eq!(verify(&ours, &pair.id, &node, &NONCE), Ok(()));
    assert_eq!(verify(&ours, &pair.id, &node, &[6; 16]), Err(BundleError::Nonce));
    let other = DeviceId::parse("pump-8").unwrap();
    assert_eq!(verify(&ours, &other, &node, &NONCE), Err(BundleError::Signature(BadSignature)));
    let impostor = pair.device_identity.public();
    assert_eq!(verify(&ours, &pair.id, &impostor, &NONCE), Err(BundleError::Identity));
    for at in 0..ours.len() {
        let mut bytes = ours.clone();
        bytes[at] ^= 1;
        let taken = match Envelope::parse(&bytes) {
            Ok(Envelope::PreKeyBundle(bundle)) => bundle.verify(&pair.id, &node, &NONCE).is_ok(),
            _ => false,
        };
        assert!(!taken, "byte {at}");
    }
}

#[test]
fn a_handshake_is_of_the_identity_suite_and_prekeys_expected() {
    let mut pair = Pair::enrolled(4);
    pair.begin();
    let sealed = pair.device_seals(b"x");
    let mut out = [0; 100];

    let honest = std::mem::replace(&mut pair.device_identity, IdentitySecret::from_seed(&[1; 32]));
    assert_eq!(pair.respond(&handshake(&sealed), &mut out).err(), Some(RespondError::Identity));
    pair.device_identity = honest;

    let opk = std::mem::replace(&mut pair.opk, OneTimePrekeySecret::from_bytes(9, &[1; 32]));
    let wrong = RespondError::Prekeys { spk_id: 1, opk_id: 1 };
    assert_eq!(pair.respond(&handshake(&sealed), &mut out).err(), Some(wrong));
    pair.opk = OneTimePrekeySecret::from_bytes(1, &[1; 32]);
    let unknown = RespondError::Open(OpenError::UnknownKey { tried: true });
    assert_eq!(pair.respond(&handshake(&sealed), &mut out).err(), Some(unknown));
    assert!(unknown.spent_dh_step() && !RespondError::Identity.spent_dh_step());
    assert_eq!((wrong.reset_due(), RespondError::Identity.reset_due()), (Some(ResetReason::UnknownKey), None));
    pair.opk = opk;

    let spk = std::mem::replace(&mut pair.spk, SignedPrekeySecret::from_bytes(1, &[1; 32]));
    assert_eq!(pair.respond(&handshake(&sealed), &mut out).err(), Some(unknown));
    pair.spk = spk;
    assert_eq!(pair.respond(&handshake(&sealed), &mut out).unwrap().1, b"x");
}

#[test]
fn every_byte_of_the_head_is_authenticated() {
    for suite in suites() {
        let mut pair = Pair::enrolled_with(suite, 5);
        pair.begin();
        let sealed = pair.device_seals(b"x");
        let mut out = [0; 100];
        for at in 0..head_len(suite) {
            let mut bytes = sealed.clone();
            bytes[at] ^= 0x10;
            let opened = match Envelope::parse(&bytes) {
                Ok(Envelope::HandshakeInit(init)) => pair.respond(&init, &mut out).is_ok(),
                _ => false,
            };
            assert!(!opened, "suite {suite}, byte {at}");
        }
        assert!(pair.respond(&handshake(&sealed), &mut out).is_ok());
    }
}

#[test]
fn an_ephemeral_key_of_small_order_is_refused() {
    for suite in suites() {
        let mut pair = Pair::enrolled_with(suite, 6);
        pair.begin();
        let mut sealed = pair.device_seals(b"x");
        sealed[34..66].fill(0);
        assert_eq!(pair.respond(&handshake(&sealed), &mut [0; 100]).err(), Some(RespondError::HostileKey));
    }
}

#[test]
fn an_identity_key_is_a_point_of_large_order() {
    assert_eq!(IdentityKey::from_bytes(&[2; 32]).map(drop), Err(IdentityKeyError::NoPoint));
    let mut one = [0; 32];
    one[0] = 1;
    assert_eq!(IdentityKey::from_bytes(&one), Err(IdentityKeyError::SmallOrder));
    let key = IdentitySecret::from_seed(&[7; 32]).public();
    assert_eq!(IdentityKey::from_bytes(key.as_bytes()), Ok(key));
}

#[test]
fn the_counter_is_above_both_sides_and_ends() {
    let mut pair = Pair::enrolled(7);
    let counter = |pair: &mut Pair, last_counter, own| {
        pair.last_counter = last_counter;
        let bytes = pair.bundle();
        let verified = bundle(&bytes).verify(&pair.id, &pair.node_identity.public(), &NONCE).unwrap();
        let (identity, now) = (&pair.device_identity, pair.now);
        initiate(identity, &pair.id, Suite::X3dh, &verified, own, now, &mut pair.rng).map(|session| session.counter())
    };
    assert_eq!(counter(&mut pair, 0, 0), Ok(1));
    assert_eq!(counter(&mut pair, 7, 3), Ok(8));
    assert_eq!(counter(&mut pair, 3, 7), Ok(8));
    assert_eq!(counter(&mut pair, u32::MAX, 7), Err(InitiateError::CounterSpent));
}

#[test]
fn counters_tell_a_new_session_from_the_same_and_from_an_old() {
    let mut pair = Pair::begun(8);
    let first = pair.device_seals(b"1");
    pair.begin();
    let second = pair.device_seals(b"2");
    assert_eq!(pair.node.compare(&handshake(&second), 1), Handshake::New);
    pair.node_opens(&second).unwrap();
    let refused = Handshake::Refused(ResetReason::Counter);
    assert_eq!(pair.node.compare(&handshake(&first), pair.last_counter), refused, "an old session's");
    assert_eq!(pair.node_opens(&first), Err(NodeError::Counter(ResetReason::Counter)));
    let mut forged = second.clone();
    forged[34] ^= 1;
    assert_eq!(pair.node.compare(&handshake(&forged), pair.last_counter), refused, "another EK");
    pair.node = Default::default();
    assert_eq!(pair.node.compare(&handshake(&second), pair.last_counter), refused, "the session is lost");
}

#[test]
fn what_was_in_flight_opens_in_the_previous_session_for_a_day() {
    for suite in suites() {
        in_flight_opens(Pair::confirmed_with(suite, 9));
    }
}

fn in_flight_opens(mut pair: Pair) {
    let in_flight = [0, 1, 2].map(|_| pair.device_seals(b"old"));
    let down = pair.node_seals(b"old");
    pair.begin();
    let new = pair.device_seals(b"new");
    pair.node_opens(&new).unwrap();

    pair.later(HOUR);
    let (_, moved) = pair.node_open(&in_flight[0]).unwrap();
    assert_eq!((moved.slot, moved.reset_due), (Slot::Previous, None));
    assert_eq!(pair.device_opens(&down).unwrap(), b"old");
    pair.later(Duration::from_millis(1));
    let (_, moved) = pair.node_open(&in_flight[1]).unwrap();
    assert_eq!((moved.slot, moved.reset_due), (Slot::Previous, Some(ResetReason::PreviousSession)));

    assert!(!pair.node.expire(pair.now));
    pair.later(23 * HOUR);
    let error = pair.node_open(&in_flight[2]).unwrap_err();
    assert_eq!(error, OpenError::UnknownKey { tried: true });
    assert_eq!(error.reset_due(), Some(ResetReason::UnknownKey));
    assert!(pair.node.expire(pair.now) && pair.node.previous().is_none() && !pair.node.expire(pair.now));
}

#[test]
fn an_unknown_key_is_tried_on_the_present_session_alone() {
    let mut pair = Pair::confirmed(10);
    pair.later(HOUR);
    pair.lease_len = 1;
    let stepped = pair.device_seals(b"under a new key of the old session");
    pair.begin();
    let new = pair.device_seals(b"new");
    pair.node_opens(&new).unwrap();
    assert!(pair.node.needs_dh_step(&message(&stepped), pair.now));
    assert!(!pair.node.needs_dh_step(&message(&new), pair.now), "a duplicate");
    assert_eq!(pair.node_open(&stepped).map(drop), Err(OpenError::UnknownKey { tried: true }));
}

#[test]
fn without_a_session_nothing_is_tried() {
    let mut pair = Pair::confirmed(11);
    let sealed = pair.device_seals(b"x");
    pair.node = Default::default();
    let error = pair.node_open(&sealed).unwrap_err();
    assert_eq!(error, OpenError::UnknownKey { tried: false });
    assert!(!error.spent_dh_step() && !pair.node.needs_dh_step(&message(&sealed), pair.now));
    assert_eq!(error.reset_due(), Some(ResetReason::UnknownKey));
}

#[test]
fn a_device_restarts_by_itself_once_an_hour_and_confirmed() {
    let mut pair = Pair::begun(12);
    pair.later(2 * HOUR);
    assert!(!pair.device.may_restart(pair.now), "the head is unconfirmed");
    let hello = pair.node_seals(b"hello");
    pair.device_opens(&hello).unwrap();
    assert!(pair.device.may_restart(pair.now) && !pair.device.restart_due(pair.now));
    pair.now = crate::pair::NOON.saturating_add(HOUR - Duration::from_millis(1));
    assert!(!pair.device.may_restart(pair.now));
    pair.device = Default::default();
    assert!(pair.device.restart_due(pair.now), "it has none");
}

#[test]
fn of_a_clock_that_was_set_back_the_hour_counts_from_then() {
    let mut pair = Pair::confirmed(21);
    pair.later(1000 * HOUR);
    pair.begin();
    let up = pair.device_seals(b"by a clock that is wrong");
    pair.node_opens(&up).unwrap();
    let hello = pair.node_seals(b"hello");
    pair.device_opens(&hello).unwrap();

    pair.now = crate::pair::NOON;
    assert!(!pair.device.may_restart(pair.now));
    pair.device.clock_is(pair.now);
    pair.later(HOUR - Duration::from_millis(1));
    pair.device.clock_is(pair.now);
    assert!(!pair.device.may_restart(pair.now), "never early");
    pair.later(Duration::from_millis(1));
    assert!(pair.device.may_restart(pair.now));
}

#[test]
fn a_device_restarts_when_its_chain_is_long() {
    let mut pair = Pair::confirmed(13);
    pair.lease_len = 255;
    // The step that hello left owed is taken first; the chain after it grows long.
    pair.device_reboots();
    while pair.device.present().unwrap().next_number() < 32_767 {
        pair.lease();
        let present = pair.device.present_mut().unwrap();
        let lease = pair.lease.as_ref().unwrap();
        while present.leased(lease, pair.now) > 0 && present.next_number() < 32_767 {
            present.seal_within(lease, b"", &mut [0; 64], pair.now).unwrap();
        }
    }
    pair.later(HOUR);
    assert!(!pair.device.restart_due(pair.now));
    pair.device_seals(b"");
    assert!(pair.device.restart_due(pair.now));
}

#[test]
fn a_session_is_small() {
    type Bare = unhidra_e2ee::role::NodeRole<Inline<0>>;
    let size = size_of::<Session<Bare>>() + size_of::<Box<[SkippedKey]>>();
    assert!(size <= 320, "{size} bytes with a pointer to its skipped keys");
    // A device without suite 2 carries the head of suite 1 and no more.
    let head = HEAD_LEN_MAX - HEAD_LEN;
    assert!(size_of::<Session<DeviceRole>>() <= 1232 + head, "{}", size_of::<Session<DeviceRole>>());
    assert_eq!(Bare::SKIPPED_MAX, 128);
}
