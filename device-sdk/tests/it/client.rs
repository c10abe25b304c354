//! The client against a scripted server: what it must answer, and what it must not stand.

use std::convert::Infallible;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;
use unhidra_core::ids::DeviceId;
use unhidra_core::time::Timestamp;
use unhidra_device_sdk::client::{
    Client, ClientOptions, Delivery, Ended, Incoming, Publication, PublishError, Qos, RECEIVE_MAX, ReasonCode,
};
use unhidra_device_sdk::device::{Event, Turn};
use unhidra_device_sdk::transport::Transport;

use crate::double::{BODY_MAX, World, suites};

type Small = Client<256, 4>;

const CONNACK: &[u8] = &[0x20, 3, 0, 0, 0];
const CONNACK_RESUMED: &[u8] = &[0x20, 3, 1, 0, 0];
const TIMEOUT: Duration = Duration::from_secs(10);

fn at(s: u64) -> Timestamp {
    Timestamp::from_ms(s * 1000)
}

fn client() -> Small {
    Client::new(ClientOptions {
        client_id: DeviceId::parse("pump-7").expect("a device id"),
        clean_start: false,
        session_expiry_s: 3600,
        keep_alive_s: 40,
        response_timeout: TIMEOUT,
    })
}

/// A client whose connection the server took at 0 s, with nothing left to send.
fn online() -> Small {
    let mut client = client();
    reconnect(&mut client, CONNACK);
    client
}

fn reconnect(client: &mut Small, connack: &[u8]) {
    client.open(at(0));
    assert_eq!(sent(client, at(0)).len(), 1);
    assert!(matches!(give(client, at(0), connack), Ok(Some(Incoming::Connected { .. }))));
}

fn sent(client: &mut Small, now: Timestamp) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    while let Some(packet) = client.poll_transmit(now) {
        let packet = packet.to_vec();
        client.transmitted(packet.len(), now);
        packets.push(packet);
    }
    packets
}

fn give<'a>(client: &'a mut Small, now: Timestamp, bytes: &[u8]) -> Result<Option<Incoming<'a>>, Ended> {
    let mut rest = bytes;
    let incoming = client.handle_bytes(&mut rest, now)?;
    assert!(rest.is_empty(), "one packet at a time here");
    Ok(incoming)
}

/// A message on topic `t` with one byte of payload, at QoS 1.
fn message(packet_id: u8) -> [u8; 9] {
    [0x32, 7, 0, 1, b't', 0, packet_id, 0, b'x']
}

fn delivery(client: &mut Small, packet_id: u8) -> Delivery {
    match give(client, at(0), &message(packet_id)) {
        Ok(Some(Incoming::Message { topic: "t", payload: b"x", delivery: Some(delivery) })) => delivery,
        other => panic!("{other:?}"),
    }
}

fn publish(client: &mut Small, byte: u8) -> Publication {
    client.publish("t", Qos::AtLeastOnce, &[byte]).expect("there is room")
}

#[test]
fn connect_says_who_and_with_which_bounds() {
    let mut client = client();
    client.open(at(0));
    let packets = sent(&mut client, at(0));
    assert_eq!(
        packets,
        [[
            &[0x10, 32, 0, 4, b'M', b'Q', b'T', b'T', 5, 0, 0, 40, 13][..],
            &[0x11, 0, 0, 0x0E, 0x10, 0x21, 0, 4, 0x27, 0, 0, 1, 0],
            &[0, 6, b'p', b'u', b'm', b'p', b'-', b'7'],
        ]
        .concat()]
    );
    assert_eq!(client.publish("t", Qos::AtMostOnce, b""), Err(PublishError::NotConnected));
    assert_eq!(give(&mut client, at(0), CONNACK), Ok(Some(Incoming::Connected { session_present: false })));
    assert!(client.is_online());
}

