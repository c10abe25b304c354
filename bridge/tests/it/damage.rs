//! A device whose records the disk has damaged.

use std::time::Duration;

use unhidra_bridge::Connection;
use unhidra_bridge::upstream::{UpstreamId, Via};
use unhidra_core::delivery::{Answer, Refusal, UplinkRow};
use unhidra_core::ids::DeviceId;

use crate::device::Heard;
use crate::ledger::World;

const REFUSED: Answer = Answer::Refused(Refusal::DoesNotOpen);
const FACTORY: Via = Via { upstream: UpstreamId(0), silent_after: Duration::from_secs(900) };

/// e2ee/PROTOCOL.md section 7: a session the node does not know is answered with a ResetRequest of
/// reason 1. Sessions that are not of the newest row are not known.
#[test]
fn a_device_whose_sessions_are_not_of_its_newest_row_is_asked_for_another_with_reason_1() {
    let (mut world, mut device) = World::greeted();
    let before = device.reading(b"before", world.now.unix);
    assert_eq!(world.message(&before), Answer::Accepted);
    world.kept.stored.stale = true;
    world.restart();
    let behind = device.reading(b"behind", world.now.unix);
    assert_eq!(world.message(&behind), REFUSED);
    let stats = world.bridge.take_stats();
    assert_eq!((stats.stale, stats.unknown, stats.resets), (1, 1, 1));
    let reset = world.take_message();
    assert_eq!(reset[..2], [4, 1], "a ResetRequest, unknown key");
    assert_eq!(reset[2..34], behind[1..33], "it names the key the device sends under");
    assert_eq!(device.hear(&reset, world.now.unix), Heard::Reset(true));
    let bundle = world.bundle();
    device.begin(&bundle, world.now.unix);
    let anew = device.reading(b"anew", world.now.unix);
    assert_eq!(world.message(&anew), Answer::Accepted);
    assert!(!world.kept.stored.stale && world.kept.stored.previous.is_none(), "what was stale is gone");
    assert_eq!(world.message(&before), Answer::Accepted, "its row is known, and it is a repeat");
    assert_eq!(world.shown(), [&b"first"[..], b"before", b"anew"]);
}

#[test]
fn damaged_records_are_refused_behind_an_outside_broker_and_given_back_at_the_front_door() {
    let (mut world, mut device) = World::greeted();
    world.damaged = true;
    world.restart();
    world.loads = 0;
    let message = device.reading(b"x", world.now.unix);
    assert_eq!(world.outside(FACTORY, UplinkRow::Messages, &message), REFUSED, "others wait behind it");
    assert_eq!(world.message(&message), Answer::Retry, "it has its connection to itself");
    let outside = world.bridge.take_outside_stats();
    assert_eq!((outside[&FACTORY.upstream].unreadable, world.bridge.take_stats().unreadable), (1, 2));
    world.command(1, 60);
    assert!(world.told.values().all(Result::is_err), "whoever commands it hears so");
    assert_eq!(world.loads, 0, "reading them again at once mends nothing");
}

#[test]
fn damaged_records_are_read_again_after_a_minute_or_when_the_device_comes() {
    let (mut world, mut device) = World::greeted();
    world.damaged = true;
    world.restart_without_the_device();
    let message = device.reading(b"x", world.now.unix);
    assert_eq!(world.outside(FACTORY, UplinkRow::Messages, &message), REFUSED);
    world.damaged = false;
    world.pass(59_999);
    assert_eq!(world.outside(FACTORY, UplinkRow::Messages, &message), REFUSED);
    world.pass(1);
    assert_eq!(world.outside(FACTORY, UplinkRow::Messages, &message), Answer::Accepted);
    world.damaged = true;
    world.restart();
    world.damaged = false;
    world.connect();
    let message = device.reading(b"y", world.now.unix);
    assert_eq!(world.message(&message), Answer::Accepted);
}

/// What is on its way of it may be written still: read before that is known, its session would go on from an
/// earlier moment, and seal under keys that are used.
#[test]
fn a_device_that_was_left_out_of_a_draft_is_read_again_once_nothing_of_it_is_on_its_way() {
    let (mut world, mut device) = World::greeted();
    let id = world.enrolled.id;
    let message = device.reading(b"x", world.now.unix);
    world.offer(UplinkRow::Messages, &message);
    let first = world.bridge.poll_draft().expect("what it has said");
    world.offer(UplinkRow::Messages, &message);
    let second = world.bridge.poll_draft().expect("that it was a repeat");
    world.loads = 0;
    drop(first);
    world.bridge.handle_committed();
    world.bridge.handle_left_out(id, world.now);
    assert_eq!(world.bridge.damaged(), 1);
    world.now.timer = world.now.timer.saturating_add(Duration::from_secs(60));
    world.bridge.handle_connected(id, Connection::Local(9));
    world.offer(UplinkRow::Messages, &message);
    assert_eq!(world.loads, 0, "its second draft is on its way");
    drop(second);
    world.bridge.handle_committed();
    world.offer(UplinkRow::Messages, &message);
    assert_eq!((world.loads, world.bridge.damaged()), (1, 0));
    world.settle();
    assert_eq!(world.shown(), [&b"first"[..], b"x"], "once, from what the store has");
}

