//! A device behind an outside broker.

use std::time::Duration;

use unhidra_bridge::Connection;
use unhidra_bridge::Outcome;
use unhidra_bridge::upstream::{Reach, UpstreamId, Via};
use unhidra_core::command::CommandState;
use unhidra_core::delivery::{Answer, DownlinkRow, UplinkRow};

use crate::device::{Device, Heard};
use crate::ledger::{HERE, World};

const FACTORY: Via = Via { upstream: UpstreamId(0), silent_after: Duration::from_secs(900) };
const HARBOUR: Via = Via { upstream: UpstreamId(1), silent_after: Duration::from_secs(900) };

/// A device that has begun its session behind an outside broker and has no connection.
fn behind() -> (World, Device) {
    let (mut world, mut device) = World::new();
    world.disconnect();
    let get = Device::asks(world.enrolled.suite);
    assert_eq!(world.outside(FACTORY, UplinkRow::PrekeysGet, &get), Answer::Accepted);
    assert_eq!(world.ways, [Connection::Outside(FACTORY.upstream)], "what answers goes back the same way");
    let (row, _, bundle) = world.published.remove(0);
    assert_eq!(row, DownlinkRow::Prekeys);
    device.begin(&bundle, world.now.unix);
    let first = device.reading(b"first", world.now.unix);
    assert_eq!(world.outside(FACTORY, UplinkRow::Messages, &first), Answer::Accepted);
    let hello = world.take_message();
    assert_eq!(device.hear(&hello, world.now.unix), Heard::hello());
    assert_eq!(world.bridge.take_presence(), [(device.id, true), (device.id, false), (device.id, true)]);
    (world, device)
}

fn say(world: &mut World, device: &mut Device, via: Via, body: &[u8]) -> Vec<u8> {
    let message = device.reading(body, world.now.unix);
    assert_eq!(world.outside(via, UplinkRow::Messages, &message), Answer::Accepted);
    message
}

#[test]
fn a_request_for_a_bundle_alone_makes_nobody_count_as_there() {
    let (mut world, device) = World::new();
    world.disconnect();
    let get = Device::asks(world.enrolled.suite);
    assert_eq!(world.outside(FACTORY, UplinkRow::PrekeysGet, &get), Answer::Accepted);
    assert_eq!(world.bridge.take_presence(), [(device.id, true), (device.id, false)], "its connection alone");
}

#[test]
fn commands_go_where_the_device_was_last_heard_and_a_puback_there_is_that_brokers_word() {
    let (mut world, mut device) = behind();
    let id = world.command(1, 3600);
    assert_eq!(world.ways.last(), Some(&Connection::Outside(FACTORY.upstream)));
    let (_, ticket, sealed) = world.published.remove(0);
    world.broker_says(ticket, Outcome::Relayed);
    assert_eq!(world.changed.last(), Some(&(id, CommandState::Sent)));
    assert!(matches!(device.hear(&sealed, world.now.unix), Heard::Command(heard, ..) if heard == id));
    say(&mut world, &mut device, HARBOUR, b"elsewhere");
    assert_eq!(world.ways.last(), Some(&Connection::Outside(HARBOUR.upstream)), "and again, by the same id");
    let (_, _, again) = world.published.remove(0);
    assert!(matches!(device.hear(&again, world.now.unix), Heard::Command(heard, ..) if heard == id));
}

#[test]
fn a_repeat_or_a_forgery_by_another_broker_draws_no_command_to_it() {
    let (mut world, mut device) = behind();
    let old = say(&mut world, &mut device, FACTORY, b"second");
    let mut forged = device.reading(b"third", world.now.unix);
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(world.outside(HARBOUR, UplinkRow::Messages, &old), Answer::Accepted, "a duplicate");
    assert!(matches!(world.outside(HARBOUR, UplinkRow::Messages, &forged), Answer::Refused(_)));
    world.command(1, 3600);
    assert_eq!(world.ways.last(), Some(&Connection::Outside(FACTORY.upstream)));
    let counted = world.bridge.take_outside_stats();
    let [factory, harbour] = [FACTORY, HARBOUR].map(|via| counted[&via.upstream]);
    assert_eq!((factory.opened, factory.duplicates, factory.forged), (2, 0, 0));
    assert_eq!((harbour.opened, harbour.duplicates, harbour.forged), (0, 1, 1));
}

