//! What a connection, or the node, still owes when it goes: retained messages and Wills.

use std::collections::BTreeSet;
use std::time::Duration;

use unhidra_broker::acl::{Actions, Effect, Pattern, Rule, RuleSet, Who};
use unhidra_broker::packet::*;
use unhidra_broker::*;

use crate::disk::Disk;
use crate::world::*;

/// More than half of a queue and than what may be in flight.
const MANY: usize = 40;

fn stays(version: Version, client_id: &str) -> Connect {
    let mut connect = Connect { clean_start: false, ..connect(version, client_id) };
    if version == Version::V5 {
        connect.properties.push(Property::SessionExpiryInterval(1_000));
    }
    connect
}

async fn enter(world: &World, version: Version) -> (Client, bool) {
    let mut client = world.client(Identity::Anonymous, version);
    let ack = client.connect(stays(version, "s")).await;
    (client, ack.session_present)
}

async fn retain_many(world: &World) -> BTreeSet<String> {
    let mut publisher = world.plain("p", Version::V5).await;
    let topics: BTreeSet<String> = (0..MANY).map(|number| format!("a/{number:02}")).collect();
    for topic in &topics {
        publisher.send(Packet::Publish(Publish { retain: true, ..publish(topic, "kept", Some(1)) })).await;
        assert_eq!(publisher.acked().await.0, 1);
    }
    topics
}

