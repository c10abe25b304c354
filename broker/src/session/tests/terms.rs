//! What CONNECT asks for, what CONNACK and DISCONNECT say, and in how many words.

use super::*;
use crate::packet::split_frame;
use bytes::BytesMut;

/// The first packet of a stream, as bytes.
fn first_packet(bytes: &[u8]) -> (Session, Result<(), SessionError>) {
    let mut session = Session::new(rules(), Timestamp::ZERO);
    let frame = split_frame(&mut BytesMut::from(bytes), 1000).expect("a frame").expect("whole");
    let result = session.handle_frame(frame, Timestamp::ZERO);
    (session, result)
}

/// The reason of the CONNACK a first packet is answered with.
fn told(bytes: &[u8]) -> Option<(Version, ReasonCode)> {
    let (mut session, result) = first_packet(bytes);
    session.fail(&result.expect_err("against a rule"));
    assert!(session.is_ended());
    let version = session.version();
    match &sent(&mut session)[..] {
        [] => None,
        [Packet::ConnAck(ack)] => Some((version, ack.reason)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_connect_that_cannot_be_read_is_answered_in_its_version() {
    use ReasonCode::{MalformedPacket, ProtocolError, UnsupportedProtocolVersion};
    let old = |reason| Some((Version::V3_1_1, reason));
    let new = |reason| Some((Version::V5, reason));
    for (bytes, expected) in [
        (&b"\x10\x0E\x00\x06MQIsdp\x03\x02\x00\x0A\x00\x00"[..], old(UnsupportedProtocolVersion)),
        (b"\x10\x0C\x00\x04MQTT\x06\x02\x00\x0A\x00\x00", old(UnsupportedProtocolVersion)),
        // 3.1.1 is closed without a word.
        (b"\x10\x0C\x00\x04MQTT\x04\x03\x00\x0A\x00\x00", None),
        (b"\x10\x0D\x00\x04MQTT\x05\x03\x00\x0A\x00\x00\x00", new(MalformedPacket)),
        (b"\x10\x0D\x00\x04MQTT\x05\x02\x00\x0A\x00\x00\x05", new(MalformedPacket)),
        (b"\x10\x13\x00\x04MQTT\x05\x02\x00\x0A\x06\x21\x00\x05\x21\x00\x05\x00\x00", new(ProtocolError)),
        (b"\x10\x10\x00\x04MQTT\x05\x02\x00\x0A\x03\x21\x00\x00\x00\x00", new(ProtocolError)),
        (b"\xC0\x00", None),
    ] {
        assert_eq!(told(bytes), expected, "{bytes:02x?}");
    }
}

#[test]
fn protocol_errors_are_explained_unless_the_client_wants_no_words() {
    for (property, is_explained) in [(None, true), (Some(false), false), (Some(true), true)] {
        let mut asked = connect(Version::V5);
        asked.properties = property.map(Property::RequestProblemInformation).into_iter().collect();
        let (mut session, _) = open_with(asked, Admitted::Client(None), None);
        session.fail(&SessionError::SecondConnect);
        let said = sent(&mut session);
        let [Packet::Disconnect(disconnect)] = &said[..] else { panic!("{said:?}") };
        assert_eq!(disconnect.reason, ReasonCode::ProtocolError);
        let words = disconnect.properties.iter().any(|property| matches!(property, Property::ReasonString(_)));
        assert_eq!(words, is_explained);
    }
}

#[test]
fn what_ends_a_connection_is_said_in_a_code_that_packet_has() {
    let mut session = Session::new(rules(), Timestamp::ZERO);
    handle(&mut session, Packet::Connect(Box::new(connect(Version::V5)))).expect("a good CONNECT");
    session.close(ReasonCode::ServerShuttingDown);
    let said = sent(&mut session);
    assert!(matches!(&said[..], [Packet::ConnAck(ack)] if ack.reason == ReasonCode::ServerUnavailable), "{said:?}");
}

#[test]
fn response_information_is_for_those_who_ask() {
    for (asks, is_given) in [(None, false), (Some(false), false), (Some(true), true)] {
        let mut asked = connect(Version::V5);
        asked.properties = asks.map(Property::RequestResponseInformation).into_iter().collect();
        let (_, ack) = open_with(asked, Admitted::Client(None), None);
        let given = ack.properties.iter().any(|p| *p == Property::ResponseInformation(Text::from("answers")));
        assert_eq!(given, is_given, "{asks:?}");
    }
}

#[test]
fn a_payload_that_says_it_is_utf_8_is_looked_at_where_asked() {
    let packet = |assurance, payload: &'static [u8]| {
        let properties = [Property::PayloadFormatIndicator(true)].into_iter().collect();
        let payload = Bytes::from_static(payload);
        Packet::Publish(Publish { assurance, retain: false, topic: Text::from("a"), properties, payload })
    };
    let one = Assurance::AtLeastOnce { packet_id: id(1), dup: false };
    let mut session = open(Version::V5, Admitted::Client(None));
    handle(&mut session, packet(one, "grün".as_bytes())).expect("taken");
    assert_eq!(tokens(&mut session).len(), 1);
    let mut session = open(Version::V5, Admitted::Client(None));
    handle(&mut session, packet(one, b"\xFF")).expect("answered");
    assert!(tokens(&mut session).is_empty());
    assert_eq!(pubacks(&sent(&mut session)), [(1, ReasonCode::PayloadFormatInvalid)]);
    let error = handle(&mut session, packet(Assurance::AtMostOnce, b"\xFF")).expect_err("nothing else tells it");
    assert_eq!(error.reason_code(), ReasonCode::PayloadFormatInvalid);

    let will = |payload: &'static [u8], properties| {
        let (topic, payload) = (Text::from("w"), Bytes::from_static(payload));
        let will = Will { topic, payload, qos: QoS::ExactlyOnce, retain: false, properties };
        let asked = Connect { will: Some(will), ..connect(Version::V5) };
        let mut session = Session::new(rules(), Timestamp::ZERO);
        handle(&mut session, Packet::Connect(Box::new(asked))).map_err(SessionError::reason_code)
    };
    let says = |property| [property].into_iter().collect::<Properties>();
    let utf_8 = || says(Property::PayloadFormatIndicator(true));
    assert_eq!(will(b"ok", utf_8()), Ok(()));
    assert_eq!(will(b"\xFF", utf_8()), Err(ReasonCode::PayloadFormatInvalid));
    assert_eq!(will(b"\xFF", Properties::default()), Ok(()));
    let wildcard = says(Property::ResponseTopic(Text::from("a/#")));
    assert_eq!(will(b"ok", wildcard), Err(ReasonCode::ProtocolError));
}

#[test]
fn an_expired_message_does_not_leave() {
    let mut session = open(Version::V5, Admitted::Client(None));
    let properties: Properties = [Property::MessageExpiryInterval(1)].into_iter().collect();
    let (topic, payload, qos) = (&Text::from("t"), &Bytes::new(), QoS::AtLeastOnce);
    let incoming = Incoming { topic, payload, qos, retain: false, properties: &properties };
    let message = Arc::new(Message::new(incoming, Timestamp::ZERO));
    let queued = Queued { message, ..queued(qos) };
    assert!(session.deliver(queued.clone(), Timestamp::from_ms(999)));
    assert!(!session.deliver(queued, Timestamp::from_ms(1000)));
    assert_eq!(std::iter::from_fn(|| session.poll_transmit()).count(), 1);
}