#[test]
fn a_refused_connection_is_closed_without_a_word() {
    let mut client = client();
    client.open(at(0));
    sent(&mut client, at(0));
    assert_eq!(give(&mut client, at(0), &[0x20, 3, 0, 0x87, 0]), Err(Ended::Refused(ReasonCode(0x87))));
    assert!(client.is_finished() && sent(&mut client, at(0)).is_empty());
}

#[test]
fn a_packet_before_connack_or_a_second_connack_is_out_of_turn() {
    let mut early = client();
    early.open(at(0));
    sent(&mut early, at(0));
    assert_eq!(give(&mut early, at(0), &message(1)), Err(Ended::OutOfTurn));
    assert!(early.is_finished());

    let mut twice = online();
    assert_eq!(give(&mut twice, at(0), CONNACK), Err(Ended::OutOfTurn));
    assert_eq!(sent(&mut twice, at(0)), [vec![0xE0, 1, 0x82]]);
    assert!(twice.is_finished());
}

#[test]
fn a_server_without_qos_1_is_left() {
    let mut client = client();
    client.open(at(0));
    sent(&mut client, at(0));
    assert_eq!(give(&mut client, at(0), &[0x20, 5, 0, 0, 2, 0x24, 0]), Err(Ended::QosNotSupported));
    assert_eq!(sent(&mut client, at(0)), [vec![0xE0, 1, 0x83]]);
}

#[test]
fn a_puback_names_the_message_it_refuses() {
    let mut client = online();
    let (first, second) = (publish(&mut client, 1), publish(&mut client, 2));
    assert_eq!(sent(&mut client, at(0)).len(), 2);
    let refused = Incoming::Acknowledged { publication: second, reason: ReasonCode::IMPLEMENTATION_SPECIFIC };
    assert_eq!(give(&mut client, at(0), &[0x40, 3, 0, 2, 0x83]), Ok(Some(refused)));
    let taken = Incoming::Acknowledged { publication: first, reason: ReasonCode::SUCCESS };
    assert_eq!(give(&mut client, at(0), &[0x40, 2, 0, 1]), Ok(Some(taken)));
    assert_eq!(give(&mut client, at(0), &[0x40, 2, 0, 1]), Err(Ended::UnknownPacketId(1)));
}

#[test]
fn what_was_not_acknowledged_is_sent_again_byte_for_byte() {
    let mut client = online();
    publish(&mut client, 1);
    let first = sent(&mut client, at(0)).remove(0);
    assert_eq!(first, [0x32, 7, 0, 1, b't', 0, 1, 0, 1]);
    publish(&mut client, 2);
    client.closed();

    reconnect(&mut client, CONNACK_RESUMED);
    let mut repeated = first.clone();
    repeated[0] = 0x3A;
    assert_eq!(sent(&mut client, at(0)), [repeated, vec![0x32, 7, 0, 1, b't', 0, 2, 0, 2]]);

    reconnect(&mut client, CONNACK);
    assert_eq!(sent(&mut client, at(0)).first(), Some(&first), "a new message to a server that forgot");
}

#[test]
fn at_most_31_messages_follow_the_oldest_unacknowledged() {
    let mut client = online();
    publish(&mut client, 0);
    for byte in 1..=31 {
        client.publish("t", Qos::AtMostOnce, &[byte]).expect("within the bound");
        sent(&mut client, at(0));
    }
    assert_eq!(client.publish("t", Qos::AtMostOnce, &[32]), Err(PublishError::Full));
    give(&mut client, at(0), &[0x40, 2, 0, 1]).expect("PUBACK");
    assert!(client.publish("t", Qos::AtMostOnce, &[32]).is_ok());
}

#[test]
fn a_full_window_refuses_and_forgets_nothing() {
    let mut client = online();
    for byte in 0..4 {
        publish(&mut client, byte);
    }
    assert_eq!(client.publish("t", Qos::AtLeastOnce, &[4]), Err(PublishError::Full));
    assert_eq!(sent(&mut client, at(0)).len(), 4);
}

