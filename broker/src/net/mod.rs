//! Streams, tasks and time: the shell around the broker's cores.

mod certificate;
pub(crate) mod connection;
mod decide;
mod ending;
pub(crate) mod facts;
mod farewell;
mod handshakes;
mod hold;
mod kick;
pub(crate) mod live;
pub(crate) mod mailbox;
mod output;
mod pace;
mod port;
mod proxy;
mod report;
mod revoked;
mod showing;
#[cfg(test)]
mod size;
mod tcp;
mod tls;
mod websocket;
mod wire;

pub use certificate::CertificateError;
pub use handshakes::HandshakeThreads;
pub use port::{Layers, PortListener};
pub use revoked::{Revoked, Serial};
pub use showing::Showing;
pub use tls::TlsOffer;
