//! CONNECT (section 3.1).

use std::time::Duration;

use tokio::time::Instant;

use crate::peer::*;

#[tokio::test(start_paused = true)]
async fn the_first_packet_is_connect() {
    let world = World::new();
    for first in [
        Packet::Publish(publish("a", "x", None)),
        Packet::PingReq,
        Packet::Disconnect(Disconnect::new(ReasonCode::Success)),
        Packet::Auth(Auth { reason: ReasonCode::ContinueAuthentication, properties: Properties::default() }),
    ] {
        let mut client = world.stranger(Version::V5);
        client.send(first).await;
        assert_eq!(client.hear().await, Heard::End);
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_connect_is_a_protocol_error() {
    for version in VERSIONS {
        let world = World::new();
        let mut client = world.plain("c", version).await;
        client.send(Packet::Connect(Box::new(connect(version, "c")))).await;
        client.ended(ReasonCode::ProtocolError).await;
    }
}

#[tokio::test(start_paused = true)]
async fn another_protocol_name_is_not_served() {
    let world = World::new();
    for body in [&b"\x00\x06MQIsdp\x03\x02\x00\x3C\x00\x01c"[..], b"\x00\x04mqtt\x05\x02\x00\x3C\x00\x00\x01c"] {
        let mut client = world.stranger(Version::V3_1_1);
        client.write(&frame(0x10, body)).await;
        match client.hear().await {
            Heard::End => {}
            Heard::Packet(Packet::ConnAck(ack)) => {
                assert_eq!(ack.reason, ReasonCode::UnsupportedProtocolVersion);
                assert_eq!(client.hear().await, Heard::End);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn another_protocol_level_is_told_so_and_closed() {
    for level in [0, 1, 2, 3, 6, 0x83, 255] {
        let world = World::new();
        let mut client = world.stranger(Version::V3_1_1);
        client.write(&frame(0x10, &[0, 4, b'M', b'Q', b'T', b'T', level, 2, 0, 60, 0, 1, b'c'])).await;
        match client.packet().await {
            Packet::ConnAck(ack) => assert_eq!(ack.reason, ReasonCode::UnsupportedProtocolVersion, "{level}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(client.hear().await, Heard::End);
    }
}

#[tokio::test(start_paused = true)]
async fn connect_flags_that_contradict_one_another_are_malformed() {
    let world = World::new();
    let cases: [(u8, &[u8]); 8] = [
        // The reserved bit.
        (0x03, b"\x00\x01c"),
        // A Will's QoS or RETAIN without a Will.
        (0x0A, b"\x00\x01c"),
        (0x12, b"\x00\x01c"),
        (0x22, b"\x00\x01c"),
        // A Will of QoS 3.
        (0x1E, b"\x00\x01c\x00\x00\x01w\x00\x01x"),
        // Fields that are announced and missing.
        (0x06, b"\x00\x01c"),
        (0x82, b"\x00\x01c"),
        (0xC2, b"\x00\x01c\x00\x01u"),
    ];
    for version in VERSIONS {
        for (flags, payload) in cases {
            let mut client = world.stranger(version);
            client.write(&raw_connect(version, flags, payload)).await;
            client.turned_away(ReasonCode::MalformedPacket, version).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn fields_that_no_flag_announces_are_malformed() {
    let world = World::new();
    for version in VERSIONS {
        for extra in [&b"\x00\x01u"[..], b"\x00\x01u\x00\x01p", b"\x00\x01w\x00\x01x", b"\x00"] {
            let mut client = world.stranger(version);
            client.write(&raw_connect(version, 0x02, &[b"\x00\x01c", extra].concat())).await;
            client.turned_away(ReasonCode::MalformedPacket, version).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_password_without_a_user_name_is_for_5_alone() {
    let world = World::new();
    let mut client = world.stranger(Version::V3_1_1);
    client.write(&raw_connect(Version::V3_1_1, 0x42, b"\x00\x01c\x00\x01p")).await;
    assert_eq!(client.hear().await, Heard::End);
    let mut client = world.stranger(Version::V5);
    client.write(&raw_connect(Version::V5, 0x42, b"\x00\x01c\x00\x01p")).await;
    assert!(matches!(client.packet().await, Packet::ConnAck(ack) if ack.reason == ReasonCode::Success));
}

#[tokio::test(start_paused = true)]
async fn every_field_of_the_payload_is_read_in_its_order() {
    for version in VERSIONS {
        let world = World::new();
        let mut watcher = world.plain("watcher", version).await;
        watcher.subscribe("w", QoS::AtMostOnce).await;
        let mut client = world.stranger(version);
        let will_properties: &[u8] = if version == Version::V5 { b"\x00" } else { b"" };
        let payload = [b"\x00\x01c", will_properties, b"\x00\x01w\x00\x01x\x00\x01u\x00\x01p"].concat();
        client.write(&raw_connect(version, 0xC6, &payload)).await;
        assert!(matches!(client.packet().await, Packet::ConnAck(ack) if ack.reason == ReasonCode::Success));
        client.lost().await;
        assert_eq!(watcher.message().await.payload, "x");
    }
}

#[tokio::test(start_paused = true)]
async fn strings_of_connect_are_utf_8() {
    let world = World::new();
    for version in VERSIONS {
        let no_properties: &[u8] = if version == Version::V5 { b"\x00" } else { b"" };
        for (flags, before, after) in [
            (0x02, &b""[..], &b""[..]),
            (0x06, &[b"\x00\x01c", no_properties].concat(), b"\x00\x01x"),
            (0x82, b"\x00\x01c", b""),
        ] {
            for bad in [&b"\x00\x01\xFF"[..], b"\x00\x03\xED\xA0\x80", b"\x00\x01\x00", b"\x00\x02\xC0\x80"] {
                let mut client = world.stranger(version);
                client.write(&raw_connect(version, flags, &[before, bad, after].concat())).await;
                client.turned_away(ReasonCode::MalformedPacket, version).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn client_identifiers_of_23_letters_and_digits_are_taken_and_longer_ones_too() {
    let world = World::new();
    for version in VERSIONS {
        for id in ["0", "abcdefghijklmnopqrstuvw", "XYZ0123456789ABCDEFGHIJ", "wxyz-KLMNOPQRSTUVW/ü-and more of it"] {
            let (mut client, ack) = world.join(connect(version, id)).await;
            assert_eq!(ack.reason, ReasonCode::Success);
            client.ping().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_identifier_that_is_not_taken_is_told_so_and_closed() {
    let world = World::new();
    for version in VERSIONS {
        let mut client = world.stranger(version);
        client.send(Packet::Connect(Box::new(connect(version, &"c".repeat(257))))).await;
        match client.packet().await {
            Packet::ConnAck(ack) => assert_eq!(ack.reason, ReasonCode::ClientIdentifierNotValid),
            other => panic!("{other:?}"),
        }
        assert_eq!(client.hear().await, Heard::End);
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_client_identifier_is_replaced_by_a_unique_one() {
    let world = World::new();
    let mut given = Vec::new();
    for _ in 0..3 {
        let (client, ack) = world.join(connect(Version::V5, "")).await;
        let id = ack.properties.find(|property| match property {
            Property::AssignedClientIdentifier(id) => Some(id.as_str().to_owned()),
            _ => None,
        });
        given.push((id.expect("an identifier"), client));
    }
    assert!(given[0].0 != given[1].0 && given[1].0 != given[2].0 && given[2].0 != given[0].0);
    // The identifier it was given is its own: who comes with it takes it over.
    let (id, mut client) = given.remove(0);
    world.plain(&id, Version::V5).await;
    client.ended(ReasonCode::SessionTakenOver).await;
    let (mut old, _) = world.join(connect(Version::V3_1_1, "")).await;
    old.ping().await;
}

#[tokio::test(start_paused = true)]
async fn an_empty_client_identifier_names_no_session_that_stays_in_3_1_1() {
    let world = World::new();
    let mut client = world.stranger(Version::V3_1_1);
    client.send(Packet::Connect(Box::new(Connect { clean_start: false, ..connect(Version::V3_1_1, "") }))).await;
    match client.packet().await {
        Packet::ConnAck(ack) => assert_eq!(ack.reason, ReasonCode::ClientIdentifierNotValid),
        other => panic!("{other:?}"),
    }
    assert_eq!(client.hear().await, Heard::End);
}

#[tokio::test(start_paused = true)]
async fn a_client_identifier_in_use_takes_the_connection_over() {
    for version in VERSIONS {
        let world = World::new();
        let mut old = world.plain("c", version).await;
        let mut new = world.plain("c", version).await;
        old.ended(ReasonCode::SessionTakenOver).await;
        new.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_connect_is_closed_and_nothing_behind_it_is_done() {
    for version in VERSIONS {
        let mut world = World::new();
        let (watcher, _) = world.device("pump-7", Version::V5).await;
        drop(watcher);
        world.event().await;
        world.revoke("pump-7");
        let mut listener = world.plain("listener", version).await;
        listener.subscribe("a", QoS::AtMostOnce).await;
        let mut client = world.client(device("pump-7"), version);
        client
            .send_all([
                Packet::Connect(Box::new(connect(version, "pump-7"))),
                Packet::Publish(publish("a", "x", None)),
                Packet::PingReq,
            ])
            .await;
        match client.packet().await {
            Packet::ConnAck(ack) => {
                assert_eq!((ack.reason, ack.session_present), (ReasonCode::NotAuthorized, false));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(client.hear().await, Heard::End);
        listener.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn packets_may_follow_connect_at_once() {
    for version in VERSIONS {
        let world = World::new();
        let mut client = world.stranger(version);
        client.send_all([Packet::Connect(Box::new(connect(version, "c"))), Packet::PingReq]).await;
        assert!(matches!(client.packet().await, Packet::ConnAck(ack) if ack.reason == ReasonCode::Success));
        assert_eq!(client.packet().await, Packet::PingResp);
    }
}

/// How long a client that has said this may be silent.
async fn silence(world: &World, connect: Connect) -> (Duration, Client) {
    let (client, _) = world.join(connect).await;
    let started = Instant::now();
    let mut watched = client;
    let mut byte = [0_u8; 1];
    use tokio::io::AsyncReadExt;
    let _ = tokio::time::timeout(Duration::from_secs(100_000), watched.stream.read(&mut byte)).await;
    (started.elapsed(), watched)
}

#[tokio::test(start_paused = true)]
async fn one_and_a_half_keep_alives_of_silence_end_the_connection() {
    for version in VERSIONS {
        let world = World::new();
        for keep_alive_s in [1, 10, 61] {
            let (took, _) = silence(&world, Connect { keep_alive_s, ..connect(version, "c") }).await;
            let wanted = Duration::from_millis(u64::from(keep_alive_s) * 1500);
            assert!(took >= wanted && took < wanted + Duration::from_secs(1), "{took:?} for {keep_alive_s} s");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn any_packet_keeps_a_client_alive() {
    let world = World::new();
    let (mut client, _) = world.join(Connect { keep_alive_s: 10, ..connect(Version::V5, "c") }).await;
    for number in 1..=5 {
        tokio::time::sleep(Duration::from_secs(14)).await;
        client.publish("a", "x", Some(number)).await;
        client.acked().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_client_is_treated_as_one_that_fell_silent() {
    let world = World::new();
    let mut watcher = world.plain("watcher", Version::V5).await;
    watcher.subscribe("w", QoS::AtMostOnce).await;
    let will = Some(will("w", "gone"));
    let (_client, _) = world.join(Connect { keep_alive_s: 2, will, ..connect(Version::V5, "c") }).await;
    assert_eq!(watcher.message().await.payload, "gone");
}

#[tokio::test(start_paused = true)]
async fn keep_alive_0_never_ends_a_connection() {
    for version in VERSIONS {
        let world = World::new();
        let (took, mut client) = silence(&world, Connect { keep_alive_s: 0, ..connect(version, "c") }).await;
        assert_eq!(took, Duration::from_secs(100_000));
        client.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_server_keep_alive_is_what_it_announces() {
    let world = World::new();
    let asked = Connect { keep_alive_s: 60_000, ..connect(Version::V5, "c") };
    let (mut client, ack) = world.join(asked).await;
    assert!(ack.properties.iter().any(|property| *property == Property::ServerKeepAlive(3_600)), "{ack:?}");
    tokio::time::sleep(Duration::from_secs(5_398)).await;
    client.ping().await;
    let (_, ack) = world.join(Connect { keep_alive_s: 30, ..connect(Version::V5, "d") }).await;
    assert!(!ack.properties.iter().any(|property| matches!(property, Property::ServerKeepAlive(_))), "{ack:?}");
}

#[tokio::test(start_paused = true)]
async fn enhanced_authentication_is_refused_by_its_name() {
    let world = World::new();
    let method = properties([Property::AuthenticationMethod(text("SCRAM-SHA-1"))]);
    let mut client = world.stranger(Version::V5);
    client.send(Packet::Connect(Box::new(Connect { properties: method, ..connect(Version::V5, "c") }))).await;
    match client.packet().await {
        Packet::ConnAck(ack) => {
            assert_eq!((ack.reason, ack.session_present), (ReasonCode::BadAuthenticationMethod, false));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(client.hear().await, Heard::End);
}

#[tokio::test(start_paused = true)]
async fn auth_without_a_method_in_connect_is_a_protocol_error() {
    let world = World::new();
    for reason in [ReasonCode::ContinueAuthentication, ReasonCode::ReAuthenticate] {
        let mut client = world.plain("c", Version::V5).await;
        let properties = properties([Property::AuthenticationMethod(text("SCRAM-SHA-1"))]);
        client.send(Packet::Auth(Auth { reason, properties })).await;
        client.ended(ReasonCode::ProtocolError).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_of_authentication_is_said_to_who_did_not_ask() {
    let world = World::new();
    let (_, ack) = world.join(connect(Version::V5, "c")).await;
    let of_authentication =
        |property: &Property| matches!(property, Property::AuthenticationMethod(_) | Property::AuthenticationData(_));
    assert!(!ack.properties.iter().any(of_authentication), "{ack:?}");
}

#[tokio::test(start_paused = true)]
async fn response_information_is_not_given_unasked() {
    let world = World::new();
    for list in [vec![], vec![Property::RequestResponseInformation(false)]] {
        let asked = Connect { properties: list.into_iter().collect(), ..connect(Version::V5, "c") };
        let (_, ack) = world.join(asked).await;
        assert!(!ack.properties.iter().any(|property| matches!(property, Property::ResponseInformation(_))));
    }
}