#[test]
fn a_packet_beyond_the_buffer_or_the_servers_bound_is_refused() {
    let mut client = client();
    client.open(at(0));
    sent(&mut client, at(0));
    assert!(give(&mut client, at(0), &[0x20, 8, 0, 0, 5, 0x27, 0, 0, 0, 20]).is_ok());
    let max = client.payload_len_max("t");
    assert_eq!(max, 20 - 2 - 6);
    assert!(client.publish("t", Qos::AtLeastOnce, &vec![0; max]).is_ok());
    let refused = client.publish("t", Qos::AtLeastOnce, &vec![0; max + 1]);
    assert_eq!(refused, Err(PublishError::TooLarge { len: 21, max: 20 }));
}

/// Sending it again would end every connection with 0x95.
#[test]
fn what_a_server_takes_no_more_after_a_reconnect_is_refused_and_the_rest_is_repeated() {
    for (flags, dup) in [(1, 0x08), (0, 0)] {
        let mut client = online();
        let large = |client: &mut Small| client.publish("t", Qos::AtLeastOnce, &[9; 100]).expect("there is room");
        let first = large(&mut client);
        publish(&mut client, 2);
        let third = large(&mut client);
        assert_eq!(sent(&mut client, at(0)).len(), 3);
        let fourth = publish(&mut client, 4);

        // Maximum Packet Size 20.
        reconnect(&mut client, &[0x20, 8, flags, 0, 5, 0x27, 0, 0, 0, 20]);
        let refused = |publication| Incoming::Acknowledged { publication, reason: ReasonCode::PACKET_TOO_LARGE };
        let puback = [0x40, 2, 0, 4];
        let mut bytes = &puback[..];
        assert_eq!(client.handle_bytes(&mut bytes, at(0)), Ok(Some(refused(first))));
        assert_eq!(client.handle_bytes(&mut bytes, at(0)), Ok(Some(refused(third))));
        assert_eq!(bytes, puback, "what the server says comes after");
        assert_eq!(give(&mut client, at(0), &[]), Ok(None), "each is told once");
        let small = |first, packet_id| vec![first, 7, 0, 1, b't', 0, packet_id, 0, packet_id];
        assert_eq!(sent(&mut client, at(0)), [small(0x32 | dup, 2), small(0x32, 4)]);
        let taken = Incoming::Acknowledged { publication: fourth, reason: ReasonCode::SUCCESS };
        assert_eq!(give(&mut client, at(0), &puback), Ok(Some(taken)));

        // Their slots are free again.
        assert_eq!((0..3).filter(|byte| client.publish("t", Qos::AtLeastOnce, &[*byte]).is_ok()).count(), 3);
    }
}

/// A DISCONNECT, or anything else, never cuts into a packet whose first bytes have left.
#[test]
fn a_packet_that_has_begun_is_finished_first() {
    let mut client = online();
    publish(&mut client, 1);
    let whole = client.poll_transmit(at(0)).expect("PUBLISH").to_vec();
    client.transmitted(4, at(0));
    client.disconnect(ReasonCode::SUCCESS);
    assert_eq!(client.poll_transmit(at(0)), Some(&whole[4..]));
    client.transmitted(whole.len() - 4, at(0));
    assert!(!client.is_finished());
    assert_eq!(sent(&mut client, at(0)), [vec![0xE0, 1, 0]]);
    assert!(client.is_finished());
}

#[test]
fn puback_leaves_when_the_application_says_so() {
    let mut client = online();
    let (first, second) = (delivery(&mut client, 1), delivery(&mut client, 2));
    assert!(sent(&mut client, at(0)).is_empty());
    client.acknowledge(second, ReasonCode::SUCCESS);
    client.acknowledge(first, ReasonCode::IMPLEMENTATION_SPECIFIC);
    assert_eq!(sent(&mut client, at(0)), [vec![0x40, 2, 0, 2], vec![0x40, 3, 0, 1, 0x83]]);
}

