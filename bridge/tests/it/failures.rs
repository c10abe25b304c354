//! What happens when a message is forged, a commit fails, a state is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use unhidra_bridge::upstream::{UpstreamId, Via};
use unhidra_bridge::{Outcome, Stats};
use unhidra_core::command::CommandState;
use unhidra_core::delivery::{Ack, AckToken, Acknowledge, Answer, Delivery, Refusal, UplinkRow};
use unhidra_core::device::Device as Enrolled;
use unhidra_core::message::Sealed;
use unhidra_e2ee::plaintext::{Kind, Plaintext};

use crate::device::{Device, Heard};
use crate::ledger::{Kept, World};

const REFUSED: Answer = Answer::Refused(Refusal::DoesNotOpen);

#[test]
fn a_forged_message_is_refused_and_the_session_goes_on() {
    let (mut world, mut device) = World::greeted();
    let good = device.reading(b"good", world.now.unix);
    let mut forged = good.clone();
    *forged.last_mut().expect("a tag") ^= 1;
    assert_eq!(world.message(&forged), REFUSED);
    assert!(world.published.is_empty(), "a wrong tag on a known chain never resets anything");
    assert_eq!(world.message(&good), Answer::Accepted);
}

#[test]
fn a_number_used_twice_is_a_rolled_back_device_and_is_asked_for_a_new_session_once_an_hour() {
    let (mut world, mut device) = World::greeted();
    let message = device.reading(b"x", world.now.unix);
    assert_eq!(world.message(&message), Answer::Accepted);
    let mut other = message.clone();
    let tag = other.len() - 16;
    other[tag] ^= 1;
    assert_eq!(world.message(&other), REFUSED);
    let reset = world.take_message();
    assert_eq!(device.hear(&reset, world.now.unix), Heard::Reset(true));
    world.restart();
    assert_eq!(world.message(&other), REFUSED);
    assert!(world.published.is_empty(), "the hour is kept over a restart");
    world.pass(3_600_000);
    assert_eq!(world.message(&other), REFUSED);
    assert_eq!(world.published.len(), 1);
}

#[test]
fn a_node_that_lost_the_session_asks_for_another_and_the_two_go_on() {
    let (mut world, mut device) = World::greeted();
    world.kept = Kept::default();
    world.restart();
    let lost = device.reading(b"lost", world.now.unix);
    assert_eq!(world.message(&lost), REFUSED);
    let reset = world.take_message();
    assert_eq!(device.hear(&reset, world.now.unix), Heard::Reset(true));
    let bundle = world.bundle();
    device.begin(&bundle, world.now.unix);
    let anew = device.reading(b"anew", world.now.unix);
    assert_eq!(world.message(&anew), Answer::Accepted);
    assert_eq!(device.hear(&world.take_message(), world.now.unix), Heard::hello());
    assert_eq!(device.hear(&reset, world.now.unix), Heard::Reset(false), "an old request does nothing");
}

/// A connection one of whose messages nobody took.
struct GivenUp;

impl Acknowledge for GivenUp {
    fn acknowledge(&self, _: AckToken, answer: Answer) {
        assert_eq!(answer, Answer::Retry);
    }

    fn is_given_up(&self, _: AckToken) -> bool {
        true
    }
}

/// Else it would be stored before that one, which comes again on another connection.
#[test]
fn what_came_behind_a_message_that_nobody_took_is_left_and_stored_after_it() {
    let (mut world, mut device) = World::greeted();
    let [first, second] = [b"1", b"2"].map(|body| device.reading(body, world.now.unix));
    let before = world.kept.rows.len();
    let behind = |world: &World| Delivery {
        device: world.enrolled.id,
        row: UplinkRow::Messages,
        sealed: Sealed(second.clone().into()),
        received_at: world.now.unix,
        ack: Ack::new(Arc::new(GivenUp), AckToken(2)),
    };
    world.hand_in(behind(&world));
    world.settle();
    let (via, delivery) = (Via { upstream: UpstreamId(0), silent_after: Duration::from_secs(60) }, behind(&world));
    world.hand_in_through(via, delivery);
    world.settle();
    assert_eq!(world.kept.rows.len(), before);
    assert_eq!([world.message(&first), world.message(&second)], [Answer::Accepted; 2]);
    let bodies: Vec<&[u8]> = world.kept.rows[before..].iter().map(|(_, uplink)| &*uplink.body).collect();
    assert_eq!(bodies, [b"1", b"2"]);
}

