//! The broker's part of the configuration. Every default stands in `node/src/default.toml`.

mod bounds;
mod gate;
mod listener;

use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::Error as _;
use thiserror::Error;

use crate::packet::Text;

pub use bounds::LimitError;
pub use gate::GateConfig;
pub use listener::{ClientCertificate, Listen, ListenError, ListenerConfig, Network, NetworkError};

/// The table `[broker]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `{p}`, what the devices' topics begin with.
    pub prefix: Prefix,
    /// Whether sessions that outlive their connections, what waits for them and retained messages
    /// survive a restart.
    pub durable: bool,
    /// Where clients find another server when this one ends; empty for nowhere.
    #[serde(deserialize_with = "server_reference")]
    pub server_reference: Option<Text>,
    /// Whether they find it there for good.
    pub server_moved: bool,
    /// MQTT over TLS.
    pub tls: ListenerConfig,
    /// Plain MQTT.
    pub tcp: ListenerConfig,
    /// MQTT over WebSocket.
    pub ws: ListenerConfig,
    /// MQTT over WebSocket over TLS.
    pub wss: ListenerConfig,
    /// The bounds on strangers.
    pub gate: GateConfig,
    /// Seconds between two looks of `$SYS`; 0 turns it off.
    pub sys_interval_s: u64,
    /// Lines a second the log gets of clients that come, as many of those that go, and as many of
    /// those that are refused. Further ones are counted in the next line and in the metrics.
    pub log_events_per_s: u32,
    /// What the standard leaves to the server.
    pub mqtt: MqttConfig,
    /// The bounds.
    pub limits: Limits,
}

/// The table `[broker.mqtt]`: what the standard leaves to the server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MqttConfig {
    /// Whether a payload whose Payload Format Indicator says UTF-8 is looked at, and refused with
    /// 0x99 if it is not. It costs a look at each such payload.
    pub payload_format_check: bool,
    /// The Response Information for a client that asks for it: by agreement, what its response
    /// topics begin with. Empty, none is given.
    pub response_information: ResponseInformation,
}

/// Text for CONNACK: without U+0000, at most 1 024 bytes.
#[derive(Clone, Debug, Default)]
pub struct ResponseInformation(String);

impl ResponseInformation {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether none is given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for ResponseInformation {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if text.len() > 1024 || text.contains('\0') {
            let len = text.len();
            return Err(D::Error::custom(format!(
                "response_information of {len} bytes; allowed are 1024 at most, without U+0000"
            )));
        }
        Ok(Self(text))
    }
}

/// The table `[broker.limits]`: what a peer can make grow, and how far.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Connections in all. At the bound a new one is told so in CONNACK, as far as the antechamber
    /// has room, and closed.
    pub connections_max: usize,
    /// Connections of one device, under different client identifiers. At the bound the oldest is
    /// taken over.
    pub connections_per_device: usize,
    /// Sessions, live and stored. At the bound the stored one that would expire first goes;
    /// without one the CONNECT is refused with 0x97.
    pub sessions_max: usize,
    /// How long CONNECT may take, from the accepted stream on.
    pub connect_timeout_s: u64,
    /// The longest Keep Alive; a longer one is cut to it in 5.0. A client's 0 stays off.
    pub keep_alive_max_s: u16,
    /// The longest a session outlives its connection, and how long one of 3.1.1 does; 0, none does.
    pub session_expiry_max_s: u32,
    /// The largest packet taken; a larger one ends its connection with 0x95.
    pub packet_bytes_max: usize,
    /// The longest topic or filter taken.
    pub topic_bytes_max: usize,
    /// The most levels a topic or filter may have.
    pub topic_levels_max: usize,
    /// Topic Aliases of one connection in each direction: announced as Topic Alias Maximum, over
    /// which a client is ended with 0x94. 0 turns them off.
    pub topic_aliases_max: u16,
    /// Unanswered QoS 1 and 2 messages of one client: announced as Receive Maximum, over which 5.0 is
    /// ended with 0x93; in 3.1.1 no more is read until one is answered.
    pub receive_max: u16,
    /// Unacknowledged QoS 1 and 2 messages to one client; what is over waits in its queue.
    pub in_flight_max: u16,
    /// Subscriptions of one session. What is over is refused with 0x97. At 0 nobody subscribes, but
    /// devices to their own rows, which do not count.
    pub subscriptions_per_session: usize,
    /// Messages in one session's queue. A full queue makes publishers wait while its client is
    /// connected, at most `queue_patience_ms`; then, and of a client that is away, `queue_policy`
    /// says which is dropped.
    pub queue_messages_max: usize,
    /// Bytes in one session's queue, like `queue_messages_max`.
    pub queue_bytes_max: usize,
    /// What becomes of a message that finds a full queue.
    pub queue_policy: QueuePolicy,
    /// How long a client may take nothing before publishers wait for its full queue no more. Once: it
    /// is slow from then on, until the queue has been emptied to half. At 0 nobody waits.
    pub queue_patience_ms: u64,
    /// Whether messages of QoS 0 wait for a client that is away.
    pub queue_qos0: bool,
    /// Retained messages. What is over is delivered and not retained; at 0 none is.
    pub retained_messages_max: usize,
    /// Bytes of retained messages, like `retained_messages_max`.
    pub retained_bytes_max: usize,
    /// Messages of the node that wait for one device. At the bound the node is told so.
    pub downlinks_max: usize,
    /// Bytes that wait to be written to one client. At the bound nothing of it is read, and its
    /// queue waits.
    pub output_bytes_max: usize,
    /// How long a client may take nothing that waits to be written to it. Then its connection is
    /// closed.
    pub slow_client_s: u64,
    /// How long a closed connection waits for its peer to close too, so that the peer can read
    /// the DISCONNECT. 0 closes at once.
    pub linger_ms: u64,
}

