//! QoS 2, step by step (section 4.3.3).

use super::*;
use crate::session::SessionError;

fn ack(number: u16, reason: ReasonCode) -> Acknowledgement {
    Acknowledgement { packet_id: id(number), reason, properties: Properties::default() }
}

fn ok(number: u16) -> Acknowledgement {
    ack(number, ReasonCode::Success)
}

fn publish_two(topic: &str, number: u16, dup: bool) -> Packet {
    let assurance = Assurance::ExactlyOnce { packet_id: id(number), dup };
    let (topic, payload) = (text(topic), Bytes::from_static(b"x"));
    Packet::Publish(Publish { assurance, retain: false, topic, properties: Properties::default(), payload })
}

fn plain_client(version: Version) -> Session {
    open(version, Admitted::Client(None))
}

/// Ends one connection and begins the next with what it leaves.
fn again(mut session: Session) -> (Session, Vec<Transmit>) {
    session.lose();
    let remains = session.finish().expect("a client that was in");
    let (mut session, ack) = open_with(connect(Version::V5), Admitted::Client(None), Some(remains.resumable));
    assert!(ack.session_present);
    let first = std::iter::from_fn(|| session.poll_transmit()).collect();
    (session, first)
}

#[test]
fn a_message_is_routed_once_however_often_it_comes() {
    for version in [Version::V5, Version::V3_1_1] {
        let mut session = plain_client(version);
        handle(&mut session, publish_two("a", 7, false)).expect("taken");
        handle(&mut session, publish_two("a", 7, true)).expect("known");
        let routed = tokens(&mut session);
        assert_eq!(routed.len(), 1);
        session.routed(routed[0], ReasonCode::Success);
        assert_eq!(sent(&mut session), [Packet::PubRec(ok(7))]);
        handle(&mut session, publish_two("a", 7, true)).expect("known");
        assert!(tokens(&mut session).is_empty());
        assert_eq!(sent(&mut session), [Packet::PubRec(ok(7))]);
        handle(&mut session, Packet::PubRel(ok(7))).expect("released");
        assert_eq!(sent(&mut session), [Packet::PubComp(ok(7))]);
        handle(&mut session, publish_two("a", 7, false)).expect("another message");
        assert_eq!(tokens(&mut session).len(), 1);
    }
}

#[test]
fn a_message_of_the_connection_before_is_not_routed_again() {
    let mut session = plain_client(Version::V5);
    for number in 1..=2 {
        handle(&mut session, publish_two("a", number, false)).expect("taken");
    }
    let routed = tokens(&mut session);
    session.routed(routed[0], ReasonCode::Success);
    let (mut session, _) = again(session);
    for number in 1..=2 {
        handle(&mut session, publish_two("a", number, true)).expect("known");
    }
    assert!(tokens(&mut session).is_empty(), "neither the answered one nor the one that waited");
    assert_eq!(sent(&mut session), [Packet::PubRec(ok(1)), Packet::PubRec(ok(2))]);
    handle(&mut session, Packet::PubRel(ok(1))).expect("released");
    assert_eq!(sent(&mut session), [Packet::PubComp(ok(1))]);
}

#[test]
fn a_refused_message_ends_with_pubrec_in_5_and_with_the_connection_in_3_1_1() {
    let mut session = open(Version::V5, pump());
    for _ in ["first", "again, for the identifier is free"] {
        handle(&mut session, publish_two(MESSAGES, 1, false)).expect("answered");
        let said = sent(&mut session);
        let [Packet::PubRec(recorded)] = &said[..] else { panic!("{said:?}") };
        assert_eq!((recorded.packet_id, recorded.reason), (id(1), ReasonCode::NotAuthorized));
    }
    assert_eq!(session.unanswered(), 0);

    let mut session = open(Version::V3_1_1, pump());
    handle(&mut session, publish_two(MESSAGES, 1, false)).expect("answered");
    let _ = session.close_if_owed();
    assert!(session.is_ended() && sent(&mut session).is_empty());
}

