//! Subscribers that do not keep up, and those who must not notice.

use std::time::Duration;

use tokio::time::Instant;
use unhidra_broker::acl::{Actions, Effect, Pattern, Rule, RuleSet, Who};
use unhidra_broker::packet::*;
use unhidra_broker::*;

use crate::world::*;

fn with_policy(policy: QueuePolicy) -> World {
    let mut config = config();
    config.limits.queue_policy = policy;
    World::with(config)
}

/// A subscriber of `t` that never acknowledges: 16 messages are in flight and 8 wait.
async fn stuck(world: &World) -> Client {
    let mut client = world.plain("stuck", Version::V5).await;
    client.subscribe("t", QoS::AtLeastOnce).await;
    client
}

async fn publish_all(publisher: &mut Client, numbers: std::ops::Range<u16>) {
    for number in numbers {
        publisher.publish("t", &number.to_string(), Some(number + 1)).await;
        publisher.acked().await;
    }
}

async fn payloads(client: &mut Client, count: usize) -> Vec<String> {
    let mut payloads = Vec::new();
    for _ in 0..count {
        let message = client.message().await;
        payloads.push(String::from_utf8(message.payload.to_vec()).expect("a number"));
        if let Assurance::AtLeastOnce { packet_id, .. } = message.assurance {
            client.puback(packet_id, ReasonCode::Success).await;
        }
    }
    payloads
}

