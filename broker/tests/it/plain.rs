//! Plain clients: routing, retained messages, Wills, sessions, flow.

use std::time::Duration;

use unhidra_broker::packet::*;
use unhidra_broker::*;

use crate::world::*;

const VERSIONS: [Version; 2] = [Version::V3_1_1, Version::V5];

#[tokio::test(start_paused = true)]
async fn a_message_reaches_subscribers_of_both_versions() {
    let world = World::new();
    let mut old = world.plain("old", Version::V3_1_1).await;
    let mut new = world.plain("new", Version::V5).await;
    old.subscribe("a/+", QoS::AtLeastOnce).await;
    new.subscribe("a/#", QoS::AtMostOnce).await;
    let mut publisher = world.plain("publisher", Version::V5).await;
    let properties: Properties = [Property::UserProperty(text("k"), text("v"))].into_iter().collect();
    publisher.send(Packet::Publish(Publish { properties: properties.clone(), ..publish("a/b", "x", Some(1)) })).await;
    assert_eq!(publisher.acked().await, (1, ReasonCode::Success));
    let message = old.message().await;
    assert!(matches!(message.assurance, Assurance::AtLeastOnce { dup: false, .. }) && message.payload == "x");
    let message = new.message().await;
    assert_eq!((message.assurance, message.properties), (Assurance::AtMostOnce, properties));
    publisher.publish("nobody", "x", Some(2)).await;
    assert_eq!(publisher.acked().await, (2, ReasonCode::NoMatchingSubscribers));
}

#[tokio::test(start_paused = true)]
async fn overlapping_subscriptions_bring_one_message_with_all_identifiers() {
    let world = World::new();
    let mut client = world.plain("c", Version::V5).await;
    for (filter, number) in [("a/+", 1), ("a/#", 2)] {
        let properties = [Property::SubscriptionIdentifier(number)].into_iter().collect();
        client.subscribe_with(filter, SubscriptionOptions::with_qos(QoS::AtMostOnce), properties).await;
    }
    client.publish("a/b", "x", None).await;
    let message = client.message().await;
    for number in [1, 2] {
        let wanted = Property::SubscriptionIdentifier(number);
        assert!(message.properties.iter().any(|property| *property == wanted), "{message:?}");
    }
    client.ping().await;
}

