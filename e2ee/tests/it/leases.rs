//! The device's leases: no number twice, whatever the power does (PROTOCOL.md section 8).

use std::num::NonZeroU8;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use unhidra_e2ee::delta::{Lane, StateDelta};
use unhidra_e2ee::error::SealError;
use unhidra_e2ee::reset::ResetReason;
use unhidra_e2ee::role::DeviceRole;
use unhidra_e2ee::session::Session;
use unhidra_e2ee::sessions::Slot;

use crate::pair::{Pair, durable, message};

const ONE: NonZeroU8 = NonZeroU8::MIN;

fn present(pair: &mut Pair) -> &mut Session<DeviceRole> {
    pair.device.present_mut().unwrap()
}

#[test]
fn a_seal_ends_with_its_lease() {
    let mut pair = Pair::enrolled(1);
    pair.begin();
    pair.lease_len = 2;
    pair.device_seals(b"0");
    pair.device_seals(b"1");
    let (lease, now) = (pair.lease.take().unwrap(), pair.now);
    let mut out = [0; 200];
    let spent = SealError::NotLeased { end: 2, next: 2 };
    assert_eq!(present(&mut pair).seal_within(&lease, b"2", &mut out, now), Err(spent));
    assert_eq!(pair.device.present().unwrap().leased(&lease, now), 0);
    pair.lease = Some(lease);
    let third = pair.device_seals(b"2");
    assert_eq!(message(&third).number(), 2, "no number was skipped");
}

#[test]
fn after_a_power_cut_the_chain_goes_on_at_the_leases_end() {
    let mut pair = Pair::enrolled(2);
    pair.begin();
    let first = pair.device_seals(b"0");
    let second = pair.device_seals(b"1");
    pair.device_reboots();
    let third = pair.device_seals(b"2");
    assert_eq!(message(&third).number(), 32);
    for (sealed, text) in [(first, b"0"), (third, b"2"), (second, b"1")] {
        assert_eq!(pair.node_opens(&sealed).unwrap(), text);
    }
}

#[test]
fn a_lease_that_was_not_written_is_not_missed() {
    let mut pair = Pair::confirmed(3);
    pair.device_seals(b"");
    let written = pair.device_disk.clone();
    let (now, mut rng) = (pair.now, StdRng::seed_from_u64(9));
    let _never_granted = present(&mut pair).lease(ONE, now, &mut rng).unwrap();
    pair.device_disk = written;
    pair.device_reboots();
    let sealed = pair.device_seals(b"on");
    assert_eq!(pair.node_opens(&sealed).unwrap(), b"on");
}

#[test]
fn every_write_holds_the_send_side_at_the_leases_end() {
    let mut pair = Pair::confirmed(4);
    pair.device_seals(b"");
    let end = pair.device_disk[0].read::<DeviceRole>().next_number();
    // A jump makes the device write the whole while its lease is half used.
    let down = [0; 3].map(|_| pair.node_seals(b""));
    let (_, moved) = pair.device_open(&down[2]).unwrap();
    assert!(matches!(moved.delta, StateDelta::Whole));
    assert!(pair.device.present().unwrap().next_number() < end);
    assert_eq!(pair.device_disk[0].read::<DeviceRole>().next_number(), end);
}

#[test]
fn a_lease_in_a_chain_that_is_written_writes_that_chain_alone() {
    let mut pair = Pair::confirmed(5);
    pair.device_seals(b"");
    let (now, mut rng) = (pair.now, StdRng::seed_from_u64(9));
    let (delta, lease) = present(&mut pair).lease(NonZeroU8::new(64).unwrap(), now, &mut rng).unwrap();
    assert!(matches!(&delta, StateDelta::Chain { lane: Lane::Send, bytes } if bytes.as_slice().len() <= 48));
    pair.device_disk[0].write(pair.device.present().unwrap(), &delta);
    pair.lease = Some(lease.grant(durable()));
    let next = pair.device.present().unwrap().next_number();
    pair.device_reboots();
    pair.device.present().map(Session::next_number).filter(|n| *n == next + 64).unwrap();
}

