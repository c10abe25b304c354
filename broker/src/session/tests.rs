use super::*;
use crate::acl::RuleSet;
use crate::doors::Admitted;
use crate::packet::{
    Acknowledgement, Assurance, Property, QoS, RetainHandling, Subscribe, SubscribeFilter, SubscriptionOptions,
    Unsubscribe, Will,
};
use crate::router::message::{Incoming, Message};
use bytes::Bytes;
use unhidra_core::delivery::Refusal;
use unhidra_core::ids::DeviceId;

mod exactly_once;
mod interleavings;
mod secrets;
mod terms;

/// How large the session of a client that is in is.
pub(crate) const OPEN_BYTES: usize = size_of::<Open>();

const MESSAGES: &str = "unhidra/devices/pump-7/messages";
const COMMANDS: &str = "unhidra/devices/pump-7/commands";

fn rules() -> Arc<Rules> {
    let limits = crate::config::tests::limits();
    Arc::new(Rules {
        acl: Acl::new("unhidra", RuleSet::default()),
        limits: Limits { receive_max: 3, in_flight_max: 4, ..limits },
        mqtt: crate::config::tests::mqtt(),
        referral: None,
        stores_sessions: false,
    })
}

fn pump() -> Admitted {
    Admitted::Device(DeviceId::parse("pump-7").expect("an id"))
}

fn named(who: Admitted) -> Principal {
    Principal::new(who, ClientId::parse("c").expect("an id"))
}

fn connect(version: Version) -> Connect {
    Connect {
        version,
        clean_start: true,
        keep_alive_s: 10,
        properties: Properties::default(),
        client_id: Text::from("c"),
        will: None,
        user_name: None,
        password: None,
    }
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).expect("not 0")
}

fn text(text: &str) -> Text {
    Text::from_checked(text.to_owned())
}

fn publish(topic: &str, packet_id: Option<u16>, dup: bool) -> Packet {
    let assurance = match packet_id {
        None => Assurance::AtMostOnce,
        Some(number) => Assurance::AtLeastOnce { packet_id: id(number), dup },
    };
    let (topic, payload) = (text(topic), Bytes::from_static(b"x"));
    Packet::Publish(Publish { assurance, retain: false, topic, properties: Properties::default(), payload })
}

fn subscribe(filters: &[(&str, QoS)]) -> Packet {
    let filter = |(filter, qos): &(&str, QoS)| SubscribeFilter {
        filter: text(filter),
        options: SubscriptionOptions::with_qos(*qos),
    };
    let filters = filters.iter().map(filter).collect();
    Packet::Subscribe(Subscribe { packet_id: id(1), properties: Properties::default(), filters })
}

/// A session whose client is in, with nothing left to send.
fn open_with(connect: Connect, who: Admitted, resumed: Option<Resumable>) -> (Session, ConnAck) {
    let mut session = Session::new(rules(), Timestamp::ZERO);
    session.handle_packet(Packet::Connect(Box::new(connect)), Timestamp::ZERO).expect("a good CONNECT");
    assert!(matches!(session.poll_event(), Some(Event::Connect(_))));
    assert!(!session.wants_packet(), "nothing is read while the node decides");
    let who = Arc::new(named(who));
    session.may_come_in(&who).expect("a will it may have");
    session.admit(who, resumed, None, Timestamp::ZERO);
    match session.poll_transmit() {
        Some(Transmit::Packet(Packet::ConnAck(ack))) => (session, ack),
        other => panic!("{other:?}"),
    }
}

fn open(version: Version, who: Admitted) -> Session {
    open_with(connect(version), who, None).0
}

fn sent(session: &mut Session) -> Vec<Packet> {
    std::iter::from_fn(|| session.poll_transmit())
        .map(|transmit| match transmit {
            Transmit::Packet(packet) => packet,
            Transmit::Routed { .. } => panic!("a routed message"),
        })
        .collect()
}

fn events(session: &mut Session) -> Vec<Event> {
    std::iter::from_fn(|| session.poll_event()).collect()
}