impl Limits {
    pub(crate) const fn connect_timeout(&self) -> Duration {
        Duration::from_secs(self.connect_timeout_s)
    }

    pub(crate) const fn slow_client(&self) -> Duration {
        Duration::from_secs(self.slow_client_s)
    }

    pub(crate) const fn linger(&self) -> Duration {
        Duration::from_millis(self.linger_ms)
    }
}

/// Which message goes where a queue is full.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum QueuePolicy {
    /// The oldest in the queue.
    Oldest,
    /// The one that found it full.
    Newest,
    /// The one that found it full, and the connection of its client with 0x97; of a client that is
    /// away, the message alone.
    Disconnect,
}

/// A Server Reference is as long as host names and ports are, a few of them (section 4.11).
const SERVER_REFERENCE_MAX: usize = 1_024;

fn server_reference<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Text>, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() {
        return Ok(None);
    }
    let found = Text::from_bytes(text.clone().into()).ok().filter(|_| text.len() <= SERVER_REFERENCE_MAX);
    let error =
        || D::Error::custom(format!("a server reference has at most {SERVER_REFERENCE_MAX} bytes, none of them 0"));
    found.map(Some).ok_or_else(error)
}

/// A topic prefix: one or more levels of `[A-Za-z0-9._-]`, at most 128 bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Prefix(String);

/// A text that is no [`Prefix`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("the topic prefix {found:?}; allowed are levels of A-Z a-z 0-9 . _ - with / between, at most 128 characters")]
pub struct PrefixError {
    /// The text found.
    pub found: String,
}

impl Prefix {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let level = |level: &str| !level.is_empty() && level.bytes().all(allowed);
        if text.len() <= 128 && text.split('/').all(level) {
            Ok(Self(text.to_owned()))
        } else {
            Err(PrefixError { found: text.chars().take(160).collect() })
        }
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn mqtt() -> MqttConfig {
        MqttConfig { payload_format_check: true, response_information: ResponseInformation("answers".into()) }
    }

    /// Bounds for tests.
    pub(crate) fn limits() -> Limits {
        Limits {
            connections_max: 100,
            connections_per_device: 2,
            sessions_max: 100,
            connect_timeout_s: 10,
            keep_alive_max_s: 3_600,
            session_expiry_max_s: 86_400,
            packet_bytes_max: 131_072,
            topic_bytes_max: 1_024,
            topic_levels_max: 32,
            topic_aliases_max: 4,
            receive_max: 128,
            in_flight_max: 128,
            subscriptions_per_session: 16,
            queue_messages_max: 100,
            queue_bytes_max: 100_000,
            queue_policy: QueuePolicy::Newest,
            queue_patience_ms: 100,
            queue_qos0: false,
            retained_messages_max: 100,
            retained_bytes_max: 100_000,
            downlinks_max: 8,
            output_bytes_max: 65_536,
            slow_client_s: 10,
            linger_ms: 1_000,
        }
    }

    #[test]
    fn a_prefix_holds_no_wildcards_and_no_empty_level() {
        for good in ["unhidra", "site/north-1"] {
            assert!(good.parse::<Prefix>().is_ok(), "{good}");
        }
        for bad in ["", "/", "a/", "/a", "a//b", "a/+", "#", "$SYS", "ä"] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
    }
}