/// A connection of a device, which knows from the moment of the answer whether one of its messages comes again.
#[derive(Default)]
struct Line(AtomicBool);

impl Acknowledge for Line {
    fn acknowledge(&self, _: AckToken, answer: Answer) {
        self.0.fetch_or(answer == Answer::Retry, Ordering::Relaxed);
    }

    fn is_given_up(&self, _: AckToken) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Records that did not read a moment ago may read for the next message, while drafts are on their way still.
#[test]
fn what_came_behind_a_message_whose_records_did_not_read_is_left_from_then_on() {
    let outside = Via { upstream: UpstreamId(0), silent_after: Duration::from_secs(60) };
    let damaged = |world: &mut World, is: bool| world.damaged = is;
    let unreadable = |world: &mut World, is: bool| world.unreadable = is.then_some(true);
    let unavailable = |world: &mut World, is: bool| world.unreadable = is.then_some(false);
    type Fault = fn(&mut World, bool);
    let cases: [(&str, Fault, Option<Via>); 5] = [
        ("damaged", damaged, None),
        ("unreadable", unreadable, None),
        ("unreadable", unreadable, Some(outside)),
        ("unavailable", unavailable, None),
        ("unavailable", unavailable, Some(outside)),
    ];
    for (what, fault, via) in cases {
        let (mut world, mut device) = World::greeted();
        let [first, second] = [b"1", b"2"].map(|body| device.reading(body, world.now.unix));
        let before = world.kept.rows.len();
        let line = Arc::new(Line::default());
        let hand_in = |world: &mut World, token: u64, sealed: &[u8]| {
            let delivery = Delivery {
                device: world.enrolled.id,
                row: UplinkRow::Messages,
                sealed: Sealed(sealed.to_vec().into()),
                received_at: world.now.unix,
                ack: Ack::new(line.clone(), AckToken(token)),
            };
            match via {
                Some(via) => world.hand_in_through(via, delivery),
                None => world.hand_in(delivery),
            }
        };
        fault(&mut world, true);
        world.restart_without_the_device();
        hand_in(&mut world, 1, &first);
        // Nobody has answered for it when the next message comes.
        let on_its_way = world.bridge.poll_draft();
        fault(&mut world, false);
        // Damaged records are left alone for so long.
        world.now.timer = world.now.timer.saturating_add(Duration::from_secs(60));
        hand_in(&mut world, 2, &second);
        drop(on_its_way);
        world.settle();
        assert_eq!(world.kept.rows.len(), before, "{what}, {via:?}");
        assert_eq!([world.message(&first), world.message(&second)], [Answer::Accepted; 2], "{what}, {via:?}");
        let bodies: Vec<&[u8]> = world.kept.rows[before..].iter().map(|(_, uplink)| &*uplink.body).collect();
        assert_eq!(bodies, [b"1", b"2"], "{what}, {via:?}");
    }
}

#[test]
fn what_fails_to_commit_opens_again() {
    let (mut world, mut device) = World::greeted();
    let message = device.reading(b"x", world.now.unix);
    world.offer(UplinkRow::Messages, &message);
    let draft = world.bridge.poll_draft().expect("a row");
    drop(draft);
    assert_eq!(world.answer(), Answer::Retry);
    world.bridge.forget();
    world.settle();
    assert_eq!(world.shown(), [b"first"]);
    assert_eq!(world.message(&message), Answer::Accepted, "the device sends again");
    assert_eq!(world.shown(), [&b"first"[..], b"x"]);
}

#[test]
fn a_commit_whose_failure_was_a_success_repeats_nothing() {
    let (mut world, mut device) = World::greeted();
    let message = device.reading(b"x", world.now.unix);
    assert_eq!(world.message(&message), Answer::Accepted);
    // As if the store had said that it does not know: it is there after all.
    world.bridge.forget();
    world.settle();
    assert_eq!(world.message(&message), Answer::Accepted);
    assert_eq!(world.shown(), [&b"first"[..], b"x"]);
}

#[test]
fn a_command_whose_commit_failed_is_sealed_anew_with_another_key() {
    let (mut world, mut device) = World::greeted();
    let id = world.command(1, 60);
    let (_, _, first) = world.published.remove(0);
    world.bridge.forget();
    world.settle();
    let again = world.take_message();
    assert_ne!(first[37..41], again[37..41], "another message number");
    assert!(matches!(device.hear(&again, world.now.unix), Heard::Command(heard, ..) if heard == id));
    assert!(
        matches!(device.hear(&first, world.now.unix), Heard::Command(heard, ..) if heard == id),
        "the SDK drops it"
    );
}

#[test]
fn a_publish_that_was_lost_goes_again_when_something_happens() {
    let (mut world, _) = World::greeted();
    world.command(1, 60);
    let (_, ticket, first) = world.published.remove(0);
    world.broker_says(ticket, Outcome::Lost);
    assert_ne!(world.take_message(), first);
}

#[test]
fn a_device_enrolled_with_another_key_begins_anew() {
    let (mut world, mut device) = World::greeted();
    let first = device.reading_again(1, b"the old one's", world.now.unix);
    assert_eq!(world.message(&first), Answer::Accepted);
    let old = device.reading(b"old", world.now.unix);
    let mut other = Device::new("pump-7", world.node_key(), rand::SeedableRng::seed_from_u64(99));
    let id = world.enrolled.id;
    world.enrolled =
        Arc::new(Enrolled { identity_key: *other.identity.public().as_bytes(), ..(*world.enrolled).clone() });
    assert!(world.bridge.is_settled(&id));
    world.bridge.handle_changed(&id);
    world.settle();
    assert_eq!(world.message(&old), REFUSED, "the sessions of the old key are over");
    world.published.clear();
    let bundle = world.bundle();
    other.begin(&bundle, world.now.unix);
    assert_eq!(other.counter, 1, "and its counter with them");
    // It counts its readings from 1, as the old one did.
    let anew = other.reading_again(1, b"anew", world.now.unix);
    assert_eq!(world.message(&anew), Answer::Accepted);
    assert_eq!(world.shown().last(), Some(&&b"anew"[..]), "the ids of the old one are not its own");
    // Its own are, also behind a restart.
    for _ in 0..2 {
        let again = other.reading_again(1, b"anew", world.now.unix);
        assert_eq!(world.message(&again), Answer::Accepted);
        assert_eq!(world.shown().iter().filter(|body| **body == b"anew").count(), 1);
        world.restart();
    }
}

/// It has carried no command out and has no setting; the one before it may have done and had both.
#[test]
fn a_device_that_replaces_another_is_not_taken_for_it() {
    let (mut world, _) = World::greeted();
    world.set("interval", Some("5")).expect("taken");
    let (_, ticket, _) = world.published.remove(0);
    world.broker_says(ticket, Outcome::Delivered);
    let told = world.command(1, 3600);
    let (_, ticket, _) = world.published.remove(0);
    world.broker_says(ticket, Outcome::Delivered);
    world.disconnect();
    let waits = world.command(2, 3600);

    let mut other = Device::new("pump-7", world.node_key(), rand::SeedableRng::seed_from_u64(99));
    let id = world.enrolled.id;
    world.enrolled =
        Arc::new(Enrolled { identity_key: *other.identity.public().as_bytes(), ..(*world.enrolled).clone() });
    world.bridge.handle_changed(&id);
    world.settle();
    world.connect();
    let bundle = world.bundle();
    other.begin(&bundle, world.now.unix);
    let command = &world.kept.commands[&told];
    assert_eq!(command.state(), CommandState::Failed);
    assert!(world.kept.settings.values().all(|setting| setting.acknowledged.is_none()), "not by this one");
    let first = other.reading(b"first", world.now.unix);
    assert_eq!(world.message(&first), Answer::Accepted);
    world.published.clear();
    // Its session has the number of the other's.
    world.restart();
    let second = other.reading(b"second", world.now.unix);
    assert_eq!(world.message(&second), Answer::Accepted);
    let mut heard = Vec::new();
    while !world.published.is_empty() {
        let (_, ticket, sealed) = world.published.remove(0);
        heard.push(other.hear(&sealed, world.now.unix));
        world.broker_says(ticket, Outcome::Delivered);
    }
    assert!(heard.contains(&Heard::Set("interval".to_owned(), Some(b"5".to_vec()))), "{heard:?}");
    let commands = heard.iter().filter_map(|heard| if let Heard::Command(id, ..) = heard { Some(*id) } else { None });
    assert_eq!(commands.collect::<Vec<_>>(), [waits], "{heard:?}");
}

#[test]
fn an_event_that_is_sealed_anew_is_known_by_its_id() {
    let (mut world, mut device) = World::greeted();
    let before = world.shown().len();
    let event = Plaintext { name: Some("door"), reading_id: Some(5), ..Plaintext::new(Kind::Event) };
    for _ in 0..2 {
        let sealed = device.seal(&event, world.now.unix);
        assert_eq!(world.message(&sealed), Answer::Accepted);
    }
    assert_eq!(world.shown().len(), before + 1);
}

#[test]
fn the_end_of_a_revoked_devices_commands_is_not_lost_with_the_commit_that_says_it() {
    let (mut world, _) = World::new();
    world.disconnect();
    let command = world.command(1, 600);
    let id = world.enrolled.id;
    let open: Vec<_> = world.kept.commands.values().cloned().collect();
    world.restart_without_the_device();
    world.bridge.handle_look(id, world.now);
    assert_eq!(world.bridge.poll_load(), Some(id));
    world.bridge.handle_gone(id, open.clone(), world.now);
    let draft = world.bridge.poll_draft().expect("the end of its command");
    assert!(!world.bridge.is_settled(&id), "it is enrolled anew once that is known");
    world.bridge.handle_look(id, world.now);
    assert_eq!(world.bridge.poll_load(), None, "it would be read as open");
    drop(draft);
    world.bridge.forget();
    assert_eq!(world.bridge.poll_load(), Some(id), "the commit failed, and the command is open");
    world.bridge.handle_gone(id, open, world.now);
    world.settle();
    assert!(world.bridge.is_settled(&id));
    assert!(world.kept.commands[&command].is_final());
}

#[test]
fn a_handshake_of_another_identity_is_refused() {
    let (mut world, _) = World::new();
    let bundle = world.bundle();
    let mut thief = Device::new("pump-7", world.node_key(), rand::SeedableRng::seed_from_u64(99));
    thief.begin(&bundle, world.now.unix);
    let init = thief.reading(b"x", world.now.unix);
    assert_eq!(world.message(&init), REFUSED);
    assert!(world.published.is_empty() && world.shown().is_empty());
}

#[test]
fn an_old_handshake_played_again_moves_nothing() {
    let (mut world, mut device) = World::new();
    let mut inits = Vec::new();
    for body in [b"a", b"b"] {
        let bundle = world.bundle();
        device.begin(&bundle, world.now.unix);
        let init = device.reading(body, world.now.unix);
        assert_eq!(world.message(&init), Answer::Accepted);
        world.published.clear();
        inits.push(device.reading(b"later", world.now.unix));
    }
    let before = world.kept.stored.clone();
    assert_eq!(world.message(&inits[0]), REFUSED, "its counter is below the last");
    assert_eq!(world.kept.stored.present, before.present);
    assert_eq!(device.hear(&world.take_message(), world.now.unix), Heard::Reset(false), "it names another key");
    assert_eq!(world.message(&inits[1]), Answer::Accepted);
}

#[test]
fn ten_failed_agreements_a_minute_then_such_messages_are_not_read() {
    let (mut world, mut device) = World::greeted();
    let good = device.reading(b"good", world.now.unix);
    let mut forged = good.clone();
    for n in 0..10_u8 {
        forged[1..33].fill(n + 1);
        assert_eq!(world.message(&forged), REFUSED);
    }
    world.bridge.take_stats();
    forged[1..33].fill(77);
    assert_eq!(world.message(&forged), REFUSED);
    let stats = world.bridge.take_stats();
    assert_eq!((stats.over_budget, stats.unknown), (1, 0));
    assert_eq!(world.message(&good), Answer::Accepted, "known chains cost nothing and go on");
    world.pass(60_000);
    assert_eq!(world.message(&forged), REFUSED);
    assert_eq!(world.bridge.take_stats().unknown, 1);
}

/// With a deep window a device has more than ten messages on its way when it is found to have gone back, and the
/// handshake that heals it comes behind them.
#[test]
fn what_an_old_copy_has_on_its_way_stands_neither_before_its_handshake_nor_before_its_next_step() {
    let (mut world, mut device) = World::greeted();
    let mut old = device.reading(b"old", world.now.unix);
    for n in 0..31_u8 {
        old[1..33].fill(n + 1);
        assert_eq!(world.message(&old), REFUSED);
    }
    assert_eq!(world.bridge.take_stats().over_budget, 21);
    world.published.clear();
    let bundle = world.bundle();
    device.begin(&bundle, world.now.unix);
    let init = device.reading(b"anew", world.now.unix);
    assert_eq!(world.message(&init), Answer::Accepted);
    assert_eq!(device.hear(&world.take_message(), world.now.unix), Heard::hello());
    // It takes its step after 128 messages.
    for _ in 0..140 {
        let reading = device.reading(b"on", world.now.unix);
        assert_eq!(world.message(&reading), Answer::Accepted);
    }
    assert_eq!(world.bridge.take_stats().over_budget, 0);
}

/// What is wrong with a message decides what is counted, and whether a new session is asked for.
#[test]
fn each_bad_message_is_counted_by_its_own_name() {
    type Bytes = Vec<u8>;
    type Counter = fn(&Stats) -> u64;
    /// How to make one of the device's messages bad: first, one that was taken; second, one that was not;
    /// third, the device's first handshake.
    type Make = fn(&[u8], &[u8], &[u8]) -> Bytes;
    let cases: [(&str, Make, Counter, bool); 12] = [
        ("nothing", |_, _, _| Vec::new(), |s| s.malformed, false),
        ("another version", |_, new, _| [&[0x71], &new[1..]].concat(), |s| s.malformed, false),
        ("truncated", |_, new, _| new[..56].to_vec(), |s| s.malformed, false),
        ("over-long", |_, new, _| [new, &[0; 65_536]].concat(), |s| s.malformed, false),
        ("what a node sends", |_, _, _| [&[4, 1][..], &[7; 96]].concat(), |s| s.malformed, false),
        ("replayed", |taken, _, _| taken.to_vec(), |s| s.duplicates, false),
        ("cut off at its end", |_, new, _| new[..new.len() - 1].to_vec(), |s| s.forged, false),
        ("forged", |_, new, _| [&new[..41], &[0; 80]].concat(), |s| s.forged, false),
        ("the same number again", |taken, _, _| [&taken[..41], &[0; 80]].concat(), |s| s.rolled_back, true),
        ("of a key nobody knows", |_, new, _| [&new[..1], &[9; 32], &new[33..]].concat(), |s| s.unknown, true),
        (
            "of another suite",
            |_, _, init| [&[2, 2], &init[2..78], &[0; 1088], &[1], &[9; 32], &init[111..]].concat(),
            |s| s.refused_handshakes,
            false,
        ),
        (
            "an old handshake",
            |_, _, init| [&init[..78], &[1], &[9; 32], &init[111..]].concat(),
            |s| s.refused_handshakes,
            true,
        ),
    ];
    for (what, make, counter, asks) in cases {
        let (mut world, mut device) = World::new();
        let bundle = world.bundle();
        device.begin(&bundle, world.now.unix);
        let init = device.reading(b"first", world.now.unix);
        assert_eq!(world.message(&init), Answer::Accepted);
        let hello = world.take_message();
        assert_eq!(device.hear(&hello, world.now.unix), Heard::hello());
        let bundle = world.bundle();
        device.begin(&bundle, world.now.unix);
        let second = device.reading(b"second", world.now.unix);
        assert_eq!(world.message(&second), Answer::Accepted);
        let hello = world.take_message();
        assert_eq!(device.hear(&hello, world.now.unix), Heard::hello());
        let taken = device.reading(b"taken", world.now.unix);
        assert_eq!(world.message(&taken), Answer::Accepted);
        let new = device.reading(b"new", world.now.unix);
        world.bridge.take_stats();

        let bad = make(&taken, &new, &init);
        let kept = world.kept.stored.present.clone();
        let answer = world.message(&bad);
        assert_eq!(answer, if what == "replayed" { Answer::Accepted } else { REFUSED }, "{what}");
        let stats = world.bridge.take_stats();
        assert_eq!(counter(&stats), 1, "{what}: {stats:?}");
        assert_eq!((stats.resets, stats.opened), (u64::from(asks), 0), "{what}");
        assert_eq!(world.kept.stored.present, kept, "{what}: no state has moved");
        assert_eq!(world.message(&new), Answer::Accepted, "{what}");
    }
}

#[test]
fn what_another_device_sent_opens_nothing_here() {
    let (mut world, _) = World::greeted();
    // What only a broker in between can bring about: no device publishes on another's row.
    let (mut elsewhere, _) = World::new();
    let mut other = Device::new("pump-7", elsewhere.node_key(), rand::SeedableRng::seed_from_u64(99));
    let bundle = elsewhere.bundle();
    other.begin(&bundle, world.now.unix);
    let init = other.reading(b"x", world.now.unix);
    world.bridge.take_stats();
    assert_eq!(world.message(&init), REFUSED);
    let stats = world.bridge.take_stats();
    assert_eq!((stats.refused_handshakes, stats.resets), (1, 0), "its handshake is of another identity");
    assert_eq!(world.message(&init[78..]), REFUSED);
    let stats = world.bridge.take_stats();
    assert_eq!((stats.unknown, stats.resets), (1, 1), "its message is under a key nobody knows");
}