fn tokens(session: &mut Session) -> Vec<AckToken> {
    let token = |event| match event {
        Event::Deliver { token, .. } | Event::Route { token, .. } => token,
        _ => None,
    };
    events(session).into_iter().filter_map(token).collect()
}

fn handle(session: &mut Session, packet: Packet) -> Result<(), SessionError> {
    session.handle_packet(packet, Timestamp::ZERO)
}

fn pubacks(packets: &[Packet]) -> Vec<(u16, ReasonCode)> {
    let ack = |packet: &Packet| match packet {
        Packet::PubAck(ack) => Some((ack.packet_id.get(), ack.reason)),
        _ => None,
    };
    packets.iter().filter_map(ack).collect()
}

#[test]
fn a_connection_begins_with_connect() {
    let mut session = Session::new(rules(), Timestamp::ZERO);
    let error = handle(&mut session, Packet::PingReq).expect_err("no CONNECT yet");
    assert_eq!(error, SessionError::NotConnect { packet: "PINGREQ" });
    session.close(error.reason_code());
    assert!(session.is_ended() && sent(&mut session).is_empty(), "closed without a word");
}

#[test]
fn second_connect_is_a_protocol_error() {
    let mut session = open(Version::V5, Admitted::Client(None));
    let error = handle(&mut session, Packet::Connect(Box::new(connect(Version::V5)))).expect_err("a second one");
    session.close(error.reason_code());
    assert_eq!(sent(&mut session), [Packet::Disconnect(Disconnect::new(ReasonCode::ProtocolError))]);
}

#[test]
fn a_silent_stream_is_closed() {
    let mut session = Session::new(rules(), Timestamp::ZERO);
    let deadline = session.poll_timeout().expect("a deadline");
    assert_eq!(session.handle_timeout(Timestamp::from_ms(deadline.as_ms() - 1)), None);
    assert_eq!(session.handle_timeout(deadline), Some(ReasonCode::MaximumConnectTime));
    assert!(session.is_ended());
}

#[test]
fn a_client_that_falls_silent_is_told_why() {
    let mut session = open(Version::V5, Admitted::Client(None));
    session.handle_packet(Packet::PingReq, Timestamp::from_ms(2_000)).expect("a ping");
    assert_eq!(sent(&mut session), [Packet::PingResp]);
    assert_eq!(session.handle_timeout(Timestamp::from_ms(16_999)), None);
    assert_eq!(session.handle_timeout(Timestamp::from_ms(17_000)), Some(ReasonCode::KeepAliveTimeout));
    assert_eq!(sent(&mut session), [Packet::Disconnect(Disconnect::new(ReasonCode::KeepAliveTimeout))]);
}

#[test]
fn what_a_client_takes_for_granted_and_is_not_so_stands_in_connack() {
    let mut asked = connect(Version::V5);
    asked.keep_alive_s = u16::MAX;
    asked.properties.push(Property::SessionExpiryInterval(u32::MAX));
    let (session, ack) = open_with(asked, Admitted::Client(None), None);
    let limits = &session.rules.limits;
    for announced in [
        Property::ReceiveMaximum(3),
        Property::ServerKeepAlive(limits.keep_alive_max_s),
        Property::SessionExpiryInterval(limits.session_expiry_max_s),
    ] {
        assert!(ack.properties.iter().any(|property| *property == announced), "{announced:?} in {ack:?}");
    }
    let is_maximum_qos = |property: &Property| matches!(property, Property::MaximumQos(_));
    assert!(!ack.properties.iter().any(is_maximum_qos), "QoS 2 is what a client takes for granted");
    let (_, ack) = open_with(connect(Version::V3_1_1), Admitted::Client(None), None);
    assert!(ack.properties.is_empty());
}

