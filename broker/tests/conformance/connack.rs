//! CONNACK (section 3.2).

use std::time::Duration;

use crate::peer::*;

#[tokio::test(start_paused = true)]
async fn connack_is_the_first_packet_and_comes_once() {
    for version in VERSIONS {
        let world = World::new();
        // A message waits for the session.
        let (mut client, _) = world.join(staying(version, "c", 100)).await;
        client.subscribe("a", QoS::AtLeastOnce).await;
        client.lost().await;
        let mut publisher = world.plain("p", version).await;
        publisher.tell(message("a", "x", QoS::AtLeastOnce, 1)).await;
        let mut client = world.stranger(version);
        client.send(Packet::Connect(Box::new(staying(version, "c", 100)))).await;
        assert!(matches!(client.packet().await, Packet::ConnAck(_)));
        assert_eq!(client.told().await.payload, "x");
        client.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_bytes_of_connack_have_nothing_in_reserved_bits() {
    let world = World::new();
    for clean_start in [0x02, 0x00] {
        let mut client = world.stranger(Version::V3_1_1);
        client.write(&raw_connect(Version::V3_1_1, clean_start, b"\x00\x01c")).await;
        assert_eq!(client.bytes().await, [0x20, 2, 0, 0]);
        client.lost().await;
    }
    // And with a session.
    let mut client = world.stranger(Version::V3_1_1);
    client.write(&raw_connect(Version::V3_1_1, 0, b"\x00\x01c")).await;
    assert_eq!(client.bytes().await, [0x20, 2, 1, 0]);
    let mut client = world.stranger(Version::V5);
    client.write(&raw_connect(Version::V5, 2, b"\x00\x01d")).await;
    let [first, _, flags, reason] = client.bytes().await;
    assert_eq!((first, flags, reason), (0x20, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn session_present_says_whether_a_session_is_taken_up() {
    for version in VERSIONS {
        let world = World::new();
        let staying = || staying(version, "c", 100);
        let present = async |connect| {
            let (client, ack) = world.join(connect).await;
            client.lost().await;
            assert_eq!(ack.reason, ReasonCode::Success);
            ack.session_present
        };
        assert!(!present(staying()).await, "there is none yet");
        assert!(present(staying()).await);
        assert!(!present(Connect { clean_start: true, ..staying() }).await, "it was thrown away");
        let expected = version == Version::V5;
        assert_eq!(present(staying()).await, expected, "clean start ends with its connection in 3.1.1 alone");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_has_expired_is_not_present() {
    let world = World::new();
    let (client, _) = world.join(staying(Version::V5, "c", 100)).await;
    client.lost().await;
    tokio::time::sleep(Duration::from_secs(101)).await;
    let (_, ack) = world.join(staying(Version::V5, "c", 100)).await;
    assert!(!ack.session_present);
}

#[tokio::test(start_paused = true)]
async fn a_shortened_session_expiry_is_told() {
    let world = World::new();
    let (_, ack) = world.join(staying(Version::V5, "c", u32::MAX)).await;
    assert!(ack.properties.iter().any(|property| *property == Property::SessionExpiryInterval(86_400)), "{ack:?}");
}

#[tokio::test(start_paused = true)]
async fn the_bounds_of_the_server_are_told() {
    let world = World::new();
    let (_, ack) = world.join(connect(Version::V5, "c")).await;
    for wanted in [Property::ReceiveMaximum(4), Property::MaximumPacketSize(70_000)] {
        assert!(ack.properties.iter().any(|property| *property == wanted), "{wanted:?} in {ack:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn connack_of_3_1_1_has_no_properties() {
    let world = World::new();
    let (_, ack) = world.join(Connect { keep_alive_s: 60_000, ..connect(Version::V3_1_1, "") }).await;
    assert!(ack.properties.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_maximum_packet_size_below_connack_gets_nothing_larger() {
    let world = World::new();
    for bytes in 1..40 {
        let mut client = world.stranger(Version::V5);
        let properties = properties([Property::MaximumPacketSize(bytes)]);
        client.send(Packet::Connect(Box::new(Connect { properties, ..connect(Version::V5, "") }))).await;
        match client.hear().await {
            Heard::End => {}
            Heard::Packet(packet @ Packet::ConnAck(_)) => {
                assert!(packet.to_bytes(Version::V5).len() <= bytes as usize, "{packet:?} for {bytes}");
            }
            other => panic!("{other:?}"),
        }
    }
}