#[test]
fn an_answer_for_a_connection_that_is_over_is_dropped() {
    let mut client = online();
    let old = delivery(&mut client, 1);
    reconnect(&mut client, CONNACK_RESUMED);
    let new = delivery(&mut client, 1);
    client.acknowledge(old, ReasonCode::SUCCESS);
    assert!(sent(&mut client, at(0)).is_empty());
    client.acknowledge(new, ReasonCode::SUCCESS);
    assert_eq!(sent(&mut client, at(0)).len(), 1);
}

#[test]
fn a_server_beyond_the_receive_maximum_is_left() {
    let mut client = online();
    let held: Vec<_> = (1..=RECEIVE_MAX as u8).map(|id| delivery(&mut client, id)).collect();
    assert_eq!(give(&mut client, at(0), &message(9)), Err(Ended::ReceiveMaximumExceeded));
    assert_eq!(sent(&mut client, at(0)), [vec![0xE0, 1, 0x93]]);
    assert_eq!(held.len(), RECEIVE_MAX);
}

#[test]
fn a_packet_larger_than_announced_ends_with_0x95() {
    let mut client = online();
    assert_eq!(give(&mut client, at(0), &[0x30, 0xFE, 0x01]), Err(Ended::PacketTooLarge { len: 257, max: 256 }));
    assert_eq!(sent(&mut client, at(0)), [vec![0xE0, 1, 0x95]]);
}

#[test]
fn what_comes_after_the_end_is_not_read() {
    let mut client = online();
    assert!(give(&mut client, at(0), &[0x10, 0]).is_err());
    assert_eq!(give(&mut client, at(0), &message(1)), Ok(None));
    assert_eq!(sent(&mut client, at(0)), [vec![0xE0, 1, 0x82]]);
    assert_eq!(give(&mut client, at(0), &message(1)), Ok(None));
}

#[test]
fn a_disconnect_of_either_side_carries_its_reason() {
    let mut by_server = online();
    assert_eq!(give(&mut by_server, at(0), &[0xE0, 1, 0x8B]), Err(Ended::ByServer(ReasonCode(0x8B))));
    assert!(by_server.is_finished() && sent(&mut by_server, at(0)).is_empty());

    let mut by_device = online();
    by_device.disconnect(ReasonCode::SUCCESS);
    assert_eq!(sent(&mut by_device, at(0)), [vec![0xE0, 1, 0]]);
    assert!(by_device.is_finished());
}

#[test]
fn a_subscription_is_granted_whole_or_the_server_is_left() {
    let mut granted = online();
    granted.subscribe(&["a", "b"], at(0)).expect("online");
    assert_eq!(sent(&mut granted, at(0)), [vec![0x82, 11, 0, 1, 0, 0, 1, b'a', 0x21, 0, 1, b'b', 0x21]]);
    assert_eq!(give(&mut granted, at(0), &[0x90, 5, 0, 1, 0, 1, 1]), Ok(Some(Incoming::Subscribed)));

    let mut refused = online();
    refused.subscribe(&["a", "b"], at(0)).expect("online");
    sent(&mut refused, at(0));
    let ended = give(&mut refused, at(0), &[0x90, 5, 0, 1, 0, 1, 0x87]);
    assert_eq!(ended, Err(Ended::SubscriptionRefused(ReasonCode::NOT_AUTHORIZED)));
}

#[test]
fn topics_of_the_longest_kind_fit_in_one_subscribe() {
    let mut client = online();
    let longest = "x".repeat(64 + 9 + 64 + 12);
    assert_eq!(client.subscribe(&[&longest, &longest], at(0)), Ok(()));
    assert_eq!(sent(&mut client, at(0)).len(), 1);
}