#[test]
fn an_empty_client_id_is_for_sessions_that_do_not_stay() {
    for (version, clean_start, is_allowed) in [
        (Version::V5, false, true),
        (Version::V5, true, true),
        (Version::V3_1_1, true, true),
        (Version::V3_1_1, false, false),
    ] {
        let mut session = Session::new(rules(), Timestamp::ZERO);
        let connect = Connect { client_id: Text::default(), clean_start, ..connect(version) };
        let result = handle(&mut session, Packet::Connect(Box::new(connect)));
        assert_eq!(result.is_ok(), is_allowed, "{version:?} {clean_start}");
        if let Err(error) = result {
            session.close(error.reason_code());
            let reason = ReasonCode::ClientIdentifierNotValid;
            let properties = Properties::default();
            assert_eq!(sent(&mut session), [Packet::ConnAck(ConnAck { session_present: false, reason, properties })]);
        }
    }
}

#[test]
fn enhanced_authentication_is_refused() {
    let mut asked = connect(Version::V5);
    asked.properties.push(Property::AuthenticationMethod(Text::from("SCRAM")));
    let mut session = Session::new(rules(), Timestamp::ZERO);
    let error = handle(&mut session, Packet::Connect(Box::new(asked))).expect_err("no such method");
    assert_eq!(error.reason_code(), ReasonCode::BadAuthenticationMethod);
}

#[test]
fn a_device_that_brings_a_will_is_not_let_in() {
    let mut session = Session::new(rules(), Timestamp::ZERO);
    let (topic, properties) = (text(MESSAGES), Properties::default());
    let will = Will { topic, payload: Bytes::new(), qos: QoS::AtMostOnce, retain: false, properties };
    let asked = Connect { will: Some(will), ..connect(Version::V5) };
    handle(&mut session, Packet::Connect(Box::new(asked))).expect("a good CONNECT");
    assert_eq!(session.may_come_in(&named(pump())), Err(ReasonCode::NotAuthorized));
}

#[test]
fn a_puback_leaves_when_its_answer_comes_and_in_order() {
    let mut session = open(Version::V5, pump());
    (1..=3).for_each(|n| handle(&mut session, publish(MESSAGES, Some(n), false)).expect("taken"));
    let tokens = tokens(&mut session);
    assert_eq!((tokens.len(), session.unanswered()), (3, 3));
    session.answer(tokens[1], Answer::Refused(Refusal::DoesNotOpen));
    session.answer(tokens[2], Answer::Accepted);
    assert!(sent(&mut session).is_empty(), "the first has no answer yet");
    session.answer(tokens[0], Answer::Accepted);
    let expected = [(1, ReasonCode::Success), (2, ReasonCode::ImplementationSpecificError), (3, ReasonCode::Success)];
    assert_eq!(pubacks(&sent(&mut session)), expected);
}

#[test]
fn refusals_have_their_codes() {
    for (refusal, reason) in [
        (Refusal::DoesNotOpen, ReasonCode::ImplementationSpecificError),
        (Refusal::NotAuthorized, ReasonCode::NotAuthorized),
        (Refusal::QuotaExceeded, ReasonCode::QuotaExceeded),
    ] {
        let mut session = open(Version::V5, pump());
        handle(&mut session, publish(MESSAGES, Some(1), false)).expect("taken");
        let token = tokens(&mut session)[0];
        session.answer(token, Answer::Refused(refusal));
        assert_eq!(pubacks(&sent(&mut session)), [(1, reason)]);
    }
}

#[test]
fn a_refusal_in_3_1_1_closes_after_earlier_pubacks_and_what_was_published_before() {
    let mut session = open(Version::V3_1_1, pump());
    handle(&mut session, subscribe(&[(COMMANDS, QoS::AtLeastOnce)])).expect("taken");
    (1..=3).for_each(|n| handle(&mut session, publish(MESSAGES, Some(n), false)).expect("taken"));
    let tokens = tokens(&mut session);
    sent(&mut session);
    session.answer(tokens[0], Answer::Accepted);
    session.answer(tokens[1], Answer::Refused(Refusal::DoesNotOpen));
    session.answer(tokens[2], Answer::Accepted);
    session.send(DownlinkRow::Commands, Bytes::from_static(b"reset"), Ticket(1));
    let _ = session.close_if_owed();
    let packets = sent(&mut session);
    assert_eq!(pubacks(&packets), [(1, ReasonCode::Success)]);
    assert!(matches!(packets.last(), Some(Packet::Publish(reset)) if reset.payload == "reset"), "{packets:?}");
    assert!(session.is_ended());
}

