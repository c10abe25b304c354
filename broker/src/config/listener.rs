//! The tables of the listeners: where each listens, and who may come in there.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::Deserialize;
use serde::de::Error as _;
use thiserror::Error;

use crate::doors::Entrance;

/// One of the tables `[broker.tls]`, `[broker.tcp]`, `[broker.ws]` and `[broker.wss]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerConfig {
    /// Where it listens.
    pub listen: Listen,
    /// What it asks of its peers' certificates; a listener without TLS has no such key.
    #[serde(default)]
    pub client_certificate: ClientCertificate,
    /// Whether who comes back may resume its TLS session; a listener without TLS has no such key.
    #[serde(default)]
    pub resumption: bool,
    /// Whether it may listen elsewhere than on loopback; a listener with TLS has no such key.
    #[serde(default)]
    pub insecure: bool,
    /// Whether clients that prove no name come in.
    pub anonymous: bool,
    /// Whether users come in, by password or token.
    pub users: bool,
    /// The load balancers before it: whoever connects comes from one of these networks and begins
    /// with a PROXY header of version 2, which says who it is. Empty: no header, from anywhere.
    pub proxy_from: Vec<Network>,
    /// The origins whose pages may connect, or `*`; a listener without WebSocket has no such key.
    #[serde(default)]
    pub origins: Vec<String>,
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

/// A network: an address, and how many of its first bits count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

/// A text that is no [`Network`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("the network {found:?}; allowed are an IP address, such as 10.0.0.7, and a network, such as 10.0.0.0/8")]
pub struct NetworkError {
    /// The text found.
    pub found: String,
}

impl Network {
    /// Whether an address is in it. An IPv4 address mapped into IPv6 is itself.
    #[must_use]
    pub fn holds(&self, address: IpAddr) -> bool {
        let differ = |a: u128, b: u128, len: u32| (a ^ b).checked_shr(len - self.bits).is_some_and(|rest| rest != 0);
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                !differ(u32::from(network).into(), u32::from(address).into(), 32)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => !differ(network.into(), address.into(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || NetworkError { found: text.to_owned() };
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let max = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(max), str::parse).map_err(|_| error())?;
        if bits > max { Err(error()) } else { Ok(Self { address, bits }) }
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_the_addresses_that_begin_as_it_does() {
        for (network, address, holds) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.7", "10.0.0.7", true),
            ("10.0.0.7", "10.0.0.6", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::1/128", "::1", true),
        ] {
            let found = network.parse::<Network>().expect("a network").holds(address.parse().expect("an address"));
            assert_eq!(found, holds, "{address} in {network}");
        }
        for text in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/", "10.0.0.0/-1", "localhost"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

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
