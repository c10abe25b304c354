//! Commands: acted on once, answered, never too late.

use std::time::Duration;

use unhidra_core::ids::CommandId;
use unhidra_core::time::UnixTime;
use unhidra_device_sdk::Status;
use unhidra_device_sdk::client::Qos;

use crate::double::{BODY_MAX, Said, World};

fn settled() -> World {
    let mut world = World::new(2);
    world.publish(0, Qos::AtLeastOnce).expect("there is room");
    world.settle();
    world
}

fn id(n: u8) -> CommandId {
    CommandId::new([n; 16])
}

fn receipts(world: &World) -> Vec<(CommandId, Status, Vec<u8>)> {
    let receipts = world.node.said.iter().filter_map(|said| match said {
        Said::Receipt { command, status, body } => Some((*command, *status, body.clone())),
        _ => None,
    });
    receipts.collect()
}

#[test]
fn a_command_is_shown_once_and_its_receipt_comes_back() {
    let mut world = settled();
    assert!(world.command(1, b"now"));
    world.settle();
    assert_eq!(world.acted_on()[&id(1)], 1);
    assert_eq!(receipts(&world), [(id(1), Status::Done, b"now".to_vec())]);
}

#[test]
fn the_same_ciphertext_again_is_a_duplicate() {
    let mut world = settled();
    let sealed = world.node.command(id(1), "do", b"", None).expect("there is a session");
    for _ in 0..3 {
        world.send(sealed.clone());
        world.settle();
    }
    assert_eq!(world.acted_on()[&id(1)], 1);
    assert_eq!((world.device().stats().duplicates, world.broker.refused_by_device.len()), (2, 0));
}

#[test]
fn the_same_command_sealed_anew_is_acknowledged_and_not_acted_on_over_restarts_too() {
    let mut world = settled();
    world.command(1, b"");
    world.settle();
    world.command(1, b"");
    world.settle();
    world.power_cut();
    world.settle();
    world.command(1, b"");
    world.settle();
    assert_eq!(world.acted_on()[&id(1)], 1);
    assert_eq!((receipts(&world).len(), world.broker.refused_by_device.len()), (1, 0));
}

#[test]
fn a_duplicate_is_known_after_a_restart() {
    let mut world = settled();
    let sealed = world.node.command(id(1), "do", b"", None).expect("there is a session");
    world.send(sealed.clone());
    world.settle();
    world.power_cut();
    world.settle();
    world.send(sealed);
    world.settle();
    assert_eq!(world.acted_on()[&id(1)], 1);
    assert_eq!((world.device().stats().duplicates, world.broker.refused_by_device.len()), (1, 0));
}

/// What was opened is wiped from storage too: its key is gone, not only its name.
#[test]
fn an_opened_message_never_opens_again_not_even_after_a_restart() {
    let mut world = settled();
    let sealed = world.node.command(id(100), "do", b"", None).expect("there is a session");
    world.send(sealed.clone());
    for n in 0..40 {
        world.command(n, b"");
        world.settle();
    }
    world.power_cut();
    world.settle();
    world.send(sealed);
    world.settle();
    assert_eq!(world.broker.refused_by_device, [0x83], "too old, rather than opened and known");
}

#[test]
fn a_command_of_the_session_before_is_acted_on_after_a_restart_too() {
    let mut world = settled();
    let late = world.node.command(id(1), "do", b"", None).expect("there is a session");
    world.node.forget_sessions();
    world.publish(1, Qos::AtLeastOnce).expect("there is room");
    world.settle();
    assert_eq!(world.node.handshakes, 2);
    world.power_cut();
    world.settle();
    world.send(late);
    world.command(2, b"");
    world.settle();
    assert_eq!(world.acted_on().len(), 2);
}

#[test]
fn a_command_past_its_expiry_is_answered_and_not_acted_on() {
    let mut world = settled();
    let (past, future) = (world.unix(), UnixTime::from_ms(world.unix().as_ms() + 1));
    world.command_until(1, b"", Some(past));
    world.command_until(2, b"", Some(future));
    world.settle();
    assert_eq!(world.acted_on().keys().copied().collect::<Vec<_>>(), [id(2)]);
    let statuses: Vec<_> = receipts(&world).into_iter().map(|(id, status, _)| (id, status)).collect();
    assert_eq!(statuses, [(id(1), Status::Expired), (id(2), Status::Done)]);
}

