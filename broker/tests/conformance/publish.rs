//! PUBLISH and PUBACK (sections 3.3, 3.4, 4.3.1 and 4.3.2), but for RETAIN.

use std::time::Duration;

use crate::peer::*;

/// A subscriber to everything, and a publisher.
async fn pair(world: &World, version: Version, qos: QoS) -> (Client, Client) {
    let mut subscriber = world.plain("subscriber", version).await;
    subscriber.subscribe("#", qos).await;
    (subscriber, world.plain("publisher", version).await)
}

#[tokio::test(start_paused = true)]
async fn dup_at_qos_0_is_malformed() {
    for version in VERSIONS {
        let world = World::new();
        let mut client = world.plain("c", version).await;
        client.write(&frame(0x38, b"\x00\x01a\x00")).await;
        client.ended(ReasonCode::MalformedPacket).await;
    }
}

#[tokio::test(start_paused = true)]
async fn qos_3_is_malformed() {
    for version in VERSIONS {
        let world = World::new();
        let mut client = world.plain("c", version).await;
        client.write(&frame(0x36, b"\x00\x01a\x00\x01\x00")).await;
        client.ended(ReasonCode::MalformedPacket).await;
    }
}

#[tokio::test(start_paused = true)]
async fn dup_is_not_passed_on() {
    for version in VERSIONS {
        let world = World::new();
        let (mut subscriber, mut publisher) = pair(&world, version, QoS::AtLeastOnce).await;
        let assurance = Assurance::AtLeastOnce { packet_id: packet_id(7), dup: true };
        publisher.tell(Publish { assurance, ..publish("a", "x", None) }).await;
        assert!(!identity_of(&subscriber.told().await).1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_of_qos_0_leaves_once_and_as_such() {
    for version in VERSIONS {
        let world = World::new();
        let (mut subscriber, mut publisher) = pair(&world, version, QoS::AtLeastOnce).await;
        publisher.publish("a", "x", None).await;
        assert_eq!(subscriber.message().await.assurance, Assurance::AtMostOnce);
        subscriber.ping().await;
        publisher.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_of_qos_1_is_answered_by_puback() {
    for version in VERSIONS {
        let world = World::new();
        let (mut subscriber, mut publisher) = pair(&world, version, QoS::AtLeastOnce).await;
        for number in [3, 1, 2] {
            publisher.publish("a", "x", Some(number)).await;
            assert_eq!(publisher.acked().await, (number, ReasonCode::Success));
            subscriber.told().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answered_packet_identifier_is_free_whatever_dup_says() {
    for version in VERSIONS {
        let world = World::new();
        let (mut subscriber, mut publisher) = pair(&world, version, QoS::AtLeastOnce).await;
        for dup in [false, true, false] {
            let assurance = Assurance::AtLeastOnce { packet_id: packet_id(1), dup };
            publisher.tell(Publish { assurance, ..publish("a", "x", None) }).await;
            assert_eq!(subscriber.told().await.payload, "x");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_for_nobody_says_so_in_5() {
    let world = World::new();
    let mut client = world.plain("c", Version::V5).await;
    client.publish("nobody", "x", Some(1)).await;
    assert_eq!(client.acked().await, (1, ReasonCode::NoMatchingSubscribers));
    let mut client = world.plain("d", Version::V3_1_1).await;
    client.write(&frame(0x32, b"\x00\x01n\x00\x01")).await;
    assert_eq!(client.bytes().await, [0x40, 2, 0, 1]);
}

#[tokio::test(start_paused = true)]
async fn messages_to_a_client_have_identifiers_of_their_own_that_are_free() {
    for version in VERSIONS {
        let world = World::new();
        let (mut subscriber, mut publisher) = pair(&world, version, QoS::AtLeastOnce).await;
        let mut open = Vec::new();
        for number in 1..=4 {
            publisher.tell(message("a", "x", QoS::AtLeastOnce, number)).await;
            open.push(identity_of(&subscriber.message().await).0);
        }
        // Acknowledged but the first: every later one is free and none is the first.
        for id in open.split_off(1) {
            subscriber.puback(id, ReasonCode::Success).await;
        }
        for number in 5..=12 {
            publisher.tell(message("a", "x", QoS::AtLeastOnce, number)).await;
            let (id, dup) = identity_of(&subscriber.told().await);
            assert!(id != open[0] && !dup);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_again_within_a_connection() {
    for version in VERSIONS {
        let world = World::new();
        let mut subscriber = world.stranger(version);
        subscriber.connect(Connect { keep_alive_s: 0, ..connect(version, "s") }).await;
        subscriber.subscribe("a", QoS::AtLeastOnce).await;
        subscriber.publish("a", "x", None).await;
        subscriber.tell(message("a", "y", QoS::AtLeastOnce, 1)).await;
        let mut heard = [subscriber.message().await, subscriber.message().await].map(|message| message.payload);
        heard.sort();
        assert_eq!(heard, ["x", "y"]);
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        subscriber.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_name_has_no_wildcards() {
    for version in VERSIONS {
        for topic in ["+", "#", "a/+", "a/#", "a+b", "a#", "+/a"] {
            let world = World::new();
            let mut client = world.plain("c", version).await;
            client.publish(topic, "x", None).await;
            client.ended(ReasonCode::TopicNameInvalid).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_name_is_there() {
    let world = World::new();
    let mut client = world.plain("c", Version::V5).await;
    client.publish("", "x", None).await;
    client.ended(ReasonCode::ProtocolError).await;
    let mut client = world.plain("c", Version::V3_1_1).await;
    client.publish("", "x", None).await;
    client.ended(ReasonCode::TopicNameInvalid).await;
}

#[tokio::test(start_paused = true)]
async fn a_message_comes_under_the_topic_it_was_published_to() {
    for version in VERSIONS {
        let world = World::new();
        let mut subscriber = world.plain("s", version).await;
        for filter in ["a/+/c", "b/#", "/x"] {
            subscriber.subscribe(filter, QoS::AtMostOnce).await;
        }
        for topic in ["a/b/c", "b", "b/c/d", "/x"] {
            subscriber.publish(topic, topic, None).await;
            assert_eq!(subscriber.message().await.topic, text(topic));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_message_says_of_itself_is_passed_on_unaltered_and_in_order() {
    let world = World::new();
    let list = [
        Property::PayloadFormatIndicator(true),
        Property::ContentType(text("text/plain; charset=ü")),
        Property::ResponseTopic(text("answers/to/me")),
        Property::CorrelationData((&b"\x00\xFFdata"[..]).into()),
        user("b", "2"),
        user("a", "1"),
        user("b", "3"),
        user("", ""),
    ];
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let (mut subscriber, mut publisher) = pair(&world, Version::V5, qos).await;
        publisher.tell(Publish { properties: properties(list.clone()), ..message("a", "ü", qos, 1) }).await;
        let heard = subscriber.told().await.properties;
        for wanted in &list {
            assert!(heard.iter().any(|property| property == wanted), "{wanted:?} in {heard:?}");
        }
        let users = |property: &&Property| matches!(property, Property::UserProperty(..));
        assert!(heard.iter().filter(users).eq(list.iter().filter(users)), "{heard:?}");
        assert_eq!(heard.iter().count(), list.len(), "nothing is added: {heard:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn properties_do_not_reach_3_1_1() {
    let world = World::new();
    let mut subscriber = world.plain("s", Version::V3_1_1).await;
    subscriber.subscribe("a", QoS::AtMostOnce).await;
    let mut publisher = world.plain("p", Version::V5).await;
    let properties = properties([user("k", "v"), Property::MessageExpiryInterval(9)]);
    publisher.tell(Publish { properties, ..publish("a", "x", None) }).await;
    let mut bytes = [0; 6];
    use tokio::io::AsyncReadExt;
    subscriber.stream.read_exact(&mut bytes).await.expect("bytes");
    assert_eq!(bytes, *b"\x30\x04\x00\x01ax");
}

#[tokio::test(start_paused = true)]
async fn a_response_topic_has_no_wildcards_and_is_utf_8() {
    let world = World::new();
    for topic in ["+", "a/#"] {
        let mut client = world.plain("c", Version::V5).await;
        let properties = properties([Property::ResponseTopic(text(topic))]);
        client.send(Packet::Publish(Publish { properties, ..publish("a", "x", None) })).await;
        client.ended(ReasonCode::ProtocolError).await;
    }
    let mut client = world.plain("c", Version::V5).await;
    client.write(&frame(0x30, b"\x00\x01a\x04\x08\x00\x01\xFF")).await;
    client.ended(ReasonCode::MalformedPacket).await;
}

#[tokio::test(start_paused = true)]
async fn a_content_type_is_utf_8() {
    let world = World::new();
    let mut client = world.plain("c", Version::V5).await;
    client.write(&frame(0x30, b"\x00\x01a\x04\x03\x00\x01\xFF")).await;
    client.ended(ReasonCode::MalformedPacket).await;
}

#[tokio::test(start_paused = true)]
async fn a_message_is_worth_sending_as_long_as_it_says() {
    let world = World::new();
    let (mut subscriber, _) = world.join(staying(Version::V5, "s", 1_000)).await;
    subscriber.subscribe("a", QoS::AtLeastOnce).await;
    subscriber.lost().await;
    let mut publisher = world.plain("p", Version::V5).await;
    for (number, expiry_s) in [(1, 5), (2, 50), (3, 20)] {
        let properties = properties([Property::MessageExpiryInterval(expiry_s)]);
        publisher.tell(Publish { properties, ..message("a", &number.to_string(), QoS::AtLeastOnce, number) }).await;
    }
    publisher.tell(message("a", "4", QoS::AtLeastOnce, 4)).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let (mut subscriber, _) = world.join(staying(Version::V5, "s", 1_000)).await;
    let left = subscriber.told().await;
    assert_eq!(left.payload, "2");
    let left = left.properties.find(|property| match property {
        Property::MessageExpiryInterval(s) => Some(*s),
        _ => None,
    });
    assert!(left.is_some_and(|s| (29..=30).contains(&s)), "{left:?}");
    let last = subscriber.told().await;
    assert!(last.payload == "4" && last.properties.is_empty());
    subscriber.ping().await;
}

#[tokio::test(start_paused = true)]
async fn a_subscription_identifier_from_a_client_is_a_protocol_error() {
    let world = World::new();
    let mut client = world.plain("c", Version::V5).await;
    let properties = properties([Property::SubscriptionIdentifier(1)]);
    client.send(Packet::Publish(Publish { properties, ..publish("a", "x", None) })).await;
    client.ended(ReasonCode::ProtocolError).await;
}

#[tokio::test(start_paused = true)]
async fn more_open_messages_than_the_receive_maximum_end_5_with_a_reason() {
    const MESSAGES: &str = "unhidra/devices/pump-7/messages";
    let mut world = World::new();
    let (mut pump, _) = world.device("pump-7", Version::V5).await;
    pump.send_all((1..=5).map(|number| Packet::Publish(publish(MESSAGES, "x", Some(number))))).await;
    pump.ended(ReasonCode::ReceiveMaximumExceeded).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_client_may_not_publish_is_refused_and_reaches_nobody() {
    let world = World::new();
    let mut client = world.plain("c", Version::V5).await;
    client.publish("$SYS/broker", "x", Some(1)).await;
    assert_eq!(client.acked().await, (1, ReasonCode::NotAuthorized));
    client.ping().await;
    let mut client = world.plain("d", Version::V3_1_1).await;
    client.publish("$SYS/broker", "x", Some(1)).await;
    // 3.1.1 has no refusal: an answer that says yes, or the end.
    assert!(matches!(client.hear().await, Heard::End | Heard::Packet(Packet::PubAck(_))));
}

#[tokio::test(start_paused = true)]
async fn pubacks_leave_in_the_order_of_their_messages() {
    for version in VERSIONS {
        const MESSAGES: &str = "unhidra/devices/pump-7/messages";
        let mut world = World::new();
        let (mut pump, _) = world.device("pump-7", version).await;
        let numbers = [9, 2, 7, 4];
        pump.send_all(numbers.map(|number| Packet::Publish(publish(MESSAGES, "x", Some(number))))).await;
        let mut deliveries = Vec::new();
        for _ in numbers {
            deliveries.push(world.delivery().await);
        }
        deliveries.into_iter().rev().for_each(|delivery| drop(accept(delivery)));
        for number in numbers {
            assert_eq!(pump.acked().await.0, number);
        }
    }
}