#[test]
fn a_connection_of_its_own_goes_before_an_outside_broker() {
    let (mut world, mut device) = behind();
    world.connect();
    world.command(1, 3600);
    assert!(matches!(world.ways.last(), Some(Connection::Local(_))));
    world.disconnect();
    assert_eq!(world.ways.last(), Some(&Connection::Outside(FACTORY.upstream)), "what had no PUBACK goes there");
    say(&mut world, &mut device, FACTORY, b"still there");
    assert_eq!(world.bridge.take_presence(), [], "it was here all the time");
}

#[test]
fn a_device_that_is_silent_for_long_gets_nothing_and_everything_when_it_is_heard_again() {
    let (mut world, mut device) = behind();
    world.command(1, 7200);
    let (_, ticket, _) = world.published.remove(0);
    world.broker_says(ticket, Outcome::Relayed);
    world.pass(600_000);
    say(&mut world, &mut device, FACTORY, b"there");
    let (_, ticket, _) = world.published.remove(0);
    world.broker_says(ticket, Outcome::Relayed);
    world.pass(899_999);
    assert_eq!(world.bridge.take_presence(), []);
    world.pass(1);
    assert_eq!(world.bridge.take_presence(), [(device.id, false)]);
    world.command(2, 7200);
    assert!(world.published.is_empty(), "nobody knows where it is");
    say(&mut world, &mut device, FACTORY, b"back");
    assert_eq!(world.bridge.take_presence(), [(device.id, true)]);
    let commands = world.published.iter().filter(|(row, ..)| *row == DownlinkRow::Commands).count();
    assert_eq!(commands, 2, "both: what that broker was given may have been dropped");
}

/// Told apart, the two ways in could overtake one another, and a device that is here pass for away.
#[test]
fn who_falls_silent_and_connects_is_told_of_in_this_order() {
    let (mut world, device) = behind();
    world.pass(900_000);
    world.connect();
    assert_eq!(world.bridge.take_presence(), [(device.id, false), (device.id, true)]);
}

#[test]
fn a_broker_that_forgets_its_sessions_leaves_nothing_to_be_looked_at() {
    let (mut world, mut device) = behind();
    for _ in 0..3 {
        world.pass(1_000);
        say(&mut world, &mut device, FACTORY, b"there");
        world.reach(FACTORY.upstream, Reach::Anew);
        assert_eq!(world.bridge.poll_timeout(), None);
    }
}

#[test]
fn nothing_is_sealed_for_a_broker_that_is_not_reached() {
    let (mut world, mut device) = behind();
    world.reach(FACTORY.upstream, Reach::Lost);
    world.command(1, 3600);
    assert!(world.published.is_empty());
    world.reach(FACTORY.upstream, Reach::Resumed);
    assert_eq!(world.published.len(), 1);
    let (_, ticket, _) = world.published.remove(0);
    world.broker_says(ticket, Outcome::Relayed);
    world.reach(FACTORY.upstream, Reach::Anew);
    let gone = [(device.id, false)];
    assert_eq!(world.bridge.take_presence(), gone, "its session there is gone, and what it had with it");
    say(&mut world, &mut device, FACTORY, b"still there");
    assert_eq!(world.published.len(), 1, "the command goes again");
}

#[test]
fn what_a_broker_refuses_or_swallows_goes_again_once_a_minute_while_the_device_speaks() {
    let (mut world, mut device) = behind();
    world.command(1, 3600);
    let (_, ticket, _) = world.published.remove(0);
    world.broker_says(ticket, Outcome::Declined);
    say(&mut world, &mut device, FACTORY, b"at once");
    assert!(world.published.is_empty(), "not for every message");
    for _ in 0..3 {
        world.pass(60_000);
        say(&mut world, &mut device, FACTORY, b"later");
        assert_eq!(world.published.len(), 1);
        let (_, ticket, _) = world.published.remove(0);
        world.broker_says(ticket, Outcome::Relayed);
    }
}

