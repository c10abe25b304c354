//! Shared subscriptions (section 4.8.2).

use unhidra_broker::packet::*;
use unhidra_broker::*;

use crate::world::*;

const VERSIONS: [Version; 2] = [Version::V3_1_1, Version::V5];

fn stays(client_id: &str) -> Connect {
    let properties = [Property::SessionExpiryInterval(100)].into_iter().collect();
    Connect { clean_start: false, properties, ..connect(Version::V5, client_id) }
}

#[tokio::test(start_paused = true)]
async fn a_group_takes_turns_in_both_versions() {
    for version in VERSIONS {
        let world = World::new();
        let mut members = Vec::new();
        for name in ["a", "b", "c"] {
            let mut member = world.plain(name, version).await;
            assert_eq!(member.subscribe("$share/g/t/+", QoS::AtMostOnce).await, ReasonCode::Success);
            members.push(member);
        }
        let mut publisher = world.plain("p", version).await;
        for number in 0..9 {
            publisher.publish("t/x", &number.to_string(), None).await;
        }
        publisher.ping().await;
        for (first, member) in members.iter_mut().enumerate() {
            for round in 0..3 {
                assert_eq!(member.message().await.payload, (first + 3 * round).to_string());
            }
            member.ping().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_gets_no_retained_messages_and_its_members_their_own_subscriptions_too() {
    let world = World::new();
    let mut client = world.plain("c", Version::V5).await;
    client.send(Packet::Publish(Publish { retain: true, ..publish("t", "kept", None) })).await;
    client.subscribe("$share/g/t", QoS::AtMostOnce).await;
    client.ping().await;
    client.subscribe("t", QoS::AtMostOnce).await;
    assert_eq!(client.message().await.payload, "kept");
    client.publish("t", "x", None).await;
    for _ in 0..2 {
        assert_eq!(client.message().await.payload, "x");
    }
    client.ping().await;
}

#[tokio::test(start_paused = true)]
async fn no_local_on_a_shared_subscription_is_a_protocol_error() {
    let world = World::new();
    let mut client = world.plain("c", Version::V5).await;
    let options = SubscriptionOptions { no_local: true, ..SubscriptionOptions::with_qos(QoS::AtMostOnce) };
    let filters = vec![SubscribeFilter { filter: text("$share/g/t"), options }];
    let properties = Properties::default();
    client.send(Packet::Subscribe(Subscribe { packet_id: packet_id(1), properties, filters })).await;
    client.ended(ReasonCode::ProtocolError).await;
}

/// What a member had been sent and had not acknowledged, and what waited for it, goes to another
/// when its session ends; of QoS 2 only what had not been sent [MQTT-4.8.2-5].
#[tokio::test(start_paused = true)]
async fn a_member_that_dies_loses_nothing() {
    for (qos, expected) in [(QoS::AtLeastOnce, ["0", "1", "2"].as_slice()), (QoS::ExactlyOnce, &["2"])] {
        let world = World::new();
        let mut dying = world.client(Identity::Anonymous, Version::V5);
        let properties = [Property::ReceiveMaximum(2)].into_iter().collect();
        dying.connect(Connect { properties, ..connect(Version::V5, "dying") }).await;
        dying.subscribe("$share/g/t", qos).await;
        let mut publisher = world.plain("p", Version::V5).await;
        for number in 0..3_u16 {
            let assurance = match qos {
                QoS::ExactlyOnce => Assurance::ExactlyOnce { packet_id: packet_id(number + 1), dup: false },
                _ => Assurance::AtLeastOnce { packet_id: packet_id(number + 1), dup: false },
            };
            publisher.send(Packet::Publish(Publish { assurance, ..publish("t", &number.to_string(), None) })).await;
            publisher.packet().await;
        }
        for number in 0..2 {
            assert_eq!(dying.message().await.payload, number.to_string());
        }
        let mut other = world.plain("other", Version::V5).await;
        other.subscribe("$share/g/t", qos).await;
        drop(dying);
        for payload in expected {
            assert_eq!(other.message().await.payload, payload);
        }
        other.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_member_that_is_lost_goes_to_one_that_is_there_at_once() {
    let world = World::new();
    let mut away = world.client(Identity::Anonymous, Version::V5);
    let mut properties = stays("away").properties;
    properties.push(Property::ReceiveMaximum(1));
    away.connect(Connect { properties, ..stays("away") }).await;
    away.subscribe("$share/g/t", QoS::AtLeastOnce).await;
    let mut publisher = world.plain("p", Version::V5).await;
    for number in 0..2_u16 {
        publisher.publish("t", &number.to_string(), Some(number + 1)).await;
        publisher.acked().await;
    }
    assert_eq!(away.message().await.payload, "0");
    let mut other = world.plain("other", Version::V5).await;
    other.subscribe("$share/g/t", QoS::AtLeastOnce).await;
    drop(away);
    assert_eq!(other.message().await.payload, "1");
    // What it has been sent is still its own, while its session waits.
    other.ping().await;
    let mut back = world.client(Identity::Anonymous, Version::V5);
    assert!(back.connect(stays("away")).await.session_present);
    assert_eq!(back.message().await.payload, "0");
}

#[tokio::test(start_paused = true)]
async fn with_all_members_away_messages_wait_in_their_sessions() {
    let world = World::new();
    let mut away = world.client(Identity::Anonymous, Version::V5);
    away.connect(stays("away")).await;
    away.subscribe("$share/g/t", QoS::AtLeastOnce).await;
    drop(away);
    let mut publisher = world.plain("p", Version::V5).await;
    publisher.publish("t", "x", Some(1)).await;
    assert_eq!(publisher.acked().await, (1, ReasonCode::Success));
    let mut back = world.client(Identity::Anonymous, Version::V5);
    back.connect(stays("away")).await;
    assert_eq!(back.message().await.payload, "x");
}

#[tokio::test(start_paused = true)]
async fn who_leaves_a_group_gets_nothing_more() {
    let world = World::new();
    let mut member = world.plain("m", Version::V5).await;
    member.subscribe("$share/g/t", QoS::AtMostOnce).await;
    let filters = vec![text("$share/g/t")];
    member
        .send(Packet::Unsubscribe(Unsubscribe { packet_id: packet_id(1), properties: Properties::default(), filters }))
        .await;
    assert!(matches!(member.packet().await, Packet::UnsubAck(ack) if ack.reasons == [ReasonCode::Success]));
    member.publish("t", "x", Some(1)).await;
    assert_eq!(member.acked().await, (1, ReasonCode::NoMatchingSubscribers));
}

/// It waited for the one, and the other has room first.
#[tokio::test(start_paused = true)]
async fn what_waits_for_a_member_goes_to_another_that_has_room_before() {
    let world = World::new();
    let max = config().limits.queue_messages_max;
    let mut members = Vec::new();
    for name in ["a", "b"] {
        let mut member = world.client(Identity::Anonymous, Version::V5);
        let properties = [Property::ReceiveMaximum(1)].into_iter().collect();
        member.connect(Connect { properties, ..connect(Version::V5, name) }).await;
        member.subscribe("$share/g/t", QoS::AtLeastOnce).await;
        members.push(member);
    }
    let mut publisher = world.plain("p", Version::V5).await;
    // One with each on its way, and their queues full.
    for number in 0..2 * (max + 1) {
        publisher.publish("t", &number.to_string(), Some(1)).await;
        publisher.acked().await;
    }
    // It is the first one's turn, which takes nothing more.
    publisher.publish("t", "last", Some(1)).await;
    let mut heard = Vec::new();
    while heard.last().is_none_or(|payload| payload != "last") {
        let message = members[1].message().await;
        let Assurance::AtLeastOnce { packet_id, .. } = message.assurance else { panic!("{message:?}") };
        members[1].puback(packet_id, ReasonCode::Success).await;
        heard.push(message.payload);
    }
    assert_eq!(heard.len(), max + 2);
}

/// A member that leaves asks its group for others while messages are dealt to it. Neither may wait for what the
/// other holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn members_that_leave_while_messages_are_dealt_hold_up_nobody() {
    let mut config = config();
    (config.limits.queue_messages_max, config.limits.receive_max) = (5000, 100);
    let world = std::sync::Arc::new(World::with(config));
    let member = |name: &'static str| {
        let world = world.clone();
        tokio::spawn(async move {
            for _ in 0..300 {
                let mut member = world.client(Identity::Anonymous, Version::V5);
                let mut properties = stays(name).properties;
                properties.push(Property::ReceiveMaximum(1));
                if !member.connect(Connect { properties, ..stays(name) }).await.session_present {
                    member.subscribe("$share/g/t", QoS::AtLeastOnce).await;
                }
                // The first is not acknowledged: what comes behind it waits.
                for _ in 0..20 {
                    member.send(Packet::PingReq).await;
                    while !matches!(member.packet().await, Packet::PingResp) {}
                }
            }
        })
    };
    let members = [member("a"), member("b")];
    // What this one has published fills their queues, and it waits then.
    let filling = tokio::spawn({
        let world = world.clone();
        async move {
            let mut publisher = world.plain("p", Version::V5).await;
            loop {
                publisher.send_all((1..=100).map(|number| Packet::Publish(publish("t", "x", Some(number))))).await;
                for _ in 0..100 {
                    publisher.acked().await;
                }
            }
        }
    });
    // For this one nobody waits: it has them dealt all the time.
    let dealing = tokio::spawn({
        let world = world.clone();
        async move {
            let mut publisher = world.plain("q", Version::V5).await;
            loop {
                publisher.send_all((0..100).map(|_| Packet::Publish(publish("t", "x", None)))).await;
                publisher.ping().await;
            }
        }
    });
    for member in members {
        tokio::time::timeout(std::time::Duration::from_secs(60), member).await.expect("nobody waits for good").unwrap();
    }
    [filling, dealing].iter().for_each(tokio::task::JoinHandle::abort);
}