#[test]
fn a_device_without_a_clock_learns_the_time_before_it_trusts_an_expiry() {
    let mut world = settled();
    world.power_cut();
    world.has_clock = false;
    world.settle();
    let unix = world.unix();
    let now = unhidra_core::time::Timestamp::from_ms(1000);
    let learnt = world.device().time(now).expect("a bundle brought it");
    assert_eq!(learnt.as_s(), unix.as_s());
    assert_eq!(world.node.handshakes, 1, "the bundle served for the time alone");
    world.command_until(1, b"", Some(UnixTime::from_ms(unix.as_ms() + 1000)));
    world.settle();
    assert_eq!(world.acted_on()[&id(1)], 1);
    world.sleep(Duration::from_secs(2));
    world.command_until(2, b"", Some(UnixTime::from_ms(unix.as_ms() + 1000)));
    world.settle();
    assert_eq!(world.acted_on().get(&id(2)), None);
}

/// The node sends what waited for the device before the device has asked for the time.
#[test]
fn a_command_that_comes_before_the_time_is_judged_when_that_is_known() {
    let mut world = settled();
    world.power_cut();
    world.has_clock = false;
    let (past, future) = (world.unix(), UnixTime::from_ms(world.unix().as_ms() + 3_600_000));
    world.command_until(1, b"", Some(future));
    world.command_until(2, b"", Some(past));
    world.command_until(3, b"", None);
    while world.device().time(unhidra_core::time::Timestamp::from_ms(1000)).is_none() {
        assert!(world.acted_on().is_empty(), "in order, and none before the time is known");
        assert!(world.step());
    }
    world.settle();
    assert_eq!(world.acted_on(), [(id(1), 1), (id(3), 1)].into());
    let statuses: Vec<_> = receipts(&world).into_iter().map(|(id, status, _)| (id, status)).collect();
    assert_eq!(statuses, [(id(2), Status::Expired), (id(1), Status::Done), (id(3), Status::Done)]);
    assert_eq!((world.broker.refused_by_device.len(), world.device().stats().commands_expired), (0, 1));
}

/// Away for a month, an oscillator of 1 % is seven hours off: what it says is no reason to refuse a command, nor to act on one.
#[test]
fn a_command_waits_for_the_time_also_where_that_was_known_long_ago() {
    for (ahead_s, shown) in [(25_000, true), (0, false)] {
        let mut world = World::new(2);
        world.has_clock = false;
        world.publish(0, Qos::AtLeastOnce).expect("there is room");
        world.settle();
        world.disconnect();
        world.slow_by(Duration::from_secs(ahead_s));
        world.sleep(Duration::from_secs(30 * 24 * 60 * 60));
        let expires_at = world.unix().as_ms() + 12_000_000 - if shown { 0 } else { 12_000_000 };
        world.command_until(1, b"", Some(UnixTime::from_ms(expires_at)));
        world.settle();
        assert_eq!(world.acted_on().len(), usize::from(shown));
        let statuses: Vec<_> = receipts(&world).into_iter().map(|(_, status, _)| status).collect();
        assert_eq!(statuses, [if shown { Status::Done } else { Status::Expired }]);
    }
}

#[test]
fn a_command_that_is_over_before_the_application_asks_for_it_is_not_shown() {
    let mut world = settled();
    world.listens = false;
    world.command(1, b"");
    world.command_until(2, b"", Some(UnixTime::from_ms(world.unix().as_ms() + 60_000)));
    world.settle();
    world.sleep(Duration::from_secs(61));
    world.listens = true;
    world.settle();
    assert_eq!(world.acted_on(), [(id(1), 1)].into());
    let mut statuses: Vec<_> = receipts(&world).into_iter().map(|(id, status, _)| (id, status)).collect();
    statuses.sort_by_key(|(id, _)| *id);
    assert_eq!(statuses, [(id(1), Status::Done), (id(2), Status::Expired)]);
}

