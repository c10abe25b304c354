//! Names that stand in certificates, parsed once.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::Deserialize;
use thiserror::Error;
use unhidra_core::ids::DeviceId;

/// A SPIFFE trust domain: 1 to 255 bytes of `[a-z0-9._-]`.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq)]
#[serde(try_from = "String")]
pub struct TrustDomain(String);

/// A text that is no [`TrustDomain`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("the trust domain {found:?}; it has 1 to 255 characters of a-z 0-9 . _ -")]
pub struct TrustDomainError {
    /// The text found, cut short.
    pub found: String,
}

impl TrustDomain {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The URI that names a device of it (e2ee/PROTOCOL.md section 1).
    #[must_use]
    pub fn device_uri(&self, device: &DeviceId) -> String {
        format!("spiffe://{}/device/{device}", self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = TrustDomainError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
        if (1..=255).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(TrustDomainError { found: text.chars().take(80).collect() })
        }
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = TrustDomainError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A name a node is dialled by: an address or a host name.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq)]
#[serde(try_from = "String")]
pub enum NodeName {
    /// An address.
    Ip(IpAddr),
    /// A host name: labels of letters, digits and hyphens, at most 253 bytes.
    Dns(String),
}

/// A text that is no [`NodeName`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("the node name {found:?}; it is an IP address or a host name such as node.example")]
pub struct NodeNameError {
    /// The text found, cut short.
    pub found: String,
}

impl FromStr for NodeName {
    type Err = NodeNameError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(ip) = text.parse() {
            return Ok(Self::Ip(ip));
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if text.len() <= 253 && text.split('.').all(label) {
            Ok(Self::Dns(text.to_ascii_lowercase()))
        } else {
            Err(NodeNameError { found: text.chars().take(80).collect() })
        }
    }
}

impl TryFrom<String> for NodeName {
    type Error = NodeNameError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => fmt::Display::fmt(ip, f),
            Self::Dns(name) => f.pad(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trust_domain_is_lower_case_without_slashes() {
        for text in ["unhidra.local", "a", "plant-7_b"] {
            assert!(text.parse::<TrustDomain>().is_ok(), "{text}");
        }
        for text in ["", "Upper", "a/b", "a b", "ä", "a:b", &"a".repeat(256)] {
            assert!(text.parse::<TrustDomain>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_node_name_is_an_address_or_a_host_name() {
        assert_eq!("::1".parse(), Ok(NodeName::Ip(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]))));
        assert_eq!("127.0.0.1".parse(), Ok(NodeName::Ip(IpAddr::from([127, 0, 0, 1]))));
        assert_eq!("Node.Example".parse(), Ok(NodeName::Dns("node.example".into())));
        for text in ["", "a b", "-a", "a-", "a..b", "*.example", "host:8883", &"a".repeat(64)] {
            assert!(text.parse::<NodeName>().is_err(), "{text}");
        }
    }
}
