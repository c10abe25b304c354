use super::*;
use bytes::BufMut;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

fn decode(bytes: &[u8], version: Version) -> Result<Packet, DecodeError> {
    let mut stream = BytesMut::from(bytes);
    let frame = split_frame(&mut stream, 1 << 20)?.expect("a whole frame");
    assert!(stream.is_empty(), "one frame");
    Packet::decode(frame, version)
}

/// A packet of type and flags `first` with this body.
fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    out.put_u8(first);
    varint::write(body.len() as u32, &mut out);
    out.put_slice(body);
    out.to_vec()
}

#[test]
fn the_bytes_of_the_standard_are_these_packets() {
    // The example of 3.1.1 figure 3.6: user name, password, Will at QoS 1, clean session, 10 s.
    let connect = b"\x10\x28\x00\x04MQTT\x04\xCE\x00\x0A\x00\x01c\x00\x02wt\x00\x04gone\x00\x04user\x00\x06secret";
    let connect = &connect[..];
    let mut exact = connect.to_vec();
    exact[1] = (connect.len() - 2) as u8;
    match decode(&exact, Version::V5).expect("a CONNECT") {
        Packet::Connect(connect) => {
            assert_eq!((connect.version, connect.clean_start, connect.keep_alive_s), (Version::V3_1_1, true, 10));
            let will = connect.will.expect("a will");
            assert_eq!((will.topic.as_str(), will.qos, will.retain), ("wt", QoS::AtLeastOnce, false));
            assert_eq!(connect.password.as_deref(), Some(&b"secret"[..]));
        }
        other => panic!("{other:?}"),
    }
    // 3.1.1 section 3.3.2.3 and its neighbours.
    let publish = Packet::Publish(Publish {
        assurance: Assurance::AtLeastOnce { packet_id: PacketId::FIRST, dup: true },
        retain: true,
        topic: Text::from("a/b"),
        properties: Properties::default(),
        payload: Bytes::from_static(b"hi"),
    });
    assert_eq!(publish.to_bytes(Version::V3_1_1).as_ref(), b"\x3B\x09\x00\x03a/b\x00\x01hi");
    assert_eq!(publish.to_bytes(Version::V5).as_ref(), b"\x3B\x0A\x00\x03a/b\x00\x01\x00hi");
    assert_eq!(Packet::PingResp.to_bytes(Version::V5).as_ref(), b"\xD0\x00");
}

