//! Who was turned away, and why: counted each time, said in the log once a second at most.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tracing::warn;
use unhidra_core::time::Timestamp;

/// How long one reason is not said again. Whoever floods the door must not flood the log.
const QUIET: Duration = Duration::from_secs(1);

/// Why a connection is turned away before its CONNECT is looked at.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
pub(crate) enum Refusal {
    /// Its address has as many connections as it may.
    AddressFull,
    /// Its address comes too fast.
    AddressRate,
    /// Too many handshakes of its address fail.
    AddressFailures,
    /// All together come too fast.
    Rate,
    /// Its listener has as many connections as it may.
    ListenerFull,
    /// There are as many connections as may be.
    ConnectionsFull,
    /// Its proxy does not say who it is, or is none that may.
    Proxy,
    /// Its request opens no WebSocket.
    WebSocket,
    /// Its handshake took too long.
    HandshakeTimeout,
    /// Its TLS handshake failed.
    Tls,
    /// Its certificate names nobody, or has ended.
    Certificate,
    /// The node has too much to do.
    Overload,
    /// The node ends.
    Draining,
}

const KINDS: usize = 13;

impl Refusal {
    const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AddressFull => "its address has as many connections as it may",
            Self::AddressRate => "its address connects too often",
            Self::AddressFailures => "too many handshakes of its address fail",
            Self::Rate => "there are too many new connections at once",
            Self::ListenerFull => "the listener has as many connections as it may",
            Self::ConnectionsFull => "there are as many connections as may be",
            Self::Proxy => "no proxy that may says who it is",
            Self::WebSocket => "its request opens no WebSocket",
            Self::HandshakeTimeout => "its handshake took too long",
            Self::Tls => "its TLS handshake failed",
            Self::Certificate => "its certificate does not let it in",
            Self::Overload => "the node has too much to do",
            Self::Draining => "the node ends",
        })
    }
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Labels {
    reason: Refusal,
}

/// The counts, and when each reason was last said.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    counts: Family<Labels, Counter>,
    said: Mutex<[Said; KINDS]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Said {
    at: Option<Timestamp>,
    /// How many came since, and were not said.
    untold: u64,
}

impl Refusals {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("broker_refusals", "Connections turned away before CONNECT, by reason", self.counts.clone());
    }

    pub(super) fn refuse(&self, reason: Refusal, peer: &dyn fmt::Display, detail: &dyn fmt::Display, now: Timestamp) {
        self.counts.get_or_create(&Labels { reason }).inc();
        if let Some(untold) = self.untold(reason, now) {
            warn!(%peer, %reason, %detail, untold, "connection refused");
        }
    }

    /// How many were not told since the last time, if it is time to tell.
    fn untold(&self, reason: Refusal, now: Timestamp) -> Option<u64> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let said = said.get_mut(reason.index())?;
        if said.at.is_some_and(|at| now < at.saturating_add(QUIET)) {
            said.untold += 1;
            return None;
        }
        said.at = Some(now);
        Some(std::mem::take(&mut said.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_said_once_a_second_with_how_many_were_not() {
        let refusals = Refusals::default();
        let at = |ms| Timestamp::ZERO.saturating_add(Duration::from_millis(ms));
        assert_eq!(refusals.untold(Refusal::Rate, at(0)), Some(0));
        assert_eq!(refusals.untold(Refusal::Rate, at(1)), None);
        assert_eq!(refusals.untold(Refusal::Rate, at(999)), None);
        assert_eq!(refusals.untold(Refusal::Certificate, at(999)), Some(0), "each reason for itself");
        assert_eq!(refusals.untold(Refusal::Rate, at(1000)), Some(2));
        assert_eq!(refusals.untold(Refusal::Rate, at(2000)), Some(0));
    }
}
