//! What devices are told: commands that are repeated, called back or never answered, and settings.

use bytes::Bytes;
use unhidra_bridge::{CommandRefused, Outcome, SettingRefused};
use unhidra_core::command::{By, Command, CommandState, Life};
use unhidra_core::delivery::Answer;
use unhidra_core::ids::CommandId;
use unhidra_core::message::ReceiptStatus;
use unhidra_e2ee::plaintext::Status;

use crate::device::{Device, Heard};
use crate::ledger::World;

fn command(world: &World, n: u8) -> Command {
    Command {
        id: CommandId::new([n; 16]),
        device: world.enrolled.id,
        name: "reboot".into(),
        body: Bytes::from_static(b"now"),
        created_at: world.now.unix,
        expires_at: world.now.unix.saturating_add(std::time::Duration::from_secs(60)),
        asked_by: None,
        life: Life::default(),
    }
}

/// The device hears the one message there is, and its PUBACK leaves.
fn hears(world: &mut World, device: &mut Device) -> Heard {
    let (_, ticket, sealed) = world.published.remove(0);
    let heard = device.hear(&sealed, world.now.unix);
    world.broker_says(ticket, Outcome::Delivered);
    heard
}

#[test]
fn a_repeat_under_the_same_id_is_the_same_command() {
    let (mut world, _) = World::greeted();
    let new = command(&world, 1);
    assert_eq!(world.send(new.clone()), Ok(CommandState::Accepted));
    assert_eq!(world.send(new.clone()), Ok(CommandState::Sent), "it is under way meanwhile");
    assert_eq!((world.published.len(), world.kept.commands.len()), (1, 1));
    let other = Command { body: Bytes::from_static(b"later"), ..new };
    assert_eq!(world.send(other), Err(CommandRefused::IdTaken));
}

#[test]
fn what_waits_is_called_back_and_what_is_sent_is_not() {
    let (mut world, _) = World::greeted();
    let sent = command(&world, 1);
    assert_eq!(world.send(sent.clone()), Ok(CommandState::Accepted));
    assert_eq!(world.cancel(sent.id), Err(CommandRefused::TooLate { state: CommandState::Sent }));
    world.disconnect();
    let too_late = Err(CommandRefused::TooLate { state: CommandState::Sent });
    assert_eq!(world.cancel(sent.id), too_late, "its connection is lost, and the device may have it");
    let waits = command(&world, 2);
    assert_eq!(world.send(waits.clone()), Ok(CommandState::Accepted));
    assert_eq!(world.cancel(waits.id), Ok(CommandState::Cancelled));
    assert_eq!(world.cancel(waits.id), Err(CommandRefused::NotOpen));
    world.published.clear();
    world.connect();
    assert_eq!(world.published.len(), 1, "the first goes again, the other to nobody");
    let ended = world.kept.commands[&waits.id].ended().cloned().expect("it has ended");
    assert_eq!((ended.by, &*ended.cause), (By::Client, "me"));
}

#[test]
fn a_receipt_after_the_end_is_noted_and_changes_nothing() {
    let (mut world, mut device) = World::greeted();
    let new = command(&world, 1);
    assert_eq!(world.send(new.clone()), Ok(CommandState::Accepted));
    let (_, _, sealed) = world.published.remove(0);
    assert!(matches!(device.hear(&sealed, world.now.unix), Heard::Command(..)));
    // Its PUBACK is lost with the connection, and its time passes.
    world.disconnect();
    world.pass(120_000);
    world.connect();
    let receipt = device.receipt(new.id, Status::Done, world.now.unix);
    assert_eq!(world.message(&receipt), Answer::Accepted);
    let kept = &world.kept.commands[&new.id];
    assert_eq!(kept.state(), CommandState::Expired);
    assert_eq!(kept.life.late.map(|late| (late.status, late.count)), Some((ReceiptStatus::Done, 1)));
    assert_eq!(world.bridge.take_stats().late_receipts, 1);
}

