//! Devices: their rows, the answers they wait for, and what the node tells them.

use std::time::Duration;

use bytes::Bytes;
use unhidra_broker::packet::*;
use unhidra_broker::*;
use unhidra_core::delivery::{Answer, DownlinkRow, Refusal, UplinkRow};

use crate::world::*;

const MESSAGES: &str = "unhidra/devices/pump-7/messages";
const PREKEYS_GET: &str = "unhidra/devices/pump-7/prekeys/get";
const COMMANDS: &str = "unhidra/devices/pump-7/commands";
const PREKEYS: &str = "unhidra/devices/pump-7/prekeys";

const VERSIONS: [Version; 2] = [Version::V3_1_1, Version::V5];

#[tokio::test(start_paused = true)]
async fn a_message_goes_inward_and_its_puback_is_the_nodes_answer() {
    for version in VERSIONS {
        let mut world = World::new();
        let (mut pump, _) = world.device("pump-7", version).await;
        pump.publish(MESSAGES, "one", Some(1)).await;
        let delivery = world.delivery().await;
        assert_eq!((delivery.device, delivery.row), (id("pump-7"), UplinkRow::Messages));
        assert_eq!(delivery.sealed.0, "one");
        pump.ping().await;
        delivery.ack.answer(Answer::Accepted);
        assert_eq!(pump.acked().await, (1, ReasonCode::Success));

        pump.publish(MESSAGES, "two", None).await;
        let delivery = world.delivery().await;
        assert!(!delivery.ack.is_awaited());
        pump.publish(PREKEYS_GET, "nonce", Some(2)).await;
        assert_eq!(accept(world.delivery().await), (UplinkRow::PrekeysGet, Bytes::from("nonce")));
        assert_eq!(pump.acked().await, (2, ReasonCode::Success));
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_never_answers_stalls_no_pingresp() {
    for version in VERSIONS {
        let mut world = World::new();
        let (mut pump, _) = world.device("pump-7", version).await;
        for number in 1..=3 {
            pump.publish(MESSAGES, "x", Some(number)).await;
        }
        let held = [world.delivery().await, world.delivery().await, world.delivery().await];
        for _ in 0..3 {
            pump.ping().await;
        }
        // In any order; the PUBACKs leave in theirs.
        let [first, second, third] = held;
        third.ack.answer(Answer::Accepted);
        first.ack.answer(Answer::Accepted);
        assert_eq!(pump.acked().await.0, 1);
        second.ack.answer(Answer::Accepted);
        assert_eq!((pump.acked().await.0, pump.acked().await.0), (2, 3));
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_read_brings_is_one_offer_and_its_pubacks_one_write() {
    let mut world = World::new();
    let (mut pump, _) = world.device("pump-7", Version::V5).await;
    let many = (1..=4).map(|number| Packet::Publish(publish(MESSAGES, "x", Some(number))));
    pump.send_all(many).await;
    for _ in 0..4 {
        accept(world.delivery().await);
    }
    assert_eq!(world.batches(), [1, 4], "Connected, then the read");
    for number in 1..=4 {
        assert_eq!(pump.acked().await.0, number);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_without_room_stops_the_reading_and_loses_nothing() {
    let mut world = World::new();
    let (mut pump, _) = world.device("pump-7", Version::V5).await;
    world.set_room(1);
    let two = [publish(MESSAGES, "1", Some(1)), publish(MESSAGES, "2", Some(2))].map(Packet::Publish);
    pump.send_all(two).await;
    let first = world.delivery().await;
    assert_eq!(first.sealed.0, "1");
    world.no_event();
    // What it cannot read it does not answer, but answers go out.
    pump.publish(MESSAGES, "3", Some(3)).await;
    first.ack.answer(Answer::Accepted);
    assert_eq!(pump.acked().await.0, 1);
    world.no_event();
    world.set_room(100);
    assert_eq!(accept(world.delivery().await).1, "2");
    assert_eq!(accept(world.delivery().await).1, "3");
    assert_eq!((pump.acked().await.0, pump.acked().await.0), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_room_is_not_blamed_for_silence() {
    let mut world = World::new();
    let (mut pump, _) = world.device("pump-7", Version::V5).await;
    world.set_room(0);
    pump.publish(MESSAGES, "1", Some(1)).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    world.set_room(100);
    accept(world.delivery().await);
    assert_eq!(pump.acked().await.0, 1);
    pump.ping().await;
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_is_told_even_where_there_is_no_room() {
    let mut world = World::new();
    let (mut pump, connection) = world.device("pump-7", Version::V5).await;
    world.set_room(0);
    pump.send_all([Packet::Publish(publish(MESSAGES, "1", None)), Packet::PingReq]).await;
    assert_eq!(pump.packet().await, Packet::PingResp, "what was read is answered");
    world.broker.disconnect(&id("pump-7"), ReasonCode::AdministrativeAction);
    // The device hears it at once, whatever the node has room for.
    assert_eq!(pump.packet().await, Packet::Disconnect(Disconnect::new(ReasonCode::AdministrativeAction)));
    tokio::time::sleep(Duration::from_secs(30)).await;
    world.no_event();
    world.set_room(1);
    assert_eq!(accept(world.delivery().await).1, "1");
    world.no_event();
    world.set_room(1);
    match world.event().await {
        BrokerEvent::Disconnected { connection: ended, .. } => assert_eq!(ended, connection),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_takeover_waits_until_the_end_of_the_other_is_told() {
    let mut world = World::new();
    let (mut old, first) = world.device("pump-7", Version::V5).await;
    world.set_room(0);
    let mut new = world.client(device("pump-7"), Version::V5);
    new.send(Packet::Connect(Box::new(connect(Version::V5, "pump-7")))).await;
    assert_eq!(old.packet().await, Packet::Disconnect(Disconnect::new(ReasonCode::SessionTakenOver)));
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.no_event();
    world.set_room(100);
    assert!(matches!(new.packet().await, Packet::ConnAck(ack) if ack.reason == ReasonCode::Success));
    assert!(matches!(world.event().await, BrokerEvent::Disconnected { connection, .. } if connection == first));
    assert!(matches!(world.event().await, BrokerEvent::Connected { connection, .. } if connection != first));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_does_not_open_is_refused() {
    let mut world = World::new();
    let (mut pump, _) = world.device("pump-7", Version::V5).await;
    pump.publish(MESSAGES, "garbage", Some(1)).await;
    world.delivery().await.ack.answer(Answer::Refused(Refusal::DoesNotOpen));
    assert_eq!(pump.acked().await, (1, ReasonCode::ImplementationSpecificError));
    pump.ping().await;
}

/// It would end the connection each time it is sealed anew, and the device's own messages with it.
#[tokio::test(start_paused = true)]
async fn what_is_larger_than_a_device_takes_does_not_leave_and_ends_nothing() {
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let mut world = World::new();
        let mut pump = world.client(device("pump-7"), Version::V5);
        let properties = [Property::MaximumPacketSize(200)].into_iter().collect();
        pump.connect(Connect { properties, ..connect(Version::V5, "pump-7") }).await;
        let BrokerEvent::Connected { connection, .. } = world.event().await else { panic!("it came in") };
        pump.subscribe(COMMANDS, qos).await;
        assert!(matches!(world.event().await, BrokerEvent::Listening { .. }));
        // Two bytes of fixed header and length, the topic and its length, no properties.
        let head = 1 + 2 + 2 + COMMANDS.len() + 1 + if qos == QoS::AtMostOnce { 0 } else { 2 };
        for (ticket, len) in [(1, 201 - head), (2, 4000), (3, 200 - head)] {
            let payload = Bytes::from(vec![b'x'; len]);
            world.broker.publish(&id("pump-7"), connection, DownlinkRow::Commands, payload, Ticket(ticket)).unwrap();
        }
        for ticket in [1, 2] {
            let event = world.event().await;
            let told = matches!(event, BrokerEvent::Published { ticket: Ticket(of), outcome: Outcome::TooLarge, .. } if of == ticket);
            assert!(told, "{event:?}");
        }
        assert_eq!(pump.message().await.payload.len(), 200 - head);
        pump.publish(MESSAGES, "goes on", None).await;
        let mut event = world.event().await;
        if matches!(event, BrokerEvent::Published { outcome: Outcome::Delivered, .. }) {
            event = world.event().await;
        }
        assert!(matches!(event, BrokerEvent::Delivery(_)), "{event:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn in_3_1_1_a_refusal_sends_the_reset_request_and_closes() {
    let mut world = World::new();
    let (mut pump, connection) = world.device("pump-7", Version::V3_1_1).await;
    pump.subscribe(COMMANDS, QoS::AtLeastOnce).await;
    assert!(matches!(world.event().await, BrokerEvent::Listening { row: DownlinkRow::Commands, .. }));
    pump.publish(MESSAGES, "good", Some(1)).await;
    pump.publish(MESSAGES, "garbage", Some(2)).await;
    let (good, garbage) = (world.delivery().await, world.delivery().await);
    let reset = Bytes::from_static(b"reset");
    world.broker.publish(&id("pump-7"), connection, DownlinkRow::Commands, reset, Ticket(1)).expect("taken");
    garbage.ack.answer(Answer::Refused(Refusal::DoesNotOpen));
    good.ack.answer(Answer::Accepted);
    let heard = [pump.packet().await, pump.packet().await];
    assert!(heard.iter().any(|p| matches!(p, Packet::PubAck(ack) if ack.packet_id.get() == 1)), "{heard:?}");
    assert!(heard.iter().any(|p| matches!(p, Packet::Publish(p) if p.payload == "reset")), "{heard:?}");
    assert_eq!(pump.hear().await, Heard::End);
    assert!(matches!(world.event().await, BrokerEvent::Published { outcome: Outcome::Lost, .. }));
    assert!(matches!(world.event().await, BrokerEvent::Disconnected { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_ours_closes_so_that_the_device_sends_again() {
    let mut world = World::new();
    let (mut pump, _) = world.device("pump-7", Version::V5).await;
    pump.publish(MESSAGES, "x", Some(1)).await;
    drop(world.delivery().await);
    pump.ended(ReasonCode::ServerBusy).await;
}

#[tokio::test(start_paused = true)]
async fn a_device_is_confined_to_its_rows() {
    let mut world = World::new();
    let (mut pump, _) = world.device("pump-7", Version::V5).await;
    for (number, topic) in (1..).zip(["unhidra/devices/pump-8/messages", "weather", COMMANDS]) {
        pump.publish(topic, "x", Some(number)).await;
        assert_eq!(pump.acked().await, (number, ReasonCode::NotAuthorized), "{topic}");
    }
    let retained = Publish { retain: true, ..publish(MESSAGES, "x", Some(7)) };
    pump.send(Packet::Publish(retained)).await;
    assert_eq!(pump.acked().await, (7, ReasonCode::NotAuthorized));
    for filter in ["#", "unhidra/devices/+/commands", "unhidra/devices/pump-8/commands", "weather"] {
        assert_eq!(pump.subscribe(filter, QoS::AtLeastOnce).await, ReasonCode::NotAuthorized, "{filter}");
    }
    world.no_event();

    let (mut pump, _) = world.device("pump-9", Version::V3_1_1).await;
    assert_eq!(pump.subscribe("weather", QoS::AtLeastOnce).await, ReasonCode::UnspecifiedError);
    pump.publish("weather", "x", Some(1)).await;
    assert_eq!(pump.hear().await, Heard::End);
}

#[tokio::test(start_paused = true)]
async fn what_devices_and_node_say_reaches_no_subscriber() {
    let mut world = World::new();
    let mut spy = world.plain("spy", Version::V5).await;
    assert_eq!(spy.subscribe("#", QoS::AtLeastOnce).await, ReasonCode::GrantedQos1);
    assert_eq!(spy.subscribe("+/devices/#", QoS::AtLeastOnce).await, ReasonCode::GrantedQos1);
    assert_eq!(spy.subscribe("unhidra/#", QoS::AtLeastOnce).await, ReasonCode::NotAuthorized);
    let (mut pump, connection) = world.device("pump-7", Version::V5).await;
    pump.subscribe(COMMANDS, QoS::AtLeastOnce).await;
    world.event().await;
    pump.publish(MESSAGES, "sealed", Some(1)).await;
    accept(world.delivery().await);
    assert_eq!(pump.acked().await.0, 1);
    let command = Bytes::from_static(b"command");
    world.broker.publish(&id("pump-7"), connection, DownlinkRow::Commands, command, Ticket(1)).expect("taken");
    assert_eq!(pump.message().await.payload, "command");
    spy.ping().await;
}

#[tokio::test(start_paused = true)]
async fn the_node_publishes_to_a_device_that_listens() {
    let mut world = World::new();
    let (mut pump, connection) = world.device("pump-7", Version::V5).await;
    let say =
        |row, ticket| world.broker.publish(&id("pump-7"), connection, row, Bytes::from_static(b"x"), Ticket(ticket));
    assert_eq!(say(DownlinkRow::Prekeys, 0), Err(NotPublished::NotListening));
    let other = ConnectionId(connection.0 + 99);
    let stale = world.broker.publish(&id("pump-7"), other, DownlinkRow::Prekeys, Bytes::new(), Ticket(0));
    assert_eq!(stale, Err(NotPublished::NotConnected));
    pump.subscribe(PREKEYS, QoS::AtLeastOnce).await;
    (1..=4).for_each(|ticket| assert_eq!(say(DownlinkRow::Prekeys, ticket), Ok(())));
    assert_eq!(say(DownlinkRow::Prekeys, 5), Err(NotPublished::Full));
    assert!(matches!(world.event().await, BrokerEvent::Listening { row: DownlinkRow::Prekeys, .. }));
    for ticket in 1..=4_u64 {
        let message = pump.message().await;
        assert_eq!(message.topic.as_str(), PREKEYS);
        let Assurance::AtLeastOnce { packet_id, .. } = message.assurance else { panic!("{message:?}") };
        let (code, expected) = match ticket {
            2 => (ReasonCode::QuotaExceeded, Outcome::Refused(0x97)),
            _ => (ReasonCode::Success, Outcome::Delivered),
        };
        if ticket == 4 {
            drop(pump);
            break;
        }
        pump.puback(packet_id, code).await;
        match world.event().await {
            BrokerEvent::Published { ticket: of, outcome, .. } => {
                assert_eq!((of, outcome), (Ticket(ticket), expected));
            }
            other => panic!("{other:?}"),
        }
    }
    match world.event().await {
        BrokerEvent::Published { ticket, outcome, .. } => assert_eq!((ticket, outcome), (Ticket(4), Outcome::Lost)),
        other => panic!("{other:?}"),
    }
    assert!(matches!(world.event().await, BrokerEvent::Disconnected { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_takeover_is_told_in_order() {
    let mut world = World::new();
    let (mut old, first) = world.device("pump-7", Version::V5).await;
    let mut new = world.client(device("pump-7"), Version::V5);
    let ack = new.connect(connect(Version::V5, "pump-7")).await;
    assert!(!ack.session_present);
    old.ended(ReasonCode::SessionTakenOver).await;
    match (world.event().await, world.event().await) {
        (BrokerEvent::Disconnected { connection: ended, .. }, BrokerEvent::Connected { connection, .. }) => {
            assert!(ended == first && connection != first);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_with_too_many_connections_loses_the_oldest() {
    let mut world = World::new();
    let mut clients = Vec::new();
    for name in ["a", "b", "c"] {
        let mut client = world.client(device("pump-7"), Version::V5);
        client.connect(connect(Version::V5, name)).await;
        clients.push(client);
    }
    clients[0].ended(ReasonCode::SessionTakenOver).await;
    clients[1].ping().await;
    clients[2].ping().await;
    let mut ended = 0;
    for _ in 0..4 {
        ended += usize::from(matches!(world.event().await, BrokerEvent::Disconnected { .. }));
    }
    assert_eq!(ended, 1);
}

#[tokio::test(start_paused = true)]
async fn a_resumed_session_listens_without_subscribing() {
    let mut world = World::new();
    let asked = || {
        let properties = [Property::SessionExpiryInterval(60)].into_iter().collect();
        Connect { clean_start: false, properties, ..connect(Version::V5, "pump-7") }
    };
    let mut pump = world.client(device("pump-7"), Version::V5);
    assert!(!pump.connect(asked()).await.session_present);
    pump.subscribe(COMMANDS, QoS::AtLeastOnce).await;
    pump.send(Packet::Disconnect(Disconnect::new(ReasonCode::Success))).await;
    assert_eq!(pump.hear().await, Heard::End);
    for _ in 0..3 {
        world.event().await;
    }
    let mut pump = world.client(device("pump-7"), Version::V5);
    assert!(pump.connect(asked()).await.session_present);
    let BrokerEvent::Connected { connection, .. } = world.event().await else { panic!("Connected comes first") };
    assert!(matches!(world.event().await, BrokerEvent::Listening { row: DownlinkRow::Commands, .. }));
    let x = Bytes::from_static(b"x");
    world.broker.publish(&id("pump-7"), connection, DownlinkRow::Commands, x, Ticket(1)).expect("taken");
    assert_eq!(pump.message().await.payload, "x");
    drop(pump);
    tokio::time::sleep(Duration::from_secs(61)).await;
    let mut pump = world.client(device("pump-7"), Version::V5);
    assert!(!pump.connect(asked()).await.session_present, "it has expired");
}

#[tokio::test(start_paused = true)]
async fn a_revoked_device_is_closed_at_once_and_stays_out() {
    let mut world = World::new();
    let properties = [Property::SessionExpiryInterval(60)].into_iter().collect();
    let asked = Connect { clean_start: false, properties, ..connect(Version::V5, "pump-7") };
    let mut pump = world.client(device("pump-7"), Version::V5);
    pump.connect(asked.clone()).await;
    world.event().await;
    world.revoke("pump-7");
    pump.ended(ReasonCode::AdministrativeAction).await;
    assert!(matches!(world.event().await, BrokerEvent::Disconnected { .. }));
    let mut pump = world.client(device("pump-7"), Version::V5);
    pump.send(Packet::Connect(Box::new(asked))).await;
    match pump.packet().await {
        Packet::ConnAck(ack) => assert_eq!((ack.reason, ack.session_present), (ReasonCode::NotAuthorized, false)),
        other => panic!("{other:?}"),
    }
    assert_eq!(pump.hear().await, Heard::End);
    world.no_event();
}

/// The node takes no more events, as where its store has failed for good: what the connection is to hand over is
/// not waited for without end.
#[tokio::test(start_paused = true)]
async fn draining_ends_though_nobody_takes_what_is_to_be_handed_over() {
    let mut world = World::new();
    let (stuck, _) = world.device("pump-7", Version::V5).await;
    world.set_room(0);
    let begun = tokio::time::Instant::now();
    world.broker.drain(Duration::from_secs(5)).await;
    assert!(begun.elapsed() <= Duration::from_secs(10), "{:?}", begun.elapsed());
    drop(stuck);
}

#[tokio::test(start_paused = true)]
async fn draining_waits_for_answers_says_goodbye_and_takes_nobody() {
    let mut world = World::new();
    let (mut waiting, _) = world.device("pump-7", Version::V5).await;
    let (mut idle, _) = world.device("pump-8", Version::V5).await;
    waiting.publish(MESSAGES, "x", Some(1)).await;
    let delivery = world.delivery().await;
    let broker = world.broker.clone();
    let draining = tokio::spawn(async move { broker.drain(Duration::from_secs(5)).await });
    idle.ended(ReasonCode::ServerShuttingDown).await;
    assert!(matches!(world.event().await, BrokerEvent::Disconnected { .. }));
    delivery.ack.answer(Answer::Accepted);
    assert_eq!(waiting.acked().await.0, 1);
    waiting.ended(ReasonCode::ServerShuttingDown).await;
    assert!(matches!(world.event().await, BrokerEvent::Disconnected { .. }));
    drop((waiting, idle));
    draining.await.expect("drained");
    world.serving.await.expect("no panic").expect("a good end");
}

#[tokio::test(start_paused = true)]
async fn draining_ends_with_its_grace() {
    let mut world = World::new();
    let (mut pump, _) = world.device("pump-7", Version::V5).await;
    pump.publish(MESSAGES, "x", Some(1)).await;
    let held = world.delivery().await;
    let started = tokio::time::Instant::now();
    let broker = world.broker.clone();
    let draining = tokio::spawn(async move { broker.drain(Duration::from_secs(5)).await });
    pump.ended(ReasonCode::ServerShuttingDown).await;
    assert_eq!(started.elapsed(), Duration::from_secs(5));
    drop(pump);
    draining.await.expect("drained");
    held.ack.answer(Answer::Accepted);
}
