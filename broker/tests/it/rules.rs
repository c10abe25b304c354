//! Rules of an operator, seen by clients.

use unhidra_broker::acl::{Actions, Effect, Pattern, Rule, RuleSet, Who};
use unhidra_broker::packet::*;
use unhidra_broker::{ClientRecord, ClientStanding};

use crate::world::*;

const SAID: &str = "unhidra/devices/pump-7/messages";

fn rule(effect: Effect, action: &str, topic: &str) -> Rule {
    let actions = match action {
        "read" => Actions { read: true, ..Actions::default() },
        "subscribe" => Actions { subscribe: true, ..Actions::default() },
        _ => Actions::ALL,
    };
    let topics = vec![Pattern::parse(topic, "unhidra").expect("a pattern")];
    Rule { effect, actions, who: Who::Clients, client_ids: None, topics, retain: None, qos: None, line: 1 }
}

fn use_rules(world: &World, rules: impl IntoIterator<Item = Rule>) {
    world.broker.use_rules(RuleSet::new(rules.into_iter().collect()));
}

#[tokio::test(start_paused = true)]
async fn a_denied_topic_is_held_back_from_a_wider_filter_retained_or_not() {
    let world = World::new();
    use_rules(&world, [rule(Effect::Deny, "read", "secret/#")]);
    let mut client = world.plain("c", Version::V5).await;
    for topic in ["secret/a", "open/a"] {
        client.send(Packet::Publish(Publish { retain: true, ..publish(topic, "kept", None) })).await;
    }
    for filter in ["#", "$share/g/+/+", "secret/a"] {
        assert_eq!(client.subscribe(filter, QoS::AtMostOnce).await, ReasonCode::Success, "{filter}");
        // What is retained comes for `#` alone: not to a share, and not what is secret.
        if filter == "#" {
            assert_eq!(client.message().await.topic.as_str(), "open/a");
        }
    }
    client.publish("secret/a", "x", None).await;
    client.publish("open/b", "x", None).await;
    for _ in ["#", "its share"] {
        assert_eq!(client.message().await.topic.as_str(), "open/b");
    }
    client.ping().await;
}

#[tokio::test(start_paused = true)]
async fn a_will_is_held_to_the_rules() {
    let world = World::new();
    use_rules(&world, [rule(Effect::Deny, "all", "closed/#")]);
    let will = |topic| Will {
        topic: text(topic),
        payload: bytes::Bytes::from("gone"),
        qos: QoS::AtMostOnce,
        retain: false,
        properties: Properties::default(),
    };
    for (topic, reason) in [("closed/x", ReasonCode::NotAuthorized), ("open/x", ReasonCode::Success)] {
        let asked = Connect { will: Some(will(topic)), ..connect(Version::V5, "c") };
        let mut client = world.client(unhidra_broker::Identity::Anonymous, Version::V5);
        client.send(Packet::Connect(Box::new(asked))).await;
        match client.packet().await {
            Packet::ConnAck(ack) => assert_eq!(ack.reason, reason, "{topic}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn other_rules_end_subscriptions_and_open_others_while_clients_stay() {
    let world = World::new();
    let mut client = world.plain("c", Version::V5).await;
    client.subscribe("a/#", QoS::AtMostOnce).await;
    client.subscribe("b/#", QoS::AtMostOnce).await;
    use_rules(&world, [rule(Effect::Deny, "subscribe", "a/#"), rule(Effect::Deny, "read", "b/secret")]);
    client.ping().await;
    for topic in ["a/x", "b/secret", "b/x"] {
        client.publish(topic, "x", None).await;
    }
    assert_eq!(client.message().await.topic.as_str(), "b/x");
    assert_eq!(client.subscribe("a/#", QoS::AtMostOnce).await, ReasonCode::NotAuthorized);
    use_rules(&world, []);
    client.ping().await;
    client.publish("a/x", "x", None).await;
    client.publish("b/secret", "x", None).await;
    assert_eq!(client.message().await.topic.as_str(), "b/secret", "what was lost must be asked for anew");
    client.ping().await;
}

#[tokio::test(start_paused = true)]
async fn a_stored_session_loses_its_right_too() {
    let world = World::new();
    let stays = || {
        let properties = [Property::SessionExpiryInterval(100)].into_iter().collect();
        Connect { clean_start: false, properties, ..connect(Version::V5, "away") }
    };
    let mut away = world.client(unhidra_broker::Identity::Anonymous, Version::V5);
    away.connect(stays()).await;
    away.subscribe("a/#", QoS::AtLeastOnce).await;
    away.subscribe("b", QoS::AtLeastOnce).await;
    away.send(Packet::Disconnect(Disconnect::new(ReasonCode::Success))).await;
    let mut client = world.plain("c", Version::V5).await;
    // Its session is stored before anything is said about it.
    let is_away = |record: &ClientRecord| matches!(record.standing, ClientStanding::Away { .. });
    while world.broker.clients(None, 9, is_away).clients.is_empty() {
        client.ping().await;
    }
    use_rules(&world, [rule(Effect::Deny, "subscribe", "a/#")]);
    client.publish("a/x", "x", Some(1)).await;
    assert_eq!(client.acked().await.1, ReasonCode::NoMatchingSubscribers);
    client.publish("b", "x", Some(2)).await;
    assert_eq!(client.acked().await.1, ReasonCode::Success);
}

#[tokio::test(start_paused = true)]
async fn what_a_device_says_is_shown_as_it_is_to_those_a_rule_names_it_for() {
    let mut world = World::new();
    let (mut pump, _) = world.device("pump-7", Version::V5).await;
    let mut client = world.plain("c", Version::V5).await;
    assert_eq!(client.subscribe(SAID, QoS::AtMostOnce).await, ReasonCode::NotAuthorized);
    client.subscribe("#", QoS::AtMostOnce).await;
    pump.publish(SAID, "sealed", None).await;
    assert_eq!(accept(world.delivery().await).1, "sealed");
    client.ping().await;

    use_rules(&world, [rule(Effect::Allow, "subscribe", "{p}/devices/+/messages")]);
    client.ping().await;
    assert_eq!(client.subscribe("unhidra/devices/#", QoS::AtMostOnce).await, ReasonCode::NotAuthorized);
    pump.publish(SAID, "sealed too", Some(1)).await;
    assert_eq!(accept(world.delivery().await).1, "sealed too");
    let shown = client.message().await;
    assert_eq!((shown.topic.as_str(), shown.payload), (SAID, bytes::Bytes::from("sealed too")));
    // Nobody forges it, whatever the rules say.
    use_rules(&world, [rule(Effect::Allow, "all", "{p}/#")]);
    client.publish(SAID, "forged", Some(9)).await;
    assert_eq!(client.acked().await, (9, ReasonCode::NotAuthorized));
    world.no_event();
}
