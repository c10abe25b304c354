//! What an operator may set.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

/// The gateway's part of the configuration, `[gateway]`. Its defaults stand in `node/src/default.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where HTTP and WebSocket are served.
    pub listen: SocketAddr,
    /// Names by which browsers may call this node, beside `localhost` and plain addresses. Any
    /// other `Host` is refused: a foreign name that resolves to this machine is DNS rebinding.
    pub hosts: Vec<String>,
    /// Origins whose pages may connect, beside the page this node serves itself; for example
    /// `https://dash.example.org`.
    pub origins: Vec<String>,
    /// TCP connections at a time. Above it: 503 and a close.
    pub connections_max: usize,
    /// WebSocket clients at a time. Above it: 503 with `Retry-After`.
    pub clients_max: usize,
    /// Subscriptions of one client. Above it: the error `too_many_subscriptions`.
    pub subscriptions_max: usize,
    /// Bytes of one frame of a client. Above it: close code 1009.
    pub frame_len_max: usize,
    /// Seconds a client has for its first message, `authenticate`.
    pub authenticate_s: u64,
    /// Seconds of silence after which a client is asked whether it is there.
    pub ping_s: u64,
    /// Seconds it has to answer.
    pub pong_s: u64,
    /// Seconds a write may make no progress before the client counts as gone.
    pub write_s: u64,
    /// Seconds a peer has for the head of an HTTP request, and again for its body.
    pub request_s: u64,
    /// Seconds a connection may serve plain HTTP before it is closed.
    pub http_connection_s: u64,
    /// Frames that may wait for one client. Above it the subscription falls back to reading the
    /// store at the client's pace.
    pub outbox_frames: usize,
    /// Bytes that may wait for one client, likewise.
    pub outbox_bytes: usize,
    /// Readings that may wait for dispatch, a partition. Above it the dispatcher reads them back
    /// from the store.
    pub intake_readings: usize,
    /// Bytes of bodies that may wait for dispatch, a partition, likewise.
    pub intake_bytes: usize,
    /// Devices whose presence is remembered. Above it a device that is away is not remembered.
    pub presence_max: usize,
    /// Seconds a command lives where the client does not say.
    pub command_expires_s: u64,
    /// Seconds a client may ask for at most.
    pub command_expires_max_s: u64,
    /// Seconds a session token lives.
    pub session_s: u64,
    /// Tokens remembered. Above it the one nearest to its end is forgotten.
    pub tokens_max: usize,
    /// Seconds over which clients are asked to come back, spread at random, when the node drains;
    /// and how long draining waits for them to be gone.
    pub drain_s: u64,
}

impl Config {
    pub(crate) const fn write_timeout(&self) -> Duration {
        Duration::from_secs(self.write_s)
    }

    pub(crate) const fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.request_s)
    }

    pub(crate) const fn http_lifetime(&self) -> Duration {
        Duration::from_secs(self.http_connection_s)
    }

    pub(crate) const fn drain_timeout(&self) -> Duration {
        Duration::from_secs(self.drain_s)
    }
}
