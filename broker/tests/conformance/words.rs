//! Reason Strings of PUBACK, PUBREC, SUBACK and UNSUBACK (sections 3.4.2.2.2, 3.5.2.2.2, 3.9.2.1.2
//! and 3.11.2.1.2).

use crate::peer::*;

const ONE: QoS = QoS::AtLeastOnce;
const TWO: QoS = QoS::ExactlyOnce;

/// What an answer says in words.
fn words(properties: &Properties) -> Option<String> {
    properties.find(|property| match property {
        Property::ReasonString(words) => Some(words.as_str().to_owned()),
        _ => None,
    })
}

impl Client {
    /// A PUBACK or a PUBREC is next: its code and its words.
    async fn answered(&mut self) -> (ReasonCode, Option<String>) {
        match self.packet().await {
            Packet::PubAck(ack) | Packet::PubRec(ack) => (ack.reason, words(&ack.properties)),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_message_is_told_why_and_one_that_is_taken_nothing() {
    let mut config = config();
    config.mqtt.payload_format_check = true;
    let world = World::with(config);
    let mut client = world.plain("c", Version::V5).await;
    let not_utf_8 = |number| Publish {
        payload: bytes::Bytes::from_static(b"\xFF"),
        properties: properties([Property::PayloadFormatIndicator(true)]),
        ..message("a", "", ONE, number)
    };
    let cases = [
        (message("$SYS/a", "x", ONE, 1), ReasonCode::NotAuthorized, "this client may not publish that there"),
        (message("$SYS/a", "x", TWO, 2), ReasonCode::NotAuthorized, "this client may not publish that there"),
        (not_utf_8(3), ReasonCode::PayloadFormatInvalid, "the payload is not UTF-8 as it says"),
    ];
    for (publish, reason, says) in cases {
        client.send(Packet::Publish(publish)).await;
        assert_eq!(client.answered().await, (reason, Some(says.to_owned())));
    }
    client.subscribe("listened", QoS::AtMostOnce).await;
    for (topic, reason) in [("nobody", ReasonCode::NoMatchingSubscribers), ("listened", ReasonCode::Success)] {
        for qos in [ONE, TWO] {
            client.send(Packet::Publish(message(topic, "x", qos, 4 + u16::from(qos.as_bits())))).await;
            let answer = match client.packet().await {
                Packet::Publish(_) => client.answered().await,
                Packet::PubAck(ack) | Packet::PubRec(ack) => (ack.reason, words(&ack.properties)),
                other => panic!("{other:?}"),
            };
            assert_eq!(answer, (reason, None), "{topic}");
            if qos == TWO {
                client.release(packet_id(6)).await;
                while !matches!(client.packet().await, Packet::PubComp(_)) {}
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_packet_identifier_in_use_is_told_as_such() {
    let world = World::new();
    let mut client = world.plain("c", Version::V5).await;
    client.send(Packet::Publish(message("a", "x", TWO, 2))).await;
    assert_eq!(client.answered().await, (ReasonCode::NoMatchingSubscribers, None));
    client.send(Packet::Publish(message("a", "x", ONE, 2))).await;
    let (reason, says) = client.answered().await;
    assert_eq!(reason, ReasonCode::PacketIdentifierInUse);
    assert!(says.is_some_and(|says| says.contains("without its PUBREL")));
}

#[tokio::test(start_paused = true)]
async fn a_refused_filter_is_told_why_and_which_it_was() {
    let world = World::new();
    let mut client = world.plain("c", Version::V5).await;
    let deep = ["a"; 40].join("/");
    for (filter, reason, says) in [
        ("unhidra/#", ReasonCode::NotAuthorized, "this client may not subscribe there"),
        ("$share/g", ReasonCode::TopicFilterInvalid, "a shared subscription without a topic filter"),
        (
            &*deep,
            ReasonCode::TopicFilterInvalid,
            "a topic filter of 79 bytes and 40 levels; at most 1024 and 32 are accepted",
        ),
    ] {
        let ack = client.subscribe_all(1, &[(filter, ONE)]).await;
        assert_eq!((ack.reasons, words(&ack.properties).as_deref()), (vec![reason], Some(says)));
    }
    let ack = client.subscribe_all(2, &[("a", ONE), ("unhidra/#", ONE), ("$share/g", ONE)]).await;
    assert_eq!(words(&ack.properties).as_deref(), Some("topic filter 2 of 3: this client may not subscribe there"));
    let taken = [ReasonCode::GrantedQos1, ReasonCode::NotAuthorized, ReasonCode::TopicFilterInvalid];
    assert_eq!(ack.reasons, taken, "the codes name each");
    assert!(client.subscribe_all(3, &[("a", ONE), ("b", TWO)]).await.properties.is_empty(), "all are granted");
    for number in 2..16 {
        assert_eq!(client.subscribe(&number.to_string(), ONE).await, ReasonCode::GrantedQos1);
    }
    let ack = client.subscribe_all(4, &[("one more", ONE)]).await;
    assert_eq!(ack.reasons, [ReasonCode::QuotaExceeded]);
    let says = "too many subscriptions: 16 of 16; unsubscribe from one first";
    assert_eq!(words(&ack.properties).as_deref(), Some(says));
}

#[tokio::test(start_paused = true)]
async fn a_filter_that_is_none_is_told_so_by_unsuback_and_one_that_never_was_is_not() {
    let world = World::new();
    let mut client = world.plain("c", Version::V5).await;
    let ack = client.unsubscribe(1, &["a/#/b", "never"]).await;
    assert_eq!(ack.reasons, [ReasonCode::TopicFilterInvalid, ReasonCode::NoSubscriptionExisted]);
    assert!(words(&ack.properties).is_some_and(|says| says.starts_with("topic filter 1 of 2: ")), "{ack:?}");
    assert!(client.unsubscribe(2, &["never"]).await.properties.is_empty());
}

#[tokio::test(start_paused = true)]
async fn words_that_would_make_an_answer_too_large_are_left_out_of_it() {
    let world = World::new();
    let mut told = [0; 4];
    for bytes in 24..140 {
        let properties = properties([Property::MaximumPacketSize(bytes)]);
        let (mut client, _) = world.join(Connect { properties, ..connect(Version::V5, "c") }).await;
        let mut answers = Vec::new();
        for publish in [message("$SYS/a", "x", ONE, 1), message("$SYS/a", "x", TWO, 2)] {
            client.send(Packet::Publish(publish)).await;
            answers.push(client.packet().await);
        }
        answers.push(Packet::SubAck(client.subscribe_all(3, &[("unhidra/#", ONE), ("$share/g", ONE)]).await));
        answers.push(Packet::UnsubAck(client.unsubscribe(4, &["a/#/b", "#/"]).await));
        for (answer, told) in answers.iter().zip(&mut told) {
            assert!(answer.to_bytes(Version::V5).len() <= bytes as usize, "{answer:?} for {bytes}");
            let properties = match answer {
                Packet::PubAck(ack) | Packet::PubRec(ack) => &ack.properties,
                Packet::SubAck(ack) => &ack.properties,
                Packet::UnsubAck(ack) => &ack.properties,
                other => panic!("{other:?}"),
            };
            *told += u32::from(words(properties).is_some());
        }
    }
    // Where they fit they are said, and where they do not the answer comes without them.
    assert!(told.iter().all(|times| (10..110).contains(times)), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn answers_of_3_1_1_have_no_words() {
    let world = World::new();
    let mut client = world.plain("c", Version::V3_1_1).await;
    client.write(&frame(0x82, b"\x00\x07\x00\x09unhidra/#\x01\x00\x01a\x01")).await;
    assert_eq!(client.bytes().await, [0x90, 4, 0, 7, 0x80, 1]);
    client.write(&frame(0xA2, b"\x00\x08\x00\x05a/#/b")).await;
    assert_eq!(client.bytes().await, [0xB0, 2, 0, 8]);
}
