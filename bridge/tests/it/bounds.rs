//! The bounds of e2ee/PROTOCOL.md sections 7 and 9 that the bridge keeps, at their edges.

use bytes::Bytes;
use unhidra_bridge::{Connection, holds_old_keys};
use unhidra_core::delivery::{Answer, Refusal, UplinkRow};
use unhidra_core::ids::DeviceId;

use crate::device::{Device, Heard};
use crate::ledger::World;

const REFUSED: Answer = Answer::Refused(Refusal::DoesNotOpen);
const MINUTE_MS: u64 = 60 * 1000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;

/// A device whose first message the node has opened, and that has not heard of it: its chain goes
/// on without a step.
fn begun() -> (World, Device) {
    let (mut world, mut device) = World::new();
    let bundle = world.bundle();
    device.begin(&bundle, world.now.unix);
    let first = device.reading(b"first", world.now.unix);
    assert_eq!(world.message(&first), Answer::Accepted);
    world.take_message();
    (world, device)
}

/// The last of so many messages that the device seals; the others are lost.
fn after_a_gap(world: &World, device: &mut Device, count: usize) -> Vec<u8> {
    (0..count).map(|_| device.reading(b"x", world.now.unix)).last().expect("at least one")
}

#[test]
fn one_message_in_ten_minutes_is_tried_beyond_the_jump() {
    let (mut world, mut device) = begun();
    let far = after_a_gap(&world, &mut device, 5000);
    assert_eq!(world.message(&far), Answer::Accepted);
    assert_eq!(world.bridge.take_stats().long_tries, 1);

    world.pass(10 * MINUTE_MS - 1);
    world.published.clear();
    let farther = after_a_gap(&world, &mut device, 5000);
    assert_eq!(world.message(&farther), REFUSED);
    let stats = world.bridge.take_stats();
    assert_eq!((stats.long_tries, stats.too_far, stats.resets), (0, 1, 0));
    assert!(world.published.is_empty(), "no reset, the chain is known");

    world.pass(1);
    assert_eq!(world.message(&farther), Answer::Accepted);
}

#[test]
fn a_forged_message_far_ahead_costs_the_try_and_resets_nothing() {
    let (mut world, mut device) = begun();
    let far = after_a_gap(&world, &mut device, 5000);
    let mut forged = far.clone();
    forged.last_mut().into_iter().for_each(|byte| *byte ^= 1);
    assert_eq!(world.message(&forged), REFUSED);
    assert_eq!(world.message(&forged), REFUSED);
    let stats = world.bridge.take_stats();
    assert_eq!((stats.long_tries, stats.forged, stats.too_far), (1, 1, 1));
    assert!(world.published.is_empty());
    world.pass(10 * MINUTE_MS);
    assert_eq!(world.message(&far), Answer::Accepted);
}

#[test]
fn a_device_whose_chain_is_a_day_old_is_sent_alive_once_an_hour() {
    let (mut world, mut device) = World::greeted();
    world.pass(DAY_MS - 1);
    assert!(world.published.is_empty());
    world.pass(1);
    let alive = world.take_message();
    assert_eq!(device.hear(&alive, world.now.unix), Heard::Setting("alive".to_owned()));
    world.pass(HOUR_MS - 1);
    assert!(world.published.is_empty());
    world.pass(1);
    world.take_message();

    // A step of the device begins another day.
    let stepped = device.reading(b"x", world.now.unix);
    assert_eq!(world.message(&stepped), Answer::Accepted);
    world.pass(DAY_MS - 1);
    assert!(world.published.is_empty());
    world.pass(1);
    world.take_message();
}

#[test]
fn a_device_whose_chain_has_10000_messages_is_sent_alive_once_an_hour() {
    let (mut world, mut device) = begun();
    for _ in 1..10_000 {
        let reading = device.reading(b"x", world.now.unix);
        assert_eq!(world.message(&reading), Answer::Accepted);
    }
    assert!(world.published.is_empty(), "what was sealed within the hour serves");
    world.pass(HOUR_MS);
    assert_eq!(device.hear(&world.take_message(), world.now.unix), Heard::Setting("alive".to_owned()));
}

