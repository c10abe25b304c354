//! What survives the broker: retained messages, sessions and what waits for them.

use unhidra_broker::packet::*;
use unhidra_broker::*;

use crate::disk::Disk;
use crate::world::*;

fn retained(topic: &str, payload: &str, packet: Option<u16>) -> Packet {
    Packet::Publish(Publish { retain: true, ..publish(topic, payload, packet) })
}

#[tokio::test(start_paused = true)]
async fn a_retained_message_is_acknowledged_once_it_is_kept_and_survives() {
    let disk = Disk::new();
    let world = World::on(disk.clone()).await;
    let mut publisher = world.plain("publisher", Version::V5).await;
    disk.stand_still();
    publisher.send_all([retained("a", "1", Some(1)), publish_packet("b", Some(2)), retained("c", "3", None)]).await;
    publisher.ping().await;
    disk.step(1);
    assert_eq!(publisher.acked().await, (1, ReasonCode::Success));
    assert_eq!(publisher.acked().await, (2, ReasonCode::NoMatchingSubscribers), "answers leave in order");
    // The last one was not written when the node died.
    let world = World::on(disk.after_crash()).await;
    let mut subscriber = world.plain("subscriber", Version::V5).await;
    subscriber.subscribe("#", QoS::AtLeastOnce).await;
    let message = subscriber.message().await;
    assert_eq!((message.topic.as_str(), &message.payload[..], message.retain), ("a", &b"1"[..], true));
    subscriber.ping().await;
}

#[tokio::test(start_paused = true)]
async fn a_cleared_or_expired_message_stays_gone() {
    let disk = Disk::new();
    let world = World::on(disk.clone()).await;
    let mut publisher = world.plain("publisher", Version::V5).await;
    let expiring = |topic, s| {
        let properties = [Property::MessageExpiryInterval(s)].into_iter().collect();
        Packet::Publish(Publish { retain: true, properties, ..publish(topic, "x", None) })
    };
    publisher.send_all([retained("a", "1", None), retained("a", "", None), retained("b", "", None)]).await;
    publisher.send_all([expiring("c", 10), expiring("d", 100)]).await;
    publisher.ping().await;
    assert_eq!((disk.count(PersistTable::Retained), disk.writes()), (2, 4), "what was not there is not deleted");
    tokio::time::advance(std::time::Duration::from_secs(40)).await;
    let disk = disk.after_crash();
    let world = World::later(disk.clone(), 40).await;
    assert_eq!(disk.count(PersistTable::Retained), 1);
    let mut subscriber = world.plain("subscriber", Version::V5).await;
    subscriber.subscribe("#", QoS::AtMostOnce).await;
    let message = subscriber.message().await;
    let left = message.properties.iter().cloned().collect::<Vec<_>>();
    assert_eq!((message.topic.as_str(), left), ("d", vec![Property::MessageExpiryInterval(60)]));
}

