//! Counters at their end, and what a peer says of its own numbers that is not so.

use unhidra_e2ee::envelope::Envelope;
use unhidra_e2ee::error::{ChainKind, OpenError, SealError};
use unhidra_e2ee::handshake::{InitiateError, initiate};
use unhidra_e2ee::reset::ResetReason;
use unhidra_e2ee::sessions::Handshake;
use unhidra_e2ee::suite::Suite;

use crate::pair::{NONCE, NodeError, Pair, handshake, message};

/// Where the state record holds the count of the receiving chain, the sending chain's next number,
/// and the next number when a message was last opened (PROTOCOL.md section 12).
const COUNT: usize = 192;
const NEXT: usize = 240;
const ANSWERED: usize = 248;

fn patch(record: &mut [u8], at: usize, number: u32) {
    record[at..at + 4].copy_from_slice(&number.to_be_bytes());
}

/// Both sides as if the device's chain had come to `number`, under a chain key made up for it.
fn at_number(seed: u64, number: u32) -> Pair {
    let mut pair = Pair::confirmed(seed);
    pair.lease_len = 1;
    (pair.device_disk[0].send, pair.node_disk[0].receive) = (None, None);
    for (records, at) in [(&mut pair.device_disk[0], NEXT), (&mut pair.node_disk[0], COUNT)] {
        records.whole[at - 32..at].fill(7);
        patch(&mut records.whole, at, number);
    }
    // No step is owed: it would begin a chain at 0.
    pair.device_disk[0].whole[3] &= !0x08;
    pair.device_reboots();
    pair.node_restarts();
    pair
}

#[test]
fn the_last_number_of_a_chain_is_one_below_the_largest() {
    let last = u32::MAX - 1;
    let mut pair = at_number(1, last - 1);
    for number in [last - 1, last] {
        let up = pair.device_seals(b"the end");
        assert_eq!(message(&up).number(), number);
        assert_eq!(pair.node_opens(&up).unwrap(), b"the end");
    }
    let one = std::num::NonZeroU8::MIN;
    let lease = pair.device.present_mut().unwrap().lease(one, pair.now, &mut pair.rng).map(drop);
    assert_eq!(lease, Err(SealError::ChainSpent));
    // What nobody can seal does not open, and nothing wraps.
    let mut beyond = pair.node_seals(b"");
    beyond[1..33].copy_from_slice(pair.device.present().unwrap().ratchet_key());
    patch(&mut beyond, 37, u32::MAX);
    let too_far = OpenError::TooFar { number: u32::MAX, jump: 0, max: 2048, chain: ChainKind::Known };
    assert_eq!(pair.node_open(&beyond).map(drop), Err(too_far));
    // The other direction and the next chain go on.
    let down = pair.node_seals(b"on");
    pair.device_opens(&down).unwrap();
}

#[test]
fn a_jump_at_the_end_of_a_chain_does_not_wrap() {
    let mut pair = at_number(2, u32::MAX - 3);
    let sealed = [(); 3].map(|()| pair.device_seals(b"late"));
    for at in [2, 0, 1] {
        assert_eq!(pair.node_opens(&sealed[at]).unwrap(), b"late");
    }
}

#[test]
fn a_node_whose_chain_is_spent_goes_on_in_the_next() {
    let mut pair = Pair::confirmed(3);
    let up = pair.device_seals(b"");
    pair.node_opens(&up).unwrap();
    (pair.node_disk[0].send, pair.node_disk[0].receive) = (None, None);
    patch(&mut pair.node_disk[0].whole, NEXT, u32::MAX);
    patch(&mut pair.node_disk[0].whole, ANSWERED, u32::MAX);
    pair.node_restarts();
    assert_eq!(pair.try_node_seals(b""), Err(SealError::ChainSpent));
    pair.device_reboots();
    let stepped = pair.device_seals(b"a new key");
    pair.node_opens(&stepped).unwrap();
    let down = pair.node_seals(b"after the end");
    assert_eq!(message(&down).previous_chain_len(), u32::MAX);
    assert_eq!(pair.device_opens(&down).unwrap(), b"after the end", "a gap of four thousand million wedges nothing");
}

