//! Who may not come in and is told so; who is in and must go.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use unhidra_broker::packet::*;
use unhidra_broker::*;
use unhidra_core::time::UnixTime;

use crate::disk::Disk;
use crate::world::{Client, Heard, World, config, connect, device, text};

/// Sends CONNECT, and gives the reason that it is answered with and the server it names.
async fn asks(client: &mut Client, version: Version) -> (ReasonCode, Option<Text>) {
    client.send(Packet::Connect(Box::new(connect(version, "newcomer")))).await;
    let Packet::ConnAck(ack) = client.packet().await else { panic!("no CONNACK") };
    assert_eq!(client.hear().await, Heard::End);
    (ack.reason, server_of(&ack.properties))
}

fn server_of(properties: &Properties) -> Option<Text> {
    properties.find(|property| match property {
        Property::ServerReference(server) => Some(server.clone()),
        _ => None,
    })
}

/// A device whose certificate has this number and ends then.
fn holder(name: &str, serial: &[u8], not_after: UnixTime) -> Identity {
    let Identity::Device(certificate) = device(name) else { unreachable!("it is one") };
    Identity::Device(PeerCertificate { serials: Arc::new([Serial::new(b"ca", serial)]), not_after, ..certificate })
}

/// The wall clock at the beginning of every world.
const BEGIN: UnixTime = UnixTime::from_s(1_700_000_000);
const FAR: UnixTime = UnixTime::from_s(4_000_000_000);