#[test]
fn silence_brings_a_pingreq_and_its_lack_of_answer_the_end() {
    let mut client = online();
    assert_eq!(client.poll_timeout(), Some(at(30)));
    assert_eq!(client.handle_timeout(at(29)), Ok(()));
    assert!(sent(&mut client, at(29)).is_empty());
    assert_eq!(client.handle_timeout(at(30)), Ok(()));
    assert_eq!(sent(&mut client, at(30)), [vec![0xC0, 0]]);
    assert_eq!(client.poll_timeout(), Some(at(40)));
    assert_eq!(give(&mut client, at(31), &[0xD0, 0]), Ok(None));
    assert_eq!(client.poll_timeout(), Some(at(60)), "thirty seconds after the last packet sent");

    client.handle_timeout(at(60)).expect("PINGREQ is due");
    sent(&mut client, at(60));
    assert_eq!(client.handle_timeout(at(70)), Err(Ended::Silent));
    assert_eq!(sent(&mut client, at(70)), [vec![0xE0, 1, 0x80]]);
}

/// A device that publishes all the time must notice a server that is gone all the same.
#[test]
fn what_is_sent_does_not_hide_a_server_that_says_nothing() {
    let mut client = online();
    publish(&mut client, 1);
    sent(&mut client, at(29));
    client.handle_timeout(at(30)).expect("PINGREQ is due");
    assert_eq!(sent(&mut client, at(30)), [vec![0xC0, 0]]);
}

#[test]
fn the_servers_keep_alive_rules_and_0_turns_it_off() {
    let mut shorter = client();
    shorter.open(at(0));
    sent(&mut shorter, at(0));
    give(&mut shorter, at(0), &[0x20, 6, 0, 0, 3, 0x13, 0, 20]).expect("CONNACK");
    assert_eq!(shorter.poll_timeout(), Some(at(15)));

    let mut off = client();
    off.open(at(0));
    sent(&mut off, at(0));
    give(&mut off, at(0), &[0x20, 6, 0, 0, 3, 0x13, 0, 0]).expect("CONNACK");
    assert_eq!(off.poll_timeout(), None);
}

#[test]
fn a_server_that_never_answers_connect_or_subscribe_is_left() {
    let mut connecting = client();
    connecting.open(at(0));
    assert_eq!(connecting.poll_timeout(), Some(at(10)));
    assert_eq!(connecting.handle_timeout(at(10)), Err(Ended::Silent));
    assert!(connecting.is_finished());

    let mut subscribing = online();
    subscribing.subscribe(&["a"], at(0)).expect("online");
    assert_eq!(subscribing.poll_timeout(), Some(at(10)));
    assert_eq!(subscribing.handle_timeout(at(10)), Err(Ended::Silent));
}

/// The first bytes of the next packet leave, and then the link takes no more.
fn half_out(client: &mut Small, now: Timestamp) -> Vec<u8> {
    let rest = client.poll_transmit(now).expect("something is due")[3..].to_vec();
    client.transmitted(3, now);
    assert_eq!(client.poll_transmit(now), Some(rest.as_slice()));
    rest
}

fn assert_finished(client: &mut Small, now: Timestamp) {
    assert!(client.is_finished());
    assert_eq!(client.poll_transmit(now), None);
    assert_eq!(client.poll_timeout(), None);
}

#[test]
fn a_connect_that_never_leaves_is_given_up() {
    let mut half = client();
    half.open(at(0));
    half_out(&mut half, at(0));
    assert_eq!(half.poll_timeout(), Some(at(10)));
    assert_eq!(half.handle_timeout(at(10)), Err(Ended::Silent));
    assert_finished(&mut half, at(10));

    let mut by_device = client();
    by_device.open(at(0));
    half_out(&mut by_device, at(0));
    by_device.disconnect(ReasonCode::SUCCESS);
    assert_finished(&mut by_device, at(0));
}

