//! Power fails at every write, in each write before every record, and between any two steps. No
//! message key is ever used for two plaintexts, nothing acknowledged is missing, no command is
//! acted on twice, and the device goes on.

use std::time::Duration;

use proptest::prelude::*;
use unhidra_core::ids::CommandId;
use unhidra_device_sdk::Suite;
use unhidra_device_sdk::client::Qos;

use crate::double::{Cut, Said, World, suites};

/// Everything that writes: a handshake, leases, commands in and out of order, a DH step, a session
/// that the node lost, a restart. `after` runs after each step of it.
fn live(world: &mut World, after: &mut dyn FnMut(&mut World)) {
    let mut n = 0;
    let mut readings = |world: &mut World, count: u32| {
        for _ in 0..count {
            n += 1;
            let qos = if n % 5 == 0 { Qos::AtMostOnce } else { Qos::AtLeastOnce };
            world.publish(n, qos);
            rest(world, after);
        }
    };
    readings(world, 6);
    world.command(1, b"one");
    readings(world, 1);
    // The first is lost, so the second leaves a gap whose key is kept until the first comes late.
    let late = world.node.command(CommandId::new([2; 16]), "do", b"two", None);
    world.command(3, b"three");
    readings(world, 1);
    late.into_iter().for_each(|late| world.send(late));
    readings(world, 1);
    world.sleep(Duration::from_secs(601));
    readings(world, 3);
    world.disconnect();
    readings(world, 3);
    world.node.forget_sessions();
    readings(world, 3);
    world.command(1, b"one again");
    world.command(4, b"four");
    readings(world, 6);
    world.power_cut();
    readings(world, 3);
    world.command(5, b"five");
    readings(world, 2);
}

fn rest(world: &mut World, after: &mut dyn FnMut(&mut World)) {
    for _ in 0..2000 {
        let moved = world.step();
        after(world);
        if !moved {
            return;
        }
    }
    panic!("the world does not come to rest");
}

/// What must hold however often power failed. That no message key was used twice is checked as
/// the bytes pass.
fn assert_sound(world: &mut World) {
    for reading in world.acknowledged() {
        let body = world.published[&reading.0].clone();
        assert!(world.node.said.contains(&Said::Reading { id: reading.0, body }), "{reading:?} was acknowledged");
    }
    for (command, times) in world.acted_on() {
        assert_eq!(times, 1, "{command:?} was acted on more than once");
    }
    // The device goes on: a reading out, a command in. A session the node lost takes a round.
    let reading = world.publish(1_000_000, Qos::AtLeastOnce).expect("there is room");
    world.settle();
    world.sleep(Duration::from_secs(600));
    world.settle();
    assert!(world.acknowledged().contains(&reading), "a reading after all that");
    assert!(world.command(200, b"after all that"));
    world.settle();
    assert_eq!(world.acted_on().get(&CommandId::new([200; 16])), Some(&1));
}

#[test]
fn without_a_cut_everything_arrives() {
    for suite in suites() {
        let mut world = World::of(suite, 3);
        live(&mut world, &mut |_| ());
        assert_eq!(world.acted_on().len(), 5);
        assert_eq!(world.node.handshakes, 2);
        assert_sound(&mut world);
    }
}

#[test]
fn power_may_fail_at_every_write_and_between_its_records() {
    suites().for_each(fails_at_every_write);
}

fn fails_at_every_write(suite: Suite) {
    let mut whole = World::of(suite, 3);
    live(&mut whole, &mut |_| ());
    let writes = whole.flash.writes();
    assert!(writes.len() > 25 && writes.contains(&3), "{writes:?}");
    let mut cuts = 0;
    for (write, records) in writes.iter().enumerate() {
        for records in 0..=*records {
            let mut world = World::of(suite, 3);
            world.cut_at(Cut { write, records });
            live(&mut world, &mut |_| ());
            assert_sound(&mut world);
            cuts += 1;
        }
    }
    assert!(cuts > 60, "{cuts} cuts");
}

#[test]
fn power_may_fail_between_any_two_steps() {
    let mut steps = 0;
    live(&mut World::new(3), &mut |_| steps += 1);
    for cut in 0..steps {
        let (mut world, mut step) = (World::new(3), 0);
        live(&mut world, &mut |world| {
            if step == cut {
                world.power_cut();
            }
            step += 1;
        });
        assert_sound(&mut world);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Many cuts in one life, at writes and between steps, and PUBACKs that are lost.
    #[test]
    fn power_may_fail_again_and_again(seed in 0..u64::MAX / 2000, gaps in prop::collection::vec((0..12_usize, 0..4_usize, any::<bool>(), any::<bool>()), 1..12)) {
        let mut world = World::new(seed);
        let mut gaps = gaps.into_iter();
        let mut steps_left = 5;
        live(&mut world, &mut |world| {
            if steps_left > 0 {
                steps_left -= 1;
                return;
            }
            let Some((gap, records, at_write, lose_pubacks)) = gaps.next() else {
                world.lose_pubacks = false;
                steps_left = usize::MAX;
                return;
            };
            steps_left = 2 * gap;
            world.lose_pubacks = lose_pubacks;
            if at_write {
                world.cut_at(Cut { write: world.flash.writes().len(), records });
            } else {
                world.power_cut();
            }
        });
        world.lose_pubacks = false;
        // A cut that was not reached is called off.
        world.flash.power_on();
        world.disconnect();
        assert_sound(&mut world);
    }
}