#[test]
fn a_short_acknowledgement_means_success() {
    for (bytes, version, reason) in [
        (&b"\x40\x02\x00\x07"[..], Version::V3_1_1, ReasonCode::Success),
        (b"\x40\x02\x00\x07", Version::V5, ReasonCode::Success),
        (b"\x40\x03\x00\x07\x83", Version::V5, ReasonCode::ImplementationSpecificError),
        (b"\x40\x04\x00\x07\x87\x00", Version::V5, ReasonCode::NotAuthorized),
    ] {
        match decode(bytes, version) {
            Ok(Packet::PubAck(ack)) => assert_eq!((ack.packet_id.get(), ack.reason), (7, reason)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(decode(b"\xE0\x00", Version::V5), Ok(Packet::Disconnect(Disconnect::new(ReasonCode::Success))));
}

#[test]
fn what_breaks_a_rule_is_named() {
    use DecodeError as E;
    use Version::{V3_1_1, V5};
    let connect = |level: u8, flags: u8, rest: &[u8]| {
        let mut body = b"\x00\x04MQTT".to_vec();
        body.extend([level, flags, 0, 10]);
        body.extend(rest);
        frame(0x10, &body)
    };
    let table: Vec<(Vec<u8>, Version, E)> = vec![
        (frame(0x10, b"\x00\x06MQIsdp\x03\x02\x00\x0A\x00\x00"), V5, E::ProtocolName),
        (connect(6, 2, b"\x00\x00"), V5, E::ProtocolLevel { found: 6 }),
        (connect(4, 3, b"\x00\x00"), V5, E::ConnectFlags { found: 3 }),
        (connect(4, 0b0001_1110, b"\x00\x00"), V5, E::ReservedQos),
        (connect(4, 0b0010_0010, b"\x00\x00"), V5, E::ConnectFlags { found: 0b0010_0010 }),
        (connect(4, 0b0000_1010, b"\x00\x00"), V5, E::ConnectFlags { found: 0b0000_1010 }),
        (connect(4, 0b0100_0010, b"\x00\x00\x00\x01p"), V5, E::ConnectFlags { found: 0b0100_0010 }),
        (connect(4, 2, b"\x00\x05ab"), V5, E::Truncated),
        (connect(4, 2, b"\x00\x00more"), V5, E::TrailingBytes { count: 4 }),
        (connect(4, 2, b"\x00\x01\xFF"), V5, E::NotUtf8),
        (connect(5, 2, b"\x05\x11\x00\x00\x00"), V5, E::Truncated),
        (frame(0x11, b""), V5, E::ReservedFlags { packet: "CONNECT", found: 1 }),
        (frame(0x36, b"\x00\x01a\x00\x01"), V3_1_1, E::ReservedQos),
        (frame(0x38, b"\x00\x01a"), V3_1_1, E::DupAtQosZero),
        (frame(0x32, b"\x00\x01a\x00\x00"), V3_1_1, E::PacketIdZero),
        (frame(0x32, b"\x00\x01a\x00"), V3_1_1, E::Truncated),
        (frame(0x30, b"\x00\x02a\x00"), V3_1_1, E::Nul),
        (frame(0x30, b"\x00\x01a\x03\x23\x00\x00"), V5, E::TopicAliasZero),
        (frame(0x80, b"\x00\x01\x00\x01a\x00"), V3_1_1, E::ReservedFlags { packet: "SUBSCRIBE", found: 0 }),
        (frame(0x82, b"\x00\x01"), V3_1_1, E::NoFilters),
        (frame(0x82, b"\x00\x01\x00"), V5, E::NoFilters),
        (frame(0x82, b"\x00\x01\x00\x01a\x03"), V3_1_1, E::SubscriptionOptionValue { found: 3 }),
        (frame(0x82, b"\x00\x01\x00\x01a\x04"), V3_1_1, E::SubscriptionOptions { found: 4 }),
        (frame(0x82, b"\x00\x01\x00\x00\x01a\x31"), V5, E::SubscriptionOptionValue { found: 0x31 }),
        (frame(0x82, b"\x00\x01\x00\x00\x01a\x41"), V5, E::SubscriptionOptions { found: 0x41 }),
        (frame(0xA2, b"\x00\x01"), V3_1_1, E::NoFilters),
        (frame(0x40, b"\x00\x01\x05"), V5, E::UnknownReason { found: 5 }),
        (frame(0x40, b"\x00\x01\x00"), V3_1_1, E::TrailingBytes { count: 1 }),
        (frame(0x60, b"\x00\x01"), V5, E::ReservedFlags { packet: "PUBREL", found: 0 }),
        (frame(0xC0, b"\x00"), V5, E::TrailingBytes { count: 1 }),
        (frame(0xE0, b"\x00"), V3_1_1, E::TrailingBytes { count: 1 }),
        (frame(0xF0, b""), V3_1_1, E::AuthInV3),
        (frame(0x20, b"\x02\x00"), V3_1_1, E::ConnAckFlags { found: 2 }),
        (frame(0x20, b"\x00\x06"), V3_1_1, E::UnknownReason { found: 6 }),
        (frame(0x90, b"\x00\x01\x87"), V3_1_1, E::UnknownReason { found: 0x87 }),
    ];
    for (bytes, version, error) in table {
        assert_eq!(decode(&bytes, version), Err(error), "{bytes:02x?} in {version:?}");
        assert!(error.reason_code().is_error());
    }
}

#[test]
fn a_failure_of_any_kind_is_0x80_to_a_3_1_1_subscriber() {
    let reasons = vec![ReasonCode::GrantedQos1, ReasonCode::NotAuthorized, ReasonCode::Success];
    let ack = Packet::SubAck(SubAck { packet_id: PacketId::FIRST, properties: Properties::default(), reasons });
    assert_eq!(ack.to_bytes(Version::V3_1_1).as_ref(), b"\x90\x05\x00\x01\x01\x80\x00");
    assert_eq!(ack.to_bytes(Version::V5).as_ref(), b"\x90\x06\x00\x01\x00\x01\x87\x00");
}

#[test]
fn secrets_stay_out_of_debug() {
    let connect = Connect {
        version: Version::V5,
        clean_start: true,
        keep_alive_s: 0,
        properties: Properties::default(),
        client_id: Text::from("c"),
        will: None,
        user_name: Some(Text::from("tokenname")),
        password: Some(Bytes::from_static(b"hunter2")),
    };
    let text = format!("{connect:?}");
    assert!(!text.contains("tokenname") && !text.contains("hunter2") && text.contains("[secret]"), "{text}");
}

// Round trips.

fn text() -> impl Strategy<Value = Text> {
    "[a-zA-Z0-9/+#$ äß漢]{0,12}".prop_map(Text::from_checked)
}

fn binary() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|id| PacketId::new(id).expect("not 0"))
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
}

fn assurance() -> impl Strategy<Value = Assurance> {
    (qos(), packet_id(), any::<bool>()).prop_map(|(qos, packet_id, dup)| match qos {
        QoS::AtMostOnce => Assurance::AtMostOnce,
        QoS::AtLeastOnce => Assurance::AtLeastOnce { packet_id, dup },
        QoS::ExactlyOnce => Assurance::ExactlyOnce { packet_id, dup },
    })
}

fn reason(kind: Kind) -> impl Strategy<Value = ReasonCode> {
    let known: Vec<ReasonCode> = (0..=255).filter_map(|byte| ReasonCode::decode(byte, kind).ok()).collect();
    select(known)
}

fn pairs() -> BoxedStrategy<Vec<Property>> {
    vec((text(), text()).prop_map(|(name, value)| Property::UserProperty(name, value)), 0..3).boxed()
}

/// Some of these, each once, then user properties.
fn some_of(choices: Vec<BoxedStrategy<Property>>) -> BoxedStrategy<Properties> {
    let picked: Vec<_> = choices.into_iter().map(option::of).collect();
    (picked, pairs()).prop_map(|(picked, pairs)| picked.into_iter().flatten().chain(pairs).collect()).boxed()
}

fn message_properties() -> Vec<BoxedStrategy<Property>> {
    vec![
        any::<bool>().prop_map(Property::PayloadFormatIndicator).boxed(),
        any::<u32>().prop_map(Property::MessageExpiryInterval).boxed(),
        text().prop_map(Property::ContentType).boxed(),
        text().prop_map(Property::ResponseTopic).boxed(),
        binary().prop_map(Property::CorrelationData).boxed(),
    ]
}

fn connection_properties() -> Vec<BoxedStrategy<Property>> {
    vec![
        any::<u32>().prop_map(Property::SessionExpiryInterval).boxed(),
        (1..=u16::MAX).prop_map(Property::ReceiveMaximum).boxed(),
        (1..=u32::MAX).prop_map(Property::MaximumPacketSize).boxed(),
        any::<u16>().prop_map(Property::TopicAliasMaximum).boxed(),
        text().prop_map(Property::AuthenticationMethod).boxed(),
        binary().prop_map(Property::AuthenticationData).boxed(),
    ]
}

fn only_v5(version: Version, properties: Properties) -> Properties {
    if version == Version::V5 { properties } else { Properties::default() }
}

fn connect(version: Version) -> BoxedStrategy<Packet> {
    let mut own = connection_properties();
    own.push(any::<bool>().prop_map(Property::RequestProblemInformation).boxed());
    own.push(any::<bool>().prop_map(Property::RequestResponseInformation).boxed());
    let mut wills = message_properties();
    wills.push(any::<u32>().prop_map(Property::WillDelayInterval).boxed());
    let will = (text(), binary(), qos(), any::<bool>(), some_of(wills)).prop_map(
        move |(topic, payload, qos, retain, properties)| {
            let properties = only_v5(version, properties);
            Will { topic, payload, qos, retain, properties }
        },
    );
    let login = (text(), option::of(binary()));
    (any::<bool>(), any::<u16>(), some_of(own), text(), option::of(will), option::of(login))
        .prop_map(move |(clean_start, keep_alive_s, properties, client_id, will, login)| {
            let (user_name, password) = login.map_or((None, None), |(name, password)| (Some(name), password));
            let properties = only_v5(version, properties);
            let connect =
                Connect { version, clean_start, keep_alive_s, properties, client_id, will, user_name, password };
            Packet::Connect(Box::new(connect))
        })
        .boxed()
}

fn conn_ack(version: Version) -> BoxedStrategy<Packet> {
    let mut own = connection_properties();
    own.extend([
        text().prop_map(Property::AssignedClientIdentifier).boxed(),
        any::<u16>().prop_map(Property::ServerKeepAlive).boxed(),
        any::<bool>().prop_map(Property::MaximumQos).boxed(),
        any::<bool>().prop_map(Property::RetainAvailable).boxed(),
        any::<bool>().prop_map(Property::WildcardSubscriptionAvailable).boxed(),
        any::<bool>().prop_map(Property::SubscriptionIdentifierAvailable).boxed(),
        any::<bool>().prop_map(Property::SharedSubscriptionAvailable).boxed(),
        text().prop_map(Property::ResponseInformation).boxed(),
        text().prop_map(Property::ServerReference).boxed(),
        text().prop_map(Property::ReasonString).boxed(),
    ]);
    (any::<bool>(), reason(Kind::ConnAck), some_of(own))
        .prop_map(move |(session_present, reason, properties)| {
            let returned = ReasonCode::from_v3_connect_return(reason.as_v3_connect_return());
            let reason = if version == Version::V5 { reason } else { returned.expect("a return code") };
            Packet::ConnAck(ConnAck { session_present, reason, properties: only_v5(version, properties) })
        })
        .boxed()
}

fn publish(version: Version) -> BoxedStrategy<Packet> {
    let mut own = message_properties();
    own.push((1..=u16::MAX).prop_map(Property::TopicAlias).boxed());
    let ids = vec((1_u32..268_435_456).prop_map(Property::SubscriptionIdentifier), 0..3);
    (assurance(), any::<bool>(), text(), some_of(own), ids, binary())
        .prop_map(move |(assurance, retain, topic, properties, ids, payload)| {
            let properties = properties.iter().cloned().chain(ids).collect();
            let properties = only_v5(version, properties);
            Packet::Publish(Publish { assurance, retain, topic, properties, payload })
        })
        .boxed()
}

fn acknowledgement(version: Version) -> BoxedStrategy<Packet> {
    let own = some_of(vec![text().prop_map(Property::ReasonString).boxed()]);
    let answer = (packet_id(), reason(Kind::PubAck), own.clone(), 0..2);
    let release = (packet_id(), reason(Kind::PubRel), own, 2..4);
    prop_oneof![answer.boxed(), release.boxed()]
        .prop_map(move |(packet_id, reason, properties, which)| {
            let reason = if version == Version::V5 { reason } else { ReasonCode::Success };
            let ack = Acknowledgement { packet_id, reason, properties: only_v5(version, properties) };
            match which {
                0 => Packet::PubAck(ack),
                1 => Packet::PubRec(ack),
                2 => Packet::PubRel(ack),
                _ => Packet::PubComp(ack),
            }
        })
        .boxed()
}

fn subscribe(version: Version) -> BoxedStrategy<Packet> {
    let handling =
        prop_oneof![Just(RetainHandling::Send), Just(RetainHandling::SendIfNew), Just(RetainHandling::DoNotSend)];
    let options = (qos(), any::<bool>(), any::<bool>(), handling).prop_map(
        move |(qos, no_local, retain_as_published, retain_handling)| match version {
            Version::V3_1_1 => SubscriptionOptions::with_qos(qos),
            Version::V5 => SubscriptionOptions { qos, no_local, retain_as_published, retain_handling },
        },
    );
    let filters = vec((text(), options).prop_map(|(filter, options)| SubscribeFilter { filter, options }), 1..5);
    let own = some_of(vec![(1_u32..268_435_456).prop_map(Property::SubscriptionIdentifier).boxed()]);
    (packet_id(), own, filters)
        .prop_map(move |(packet_id, properties, filters)| {
            Packet::Subscribe(Subscribe { packet_id, properties: only_v5(version, properties), filters })
        })
        .boxed()
}

fn sub_ack(version: Version) -> BoxedStrategy<Packet> {
    let own = some_of(vec![text().prop_map(Property::ReasonString).boxed()]);
    (packet_id(), own, vec(reason(Kind::SubAck), 1..5), vec(reason(Kind::UnsubAck), 1..5), any::<bool>())
        .prop_map(move |(packet_id, properties, reasons, of_un, un)| {
            let properties = only_v5(version, properties);
            match (un, version) {
                (true, Version::V5) => Packet::UnsubAck(UnsubAck { packet_id, properties, reasons: of_un }),
                (true, Version::V3_1_1) => Packet::UnsubAck(UnsubAck { packet_id, properties, reasons: vec![] }),
                (false, Version::V5) => Packet::SubAck(SubAck { packet_id, properties, reasons }),
                (false, Version::V3_1_1) => {
                    use ReasonCode::{GrantedQos1, GrantedQos2, Success, UnspecifiedError};
                    let codes = [Success, GrantedQos1, GrantedQos2, UnspecifiedError];
                    let reasons = reasons.into_iter().map(|reason| codes[usize::from(reason.as_byte() % 4)]).collect();
                    Packet::SubAck(SubAck { packet_id, properties, reasons })
                }
            }
        })
        .boxed()
}

fn unsubscribe(version: Version) -> BoxedStrategy<Packet> {
    (packet_id(), pairs(), vec(text(), 1..5))
        .prop_map(move |(packet_id, properties, filters)| {
            let properties = only_v5(version, properties.into_iter().collect());
            Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters })
        })
        .boxed()
}