/// It says what time it was when it was made.
#[test]
fn a_bundle_that_lies_longer_than_its_question_stands_sets_no_clock() {
    let known_after = |late: Option<usize>| {
        let mut world = World::new(2);
        world.has_clock = false;
        let mut steps = 0;
        loop {
            let at = unhidra_core::time::Timestamp::from_ms(1000);
            if world.device().time(at).is_some() || late == Some(steps) {
                return (world, steps);
            }
            assert!(world.step());
            steps += 1;
        }
    };
    let (_, steps) = known_after(None);
    // The bundle is on its way.
    let (mut world, _) = known_after(Some(steps - 1));
    world.be_busy(Duration::from_secs(30));
    world.settle();
    world.sleep(Duration::from_millis(1));
    world.settle();
    assert_eq!(world.device().stats().bundles_refused, 1);
    world.command_until(1, b"", Some(UnixTime::from_ms(world.unix().as_ms() + 1000)));
    world.settle();
    world.command_until(2, b"", Some(UnixTime::from_ms(world.unix().as_ms() - 1000)));
    world.settle();
    assert_eq!(world.acted_on(), [(id(1), 1)].into(), "its clock is right");
}

#[test]
fn an_answer_too_large_for_the_server_is_given_without_its_body() {
    let mut world = settled();
    world.disconnect();
    world.broker.packet_max = Some(200);
    for n in 1..=9 {
        world.command(n, &[b'x'; BODY_MAX]);
        world.settle();
    }
    let said = receipts(&world);
    assert_eq!(said, (1..=9).map(|n| (id(n), Status::Done, Vec::new())).collect::<Vec<_>>());
    world.publish(1, Qos::AtLeastOnce).expect("no answer keeps its place");
}

#[test]
fn a_device_without_a_clock_asks_for_the_time_once_a_day() {
    let mut world = World::new(2);
    world.has_clock = false;
    world.publish(0, Qos::AtLeastOnce).expect("there is room");
    world.settle();
    // The node's clock is put right by a day, back.
    world.slow_by(Duration::from_secs(24 * 60 * 60));
    world.sleep(Duration::from_secs(60));
    world.settle();
    world.command_until(1, b"", Some(UnixTime::from_ms(world.unix().as_ms() + 60_000)));
    world.settle();
    assert!(world.acted_on().is_empty(), "its time is a day ahead");
    for _ in 0..24 {
        world.disconnect();
        world.sleep(Duration::from_secs(60 * 60));
        world.settle();
    }
    world.command_until(2, b"", Some(UnixTime::from_ms(world.unix().as_ms() + 60_000)));
    world.settle();
    assert_eq!(world.acted_on(), [(id(2), 1)].into());
}

#[test]
fn puback_waits_until_the_application_has_the_command() {
    let mut world = settled();
    world.answers = false;
    for n in 1..=9 {
        world.command(n, b"");
    }
    world.settle();
    assert_eq!(world.acted_on().len(), 9, "more than the Receive Maximum, one after another");
    assert!(receipts(&world).is_empty());
}

#[test]
fn a_command_larger_than_the_buffers_is_answered_as_failed() {
    let mut world = settled();
    world.command(1, &[b'x'; BODY_MAX]);
    world.command(2, &[b'x'; BODY_MAX + 1]);
    world.settle();
    assert_eq!(world.acted_on().keys().copied().collect::<Vec<_>>(), [id(1)]);
    assert_eq!(receipts(&world).iter().filter(|(_, status, _)| *status == Status::Failed).count(), 1);
}

#[test]
fn what_nobody_can_have_meant_is_refused_and_changes_nothing() {
    let mut world = settled();
    let mut forged = world.node.command(id(1), "do", b"", None).expect("there is a session");
    let last = forged.len() - 1;
    forged[last] ^= 1;
    for garbage in [vec![], vec![9; 60], vec![1; 80], vec![3; 198], vec![2; 200], forged] {
        world.send(garbage);
    }
    world.settle();
    assert_eq!(world.broker.refused_by_device, [0x83; 6]);
    world.command(2, b"");
    world.settle();
    assert_eq!(world.acted_on()[&id(2)], 1);
}
