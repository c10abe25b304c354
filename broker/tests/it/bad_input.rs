//! What no good client sends: each has its answer and no effect on others.

use std::time::Duration;

use bytes::BufMut;
use tokio::io::AsyncReadExt;
use unhidra_broker::packet::*;
use unhidra_broker::*;

use crate::world::*;

#[tokio::test(start_paused = true)]
async fn garbage_is_closed_without_a_word() {
    let world = World::new();
    let mut bystander = world.plain("bystander", Version::V5).await;
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x00\x00",
        b"\x10\xFF\xFF\xFF\xFF\xFF",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x30\x03\x00\x01a",
        b"\xC0\x00",
    ] {
        let mut client = world.client(Identity::Anonymous, Version::V5);
        client.write(garbage).await;
        assert_eq!(client.hear().await, Heard::End, "{garbage:02x?}");
        bystander.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn another_protocol_level_is_told_so() {
    let world = World::new();
    let mut client = world.client(Identity::Anonymous, Version::V3_1_1);
    client.write(b"\x10\x0C\x00\x04MQTT\x03\x02\x00\x0A\x00\x00").await;
    match client.packet().await {
        Packet::ConnAck(ack) => assert_eq!(ack.reason, ReasonCode::UnsupportedProtocolVersion),
        other => panic!("{other:?}"),
    }
    assert_eq!(client.hear().await, Heard::End);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_closed() {
    let world = World::new();
    let started = tokio::time::Instant::now();
    let mut client = world.client(Identity::Anonymous, Version::V5);
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(client.hear().await, Heard::End);
    assert_eq!(started.elapsed(), Duration::from_secs(10));
    // Nor does half a CONNECT buy more time.
    let started = tokio::time::Instant::now();
    let mut client = world.client(Identity::Anonymous, Version::V5);
    client.write(b"\x10\x20\x00\x04MQ").await;
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(client.hear().await, Heard::End);
    assert_eq!(started.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn an_oversized_packet_is_refused_by_its_header() {
    let world = World::new();
    let mut client = world.plain("c", Version::V5).await;
    let mut header = vec![0x30];
    header.put_slice(&[0xFF, 0xFF, 0xFF, 0x7F]);
    client.write(&header).await;
    client.ended(ReasonCode::PacketTooLarge).await;
}

#[tokio::test(start_paused = true)]
async fn a_wildcard_in_a_publish_topic_is_refused() {
    for version in [Version::V3_1_1, Version::V5] {
        let world = World::new();
        let mut client = world.plain("c", version).await;
        client.publish("a/+/b", "x", Some(1)).await;
        client.ended(ReasonCode::TopicNameInvalid).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_connect_ends_the_connection() {
    for version in [Version::V3_1_1, Version::V5] {
        let world = World::new();
        let mut client = world.plain("c", version).await;
        client.send(Packet::Connect(Box::new(connect(version, "c")))).await;
        client.ended(ReasonCode::ProtocolError).await;
    }
}

#[tokio::test(start_paused = true)]
async fn more_unanswered_messages_than_announced_end_5_and_wait_in_3_1_1() {
    const MESSAGES: &str = "unhidra/devices/pump-7/messages";
    let mut world = World::new();
    let (mut pump, _) = world.device("pump-7", Version::V5).await;
    pump.send_all((1..=5).map(|number| Packet::Publish(publish(MESSAGES, "x", Some(number))))).await;
    pump.ended(ReasonCode::ReceiveMaximumExceeded).await;

    let mut world = World::new();
    let (mut pump, _) = world.device("pump-7", Version::V3_1_1).await;
    pump.send_all((1..=6).map(|number| Packet::Publish(publish(MESSAGES, "x", Some(number))))).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(world.delivery().await);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.no_event();
    accept(held.remove(0));
    accept(held.remove(0));
    assert_eq!((pump.acked().await.0, pump.acked().await.0), (1, 2));
    accept(world.delivery().await);
    accept(world.delivery().await);
}

#[tokio::test(start_paused = true)]
async fn one_connection_too_many_is_closed_at_once() {
    let mut config = config();
    config.limits.connections_max = 1;
    config.gate.antechamber_max = 0;
    let world = World::with(config);
    let mut first = world.plain("first", Version::V5).await;
    let mut second = world.client(Identity::Anonymous, Version::V5);
    assert_eq!(second.hear().await, Heard::End);
    first.ping().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_nothing_is_closed() {
    let world = World::new();
    let mut client = world.stream(Identity::Anonymous, 1_024);
    let mut bytes = Packet::Connect(Box::new(connect(Version::V5, "c"))).to_bytes(Version::V5).to_vec();
    // Pings without end, whose answers it never reads.
    bytes.extend([0xC0, 0x00].repeat(200_000));
    let started = tokio::time::Instant::now();
    let written = tokio::io::AsyncWriteExt::write_all(&mut client, &bytes).await;
    assert!(written.is_err(), "closed while it still wrote");
    assert!(started.elapsed() >= Duration::from_secs(10));
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.expect("what had been written before");
    assert!(rest.len() <= 1_024, "{}", rest.len());
}

#[tokio::test(start_paused = true)]
async fn a_device_with_a_will_is_not_let_in() {
    let mut world = World::new();
    for (version, reason) in [(Version::V5, ReasonCode::NotAuthorized), (Version::V3_1_1, ReasonCode::NotAuthorized)] {
        let topic = text("unhidra/devices/pump-7/messages");
        let properties = Properties::default();
        let will = Will { topic, payload: "x".into(), qos: QoS::AtMostOnce, retain: false, properties };
        let mut pump = world.client(device("pump-7"), version);
        let asked = Connect { will: Some(will), ..connect(version, "pump-7") };
        pump.send(Packet::Connect(Box::new(asked))).await;
        match pump.packet().await {
            Packet::ConnAck(ack) => assert_eq!(ack.reason, reason),
            other => panic!("{other:?}"),
        }
        assert_eq!(pump.hear().await, Heard::End);
    }
    world.no_event();
}

#[test]
fn an_unknown_key_in_the_configuration_is_named() {
    let with = CONFIG.replace("linger_ms = 100", "linger_ms = 100\nlinger_s = 1");
    let error = toml::from_str::<Config>(&with).expect_err("an unknown key").to_string();
    assert!(error.contains("linger_s"), "{error}");
    let with = CONFIG.replace("\"off\"", "\"somewhere\"");
    let error = toml::from_str::<Config>(&with).expect_err("a bad value").to_string();
    assert!(error.contains("somewhere") && error.contains("off"), "{error}");
}
