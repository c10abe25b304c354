//! `$SYS`, as clients read it.

use std::sync::Arc;
use std::time::Duration;

use unhidra_broker::packet::*;
use unhidra_broker::*;

use crate::world::*;

fn reporting(world: &World) {
    let broker: Arc<Broker> = world.broker.clone();
    tokio::spawn(async move { broker.report().await });
}

#[tokio::test(start_paused = true)]
async fn sys_says_what_there_is_to_who_subscribes_and_what_is_new_to_who_listens() {
    let world = World::new();
    reporting(&world);
    let mut writer = world.plain("writer", Version::V5).await;
    writer.subscribe("a", QoS::AtLeastOnce).await;
    writer.send(Packet::Publish(Publish { retain: true, ..publish("a", "four", Some(1)) })).await;
    writer.acked().await;
    writer.message().await;
    let mut reader = world.plain("reader", Version::V3_1_1).await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    let granted = reader.subscribe("$SYS/broker/publish/#", QoS::AtLeastOnce).await;
    assert_eq!(granted, ReasonCode::GrantedQos1);
    let mut found = Vec::new();
    for _ in 0..5 {
        let message = reader.message().await;
        assert!(message.retain && message.assurance == Assurance::AtMostOnce, "{message:?}");
        found.push((message.topic.as_str().to_owned(), message.payload));
    }
    for (name, value) in [("messages/received", "1"), ("bytes/received", "4"), ("messages/dropped", "0")] {
        let topic = format!("$SYS/broker/publish/{name}");
        assert!(found.iter().any(|(known, payload)| *known == topic && payload == value), "{topic}: {found:?}");
    }

    // What is new comes by itself, not retained; what is not does not come again.
    writer.publish("nobody", "12345678", None).await;
    writer.ping().await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    let mut news = Vec::new();
    for _ in 0..2 {
        let message = reader.message().await;
        assert!(!message.retain, "{message:?}");
        news.push(message.topic.as_str().to_owned());
    }
    news.sort();
    assert_eq!(news, ["$SYS/broker/publish/messages/received", "$SYS/broker/publish/messages/sent"]);
}

#[tokio::test(start_paused = true)]
async fn a_hash_does_not_show_sys_and_nobody_publishes_there() {
    let world = World::new();
    reporting(&world);
    let mut client = world.plain("c", Version::V5).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.subscribe("#", QoS::AtMostOnce).await;
    client.publish("$SYS/broker/uptime", "9", Some(1)).await;
    assert_eq!(client.acked().await, (1, ReasonCode::NotAuthorized));
    tokio::time::sleep(Duration::from_secs(30)).await;
    client.publish("a", "only this", None).await;
    assert_eq!(client.message().await.payload, "only this");
}

#[tokio::test(start_paused = true)]
async fn sys_that_is_off_says_nothing() {
    let world = World::with(Config { sys_interval_s: 0, ..config() });
    reporting(&world);
    tokio::time::sleep(Duration::from_secs(30)).await;
    let mut client = world.plain("c", Version::V5).await;
    client.subscribe("$SYS/#", QoS::AtMostOnce).await;
    client.ping().await;
}
