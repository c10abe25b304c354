//! A broker in memory, with a node that does as the test says, and clients on duplex streams.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};
use unhidra_broker::packet::*;
use unhidra_broker::*;
use unhidra_core::delivery::{Answer, Delivery, UplinkRow};
use unhidra_core::device::Fingerprint;
use unhidra_core::ids::DeviceId;
use unhidra_core::time::{Clock, Timestamp, UnixTime};

/// Longer than anything here takes by itself, in virtual time, and shorter than every timer of the
/// broker: a wake that was forgotten must not be made good by one.
const PATIENCE: Duration = Duration::from_secs(8);

/// How long a write may wait for a peer that does not read.
const WRITE_PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const CONFIG: &str = r#"
prefix = "unhidra"
durable = true
server_reference = ""
server_moved = false
sys_interval_s = 10
log_events_per_s = 50
[mqtt]
payload_format_check = false
response_information = "answers"
[tls]
listen = "127.0.0.1:0"
client_certificate = "required"
anonymous = false
users = false
proxy_from = []
connections_max = 50
[tcp]
listen = "off"
insecure = false
anonymous = true
users = true
proxy_from = []
connections_max = 50
[ws]
listen = "off"
insecure = false
anonymous = true
users = true
proxy_from = []
origins = []
connections_max = 50
[wss]
listen = "off"
client_certificate = "required"
anonymous = false
users = false
proxy_from = []
origins = []
connections_max = 50
[gate]
connections_per_address = 0
connects_per_address_s = 0
handshake_failures_per_address_s = 0
connects_s = 0
addresses_max = 100
antechamber_max = 4
lag_max_ms = 0
memory_max_bytes = 0
handshakes_per_core = 1
handshakes_max = 8
handshake_timeout_s = 10
[limits]
connections_max = 50
connections_per_device = 2
sessions_max = 100
connect_timeout_s = 10
keep_alive_max_s = 3600
session_expiry_max_s = 86400
packet_bytes_max = 70000
topic_bytes_max = 1024
topic_levels_max = 32
topic_aliases_max = 16
receive_max = 4
in_flight_max = 16
subscriptions_per_session = 16
queue_messages_max = 8
queue_bytes_max = 200000
queue_policy = "newest"
queue_patience_ms = 100
queue_qos0 = false
retained_messages_max = 100
retained_bytes_max = 100000
downlinks_max = 4
output_bytes_max = 65536
slow_client_s = 10
linger_ms = 100
"#;

pub(crate) fn config() -> Config {
    toml::from_str(CONFIG).expect("a configuration")
}

pub(crate) fn id(text: &str) -> DeviceId {
    DeviceId::parse(text).expect("a device id")
}

pub(crate) fn packet_id(number: u16) -> PacketId {
    PacketId::new(number).expect("not 0")
}

pub(crate) fn text(text: &str) -> Text {
    Text::from_bytes(Bytes::copy_from_slice(text.as_bytes())).expect("a text")
}

/// The time of the runtime, which stands still and jumps.
pub(crate) struct RuntimeClock(Instant, Duration);

impl RuntimeClock {
    pub(crate) fn start() -> Self {
        Self(Instant::now(), Duration::ZERO)
    }
}

impl Clock for RuntimeClock {
    fn now(&self) -> Timestamp {
        Timestamp::ZERO.saturating_add(self.0.elapsed())
    }
    fn unix_now(&self) -> UnixTime {
        UnixTime::from_s(1_700_000_000).saturating_add(self.1 + self.0.elapsed())
    }
}

/// The node's side: hands every event to the test, while there is room.
struct Node {
    events: mpsc::UnboundedSender<BrokerEvent>,
    room: AtomicUsize,
    roomier: Notify,
    batches: Mutex<Vec<usize>>,
}

