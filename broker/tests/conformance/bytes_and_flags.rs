//! What all packets share (sections 1.5, 2 and 4.13).

use crate::peer::*;

const BOM: &str = "\u{FEFF}a\u{FEFF}";

/// Sends bytes as a client that is in, and awaits the end for this reason.
async fn ends(version: Version, bytes: &[u8], reason: ReasonCode) {
    let world = World::new();
    let mut client = world.plain("c", version).await;
    client.write(bytes).await;
    client.ended(reason).await;
}

#[tokio::test(start_paused = true)]
async fn strings_are_well_formed_utf_8() {
    for bad in [&b"\xFF"[..], b"\xC3", b"\xED\xA0\x80", b"\xED\xBF\xBF", b"\xC0\x80", b"\xF4\x90\x80\x80"] {
        let topic = [&[0, bad.len() as u8], bad].concat();
        ends(Version::V3_1_1, &frame(0x30, &topic), ReasonCode::MalformedPacket).await;
        let in_five = [&topic[..], &[0]].concat();
        ends(Version::V5, &frame(0x30, &in_five), ReasonCode::MalformedPacket).await;
        let of_filter = [&[0, 1, 0][..], &topic, &[0]].concat();
        ends(Version::V5, &frame(0x82, &of_filter), ReasonCode::MalformedPacket).await;
        let of_filter = [&[0, 1, 0][..], &topic].concat();
        ends(Version::V5, &frame(0xA2, &of_filter), ReasonCode::MalformedPacket).await;
    }
}

#[tokio::test(start_paused = true)]
async fn strings_have_no_u_0000() {
    for version in VERSIONS {
        let end: &[u8] = if version == Version::V5 { &[0] } else { &[] };
        ends(version, &frame(0x30, &[b"\x00\x03a\x00b", end].concat()), ReasonCode::MalformedPacket).await;
        let of_filter = [&[0, 1][..], end, b"\x00\x03a\x00b\x00"].concat();
        ends(version, &frame(0x82, &of_filter), ReasonCode::MalformedPacket).await;
    }
}