#[test]
fn a_command_serves_as_alive() {
    let (mut world, _) = World::greeted();
    world.pass(DAY_MS - MINUTE_MS);
    world.command(1, 7 * 24 * 3600);
    world.take_message();
    world.pass(HOUR_MS - 1);
    assert!(world.published.is_empty());
    world.pass(1);
    world.take_message();
}

#[test]
fn a_device_that_is_away_is_sent_alive_when_it_is_back() {
    let (mut world, _) = World::greeted();
    world.disconnect();
    world.pass(2 * DAY_MS);
    assert!(world.published.is_empty());
    world.connect();
    world.take_message();
}

#[test]
fn a_silent_device_is_sent_alive_until_32_messages_are_unanswered_and_commands_all_the_same() {
    let (mut world, _) = World::greeted();
    world.pass(DAY_MS);
    for _ in 0..100 {
        world.pass(HOUR_MS);
    }
    assert_eq!(world.published.len(), 31, "and the hello before them");
    world.published.clear();
    world.command(1, 60);
    world.take_message();
}

#[test]
fn the_keys_of_a_silent_device_leave_the_disk_after_a_day() {
    let (mut world, mut device) = World::greeted();
    let late = device.reading(b"late", world.now.unix);
    let gap = after_a_gap(&world, &mut device, 3);
    assert_eq!(world.message(&gap), Answer::Accepted);
    let whole_len = |world: &World| world.kept.stored.present.as_ref().expect("a session").whole.len();
    let with_keys = whole_len(&world);
    // Over a restart too: the device is read again as soon as it is here.
    world.pass(DAY_MS / 2);
    world.restart();
    world.pass(DAY_MS / 2);
    assert_eq!(whole_len(&world), with_keys);
    world.pass(1000);
    assert_eq!(whole_len(&world), with_keys - 3 * 48);
    assert_eq!(world.message(&late), REFUSED);
    assert_eq!(world.bridge.take_stats().too_old, 1);
}

#[test]
fn the_keys_of_a_device_that_is_away_leave_the_disk_once_it_is_looked_at() {
    let (mut world, mut device) = World::greeted();
    assert!(!holds_old_keys(&world.kept.stored, world.now.unix));
    let gap = after_a_gap(&world, &mut device, 3);
    assert_eq!(world.message(&gap), Answer::Accepted);
    let with_keys = world.kept.stored.present.as_ref().expect("a session").whole.len();
    world.restart_without_the_device();
    world.pass(DAY_MS);
    assert!(!holds_old_keys(&world.kept.stored, world.now.unix));
    world.pass(1000);
    assert!(holds_old_keys(&world.kept.stored, world.now.unix));
    world.bridge.handle_look(world.enrolled.id, world.now);
    world.settle();
    world.pass(1);
    assert_eq!(world.kept.stored.present.as_ref().expect("a session").whole.len(), with_keys - 2 * 48);
    assert!(!holds_old_keys(&world.kept.stored, world.now.unix));
}

#[test]
fn a_handshake_under_a_key_of_small_order_is_counted_and_asks_for_nothing() {
    let (mut world, mut device) = World::new();
    let bundle = world.bundle();
    device.begin(&bundle, world.now.unix);
    let init = device.reading(b"x", world.now.unix);
    let mut hostile = init.clone();
    hostile[34..66].fill(0);
    for _ in 0..10 {
        assert_eq!(world.message(&hostile), REFUSED);
    }
    assert_eq!(world.bridge.take_stats().forged, 10);
    assert_eq!(world.message(&hostile), REFUSED);
    let stats = world.bridge.take_stats();
    assert_eq!((stats.forged, stats.over_budget), (0, 1), "it cost agreements");
    assert!(world.published.is_empty() && world.kept.stored.present.is_none());
    world.pass(MINUTE_MS);
    assert_eq!(world.message(&init), Answer::Accepted, "and the bundle serves on");
}

