//! Suite 2, and what is of another suite than enrolled.

use std::sync::Arc;

use unhidra_core::delivery::{Answer, Refusal, UplinkRow};
use unhidra_core::suite::Suite;

use crate::device::{Device, Heard};
use crate::ledger::World;

const REFUSED: Answer = Answer::Refused(Refusal::DoesNotOpen);

/// The device is enrolled again, with another suite; the node reads it anew.
fn enrol_with(world: &mut World, suite: Suite) {
    let mut enrolled = (*world.enrolled).clone();
    enrolled.suite = suite;
    world.enrolled = Arc::new(enrolled);
    world.restart();
}

#[test]
fn a_device_of_either_suite_is_greeted_and_goes_on_after_a_restart() {
    for (suite, bundle_len, secret_len, head_len) in [(Suite::X3dh, 198, 32, 78), (Suite::Pqxdh, 1382, 96, 1166)] {
        let (mut world, mut device) = World::of(suite);
        let bundle = world.bundle();
        assert_eq!((bundle.len(), world.kept.prekeys[0].secret.len()), (bundle_len, secret_len));
        world.restart();
        assert_eq!(world.bundle(), bundle, "the KEM pair is that of the stored seed");
        device.begin(&bundle, world.now.unix);
        let init = device.reading(b"first", world.now.unix);
        assert_eq!(init.len(), head_len + 57 + 64);
        assert_eq!(world.message(&init), Answer::Accepted);
        assert!(world.kept.prekeys.is_empty(), "the seed went with the handshake");
        let hello = world.take_message();
        assert_eq!(device.hear(&hello, world.now.unix), Heard::hello());
        world.restart();
        let second = device.reading(b"second", world.now.unix);
        assert_eq!(world.message(&second), Answer::Accepted);
        assert_eq!(world.shown(), [&b"first"[..], b"second"]);
    }
}

#[test]
fn a_bundle_of_another_suite_than_enrolled_is_not_given() {
    for (enrolled, asked) in [(Suite::X3dh, Suite::Pqxdh), (Suite::Pqxdh, Suite::X3dh)] {
        let (mut world, _) = World::of(enrolled);
        assert_eq!(world.deliver(UplinkRow::PrekeysGet, &Device::asks(asked)), REFUSED);
        assert!(world.published.is_empty() && world.kept.prekeys.is_empty());
    }
}

#[test]
fn a_handshake_of_another_suite_than_enrolled_begins_nothing() {
    for (now, then) in [(Suite::X3dh, Suite::Pqxdh), (Suite::Pqxdh, Suite::X3dh)] {
        let (mut world, mut device) = World::of(then);
        let bundle = world.bundle();
        device.begin(&bundle, world.now.unix);
        let init = device.reading(b"x", world.now.unix);
        enrol_with(&mut world, now);
        assert_eq!(world.message(&init), REFUSED);
        assert!(world.kept.rows.is_empty() && world.published.is_empty());
    }
}

#[test]
fn a_prekey_that_waited_for_another_suite_is_replaced() {
    for (now, then) in [(Suite::X3dh, Suite::Pqxdh), (Suite::Pqxdh, Suite::X3dh)] {
        let (mut world, mut device) = World::of(then);
        world.bundle();
        let waited = world.kept.prekeys[0].id;
        enrol_with(&mut world, now);
        device.suite = now;
        let bundle = world.bundle();
        let [kept] = &world.kept.prekeys[..] else { panic!("one waits") };
        assert!(kept.id > waited, "ids never repeat");
        device.begin(&bundle, world.now.unix);
        let init = device.reading(b"x", world.now.unix);
        assert_eq!(world.message(&init), Answer::Accepted);
    }
}