impl Inlet for Node {
    fn offer(&self, mut events: Vec<BrokerEvent>) -> Result<(), Vec<BrokerEvent>> {
        let room = self.room.load(Ordering::SeqCst);
        let back = events.split_off(room.min(events.len()));
        self.room.fetch_sub(events.len(), Ordering::SeqCst);
        if !events.is_empty() {
            self.batches.lock().expect("no panic").push(events.len());
        }
        for event in events {
            // The test may be over.
            let _ = self.events.send(event);
        }
        if back.is_empty() { Ok(()) } else { Err(back) }
    }

    fn room(&self, _: &DeviceId) -> BoxFuture<'_, ()> {
        let roomier = self.roomier.notified();
        Box::pin(async move {
            if self.room.load(Ordering::SeqCst) == 0 {
                roomier.await;
            }
        })
    }
}

/// Lets everybody in but those on its list.
#[derive(Default)]
struct Register {
    revoked: Mutex<Vec<DeviceId>>,
}

impl Admission for Register {
    fn admit<'a>(&'a self, introduction: Introduction<'a>) -> BoxFuture<'a, Result<Entrant, Denied>> {
        let answer = match introduction.identity {
            Identity::Anonymous => Ok(Admitted::Client(None).into()),
            Identity::Device(certificate) if self.revoked.lock().expect("no panic").contains(&certificate.device) => {
                Err(Denied::Revoked)
            }
            Identity::Device(certificate) => Ok(Admitted::Device(certificate.device).into()),
        };
        Box::pin(async { answer })
    }
}

struct Door(mpsc::UnboundedReceiver<Accepted>);

impl Listener for Door {
    fn accept(&mut self) -> BoxFuture<'_, std::io::Result<Accepted>> {
        Box::pin(async {
            match self.0.recv().await {
                Some(accepted) => Ok(accepted),
                None => std::future::pending().await,
            }
        })
    }
}

