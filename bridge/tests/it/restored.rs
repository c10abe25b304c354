//! A node that was put back from a copy, and a device that had moved on (e2ee/PROTOCOL.md section 8).

use unhidra_core::command::CommandState;
use unhidra_core::delivery::{Answer, Refusal};

use crate::device::Heard;
use crate::ledger::World;

const REFUSED: Answer = Answer::Refused(Refusal::DoesNotOpen);

/// The reason in a ResetRequest.
fn reason(reset: &[u8]) -> u8 {
    assert_eq!(reset[0], 4, "a ResetRequest");
    reset[1]
}

#[test]
fn a_restored_node_seals_nothing_until_the_device_has_begun_anew() {
    let (mut world, mut device) = World::greeted();
    let copy = world.kept.clone();
    world.put_back(copy);
    let id = world.command(1, 3600);
    assert!(world.published.is_empty(), "what it would seal under may have been used");

    let reading = device.reading(b"opens", world.now.unix);
    assert_eq!(world.message(&reading), Answer::Accepted, "it receives");
    let reset = world.take_message();
    assert_eq!((reason(&reset), device.hear(&reset, world.now.unix)), (3, Heard::Reset(true)));
    let again = device.reading(b"again", world.now.unix);
    assert_eq!(world.message(&again), Answer::Accepted);
    assert!(world.published.is_empty(), "one an hour");
    world.pass(3_600_000);
    let later = device.reading(b"later", world.now.unix);
    assert_eq!(world.message(&later), Answer::Accepted);
    assert_eq!(reason(&world.take_message()), 3);

    let bundle = world.bundle();
    device.begin(&bundle, world.now.unix);
    world.command(2, 3600);
    let anew = device.reading(b"anew", world.now.unix);
    assert_eq!(world.message(&anew), Answer::Accepted);
    let command = world.take_message();
    assert!(matches!(device.hear(&command, world.now.unix), Heard::Command(..)));
    assert!(world.changed.contains(&(id, CommandState::Expired)));
    // And it is over: a restart reads no mark.
    world.restart();
    world.published.clear();
    let on = device.reading(b"on", world.now.unix);
    assert_eq!(world.message(&on), Answer::Accepted);
    assert!(!world.published.iter().any(|(_, _, bytes)| bytes[0] == 4));
}

#[test]
fn a_device_that_says_nothing_more_is_asked_again_when_the_hour_is_over() {
    let (mut world, mut device) = World::greeted();
    let copy = world.kept.clone();
    world.put_back(copy);
    for body in [b"first", b"again"] {
        let reading = device.reading(body, world.now.unix);
        assert_eq!(world.message(&reading), Answer::Accepted);
    }
    let _lost = world.take_message();
    assert!(world.published.is_empty(), "one an hour");
    world.pass(3_599_999);
    assert!(world.published.is_empty());
    world.pass(1);
    let reset = world.take_message();
    assert_eq!((reason(&reset), device.hear(&reset, world.now.unix)), (3, Heard::Reset(true)));
    world.pass(3_600_000);
    assert!(world.published.is_empty(), "once for each message that was not answered");
}

#[test]
fn a_device_that_moved_on_is_asked_for_a_new_session() {
    let (mut world, mut device) = World::greeted();
    let copy = world.kept.clone();
    // It moves on by two steps and a session.
    for body in [b"a", b"b"] {
        let reading = device.reading(body, world.now.unix);
        assert_eq!(world.message(&reading), Answer::Accepted);
        world.command(body[0], 60);
        let command = world.take_message();
        assert!(matches!(device.hear(&command, world.now.unix), Heard::Command(..)));
        world.pass(600_000);
    }
    let bundle = world.bundle();
    device.begin(&bundle, world.now.unix);
    let recorded = device.reading(b"in a session the copy does not know", world.now.unix);
    assert_eq!(world.message(&recorded), Answer::Accepted);
    let hello = world.published.pop().expect("a hello").2;
    assert_eq!(device.hear(&hello, world.now.unix), Heard::hello());

    world.put_back(copy);
    let counter = device.counter;
    let lost = device.reading(b"lost", world.now.unix);
    assert_eq!(world.message(&lost), REFUSED);
    let reset = world.take_message();
    assert_eq!((reason(&reset), device.hear(&reset, world.now.unix)), (3, Heard::Reset(true)));

    let stats = world.bridge.take_stats();
    assert_eq!(stats.sessions, 0);
    assert_eq!(world.message(&recorded), REFUSED, "no recorded handshake opens");
    assert_eq!(world.bridge.take_stats().sessions, 0);

    let bundle = world.bundle();
    device.begin(&bundle, world.now.unix);
    assert_eq!(device.counter, counter + 1, "its own counter is above the copy's");
    let anew = device.reading(b"anew", world.now.unix);
    assert_eq!(world.message(&anew), Answer::Accepted);
    assert_eq!(device.hear(&world.take_message(), world.now.unix), Heard::hello());
    assert_eq!(world.message(&recorded), REFUSED, "nor after that");
}

#[test]
fn a_bundle_of_before_the_copy_was_put_back_serves_no_more() {
    let (mut world, mut device) = World::greeted();
    let bundle = world.bundle();
    let copy = world.kept.clone();
    device.begin(&bundle, world.now.unix);
    let init = device.reading(b"x", world.now.unix);
    world.put_back(copy);
    assert_eq!(world.message(&init), REFUSED);
    assert_eq!(reason(&world.take_message()), 3);
    let fresh = world.bundle();
    assert_ne!(fresh[62..66], bundle[62..66], "another signed prekey");
    assert_ne!(fresh[98..102], bundle[98..102], "another one-time prekey");
}