/// PINGREQ cannot leave behind half a PUBLISH, nor can DISCONNECT: both have their time.
#[test]
fn a_link_that_dies_with_a_publish_half_out_is_noticed_and_left() {
    let mut client = online();
    let publication = publish(&mut client, 1);
    let rest = half_out(&mut client, at(5));
    assert_eq!(client.poll_timeout(), Some(at(30)));
    assert_eq!(client.handle_timeout(at(30)), Ok(()));
    assert_eq!(client.poll_timeout(), Some(at(40)));
    assert_eq!(client.handle_timeout(at(39)), Ok(()));
    assert_eq!(client.handle_timeout(at(40)), Err(Ended::Silent));
    assert!(!client.is_finished());
    assert_eq!(client.poll_transmit(at(40)), Some(rest.as_slice()));
    assert_eq!(client.poll_timeout(), Some(at(50)));
    assert_eq!(client.handle_timeout(at(50)), Ok(()), "the reason was given before");
    assert_finished(&mut client, at(50));

    reconnect(&mut client, CONNACK_RESUMED);
    assert_eq!(sent(&mut client, at(0)), [vec![0x3A, 7, 0, 1, b't', 0, 1, 0, 1]]);
    let taken = Incoming::Acknowledged { publication, reason: ReasonCode::SUCCESS };
    assert_eq!(give(&mut client, at(0), &[0x40, 2, 0, 1]), Ok(Some(taken)));
}

#[test]
fn a_link_that_is_slow_but_takes_bytes_is_not_dead() {
    let mut client = online();
    publish(&mut client, 1);
    half_out(&mut client, at(0));
    assert_eq!(client.handle_timeout(at(30)), Ok(()));
    client.transmitted(1, at(39));
    assert_eq!(client.poll_timeout(), Some(at(49)));
    assert_eq!(client.handle_timeout(at(40)), Ok(()));
    assert_eq!(sent(&mut client, at(48)), [vec![b't', 0, 1, 0, 1], vec![0xC0, 0]]);
    assert_eq!(client.poll_timeout(), Some(at(58)), "PINGRESP has its whole time");
}

/// Whatever ends a connection while half a packet is out, it ends.
#[test]
fn an_end_with_a_publish_half_out_has_its_time() {
    let mut by_device = online();
    publish(&mut by_device, 1);
    half_out(&mut by_device, at(1));
    by_device.disconnect(ReasonCode::SUCCESS);
    assert_eq!(by_device.poll_timeout(), Some(Timestamp::ZERO), "it was told no time yet");
    assert_eq!(by_device.handle_timeout(at(2)), Ok(()));
    assert_eq!(by_device.poll_timeout(), Some(at(12)));
    assert_eq!(by_device.handle_timeout(at(12)), Ok(()));
    assert_finished(&mut by_device, at(12));

    let mut malformed = online();
    publish(&mut malformed, 1);
    half_out(&mut malformed, at(1));
    assert_eq!(give(&mut malformed, at(2), CONNACK), Err(Ended::OutOfTurn));
    assert!(!malformed.is_finished());
    assert_eq!(malformed.poll_timeout(), Some(at(12)));
    assert_eq!(malformed.handle_timeout(at(12)), Ok(()));
    assert_finished(&mut malformed, at(12));

    let mut by_server = online();
    publish(&mut by_server, 1);
    half_out(&mut by_server, at(1));
    assert_eq!(give(&mut by_server, at(2), &[0xE0, 1, 0x8B]), Err(Ended::ByServer(ReasonCode(0x8B))));
    assert_finished(&mut by_server, at(2));
}

#[test]
fn a_disconnect_that_never_leaves_is_given_up() {
    let mut client = online();
    client.disconnect(ReasonCode::SUCCESS);
    assert_eq!(client.poll_transmit(at(1)), Some(&[0xE0, 1, 0][..]));
    client.transmitted(1, at(1));
    assert_eq!((client.is_finished(), client.poll_timeout()), (false, Some(at(11))));
    assert_eq!(client.handle_timeout(at(11)), Ok(()));
    assert_finished(&mut client, at(11));
}

/// A link that takes a few bytes and no more, and never says that it is dead.
struct DeadLink {
    takes: usize,
}

impl Transport for DeadLink {
    type Error = Infallible;