#[test]
fn a_command_of_a_device_that_stays_away_ends_also_after_a_failed_commit() {
    let (mut world, _) = World::greeted();
    world.disconnect();
    let new = command(&world, 1);
    assert_eq!(world.send(new.clone()), Ok(CommandState::Accepted));
    world.bridge.forget();
    world.settle();
    world.pass(60_000);
    let ended = world.kept.commands[&new.id].ended().cloned().expect("it has ended");
    assert_eq!((ended.by, &*ended.cause), (By::Node, "the device did not come in time"));
}

#[test]
fn a_setting_goes_to_the_device_until_it_is_acknowledged_and_not_again() {
    let (mut world, mut device) = World::greeted();
    let five = || Heard::Set("interval".to_owned(), Some(b"5".to_vec()));
    assert!(world.set("interval", Some("5")).is_ok_and(|setting| !setting.is_in_sync()));
    let (_, _, sealed) = world.published.remove(0);
    assert_eq!(device.hear(&sealed, world.now.unix), five());
    // Its PUBACK is lost with the connection.
    world.disconnect();
    world.connect();
    assert_eq!(hears(&mut world, &mut device), five());
    assert!(world.kept.settings.values().all(unhidra_core::setting::Setting::is_in_sync));
    world.disconnect();
    world.connect();
    world.restart();
    assert!(world.published.is_empty(), "the device has it");
    assert!(world.set("interval", None).is_ok());
    assert_eq!(hears(&mut world, &mut device), Heard::Set("interval".to_owned(), None));
    assert_eq!(world.set("other", None), Err(SettingRefused::NoSetting));
}

#[test]
fn a_device_with_a_new_session_is_told_all_its_settings_again() {
    let (mut world, mut device) = World::greeted();
    for name in ["a", "b"] {
        assert!(world.set(name, Some("x")).is_ok());
        hears(&mut world, &mut device);
    }
    let bundle = world.bundle();
    device.begin(&bundle, world.now.unix);
    let init = device.reading(b"anew", world.now.unix);
    assert_eq!(world.message(&init), Answer::Accepted);
    for name in ["a", "b"] {
        // One at a time, and one that was set first goes first.
        assert_eq!(hears(&mut world, &mut device), Heard::Set(name.to_owned(), Some(b"x".to_vec())));
    }
    assert!(world.published.is_empty());
    world.restart();
    assert!(world.published.is_empty(), "they are known of the session they were taken in");
}

#[test]
fn after_a_copy_was_put_back_open_commands_have_ended_and_settings_are_wanted_anew() {
    let (mut world, mut device) = World::greeted();
    assert!(world.set("interval", Some("5")).is_ok());
    hears(&mut world, &mut device);
    let new = command(&world, 1);
    assert_eq!(world.send(new.clone()), Ok(CommandState::Accepted));
    let copy = world.kept.clone();
    let before = copy.settings.values().map(|setting| setting.version).max();
    world.put_back(copy);
    assert_eq!(world.kept.commands[&new.id].state(), CommandState::Failed, "the device may have done it since");
    let after = world.kept.settings.values().next().cloned().expect("it is wanted");
    assert!(Some(after.version) > before && !after.is_in_sync(), "the device may hold a newer one");
}

/// What is over moves the next look at a device out, and the one that was set comes all the same.
#[test]
fn a_look_that_comes_early_is_set_anew() {
    let (mut world, mut device) = World::greeted();
    let far = world.bridge.poll_timeout().expect("its next sign of life");
    assert_eq!(world.send(command(&world, 1)), Ok(CommandState::Accepted));
    let near = world.bridge.poll_timeout().expect("the command's expiry");
    assert!(near < far);
    assert!(matches!(hears(&mut world, &mut device), Heard::Command { .. }));
    let receipt = device.receipt(CommandId::new([1; 16]), Status::Done, world.now.unix);
    assert_eq!(world.message(&receipt), Answer::Accepted);
    for _ in 0..3 {
        let next = world.bridge.poll_timeout().expect("one of both");
        assert!(next > world.now.timer, "due again at once");
        world.pass(next.saturating_since(world.now.timer).as_millis() as u64);
    }
    assert!(world.bridge.poll_timeout().is_some_and(|next| next > near));
}
