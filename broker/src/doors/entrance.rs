//! Where a stream came in, and where it comes from.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// The listener a stream came in by, and who may come in there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entrance {
    /// The listener's name in the configuration: `tls`, `tcp`, `ws` or `wss`.
    pub name: &'static str,
    /// Whether clients that prove no name come in.
    pub anonymous: bool,
    /// Whether users come in, by password or token.
    pub users: bool,
}

/// Where a stream comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Peer {
    /// An address: the peer's own, or the one its proxy says.
    At(SocketAddr),
    /// A name in a simulated world.
    Named(Box<str>),
}

impl Peer {
    /// Its address, if it has one.
    #[must_use]
    pub const fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::At(address) => Some(address.ip()),
            Self::Named(_) => None,
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self::At(address)
    }
}

impl From<&str> for Peer {
    fn from(name: &str) -> Self {
        Self::Named(name.into())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(address) => fmt::Display::fmt(address, f),
            Self::Named(name) => f.write_str(name),
        }
    }
}