fn disconnect(version: Version) -> BoxedStrategy<Packet> {
    let own = some_of(vec![
        any::<u32>().prop_map(Property::SessionExpiryInterval).boxed(),
        text().prop_map(Property::ReasonString).boxed(),
        text().prop_map(Property::ServerReference).boxed(),
    ]);
    (reason(Kind::Disconnect), own)
        .prop_map(move |(reason, properties)| match version {
            Version::V5 => Packet::Disconnect(Disconnect { reason, properties }),
            Version::V3_1_1 => Packet::Disconnect(Disconnect::new(ReasonCode::Success)),
        })
        .boxed()
}

fn auth() -> BoxedStrategy<Packet> {
    let own = some_of(vec![
        text().prop_map(Property::AuthenticationMethod).boxed(),
        binary().prop_map(Property::AuthenticationData).boxed(),
    ]);
    (reason(Kind::Auth), own).prop_map(|(reason, properties)| Packet::Auth(Auth { reason, properties })).boxed()
}

fn packet(version: Version) -> impl Strategy<Value = Packet> {
    prop_oneof![
        connect(version),
        conn_ack(version),
        publish(version),
        acknowledgement(version),
        subscribe(version),
        sub_ack(version),
        unsubscribe(version),
        disconnect(version),
        Just(Packet::PingReq),
        Just(Packet::PingResp),
    ]
}

