//! Where the broker meets the rest of the node: traits it calls, values it hands over.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use unhidra_core::delivery::{Delivery, DownlinkRow};
use unhidra_core::device::Fingerprint;
use unhidra_core::ids::DeviceId;

/// A future without a name, so that the traits can be trait objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One life of one connection, never given twice in a process.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnectionId(pub u64);

/// Names one [`Broker::publish`](crate::Broker::publish), by the caller's choice.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ticket(pub u64);

/// What became of a publish to a device.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Outcome {
    /// The device sent PUBACK with a success code.
    Delivered,
    /// The device sent PUBACK with this reason code, 0x80 or above.
    Refused(u8),
    /// The connection ended, or the device unsubscribed, before its PUBACK. The broker does not
    /// keep the message: whoever published it seals it anew when the device is there.
    Lost,
}

/// What the broker tells the bridge, in order for each device.
#[derive(Debug)]
pub enum BrokerEvent {
    /// A device published on one of its rows.
    Delivery(Delivery),
    /// A device's connection was admitted. The connection it takes over, if there is one, has had
    /// its `Disconnected` before.
    Connected {
        /// Who.
        device: DeviceId,
        /// Its connection.
        connection: ConnectionId,
    },
    /// A device listens on one of its rows from now on, by SUBSCRIBE or by a resumed session.
    Listening {
        /// Who.
        device: DeviceId,
        /// Its connection.
        connection: ConnectionId,
        /// On which row.
        row: DownlinkRow,
    },
    /// A device's connection ended.
    Disconnected {
        /// Who.
        device: DeviceId,
        /// Its connection.
        connection: ConnectionId,
    },
    /// What became of a publish.
    Published {
        /// To whom.
        device: DeviceId,
        /// Which.
        ticket: Ticket,
        /// What.
        outcome: Outcome,
    },
}

impl BrokerEvent {
    /// Whose event it is; a device's events keep their order.
    #[must_use]
    pub const fn device(&self) -> &DeviceId {
        match self {
            Self::Delivery(delivery) => &delivery.device,
            Self::Connected { device, .. }
            | Self::Listening { device, .. }
            | Self::Disconnected { device, .. }
            | Self::Published { device, .. } => device,
        }
    }
}

/// Where the broker's events go.
pub trait Inlet: Send + Sync + 'static {
    /// Takes the events of one connection, in order.
    ///
    /// # Errors
    ///
    /// Gives back what did not fit, in order. The connection stops reading its socket, waits for
    /// [`Inlet::room`] and offers again; it goes on answering PINGREQ from what it has read.
    fn offer(&self, events: Vec<BrokerEvent>) -> Result<(), Vec<BrokerEvent>>;

    /// Completes when an event of `device` may fit again.
    fn room(&self, device: &DeviceId) -> BoxFuture<'_, ()>;
}

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

/// Who may connect.
pub trait Admission: Send + Sync + 'static {
    /// Asked once for each CONNECT, before its CONNACK. Answers from memory.
    ///
    /// # Errors
    ///
    /// [`Denied`] says why not.
    fn admit(&self, identity: &Identity) -> Result<Admitted, Denied>;
}

/// What an admitted client may do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Admitted {
    /// A device: its own rows (e2ee/PROTOCOL.md section 2).
    Device(DeviceId),
    /// A plain client: every topic outside `{p}/` and `$`.
    Plain,
}

/// Why a client may not connect. CONNACK 0x87; in 3.1.1 return code 5.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Denied {
    /// The registry does not hold the device.
    NotEnrolled,
    /// It was revoked.
    Revoked,
    /// It is enrolled with another certificate.
    OtherCertificate,
    /// Its certificate is of another trust domain.
    OtherTrustDomain,
    /// Nobody comes in without a certificate here.
    AnonymousForbidden,
}

/// Why a publish to a device was not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NotPublished {
    /// It has no connection, or another one than was meant.
    NotConnected,
    /// It has not subscribed to the row.
    NotListening,
    /// As many messages wait for it as may.
    Full,
}
