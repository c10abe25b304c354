//! `unhidra run`

use rand::rngs::StdRng;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::console::reachable;
use super::output::Output;
use super::serve::Node;
use super::{CliError, Global};
use crate::config::Purpose;
use crate::control::{Addresses, ListenerAddress};
use crate::folder::{Folder, Kind, Role};
use crate::log;

/// What a node says on stdout once all of it listens: one line of JSON with `--json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename = "ready")]
pub struct Ready {
    /// MQTT over TLS, `127.0.0.1:8883` for instance.
    pub mqtt: Option<String>,
    /// Plain MQTT.
    pub mqtt_plain: Option<String>,
    /// MQTT over WebSocket, `ws://127.0.0.1:8083/mqtt` for instance.
    pub mqtt_ws: Option<String>,
    /// MQTT over WebSocket over TLS, `wss://127.0.0.1:8084/mqtt` for instance.
    pub mqtt_wss: Option<String>,
    /// Every address of every listener of MQTT.
    pub mqtt_listeners: Vec<ListenerAddress>,
    /// The gateway and the console, `http://127.0.0.1:8080` for instance.
    pub gateway: Option<String>,
    /// Health and metrics, `http://127.0.0.1:9600` for instance.
    pub admin: Option<String>,
    /// The process.
    pub pid: u32,
}

impl Ready {
    /// What a node that listens there says.
    #[must_use]
    pub fn new(addresses: &Addresses) -> Self {
        let http = |address| format!("http://{}", reachable(address));
        Self {
            mqtt: addresses.mqtt.map(|address| address.to_string()),
            mqtt_plain: addresses.mqtt_plain.map(|address| address.to_string()),
            mqtt_ws: addresses.mqtt_ws.map(|address| format!("ws://{}/mqtt", reachable(address))),
            mqtt_wss: addresses.mqtt_wss.map(|address| format!("wss://{}/mqtt", reachable(address))),
            mqtt_listeners: addresses.mqtt_listeners.clone(),
            gateway: addresses.gateway.map(http),
            admin: addresses.admin.map(http),
            pid: std::process::id(),
        }
    }

    /// The same for people.
    fn lines(&self) -> String {
        let off = || "off".to_owned();
        let at = |name: &str| {
            let listeners = self.mqtt_listeners.iter().filter(|listener| listener.name == name);
            let addresses: Vec<String> = listeners.map(|listener| listener.address.to_string()).collect();
            if addresses.is_empty() { off() } else { addresses.join(", ") }
        };
        let or_off = |address: &Option<String>| address.clone().unwrap_or_else(off);
        format!(
            "The node is ready, pid {}.\n\
             \x20 MQTT over TLS  {}\n\
             \x20 plain MQTT     {}\n\
             \x20 WebSocket      {}\n\
             \x20 with TLS       {}\n\
             \x20 console        {}  (`unhidra console` makes a token)\n\
             \x20 health         {}",
            self.pid,
            at("tls"),
            at("tcp"),
            at("ws"),
            at("wss"),
            or_off(&self.gateway),
            self.admin.as_ref().map_or_else(off, |admin| format!("{admin}/readyz")),
        )
    }
}

/// Runs the node until SIGTERM or SIGINT, and ends it in order; a second one ends it at once.
pub(super) async fn run(global: &Global, rng: StdRng, out: &mut Output<'_>) -> Result<(), CliError> {
    // Before anything is started, so that none of them is missed.
    let mut signals = Signals::listen()?;
    let sources = global.sources(Purpose::Node);
    let loaded = sources.load()?;
    log::start(&loaded.config.log)?;
    allow_descriptors();
    let folder = Folder::open(&loaded.config.data, Kind::Sealed, Role::Node)?;
    let mut node = Node::start(loaded, folder, rng).await?;
    let ready = Ready::new(node.addresses());
    if let Err(error) = out.say(&ready, &ready.lines()) {
        // Whoever started it has closed its stdout; the node is not the worse for it.
        tracing::warn!(%error, "nobody heard that the node is ready");
    }
    loop {
        tokio::select! {
            told = signals.next() => match told {
                Told::Reload => node.reload(&sources),
                Told::End => break,
            },
            () = tokio::time::sleep(node.revocation_look()) => {
                node.look_at_revocations();
                node.look_at_certificate();
            }
        }
    }
    tracing::info!("the node ends");
    let mut stopping = std::pin::pin!(node.stop());
    loop {
        tokio::select! {
            () = &mut stopping => return Ok(()),
            told = signals.next() => if told == Told::End {
                return Err(CliError::Failed("told twice to end: not everything under way has ended".to_owned()));
            },
        }
    }
}

/// Lets this process open as many files as the system allows it at most: what it starts with is
/// 1024 on most machines, and each connection is one.
pub(super) fn allow_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, most) {
        tracing::warn!(%error, allowed = limit.current, "no more files can be opened, connections among them");
    }
}

/// What the system tells a node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Told {
    Reload,
    End,
}

pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    pub(super) fn listen() -> Result<Self, CliError> {
        let listen =
            |kind| signal(kind).map_err(|error| CliError::Failed(format!("signals cannot be listened to: {error}")));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    pub(super) async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::End,
            _ = self.interrupt.recv() => Told::End,
            _ = self.hang_up.recv() => Told::Reload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Addresses {
        Addresses {
            mqtt: "127.0.0.1:8883".parse().ok(),
            mqtt_plain: None,
            mqtt_ws: "[::1]:8083".parse().ok(),
            mqtt_wss: None,
            mqtt_listeners: vec![ListenerAddress { name: "tls".into(), address: ([127, 0, 0, 1], 8883).into() }],
            gateway: "0.0.0.0:8080".parse().ok(),
            admin: "[::1]:9600".parse().ok(),
        }
    }

    #[test]
    fn the_ready_line_is_one_object_with_what_can_be_dialled() {
        let line = serde_json::to_value(Ready { pid: 7, ..Ready::new(&addresses()) }).unwrap();
        assert_eq!(
            line,
            serde_json::json!({
                "event": "ready",
                "mqtt": "127.0.0.1:8883",
                "mqtt_plain": null,
                "mqtt_ws": "ws://[::1]:8083/mqtt",
                "mqtt_wss": null,
                "mqtt_listeners": [{ "name": "tls", "address": "127.0.0.1:8883" }],
                "gateway": "http://127.0.0.1:8080",
                "admin": "http://[::1]:9600",
                "pid": 7,
            })
        );
    }

    #[test]
    fn a_node_may_open_all_the_files_the_system_lets_it() {
        allow_descriptors();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }

    #[test]
    fn people_are_told_where_and_what_is_off() {
        let lines = Ready::new(&addresses()).lines();
        assert!(lines.contains("127.0.0.1:8883") && lines.contains("plain MQTT     off"), "{lines}");
        assert!(lines.contains("http://127.0.0.1:8080") && lines.contains("http://[::1]:9600/readyz"), "{lines}");
    }
}
