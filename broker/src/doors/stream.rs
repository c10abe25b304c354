//! Where connections come from, and what their listener knows of them.

use std::fmt;
use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use unhidra_core::device::Fingerprint;
use unhidra_core::ids::DeviceId;

use super::BoxFuture;

/// What the peer's certificate says, after the chain has been verified.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerCertificate {
    /// Its Common Name, which its URI SAN repeats (e2ee/PROTOCOL.md section 1).
    pub device: DeviceId,
    /// The trust domain of its URI SAN.
    pub trust_domain: String,
    /// SHA-256 over its DER.
    pub fingerprint: Fingerprint,
}

/// Who a stream belongs to, as its listener knows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Identity {
    /// A device, by its certificate.
    Device(PeerCertificate),
    /// Anybody, on the plain listener.
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
    /// Where it comes from, for logs: an address, or a name in a simulated world.
    pub peer: String,
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepted").field("identity", &self.identity).field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// A door that yields streams. TCP and TLS are in `net`; the simulated world has its own.
pub trait Listener: Send + 'static {
    /// The next stream. Handshakes run concurrently behind it: a peer that says nothing holds up
    /// nobody. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Only where the listener itself is finished.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>>;
}
