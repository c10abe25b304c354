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
