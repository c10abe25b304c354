//! QoS 2 (sections 3.5 to 3.7 and 4.3.3), flow control (section 4.9) and the size of packets.

use std::time::Duration;

use crate::peer::*;

const TWO: QoS = QoS::ExactlyOnce;

/// A session that stays and listens at QoS 2, and a publisher.
async fn pair(world: &World, version: Version) -> (Client, Client) {
    let (mut subscriber, _) = world.join(staying(version, "s", 1_000)).await;
    subscriber.subscribe("a/#", TWO).await;
    (subscriber, world.plain("p", version).await)
}

#[tokio::test(start_paused = true)]
async fn a_message_of_qos_2_takes_four_steps_each_way() {
    for version in VERSIONS {
        let world = World::new();
        let (mut subscriber, mut publisher) = pair(&world, version).await;
        publisher.send(Packet::Publish(message("a", "x", TWO, 7))).await;
        assert_eq!(publisher.recorded().await, (7, ReasonCode::Success));
        publisher.release(packet_id(7)).await;
        assert_eq!(publisher.completed().await, (7, ReasonCode::Success));
        let heard = subscriber.message().await;
        let (id, dup) = identity_of(&heard);
        assert!(heard.assurance.qos() == TWO && !dup);
        subscriber.pubrec(id, ReasonCode::Success).await;
        assert_eq!(subscriber.released().await, id.get());
        subscriber.pubcomp(id).await;
        subscriber.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_of_qos_2_said_again_before_its_release_is_delivered_once() {
    for version in VERSIONS {
        let world = World::new();
        let (mut subscriber, mut publisher) = pair(&world, version).await;
        for dup in [false, true, false, true] {
            let assurance = Assurance::ExactlyOnce { packet_id: packet_id(7), dup };
            publisher.send(Packet::Publish(Publish { assurance, ..publish("a", "x", None) })).await;
            assert_eq!(publisher.recorded().await, (7, ReasonCode::Success));
        }
        publisher.release(packet_id(7)).await;
        publisher.completed().await;
        assert_eq!(subscriber.told().await.payload, "x");
        subscriber.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn after_pubcomp_its_packet_identifier_is_a_new_message() {
    for version in VERSIONS {
        let world = World::new();
        let (mut subscriber, mut publisher) = pair(&world, version).await;
        for payload in ["1", "2", "3"] {
            publisher.tell(message("a", payload, TWO, 7)).await;
            assert_eq!(subscriber.told().await.payload, payload);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_refusing_pubrec_its_packet_identifier_is_a_new_message() {
    let world = World::new();
    let (mut subscriber, mut publisher) = pair(&world, Version::V5).await;
    publisher.send(Packet::Publish(message("$SYS/a", "x", TWO, 7))).await;
    assert_eq!(publisher.recorded().await, (7, ReasonCode::NotAuthorized));
    publisher.tell(message("a", "y", TWO, 7)).await;
    assert_eq!(subscriber.told().await.payload, "y");
}

#[tokio::test(start_paused = true)]
async fn a_message_of_qos_2_is_delivered_once_over_a_lost_connection_of_its_publisher() {
    for version in VERSIONS {
        let world = World::new();
        let (mut subscriber, _) = pair(&world, version).await;
        let (mut publisher, _) = world.join(staying(version, "q", 1_000)).await;
        publisher.send(Packet::Publish(message("a", "x", TWO, 7))).await;
        publisher.recorded().await;
        publisher.lost().await;
        let (mut publisher, ack) = world.join(staying(version, "q", 1_000)).await;
        assert!(ack.session_present);
        let assurance = Assurance::ExactlyOnce { packet_id: packet_id(7), dup: true };
        publisher.tell(Publish { assurance, ..publish("a", "x", None) }).await;
        assert_eq!(subscriber.told().await.payload, "x");
        subscriber.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_had_no_pubrec_is_published_again_and_what_had_is_released_again() {
    for version in VERSIONS {
        let world = World::new();
        let (mut subscriber, mut publisher) = pair(&world, version).await;
        let mut ids = Vec::new();
        for number in 1..=3 {
            publisher.tell(message("a", &number.to_string(), TWO, number)).await;
            ids.push(identity_of(&subscriber.message().await).0);
        }
        subscriber.pubrec(ids[1], ReasonCode::Success).await;
        assert_eq!(subscriber.released().await, ids[1].get());
        subscriber.lost().await;
        let (mut subscriber, _) = world.join(staying(version, "s", 1_000)).await;
        let (mut published, mut released) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            match subscriber.packet().await {
                Packet::PubRel(ack) => released.push(ack.packet_id),
                Packet::Publish(publish) => published.push((identity_of(&publish), publish.payload)),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(released, [ids[1]]);
        assert_eq!(published, [((ids[0], true), "1".into()), ((ids[2], true), "3".into())]);
        // And each exchange goes on from there.
        subscriber.pubcomp(ids[1]).await;
        for id in [ids[0], ids[2]] {
            subscriber.pubrec(id, ReasonCode::Success).await;
            assert_eq!(subscriber.released().await, id.get());
            subscriber.pubcomp(id).await;
        }
        subscriber.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_has_been_sent_does_not_expire() {
    let world = World::new();
    let (mut subscriber, mut publisher) = pair(&world, Version::V5).await;
    for (number, qos) in [(1, QoS::AtLeastOnce), (2, TWO)] {
        let properties = properties([Property::MessageExpiryInterval(5)]);
        publisher.tell(Publish { properties, ..message("a", "x", qos, number) }).await;
        subscriber.message().await;
    }
    subscriber.lost().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let (mut subscriber, _) = world.join(staying(Version::V5, "s", 1_000)).await;
    assert_eq!(subscriber.told().await.assurance.qos(), QoS::AtLeastOnce);
    assert_eq!(subscriber.told().await.assurance.qos(), TWO);
}

#[tokio::test(start_paused = true)]
async fn the_exchange_of_a_message_goes_on_after_it_has_expired() {
    let world = World::new();
    let (_subscriber, mut publisher) = pair(&world, Version::V5).await;
    let properties = properties([Property::MessageExpiryInterval(1)]);
    publisher.send(Packet::Publish(Publish { properties, ..message("a", "x", TWO, 7) })).await;
    publisher.recorded().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    publisher.release(packet_id(7)).await;
    assert_eq!(publisher.completed().await, (7, ReasonCode::Success));
}

#[tokio::test(start_paused = true)]
async fn a_message_refused_in_pubrec_is_over() {
    let world = World::new();
    let (mut subscriber, mut publisher) = pair(&world, Version::V5).await;
    publisher.tell(message("a", "x", TWO, 1)).await;
    let id = identity_of(&subscriber.message().await).0;
    subscriber.pubrec(id, ReasonCode::QuotaExceeded).await;
    subscriber.ping().await;
    subscriber.lost().await;
    let (mut subscriber, ack) = world.join(staying(Version::V5, "s", 1_000)).await;
    assert!(ack.session_present);
    subscriber.ping().await;
}

#[tokio::test(start_paused = true)]
async fn a_release_of_nothing_is_completed_and_named_so() {
    let world = World::new();
    let mut client = world.plain("c", Version::V5).await;
    client.release(packet_id(7)).await;
    assert_eq!(client.completed().await, (7, ReasonCode::PacketIdentifierNotFound));
    let mut client = world.plain("d", Version::V3_1_1).await;
    client.release(packet_id(7)).await;
    assert_eq!(client.completed().await.0, 7);
}

#[tokio::test(start_paused = true)]
async fn pubrecs_and_pubrels_leave_in_the_order_of_what_they_answer() {
    for version in VERSIONS {
        let world = World::new();
        let (mut subscriber, mut publisher) = pair(&world, version).await;
        let numbers = [9, 2, 7];
        publisher.send_all(numbers.map(|number| Packet::Publish(message("a", "x", TWO, number)))).await;
        for number in numbers {
            assert_eq!(publisher.recorded().await.0, number);
        }
        let mut ids = Vec::new();
        for _ in numbers {
            ids.push(identity_of(&subscriber.message().await).0);
        }
        ids.reverse();
        for id in &ids {
            subscriber.pubrec(*id, ReasonCode::Success).await;
        }
        for id in ids {
            assert_eq!(subscriber.released().await, id.get());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_messages_are_open_than_the_client_takes() {
    for qos in [QoS::AtLeastOnce, TWO] {
        let world = World::new();
        let asked = Connect { properties: properties([Property::ReceiveMaximum(2)]), ..connect(Version::V5, "c") };
        let (mut client, _) = world.join(asked).await;
        client.subscribe("a", TWO).await;
        let mut publisher = world.plain("p", Version::V5).await;
        for number in 1..=5 {
            publisher.tell(message("a", &number.to_string(), qos, number)).await;
        }
        publisher.publish("a", "free", None).await;
        let first = identity_of(&client.message().await).0;
        client.message().await;
        // Nothing but messages waits.
        client.ping().await;
        assert_eq!(client.subscribe("b", TWO).await, ReasonCode::GrantedQos2);
        match qos {
            TWO => {
                client.pubrec(first, ReasonCode::Success).await;
                assert_eq!(client.released().await, first.get());
                client.ping().await;
                client.pubcomp(first).await;
            }
            _ => client.puback(first, ReasonCode::Success).await,
        }
        assert_eq!(client.message().await.payload, "3");
        client.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn more_open_messages_of_qos_2_than_announced_end_the_connection() {
    let world = World::new();
    let mut client = world.plain("c", Version::V5).await;
    client.send_all((1..=5).map(|number| Packet::Publish(message("a", "x", TWO, number)))).await;
    loop {
        match client.packet().await {
            Packet::PubRec(_) => {}
            Packet::Disconnect(told) => break assert_eq!(told.reason, ReasonCode::ReceiveMaximumExceeded),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_refused_in_pubrec_frees_its_place() {
    let world = World::new();
    let asked = Connect { properties: properties([Property::ReceiveMaximum(1)]), ..connect(Version::V5, "c") };
    let (mut client, _) = world.join(asked).await;
    client.subscribe("a", TWO).await;
    let mut publisher = world.plain("p", Version::V5).await;
    for number in 1..=2 {
        publisher.tell(message("a", &number.to_string(), TWO, number)).await;
    }
    let first = identity_of(&client.message().await).0;
    client.pubrec(first, ReasonCode::UnspecifiedError).await;
    assert_eq!(client.told().await.payload, "2");
}

#[tokio::test(start_paused = true)]
async fn what_is_larger_than_a_client_takes_counts_as_sent() {
    for qos in LEVELS {
        let world = World::new();
        let list = [Property::MaximumPacketSize(60), Property::ReceiveMaximum(1)];
        let (mut client, _) = world.join(Connect { properties: properties(list), ..connect(Version::V5, "c") }).await;
        client.subscribe("a", TWO).await;
        let mut publisher = world.plain("p", Version::V5).await;
        for payload in ["y".repeat(60), "x".into()] {
            publisher.tell(message("a", &payload, qos, 1)).await;
        }
        assert_eq!(client.told().await.payload, "x");
        client.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_wants_no_explanations_gets_none() {
    let world = World::new();
    let asked =
        Connect { properties: properties([Property::RequestProblemInformation(false)]), ..connect(Version::V5, "c") };
    let (mut client, _) = world.join(asked).await;
    client
        .send_all([
            Packet::Publish(message("$SYS/a", "x", QoS::AtLeastOnce, 1)),
            Packet::Publish(message("$SYS/a", "x", TWO, 2)),
        ])
        .await;
    let filters = ["$SYS/a", "a/#/b", "$share/g", "a"]
        .map(|filter| SubscribeFilter { filter: text(filter), options: SubscriptionOptions::with_qos(TWO) });
    let (packet_id, properties) = (packet_id(3), Properties::default());
    client.send(Packet::Subscribe(Subscribe { packet_id, properties, filters: filters.into() })).await;
    client.release(crate::world::packet_id(9)).await;
    for _ in 0..4 {
        let properties = match client.packet().await {
            Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubComp(ack) => ack.properties,
            Packet::SubAck(ack) => ack.properties,
            other => panic!("{other:?}"),
        };
        let explains = |property: &Property| matches!(property, Property::ReasonString(_) | Property::UserProperty(..));
        assert!(!properties.iter().any(explains), "{properties:?}");
    }
    assert!(client.unsubscribe(4, &["nothing"]).await.properties.is_empty());
    assert_eq!(words_of_a_fault(&mut client).await, None);
    assert!(words_of_a_fault(&mut world.plain("d", Version::V5).await).await.is_some());
}

/// What a client that breaks the protocol is told besides the reason code.
async fn words_of_a_fault(client: &mut Client) -> Option<Text> {
    client.write(&frame(0xC1, b"")).await;
    match client.packet().await {
        Packet::Disconnect(told) => told.properties.find(|property| match property {
            Property::ReasonString(words) => Some(words.clone()),
            _ => None,
        }),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn no_answer_is_larger_than_its_client_takes() {
    let world = World::new();
    for bytes in [20, 24, 30] {
        let list = properties([Property::MaximumPacketSize(bytes)]);
        let mut client = world.stranger(Version::V5);
        client.send(Packet::Connect(Box::new(Connect { properties: list, ..connect(Version::V5, "c") }))).await;
        let Heard::Packet(Packet::ConnAck(_)) = client.hear().await else { continue };
        client
            .send_all([
                Packet::Publish(message("$SYS/a", "x", QoS::AtLeastOnce, 1)),
                Packet::Publish(message("$SYS/a", "x", TWO, 2)),
                Packet::Publish(message("+", "x", QoS::AtLeastOnce, 3)),
            ])
            .await;
        loop {
            match client.hear().await {
                Heard::End => break,
                Heard::Packet(packet) => assert!(packet.to_bytes(Version::V5).len() <= bytes as usize, "{packet:?}"),
            }
        }
    }
}
