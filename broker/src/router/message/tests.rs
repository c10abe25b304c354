use super::*;
use crate::packet::{Assurance, Packet, split_frame};

fn message(properties: Properties) -> Arc<Message> {
    let (topic, payload) = (Text::from("a/b"), Bytes::from_static(b"hello"));
    let incoming =
        Incoming { topic: &topic, payload: &payload, qos: QoS::AtLeastOnce, retain: false, properties: &properties };
    Arc::new(Message::new(incoming, Timestamp::from_ms(1000)))
}

fn written(queued: &Queued, filling: Filling) -> Publish {
    let mut out = BytesMut::new();
    assert!(queued.encode(filling, 1000, &mut out));
    let frame = split_frame(&mut out, 1000).expect("a frame").expect("whole");
    match Packet::decode(frame, filling.version) {
        Ok(Packet::Publish(publish)) => publish,
        other => panic!("{other:?}"),
    }
}

fn filling(version: Version, id: Option<u16>, now_ms: u64) -> Filling {
    Filling { version, packet_id: id.and_then(PacketId::new), dup: false, alias: None, now: Timestamp::from_ms(now_ms) }
}

#[test]
fn one_frame_serves_all_of_a_version_and_a_qos() {
    let message = message(Properties::default());
    let queued = Queued {
        message: message.clone(),
        qos: QoS::AtLeastOnce,
        retain: false,
        identifiers: Box::default(),
        group: None,
        kept: None,
    };
    for holders in [HOLDERS, HOLDERS + 1] {
        let others = vec![message.clone(); holders - 2];
        check_shapes(&queued);
        let frames = message.frames.get().map_or(0, |frames| frames.iter().filter(|f| f.get().is_some()).count());
        assert_eq!(frames, if holders > HOLDERS { 2 } else { 0 }, "with {} others", others.len());
    }
}

fn check_shapes(queued: &Queued) {
    for version in [Version::V3_1_1, Version::V5] {
        for id in [7, 8] {
            let publish = written(queued, Filling { dup: id == 8, ..filling(version, Some(id), 1000) });
            let packet_id = PacketId::new(id).expect("not 0");
            assert_eq!(publish.assurance, Assurance::AtLeastOnce { packet_id, dup: id == 8 });
            assert_eq!((publish.topic.as_str(), publish.payload.as_ref()), ("a/b", &b"hello"[..]));
        }
    }
}

#[test]
fn expiry_counts_down_and_user_properties_pass_unchanged() {
    let pair = |value| Property::UserProperty(Text::from("k"), Text::from(value));
    let given = [pair("1"), Property::MessageExpiryInterval(10), pair("2"), Property::TopicAlias(3)];
    let message = message(given.into_iter().collect());
    let queued = Queued {
        message: message.clone(),
        qos: QoS::AtMostOnce,
        retain: true,
        identifiers: [5, 9].into(),
        group: None,
        kept: None,
    };
    let publish = written(&queued, filling(Version::V5, None, 4000));
    let expected = [
        Property::MessageExpiryInterval(7),
        Property::SubscriptionIdentifier(5),
        Property::SubscriptionIdentifier(9),
        pair("1"),
        pair("2"),
    ];
    assert_eq!(publish.properties, expected.into_iter().collect());
    assert!(publish.retain);
    assert!(!message.is_expired(Timestamp::from_ms(10_999)) && message.is_expired(Timestamp::from_ms(11_000)));
}

