//! What happens when nothing goes wrong, and when a message comes twice.

use unhidra_bridge::{Outcome, begins};
use unhidra_core::command::CommandState;
use unhidra_core::delivery::{Answer, DownlinkRow, Refusal, UplinkRow};
use unhidra_e2ee::plaintext::Status;

use crate::device::Heard;
use crate::ledger::World;

const REFUSED: Answer = Answer::Refused(Refusal::DoesNotOpen);

#[test]
fn first_contact_makes_one_row_and_is_answered_with_hello() {
    let (mut world, mut device) = World::greeted();
    assert_eq!(world.shown(), [b"first"]);
    assert!(world.kept.prekeys.is_empty(), "the one-time prekey went with the handshake");
    let second = device.reading(b"second", world.now.unix);
    assert_eq!(second[0], 0x01, "a plain message, the head being confirmed");
    assert_eq!(world.message(&second), Answer::Accepted);
    assert_eq!(world.shown(), [&b"first"[..], b"second"]);
    assert!(world.published.is_empty(), "a plain message needs no answer");
}

#[test]
fn a_bundle_is_the_same_until_a_handshake_opens_with_it() {
    let (mut world, mut device) = World::new();
    let first = world.bundle();
    let again = world.bundle();
    assert_eq!(first, again);
    device.begin(&again, world.now.unix);
    let message = device.reading(b"x", world.now.unix);
    world.message(&message);
    world.published.clear();
    assert_ne!(world.bundle(), first, "and a new one after it");
}

#[test]
fn a_head_repeated_is_the_same_session_and_one_hello_a_minute() {
    let (mut world, mut device) = World::new();
    let bundle = world.bundle();
    device.begin(&bundle, world.now.unix);
    for body in [b"a", b"b", b"c"] {
        let init = device.reading(body, world.now.unix);
        assert_eq!(init[0], 0x02, "a head, nothing having been answered");
        assert_eq!(world.message(&init), Answer::Accepted);
    }
    assert_eq!(world.shown(), [b"a", b"b", b"c"]);
    assert_eq!(world.published.len(), 1, "one hello");
    world.pass(60_000);
    let init = device.reading(b"d", world.now.unix);
    assert_eq!(world.message(&init), Answer::Accepted);
    assert_eq!(world.published.len(), 2, "another after a minute");
}

#[test]
fn what_begins_a_session_is_told_from_what_goes_on_in_one() {
    let (mut world, mut device) = World::new();
    let bundle = world.bundle();
    device.begin(&bundle, world.now.unix);
    let init = device.reading(b"first", world.now.unix);
    assert!(begins(&world.delivery(UplinkRow::Messages, &init)));
    assert!(begins(&world.delivery(UplinkRow::PrekeysGet, b"anything")));
    let (world, mut device) = World::greeted();
    let plain = device.reading(b"second", world.now.unix);
    assert!(!begins(&world.delivery(UplinkRow::Messages, &plain)));
    assert!(!begins(&world.delivery(UplinkRow::Messages, &init[..20])), "what is none costs nothing");
}

#[test]
fn the_same_publish_again_is_acknowledged_and_makes_no_row() {
    let (mut world, mut device) = World::new();
    let bundle = world.bundle();
    device.begin(&bundle, world.now.unix);
    let init = device.reading(b"a", world.now.unix);
    assert_eq!((world.message(&init), world.message(&init)), (Answer::Accepted, Answer::Accepted));
    world.restart();
    assert_eq!(world.message(&init), Answer::Accepted, "known by its row after a restart");
    assert_eq!(world.kept.rows.len(), 1);
}

#[test]
fn a_reading_sealed_anew_is_shown_once() {
    let (mut world, mut device) = World::greeted();
    let (first, again) =
        (device.reading_again(77, b"x", world.now.unix), device.reading_again(77, b"x", world.now.unix));
    assert_eq!((world.message(&first), world.message(&again)), (Answer::Accepted, Answer::Accepted));
    assert_eq!(world.shown(), [&b"first"[..], b"x"]);
    assert_eq!(world.kept.rows.len(), 3, "its tag is kept all the same");
}

