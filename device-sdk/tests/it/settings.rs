//! Settings: shown with their version, acknowledged when they are taken over and not before.

use unhidra_device_sdk::client::Qos;

use crate::double::{BODY_MAX, Told, World};

fn settled() -> World {
    let mut world = World::new(2);
    world.publish(0, Qos::AtLeastOnce).expect("there is room");
    world.settle();
    world.broker.acknowledged_by_device = 0;
    world
}

/// The settings the application was shown: names, values and versions.
fn shown(world: &World) -> Vec<(&str, Option<&[u8]>, u64)> {
    let shown = world.told.iter().filter_map(|told| match told {
        Told::Setting { name, value, version } => Some((name.as_str(), value.as_deref(), *version)),
        _ => None,
    });
    shown.collect()
}

#[test]
fn a_setting_is_shown_with_its_version_and_a_removed_one_without_a_value() {
    let mut world = settled();
    for (value, version) in [(Some(&b"5"[..]), 7), (Some(b""), 8), (None, 9)] {
        let sealed = world.node.setting("interval", value, version).expect("there is a session");
        world.send(sealed);
        world.settle();
    }
    let expected = [("interval", Some(&b"5"[..]), 7), ("interval", Some(&b""[..]), 8), ("interval", None, 9)];
    assert_eq!(shown(&world), expected);
    assert_eq!((world.broker.acknowledged_by_device, world.broker.refused_by_device.len()), (3, 0));
}

#[test]
fn it_is_acknowledged_when_it_is_taken_over_and_not_before() {
    let mut world = settled();
    world.applies = false;
    let sealed = world.node.setting("interval", Some(b"5"), 7).expect("there is a session");
    world.send(sealed.clone());
    world.settle();
    assert_eq!((shown(&world).len(), world.broker.acknowledged_by_device), (1, 0));
    // Sent again before that, it is not acknowledged by the way.
    world.send(sealed);
    world.settle();
    assert_eq!((world.broker.acknowledged_by_device, world.broker.refused_by_device.len()), (0, 1));
    world.applies = true;
    // The application is heard in the first, and its word leaves in the second.
    world.settle();
    world.settle();
    assert_eq!((shown(&world).len(), world.broker.acknowledged_by_device), (1, 1));
}

#[test]
fn one_that_was_not_taken_over_before_a_reset_is_refused_then_and_taken_when_it_comes_anew() {
    let mut world = settled();
    world.applies = false;
    let sealed = world.node.setting("interval", Some(b"5"), 7).expect("there is a session");
    world.send(sealed.clone());
    world.settle();
    world.power_cut();
    world.applies = true;
    world.settle();
    world.send(sealed);
    world.settle();
    assert_eq!((world.broker.acknowledged_by_device, world.broker.refused_by_device.len()), (0, 1));
    let anew = world.node.setting("interval", Some(b"5"), 7).expect("there is a session");
    world.send(anew);
    world.settle();
    assert_eq!((shown(&world).len(), world.broker.acknowledged_by_device), (2, 1));
}

#[test]
fn one_that_is_larger_than_the_buffers_is_refused() {
    let mut world = settled();
    for len in [BODY_MAX, BODY_MAX + 1] {
        let sealed = world.node.setting("interval", Some(&vec![b'x'; len]), 7).expect("there is a session");
        world.send(sealed);
        world.settle();
    }
    assert_eq!((shown(&world).len(), world.broker.acknowledged_by_device), (1, 1));
    assert_eq!(world.broker.refused_by_device, [0x95]);
}