#[tokio::test(start_paused = true)]
async fn a_newcomer_over_the_bound_is_told_and_one_over_that_is_closed() {
    let mut config = config();
    config.limits.connections_max = 1;
    config.gate.antechamber_max = 2;
    let world = World::with(config);
    let inside = world.plain("inside", Version::V5).await;
    let mut told = world.client(Identity::Anonymous, Version::V5);
    assert_eq!(asks(&mut told, Version::V5).await.0, ReasonCode::QuotaExceeded);
    let mut told_so_too = world.client(Identity::Anonymous, Version::V3_1_1);
    // Return code 3: the server is unavailable.
    assert_eq!(asks(&mut told_so_too, Version::V3_1_1).await.0, ReasonCode::ServerUnavailable);
    let mut not_told = world.client(Identity::Anonymous, Version::V5);
    assert_eq!(not_told.hear().await, Heard::End, "both places before the door are taken");
    drop((inside, told, told_so_too));
    // Their tasks notice that they have gone.
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.plain("next", Version::V5).await;
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_that_says_nothing_leaves_the_antechamber_in_time() {
    let mut config = config();
    config.limits.connections_max = 0;
    config.gate.antechamber_max = 1;
    let world = World::with(config);
    let mut silent = world.client(Identity::Anonymous, Version::V5);
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(silent.hear().await, Heard::End);
    assert_eq!(begun.elapsed(), Duration::from_secs(10), "the time for CONNECT");
    drop(silent);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut next = world.client(Identity::Anonymous, Version::V5);
    assert_eq!(asks(&mut next, Version::V5).await.0, ReasonCode::QuotaExceeded);
}

#[tokio::test(start_paused = true)]
async fn who_drains_sends_its_clients_to_the_other_server() {
    for (moved, reason) in [(false, ReasonCode::UseAnotherServer), (true, ReasonCode::ServerMoved)] {
        let mut config = config();
        config.server_reference = Some(text("b.example:8883"));
        config.server_moved = moved;
        let mut world = World::with(config);
        let mut inside = world.plain("inside", Version::V5).await;
        let mut old = world.plain("old", Version::V3_1_1).await;
        let (mut pump, _) = world.device("pump-7", Version::V5).await;
        pump.publish("unhidra/devices/pump-7/messages", "x", Some(1)).await;
        // While its message waits for an answer the node is not at its end.
        let unanswered = world.delivery().await;
        let broker = world.broker.clone();
        let draining = tokio::spawn(async move { broker.drain(Duration::from_secs(5)).await });
        let Packet::Disconnect(disconnect) = inside.packet().await else { panic!("no DISCONNECT") };
        assert_eq!((disconnect.reason, server_of(&disconnect.properties)), (reason, Some(text("b.example:8883"))));
        old.ended(reason).await;
        let mut newcomer = world.client(Identity::Anonymous, Version::V5);
        assert_eq!(asks(&mut newcomer, Version::V5).await, (reason, Some(text("b.example:8883"))));
        let mut newcomer = world.client(Identity::Anonymous, Version::V3_1_1);
        assert_eq!(asks(&mut newcomer, Version::V3_1_1).await.0, ReasonCode::ServerUnavailable);
        drop((inside, old, pump, unanswered));
        draining.await.expect("drained");
    }
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_to_a_node_that_ends_is_told_that_it_is_unavailable() {
    let mut world = World::new();
    let (mut pump, _) = world.device("pump-7", Version::V5).await;
    pump.publish("unhidra/devices/pump-7/messages", "x", Some(1)).await;
    let unanswered = world.delivery().await;
    let broker = world.broker.clone();
    let draining = tokio::spawn(async move { broker.drain(Duration::from_secs(5)).await });
    tokio::task::yield_now().await;
    let mut newcomer = world.client(Identity::Anonymous, Version::V5);
    assert_eq!(asks(&mut newcomer, Version::V5).await, (ReasonCode::ServerUnavailable, None));
    pump.ended(ReasonCode::ServerShuttingDown).await;
    drop((pump, unanswered));
    draining.await.expect("drained");
}

/// [MQTT-3.1.2-8]: the node ends the connection, and the client has not asked for it.
#[tokio::test(start_paused = true)]
async fn wills_are_published_when_the_node_drains() {
    let disk = Disk::new();
    let world = World::on(disk.clone()).await;
    let mut mortal = world.client(Identity::Anonymous, Version::V5);
    let (topic, payload, qos) = (text("wills"), "gone".into(), QoS::AtLeastOnce);
    let will = Will { topic, payload, qos, retain: true, properties: Properties::default() };
    mortal.connect(Connect { will: Some(will), ..connect(Version::V5, "mortal") }).await;
    let broker = world.broker.clone();
    let draining = tokio::spawn(async move { broker.drain(Duration::from_secs(5)).await });
    mortal.ended(ReasonCode::ServerShuttingDown).await;
    drop(mortal);
    draining.await.expect("drained");
    let world = World::on(disk.after_crash()).await;
    let mut mourner = world.plain("mourner", Version::V5).await;
    mourner.subscribe("wills", QoS::AtMostOnce).await;
    assert_eq!(&mourner.message().await.payload[..], b"gone");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_ends_closes_its_connection() {
    let world = World::new();
    let mut pump = world.client(holder("pump-7", b"1", BEGIN.saturating_add(Duration::from_secs(30))), Version::V5);
    let begun = Instant::now();
    pump.connect(connect(Version::V5, "pump-7")).await;
    while begun.elapsed() < Duration::from_secs(28) {
        tokio::time::sleep(Duration::from_secs(7)).await;
        pump.ping().await;
    }
    pump.ended(ReasonCode::NotAuthorized).await;
    // It holds through its last second.
    assert_eq!(begun.elapsed(), Duration::from_secs(31));
}

#[tokio::test(start_paused = true)]
async fn a_revoked_certificate_closes_its_connection_and_lets_nobody_in() {
    let world = World::new();
    let (bad, good) = (holder("pump-7", b"7", FAR), holder("pump-8", b"8", FAR));
    let mut revoked = world.client(bad.clone(), Version::V5);
    revoked.connect(connect(Version::V5, "pump-7")).await;
    let mut stays = world.client(good.clone(), Version::V5);
    stays.connect(connect(Version::V5, "pump-8")).await;
    // It was past its handshake when the list came, and says CONNECT only then.
    let mut late = world.client(bad, Version::V5);
    world.broker.revoke(Arc::new([Serial::new(b"ca", b"7")].into_iter().collect()));
    revoked.ended(ReasonCode::NotAuthorized).await;
    stays.ping().await;
    assert_eq!(asks(&mut late, Version::V5).await.0, ReasonCode::NotAuthorized);
    // The device comes back with another certificate, and has its session.
    let mut renewed = world.client(holder("pump-7", b"9", FAR), Version::V5);
    renewed.connect(connect(Version::V5, "pump-7")).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_holds_too_much_refuses_newcomers_and_serves_on() {
    let mut config = config();
    // Any process holds more.
    config.gate.memory_max_bytes = 1;
    let world = World::with(config);
    let mut newcomer = world.client(Identity::Anonymous, Version::V5);
    assert_eq!(asks(&mut newcomer, Version::V5).await.0, ReasonCode::ServerBusy);
}