#[test]
fn a_first_lease_is_written_whole_until_it_was_used() {
    let mut pair = Pair::enrolled(6);
    pair.begin();
    let (now, mut rng) = (pair.now, StdRng::seed_from_u64(9));
    for _ in 0..2 {
        let (delta, _) = present(&mut pair).lease(ONE, now, &mut rng).unwrap();
        assert!(matches!(delta, StateDelta::Whole), "nothing of the session may be written yet");
    }
}

#[test]
fn a_lease_of_another_chain_covers_nothing() {
    let mut pair = Pair::confirmed(7);
    pair.device_seals(b"");
    let old = pair.lease.take().unwrap();
    pair.later(Duration::from_secs(600));
    pair.lease();
    let now = pair.now;
    assert_eq!(pair.device.present().unwrap().leased(&old, now), 0);
    let found = present(&mut pair).seal_within(&old, b"", &mut [0; 100], now).map(drop);
    assert_eq!(found, Err(SealError::NotLeased { end: 32, next: 0 }));
}

/// An owed step is due at 128 messages, at 10 minutes, or after a boot, and a lease takes it.
#[test]
fn an_owed_step_is_taken_when_it_is_due() {
    let key = |pair: &Pair| *pair.device.present().unwrap().ratchet_key();

    let mut by_time = Pair::confirmed(8);
    let before = key(&by_time);
    by_time.device_seals(b"");
    assert_eq!(key(&by_time), before, "owed, and not due");
    by_time.later(Duration::from_secs(600));
    let (lease, now) = (by_time.lease.take().unwrap(), by_time.now);
    let found = present(&mut by_time).seal_within(&lease, b"", &mut [0; 100], now).map(drop);
    assert_eq!(found, Err(SealError::StepDue));
    let stepped = by_time.device_seals(b"stepped");
    assert_ne!(key(&by_time), before);
    assert_eq!(message(&stepped).previous_chain_len(), 2, "PN is the numbers used");
    assert_eq!(by_time.node_opens(&stepped).unwrap(), b"stepped");

    let mut by_count = Pair::confirmed(8);
    while by_count.device.present().unwrap().next_number() < 128 {
        assert_eq!(key(&by_count), before);
        by_count.device_seals(b"");
    }
    by_count.device_seals(b"");
    assert_ne!(key(&by_count), before);

    let mut by_boot = Pair::confirmed(8);
    by_boot.device_reboots();
    assert_eq!(key(&by_boot), before, "never at boot, always with a message");
    let stepped = by_boot.device_seals(b"stepped");
    assert_ne!(key(&by_boot), before);
    assert_eq!(message(&stepped).previous_chain_len(), 32, "PN is the lease's end if RAM was lost");
    assert_eq!(by_boot.node_opens(&stepped).unwrap(), b"stepped");
    by_boot.device_reboots();
    let after = key(&by_boot);
    by_boot.device_seals(b"");
    assert_eq!(key(&by_boot), after, "one step for each key of the other side");
}

#[test]
fn a_step_whose_write_was_lost_is_taken_again() {
    let mut pair = Pair::confirmed(9);
    pair.later(Duration::from_secs(600));
    let (now, mut rng) = (pair.now, StdRng::seed_from_u64(9));
    let (delta, _) = present(&mut pair).lease(ONE, now, &mut rng).unwrap();
    assert!(matches!(delta, StateDelta::Whole), "a step is written whole, with its first lease");
    pair.device_reboots();
    let sealed = pair.device_seals(b"on");
    assert_eq!(pair.node_opens(&sealed).unwrap(), b"on");
}

