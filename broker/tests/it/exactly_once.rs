//! QoS 2, from a publisher through the broker to a subscriber.

use unhidra_broker::packet::*;
use unhidra_broker::*;

use crate::world::*;

fn publish_two(topic: &str, payload: &str, number: u16, dup: bool) -> Packet {
    let assurance = Assurance::ExactlyOnce { packet_id: packet_id(number), dup };
    Packet::Publish(Publish { assurance, ..publish(topic, payload, None) })
}

fn step(packet_id: PacketId) -> Acknowledgement {
    Acknowledgement { packet_id, reason: ReasonCode::Success, properties: Properties::default() }
}

fn stays(version: Version, client_id: &str) -> Connect {
    let properties = match version {
        Version::V3_1_1 => Properties::default(),
        Version::V5 => [Property::SessionExpiryInterval(100)].into_iter().collect(),
    };
    Connect { clean_start: false, properties, ..connect(version, client_id) }
}

#[tokio::test(start_paused = true)]
async fn a_message_of_qos_2_takes_both_its_exchanges() {
    for version in [Version::V3_1_1, Version::V5] {
        let world = World::new();
        let (mut to, mut from) = (world.plain("to", version).await, world.plain("from", version).await);
        assert_eq!(to.subscribe("a", QoS::ExactlyOnce).await, ReasonCode::GrantedQos2);
        from.send(publish_two("a", "x", 5, false)).await;
        assert_eq!(from.packet().await, Packet::PubRec(step(packet_id(5))));
        from.send(Packet::PubRel(step(packet_id(5)))).await;
        assert_eq!(from.packet().await, Packet::PubComp(step(packet_id(5))));
        let message = to.message().await;
        let Assurance::ExactlyOnce { packet_id, dup: false } = message.assurance else { panic!("{message:?}") };
        to.send(Packet::PubRec(step(packet_id))).await;
        assert_eq!(to.packet().await, Packet::PubRel(step(packet_id)));
        to.send(Packet::PubComp(step(packet_id))).await;
        to.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn connections_that_are_lost_between_the_steps_change_nothing() {
    for version in [Version::V3_1_1, Version::V5] {
        let world = World::new();
        let again = async |name| {
            let mut client = world.client(Identity::Anonymous, version);
            client.connect(stays(version, name)).await;
            client
        };
        let mut to = again("to").await;
        to.subscribe("a", QoS::ExactlyOnce).await;
        // Each side is lost before every packet it waits for, which then comes again.
        let mut from = again("from").await;
        from.send(publish_two("a", "x", 5, false)).await;
        from.packet().await;
        let mut from = again("from").await;
        from.send(publish_two("a", "x", 5, true)).await;
        assert_eq!(from.packet().await, Packet::PubRec(step(packet_id(5))));
        from.send(Packet::PubRel(step(packet_id(5)))).await;
        from.packet().await;
        let mut from = again("from").await;
        from.send(Packet::PubRel(step(packet_id(5)))).await;
        assert!(matches!(from.packet().await, Packet::PubComp(_)));

        let first = to.message().await;
        let mut to = again("to").await;
        let second = to.message().await;
        let Assurance::ExactlyOnce { packet_id, dup: true } = second.assurance else { panic!("{second:?}") };
        assert_eq!(first.assurance, Assurance::ExactlyOnce { packet_id, dup: false });
        to.send(Packet::PubRec(step(packet_id))).await;
        to.packet().await;
        let mut to = again("to").await;
        assert_eq!(to.packet().await, Packet::PubRel(step(packet_id)));
        to.send(Packet::PubComp(step(packet_id))).await;
        to.ping().await;
        let mut to = again("to").await;
        to.ping().await;
    }
}
