//! Where the broker meets the rest of the node: traits it calls, values it hands over.

mod admission;
mod entrance;
mod inlet;
mod owner;
mod persist;
mod stream;

use std::future::Future;
use std::pin::Pin;

pub use admission::{Admission, Admitted, Denied, Entrant, Introduction, Proof, UserName};
pub use entrance::{Entrance, Peer};
pub use inlet::{BrokerEvent, Inlet};
pub use owner::Owner;
pub use persist::{Change, NoRoom, Persist, PersistError, PersistTable, Persisted, Records};
pub use stream::{Accepted, Identity, Listener, PeerCertificate, Stream};

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
    /// It did not leave: it is larger than the device said it takes (Maximum Packet Size, section 3.1.2.11.4
    /// [MQTT-3.1.2-24]).
    TooLarge,
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