/// PN is what the other side says; a lie costs the liar's late messages and nothing else.
#[test]
fn a_lie_about_the_length_of_the_last_chain_moves_nothing_else() {
    for (seed, said) in [(4, 0), (5, 1), (6, 32 + 2048), (7, 32 + 2049), (8, 1 << 31), (9, u32::MAX - 300)] {
        let mut pair = Pair::confirmed(seed);
        let up = [(); 4].map(|()| pair.device_seals(b"old chain"));
        pair.node_opens(&up[1]).unwrap();
        // Owing a step, the device takes it at once after this boot, and says how long its chain was.
        pair.device_disk[0].send = None;
        patch(&mut pair.device_disk[0].whole, NEXT, said);
        pair.device_reboots();
        let stepped = [(); 3].map(|()| pair.device_seals(b"new chain"));
        assert_eq!(message(&stepped[0]).previous_chain_len(), said);
        assert_eq!(pair.node_opens(&stepped[1]).unwrap(), b"new chain", "PN {said}");
        assert_eq!(pair.node_opens(&stepped[0]).unwrap(), b"new chain");
        // Numbers 1 and 2 were skipped before; 3 and 4 were still to come.
        assert_eq!(pair.node_opens(&up[0]).unwrap(), b"old chain", "its key was kept already");
        let down = pair.node_seals(b"down");
        assert_eq!(pair.device_opens(&down).unwrap(), b"down");
        let last = pair.node_opens(&up[3]);
        if said > 4 && said <= 32 {
            assert_eq!(last.unwrap(), b"old chain");
        } else {
            let number = message(&up[3]).number();
            let (too_old, back) = (OpenError::TooOld { number }, OpenError::RolledBack { number });
            let expected = if said < 5 { back } else { too_old };
            assert_eq!(last, Err(NodeError::Open(expected)), "PN {said}");
        }
    }
}

#[test]
fn a_gap_on_the_old_chain_is_kept_at_the_bound_and_dropped_beyond() {
    for (said, kept) in [(2 + 2048, true), (2 + 2049, false)] {
        let mut pair = Pair::confirmed(10);
        let up = pair.device_seals(b"");
        pair.node_opens(&up).unwrap();
        pair.device_disk[0].send = None;
        patch(&mut pair.device_disk[0].whole, NEXT, said);
        pair.device_reboots();
        let stepped = pair.device_seals(b"");
        let before = pair.node.present().unwrap().encoded_len();
        pair.node_opens(&stepped).unwrap();
        let keys = (pair.node.present().unwrap().encoded_len() - before) / 48;
        assert_eq!(keys, if kept { 128 } else { 0 }, "PN {said}");
    }
}

#[test]
fn two_receiving_chains_are_remembered_and_no_third() {
    let mut pair = Pair::confirmed(11);
    pair.lease_len = 1;
    let mut sealed = Vec::new();
    for _ in 0..3 {
        let up = pair.device_seals(b"up");
        pair.node_opens(&up).unwrap();
        sealed.push(up);
        let down = pair.node_seals(b"down");
        pair.device_opens(&down).unwrap();
        pair.later(std::time::Duration::from_secs(600));
    }
    let forged = |at: usize| {
        let mut forged = sealed[at].clone();
        patch(&mut forged, 37, 77);
        forged
    };
    assert_eq!(pair.node_open(&forged(2)).map(drop), Err(OpenError::BadTag { number: 77 }), "the present one");
    assert_eq!(pair.node_open(&forged(1)).map(drop), Err(OpenError::RolledBack { number: 77 }), "the old one");
    assert_eq!(pair.node_open(&forged(0)).map(drop), Err(OpenError::UnknownKey { tried: true }), "the one before");
}