#[test]
fn a_release_of_nothing_is_answered_and_one_too_early_is_an_error() {
    let mut session = plain_client(Version::V5);
    handle(&mut session, Packet::PubRel(ok(9))).expect("answered");
    assert_eq!(sent(&mut session), [Packet::PubComp(ack(9, ReasonCode::PacketIdentifierNotFound))]);
    handle(&mut session, publish_two("a", 1, false)).expect("taken");
    let error = handle(&mut session, Packet::PubRel(ok(1))).expect_err("its PUBREC has not left");
    assert_eq!(
        (error, error.reason_code()),
        (SessionError::OutOfPlace { packet: "PUBREL" }, ReasonCode::ProtocolError)
    );
}

#[test]
fn qos_1_and_2_share_the_receive_maximum() {
    let mut session = plain_client(Version::V5);
    handle(&mut session, publish("a", Some(1), false)).expect("taken");
    for number in 2..=3 {
        handle(&mut session, publish_two("a", number, false)).expect("taken");
    }
    tokens(&mut session).into_iter().skip(1).for_each(|token| session.routed(token, ReasonCode::Success));
    let error = handle(&mut session, publish_two("a", 4, false)).expect_err("one too many");
    assert_eq!(error.reason_code(), ReasonCode::ReceiveMaximumExceeded);
}

#[test]
fn in_3_1_1_a_pubrel_is_read_whatever_is_unreleased() {
    let mut session = plain_client(Version::V3_1_1);
    for number in 1..=3 {
        handle(&mut session, publish_two("a", number, false)).expect("taken");
    }
    assert!(!session.wants_packet());
    tokens(&mut session).into_iter().for_each(|token| session.routed(token, ReasonCode::Success));
    assert!(session.wants_packet());
    handle(&mut session, publish_two("a", 4, false)).expect("3.1.1 knows no Receive Maximum");
}

#[test]
fn a_message_to_the_client_takes_four_steps() {
    let mut session = plain_client(Version::V5);
    session.deliver(queued(QoS::ExactlyOnce), Timestamp::ZERO);
    assert!(matches!(session.poll_transmit(), Some(Transmit::Routed { packet_id: Some(_), dup: false, .. })));
    handle(&mut session, Packet::PubRec(ok(1))).expect("taken");
    assert_eq!(sent(&mut session), [Packet::PubRel(ok(1))]);
    handle(&mut session, Packet::PubRec(ok(1))).expect("taken again");
    assert_eq!(sent(&mut session), [Packet::PubRel(ok(1))]);
    handle(&mut session, Packet::PubComp(ok(1))).expect("taken");
    handle(&mut session, Packet::PubComp(ok(1))).expect("ignored");
    handle(&mut session, Packet::PubRec(ok(1))).expect("answered");
    assert_eq!(sent(&mut session), [Packet::PubRel(ack(1, ReasonCode::PacketIdentifierNotFound))]);
}

#[test]
fn an_answer_of_the_wrong_kind_is_a_protocol_error() {
    for (qos, packet) in [
        (QoS::AtLeastOnce, Packet::PubRec(ok(1))),
        (QoS::AtLeastOnce, Packet::PubComp(ok(1))),
        (QoS::ExactlyOnce, Packet::PubAck(ok(1))),
        (QoS::ExactlyOnce, Packet::PubComp(ok(1))),
    ] {
        let mut session = plain_client(Version::V5);
        session.deliver(queued(qos), Timestamp::ZERO);
        let error = handle(&mut session, packet.clone()).expect_err("out of place");
        assert_eq!(error.reason_code(), ReasonCode::ProtocolError, "{packet:?} at {qos:?}");
    }
}