#[test]
fn a_restored_session_only_receives() {
    let mut pair = Pair::confirmed(10);
    pair.node.set_restored();
    assert_eq!(pair.try_node_seals(b""), Err(SealError::ReceivesOnly));
    let up = pair.device_seals(b"up");
    let (opened, moved) = pair.node_open(&up).unwrap();
    assert_eq!((opened.as_slice(), moved.reset_due), (&b"up"[..], Some(ResetReason::Restored)));
    // The next whole says so too.
    let late = pair.device_seals(b"late");
    let jumped = pair.device_seals(b"jumped");
    pair.node_opens(&jumped).unwrap();
    pair.node_restarts();
    assert_eq!(pair.try_node_seals(b""), Err(SealError::ReceivesOnly));
    // Until the device has begun another session, which seals and asks for nothing.
    pair.begin();
    let new = pair.device_seals(b"new");
    pair.node_opens(&new).unwrap();
    let (opened, moved) = pair.node_open(&late).unwrap();
    assert_eq!((opened.as_slice(), moved.slot, moved.reset_due), (&b"late"[..], Slot::Previous, None));
    let hello = pair.node_seals(b"hello");
    pair.device_opens(&hello).unwrap();

    pair.device_seals(b"");
    pair.device_disk[0].whole[3] |= 0x20;
    pair.device_reboots();
    let (now, mut rng) = (pair.now, StdRng::seed_from_u64(9));
    let (_, lease) = present(&mut pair).lease(ONE, now, &mut rng).unwrap();
    let lease = lease.grant(durable());
    assert_eq!(present(&mut pair).seal_within(&lease, b"", &mut [0; 100], now), Err(SealError::ReceivesOnly));
}

#[test]
fn a_lease_stops_where_the_chain_ends() {
    let mut pair = Pair::confirmed(11);
    // No step is owed here: only that could begin another chain.
    pair.device_disk[0].whole[3] &= !0x08;
    pair.device_disk[0].whole[240..244].copy_from_slice(&(u32::MAX - 1).to_be_bytes());
    pair.device_disk[0].send = None;
    pair.device_reboots();
    let (now, mut rng) = (pair.now, StdRng::seed_from_u64(9));
    let two = NonZeroU8::new(2).unwrap();
    assert_eq!(present(&mut pair).lease(two, now, &mut rng).map(drop), Err(SealError::ChainSpent));
    assert!(present(&mut pair).lease(ONE, now, &mut rng).is_ok());
}

#[test]
fn a_shorter_lease_takes_nothing_from_a_longer_one() {
    let mut pair = Pair::confirmed(12);
    pair.device_seals(b"");
    pair.lease_len = 64;
    pair.lease();
    let long = pair.lease.take().unwrap();
    pair.lease_len = 1;
    pair.lease();
    let (next, now) = (pair.device.present().unwrap().next_number(), pair.now);
    assert_eq!(pair.device.present().unwrap().leased(&long, now), 64);
    assert_eq!(pair.device_disk[0].read::<DeviceRole>().next_number(), next + 64);
}

#[test]
fn a_new_chain_begins_its_own_leases_and_its_own_ten_minutes() {
    let mut pair = Pair::confirmed(13);
    for _ in 0..100 {
        pair.device_seals(b"");
    }
    pair.later(Duration::from_secs(600));
    let stepped = pair.device_seals(b"");
    assert_eq!(message(&stepped).number(), 0);
    assert_eq!(pair.device_disk[0].read::<DeviceRole>().next_number(), 32, "and not the old chain's end");

    pair.node_opens(&stepped).unwrap();
    let answer = pair.node_seals(b"");
    pair.device_opens(&answer).unwrap();
    let key = *pair.device.present().unwrap().ratchet_key();
    pair.later(Duration::from_millis(599_999));
    pair.device_seals(b"");
    assert_eq!(*pair.device.present().unwrap().ratchet_key(), key);
    pair.later(Duration::from_millis(1));
    pair.device_seals(b"");
    assert_ne!(*pair.device.present().unwrap().ratchet_key(), key);
}