#[test]
fn a_fault_of_ours_closes_without_a_puback() {
    let mut session = open(Version::V5, pump());
    handle(&mut session, publish(MESSAGES, Some(1), false)).expect("taken");
    let token = tokens(&mut session)[0];
    session.answer(token, Answer::Retry);
    let _ = session.close_if_owed();
    assert_eq!(sent(&mut session), [Packet::Disconnect(Disconnect::new(ReasonCode::ServerBusy))]);
}

#[test]
fn a_repeat_of_an_unanswered_publish_is_not_delivered_twice() {
    let mut session = open(Version::V5, pump());
    handle(&mut session, publish(MESSAGES, Some(1), false)).expect("taken");
    handle(&mut session, publish(MESSAGES, Some(1), true)).expect("ignored");
    let tokens = tokens(&mut session);
    assert_eq!(tokens.len(), 1);
    session.answer(tokens[0], Answer::Accepted);
    assert_eq!(pubacks(&sent(&mut session)).len(), 1);
    let error = {
        handle(&mut session, publish(MESSAGES, Some(2), false)).expect("taken");
        handle(&mut session, publish(MESSAGES, Some(2), false)).expect_err("no repeat")
    };
    assert_eq!(error, SessionError::PacketIdentifierInUse);
}

#[test]
fn the_receive_maximum_ends_5_and_holds_3_1_1() {
    for version in [Version::V5, Version::V3_1_1] {
        let mut session = open(version, pump());
        (1..=3).for_each(|n| handle(&mut session, publish(MESSAGES, Some(n), false)).expect("taken"));
        match version {
            Version::V5 => {
                assert!(session.wants_packet(), "a ping may come");
                let error = handle(&mut session, publish(MESSAGES, Some(4), false)).expect_err("one too many");
                assert_eq!(error.reason_code(), ReasonCode::ReceiveMaximumExceeded);
            }
            Version::V3_1_1 => {
                assert!(!session.wants_packet());
                let token = tokens(&mut session)[0];
                session.answer(token, Answer::Accepted);
                assert!(session.wants_packet());
            }
        }
    }
}

#[test]
fn what_a_client_may_not_publish_is_refused_with_0x87() {
    let mut session = open(Version::V5, pump());
    handle(&mut session, publish("weather", Some(1), false)).expect("answered");
    assert_eq!(pubacks(&sent(&mut session)), [(1, ReasonCode::NotAuthorized)]);
    let error = handle(&mut session, publish("weather", None, false)).expect_err("nothing else can tell it");
    assert_eq!(error.reason_code(), ReasonCode::NotAuthorized);

    let mut session = open(Version::V3_1_1, pump());
    handle(&mut session, publish("weather", Some(1), false)).expect("answered");
    let _ = session.close_if_owed();
    assert!(session.is_ended() && sent(&mut session).is_empty());
}

#[test]
fn a_publish_that_breaks_a_rule_ends_with_its_code() {
    let packet = |topic: &str, retain, assurance, property: Option<Property>| {
        let properties = property.into_iter().collect();
        Packet::Publish(Publish { assurance, retain, topic: text(topic), properties, payload: Bytes::new() })
    };
    let zero = Assurance::AtMostOnce;
    let long = "a".repeat(2_000);
    let deep = "/".repeat(100);
    for (packet, reason) in [
        (packet("a/+", false, zero, None), ReasonCode::TopicNameInvalid),
        (packet("a/#", false, zero, None), ReasonCode::TopicNameInvalid),
        (packet(&long, false, zero, None), ReasonCode::TopicNameInvalid),
        (packet(&deep, false, zero, None), ReasonCode::TopicNameInvalid),
        (packet("", false, zero, None), ReasonCode::ProtocolError),
        (packet("", false, zero, Some(Property::TopicAlias(1))), ReasonCode::ProtocolError),
        (packet("a", false, zero, Some(Property::TopicAlias(5))), ReasonCode::TopicAliasInvalid),
        (packet("a", false, zero, Some(Property::SubscriptionIdentifier(1))), ReasonCode::ProtocolError),
        (packet("a", false, zero, Some(Property::ResponseTopic(Text::from("b/#")))), ReasonCode::ProtocolError),
    ] {
        let mut session = open(Version::V5, Admitted::Client(None));
        let error = handle(&mut session, packet.clone()).expect_err("against a rule");
        assert_eq!(error.reason_code(), reason, "{packet:?}");
    }
}

