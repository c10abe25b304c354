//! Every bound of PROTOCOL.md section 7, at its edge.

use std::time::Duration;

use unhidra_core::time::UnixTime;
use unhidra_e2ee::envelope::{MESSAGE_LEN_MAX, PLAINTEXT_LEN_MAX};
use unhidra_e2ee::error::{ChainKind, OpenError, SealError};
use unhidra_e2ee::reset::ResetReason;
use unhidra_e2ee::role::{self, DeviceRole, Role};
use unhidra_e2ee::sessions::Slot;

use crate::pair::{NOON, Node, NodeError, Pair};

#[test]
fn the_times_are_those_of_the_text() {
    let [hour, day] = [3_600, 86_400].map(Duration::from_secs);
    assert_eq!([role::PREVIOUS_KEPT, role::ALIVE_AFTER], [day, day]);
    assert_eq!([role::PREVIOUS_USUAL, role::RESTART_INTERVAL, role::ALIVE_INTERVAL], [hour, hour, hour]);
    assert_eq!([role::STEP_AFTER, role::LONG_TRY_INTERVAL], [Duration::from_secs(600); 2]);
    assert_eq!(<Node as Role>::SKIPPED_AGE_MAX, Some(day));
    assert_eq!(<DeviceRole as Role>::SKIPPED_AGE_MAX, None);
}

fn device_seals_many(pair: &mut Pair, count: usize) -> Vec<Vec<u8>> {
    pair.lease_len = 255;
    (0..count).map(|_| pair.device_seals(b"")).collect()
}