#[test]
fn pubrel_and_publish_leave_again_in_order_up_to_the_receive_maximum() {
    let mut session = plain_client(Version::V5);
    (0..4).for_each(|_| assert!(session.deliver(queued(QoS::ExactlyOnce), Timestamp::ZERO)));
    for number in [3, 1] {
        handle(&mut session, Packet::PubRec(ok(number))).expect("taken");
    }
    session.lose();
    let resumed = session.finish().expect("a client that was in").resumable;
    assert_eq!(resumed.releasing, [id(3), id(1)]);
    let mut asked = connect(Version::V5);
    asked.properties.push(Property::ReceiveMaximum(3));
    let (mut session, _) = open_with(asked, Admitted::Client(None), Some(resumed));
    for number in [3, 1] {
        let Some(Transmit::Packet(packet)) = session.poll_transmit() else { panic!("a PUBREL") };
        assert_eq!(packet, Packet::PubRel(ok(number)));
    }
    let ids = |session: &mut Session| -> Vec<(u16, bool)> {
        let id = |transmit| match transmit {
            Transmit::Routed { packet_id: Some(packet_id), dup, .. } => (packet_id.get(), dup),
            other => panic!("{other:?}"),
        };
        std::iter::from_fn(|| session.poll_transmit()).map(id).collect()
    };
    assert_eq!(ids(&mut session), [(2, true)]);
    handle(&mut session, Packet::PubComp(ok(3))).expect("taken");
    assert_eq!(ids(&mut session), [(4, true)]);
    assert_eq!(session.deliverable(), Some(0));
    handle(&mut session, Packet::PubComp(ok(1))).expect("taken");
    session.deliver(queued(QoS::ExactlyOnce), Timestamp::ZERO);
    assert_eq!(ids(&mut session), [(5, false)], "an identifier in use is not given");
}

#[test]
fn where_sessions_are_stored_each_step_waits_until_it_is() {
    let rules = Rules { stores_sessions: true, ..Arc::into_inner(rules()).expect("one") };
    let mut session = Session::new(Arc::new(rules), Timestamp::ZERO);
    let mut asked = connect(Version::V5);
    asked.properties.push(Property::SessionExpiryInterval(60));
    handle(&mut session, Packet::Connect(Box::new(asked))).expect("a good CONNECT");
    session.admit(Arc::new(named(Admitted::Client(None))), None, None, Timestamp::ZERO);
    sent(&mut session);
    events(&mut session);

    // PUBLISH, and its PUBREC, once it is stored and answered.
    handle(&mut session, publish_two("a", 1, false)).expect("taken");
    let happened = events(&mut session);
    let [Event::Keep { number, change: Change::Received(received) }, Event::Route { token: Some(token), .. }] =
        happened[..]
    else {
        panic!("{happened:?}")
    };
    assert_eq!(received, id(1));
    session.routed(token, ReasonCode::Success);
    assert!(sent(&mut session).is_empty());
    session.kept(number);
    assert_eq!(sent(&mut session), [Packet::PubRec(ok(1))]);
    events(&mut session);

    let step = |session: &mut Session, expected: &str| {
        let number = match &events(session)[..] {
            [Event::Keep { number, change }] => {
                assert!(format!("{change:?}").starts_with(expected), "{change:?}");
                *number
            }
            other => panic!("{other:?}"),
        };
        assert!(session.poll_transmit().is_none(), "nothing before {expected} is stored");
        session.kept(number);
        session.poll_transmit()
    };
    handle(&mut session, Packet::PubRel(ok(1))).expect("released");
    let sent = step(&mut session, "Released");
    assert!(matches!(sent, Some(Transmit::Packet(Packet::PubComp(_)))), "{sent:?}");
    session.deliver(queued(QoS::ExactlyOnce), Timestamp::ZERO);
    let sent = step(&mut session, "Sent");
    assert!(matches!(sent, Some(Transmit::Routed { .. })), "{sent:?}");
    handle(&mut session, Packet::PubRec(ok(1))).expect("taken");
    let sent = step(&mut session, "Releasing");
    assert!(matches!(sent, Some(Transmit::Packet(Packet::PubRel(_)))), "{sent:?}");
    handle(&mut session, Packet::PubComp(ok(1))).expect("taken");
    assert!(step(&mut session, "Done").is_none());
}