#[test]
fn a_session_goes_on_after_a_restart_both_ways() {
    let (mut world, mut device) = World::greeted();
    for n in 0..3_u8 {
        let message = device.reading(&[n], world.now.unix);
        assert_eq!(world.message(&message), Answer::Accepted);
        world.restart();
    }
    let id = world.command(1, 60);
    let sealed = world.take_message();
    assert_eq!(device.hear(&sealed, world.now.unix), Heard::Command(id, "reboot".into(), b"now".to_vec()));
    world.restart();
    assert_eq!(world.take_message().len(), sealed.len(), "sent and not known to be delivered: sealed anew");
}

#[test]
fn a_command_is_accepted_sent_delivered_and_done() {
    let (mut world, mut device) = World::greeted();
    let id = world.command(1, 60);
    let (_, ticket, sealed) = world.published.remove(0);
    assert!(matches!(device.hear(&sealed, world.now.unix), Heard::Command(..)));
    world.broker_says(ticket, Outcome::Delivered);
    let receipt = device.receipt(id, Status::Done, world.now.unix);
    assert_eq!(world.message(&receipt), Answer::Accepted);
    let states = [CommandState::Accepted, CommandState::Sent, CommandState::Delivered, CommandState::Done];
    assert_eq!(world.changed, states.map(|state| (id, state)));
    assert_eq!(world.kept.commands[&id].state(), states[3]);
}

#[test]
fn a_command_waits_for_the_device_and_for_its_session() {
    let (mut world, mut device) = World::new();
    let id = world.command(1, 60);
    assert!(world.published.is_empty(), "there is no session to seal in");
    let bundle = world.bundle();
    device.begin(&bundle, world.now.unix);
    let init = device.reading(b"a", world.now.unix);
    world.message(&init);
    let sealed = world.take_message();
    assert!(matches!(device.hear(&sealed, world.now.unix), Heard::Command(heard, ..) if heard == id));
    assert!(device.sessions.present().is_some_and(|s| s.is_confirmed()), "a command serves as hello");
}

#[test]
fn more_commands_than_the_bound_are_refused_and_old_ones_expire() {
    let (mut world, _) = World::new();
    let (a, b) = (world.command(1, 5), world.command(2, 60));
    let refused = world.command(3, 60);
    assert!(!world.kept.commands.contains_key(&refused));
    world.pass(5_000);
    assert_eq!(world.kept.commands[&a].state(), CommandState::Expired);
    assert_eq!(world.kept.commands[&b].state(), CommandState::Accepted);
    let fits = world.command(4, 60);
    assert!(world.kept.commands.contains_key(&fits));
}

#[test]
fn garbage_and_what_a_device_does_not_send_are_refused() {
    let (mut world, _) = World::greeted();
    for bytes in [&b""[..], b"\x01", b"hello", &[0x03; 198], &[0x04; 98], &[0xFF; 200]] {
        assert_eq!(world.message(bytes), REFUSED, "{bytes:?}");
    }
    for bytes in [&b""[..], &[1; 16], &[1; 18], &[2; 17], &[7; 17]] {
        assert_eq!(world.deliver(UplinkRow::PrekeysGet, bytes), REFUSED, "{bytes:?}");
    }
    assert_eq!((world.shown().len(), world.published.len()), (1, 0));
}

#[test]
fn the_old_session_is_deleted_after_its_day() {
    let (mut world, mut device) = World::greeted();
    let bundle = world.bundle();
    device.begin(&bundle, world.now.unix);
    let init = device.reading(b"b", world.now.unix);
    assert_eq!(world.message(&init), Answer::Accepted);
    assert!(world.kept.stored.previous.is_some());
    world.pass(24 * 3_600_000);
    assert!(world.kept.stored.previous.is_some(), "for a day it receives");
    world.pass(1);
    assert!(world.kept.stored.previous.is_none());
    assert!(world.kept.stored.present.is_some());
    assert!(world.published.iter().all(|(row, ..)| *row == DownlinkRow::Commands));
}
