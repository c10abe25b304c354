//! MQTT 3.1.1 and 5.0: codec, sessions, access control, routing, listeners.
//!
//! The broker carries ciphertext and knows it: what a device publishes on its own rows leaves
//! through the [`Inlet`], what the node tells a device comes in through [`Broker::publish`], and
//! everything else is routed between clients.

mod doors;
pub mod packet;

pub use doors::{
    Accepted, Admission, Admitted, BrokerEvent, ConnectionId, Denied, Identity, Inlet, Listener, NotPublished, Outcome,
    PeerCertificate, Stream, Ticket,
};