#[test]
fn an_alias_takes_the_place_of_its_topic_and_of_nothing_else() {
    let pair = Property::UserProperty(Text::from("k"), Text::from("v"));
    let message = message([Property::MessageExpiryInterval(10), pair].into_iter().collect());
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let queued =
            Queued { message: message.clone(), qos, retain: true, identifiers: [5].into(), group: None, kept: None };
        let id = (qos != QoS::AtMostOnce).then_some(7);
        let plain = written(&queued, filling(Version::V5, id, 4000));
        for is_new in [true, false] {
            let alias = Some(Alias { number: NonZeroU16::MAX, is_new });
            let mut aliased = written(&queued, Filling { alias, ..filling(Version::V5, id, 4000) });
            assert_eq!(aliased.topic.as_str(), if is_new { "a/b" } else { "" });
            aliased.topic = plain.topic.clone();
            let alias = [Property::TopicAlias(u16::MAX)];
            aliased.properties = aliased.properties.iter().filter(|p| !alias.contains(p)).cloned().collect();
            assert_eq!(aliased, plain);
        }
    }
}

#[test]
fn an_alias_saves_the_bytes_of_the_topic() {
    let queued = Queued {
        message: message(Properties::default()),
        qos: QoS::AtMostOnce,
        retain: false,
        identifiers: Box::default(),
        group: None,
        kept: None,
    };
    let len = |alias| {
        let mut out = BytesMut::new();
        assert!(queued.encode(Filling { alias, ..filling(Version::V5, None, 0) }, 1000, &mut out));
        out.len()
    };
    let alias = |is_new| Some(Alias { number: NonZeroU16::MIN, is_new });
    assert_eq!((len(None), len(alias(true)), len(alias(false))), (13, 16, 13), "a topic of 3 bytes saves nothing");
}

#[test]
fn what_is_too_large_for_its_client_is_not_written() {
    let queued = Queued {
        message: message(Properties::default()),
        qos: QoS::AtMostOnce,
        retain: false,
        identifiers: Box::default(),
        group: None,
        kept: None,
    };
    let mut out = BytesMut::new();
    assert!(!queued.encode(filling(Version::V3_1_1, None, 0), 11, &mut out) && out.is_empty());
    assert!(queued.encode(filling(Version::V3_1_1, None, 0), 12, &mut out));
}

/// What a connection writes to, as far as a PUBLISH is concerned.
#[derive(Default)]
struct Pieces {
    own: BytesMut,
    shared: Vec<Bytes>,
}

impl Sink for Pieces {
    fn bytes(&mut self) -> &mut BytesMut {
        &mut self.own
    }

    fn put_shared(&mut self, payload: &Bytes) {
        self.shared.push(payload.clone());
    }
}

#[test]
fn a_large_payload_goes_out_from_where_it_lies_and_a_small_one_is_copied() {
    for len in [APART_MIN - 1, APART_MIN] {
        let (topic, payload) = (Text::from("a/b"), Bytes::from(vec![7; len]));
        let properties = Properties::default();
        let incoming =
            Incoming { topic: &topic, payload: &payload, qos: QoS::AtMostOnce, retain: false, properties: &properties };
        let message = Arc::new(Message::new(incoming, Timestamp::ZERO));
        let queued = Queued {
            message: message.clone(),
            qos: QoS::AtMostOnce,
            retain: false,
            identifiers: Box::default(),
            group: None,
            kept: None,
        };
        let others = vec![message.clone(); HOLDERS];
        for alone in [false, true] {
            let filling = Filling {
                alias: alone.then_some(Alias { number: NonZeroU16::MIN, is_new: true }),
                ..filling(Version::V5, None, 0)
            };
            let mut whole = BytesMut::new();
            assert!(queued.encode(filling, usize::MAX, &mut whole));
            let mut pieces = Pieces::default();
            assert!(!queued.encode(filling, whole.len() - 1, &mut pieces) && pieces.own.is_empty());
            assert!(queued.encode(filling, whole.len(), &mut pieces), "{} others", others.len());
            assert!(pieces.shared.iter().all(|shared| shared.as_ptr() == message.payload.as_ptr()));
            assert_eq!(pieces.shared.len(), usize::from(len == APART_MIN));
            assert_eq!([&pieces.own[..], &pieces.shared.concat()].concat(), whole);
        }
    }
}