#[tokio::test(start_paused = true)]
async fn a_retained_message_waits_for_its_subscribers() {
    for version in VERSIONS {
        let world = World::new();
        let mut client = world.plain("c", version).await;
        client.send(Packet::Publish(Publish { retain: true, ..publish("a/b", "kept", Some(1)) })).await;
        client.acked().await;
        client.subscribe("a/+", QoS::AtLeastOnce).await;
        let message = client.message().await;
        assert!(message.retain && message.payload == "kept");
        // An empty payload without RETAIN clears nothing.
        client.publish("a/b", "", None).await;
        assert!(!client.message().await.retain);
        client.subscribe("a/b", QoS::AtMostOnce).await;
        assert_eq!(client.message().await.payload, "kept");
        client.send(Packet::Publish(Publish { retain: true, ..publish("a/b", "", None) })).await;
        assert_eq!(client.message().await.payload, "");
        client.subscribe("a/b", QoS::AtMostOnce).await;
        client.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn retain_handling_says_when_retained_messages_are_sent() {
    let world = World::new();
    let mut client = world.plain("c", Version::V5).await;
    client.send(Packet::Publish(Publish { retain: true, ..publish("a", "kept", None) })).await;
    for (retain_handling, filter, is_sent) in [
        (RetainHandling::DoNotSend, "a", false),
        (RetainHandling::SendIfNew, "a", false),
        (RetainHandling::Send, "a", true),
        (RetainHandling::SendIfNew, "+", true),
    ] {
        let options = SubscriptionOptions { retain_handling, ..SubscriptionOptions::with_qos(QoS::AtMostOnce) };
        client.subscribe_with(filter, options, Properties::default()).await;
        if is_sent {
            assert!(client.message().await.retain);
        }
        client.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_will_is_published_when_its_client_is_lost_and_not_when_it_leaves() {
    for version in VERSIONS {
        let world = World::new();
        let mut watcher = world.plain("watcher", version).await;
        watcher.subscribe("will", QoS::AtMostOnce).await;
        let asked = || {
            let (topic, payload, properties) = (text("will"), "gone".into(), Properties::default());
            let will = Will { topic, payload, qos: QoS::AtMostOnce, retain: false, properties };
            Connect { will: Some(will), ..connect(version, "c") }
        };
        let mut client = world.client(Identity::Anonymous, version);
        client.connect(asked()).await;
        client.send(Packet::Disconnect(Disconnect::new(ReasonCode::Success))).await;
        assert_eq!(client.hear().await, Heard::End);
        watcher.ping().await;
        let mut client = world.client(Identity::Anonymous, version);
        client.connect(asked()).await;
        drop(client);
        assert_eq!(watcher.message().await.payload, "gone");
    }
}

#[tokio::test(start_paused = true)]
async fn a_will_waits_for_its_delay_and_not_for_a_client_that_is_back() {
    let world = World::new();
    let mut watcher = world.plain("watcher", Version::V5).await;
    watcher.subscribe("will", QoS::AtMostOnce).await;
    let asked = || {
        let properties = [Property::WillDelayInterval(30)].into_iter().collect();
        let will =
            Will { topic: text("will"), payload: "gone".into(), qos: QoS::AtMostOnce, retain: false, properties };
        let properties = [Property::SessionExpiryInterval(100)].into_iter().collect();
        Connect { will: Some(will), clean_start: false, properties, ..connect(Version::V5, "c") }
    };
    let lose = async |present| {
        let mut client = world.client(Identity::Anonymous, Version::V5);
        assert_eq!(client.connect(asked()).await.session_present, present);
    };
    lose(false).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    lose(true).await;
    tokio::time::sleep(Duration::from_secs(29)).await;
    watcher.ping().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(watcher.message().await.payload, "gone");
    watcher.ping().await;
}

fn config_with(queue_policy: QueuePolicy, queue_patience_ms: u64) -> Config {
    let mut config = config();
    (config.limits.queue_policy, config.limits.queue_patience_ms) = (queue_policy, queue_patience_ms);
    config
}

fn stays(version: Version, client_id: &str) -> Connect {
    let properties = match version {
        Version::V3_1_1 => Properties::default(),
        Version::V5 => [Property::SessionExpiryInterval(100)].into_iter().collect(),
    };
    Connect { clean_start: false, properties, ..connect(version, client_id) }
}

#[tokio::test(start_paused = true)]
async fn a_stored_session_keeps_qos_1_messages_up_to_its_bound() {
    for version in VERSIONS {
        let world = World::new();
        let mut client = world.client(Identity::Anonymous, version);
        client.connect(stays(version, "c")).await;
        client.subscribe("a", QoS::AtLeastOnce).await;
        let mut publisher = world.plain("p", Version::V5).await;
        // In flight when the connection ends: sent again, as a repeat, under its identifier.
        publisher.publish("a", "0", Some(1)).await;
        publisher.acked().await;
        let first = client.message().await;
        drop(client);
        world.plain("fence", version).await.ping().await;
        publisher.publish("a", "lost", None).await;
        for number in 1..=10_u16 {
            publisher.publish("a", &number.to_string(), Some(number)).await;
            publisher.acked().await;
        }
        let mut client = world.client(Identity::Anonymous, version);
        assert!(client.connect(stays(version, "c")).await.session_present);
        let again = client.message().await;
        let (Assurance::AtLeastOnce { packet_id: before, .. }, Assurance::AtLeastOnce { packet_id, dup }) =
            (first.assurance, again.assurance)
        else {
            panic!("{first:?} {again:?}")
        };
        assert!(before == packet_id && dup && again.payload == "0");
        for number in 1..=8 {
            assert_eq!(client.message().await.payload, number.to_string());
        }
        client.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn message_expiry_counts_down_in_the_queue() {
    let world = World::new();
    let mut client = world.client(Identity::Anonymous, Version::V5);
    client.connect(stays(Version::V5, "c")).await;
    client.subscribe("a", QoS::AtLeastOnce).await;
    drop(client);
    let mut publisher = world.plain("p", Version::V5).await;
    for (number, expiry_s) in [(1, 5), (2, 50)] {
        let properties = [Property::MessageExpiryInterval(expiry_s)].into_iter().collect();
        let message = Publish { properties, ..publish("a", &number.to_string(), Some(number)) };
        publisher.send(Packet::Publish(message)).await;
        publisher.acked().await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let mut client = world.client(Identity::Anonymous, Version::V5);
    client.connect(stays(Version::V5, "c")).await;
    let message = client.message().await;
    let left = message.properties.iter().next().cloned();
    assert_eq!((message.payload.as_ref(), left), (&b"2"[..], Some(Property::MessageExpiryInterval(40))));
}

#[tokio::test(start_paused = true)]
async fn a_second_client_with_the_identifier_takes_over() {
    let world = World::new();
    let mut old = world.client(Identity::Anonymous, Version::V5);
    old.connect(stays(Version::V5, "c")).await;
    old.subscribe("a", QoS::AtMostOnce).await;
    let mut new = world.client(Identity::Anonymous, Version::V3_1_1);
    assert!(new.connect(stays(Version::V3_1_1, "c")).await.session_present);
    old.ended(ReasonCode::SessionTakenOver).await;
    new.publish("a", "x", None).await;
    assert_eq!(new.message().await.payload, "x");
}

#[tokio::test(start_paused = true)]
async fn an_identity_takes_over_no_session_of_another() {
    let mut world = World::new();
    let mut plain = world.plain("pump-7", Version::V5).await;
    let (mut device, _) = world.device("pump-7", Version::V5).await;
    plain.ping().await;
    device.ping().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_without_an_identifier_is_given_one() {
    let world = World::new();
    let mut given = Vec::new();
    for _ in 0..2 {
        let mut client = world.client(Identity::Anonymous, Version::V5);
        let ack = client.connect(connect(Version::V5, "")).await;
        given.extend(ack.properties.iter().find_map(|property| match property {
            Property::AssignedClientIdentifier(id) => Some(id.as_str().to_owned()),
            _ => None,
        }));
    }
    assert!(given.len() == 2 && given[0] != given[1], "{given:?}");
}

#[tokio::test(start_paused = true)]
async fn the_clients_receive_maximum_holds_messages_back() {
    let world = World::new();
    let mut client = world.client(Identity::Anonymous, Version::V5);
    let properties = [Property::ReceiveMaximum(2)].into_iter().collect();
    client.connect(Connect { properties, ..connect(Version::V5, "c") }).await;
    client.subscribe("a", QoS::AtLeastOnce).await;
    let mut publisher = world.plain("p", Version::V5).await;
    for number in 1..=5 {
        publisher.publish("a", &number.to_string(), Some(number)).await;
        publisher.acked().await;
    }
    let (first, _) = (client.message().await, client.message().await);
    client.ping().await;
    let Assurance::AtLeastOnce { packet_id, .. } = first.assurance else { panic!("{first:?}") };
    client.puback(packet_id, ReasonCode::Success).await;
    assert_eq!(client.message().await.payload, "3");
    client.ping().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_larger_than_a_client_takes_is_left_out() {
    let world = World::new();
    let mut client = world.client(Identity::Anonymous, Version::V5);
    let properties = [Property::MaximumPacketSize(60)].into_iter().collect();
    client.connect(Connect { properties, ..connect(Version::V5, "c") }).await;
    client.subscribe("a", QoS::AtLeastOnce).await;
    for payload in ["y".repeat(60), "x".into()] {
        client.publish("a", &payload, None).await;
    }
    assert_eq!(client.message().await.payload, "x");
}

#[tokio::test(start_paused = true)]
async fn a_fast_publisher_waits_for_a_subscriber_and_loses_nothing() {
    let world = World::new();
    let mut subscriber = world.plain("s", Version::V5).await;
    subscriber.subscribe("a", QoS::AtMostOnce).await;
    let mut publisher = world.plain("p", Version::V5).await;
    let count = 2_000;
    // Far more than queue, buffers and streams hold together.
    let body = "z".repeat(1_000);
    let sending = tokio::spawn(async move {
        for number in 0..count {
            publisher.publish("a", &format!("{number} {body}"), None).await;
        }
        publisher
    });
    for number in 0..count {
        let message = subscriber.message().await;
        assert!(message.payload.starts_with(format!("{number} ").as_bytes()), "{number}");
    }
    sending.await.expect("sent").ping().await;
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_takes_nothing_is_closed_and_its_publishers_go_on() {
    let world = World::new();
    let mut slow = Vec::new();
    for name in ["slow", "slower"] {
        let mut client = world.plain(name, Version::V5).await;
        client.subscribe("a", QoS::AtLeastOnce).await;
        slow.push(client);
    }
    let mut good = world.plain("good", Version::V5).await;
    good.subscribe("b", QoS::AtLeastOnce).await;
    let mut publisher = world.plain("p", Version::V5).await;
    let body = "z".repeat(10_000);
    for _ in 0..100 {
        publisher.publish("a", &body, None).await;
    }
    publisher.publish("b", "done", None).await;
    // They hold up their publishers so long, once.
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(good.message().await.payload, "done");
    publisher.ping().await;
    for mut client in slow {
        while client.hear().await != Heard::End {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_makes_room_in_time_is_not_closed_with_one_that_does_not() {
    for names in [["late", "never"], ["never", "late"]] {
        let world = World::with(config_with(QueuePolicy::Disconnect, 6_000));
        let mut clients = Vec::new();
        for name in names {
            let mut client = world.plain(name, Version::V5).await;
            client.subscribe("a", QoS::AtLeastOnce).await;
            clients.push((name, client));
        }
        clients.sort_by_key(|(name, _)| *name);
        let [(_, late), (_, never)] = &mut clients[..] else { panic!("two clients") };
        // Neither acknowledges: what may be in flight is, the queues are full, and one waits.
        let mut publisher = world.plain("p", Version::V5).await;
        for number in 1..=40 {
            publisher.publish("a", &number.to_string(), Some(number)).await;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        for number in 1..=40 {
            let message = late.message().await;
            assert_eq!(message.payload, number.to_string());
            let Assurance::AtLeastOnce { packet_id, .. } = message.assurance else { panic!("{message:?}") };
            late.puback(packet_id, ReasonCode::Success).await;
        }
        for _ in 0..16 {
            never.message().await;
        }
        never.ended(ReasonCode::QuotaExceeded).await;
    }
}

#[tokio::test(start_paused = true)]
async fn keep_alive_ends_a_silent_client_and_0_never_does() {
    let world = World::new();
    let mut silent = world.client(Identity::Anonymous, Version::V5);
    silent.connect(Connect { keep_alive_s: 10, ..connect(Version::V5, "silent") }).await;
    let mut patient = world.client(Identity::Anonymous, Version::V5);
    patient.connect(Connect { keep_alive_s: 0, ..connect(Version::V5, "patient") }).await;
    let started = tokio::time::Instant::now();
    tokio::time::sleep(Duration::from_secs(14)).await;
    silent.ended(ReasonCode::KeepAliveTimeout).await;
    let waited = started.elapsed();
    assert!(waited >= Duration::from_secs(15) && waited < Duration::from_secs(16), "{waited:?}");
    tokio::time::sleep(Duration::from_secs(100_000)).await;
    patient.ping().await;
}