/// A setting has no receipt: that a broker has taken it says little of the device.
#[test]
fn a_setting_that_a_broker_has_taken_goes_again_later_and_at_once_where_its_session_there_is_gone() {
    let (mut world, mut device) = behind();
    let relayed = |world: &mut World| {
        let (_, ticket, _) = world.published.remove(0);
        world.broker_says(ticket, Outcome::Relayed);
    };
    world.set("interval", Some("5")).expect("taken");
    relayed(&mut world);
    say(&mut world, &mut device, FACTORY, b"at once");
    assert!(world.published.is_empty());
    world.pass(600_000);
    say(&mut world, &mut device, FACTORY, b"ten minutes later");
    relayed(&mut world);
    world.reach(FACTORY.upstream, Reach::Anew);
    assert!(world.published.is_empty(), "nobody knows where it is");
    say(&mut world, &mut device, FACTORY, b"still there");
    relayed(&mut world);
    world.connect();
    let (_, ticket, _) = world.published.remove(0);
    world.broker_says(ticket, Outcome::Delivered);
    say(&mut world, &mut device, FACTORY, b"and there again");
    world.pass(24 * 3_600_000 - 1);
    assert!(world.published.is_empty(), "it has said so itself");
}

/// The store does not say on whose word a setting was acknowledged.
#[test]
fn a_setting_that_a_broker_has_taken_goes_again_also_where_its_device_was_read_anew() {
    let (mut world, mut device) = behind();
    world.set("interval", Some("5")).expect("taken");
    let (_, ticket, _) = world.published.remove(0);
    world.broker_says(ticket, Outcome::Relayed);
    world.restart_without_the_device();
    say(&mut world, &mut device, FACTORY, b"heard again");
    let (_, ticket, _) = world.published.remove(0);
    world.broker_says(ticket, Outcome::Relayed);
    say(&mut world, &mut device, FACTORY, b"and again");
    assert!(world.published.is_empty(), "once");
}

/// A connection to the node's own broker that is gone before its end is told.
#[test]
fn what_was_sealed_for_a_connection_here_waits_for_another() {
    let (mut world, _) = World::greeted();
    let id = world.enrolled.id;
    world.command(1, 3600);
    let (_, ticket, _) = world.published.remove(0);
    world.bridge.handle_unreached(id, ticket, HERE, world.now, &mut world.rng);
    world.settle();
    assert!(world.published.is_empty());
    world.disconnect();
    world.connect();
    assert_eq!(world.published.len(), 1, "by the next");
}

/// What could not leave has not been refused. And nothing is sealed for the same way until it is there again: that would
/// be so with every commit.
#[test]
fn what_was_sealed_for_a_connection_that_is_gone_leaves_by_the_next() {
    let (mut world, mut device) = behind();
    world.set("interval", Some("5")).expect("taken");
    let id = world.command(1, 3600);
    let enrolled = world.enrolled.id;
    for _ in 0..2 {
        let (_, ticket, _) = world.published.remove(0);
        world.bridge.handle_unreached(
            enrolled,
            ticket,
            Connection::Outside(FACTORY.upstream),
            world.now,
            &mut world.rng,
        );
        world.settle();
    }
    say(&mut world, &mut device, FACTORY, b"on its way since before");
    assert!(world.published.is_empty(), "{} for a way that is gone", world.published.len());
    world.reach(FACTORY.upstream, Reach::Resumed);
    world.settle();
    assert_eq!(world.published.len(), 2, "both, at once");
    let heard: Vec<Heard> = world.published.iter().map(|(_, _, sealed)| device.hear(sealed, world.now.unix)).collect();
    assert!(heard.iter().any(|heard| matches!(heard, Heard::Command(heard, ..) if *heard == id)));
}
