//! Where connections come from, and what their listener knows of them.

use std::fmt;
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use unhidra_core::device::Fingerprint;
use unhidra_core::ids::DeviceId;
use unhidra_core::time::UnixTime;

use super::{BoxFuture, Entrance, Peer};
use crate::gate::Pass;
use crate::net::Serial;

/// What the peer's certificate says, after the chain has been verified.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerCertificate {
    /// Its Common Name, which its URI SAN repeats (e2ee/PROTOCOL.md section 1).
    pub device: DeviceId,
    /// The trust domain of its URI SAN.
    pub trust_domain: String,
    /// SHA-256 over its DER.
    pub fingerprint: Fingerprint,
    /// When it, or a certificate it hangs on, ends.
    pub not_after: UnixTime,
    /// It and those it hangs on, as an authority names them when it revokes them.
    pub serials: Arc<[Serial]>,
}

/// Who a stream belongs to, as its listener knows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Identity {
    /// A device, by its certificate.
    Device(PeerCertificate),
    /// Somebody who has shown none.
    Anonymous,
}

impl Identity {
    /// The device its certificate names.
    #[must_use]
    pub const fn device(&self) -> Option<&DeviceId> {
        match self {
            Self::Device(certificate) => Some(&certificate.device),
            Self::Anonymous => None,
        }
    }
}

/// A byte stream of a peer.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// A stream and whose it is.
pub struct Accepted {
    /// The stream, past any handshake.
    pub stream: Box<dyn Stream>,
    /// Whose it is.
    pub identity: Identity,
    /// Where it comes from.
    pub peer: Peer,
    /// Where it came in.
    pub entrance: Arc<Entrance>,
    /// Its way through the gate, kept as long as it lasts; a simulated world has no gate.
    pub pass: Option<Pass>,
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepted")
            .field("identity", &self.identity)
            .field("peer", &self.peer)
            .field("entrance", &self.entrance)
            .finish_non_exhaustive()
    }
}

/// A door that yields streams. That of a port is in `net`; the simulated world has its own.
pub trait Listener: Send + 'static {
    /// The next stream. Handshakes run concurrently behind it: a peer that says nothing holds up
    /// nobody. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Only where the listener itself is finished.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>>;
}
