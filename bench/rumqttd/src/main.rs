//! The peer rumqttd: `unhidra-bench-rumqttd ADDRESS:PORT`.
//!
//! Its bounds are those of the configuration it ships, but for the connections, of which it is to
//! hold more, and the pause after each, which is a cost of its own choice at 1 ms and left out.

use std::collections::HashMap;
use std::error::Error;

use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};

fn main() -> Result<(), Box<dyn Error>> {
    let listen = std::env::args().nth(1).ok_or("usage: unhidra-bench-rumqttd ADDRESS:PORT")?.parse()?;
    let connections = ConnectionSettings {
        connection_timeout_ms: 60_000,
        max_payload_size: 20_480,
        max_inflight_count: 100,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let server = ServerSettings { name: "plain".into(), listen, tls: None, next_connection_delay_ms: 0, connections };
    let router = RouterConfig {
        max_connections: 20_000,
        max_outgoing_packet_count: 200,
        max_segment_size: 104_857_600,
        max_segment_count: 10,
        ..RouterConfig::default()
    };
    let v4 = Some(HashMap::from([("plain".to_owned(), server)]));
    Broker::new(Config { router, v4, ..Config::default() }).start()?;
    Ok(())
}