#[tokio::test(start_paused = true)]
async fn u_feff_is_a_character_like_others() {
    for version in VERSIONS {
        let world = World::new();
        let mut client = world.plain(BOM, version).await;
        client.subscribe(BOM, QoS::AtMostOnce).await;
        client.publish("a", "not this", None).await;
        client.publish(BOM, "x", None).await;
        assert_eq!(client.message().await.topic, text(BOM));
        client.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn both_strings_of_a_user_property_are_utf_8() {
    for pair in [&b"\x26\x00\x01\xFF\x00\x01v"[..], b"\x26\x00\x01k\x00\x01\xFF", b"\x26\x00\x01\x00\x00\x01v"] {
        let body = [&b"\x00\x01a"[..], &[pair.len() as u8], pair].concat();
        ends(Version::V5, &frame(0x30, &body), ReasonCode::MalformedPacket).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_length_of_more_than_four_bytes_is_malformed() {
    for version in VERSIONS {
        ends(version, &[0x30, 0x80, 0x80, 0x80, 0x80, 0x01], ReasonCode::MalformedPacket).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_length_in_more_bytes_than_it_needs_is_malformed() {
    ends(Version::V5, &[0xC0, 0x80, 0x00], ReasonCode::MalformedPacket).await;
    // As a property's length and as a property's value.
    ends(Version::V5, &frame(0x30, b"\x00\x01a\x80\x00"), ReasonCode::MalformedPacket).await;
    ends(Version::V5, &frame(0x82, b"\x00\x01\x03\x0B\x81\x00\x00\x01a\x00"), ReasonCode::MalformedPacket).await;
    // In CONNECT too, which says itself what it is; 3.1.1 has no such rule.
    let world = World::new();
    for version in VERSIONS {
        let mut bytes = raw_connect(version, 2, b"\x00\x01c");
        let len = bytes[1];
        bytes.splice(1..2, [len | 0x80, 0]);
        let mut client = world.stranger(version);
        client.write(&bytes).await;
        match version {
            Version::V3_1_1 => assert!(matches!(client.packet().await, Packet::ConnAck(_))),
            Version::V5 => client.turned_away(ReasonCode::MalformedPacket, version).await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn reserved_flags_are_what_their_packet_prescribes() {
    let cases: [(u8, &[u8]); 6] = [
        (0x40, b"\x00\x01"),
        (0x62, b"\x00\x01"),
        (0x82, b"\x00\x01\x00\x00\x01a\x00"),
        (0xA2, b"\x00\x01\x00\x00\x01a"),
        (0xC0, b""),
        (0xE0, b""),
    ];
    for version in VERSIONS {
        for (first, body) in cases {
            for bit in [0x01, 0x02, 0x04, 0x08] {
                ends(version, &frame(first ^ bit, body), ReasonCode::MalformedPacket).await;
            }
        }
    }
    for bit in [0x01, 0x02, 0x04, 0x08] {
        ends(Version::V5, &frame(0xF0 | bit, b"\x18\x00"), ReasonCode::MalformedPacket).await;
    }
}

#[tokio::test(start_paused = true)]
async fn reserved_flags_of_connect_are_closed() {
    let world = World::new();
    for bit in [0x01, 0x02, 0x04, 0x08] {
        for version in VERSIONS {
            let mut bytes = raw_connect(version, 2, b"\x00\x01c");
            bytes[0] |= bit;
            let mut client = world.stranger(version);
            client.write(&bytes).await;
            client.turned_away(ReasonCode::MalformedPacket, version).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn packet_identifiers_are_not_0() {
    for version in VERSIONS {
        let end: &[u8] = if version == Version::V5 { &[0] } else { &[] };
        for (first, body) in [
            (0x32, [b"\x00\x01a\x00\x00", end].concat()),
            (0x34, [b"\x00\x01a\x00\x00", end].concat()),
            (0x82, [b"\x00\x00", end, b"\x00\x01a\x00"].concat()),
            (0xA2, [b"\x00\x00", end, b"\x00\x01a"].concat()),
            (0x40, vec![0, 0]),
        ] {
            let world = World::new();
            let mut client = world.plain("c", version).await;
            client.write(&frame(first, &body)).await;
            match client.hear().await {
                Heard::End => assert_eq!(version, Version::V3_1_1),
                Heard::Packet(Packet::Disconnect(told)) => assert!(
                    matches!(told.reason, ReasonCode::MalformedPacket | ReasonCode::ProtocolError),
                    "{first:#x}: {told:?}"
                ),
                other => panic!("{first:#x}: {other:?}"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_of_qos_0_has_no_packet_identifier() {
    // What stands where the identifier would is the payload, or in 5.0 the properties.
    let world = World::new();
    let mut client = world.plain("c", Version::V3_1_1).await;
    client.subscribe("a", QoS::AtMostOnce).await;
    client.write(&frame(0x30, b"\x00\x01a\x12\x34")).await;
    assert_eq!(client.message().await.payload, &b"\x12\x34"[..]);
    // And the bytes of one to a client.
    client.write(&frame(0x30, b"\x00\x01ax")).await;
    assert_eq!(client.bytes().await, *b"\x30\x04\x00\x01ax");
}

#[tokio::test(start_paused = true)]
async fn no_properties_are_a_length_of_0() {
    let world = World::new();
    let mut client = world.plain("c", Version::V5).await;
    client.write(&frame(0x82, b"\x00\x01\x00\x00\x01a\x00")).await;
    assert_eq!(client.bytes().await, [0x90, 4, 0, 1, 0, 0]);
    client.write(&frame(0x30, b"\x00\x01a\x00x")).await;
    assert_eq!(client.bytes().await, *b"\x30\x05\x00\x01a\x00x");
    client.write(&frame(0xA2, b"\x00\x02\x00\x00\x01a")).await;
    assert_eq!(client.bytes().await, [0xB0, 4, 0, 2, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_name_the_packet_they_answer() {
    for version in VERSIONS {
        let world = World::new();
        let mut client = world.plain("c", version).await;
        for number in [1, 255, 256, 65_535] {
            client.publish("a", "x", Some(number)).await;
            assert_eq!(client.acked().await.0, number);
            assert_eq!(client.subscribe_all(number, &[("b", QoS::AtMostOnce)]).await.packet_id.get(), number);
            assert_eq!(client.unsubscribe(number, &["b"]).await.packet_id.get(), number);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_packet_that_ends_too_early_or_too_late_is_malformed() {
    for version in VERSIONS {
        let end: &[u8] = if version == Version::V5 { &[0] } else { &[] };
        let subscribe = [b"\x00\x01", end, b"\x00\x01a\x00"].concat();
        ends(version, &frame(0x82, &subscribe[..subscribe.len() - 1]), ReasonCode::MalformedPacket).await;
        ends(version, &frame(0x40, b"\x01"), ReasonCode::MalformedPacket).await;
        ends(version, &frame(0xC0, b"\x00"), ReasonCode::MalformedPacket).await;
        ends(version, &frame(0x30, b"\x00\x05a"), ReasonCode::MalformedPacket).await;
    }
    ends(Version::V3_1_1, &frame(0x40, b"\x00\x01\x00"), ReasonCode::MalformedPacket).await;
}

#[tokio::test(start_paused = true)]
async fn a_packet_larger_than_announced_is_refused_by_its_header() {
    for version in VERSIONS {
        ends(version, &[0x30, 0xF1, 0xA2, 0x04], ReasonCode::PacketTooLarge).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_only_a_server_sends_ends_the_connection() {
    for version in VERSIONS {
        for (first, body) in [(0x20, &b"\x00\x00"[..]), (0x90, b"\x00\x01\x00"), (0xB0, b"\x00\x01"), (0xD0, b"")] {
            let world = World::new();
            let mut client = world.plain("c", version).await;
            client.write(&frame(first, body)).await;
            match client.hear().await {
                Heard::End => assert_eq!(version, Version::V3_1_1),
                Heard::Packet(Packet::Disconnect(told)) => {
                    assert!(told.reason.is_error(), "{told:?}");
                    assert_eq!(client.hear().await, Heard::End);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn packet_types_0_and_15_are_no_packets_of_3_1_1() {
    for first in [0x00, 0xF0] {
        ends(Version::V3_1_1, &frame(first, b""), ReasonCode::MalformedPacket).await;
    }
    ends(Version::V5, &frame(0x00, b""), ReasonCode::MalformedPacket).await;
}

#[tokio::test(start_paused = true)]
async fn a_property_that_may_come_once_and_comes_twice_is_a_protocol_error() {
    let twice = b"\x00\x01a\x0A\x02\x00\x00\x00\x09\x02\x00\x00\x00\x09";
    ends(Version::V5, &frame(0x30, twice), ReasonCode::ProtocolError).await;
}

#[tokio::test(start_paused = true)]
async fn a_property_that_has_no_place_in_its_packet_is_malformed() {
    ends(Version::V5, &frame(0x30, b"\x00\x01a\x03\x21\x00\x09"), ReasonCode::MalformedPacket).await;
    ends(Version::V5, &frame(0x30, b"\x00\x01a\x02\x7F\x00"), ReasonCode::MalformedPacket).await;
}

#[tokio::test(start_paused = true)]
async fn packets_may_come_in_any_pieces() {
    for version in VERSIONS {
        let world = World::new();
        let mut client = world.plain("c", version).await;
        let mut bytes = Vec::new();
        for packet in [Packet::Publish(publish("a", "x", Some(1))), Packet::PingReq] {
            bytes.extend_from_slice(&packet.to_bytes(version));
        }
        for byte in bytes {
            client.write(&[byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(client.acked().await.0, 1);
        assert_eq!(client.packet().await, Packet::PingResp);
    }
}

#[tokio::test(start_paused = true)]
async fn one_client_at_fault_disturbs_no_other() {
    let world = World::new();
    let mut good = world.plain("good", Version::V5).await;
    good.subscribe("a", QoS::AtLeastOnce).await;
    for bad in [&b"\x00\x00"[..], b"\x36\x00", b"\x82\x02\x00\x01", b"\x30\xFF\xFF\xFF\xFF"] {
        let mut client = world.plain("bad", Version::V5).await;
        client.write(bad).await;
        assert!(matches!(client.packet().await, Packet::Disconnect(_)));
        good.publish("a", "x", None).await;
        assert_eq!(good.told().await.payload, "x");
    }
}

#[tokio::test(start_paused = true)]
async fn after_its_disconnect_the_server_says_nothing_and_closes() {
    let world = World::new();
    let mut client = world.plain("c", Version::V5).await;
    client.subscribe("a", QoS::AtMostOnce).await;
    let mut publisher = world.plain("p", Version::V5).await;
    client.write(&frame(0xC1, b"")).await;
    publisher.tell(message("a", "x", QoS::AtLeastOnce, 1)).await;
    client.ended(ReasonCode::MalformedPacket).await;
}

#[tokio::test(start_paused = true)]
async fn a_ping_is_answered() {
    for version in VERSIONS {
        let world = World::new();
        let mut client = world.plain("c", version).await;
        client.write(&[0xC0, 0]).await;
        assert_eq!(client.bytes().await, [0xD0, 0]);
    }
}
