//! The table of what a stranger can take before it has said who it is.

use std::time::Duration;

use serde::Deserialize;

/// The table `[broker.gate]`: bounds on strangers. A rate, a count or a size of 0 is no bound.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateConfig {
    /// Connections of one address; of IPv6, of one network of 64 bits. A further one is closed.
    pub connections_per_address: u32,
    /// Connections a second that one address may open, and at once after a pause. What is over is
    /// closed.
    pub connects_per_address_s: u32,
    /// Handshakes (TLS, WebSocket) of one address a second that may fail or stop. While more do, its
    /// connections are closed before they cost a handshake.
    pub handshake_failures_per_address_s: u32,
    /// Connections a second in all, likewise.
    pub connects_s: u32,
    /// Addresses that are remembered. At the bound those that have no connection and have not
    /// come lately are forgotten; without one, a new address is held to the bounds in all alone.
    pub addresses_max: usize,
    /// Connections that may wait only to be told why they may not come in: there are too many, or
    /// the node has too much to do, or it ends. A further one is closed without a word.
    pub antechamber_max: usize,
    /// How long a new connection may wait for its turn to run before newcomers are refused.
    pub lag_max_ms: u64,
    /// Memory of the whole process from which on newcomers are refused.
    pub memory_max_bytes: u64,
    /// Threads that handshakes compute on, for each core, below all others. Further handshakes wait
    /// for one.
    pub handshakes_per_core: usize,
    /// How many connections of a listener may be in their handshake. At the bound no more are
    /// accepted: they wait in the kernel's queue.
    pub handshakes_max: usize,
    /// How long all handshakes of a connection may take together, from the accepted connection on.
    pub handshake_timeout_s: u64,
}

impl GateConfig {
    pub(crate) const fn handshake_timeout(&self) -> Duration {
        Duration::from_secs(self.handshake_timeout_s)
    }
}