#[test]
fn a_subscription_is_granted_as_it_was_asked_for() {
    let mut session = open(Version::V5, Admitted::Client(None));
    let wanted = [
        ("a", QoS::AtMostOnce),
        ("b/#", QoS::AtLeastOnce),
        ("c/+", QoS::ExactlyOnce),
        ("d#", QoS::AtMostOnce),
        ("unhidra/#", QoS::AtMostOnce),
        ("$share/g/a", QoS::AtMostOnce),
        ("$share/g+/a", QoS::AtMostOnce),
        ("$share/g/unhidra/a", QoS::AtMostOnce),
    ];
    handle(&mut session, subscribe(&wanted)).expect("answered");
    match &sent(&mut session)[..] {
        [Packet::SubAck(ack)] => assert_eq!(
            ack.reasons,
            [
                ReasonCode::Success,
                ReasonCode::GrantedQos1,
                ReasonCode::GrantedQos2,
                ReasonCode::TopicFilterInvalid,
                ReasonCode::NotAuthorized,
                ReasonCode::Success,
                ReasonCode::TopicFilterInvalid,
                ReasonCode::NotAuthorized,
            ]
        ),
        other => panic!("{other:?}"),
    }
    assert_eq!(events(&mut session).len(), 4);
}

#[test]
fn a_second_subscription_with_a_filter_is_not_new_and_too_many_are_refused() {
    let mut session = open(Version::V5, Admitted::Client(None));
    let is_new = |session: &mut Session| match &events(session)[..] {
        [Event::Subscribe { is_new, .. }] => *is_new,
        other => panic!("{other:?}"),
    };
    handle(&mut session, subscribe(&[("a", QoS::AtMostOnce)])).expect("answered");
    assert!(is_new(&mut session));
    handle(&mut session, subscribe(&[("a", QoS::AtLeastOnce)])).expect("answered");
    assert!(!is_new(&mut session));
    let max = session.rules.limits.subscriptions_per_session;
    let many: Vec<String> = (0..max).map(|n| format!("t/{n}")).collect();
    let many: Vec<(&str, QoS)> = many.iter().map(|filter| (filter.as_str(), QoS::AtMostOnce)).collect();
    sent(&mut session);
    handle(&mut session, subscribe(&many)).expect("answered");
    let packets = sent(&mut session);
    let Some(Packet::SubAck(ack)) = packets.first() else { panic!("{packets:?}") };
    assert_eq!(ack.reasons.iter().filter(|reason| **reason == ReasonCode::QuotaExceeded).count(), 1);
}

#[test]
fn unsubscribe_says_what_was_there() {
    let mut session = open(Version::V5, Admitted::Client(None));
    handle(&mut session, subscribe(&[("a", QoS::AtMostOnce)])).expect("answered");
    sent(&mut session);
    let (properties, filters) = (Properties::default(), vec![Text::from("a"), Text::from("b")]);
    handle(&mut session, Packet::Unsubscribe(Unsubscribe { packet_id: id(2), properties, filters })).expect("answered");
    match &sent(&mut session)[..] {
        [Packet::UnsubAck(ack)] => {
            assert_eq!(ack.reasons, [ReasonCode::Success, ReasonCode::NoSubscriptionExisted]);
        }
        other => panic!("{other:?}"),
    }
}

fn outcomes(session: &mut Session) -> Vec<(u64, Outcome)> {
    let outcome = |event| match event {
        Event::Published { ticket, outcome } => Some((ticket.0, outcome)),
        _ => None,
    };
    events(session).into_iter().filter_map(outcome).collect()
}