proptest! {
    #[test]
    fn a_3_1_1_packet_comes_back(packet in packet(Version::V3_1_1)) {
        prop_assert_eq!(decode(&packet.to_bytes(Version::V3_1_1), Version::V3_1_1), Ok(packet));
    }

    #[test]
    fn a_5_packet_comes_back(packet in prop_oneof![9 => packet(Version::V5), 1 => auth()]) {
        prop_assert_eq!(decode(&packet.to_bytes(Version::V5), Version::V5), Ok(packet));
    }

    /// What decodes at all encodes to something that decodes to the same.
    #[test]
    fn any_bytes_decode_or_are_refused(bytes in vec(any::<u8>(), 0..80), v5 in any::<bool>()) {
        let version = if v5 { Version::V5 } else { Version::V3_1_1 };
        let mut stream = BytesMut::from(&bytes[..]);
        while let Ok(Some(frame)) = split_frame(&mut stream, 64) {
            if let Ok(packet) = Packet::decode(frame, version) {
                prop_assert_eq!(decode(&packet.to_bytes(version), version), Ok(packet));
            }
        }
    }

    /// A bit that falls over on the way makes another packet or none, and never a panic.
    #[test]
    fn a_flipped_bit_is_survived(packet in packet(Version::V5), at in any::<prop::sample::Index>(), bit in 0..8) {
        let mut bytes = packet.to_bytes(Version::V5).to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        let mut stream = BytesMut::from(&bytes[..]);
        if let Ok(Some(frame)) = split_frame(&mut stream, 1 << 20) {
            let _ = Packet::decode(frame, Version::V5).map(|packet| packet.to_bytes(Version::V5));
        }
    }
}