pub(crate) struct World {
    pub(crate) broker: Arc<Broker>,
    pub(crate) serving: tokio::task::JoinHandle<std::io::Result<()>>,
    node: Arc<Node>,
    register: Arc<Register>,
    door: mpsc::UnboundedSender<Accepted>,
    gate: Arc<Gate>,
    events: mpsc::UnboundedReceiver<BrokerEvent>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(config())
    }

    pub(crate) fn with(config: Config) -> Self {
        Self::made(config, None, Duration::ZERO)
    }

    /// A broker that goes on with what a disk holds.
    pub(crate) async fn on(disk: Arc<dyn Persist>) -> Self {
        Self::later(disk, 0).await
    }

    /// The same, so many seconds after the first.
    pub(crate) async fn later(disk: Arc<dyn Persist>, s: u64) -> Self {
        Self::at(disk, s, TimeOfDay::Believed).await
    }

    /// The same, where the clock may be believed or not.
    pub(crate) async fn at(disk: Arc<dyn Persist>, s: u64, time: TimeOfDay) -> Self {
        let mut config = config();
        // What comes again after a crash waits beside what was kept: no bound is to drop any of it.
        config.limits.queue_messages_max = 1_000;
        let world = Self::made(config, Some(disk), Duration::from_secs(s));
        world.broker.restore(time).await.expect("records of its own");
        world
    }

    fn made(config: Config, persist: Option<Arc<dyn Persist>>, since: Duration) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let (room, roomier, batches) = (AtomicUsize::new(usize::MAX / 2), Notify::new(), Mutex::default());
        let node = Arc::new(Node { events: sender, room, roomier, batches });
        let register = Arc::new(Register::default());
        let clock = Arc::new(RuntimeClock(Instant::now(), since));
        let gate = Gate::new(config.gate.clone(), clock.clone());
        let doors =
            Doors { inlet: node.clone(), admission: register.clone(), gate: gate.clone(), clock, persist, seed: 7 };
        let broker = Broker::new(config, doors, &mut Registry::default());
        let (door, incoming) = mpsc::unbounded_channel();
        let serving = tokio::spawn(broker.clone().serve(Box::new(Door(incoming))));
        Self { broker, serving, node, register, door, gate, events }
    }

    /// Serves a port on loopback besides.
    pub(crate) fn port(&self, layers: Layers) -> std::net::SocketAddr {
        let threads = HandshakeThreads::start(&self.gate, 1).expect("threads");
        let anywhere = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = PortListener::bind(anywhere, layers, &threads, &self.gate).expect("a free port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(self.broker.clone().serve(Box::new(listener)));
        address
    }

    /// A stream of this identity.
    pub(crate) fn stream(&self, identity: Identity, buffer: usize) -> DuplexStream {
        let (here, there) = duplex(buffer);
        let entrance = Arc::new(Entrance { name: "simulated", anonymous: true, users: true });
        let accepted = Accepted { stream: Box::new(there), identity, peer: "simulated".into(), entrance, pass: None };
        self.door.send(accepted).expect("the broker serves");
        here
    }

    pub(crate) fn client(&self, identity: Identity, version: Version) -> Client {
        Client { stream: self.stream(identity, 64 * 1024), input: BytesMut::new(), version }
    }

    /// A device that is in, its `Connected` taken.
    pub(crate) async fn device(&mut self, name: &str, version: Version) -> (Client, ConnectionId) {
        let mut client = self.client(device(name), version);
        client.connect(connect(version, name)).await;
        match self.event().await {
            BrokerEvent::Connected { device, connection } if device == id(name) => (client, connection),
            other => panic!("{other:?}"),
        }
    }

    /// A plain client that is in.
    pub(crate) async fn plain(&self, name: &str, version: Version) -> Client {
        let mut client = self.client(Identity::Anonymous, version);
        client.connect(connect(version, name)).await;
        client
    }

    pub(crate) async fn event(&mut self) -> BrokerEvent {
        timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("a broker")
    }

    pub(crate) async fn delivery(&mut self) -> Delivery {
        match self.event().await {
            BrokerEvent::Delivery(delivery) => delivery,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn no_event(&mut self) {
        if let Ok(event) = self.events.try_recv() {
            panic!("{event:?}");
        }
    }

    /// How many events each offer that was taken held.
    pub(crate) fn batches(&self) -> Vec<usize> {
        self.node.batches.lock().expect("no panic").clone()
    }

    /// How many events more the node takes.
    pub(crate) fn set_room(&self, room: usize) {
        self.node.room.store(room, Ordering::SeqCst);
        self.node.roomier.notify_waiters();
    }

    pub(crate) fn revoke(&self, name: &str) {
        self.register.revoked.lock().expect("no panic").push(id(name));
        self.broker.disconnect(&id(name), ReasonCode::AdministrativeAction);
    }
}

pub(crate) fn device(name: &str) -> Identity {
    let certificate = PeerCertificate {
        device: id(name),
        trust_domain: "test".into(),
        fingerprint: Fingerprint([0; 32]),
        not_after: UnixTime::from_s(u64::from(u32::MAX)),
        serials: Arc::default(),
    };
    Identity::Device(certificate)
}

pub(crate) fn connect(version: Version, client_id: &str) -> Connect {
    Connect {
        version,
        clean_start: true,
        keep_alive_s: 60,
        properties: Properties::default(),
        client_id: text(client_id),
        will: None,
        user_name: None,
        password: None,
    }
}

pub(crate) fn publish(topic: &str, payload: &str, packet: Option<u16>) -> Publish {
    let assurance = match packet {
        None => Assurance::AtMostOnce,
        Some(number) => Assurance::AtLeastOnce { packet_id: packet_id(number), dup: false },
    };
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    Publish { assurance, retain: false, topic: text(topic), properties: Properties::default(), payload }
}

/// What a client reads next.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    Packet(Packet),
    End,
}

pub(crate) struct Client {
    pub(crate) stream: DuplexStream,
    input: BytesMut,
    version: Version,
}

impl Client {
    pub(crate) async fn send(&mut self, packet: Packet) {
        self.write(&packet.to_bytes(self.version)).await;
    }

    pub(crate) async fn send_all(&mut self, packets: impl IntoIterator<Item = Packet>) {
        let mut out = BytesMut::new();
        packets.into_iter().for_each(|packet| packet.encode(self.version, &mut out));
        self.write(&out).await;
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        timeout(WRITE_PATIENCE, self.stream.write_all(bytes)).await.expect("a reader").expect("an open stream");
    }

    pub(crate) async fn publish(&mut self, topic: &str, payload: &str, packet: Option<u16>) {
        self.send(Packet::Publish(publish(topic, payload, packet))).await;
    }

    pub(crate) async fn connect(&mut self, connect: Connect) -> ConnAck {
        self.send(Packet::Connect(Box::new(connect))).await;
        match self.packet().await {
            Packet::ConnAck(ack) if ack.reason == ReasonCode::Success => ack,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn subscribe(&mut self, filter: &str, qos: QoS) -> ReasonCode {
        self.subscribe_with(filter, SubscriptionOptions::with_qos(qos), Properties::default()).await
    }

    pub(crate) async fn subscribe_with(
        &mut self,
        filter: &str,
        options: SubscriptionOptions,
        p: Properties,
    ) -> ReasonCode {
        let filters = vec![SubscribeFilter { filter: text(filter), options }];
        self.send(Packet::Subscribe(Subscribe { packet_id: packet_id(9), properties: p, filters })).await;
        match self.packet().await {
            Packet::SubAck(ack) => ack.reasons[0],
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn puback(&mut self, packet_id: PacketId, reason: ReasonCode) {
        let properties = Properties::default();
        self.send(Packet::PubAck(Acknowledgement { packet_id, reason, properties })).await;
    }

    /// A PUBACK is next: its identifier and code.
    pub(crate) async fn acked(&mut self) -> (u16, ReasonCode) {
        match self.packet().await {
            Packet::PubAck(ack) => (ack.packet_id.get(), ack.reason),
            other => panic!("{other:?}"),
        }
    }

    /// A message is next.
    pub(crate) async fn message(&mut self) -> Publish {
        match self.packet().await {
            Packet::Publish(publish) => publish,
            other => panic!("{other:?}"),
        }
    }

    /// A ping goes round: whatever the broker has read before is done, and it serves.
    pub(crate) async fn ping(&mut self) {
        self.send(Packet::PingReq).await;
        assert_eq!(self.packet().await, Packet::PingResp);
    }

    pub(crate) async fn packet(&mut self) -> Packet {
        match self.hear().await {
            Heard::Packet(packet) => packet,
            Heard::End => panic!("the stream ended"),
        }
    }

    /// DISCONNECT with this reason is next, then the end; in 3.1.1 the end alone.
    pub(crate) async fn ended(&mut self, reason: ReasonCode) {
        if self.version == Version::V5 {
            match self.packet().await {
                Packet::Disconnect(disconnect) => assert_eq!(disconnect.reason, reason),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(self.hear().await, Heard::End);
    }

    pub(crate) async fn hear(&mut self) -> Heard {
        loop {
            if let Some(frame) = split_frame(&mut self.input, 1 << 20).expect("a frame") {
                return Heard::Packet(Packet::decode(frame, self.version).expect("a packet"));
            }
            let read = self.stream.read_buf(&mut self.input);
            match timeout(PATIENCE, read).await.expect("something to read in time") {
                Ok(0) | Err(_) => return Heard::End,
                Ok(_) => {}
            }
        }
    }
}

/// Answers a delivery and gives what it was.
pub(crate) fn accept(delivery: Delivery) -> (UplinkRow, Bytes) {
    delivery.ack.answer(Answer::Accepted);
    (delivery.row, delivery.sealed.0)
}