/// Hears and acknowledges messages until there are no more: each topic, and how many came.
async fn hear_all(client: &mut Client) -> (BTreeSet<String>, usize) {
    let (mut topics, mut count) = (BTreeSet::new(), 0);
    loop {
        client.send(Packet::PingReq).await;
        let before = count;
        loop {
            match client.packet().await {
                Packet::Publish(message) => {
                    assert!(message.retain, "{message:?}");
                    topics.insert(message.topic.as_str().to_owned());
                    count += 1;
                    let Assurance::AtLeastOnce { packet_id, .. } = message.assurance else { panic!("{message:?}") };
                    client.puback(packet_id, ReasonCode::Success).await;
                }
                Packet::PingResp => break,
                other => panic!("{other:?}"),
            }
        }
        if count == before {
            return (topics, count);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn retained_messages_a_lost_connection_owes_are_sent_to_the_next_one() {
    for version in [Version::V3_1_1, Version::V5] {
        let world = World::new();
        let topics = retain_many(&world).await;
        let (mut client, _) = enter(&world, version).await;
        client.subscribe("a/#", QoS::AtLeastOnce).await;
        client.message().await;
        drop(client);
        let (mut client, present) = enter(&world, version).await;
        assert!(present);
        let (heard, count) = hear_all(&mut client).await;
        assert_eq!((&heard, count), (&topics, MANY), "those in flight come again, the others once");
        drop(client);
        let (mut client, _) = enter(&world, version).await;
        assert_eq!(hear_all(&mut client).await.1, 0, "nothing is owed any more");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_unsubscribed_is_owed_nothing_more() {
    let world = World::new();
    retain_many(&world).await;
    let (mut client, _) = enter(&world, Version::V5).await;
    client.subscribe("a/#", QoS::AtLeastOnce).await;
    drop(client);
    let (mut client, _) = enter(&world, Version::V5).await;
    let filters = vec![text("a/#")];
    let unsubscribe = Unsubscribe { packet_id: packet_id(8), properties: Properties::default(), filters };
    client.send(Packet::Unsubscribe(unsubscribe)).await;
    // What was in its queue before comes still.
    let mut late = 0;
    loop {
        match client.packet().await {
            Packet::Publish(message) => {
                late += 1;
                let Assurance::AtLeastOnce { packet_id, .. } = message.assurance else { panic!("{message:?}") };
                client.puback(packet_id, ReasonCode::Success).await;
            }
            Packet::UnsubAck(_) => break,
            other => panic!("{other:?}"),
        }
    }
    let (_, rest) = hear_all(&mut client).await;
    assert!(late + rest < MANY, "{late} and {rest}");
}

#[tokio::test(start_paused = true)]
async fn retained_messages_the_node_owed_when_it_died_are_sent_by_the_next_one_and_once_paid_no_more() {
    for version in [Version::V3_1_1, Version::V5] {
        let disk = Disk::new();
        let world = World::on(disk.clone()).await;
        let topics = retain_many(&world).await;
        let (mut client, _) = enter(&world, version).await;
        disk.stand_still();
        let filters = ["a/#", "none/#"].map(|filter| SubscribeFilter {
            filter: text(filter),
            options: SubscriptionOptions::with_qos(QoS::AtLeastOnce),
        });
        let (packet_id, properties) = (packet_id(9), Properties::default());
        client.send(Packet::Subscribe(Subscribe { packet_id, properties, filters: filters.into() })).await;
        let mut other = world.plain("other", version).await;
        other.ping().await;
        // What it subscribed to, and nothing that is sent for it, is on the disk.
        disk.step(1);
        while !matches!(client.packet().await, Packet::SubAck(_)) {}

        let disk = disk.after_crash();
        let world = World::on(disk.clone()).await;
        let (mut client, present) = enter(&world, version).await;
        assert!(present);
        assert_eq!(hear_all(&mut client).await, (topics, MANY));
        let world = World::on(disk.after_crash()).await;
        let (mut client, present) = enter(&world, version).await;
        assert!(present);
        assert_eq!(hear_all(&mut client).await.1, 0, "it is paid");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_owed_is_held_to_the_rules_of_the_moment() {
    let world = World::new();
    let mut topics = retain_many(&world).await;
    let (mut client, _) = enter(&world, Version::V5).await;
    client.subscribe("#", QoS::AtLeastOnce).await;
    drop(client);
    world.plain("other", Version::V5).await.ping().await;
    let rule = Rule {
        effect: Effect::Deny,
        actions: Actions { read: true, ..Actions::default() },
        who: Who::Clients,
        client_ids: None,
        topics: vec![Pattern::parse("a/39", "unhidra").expect("a pattern")],
        retain: None,
        qos: None,
        line: 1,
    };
    world.broker.use_rules(RuleSet::new(vec![rule]));
    let (mut client, _) = enter(&world, Version::V5).await;
    topics.remove("a/39");
    assert_eq!(hear_all(&mut client).await.0, topics);
}

// Wills.

fn with_will(connect: Connect, delay_s: u32) -> Connect {
    let properties = [Property::WillDelayInterval(delay_s)].into_iter().filter(|_| delay_s > 0).collect();
    let topic = text(&format!("will/{}", connect.client_id.as_str()));
    let will = Will { topic, payload: "gone".into(), qos: QoS::AtLeastOnce, retain: false, properties };
    Connect { will: Some(will), ..connect }
}

#[tokio::test(start_paused = true)]
async fn wills_of_those_who_were_there_when_the_node_died_are_published_after_their_delay() {
    let disk = Disk::new();
    let world = World::on(disk.clone()).await;
    let (mut watcher, _) = enter(&world, Version::V5).await;
    watcher.subscribe("will/#", QoS::AtLeastOnce).await;
    let asked = [
        with_will(stays(Version::V5, "five"), 0),
        with_will(stays(Version::V5, "later"), 50),
        with_will(stays(Version::V3_1_1, "three"), 0),
        with_will(connect(Version::V5, "clean-five"), 70),
        with_will(connect(Version::V3_1_1, "clean-three"), 0),
        with_will(stays(Version::V5, "polite"), 0),
        with_will(connect(Version::V5, "clean-polite"), 0),
    ];
    let mut there = Vec::new();
    for connect in asked {
        let mut client = world.client(Identity::Anonymous, connect.version);
        let is_polite = connect.client_id.as_str().ends_with("polite");
        client.connect(connect).await;
        if is_polite {
            client.send(Packet::Disconnect(Disconnect::new(ReasonCode::Success))).await;
            assert_eq!(client.hear().await, Heard::End);
        }
        there.push(client);
    }
    watcher.ping().await;
    assert_eq!(disk.count(PersistTable::Sessions), 7, "who took leave and left no session has no record");

    let disk = disk.after_crash();
    let world = World::on(disk.clone()).await;
    let (mut watcher, present) = enter(&world, Version::V5).await;
    assert!(present);
    let mut wills = BTreeSet::new();
    for _ in 0..4 {
        let will = watcher.message().await;
        wills.insert(will.topic.as_str().to_owned());
        let Assurance::AtLeastOnce { packet_id, .. } = will.assurance else { panic!("{will:?}") };
        watcher.puback(packet_id, ReasonCode::Success).await;
    }
    let at_once = ["will/clean-five", "will/clean-three", "will/five", "will/three"];
    assert!(wills.iter().eq(at_once), "a session's end is the latest for its Will: {wills:?}");
    watcher.ping().await;
    assert_eq!(disk.count(PersistTable::Sessions), 5, "watcher, five, later, three and polite have sessions");
    tokio::time::advance(Duration::from_secs(49)).await;
    watcher.ping().await;
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(watcher.message().await.topic.as_str(), "will/later");

    // None of them is published twice.
    let world = World::on(disk.after_crash()).await;
    let (mut watcher, _) = enter(&world, Version::V5).await;
    let again = watcher.message().await;
    assert_eq!(again.topic.as_str(), "will/later", "not acknowledged yet: {again:?}");
    watcher.ping().await;
}

#[tokio::test(start_paused = true)]
async fn a_will_of_a_session_that_ends_with_its_connection_leaves_no_record() {
    let disk = Disk::new();
    let world = World::on(disk.clone()).await;
    let mut watcher = world.plain("watcher", Version::V5).await;
    watcher.subscribe("will/#", QoS::AtMostOnce).await;
    let mut client = world.client(Identity::Anonymous, Version::V5);
    client.connect(with_will(connect(Version::V5, "c"), 0)).await;
    assert_eq!(disk.count(PersistTable::Sessions), 1);
    drop(client);
    assert_eq!(watcher.message().await.topic.as_str(), "will/c");
    watcher.ping().await;
    assert_eq!(disk.count(PersistTable::Sessions), 0);
}

/// However many topics have to be looked at until the one is found that the filter stands for.
#[tokio::test(start_paused = true)]
async fn a_filter_that_stands_for_few_of_many_retained_messages_finds_them() {
    let mut config = config();
    (config.limits.retained_messages_max, config.limits.retained_bytes_max) = (6000, 6_000_000);
    let world = World::with(config);
    let mut publisher = world.plain("p", Version::V5).await;
    for number in 0..6000 {
        let topic = format!("{number:04}/{}", if number == 5999 { "z" } else { "a" });
        publisher.send(Packet::Publish(Publish { retain: true, ..publish(&topic, "kept", None) })).await;
    }
    publisher.ping().await;
    let (mut client, _) = enter(&world, Version::V5).await;
    client.subscribe("+/z", QoS::AtLeastOnce).await;
    assert_eq!(client.message().await.topic.as_str(), "5999/z");
    client.subscribe("+/none", QoS::AtLeastOnce).await;
    client.ping().await;
}

/// Each would be looked up, and nobody else find a retained message meanwhile.
#[tokio::test(start_paused = true)]
async fn of_one_packet_no_more_filters_are_taken_than_a_session_may_have() {
    let world = World::new();
    let max = config().limits.subscriptions_per_session;
    let mut client = world.plain("c", Version::V5).await;
    let options = SubscriptionOptions::with_qos(QoS::AtMostOnce);
    let filters = vec![SubscribeFilter { filter: text("+"), options }; 2 * max];
    client
        .send(Packet::Subscribe(Subscribe { packet_id: packet_id(1), properties: Properties::default(), filters }))
        .await;
    let Packet::SubAck(answer) = client.packet().await else { panic!("an answer") };
    let (taken, refused) = answer.reasons.split_at(max);
    assert!(taken.iter().all(|reason| *reason == ReasonCode::Success), "{taken:?}");
    assert!(refused.iter().all(|reason| *reason == ReasonCode::QuotaExceeded), "{refused:?}");
    assert_eq!(client.subscribe("+", QoS::AtMostOnce).await, ReasonCode::Success, "the next packet is another");
}

/// The store stands still when its client comes back, and nobody comes in: the session stays, and its Will is due
/// when it was.
#[tokio::test(start_paused = true)]
async fn a_session_whose_client_is_told_to_come_again_is_left_as_it_was() {
    let disk = Disk::new();
    let world = World::on(disk.clone()).await;
    let mut watcher = world.plain("watcher", Version::V5).await;
    watcher.subscribe("will/#", QoS::AtMostOnce).await;
    let mut client = world.client(Identity::Anonymous, Version::V5);
    client.connect(with_will(stays(Version::V5, "s"), 50)).await;
    drop(client);
    watcher.ping().await;
    disk.stand_still();
    let mut client = world.client(Identity::Anonymous, Version::V5);
    let again = Connect { clean_start: false, ..connect(Version::V5, "s") };
    client.send(Packet::Connect(Box::new(again))).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let Packet::ConnAck(refused) = client.packet().await else { panic!("an answer") };
    assert_eq!(refused.reason, ReasonCode::ServerBusy);
    drop(client);
    disk.go_on();
    tokio::time::sleep(Duration::from_secs(38)).await;
    watcher.ping().await;
    assert_eq!(watcher.message().await.topic.as_str(), "will/s");
    let mut client = world.client(Identity::Anonymous, Version::V5);
    assert!(client.connect(stays(Version::V5, "s")).await.session_present);
}
