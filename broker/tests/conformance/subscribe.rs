//! SUBSCRIBE, UNSUBSCRIBE and their answers (sections 3.8 to 3.11).

use crate::peer::*;

#[tokio::test(start_paused = true)]
async fn every_subscribe_is_answered_by_a_suback_of_its_identifier() {
    for version in VERSIONS {
        let world = World::new();
        let mut client = world.plain("c", version).await;
        for number in [7, 1, 65_535] {
            let ack = client.subscribe_all(number, &[("a", QoS::AtMostOnce)]).await;
            assert_eq!((ack.packet_id.get(), ack.reasons), (number, vec![ReasonCode::Success]));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_filter_has_its_code_in_the_order_of_the_filters() {
    let world = World::new();
    let filters = [
        ("a", QoS::AtLeastOnce),
        ("$other/secret", QoS::AtMostOnce),
        ("b/+", QoS::AtMostOnce),
        ("c/#/d", QoS::AtMostOnce),
        ("e", QoS::AtLeastOnce),
    ];
    let mut client = world.plain("c", Version::V5).await;
    let codes = client.subscribe_all(1, &filters).await.reasons;
    let (granted, success) = (ReasonCode::GrantedQos1, ReasonCode::Success);
    assert_eq!(codes[0], granted);
    assert!(codes[1].is_error() && codes[3] == ReasonCode::TopicFilterInvalid, "{codes:?}");
    assert_eq!((codes[2], codes[4], codes.len()), (success, granted, 5));
    // In 3.1.1 every failure is 0x80.
    let mut client = world.plain("d", Version::V3_1_1).await;
    let mut body = vec![0, 1];
    for (filter, qos) in filters {
        body.extend([0, filter.len() as u8]);
        body.extend_from_slice(filter.as_bytes());
        body.push(qos.as_bits());
    }
    client.write(&frame(0x82, &body)).await;
    assert_eq!(client.bytes().await, [0x90, 7, 0, 1, 1, 0x80, 0, 0x80, 1]);
}

#[tokio::test(start_paused = true)]
async fn many_filters_are_many_subscriptions() {
    for version in VERSIONS {
        let world = World::new();
        let mut client = world.plain("c", version).await;
        client.subscribe_all(1, &[("a", QoS::AtMostOnce), ("b", QoS::AtMostOnce)]).await;
        for topic in ["a", "b"] {
            client.publish(topic, topic, None).await;
            assert_eq!(client.message().await.payload, topic.as_bytes());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscribe_without_a_filter_is_a_protocol_error() {
    for version in VERSIONS {
        let world = World::new();
        let mut client = world.plain("c", version).await;
        let body: &[u8] = if version == Version::V5 { b"\x00\x01\x00" } else { b"\x00\x01" };
        client.write(&frame(0x82, body)).await;
        client.ended(ReasonCode::ProtocolError).await;
    }
}

#[tokio::test(start_paused = true)]
async fn reserved_bits_of_subscription_options_are_malformed() {
    let world = World::new();
    for (version, reserved) in [(Version::V3_1_1, 0b1111_1100_u8), (Version::V5, 0b1100_0000)] {
        for bit in (0..8).map(|bit| 1 << bit).filter(|bit| bit & reserved != 0) {
            let mut client = world.plain("c", version).await;
            let end: &[u8] = if version == Version::V5 { &[0] } else { &[] };
            client.write(&frame(0x82, &[b"\x00\x01", end, b"\x00\x01a", &[bit]].concat())).await;
            client.ended(ReasonCode::MalformedPacket).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn qos_3_and_retain_handling_3_are_protocol_errors() {
    let world = World::new();
    for options in [0b0000_0011, 0b0011_0000] {
        let mut client = world.plain("c", Version::V5).await;
        client.write(&frame(0x82, &[0, 1, 0, 0, 1, b'a', options])).await;
        client.ended(ReasonCode::ProtocolError).await;
    }
    let mut client = world.plain("c", Version::V3_1_1).await;
    client.write(&frame(0x82, &[0, 1, 0, 1, b'a', 3])).await;
    assert_eq!(client.hear().await, Heard::End);
}

#[tokio::test(start_paused = true)]
async fn no_local_keeps_a_clients_own_messages_from_it() {
    let world = World::new();
    let mut client = world.plain("c", Version::V5).await;
    let mut other = world.plain("d", Version::V5).await;
    let options = SubscriptionOptions { no_local: true, ..SubscriptionOptions::with_qos(QoS::AtMostOnce) };
    client.subscribe_with("a", options, Properties::default()).await;
    client.publish("a", "own", Some(1)).await;
    client.acked().await;
    client.ping().await;
    other.publish("a", "of another", None).await;
    assert_eq!(client.message().await.payload, "of another");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_to_the_same_filter_replaces_the_one_before() {
    for version in VERSIONS {
        let world = World::new();
        let mut client = world.plain("c", version).await;
        client.subscribe("a", QoS::AtMostOnce).await;
        client.subscribe("a", QoS::AtLeastOnce).await;
        client.tell(message("a", "x", QoS::AtLeastOnce, 1)).await;
        assert_eq!(client.told().await.assurance.qos(), QoS::AtLeastOnce);
        client.ping().await;
        client.unsubscribe(1, &["a"]).await;
        client.publish("a", "x", None).await;
        client.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_replaced_subscription_has_the_new_options_and_identifier_alone() {
    let world = World::new();
    let mut client = world.plain("c", Version::V5).await;
    client.subscribe_as("a", QoS::AtMostOnce, 1).await;
    client.subscribe_as("a", QoS::AtMostOnce, 2).await;
    client.publish("a", "x", None).await;
    assert_eq!(client.message().await.properties, properties([Property::SubscriptionIdentifier(2)]));
    client.subscribe("a", QoS::AtMostOnce).await;
    client.publish("a", "x", None).await;
    assert!(client.message().await.properties.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_message_is_sent_at_the_lower_of_its_qos_and_the_granted_one() {
    for version in VERSIONS {
        let world = World::new();
        let mut client = world.plain("c", version).await;
        let mut publisher = world.plain("p", version).await;
        for (granted, code) in
            LEVELS.into_iter().zip([ReasonCode::Success, ReasonCode::GrantedQos1, ReasonCode::GrantedQos2])
        {
            assert_eq!(client.subscribe("a", granted).await, code);
            for published in LEVELS {
                publisher.tell(message("a", "x", published, 1)).await;
                assert_eq!(client.told().await.assurance.qos(), published.min(granted));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn overlapping_subscriptions_bring_one_copy_at_the_highest_qos_with_all_identifiers() {
    let world = World::new();
    let mut client = world.plain("c", Version::V5).await;
    client.subscribe_as("a/+", QoS::AtMostOnce, 11).await;
    client.subscribe_as("a/#", QoS::AtLeastOnce, 22).await;
    client.subscribe("a/b", QoS::AtMostOnce).await;
    let mut publisher = world.plain("p", Version::V5).await;
    publisher.tell(message("a/b", "x", QoS::AtLeastOnce, 1)).await;
    let heard = client.told().await;
    assert_eq!(heard.assurance.qos(), QoS::AtLeastOnce);
    let mut identifiers: Vec<_> = heard.properties.iter().cloned().collect();
    identifiers.sort_by_key(|property| format!("{property:?}"));
    assert_eq!(identifiers, [Property::SubscriptionIdentifier(11), Property::SubscriptionIdentifier(22)]);
    client.ping().await;
}

#[tokio::test(start_paused = true)]
async fn overlapping_subscriptions_of_3_1_1_have_the_highest_qos() {
    let world = World::new();
    let mut client = world.plain("c", Version::V3_1_1).await;
    client.subscribe("a/+", QoS::AtMostOnce).await;
    client.subscribe("a/#", QoS::AtLeastOnce).await;
    let mut publisher = world.plain("p", Version::V3_1_1).await;
    publisher.tell(message("a/b", "x", QoS::AtLeastOnce, 1)).await;
    assert_eq!(client.told().await.assurance.qos(), QoS::AtLeastOnce);
    client.ping().await;
}

#[tokio::test(start_paused = true)]
async fn every_unsubscribe_is_answered_and_says_what_there_was() {
    for version in VERSIONS {
        let world = World::new();
        let mut client = world.plain("c", version).await;
        client.subscribe_all(1, &[("a", QoS::AtMostOnce), ("b", QoS::AtMostOnce)]).await;
        let ack = client.unsubscribe(5, &["nothing", "a", "+", "b"]).await;
        assert_eq!(ack.packet_id.get(), 5);
        if version == Version::V5 {
            let (no, yes) = (ReasonCode::NoSubscriptionExisted, ReasonCode::Success);
            assert_eq!(ack.reasons, [no, yes, no, yes]);
        }
        for topic in ["a", "b"] {
            client.publish(topic, "x", None).await;
        }
        client.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn unsubscribe_compares_filters_character_by_character() {
    for version in VERSIONS {
        let world = World::new();
        let mut client = world.plain("c", version).await;
        client.subscribe("a/+", QoS::AtMostOnce).await;
        client.unsubscribe(1, &["a/#", "a/b", "A/+", "a/+/", "+/+"]).await;
        client.publish("a/b", "x", None).await;
        assert_eq!(client.message().await.payload, "x");
        client.unsubscribe(2, &["a/+"]).await;
        client.publish("a/b", "x", None).await;
        client.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_begun_before_unsubscribe_is_completed() {
    for version in VERSIONS {
        let world = World::new();
        let (mut client, _) = world.join(staying(version, "c", 100)).await;
        client.subscribe("a", QoS::AtLeastOnce).await;
        let mut publisher = world.plain("p", version).await;
        publisher.tell(message("a", "begun", QoS::AtLeastOnce, 1)).await;
        let begun = identity_of(&client.message().await).0;
        client.unsubscribe(1, &["a"]).await;
        publisher.tell(message("a", "late", QoS::AtLeastOnce, 2)).await;
        client.ping().await;
        client.lost().await;
        let (mut client, _) = world.join(staying(version, "c", 100)).await;
        let again = client.told().await;
        assert_eq!((identity_of(&again), again.payload.as_ref()), ((begun, true), &b"begun"[..]));
        client.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_unsubscribe_without_a_filter_is_a_protocol_error() {
    for version in VERSIONS {
        let world = World::new();
        let mut client = world.plain("c", version).await;
        let body: &[u8] = if version == Version::V5 { b"\x00\x01\x00" } else { b"\x00\x01" };
        client.write(&frame(0xA2, body)).await;
        client.ended(ReasonCode::ProtocolError).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscription_identifier_of_0_is_a_protocol_error() {
    let world = World::new();
    let mut client = world.plain("c", Version::V5).await;
    client.write(&frame(0x82, b"\x00\x01\x02\x0B\x00\x00\x01a\x00")).await;
    client.ended(ReasonCode::ProtocolError).await;
}