#[test]
fn a_handshake_that_cannot_open_asks_for_another_where_an_honest_device_may_be_behind_it() {
    type Damage = fn(&mut Vec<u8>);
    const INNER: usize = 78;
    let cases: [(&str, Damage, bool); 5] = [
        ("a prekey the node has not", |init| init[66..70].fill(9), true),
        ("a tag that does not verify", |init| init.last_mut().into_iter().for_each(|byte| *byte ^= 1), true),
        (
            "a number beyond the jump",
            |init| init[INNER + 37..INNER + 41].copy_from_slice(&2049_u32.to_be_bytes()),
            true,
        ),
        ("a ratchet key that no honest side has", |init| init[INNER + 32] |= 0x80, false),
        ("another identity", |init| init[2..34].fill(1), false),
    ];
    for (what, damage, asks) in cases {
        let (mut world, mut device) = World::new();
        let bundle = world.bundle();
        device.begin(&bundle, world.now.unix);
        let init = device.reading(b"x", world.now.unix);
        let mut damaged = init.clone();
        damage(&mut damaged);
        assert_eq!(world.message(&damaged), REFUSED, "{what}");
        assert_eq!(world.published.len(), usize::from(asks), "{what}");
        world.published.clear();
        assert_eq!(world.message(&init), Answer::Accepted, "{what}: nothing has moved");
    }
}

/// The peer record with its next one-time id and last counter set.
fn with_ids(peer: &Bytes, last_counter: u32, next_one_time_id: u32) -> Bytes {
    let mut bytes = peer.to_vec();
    bytes[1..5].copy_from_slice(&last_counter.to_be_bytes());
    bytes[5..9].copy_from_slice(&next_one_time_id.to_be_bytes());
    bytes.into()
}

#[test]
fn the_last_one_time_prekey_serves_and_then_there_is_none() {
    let (mut world, mut device) = World::greeted();
    let peer = world.kept.stored.peer.clone().expect("a record");
    world.kept.stored.peer = Some(with_ids(&peer, 1, u32::MAX - 1));
    world.restart();
    let bundle = world.bundle();
    device.begin(&bundle, world.now.unix);
    let init = device.reading(b"last", world.now.unix);
    assert_eq!(world.message(&init), Answer::Accepted);
    world.published.clear();
    let none = world.deliver(UplinkRow::PrekeysGet, &Device::asks(device.suite));
    assert_eq!(none, Answer::Refused(Refusal::QuotaExceeded));
    let on = device.reading(b"on", world.now.unix);
    assert_eq!(world.message(&on), Answer::Accepted, "the session goes on");
}

#[test]
fn after_the_last_handshake_counter_there_is_no_new_session_and_the_old_one_goes_on() {
    let (mut world, mut device) = World::greeted();
    let peer = world.kept.stored.peer.clone().expect("a record");
    world.kept.stored.peer = Some(with_ids(&peer, u32::MAX, 2));
    world.restart();
    let bundle = world.bundle();
    assert_eq!(device.try_begin(&bundle, world.now.unix), Err(unhidra_e2ee::handshake::InitiateError::CounterSpent));
    let on = device.reading(b"on", world.now.unix);
    assert_eq!(world.message(&on), Answer::Accepted);
}

/// Those who may not leave memory hide nobody who may, however many they are.
#[test]
fn devices_that_are_away_leave_memory_however_many_are_here() {
    let (mut world, _) = World::new();
    let named = |kind: &str, n: u64| DeviceId::parse(&format!("{kind}-{n}")).expect("an id");
    for n in 0..200 {
        world.bridge.handle_connected(named("here", n), Connection::Local(100 + n));
        world.settle();
    }
    let look = |world: &mut World, n| {
        world.bridge.handle_look(named("away", n), world.now);
        world.settle();
    };
    for n in 0..1000 {
        look(&mut world, n);
        // All are looked at once in four loads.
        assert!(world.bridge.len() <= 210, "{} in memory, 201 of them connected", world.bridge.len());
    }
    for n in 0..200 {
        world.bridge.handle_disconnected(named("here", n), Connection::Local(100 + n), world.now, &mut world.rng);
    }
    for n in 1000..1010 {
        look(&mut world, n);
    }
    assert!(world.bridge.len() <= 10, "{} in memory", world.bridge.len());
}
