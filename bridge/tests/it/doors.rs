//! What a forger behind an outside broker spends is that broker's, and nobody else's.

use std::time::Duration;

use unhidra_bridge::Connection;
use unhidra_bridge::upstream::{UpstreamId, Via};
use unhidra_core::delivery::{Answer, DownlinkRow, Refusal, UplinkRow};

use crate::device::Device;
use crate::ledger::World;

const REFUSED: Answer = Answer::Refused(Refusal::DoesNotOpen);
const FACTORY: Via = Via { upstream: UpstreamId(0), silent_after: Duration::from_secs(900) };
const HARBOUR: Via = Via { upstream: UpstreamId(1), silent_after: Duration::from_secs(900) };
const HOUR_MS: u64 = 3600 * 1000;

/// By what way a message comes.
#[derive(Clone, Copy, Debug)]
enum By {
    Front,
    Outside(Via),
}

const DOORS: [By; 3] = [By::Front, By::Outside(FACTORY), By::Outside(HARBOUR)];

fn say(world: &mut World, by: By, message: &[u8]) -> Answer {
    match by {
        By::Front => world.message(message),
        By::Outside(via) => world.outside(via, UplinkRow::Messages, message),
    }
}

/// A message of the device's under a key that nobody knows.
fn unknown(device: &mut Device, world: &World, key: u8) -> Vec<u8> {
    let mut message = device.reading(b"x", world.now.unix);
    message[1..33].fill(key);
    message
}

#[test]
fn failed_agreements_of_one_door_leave_the_others_theirs() {
    for honest in [By::Front, By::Outside(HARBOUR)] {
        let (mut world, mut device) = World::greeted();
        for key in 1..=11 {
            let forged = unknown(&mut device, &world, key);
            assert_eq!(say(&mut world, By::Outside(FACTORY), &forged), REFUSED);
        }
        world.published.clear();
        let bundle = world.bundle();
        device.begin(&bundle, world.now.unix);
        let init = device.reading(b"anew", world.now.unix);
        let mut forged = init.clone();
        // Its ephemeral key, of small order.
        forged[34..66].fill(0);
        for _ in 1..=11 {
            assert_eq!(say(&mut world, By::Outside(FACTORY), &forged), REFUSED);
        }
        assert_eq!(world.bridge.take_stats().over_budget, 2, "the forger has spent what he has of either");
        assert_eq!(say(&mut world, By::Outside(FACTORY), &init), REFUSED, "his broker is not heard");
        assert_eq!(world.bridge.take_stats().over_budget, 1);
        assert_eq!(say(&mut world, honest, &init), Answer::Accepted, "{honest:?}");
    }
}

#[test]
fn a_long_try_of_one_door_leaves_the_others_theirs() {
    for honest in [By::Front, By::Outside(HARBOUR)] {
        let (mut world, mut device) = World::new();
        let bundle = world.bundle();
        device.begin(&bundle, world.now.unix);
        let first = device.reading(b"first", world.now.unix);
        assert_eq!(world.message(&first), Answer::Accepted);
        let far = (0..5000).map(|_| device.reading(b"far", world.now.unix)).last().expect("many");
        let mut forged = far.clone();
        *forged.last_mut().expect("a tag") ^= 1;
        assert_eq!(say(&mut world, By::Outside(FACTORY), &forged), REFUSED);
        assert_eq!(say(&mut world, By::Outside(FACTORY), &far), REFUSED, "one in ten minutes");
        let stats = world.bridge.take_stats();
        assert_eq!((stats.long_tries, stats.too_far), (1, 1));
        assert_eq!(say(&mut world, honest, &far), Answer::Accepted, "{honest:?}");
    }
}

#[test]
fn a_reset_by_one_door_leaves_the_others_their_hour_and_a_restart_gives_none_back() {
    let (mut world, mut device) = World::greeted();
    for by in DOORS {
        let message = unknown(&mut device, &world, 9);
        assert_eq!(say(&mut world, by, &message), REFUSED);
        assert_eq!(world.published.len(), 1, "{by:?}: asked for a new session");
        let way = *world.ways.last().expect("it went somewhere");
        match by {
            By::Front => assert!(matches!(way, Connection::Local(_))),
            By::Outside(via) => assert_eq!(way, Connection::Outside(via.upstream)),
        }
        world.published.clear();
        assert_eq!(say(&mut world, by, &message), REFUSED);
        assert!(world.published.is_empty(), "{by:?}: once an hour");
    }
    world.restart();
    for by in DOORS {
        let message = unknown(&mut device, &world, 9);
        assert_eq!(say(&mut world, by, &message), REFUSED);
        assert!(world.published.is_empty(), "{by:?}: an hour stays an hour over a restart");
    }
}

/// A ResetRequest that is owed names a ratchet key. A forger's names one of his making, and a device
/// obeys only its own.
#[test]
fn what_is_owed_to_a_forger_is_not_sent_to_the_device() {
    let (mut world, mut device) = World::greeted();
    for key in [1, 2] {
        let forged = unknown(&mut device, &world, key);
        assert_eq!(say(&mut world, By::Outside(FACTORY), &forged), REFUSED);
    }
    assert_eq!(world.published.len(), 1, "the second is owed");
    world.published.clear();
    world.pass(HOUR_MS);
    assert!(world.published.is_empty(), "not by the device's own connection");
    let honest = unknown(&mut device, &world, 3);
    assert_eq!(say(&mut world, By::Front, &honest), REFUSED);
    let (row, _, reset) = world.published.remove(0);
    assert_eq!((row, &reset[2..34]), (DownlinkRow::Commands, &honest[1..33]), "the device's own hour is free");
}

/// Else whoever floods at an outside broker would stop the node for all.
#[test]
fn what_one_door_has_wait_for_records_fills_no_other() {
    let (mut world, mut device) = World::greeted();
    let full =
        |world: &World| [None, Some(FACTORY.upstream), Some(HARBOUR.upstream)].map(|door| world.bridge.is_full(door));
    let max = crate::ledger::config().parked_max;
    world.parks(FACTORY, max - 1);
    assert_eq!(full(&world), [false; 3]);
    world.parks(FACTORY, 1);
    assert_eq!(full(&world), [false, true, false]);
    let reading = device.reading(b"21.5", world.now.unix);
    assert_eq!(world.message(&reading), Answer::Accepted);
    world.bridge.forget();
    assert_eq!(full(&world), [false; 3]);
}

#[test]
fn what_waits_no_more_for_records_leaves_its_door_the_room() {
    let (mut world, mut device) = World::greeted();
    let reading = device.reading(b"21.5", world.now.unix);
    world.restart_without_the_device();
    for _ in 0..crate::ledger::config().parked_max {
        let delivery = world.delivery(UplinkRow::Messages, &reading);
        world.comes(FACTORY, delivery);
    }
    assert!(world.bridge.is_full(Some(FACTORY.upstream)));
    world.settle();
    assert!(!world.bridge.is_full(Some(FACTORY.upstream)));
}