/// As after a store that went back: what is found then of a device is known before it comes.
#[test]
fn a_device_that_is_not_served_from_the_start_counts_and_is_read_when_it_comes() {
    let (mut world, mut device) = World::greeted();
    let id = world.enrolled.id;
    world.restart_without_the_device();
    world.loads = 0;
    world.bridge.handle_unserved(id, world.now);
    assert_eq!((world.bridge.damaged(), world.loads), (1, 0));
    world.connect();
    let message = device.reading(b"x", world.now.unix);
    assert_eq!(world.message(&message), Answer::Accepted);
    assert_eq!((world.bridge.damaged(), world.loads), (0, 1));
    world.bridge.handle_unserved(id, world.now);
    assert_eq!(world.bridge.damaged(), 0, "it is served");
}

/// Its place in memory is another's as soon as one is needed; its records are as they were.
#[test]
fn a_device_counts_as_damaged_until_its_records_read_whoever_has_its_place() {
    let (mut world, mut device) = World::greeted();
    world.damaged = true;
    world.restart_without_the_device();
    let message = device.reading(b"x", world.now.unix);
    assert_eq!(world.outside(FACTORY, UplinkRow::Messages, &message), REFUSED);
    for number in 0..20 {
        let other = DeviceId::parse(&format!("valve-{number}")).expect("an id");
        world.bridge.handle_unserved(other, world.now);
    }
    assert_eq!((world.bridge.len(), world.bridge.damaged()), (10, 21), "places, and devices");
    world.bridge.forget();
    assert_eq!((world.bridge.len(), world.bridge.damaged()), (0, 21), "a commit that failed mends nothing");
    (world.damaged, world.unreadable) = (false, Some(false));
    assert_eq!(world.outside(FACTORY, UplinkRow::Messages, &message), Answer::Retry);
    assert_eq!(world.bridge.damaged(), 21, "nobody has read them");
    world.unreadable = None;
    assert_eq!(world.outside(FACTORY, UplinkRow::Messages, &message), Answer::Accepted);
    assert_eq!(world.bridge.damaged(), 20, "whole");
    let gone = DeviceId::parse("valve-0").expect("an id");
    world.bridge.handle_changed(&gone);
    assert_eq!((world.bridge.poll_load(), world.bridge.damaged()), (Some(gone), 20), "it is looked at");
    world.bridge.handle_gone(gone, Vec::new(), world.now);
    assert_eq!(world.bridge.damaged(), 19, "who is not enrolled is not served, damaged or not");
}

/// An error of the disk may pass, and is no message's fault: nothing is refused for it at either door.
/// Only what lasts for ten minutes, while another device's records are read, is damage.
#[test]
fn records_the_disk_does_not_give_are_given_back_until_they_count_as_damaged() {
    let (mut world, mut device) = World::greeted();
    world.unreadable = Some(true);
    world.restart_without_the_device();
    let message = device.reading(b"x", world.now.unix);
    let outside = |world: &mut World| world.outside(FACTORY, UplinkRow::Messages, &message);
    assert_eq!(outside(&mut world), Answer::Retry);
    world.pass(599_999);
    assert_eq!(outside(&mut world), Answer::Retry);
    world.unreadable = Some(false);
    world.pass(1);
    assert_eq!(outside(&mut world), Answer::Retry, "it is the whole store");
    world.unreadable = Some(true);
    assert_eq!(outside(&mut world), Answer::Retry, "it begins anew");
    world.pass(600_000);
    assert_eq!(outside(&mut world), REFUSED, "it is this one, and lasts");
    assert_eq!(world.bridge.take_outside_stats()[&FACTORY.upstream].unreadable, 1);
    world.pass(60_000);
    assert_eq!(outside(&mut world), REFUSED, "it has not ended");
    world.unreadable = None;
    world.pass(60_000);
    assert_eq!(outside(&mut world), Answer::Accepted);
    // What passed is forgotten, and at the front door the connection is the device's own.
    world.unreadable = Some(true);
    world.restart();
    let message = device.reading(b"y", world.now.unix);
    assert_eq!(world.message(&message), Answer::Retry);
    world.pass(600_000);
    assert_eq!(world.message(&message), Answer::Retry);
}