fn numbers(range: std::ops::Range<u16>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_takes_nothing_holds_up_its_publishers_once_and_shortly() {
    let world = with_policy(QueuePolicy::Newest);
    let _stuck = stuck(&world).await;
    let mut good = world.plain("good", Version::V5).await;
    good.subscribe("t", QoS::AtMostOnce).await;
    let mut publisher = world.plain("p", Version::V5).await;
    let started = Instant::now();
    publish_all(&mut publisher, 0..200).await;
    publisher.ping().await;
    assert!(started.elapsed() < Duration::from_millis(300), "{:?}", started.elapsed());
    assert_eq!(payloads(&mut good, 200).await, numbers(0..200));
}

#[tokio::test(start_paused = true)]
async fn of_a_slow_subscriber_the_policy_drops_the_newest_or_the_oldest() {
    for (policy, waited) in [(QueuePolicy::Newest, 16..24), (QueuePolicy::Oldest, 192..200)] {
        let world = with_policy(policy);
        let mut stuck = stuck(&world).await;
        let mut publisher = world.plain("p", Version::V5).await;
        publish_all(&mut publisher, 0..200).await;
        publisher.ping().await;
        assert_eq!(payloads(&mut stuck, 24).await, [numbers(0..16), numbers(waited)].concat());
        // Once it has caught up it is served as before.
        publish_all(&mut publisher, 300..310).await;
        assert_eq!(payloads(&mut stuck, 10).await, numbers(300..310));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_to_a_publisher_survives_it_while_a_subscriber_has_no_room() {
    let world = with_policy(QueuePolicy::Newest);
    let mut stuck = stuck(&world).await;
    let mut publisher = world.plain("p", Version::V5).await;
    // The last one finds no room, and is acknowledged all the same.
    publish_all(&mut publisher, 0..25).await;
    drop(publisher);
    assert_eq!(payloads(&mut stuck, 25).await, numbers(0..25));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_brings_more_retained_messages_than_a_queue_holds() {
    let world = with_policy(QueuePolicy::Newest);
    let mut publisher = world.plain("p", Version::V5).await;
    for number in 0..90_u16 {
        let message = publish(&format!("r/{number:02}"), &number.to_string(), Some(number + 1));
        publisher.send(Packet::Publish(Publish { retain: true, ..message })).await;
        publisher.acked().await;
    }
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let mut client = world.plain("c", Version::V5).await;
        client.subscribe("r/+", qos).await;
        assert_eq!(payloads(&mut client, 90).await, numbers(0..90));
        client.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn retained_messages_wait_for_a_client_that_does_not_acknowledge_and_hold_up_nobody() {
    let world = with_policy(QueuePolicy::Newest);
    let mut publisher = world.plain("p", Version::V5).await;
    for number in 0..90_u16 {
        let message = publish(&format!("t/{number:02}"), &number.to_string(), Some(number + 1));
        publisher.send(Packet::Publish(Publish { retain: true, ..message })).await;
        publisher.acked().await;
    }
    let mut client = world.plain("c", Version::V5).await;
    client.subscribe("t/#", QoS::AtLeastOnce).await;
    let begun = Instant::now();
    publisher.ping().await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(payloads(&mut client, 90).await, numbers(0..90));
    client.ping().await;
}

/// A large payload goes out from where it lies, between what each connection writes of its own.
#[tokio::test(start_paused = true)]
async fn large_messages_reach_all_whole_and_in_order_however_little_is_taken_at_once() {
    for (qos, version) in [(QoS::AtMostOnce, Version::V3_1_1), (QoS::AtLeastOnce, Version::V5)] {
        let world = World::new();
        let mut subscribers = Vec::new();
        for name in ["a", "b", "c"] {
            let mut client = world.plain(name, version).await;
            client.subscribe("t", qos).await;
            subscribers.push(client);
        }
        let mut publisher = world.plain("p", Version::V5).await;
        let sizes = [4_095_usize, 4_096, 10, 60_000, 0, 30_000, 7];
        let texts: Vec<String> = sizes.iter().zip('a'..).map(|(size, c)| String::from(c).repeat(*size)).collect();
        let mut number = 0;
        for text in &texts {
            number += 1;
            let packet = (qos == QoS::AtLeastOnce).then_some(number);
            publisher.publish("t", text, packet).await;
            if packet.is_some() {
                publisher.acked().await;
            }
        }
        for client in &mut subscribers {
            assert!(payloads(client, sizes.len()).await == texts);
            client.ping().await;
        }
    }
}

/// Lets everybody read what is shown in the clear.
fn open_readings(world: &World) {
    let topics = vec![Pattern::parse("{p}/readings/#", "unhidra").expect("a pattern")];
    let (effect, actions, who) = (Effect::Allow, Actions::ALL, Who::Clients);
    let rule = Rule { effect, actions, who, client_ids: None, topics, retain: None, qos: None, line: 1 };
    world.broker.use_rules(RuleSet::new(vec![rule]));
}

async fn show_all(showing: &Showing, numbers: std::ops::Range<u16>) -> usize {
    let mut heard = 0;
    for number in numbers {
        let (device, payload) = (&id("pump-7"), number.to_string().into());
        let reading = Shown { device, name: "t", payload, retain: false, properties: Properties::default() };
        heard += showing.show(reading).await;
    }
    heard
}

const READINGS: &str = "unhidra/readings/pump-7/t";

#[tokio::test(start_paused = true)]
async fn readings_in_the_clear_wait_for_a_client_that_keeps_up_and_none_is_lost() {
    let world = World::new();
    open_readings(&world);
    let showing = Showing::new(world.broker.clone());
    assert_eq!(show_all(&showing, 0..3).await, 0, "nobody is there");
    let mut reader = world.plain("reader", Version::V5).await;
    assert_eq!(reader.subscribe(READINGS, QoS::AtLeastOnce).await, ReasonCode::GrantedQos1);
    let all = tokio::spawn(async move { show_all(&showing, 0..300).await });
    assert_eq!(payloads(&mut reader, 300).await, numbers(0..300));
    assert_eq!(all.await.expect("it ends"), 300);
}

#[tokio::test(start_paused = true)]
async fn readings_in_the_clear_wait_once_and_shortly_for_a_client_that_takes_nothing() {
    let world = with_policy(QueuePolicy::Newest);
    open_readings(&world);
    let mut stuck = world.plain("stuck", Version::V5).await;
    stuck.subscribe(READINGS, QoS::AtLeastOnce).await;
    let mut good = world.plain("good", Version::V5).await;
    good.subscribe(READINGS, QoS::AtMostOnce).await;
    let (showing, started) = (Showing::new(world.broker.clone()), Instant::now());
    let all = tokio::spawn(async move { show_all(&showing, 0..200).await });
    assert_eq!(payloads(&mut good, 200).await, numbers(0..200));
    assert_eq!(all.await.expect("it ends"), 400);
    assert!(started.elapsed() < Duration::from_millis(300), "{:?}", started.elapsed());
    // What fits: 16 on their way and 8 that wait.
    assert_eq!(payloads(&mut stuck, 24).await, numbers(0..24));
}
