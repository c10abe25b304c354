//! A real mosquitto behind a network that takes everything and delivers nothing, where the connection stands
//! on both sides and nobody is behind it; or that delivers all but its PUBACKs.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use unhidra_tests::process::{FREE_PORTS, Node, Place};

use super::ledger;
use super::upstream::{DEVICES, Mosquitto, journals, once_and_in_order, simulate, wait_for_rows};

/// What becomes of bytes on their way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    Open,
    /// Taken, and gone, in both directions; also those of new connections.
    Swallows,
    /// The node gets everything but PUBACKs.
    KeepsPubacks,
}

/// Who gets what is carried.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Receiver {
    Node,
    Broker,
}

/// A network between the node and mosquitto. Dropped, it is gone.
struct Relay {
    address: SocketAddr,
    way: watch::Sender<Way>,
    task: JoinHandle<()>,
}

impl Relay {
    async fn start(to: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (way, seen) = watch::channel(Way::Open);
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await.expect("mosquitto listens");
                let (near, far) = (near.into_split(), far.into_split());
                tokio::spawn(carry(near.0, far.1, Receiver::Broker, seen.clone()));
                tokio::spawn(carry(far.0, near.1, Receiver::Node, seen.clone()));
            }
        });
        Self { address, way, task }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Carries packets one way until the sender ends. A connection that has lost bytes carries none ever again.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, receiver: Receiver, way: watch::Receiver<Way>) {
    let mut waiting = Vec::new();
    let mut is_torn = false;
    while let Ok(1..) = from.read_buf(&mut waiting).await {
        let way = *way.borrow();
        is_torn |= way == Way::Swallows;
        while let Some(length) = packet_len(&waiting) {
            let packet: Vec<u8> = waiting.drain(..length).collect();
            let is_kept = way == Way::KeepsPubacks && receiver == Receiver::Node && packet[0] >> 4 == 4;
            if !is_torn && !is_kept && to.write_all(&packet).await.is_err() {
                return;
            }
        }
    }
    // The end is swallowed too, where bytes were: the other side is left with a connection to nobody.
    if is_torn {
        std::future::pending::<()>().await;
    }
}

/// The bytes of the first packet, where all of it is there.
fn packet_len(bytes: &[u8]) -> Option<usize> {
    let digits = 1 + bytes.get(1..)?.iter().take_while(|digit| **digit >= 0x80).count();
    let body = bytes.get(1..=digits)?.iter().rev().fold(0, |length, digit| length << 7 | usize::from(digit & 0x7f));
    let length = 1 + digits + body;
    (bytes.len() >= length).then_some(length)
}

/// A node that reaches mosquitto through a relay, and enrolled devices.
async fn behind_a_relay(version: &str, options: &str) -> (Place, Mosquitto, Relay, Node) {
    let place = Place::new();
    for device in DEVICES {
        place.enroll(device).await;
    }
    // It is never killed here, and saving all it has for each change it would soon take packets 20 times a second.
    let lines = "allow_anonymous true\nautosave_on_changes false\nautosave_interval 1800\n";
    let mosquitto = Mosquitto::start(&place, lines).await;
    let relay = Relay::start(mosquitto.node).await;
    let options = format!(
        "{options} --set upstream.tls=false --set upstream.backoff_cap_s=1 --set upstream.version=\"{version}\" --set \
         upstream.broker=[{{name=\"factory\",address=\"{}\"}}]",
        relay.address
    );
    let node = place.node(&format!("run {FREE_PORTS} {options}")).await;
    node.process.logs("an outside broker is reached").await;
    (place, mosquitto, relay, node)
}

/// The Keep Alive tells, in seconds what it would in minutes by default; then the node comes back, and
/// mosquitto gives the new connection what the old one was to have. A PUBACK comes behind all that.
async fn nothing_is_lost_behind_a_half_open_connection(version: &str) {
    let (place, mosquitto, relay, node) =
        behind_a_relay(version, "--set upstream.keep_alive_s=2 --set upstream.connect_timeout_s=1").await;
    let devices = simulate(&place, &mosquitto, "--rate 20").await;
    place.readings(60).await;
    for cut in 1..=2 {
        relay.way.send_replace(Way::Swallows);
        node.process.logs_again("has not answered a ping", cut).await;
        // New connections are swallowed as well, for as long as it takes.
        node.process.logs_again("it has not let the node in within 1 s", 2 * cut).await;
        relay.way.send_replace(Way::Open);
        node.process.logs_again("an outside broker is reached", cut + 1).await;
        place.readings(60).await;
    }
    let done = place.run("send pump-2 identify --wait --json --data node").await;
    assert_eq!(done.status, Some(0), "{done}");
    devices.signal(Signal::INT);
    let ended = devices.ended_within(Duration::from_secs(30)).await;
    assert_eq!(ended.status, Some(0), "{ended}");
    let acknowledged = journals(&place).iter().flatten().filter(|entry| entry.acknowledged_at.is_some()).count();
    wait_for_rows(&place, acknowledged).await;
    node.stop().await;
    let rows = once_and_in_order(&place).await;
    assert_eq!(ledger::nothing_is_lost_or_doubled(&journals(&place), &rows), acknowledged);
}

#[tokio::test]
async fn a_half_open_connection_is_noticed_by_the_keep_alive_and_costs_nothing() {
    nothing_is_lost_behind_a_half_open_connection("5.0").await;
}

#[tokio::test]
async fn so_it_is_in_mqtt_3_1_1() {
    nothing_is_lost_behind_a_half_open_connection("3.1.1").await;
}

/// Else a command would be held up for ever, also where its device has gone to another door meanwhile.
async fn who_owes_a_puback_is_left(version: &str) {
    let (place, mosquitto, relay, node) = behind_a_relay(version, "--set upstream.keep_alive_s=2").await;
    let devices = simulate(&place, &mosquitto, "--rate 20").await;
    place.readings(60).await;
    relay.way.send_replace(Way::KeepsPubacks);
    let sent = place.run("send pump-2 identify --json --data node").await;
    assert_eq!(sent.status, Some(0), "{sent}");
    node.process.logs("it has not acknowledged a message within 2 s").await;
    relay.way.send_replace(Way::Open);
    node.process.logs_again("an outside broker is reached", 2).await;
    let done = place.run("send pump-2 identify --wait --json --data node").await;
    assert_eq!(done.status, Some(0), "{done}");
    devices.signal(Signal::INT);
    let ended = devices.ended_within(Duration::from_secs(30)).await;
    assert_eq!(ended.status, Some(0), "{ended}");
    node.stop().await;
    once_and_in_order(&place).await;
}

#[tokio::test]
async fn a_broker_that_keeps_its_pubacks_is_left_and_dialled_again() {
    who_owes_a_puback_is_left("5.0").await;
}

#[tokio::test]
async fn so_is_one_of_mqtt_3_1_1() {
    who_owes_a_puback_is_left("3.1.1").await;
}
