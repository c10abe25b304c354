//! A broker alone, on plain TCP, for any MQTT client to try:
//! `cargo run -p unhidra-broker --example plain -- 127.0.0.1:1883`
//!
//! What devices publish is accepted and counted, since nobody here can open it.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::time::Instant;
use unhidra_broker::{
    Admission, Admitted, BoxFuture, Broker, BrokerEvent, Config, Denied, Doors, Entrant, Gate, HandshakeThreads,
    Identity, Inlet, Introduction, Layers, PortListener,
};
use unhidra_core::delivery::Answer;
use unhidra_core::ids::DeviceId;
use unhidra_core::time::{Clock, Timestamp, UnixTime};

const CONFIG: &str = r#"
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
listen = "off"
client_certificate = "required"
anonymous = false
users = false
proxy_from = []
connections_max = 10000
[tcp]
listen = "127.0.0.1:1883"
insecure = false
anonymous = true
users = true
proxy_from = []
connections_max = 10000
[ws]
listen = "off"
insecure = false
anonymous = true
users = true
proxy_from = []
origins = []
connections_max = 10000
[wss]
listen = "off"
client_certificate = "required"
anonymous = false
users = false
proxy_from = []
origins = []
connections_max = 10000
[gate]
connections_per_address = 0
connects_per_address_s = 0
handshake_failures_per_address_s = 0
connects_s = 0
addresses_max = 1000
antechamber_max = 4
lag_max_ms = 0
memory_max_bytes = 0
handshakes_per_core = 1
handshakes_max = 1024
handshake_timeout_s = 10
[limits]
connections_max = 10000
connections_per_device = 4
sessions_max = 20000
connect_timeout_s = 10
keep_alive_max_s = 3600
session_expiry_max_s = 86400
packet_bytes_max = 131072
topic_bytes_max = 1024
topic_levels_max = 32
topic_aliases_max = 16
receive_max = 128
in_flight_max = 128
subscriptions_per_session = 256
queue_messages_max = 4096
queue_bytes_max = 4194304
queue_policy = "newest"
queue_patience_ms = 100
queue_qos0 = false
retained_messages_max = 10000
retained_bytes_max = 16777216
downlinks_max = 64
output_bytes_max = 65536
slow_client_s = 10
linger_ms = 1000
"#;

struct Sink;

impl Inlet for Sink {
    fn offer(&self, events: Vec<BrokerEvent>) -> Result<(), Vec<BrokerEvent>> {
        for event in events {
            if let BrokerEvent::Delivery(delivery) = event {
                delivery.ack.answer(Answer::Accepted);
            }
        }
        Ok(())
    }
    fn room(&self, _: &DeviceId) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

struct Anybody;

impl Admission for Anybody {
    fn admit<'a>(&'a self, introduction: Introduction<'a>) -> BoxFuture<'a, Result<Entrant, Denied>> {
        let answer = match introduction.identity {
            Identity::Device(certificate) => Ok(Admitted::Device(certificate.device).into()),
            Identity::Anonymous => Ok(Admitted::Client(None).into()),
        };
        Box::pin(async { answer })
    }
}

struct Running(Instant);

impl Clock for Running {
    fn now(&self) -> Timestamp {
        Timestamp::ZERO.saturating_add(self.0.elapsed())
    }
    fn unix_now(&self) -> UnixTime {
        UnixTime::EPOCH.saturating_add(self.0.elapsed())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    // What the node sets too: how many sockets a thread hears of before it runs what they woke.
    let runtime = tokio::runtime::Builder::new_multi_thread().max_io_events_per_tick(32).enable_all().build()?;
    runtime.block_on(serve())
}

async fn serve() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).init();
    let address: SocketAddr = std::env::args().nth(1).as_deref().unwrap_or("127.0.0.1:1883").parse()?;
    let config: Config = toml::from_str(CONFIG)?;
    let clock = Arc::new(Running(Instant::now()));
    let gate = Gate::new(config.gate.clone(), clock.clone());
    let layers = Layers::new("tcp", &config.tcp, None);
    let listener = PortListener::bind(address, layers, &HandshakeThreads::start(&gate, 1)?, &gate)?;
    let doors = Doors { inlet: Arc::new(Sink), admission: Arc::new(Anybody), gate, clock, persist: None, seed: 0 };
    let broker = Broker::new(config, doors, &mut Registry::default());
    println!("listening on {}; ctrl-c drains", listener.local_addr()?);
    tokio::spawn(broker.clone().serve(Box::new(listener)));
    tokio::signal::ctrl_c().await?;
    broker.drain(Duration::from_secs(2)).await;
    Ok(())
}