#[test]
fn a_chain_is_known_while_it_is_one_of_the_two_or_a_key_of_it_is_kept() {
    for lost in [false, true] {
        let mut pair = Pair::confirmed(14);
        pair.lease_len = 1;
        let mut sealed = Vec::new();
        for round in 0..3 {
            if lost && round == 0 {
                pair.device_seals(b"lost");
            }
            let up = pair.device_seals(b"up");
            pair.node_opens(&up).unwrap();
            sealed.push(up);
            let down = pair.node_seals(b"down");
            pair.device_opens(&down).unwrap();
            pair.later(std::time::Duration::from_secs(600));
        }
        let session = pair.node.present().unwrap();
        let known: Vec<bool> = sealed.iter().map(|up| session.knows(message(up).ratchet_key())).collect();
        assert_eq!(known, [lost, true, true]);
    }
}

#[test]
fn a_device_remembers_the_last_32_it_opened() {
    let mut pair = Pair::confirmed(12);
    let mut sealed = Vec::new();
    for _ in 0..33 {
        let down = pair.node_seals(b"");
        pair.device_opens(&down).unwrap();
        sealed.push(down);
    }
    assert_eq!(pair.device_open(&sealed[1]).map(drop), Err(OpenError::Duplicate));
    assert_eq!(pair.device_open(&sealed[0]).map(drop), Err(OpenError::TooOld { number: 1 }));
}

#[test]
fn a_key_made_to_match_eight_bytes_of_a_known_one_gains_nothing() {
    let mut pair = Pair::confirmed(13);
    let late = [(); 2].map(|()| pair.device_seals(b"late"));
    pair.device_reboots();
    let stepped = pair.device_seals(b"stepped");
    pair.node_opens(&stepped).unwrap();
    let mut twin = late[1].clone();
    twin[20] ^= 1;
    let number = message(&late[1]).number();
    assert_eq!(pair.node_open(&twin).map(drop), Err(OpenError::BadTag { number }), "the tag covers all 32");
    // Of the present chain all 32 are compared: another key is another chain.
    let mut twin = stepped.clone();
    twin[20] ^= 1;
    patch(&mut twin, 37, 1);
    assert_eq!(pair.node_open(&twin).map(drop), Err(OpenError::UnknownKey { tried: true }));
    assert_eq!(pair.node_opens(&late[1]).unwrap(), b"late");
}

#[test]
fn the_last_handshake_counter_begins_a_session_and_there_is_none_after_it() {
    let mut pair = Pair::enrolled(14);
    pair.last_counter = u32::MAX - 1;
    pair.begin();
    let sealed = pair.device_seals(b"the last");
    assert_eq!(handshake(&sealed).counter(), u32::MAX);
    assert_eq!(pair.node_opens(&sealed).unwrap(), b"the last");
    assert_eq!(pair.last_counter, u32::MAX);
    let again = pair.device_seals(b"still the same");
    assert_eq!(pair.node.compare(&handshake(&again), u32::MAX), Handshake::Same);
    assert_eq!(pair.node_opens(&again).unwrap(), b"still the same");
    let down = pair.node_seals(b"hello");
    assert_eq!(pair.device_opens(&down).unwrap(), b"hello");

    let bytes = pair.bundle();
    let Ok(Envelope::PreKeyBundle(bundle)) = Envelope::parse(&bytes) else { panic!("no bundle") };
    let bundle = bundle.verify(&pair.id, &pair.node_identity.public(), &NONCE).unwrap();
    let (identity, id, now) = (&pair.device_identity, &pair.id, pair.now);
    let begun = initiate(identity, id, Suite::X3dh, &bundle, 0, now, &mut pair.rng).map(drop);
    assert_eq!(begun, Err(InitiateError::CounterSpent));
    let begun = initiate(identity, id, Suite::X3dh, &bundle, u32::MAX, now, &mut pair.rng).map(drop);
    assert_eq!(begun, Err(InitiateError::CounterSpent));
}

#[test]
fn a_counter_is_one_above_the_last_at_least() {
    let mut pair = Pair::enrolled(15);
    pair.last_counter = 6;
    pair.begin();
    let sealed = pair.device_seals(b"7");
    let refused = Handshake::Refused(ResetReason::Counter);
    for (last, expected) in [(5, Handshake::New), (6, Handshake::New), (7, refused), (8, refused), (u32::MAX, refused)]
    {
        assert_eq!(pair.node.compare(&handshake(&sealed), last), expected, "after {last}");
    }
}