/// A clock that is a year ahead at the start ends no session and no Will's delay, and takes a day of what
/// lies there: who gave a message less than that has it in time or not at all.
#[tokio::test(start_paused = true)]
async fn what_a_doubted_clock_says_has_passed_ends_no_session() {
    const YEAR: u64 = 365 * 86_400;
    for (time, is_kept) in [(TimeOfDay::Believed, false), (TimeOfDay::Doubted, true)] {
        let disk = Disk::new();
        let world = World::on(disk.clone()).await;
        let mut connect = connect(Version::V5, "away");
        connect.properties.push(Property::SessionExpiryInterval(600));
        let mut client = world.client(Identity::Anonymous, Version::V5);
        client.connect(connect.clone()).await;
        client.subscribe("a/#", QoS::AtLeastOnce).await;
        client.send(Packet::Disconnect(Disconnect::new(ReasonCode::Success))).await;
        let expiring = |topic, s| {
            let properties = [Property::MessageExpiryInterval(s)].into_iter().collect();
            Packet::Publish(Publish { properties, ..publish(topic, "x", Some(1)) })
        };
        let mut publisher = world.plain("publisher", Version::V5).await;
        for (topic, s) in [("a/hour", 3_600), ("a/week", 7 * 86_400)] {
            publisher.send(expiring(topic, s)).await;
            publisher.packet().await;
        }
        let world = World::at(disk.after_crash(), YEAR, time).await;
        let mut client = world.client(Identity::Anonymous, Version::V5);
        let accepted = client.connect(Connect { clean_start: false, ..connect }).await;
        assert_eq!(accepted.session_present, is_kept, "{time:?}");
        if is_kept {
            let message = client.message().await;
            let left = message.properties.iter().cloned().collect::<Vec<_>>();
            assert_eq!(message.topic.as_str(), "a/week");
            assert_eq!(left, vec![Property::MessageExpiryInterval(6 * 86_400)]);
        }
        client.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_of_unknown_outcome_is_made_again_before_the_answer() {
    let disk = Disk::new();
    let world = World::on(disk.clone()).await;
    let mut publisher = world.plain("publisher", Version::V5).await;
    disk.fail([PersistError::Unknown("a test".into()), PersistError::Refused("a test".into())]);
    publisher.send(retained("a", "1", Some(1))).await;
    assert_eq!(publisher.acked().await, (1, ReasonCode::QuotaExceeded), "made again, and refused then");
    disk.fail([PersistError::Unknown("a test".into())]);
    publisher.send_all([retained("a", "2", Some(2)), retained("b", "3", Some(3))]).await;
    assert_eq!(publisher.acked().await, (2, ReasonCode::Success));
    assert_eq!(publisher.acked().await, (3, ReasonCode::Success));
    assert_eq!(disk.count(PersistTable::Retained), 2);
}

#[tokio::test(start_paused = true)]
async fn a_disk_without_room_stops_reading_and_a_dead_one_answers_nothing() {
    let disk = Disk::new();
    let world = World::on(disk.clone()).await;
    let mut publisher = world.plain("publisher", Version::V5).await;
    let mut other = world.plain("other", Version::V5).await;
    disk.set_room(Some(0));
    publisher.send_all([retained("a", "1", Some(1)), publish_packet("b", Some(2))]).await;
    other.publish("b", "x", Some(1)).await;
    assert_eq!(other.acked().await.0, 1, "those who write nothing are not held up");
    assert_eq!(disk.writes(), 0);
    disk.set_room(None);
    assert_eq!(publisher.acked().await.0, 1);
    assert_eq!(publisher.acked().await.0, 2);
    disk.fail([PersistError::Closed("a test".into())]);
    publisher.send(retained("a", "2", Some(3))).await;
    publisher.ended(ReasonCode::ServerBusy).await;
    other.publish("b", "x", Some(2)).await;
    assert_eq!(other.acked().await.0, 2);
    assert_eq!(disk.writes(), 2);
}

#[tokio::test(start_paused = true)]
async fn qos_0_and_clean_sessions_write_nothing() {
    let disk = Disk::new();
    let world = World::on(disk.clone()).await;
    let mut subscriber = world.plain("subscriber", Version::V3_1_1).await;
    subscriber.subscribe("#", QoS::ExactlyOnce).await;
    let mut publisher = world.plain("publisher", Version::V5).await;
    publisher.send_all([publish_packet("a", None), publish_packet("a", Some(1))]).await;
    assert_eq!(publisher.acked().await, (1, ReasonCode::Success));
    subscriber.message().await;
    subscriber.message().await;
    assert_eq!(disk.writes(), 0);
}

fn publish_packet(topic: &str, packet: Option<u16>) -> Packet {
    Packet::Publish(publish(topic, "x", packet))
}

// Sessions.

fn lasting(version: Version, client_id: &str) -> Connect {
    let mut connect = Connect { clean_start: false, ..connect(version, client_id) };
    if version == Version::V5 {
        connect.properties.push(Property::SessionExpiryInterval(1_000));
    }
    connect
}

async fn enter(world: &World, version: Version, client_id: &str) -> (Client, bool) {
    let mut client = world.client(Identity::Anonymous, version);
    let ack = client.connect(lasting(version, client_id)).await;
    (client, ack.session_present)
}

fn exactly_once(topic: &str, payload: &str, number: u16, dup: bool) -> Packet {
    let assurance = Assurance::ExactlyOnce { packet_id: packet_id(number), dup };
    Packet::Publish(Publish { assurance, ..publish(topic, payload, None) })
}

fn step(packet: fn(Acknowledgement) -> Packet, id: PacketId) -> Packet {
    packet(Acknowledgement { packet_id: id, reason: ReasonCode::Success, properties: Properties::default() })
}

fn id_of(publish: &Publish) -> PacketId {
    match publish.assurance {
        Assurance::AtLeastOnce { packet_id, .. } | Assurance::ExactlyOnce { packet_id, .. } => packet_id,
        Assurance::AtMostOnce => panic!("{publish:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_and_what_waits_for_it_survive() {
    for version in [Version::V3_1_1, Version::V5] {
        let disk = Disk::new();
        let world = World::on(disk.clone()).await;
        let (mut subscriber, present) = enter(&world, version, "s").await;
        assert!(!present);
        subscriber.subscribe("a/#", QoS::ExactlyOnce).await;
        subscriber.subscribe("b", QoS::AtLeastOnce).await;
        subscriber.send(Packet::Unsubscribe(unsubscribe("b"))).await;
        assert!(matches!(subscriber.packet().await, Packet::UnsubAck(_)));
        drop(subscriber);
        let mut publisher = world.plain("p", Version::V5).await;
        let properties: Properties = [Property::UserProperty(text("k"), text("v"))].into_iter().collect();
        let first = Publish { properties: properties.clone(), ..publish("a/1", "one", Some(1)) };
        publisher.send_all([Packet::Publish(first), exactly_once("a/2", "two", 2, false)]).await;
        assert_eq!(publisher.acked().await, (1, ReasonCode::Success));
        assert_eq!(publisher.packet().await, step(Packet::PubRec, packet_id(2)));
        publisher.publish("b", "no more", Some(3)).await;
        assert_eq!(publisher.acked().await, (3, ReasonCode::NoMatchingSubscribers));
        assert_eq!(disk.count(PersistTable::Queued), 2);

        let disk = disk.after_crash();
        let world = World::on(disk.clone()).await;
        let mut publisher = world.plain("p", Version::V5).await;
        publisher.publish("a/3", "three", Some(1)).await;
        assert_eq!(publisher.acked().await, (1, ReasonCode::Success), "its subscription is there");
        let (mut subscriber, present) = enter(&world, version, "s").await;
        assert!(present);
        // The one of QoS 2 leaves when its identifier is kept, and others may pass it.
        let mut payloads = Vec::new();
        for _ in 0..3 {
            let message = subscriber.message().await;
            let id = id_of(&message);
            if message.payload == "one" && version == Version::V5 {
                assert_eq!(message.properties, properties);
            }
            let is_two = message.payload == "two";
            payloads.push(message.payload);
            if is_two {
                subscriber.send(step(Packet::PubRec, id)).await;
                continue;
            }
            subscriber.puback(id, ReasonCode::Success).await;
        }
        payloads.sort();
        assert_eq!(payloads, ["one", "three", "two"]);
        let release = subscriber.packet().await;
        let Packet::PubRel(release) = release else { panic!("{release:?}") };
        subscriber.send(step(Packet::PubComp, release.packet_id)).await;
        subscriber.ping().await;
        assert_eq!((disk.count(PersistTable::Queued), disk.count(PersistTable::Exchanges)), (0, 0));
        assert_eq!((disk.count(PersistTable::Sessions), disk.count(PersistTable::Subscriptions)), (1, 1));
        let mut anew = world.client(Identity::Anonymous, version);
        let ack = anew.connect(connect(version, "s")).await;
        assert!(!ack.session_present);
        assert!(PersistTable::ALL.iter().all(|table| disk.count(*table) == 0), "a clean start leaves nothing");
    }
}

fn unsubscribe(filter: &str) -> Unsubscribe {
    Unsubscribe { packet_id: packet_id(8), properties: Properties::default(), filters: vec![text(filter)] }
}

#[tokio::test(start_paused = true)]
async fn answers_wait_until_it_is_kept_and_nothing_else_does() {
    let disk = Disk::new();
    let world = World::on(disk.clone()).await;
    let (mut subscriber, _) = enter(&world, Version::V5, "s").await;
    subscriber.subscribe("a", QoS::ExactlyOnce).await;
    let (mut publisher, _) = enter(&world, Version::V5, "p").await;
    disk.stand_still();
    publisher.send_all([publish_packet("a", Some(1)), exactly_once("a", "2", 2, false)]).await;
    publisher.ping().await;
    let first = subscriber.message().await;
    assert_eq!(first.payload, "x", "what may come twice is sent at once");
    subscriber.ping().await;
    disk.step(1);
    assert_eq!(publisher.acked().await, (1, ReasonCode::Success));
    publisher.ping().await;
    disk.step(1);
    assert_eq!(publisher.packet().await, step(Packet::PubRec, packet_id(2)));
    // Its identifier is to be kept before it leaves.
    subscriber.ping().await;
    disk.step(1);
    let second = subscriber.message().await;
    assert_eq!(second.payload, "2");
    subscriber.send(step(Packet::PubRec, id_of(&second))).await;
    subscriber.ping().await;
    disk.step(1);
    assert_eq!(subscriber.packet().await, step(Packet::PubRel, id_of(&second)));
    publisher.send(step(Packet::PubRel, packet_id(2))).await;
    publisher.ping().await;
    disk.step(1);
    assert_eq!(publisher.packet().await, step(Packet::PubComp, packet_id(2)));
}

#[tokio::test(start_paused = true)]
async fn each_exchange_goes_on_where_it_was() {
    let disk = Disk::new();
    let world = World::on(disk.clone()).await;
    let (mut subscriber, _) = enter(&world, Version::V5, "s").await;
    subscriber.subscribe("a", QoS::ExactlyOnce).await;
    let (mut publisher, _) = enter(&world, Version::V5, "p").await;
    publisher.send_all([exactly_once("a", "1", 11, false), exactly_once("a", "2", 12, false)]).await;
    for number in [11, 12] {
        assert_eq!(publisher.packet().await, step(Packet::PubRec, packet_id(number)));
    }
    let (one, two) = (subscriber.message().await, subscriber.message().await);
    subscriber.send(step(Packet::PubRec, id_of(&one))).await;
    assert_eq!(subscriber.packet().await, step(Packet::PubRel, id_of(&one)));

    let world = World::on(disk.after_crash()).await;
    let (mut publisher, present) = enter(&world, Version::V5, "p").await;
    assert!(present);
    publisher.send(exactly_once("a", "1", 11, true)).await;
    assert_eq!(publisher.packet().await, step(Packet::PubRec, packet_id(11)));
    publisher.send(step(Packet::PubRel, packet_id(11))).await;
    assert_eq!(publisher.packet().await, step(Packet::PubComp, packet_id(11)));
    let (mut subscriber, _) = enter(&world, Version::V5, "s").await;
    assert_eq!(subscriber.packet().await, step(Packet::PubRel, id_of(&one)));
    let again = subscriber.message().await;
    assert_eq!(
        (again.assurance, &again.payload[..]),
        (Assurance::ExactlyOnce { packet_id: id_of(&two), dup: true }, &b"2"[..])
    );
    subscriber.ping().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_and_a_will_is_published_over_the_downtime() {
    let disk = Disk::new();
    let world = World::on(disk.clone()).await;
    let (mut watcher, _) = enter(&world, Version::V5, "watcher").await;
    watcher.subscribe("will/#", QoS::AtLeastOnce).await;
    let with_will = |name: &str, delay_s, expiry_s| {
        let mut connect = connect(Version::V5, name);
        connect.properties.push(Property::SessionExpiryInterval(expiry_s));
        let properties = [Property::WillDelayInterval(delay_s)].into_iter().collect();
        let (topic, payload) = (text(&format!("will/{name}")), bytes::Bytes::from_static(b"gone"));
        connect.will = Some(Will { topic, payload, qos: QoS::AtLeastOnce, retain: false, properties });
        connect
    };
    for (name, delay_s, expiry_s) in [("soon", 50, 500), ("late", 100, 500), ("ended", 1_000, 60)] {
        let mut client = world.client(Identity::Anonymous, Version::V5);
        client.connect(with_will(name, delay_s, expiry_s)).await;
        drop(client);
    }
    watcher.ping().await;
    drop(watcher);
    tokio::task::yield_now().await;
    world.plain("p", Version::V5).await.ping().await;
    let disk = disk.after_crash();
    let world = World::later(disk.clone(), 80).await;
    let (mut watcher, present) = enter(&world, Version::V5, "watcher").await;
    assert!(present);
    let mut wills: Vec<String> = Vec::new();
    for _ in 0..2 {
        wills.push(watcher.message().await.topic.as_str().to_owned());
    }
    wills.sort();
    assert_eq!(wills, ["will/ended", "will/soon"]);
    watcher.ping().await;
    assert_eq!(disk.count(PersistTable::Sessions), 3, "one has ended");
    tokio::time::advance(std::time::Duration::from_secs(19)).await;
    assert_eq!(watcher.message().await.topic.as_str(), "will/late");
}

#[tokio::test(start_paused = true)]
async fn a_message_for_many_sessions_is_written_once() {
    let disk = Disk::new();
    let world = World::on(disk.clone()).await;
    for name in ["a", "b", "c"] {
        let (mut subscriber, _) = enter(&world, Version::V5, name).await;
        subscriber.subscribe("t", QoS::AtLeastOnce).await;
    }
    let mut publisher = world.plain("p", Version::V5).await;
    publisher.publish("t", "shared", Some(1)).await;
    assert_eq!(publisher.acked().await.0, 1);
    assert_eq!((disk.count(PersistTable::Messages), disk.count(PersistTable::Queued)), (1, 3));
    let disk = disk.after_crash();
    let world = World::on(disk.clone()).await;
    for (name, left) in [("a", 1), ("b", 1), ("c", 0)] {
        let (mut subscriber, _) = enter(&world, Version::V5, name).await;
        let message = subscriber.message().await;
        assert_eq!(message.payload, "shared");
        subscriber.puback(id_of(&message), ReasonCode::Success).await;
        subscriber.ping().await;
        assert_eq!(disk.count(PersistTable::Messages), left, "{name}");
    }
}

/// What it is sent goes from the disk as it acknowledges it, though nothing of it is to stay.
#[tokio::test(start_paused = true)]
async fn a_session_that_is_resumed_to_end_with_its_connection_keeps_no_more_than_it_owes() {
    let disk = Disk::new();
    let world = World::on(disk.clone()).await;
    let (mut subscriber, _) = enter(&world, Version::V5, "s").await;
    subscriber.subscribe("t", QoS::AtLeastOnce).await;
    subscriber.send(Packet::Disconnect(Disconnect::new(ReasonCode::Success))).await;
    drop(subscriber);
    let mut subscriber = world.client(Identity::Anonymous, Version::V5);
    let ack = subscriber.connect(Connect { clean_start: false, ..connect(Version::V5, "s") }).await;
    assert!(ack.session_present);
    let mut publisher = world.plain("p", Version::V5).await;
    for number in 1..=5 {
        publisher.publish("t", "x", Some(number)).await;
        assert_eq!(publisher.acked().await, (number, ReasonCode::Success));
        let message = subscriber.message().await;
        assert_eq!(disk.count(PersistTable::Queued), 1);
        subscriber.puback(id_of(&message), ReasonCode::Success).await;
        subscriber.ping().await;
        assert_eq!((disk.count(PersistTable::Queued), disk.count(PersistTable::Messages)), (0, 0));
    }
    subscriber.send(Packet::Disconnect(Disconnect::new(ReasonCode::Success))).await;
    publisher.publish("t", "x", Some(6)).await;
    assert_eq!(publisher.acked().await, (6, ReasonCode::NoMatchingSubscribers));
    publisher.ping().await;
    assert_eq!((disk.count(PersistTable::Queued), disk.count(PersistTable::Sessions)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_dead_disk_refuses_those_who_would_stay() {
    let disk = Disk::new();
    let world = World::on(disk.clone()).await;
    let mut publisher = world.plain("p", Version::V5).await;
    disk.fail([PersistError::Closed("a test".into())]);
    publisher.send(retained("a", "1", None)).await;
    publisher.ping().await;
    let mut client = world.client(Identity::Anonymous, Version::V5);
    client.send(Packet::Connect(Box::new(lasting(Version::V5, "s")))).await;
    let ack = client.packet().await;
    assert!(matches!(&ack, Packet::ConnAck(ack) if ack.reason == ReasonCode::ServerUnavailable), "{ack:?}");
    world.plain("q", Version::V5).await.ping().await;
}