    fn poll_receive(&mut self, _: &mut Context<'_>, _: &mut [u8]) -> Poll<Result<usize, Infallible>> {
        Poll::Pending
    }

    fn poll_send(&mut self, _: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Infallible>> {
        match bytes.len().min(std::mem::take(&mut self.takes)) {
            0 => Poll::Pending,
            count => Poll::Ready(Ok(count)),
        }
    }
}

#[test]
fn turns_over_a_dead_link_come_to_an_end() {
    let suite = suites().next().expect("a suite");
    let mut device = World::of(suite, 1).open(suite).expect("empty flash");
    let (mut link, mut buffer) = (DeadLink { takes: 3 }, [0; 64]);
    let context = &mut Context::from_waker(Waker::noop());
    device.connected(at(1));
    assert!(matches!(device.poll_turn(&mut link, &mut buffer, context, at(1)), Poll::Ready(Ok(Turn::Moved))));
    assert!(device.poll_turn(&mut link, &mut buffer, context, at(1)).is_pending());
    let due = device.poll_timeout().expect("CONNECT has its time");
    device.handle_timeout(due);
    assert!(matches!(device.poll_turn(&mut link, &mut buffer, context, due), Poll::Ready(Ok(Turn::Over))));
    device.disconnected(due);
    assert!(matches!(device.poll_event(), Some(Event::Disconnected { why: Ended::Silent, .. })));
}

/// The whole device: its application hears of the reading, which waits to be sealed anew.
#[test]
fn a_reading_that_a_server_takes_no_more_is_refused_to_the_application() {
    let mut world = World::new(5);
    world.publish(0, Qos::AtLeastOnce).expect("there is room");
    world.settle();
    world.lose_pubacks = true;
    let device = world.device();
    let large = device.publish("t", &[b'1'; BODY_MAX], Qos::AtLeastOnce, at(1)).expect("there is room").reading;
    world.settle();
    world.publish(1, Qos::AtLeastOnce).expect("there is room");
    world.settle();
    world.network = false;
    world.disconnect();

    let device = world.device();
    device.connected(at(1));
    let connect_len = device.poll_transmit(at(1)).expect("flash works").expect("CONNECT").len();
    device.transmitted(connect_len, at(1));
    device.handle_bytes(&[0x20, 8, 1, 0, 5, 0x27, 0, 0, 0, 200], at(1)).expect("flash works");
    let mut refused = Vec::new();
    while let Some(event) = device.poll_event() {
        if let Event::Refused { reading, reason } = event {
            refused.push((reading, reason));
        }
    }
    assert_eq!(refused, [(large, ReasonCode::PACKET_TOO_LARGE)]);
    assert_eq!((device.waiting(), device.stats().refused), (2, 1), "both wait");
    let mut lens = Vec::new();
    while let Some(packet) = device.poll_transmit(at(1)).expect("flash works") {
        lens.push(packet.len());
        device.transmitted(lens[lens.len() - 1], at(1));
    }
    assert_eq!(lens.len(), 2, "SUBSCRIBE, and the reading that is small");
    assert!(lens.iter().all(|len| *len <= 200), "{lens:?}");
}

proptest! {
    /// Whatever a server sends, the client ends or goes on, and hands out whole packets.
    #[test]
    fn no_bytes_break_the_client(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 0..20)) {
        let mut client = online();
        publish(&mut client, 1);
        let mut ends = 0;
        for chunk in &chunks {
            let mut rest = chunk.as_slice();
            loop {
                match client.handle_bytes(&mut rest, at(1)) {
                    Ok(Some(Incoming::Message { delivery: Some(delivery), .. })) => client.acknowledge(delivery, ReasonCode::SUCCESS),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => ends += 1,
                }
            }
            prop_assert!(rest.is_empty());
            for packet in sent(&mut client, at(1)) {
                prop_assert_eq!(packet.len(), usize::from(packet[1]) + 2);
            }
        }
        prop_assert!(ends <= 1);
        prop_assert_eq!(ends == 1, client.is_finished());
    }
}