/// The node answers only what it is answered, so that it may seal as much as it likes.
fn node_seals_many(pair: &mut Pair, count: usize) -> Vec<Vec<u8>> {
    let mut sealed = Vec::new();
    while sealed.len() < count {
        match pair.try_node_seals(b"") {
            Ok(message) => sealed.push(message),
            Err(SealError::Unanswered { max: 64 }) => {
                let up = pair.device_seals(b"");
                pair.node_opens(&up).unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
    sealed
}

#[test]
fn the_node_jumps_2048_and_no_further() {
    let mut pair = Pair::begun(1);
    let sealed = device_seals_many(&mut pair, 2050);
    let inner = |at: usize| sealed[at].as_slice();
    let error = pair.node_open(inner(2049)).unwrap_err();
    assert_eq!(error, OpenError::TooFar { number: 2050, jump: 2049, max: 2048, chain: ChainKind::Known });
    assert_eq!(error.reset_due(), None);
    assert!(error.is_within_long_try());
    pair.node_open(inner(2048)).unwrap();
    pair.node_open(inner(2049)).unwrap();
}

#[test]
fn by_a_long_try_the_node_jumps_65536_on_a_known_chain_and_no_further() {
    let mut pair = Pair::begun(18);
    let sealed: Vec<_> = (1..65_539).map(|_| pair.device_seals(b"")).collect();
    let number = |number: usize| sealed[number - 1].as_slice();
    let error = pair.node_open(number(65_538)).unwrap_err();
    assert!(!error.is_within_long_try());
    let beyond = OpenError::TooFar { number: 65_538, jump: 65_537, max: 65_536, chain: ChainKind::Known };
    assert_eq!(pair.node_opens_by_long_try(number(65_538)).map(drop), Err(beyond));

    let mut forged = number(65_537).to_vec();
    forged.last_mut().into_iter().for_each(|byte| *byte ^= 1);
    assert!(pair.node_open(&forged).unwrap_err().is_within_long_try());
    let bad_tag = OpenError::BadTag { number: 65_537 };
    assert_eq!((pair.node_opens_by_long_try(&forged).map(drop), bad_tag.reset_due()), (Err(bad_tag), None));

    let (_, moved) = pair.node_opens_by_long_try(number(65_537)).unwrap();
    assert_eq!((moved.slot, moved.reset_due), (Slot::Present, None));
    // No more keys are kept than ever: the newest.
    assert_eq!(pair.node_open(number(65_408)).map(drop), Err(OpenError::TooOld { number: 65_408 }));
    pair.node_restarts();
    for late in 65_409..65_537 {
        pair.node_open(number(late)).unwrap();
    }
    pair.node_open(number(65_538)).unwrap();
}

#[test]
fn a_long_try_reaches_no_further_on_a_new_chain() {
    let mut pair = Pair::confirmed(19);
    pair.device_reboots();
    let sealed = device_seals_many(&mut pair, 2050);
    let error = OpenError::TooFar { number: 2049, jump: 2049, max: 2048, chain: ChainKind::New };
    assert!(!error.is_within_long_try());
    assert_eq!(pair.node_opens_by_long_try(&sealed[2049]).map(drop), Err(error));
}

#[test]
fn a_long_try_reaches_on_in_the_previous_session_too() {
    let mut pair = Pair::begun(20);
    let old = device_seals_many(&mut pair, 3000);
    pair.begin();
    let new = pair.device_seals(b"");
    pair.node_opens(&new).unwrap();
    assert!(pair.node_open(&old[2999]).unwrap_err().is_within_long_try());
    assert_eq!(pair.node_opens_by_long_try(&old[2999]).unwrap().1.slot, Slot::Previous);
}

#[test]
fn alive_is_due_a_day_or_10000_messages_into_a_chain() {
    let mut pair = Pair::confirmed(21);
    let due_at = |pair: &Pair| pair.node.present().unwrap().alive_due_at();
    let day = Duration::from_secs(24 * 3600);
    assert_eq!(due_at(&pair), NOON.saturating_add(day));
    pair.later(Duration::from_secs(60));
    pair.node_restarts();
    assert_eq!(due_at(&pair), NOON.saturating_add(day), "it survives a restart");
    // A new key of the device begins another day.
    pair.device_reboots();
    let stepped = pair.device_seals(b"");
    pair.node_opens(&stepped).unwrap();
    assert_eq!(due_at(&pair), pair.now.saturating_add(day));

    for _ in 1..9_999 {
        let sealed = pair.device_seals(b"");
        pair.node_open(&sealed).unwrap();
    }
    assert_eq!(due_at(&pair), pair.now.saturating_add(day), "9 999 messages");
    let sealed = pair.device_seals(b"");
    pair.node_open(&sealed).unwrap();
    assert_eq!(due_at(&pair), UnixTime::EPOCH, "10 000");
}

#[test]
fn alive_leaves_room_for_commands() {
    let mut pair = Pair::confirmed(22);
    let up = pair.device_seals(b"");
    pair.node_opens(&up).unwrap();
    for _ in 0..32 {
        assert!(pair.node.present().unwrap().has_room_for_alive());
        pair.node_seals(b"");
    }
    assert!(!pair.node.present().unwrap().has_room_for_alive());
    let up = pair.device_seals(b"");
    pair.node_opens(&up).unwrap();
    assert!(pair.node.present().unwrap().has_room_for_alive());
    pair.node.set_restored();
    assert!(!pair.node.present().unwrap().has_room_for_alive(), "it only receives");
}

#[test]
fn the_node_keeps_128_keys_and_the_oldest_goes() {
    let mut pair = Pair::begun(2);
    let sealed = device_seals_many(&mut pair, 200);
    pair.node_open(&sealed[199]).unwrap();
    // 199 were skipped, numbers 1 to 199 of the chain; the last 128 are kept.
    assert_eq!(pair.node_open(&sealed[70]).map(drop), Err(OpenError::TooOld { number: 71 }));
    for late in &sealed[71..199] {
        pair.node_open(late).unwrap();
    }
}

#[test]
fn the_node_keeps_a_key_for_a_day() {
    let mut pair = Pair::confirmed(3);
    let sealed = device_seals_many(&mut pair, 4);
    pair.node_open(&sealed[2]).unwrap();
    pair.later(Duration::from_secs(24 * 3600));
    pair.node_open(&sealed[0]).unwrap();
    pair.later(Duration::from_secs(1));
    assert_eq!(pair.node_open(&sealed[1]).map(drop), Err(OpenError::TooOld { number: 2 }));
    // The one that opens in order takes what is too old with it, on disk too.
    let with_key = pair.node_disk[0].whole.len();
    pair.node_open(&sealed[3]).unwrap();
    assert_eq!(pair.node_disk[0].whole.len(), with_key - 48);
}

#[test]
fn the_keys_of_a_silent_device_go_after_a_day_too() {
    let mut pair = Pair::confirmed(17);
    let sealed = device_seals_many(&mut pair, 2);
    pair.node_open(&sealed[1]).unwrap();
    pair.begin();
    let new = device_seals_many(&mut pair, 3);
    pair.node_opens(&new[0]).unwrap();
    pair.later(Duration::from_secs(1));
    pair.node_opens(&new[2]).unwrap();
    pair.later(Duration::from_secs(24 * 3600 - 1));
    assert_eq!(pair.node.expire_keys(pair.now).collect::<Vec<_>>(), []);
    assert_eq!(pair.node.keys_expire_at(), Some(pair.now.saturating_add(Duration::from_secs(1))));
    pair.later(Duration::from_secs(1));
    assert_eq!(pair.node.expire_keys(pair.now).collect::<Vec<_>>(), [Slot::Previous]);
    pair.later(Duration::from_secs(1));
    assert_eq!(pair.node.expire_keys(pair.now).collect::<Vec<_>>(), [Slot::Present]);
    assert_eq!((pair.node.expire_keys(pair.now).count(), pair.node.keys_expire_at()), (0, None));
}

#[test]
fn the_device_jumps_128_and_no_further() {
    let mut pair = Pair::confirmed(4);
    let sealed = node_seals_many(&mut pair, 131);
    let error = pair.device_open(&sealed[129]).unwrap_err();
    assert_eq!(error, OpenError::TooFar { number: 130, jump: 129, max: 128, chain: ChainKind::Known });
    pair.device_open(&sealed[128]).unwrap();
    // 128 were skipped; 16 are kept.
    assert_eq!(pair.device_open(&sealed[111]).map(drop), Err(OpenError::TooOld { number: 112 }));
    for late in &sealed[112..128] {
        pair.device_open(late).unwrap();
    }
}

#[test]
fn beyond_the_jump_a_new_chain_is_an_unknown_key() {
    let mut pair = Pair::confirmed(5);
    pair.device_reboots();
    let sealed = device_seals_many(&mut pair, 2050);
    let error = pair.node_open(&sealed[2049]).unwrap_err();
    assert_eq!(error, OpenError::TooFar { number: 2049, jump: 2049, max: 2048, chain: ChainKind::New });
    assert_eq!((error.reset_due(), error.spent_dh_step()), (Some(ResetReason::UnknownKey), false));
    pair.node_open(&sealed[2048]).unwrap();
}

#[test]
fn a_gap_on_the_old_chain_beyond_the_bound_wedges_nothing() {
    let mut pair = Pair::begun(6);
    // The device sends 3 000 messages that are lost, hears of the node, and takes a step.
    let lost = device_seals_many(&mut pair, 3000);
    let hello = pair.node_seals(b"hello");
    pair.device_opens(&hello).unwrap();
    let stepped = pair.device_seals(b"on");
    assert_eq!(pair.node_opens(&stepped).unwrap(), b"on");
    assert_eq!(pair.node_open(&lost[2990]).map(drop), Err(OpenError::TooOld { number: 2991 }));
    let down = pair.node_seals(b"still here");
    assert_eq!(pair.device_opens(&down).unwrap(), b"still here");
}

#[test]
fn keys_of_the_old_chain_are_kept_as_its_length_says() {
    let mut pair = Pair::confirmed(7);
    let late = device_seals_many(&mut pair, 3);
    pair.device_reboots();
    let stepped = device_seals_many(&mut pair, 2);
    pair.node_open(&stepped[1]).unwrap();
    for sealed in late.iter().chain(&stepped[..1]) {
        pair.node_open(sealed).unwrap();
    }
}

#[test]
fn the_node_seals_64_without_an_answer() {
    let mut pair = Pair::confirmed(8);
    let up = pair.device_seals(b"");
    pair.node_opens(&up).unwrap();
    let before = pair.node.present().unwrap().next_number();
    for _ in 0..64 {
        pair.node_seals(b"");
    }
    assert_eq!(pair.try_node_seals(b""), Err(SealError::Unanswered { max: 64 }));
    pair.node_restarts();
    assert_eq!(pair.try_node_seals(b""), Err(SealError::Unanswered { max: 64 }), "it survives a restart");
    assert_eq!(pair.node.present().unwrap().next_number(), before + 64, "no number was used");
    let up = pair.device_seals(b"");
    pair.node_opens(&up).unwrap();
    assert_eq!(pair.node.present().unwrap().unanswered(), 0);
    pair.node_restarts();
    assert_eq!(pair.node.present().unwrap().unanswered(), 0, "and so does the answer");
    pair.node_seals(b"");
}

#[test]
fn a_plaintext_has_64512_bytes_at_most() {
    let mut pair = Pair::confirmed(9);
    let longest = vec![7; PLAINTEXT_LEN_MAX];
    let sealed = pair.device_seals(&longest);
    assert!(sealed.len() <= MESSAGE_LEN_MAX);
    assert_eq!(pair.node_opens(&sealed).unwrap(), longest);
    let longer = vec![7; PLAINTEXT_LEN_MAX + 1];
    let too_long = SealError::PlaintextTooLong { found: PLAINTEXT_LEN_MAX + 1, max: PLAINTEXT_LEN_MAX };
    assert_eq!(pair.try_node_seals(&longer), Err(too_long));
}

#[test]
fn a_seal_wants_a_buffer_of_its_length() {
    let mut pair = Pair::confirmed(10);
    let present = pair.node.present_mut().unwrap();
    for len in [0, 56, 57, 59, 100] {
        let wrong = SealError::OutLength { needed: 58, found: len };
        assert_eq!(present.seal(b"x", vec![0; len]).map(drop), Err(wrong));
    }
    assert_eq!(present.next_number(), 1);
    assert!(present.seal(b"x", vec![0; 58]).is_ok());
}

#[test]
fn a_repeat_is_a_duplicate_until_33_messages_later() {
    let mut pair = Pair::confirmed(11);
    let sealed = device_seals_many(&mut pair, 33);
    for message in &sealed[..32] {
        pair.node_open(message).unwrap();
    }
    assert_eq!(pair.node_open(&sealed[0]).map(drop), Err(OpenError::Duplicate));
    pair.node_open(&sealed[32]).unwrap();
    assert_eq!(pair.node_open(&sealed[0]).map(drop), Err(OpenError::TooOld { number: 1 }));
    assert_eq!(OpenError::Duplicate.reset_due(), None);
}

#[test]
fn a_handshake_opened_before_is_a_duplicate() {
    let mut pair = Pair::enrolled(12);
    pair.begin();
    let first = pair.device_seals(b"first");
    pair.node_opens(&first).unwrap();
    assert_eq!(pair.node_opens(&first), Err(NodeError::Open(OpenError::Duplicate)));
    pair.node_restarts();
    assert_eq!(pair.node_opens(&first), Err(NodeError::Open(OpenError::Duplicate)));
}

#[test]
fn a_late_message_opens_once() {
    let mut pair = Pair::confirmed(13);
    let sealed = device_seals_many(&mut pair, 40);
    pair.node_open(&sealed[2]).unwrap();
    pair.node_open(&sealed[0]).unwrap();
    for message in &sealed[3..] {
        pair.node_open(message).unwrap();
    }
    assert_eq!(pair.node_open(&sealed[0]).map(drop), Err(OpenError::TooOld { number: 1 }));
    pair.node_open(&sealed[1]).unwrap();
}

#[test]
fn another_message_under_a_used_number_is_a_rolled_back_device() {
    let mut pair = Pair::confirmed(14);
    let flash = pair.device_disk.clone();
    pair.device_seals(b"");
    pair.device_reboots();
    let seen = pair.device_seals(b"before");
    pair.node_opens(&seen).unwrap();
    pair.device_disk = flash;
    pair.device_reboots();
    let mut again = seen.clone();
    again[50] ^= 1;
    again.last_mut().into_iter().for_each(|byte| *byte ^= 1);
    let tag = again.len() - 16;
    again[tag] ^= 1;
    let error = pair.node_open(&again).unwrap_err();
    assert_eq!(error, OpenError::RolledBack { number: 0 });
    assert_eq!(error.reset_due(), Some(ResetReason::RolledBack));
}

#[test]
fn a_number_beyond_the_end_of_a_closed_chain_is_a_rolled_back_device() {
    let mut pair = Pair::confirmed(15);
    let old = device_seals_many(&mut pair, 6);
    // The chain is closed at the lease's end, 32: there and beyond it never can have had a message.
    pair.device_reboots();
    let stepped = pair.device_seals(b"");
    pair.node_open(&stepped).unwrap();
    for (number, expected) in [
        (31, OpenError::BadTag { number: 31 }),
        (32, OpenError::RolledBack { number: 32 }),
        (1000, OpenError::RolledBack { number: 1000 }),
    ] {
        let mut forged = old[5].clone();
        forged[37..41].copy_from_slice(&u32::to_be_bytes(number));
        assert_eq!(pair.node_open(&forged).map(drop), Err(expected));
    }
    let mut below = old[5].clone();
    below[37..41].copy_from_slice(&0u32.to_be_bytes());
    below[41] ^= 1;
    let tag = below.len() - 16;
    below[tag] ^= 1;
    assert_eq!(pair.node_open(&below).map(drop), Err(OpenError::RolledBack { number: 0 }), "opened with another tag");
}

#[test]
fn a_chain_has_an_end_and_nothing_wraps() {
    let mut pair = Pair::confirmed(16);
    let whole = &mut pair.node_disk[0].whole;
    whole[192..196].copy_from_slice(&(u32::MAX - 1).to_be_bytes());
    whole[240..244].copy_from_slice(&u32::MAX.to_be_bytes());
    whole[248..252].copy_from_slice(&u32::MAX.to_be_bytes());
    let (receive, send) = (pair.node_disk[0].receive.take(), pair.node_disk[0].send.take());
    pair.node_restarts();
    assert_eq!(pair.try_node_seals(b""), Err(SealError::ChainSpent));
    let mut last = pair.device_seals(b"");
    last[37..41].copy_from_slice(&u32::MAX.to_be_bytes());
    assert!(matches!(pair.node_open(&last), Err(OpenError::TooFar { number: u32::MAX, .. })));
    drop((receive, send));
}

#[test]
fn a_device_begins_anew_where_the_node_is_out_of_its_reach_or_in_another_session() {
    let far = |chain| OpenError::TooFar { number: 200, jump: 200, max: 128, chain };
    for error in [far(ChainKind::Known), far(ChainKind::New), OpenError::UnknownKey { tried: true }] {
        assert!(error.restart_due(), "{error}");
    }
    let number = 7;
    let late = [OpenError::Duplicate, OpenError::TooOld { number }, OpenError::RolledBack { number }];
    let forged = [OpenError::BadTag { number }, OpenError::HostileKey { tried: true }];
    assert!(!late.into_iter().chain(forged).any(OpenError::restart_due));
}