fn downlink_ids(packets: &[Packet]) -> Vec<PacketId> {
    let id = |packet: &Packet| match packet {
        Packet::Publish(Publish { assurance: Assurance::AtLeastOnce { packet_id, .. }, .. }) => Some(*packet_id),
        _ => None,
    };
    packets.iter().filter_map(id).collect()
}

fn puback(packet_id: PacketId, reason: ReasonCode) -> Packet {
    Packet::PubAck(Acknowledgement { packet_id, reason, properties: Properties::default() })
}

#[test]
fn a_message_of_the_node_is_sent_at_qos_1_and_its_puback_is_its_outcome() {
    let mut session = open(Version::V5, pump());
    handle(&mut session, subscribe(&[(COMMANDS, QoS::AtLeastOnce)])).expect("answered");
    sent(&mut session);
    session.send(DownlinkRow::Commands, Bytes::from_static(b"1"), Ticket(10));
    session.send(DownlinkRow::Commands, Bytes::from_static(b"2"), Ticket(11));
    session.send(DownlinkRow::Prekeys, Bytes::from_static(b"3"), Ticket(12));
    assert_eq!(outcomes(&mut session), [(12, Outcome::Lost)], "it does not listen there");
    let packets = sent(&mut session);
    assert!(matches!(&packets[0], Packet::Publish(p) if p.topic.as_str() == COMMANDS), "{packets:?}");
    let ids = downlink_ids(&packets);
    handle(&mut session, puback(ids[0], ReasonCode::Success)).expect("taken");
    handle(&mut session, puback(ids[1], ReasonCode::ImplementationSpecificError)).expect("taken");
    handle(&mut session, puback(id(99), ReasonCode::Success)).expect("ignored");
    assert_eq!(outcomes(&mut session), [(10, Outcome::Delivered), (11, Outcome::Refused(0x83))]);
}

#[test]
fn over_the_clients_receive_maximum_the_node_waits() {
    let mut asked = connect(Version::V5);
    asked.properties.push(Property::ReceiveMaximum(1));
    let (mut session, _) = open_with(asked, pump(), None);
    handle(&mut session, subscribe(&[(COMMANDS, QoS::AtLeastOnce)])).expect("answered");
    sent(&mut session);
    (1..=3).for_each(|n| session.send(DownlinkRow::Commands, Bytes::new(), Ticket(n)));
    let first = downlink_ids(&sent(&mut session));
    assert_eq!(first.len(), 1);
    handle(&mut session, puback(first[0], ReasonCode::Success)).expect("taken");
    assert_eq!(downlink_ids(&sent(&mut session)).len(), 1);
    session.lose();
    let remains = session.finish().expect("a client that was in");
    assert_eq!(remains.lost, [Ticket(2), Ticket(3)]);
}

#[test]
fn a_row_at_qos_0_is_served_so() {
    let mut session = open(Version::V5, pump());
    handle(&mut session, subscribe(&[(COMMANDS, QoS::AtMostOnce)])).expect("answered");
    sent(&mut session);
    session.send(DownlinkRow::Commands, Bytes::new(), Ticket(1));
    assert!(matches!(&sent(&mut session)[..], [Packet::Publish(p)] if p.assurance == Assurance::AtMostOnce));
    assert_eq!(outcomes(&mut session), [(1, Outcome::Delivered)]);
}

#[test]
fn a_resumed_device_listens_at_once() {
    let rows = [(DownlinkRow::Commands, QoS::AtLeastOnce)].into_iter().collect();
    let resumed = Resumable { rows, ..Resumable::default() };
    let (mut session, ack) = open_with(connect(Version::V5), pump(), Some(resumed));
    assert!(ack.session_present);
    assert!(matches!(events(&mut session)[..], [Event::Listen(DownlinkRow::Commands)]));
}

fn queued(qos: QoS) -> Queued {
    let (topic, payload, properties) = (&Text::from("t"), &Bytes::new(), &Properties::default());
    let message = Message::new(Incoming { topic, payload, qos, retain: false, properties }, Timestamp::ZERO);
    Queued { message: Arc::new(message), qos, retain: false, identifiers: Box::default(), group: None, kept: None }
}

