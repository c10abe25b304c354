//! Who would get a message.

use unhidra_broker::packet::*;
use unhidra_broker::*;
use unhidra_core::topic::TopicFilter;

use crate::world::*;

fn found(world: &World, topic: &str) -> Vec<(String, String, Option<String>, u8, bool)> {
    let found = world.broker.subscribers(TopicFilter::parse(topic).expect("a filter"), 100);
    assert!(!found.more);
    let shown = found.subscribers.into_iter().map(|found| {
        let SubscriberRecord { name, filter, share_name, qos, connected } = found;
        (name.client_id.as_str().to_owned(), filter.into(), share_name.map(String::from), qos.as_bits(), connected)
    });
    shown.collect()
}

#[tokio::test(start_paused = true)]
async fn they_are_named_with_filter_group_and_qos_and_whether_they_are_here() {
    let world = World::new();
    let mut one = world.plain("one", Version::V5).await;
    one.subscribe("a/+", QoS::AtLeastOnce).await;
    one.subscribe("$share/g/a/#", QoS::ExactlyOnce).await;
    let mut two = world.client(Identity::Anonymous, Version::V3_1_1);
    two.connect(Connect { clean_start: false, ..connect(Version::V3_1_1, "two") }).await;
    two.subscribe("#", QoS::AtMostOnce).await;
    two.send(Packet::Disconnect(Disconnect::new(ReasonCode::Success))).await;
    assert_eq!(two.hear().await, Heard::End);

    let own = ("one".to_owned(), "a/+".to_owned(), None, 1, true);
    let shared = ("one".to_owned(), "a/#".to_owned(), Some("g".to_owned()), 2, true);
    let away = ("two".to_owned(), "#".to_owned(), None, 0, false);
    assert_eq!(found(&world, "a/b"), [shared.clone(), own.clone(), away.clone()]);
    assert_eq!(found(&world, "a/b/c"), [shared.clone(), away.clone()]);
    assert_eq!(found(&world, "z").len(), 1);
    assert_eq!(found(&world, "+/x"), [shared, own, away]);
    assert_eq!(found(&world, "$SYS/#"), []);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_listens_on_its_row_is_named_and_a_hash_is_not() {
    let mut world = World::new();
    let (mut pump, _) = world.device("pump-7", Version::V5).await;
    pump.subscribe("unhidra/devices/pump-7/commands", QoS::AtLeastOnce).await;
    let mut all = world.plain("all", Version::V5).await;
    all.subscribe("#", QoS::AtMostOnce).await;
    let here = found(&world, "unhidra/devices/pump-7/commands");
    assert_eq!(here.iter().map(|found| found.0.as_str()).collect::<Vec<_>>(), ["pump-7"]);
    assert_eq!(found(&world, "unhidra/devices/pump-7/prekeys"), []);
    assert_eq!(found(&world, "unhidra/devices/pump-8/commands"), []);
}
