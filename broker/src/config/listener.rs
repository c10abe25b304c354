//! The tables of the listeners: where each listens, and who may come in there.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::Error as _;
use thiserror::Error;

use crate::doors::Entrance;

/// One of the tables `[broker.tls]` and `[broker.tcp]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerConfig {
    /// Where it listens.
    pub listen: Listen,
    /// What it asks of its peers' certificates; a listener without TLS has no such key.
    #[serde(default)]
    pub client_certificate: ClientCertificate,
    /// Whether it may listen elsewhere than on loopback; a listener with TLS has no such key.
    #[serde(default)]
    pub insecure: bool,
    /// Whether clients that prove no name come in.
    pub anonymous: bool,
    /// Whether users come in, by password or token.
    pub users: bool,
    /// Connections of this listener. At the bound a new one is closed at once.
    pub connections_max: usize,
}

impl ListenerConfig {
    /// What is known of whoever comes in here.
    #[must_use]
    pub fn entrance(&self, name: &'static str) -> Entrance {
        Entrance { name, anonymous: self.anonymous, users: self.users }
    }

    /// Whether anybody can come in at all.
    #[must_use]
    pub fn lets_somebody_in(&self) -> bool {
        self.anonymous || self.users || self.client_certificate != ClientCertificate::None
    }
}

/// Whether a listener asks for a certificate.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificate {
    /// It asks for none.
    #[default]
    None,
    /// It asks for one; who shows none may come in by another proof.
    Optional,
    /// Who shows none does not come in.
    Required,
}

/// Where a listener listens: nowhere, at one address, or at several. Port 0 lets the system choose.
///
/// An IPv6 address takes IPv6 alone, so that `0.0.0.0:1883, [::]:1883` is both.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Listen(Vec<SocketAddr>);

/// How many addresses one listener may have.
const ADDRESSES_MAX: usize = 16;

/// A text that is no [`Listen`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error(
    "the address {found:?}; allowed are an IP address with a port, such as 127.0.0.1:8883 or [::1]:8883, up to \
     {ADDRESSES_MAX} of them with commas between, and off"
)]
pub struct ListenError {
    /// The text found.
    pub found: String,
}

impl Listen {
    /// The addresses. None: it is off.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.0
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self(vec![address])
    }
}

impl FromStr for Listen {
    type Err = ListenError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self::default());
        }
        let error = |_| ListenError { found: text.to_owned() };
        let addresses: Vec<_> =
            text.split(',').map(|one| one.trim().parse()).collect::<Result<_, _>>().map_err(error)?;
        if addresses.len() > ADDRESSES_MAX {
            return Err(ListenError { found: text.to_owned() });
        }
        Ok(Self(addresses))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, address) in self.0.iter().enumerate() {
            write!(f, "{}{address}", if at == 0 { "" } else { ", " })?;
        }
        if self.0.is_empty() { f.write_str("off") } else { Ok(()) }
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_off_or_at_addresses() {
        let address = |text: &str| text.parse().expect("an address");
        assert_eq!("off".parse(), Ok(Listen(vec![])));
        assert_eq!("[::1]:0".parse(), Ok(Listen(vec![address("[::1]:0")])));
        let both = Listen(vec![address("0.0.0.0:1883"), address("[::]:1883")]);
        assert_eq!("0.0.0.0:1883, [::]:1883".parse(), Ok(both.clone()));
        assert_eq!(both.to_string().parse(), Ok(both));
        assert_eq!(Listen::default().to_string(), "off");
        let many = ["127.0.0.1:1"; ADDRESSES_MAX + 1].join(",");
        for text in ["", "localhost:1", "127.0.0.1", "8883", "OFF", "off,127.0.0.1:1", "127.0.0.1:1,", &many] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }
}