#[test]
fn what_was_not_acknowledged_is_sent_again_under_its_identifier() {
    let mut session = open(Version::V5, Admitted::Client(None));
    (0..4).for_each(|_| assert!(session.deliver(queued(QoS::AtLeastOnce), Timestamp::ZERO)));
    assert_eq!(session.deliverable(), Some(0), "four are in flight");
    handle(&mut session, puback(id(2), ReasonCode::Success)).expect("taken");
    assert_ne!(session.deliverable(), Some(0));
    session.lose();
    let remains = session.finish().expect("a client that was in");
    let (mut session, _) = open_with(connect(Version::V5), Admitted::Client(None), Some(remains.resumable));
    let again: Vec<(u16, bool)> = std::iter::from_fn(|| session.poll_transmit())
        .map(|transmit| match transmit {
            Transmit::Routed { packet_id: Some(packet_id), dup, .. } => (packet_id.get(), dup),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(again, [(1, true), (3, true), (4, true)]);
}

#[test]
fn a_will_goes_with_a_clean_end_and_stays_otherwise() {
    let will = || {
        let (topic, payload, properties) = (Text::from("w"), Bytes::new(), Properties::default());
        Some(Will { topic, payload, qos: QoS::AtMostOnce, retain: false, properties })
    };
    for (reason, is_left) in
        [(Some(ReasonCode::Success), false), (Some(ReasonCode::DisconnectWithWill), true), (None, true)]
    {
        let (mut session, _) =
            open_with(Connect { will: will(), ..connect(Version::V5) }, Admitted::Client(None), None);
        match reason {
            Some(reason) => handle(&mut session, Packet::Disconnect(Disconnect::new(reason))).expect("an end"),
            None => session.lose(),
        }
        assert_eq!(session.finish().expect("a client that was in").will.is_some(), is_left, "{reason:?}");
    }
}

#[test]
fn session_expiry_is_what_was_agreed() {
    let expiry_s = |version, clean_start, asked: Option<u32>, at_the_end: Option<u32>| {
        let mut asked_for = Connect { clean_start, ..connect(version) };
        asked.into_iter().for_each(|s| asked_for.properties.push(Property::SessionExpiryInterval(s)));
        let (mut session, _) = open_with(asked_for, Admitted::Client(None), None);
        let properties = at_the_end.map(Property::SessionExpiryInterval).into_iter().collect();
        let end = Packet::Disconnect(Disconnect { reason: ReasonCode::Success, properties });
        handle(&mut session, end).map(|()| session.finish().map(|remains| remains.expiry_s))
    };
    let max = rules().limits.session_expiry_max_s;
    assert_eq!(expiry_s(Version::V3_1_1, true, None, None), Ok(Some(0)));
    assert_eq!(expiry_s(Version::V3_1_1, false, None, None), Ok(Some(max)));
    assert_eq!(expiry_s(Version::V5, true, None, None), Ok(Some(0)));
    assert_eq!(expiry_s(Version::V5, true, Some(7), None), Ok(Some(7)));
    assert_eq!(expiry_s(Version::V5, true, Some(u32::MAX), None), Ok(Some(max)));
    assert_eq!(expiry_s(Version::V5, true, Some(7), Some(0)), Ok(Some(0)));
    assert_eq!(expiry_s(Version::V5, true, None, Some(7)), Err(SessionError::SessionExpiryRaised));
}

#[test]
fn retain_handling_passes_through() {
    let mut session = open(Version::V5, Admitted::Client(None));
    let options = SubscriptionOptions {
        retain_handling: RetainHandling::DoNotSend,
        ..SubscriptionOptions::with_qos(QoS::AtMostOnce)
    };
    let filters = vec![SubscribeFilter { filter: Text::from("a"), options }];
    let properties = [Property::SubscriptionIdentifier(5)].into_iter().collect();
    handle(&mut session, Packet::Subscribe(Subscribe { packet_id: id(1), properties, filters })).expect("answered");
    match &events(&mut session)[..] {
        [Event::Subscribe { subscription, .. }] => {
            assert_eq!(*subscription, Subscription { options, identifier: Some(5) });
        }
        other => panic!("{other:?}"),
    }
}
