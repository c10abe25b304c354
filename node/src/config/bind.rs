//! Who may listen where.

use std::net::SocketAddr;

use thiserror::Error;
use unhidra_broker::Listen;
use unhidra_certs::Origin;

use super::{Config, ConfigError};

/// An address nobody may listen on.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum BindError {
    /// Certificates made here prove nothing to another machine.
    #[error(
        "{key} = {address}: without certificates in the configuration the node binds loopback alone; \
         listen on 127.0.0.1 or [::1], or set pki.ca, pki.certificate and pki.key"
    )]
    Generated {
        /// Which key.
        key: &'static str,
        /// What it says.
        address: SocketAddr,
    },
    /// Plain MQTT beyond this machine.
    #[error(
        "broker.tcp.listen = {address}: plain MQTT listens on loopback alone, on 127.0.0.1 or [::1]; \
         set broker.tcp.insecure = true if everybody who reaches it may read and forge"
    )]
    Insecure {
        /// What the key says.
        address: SocketAddr,
    },
    /// Plain MQTT knows nobody.
    #[error(
        "broker.tcp.listen = {address}: clients of plain MQTT have no certificate and no name; \
         set broker.tcp.anonymous = true to let them in, or broker.tcp.listen = \"off\""
    )]
    Anonymous {
        /// What the key says.
        address: SocketAddr,
    },
}

/// Holds every listener to its rule.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    if config.pki.origin()? == Origin::Generated {
        let mqtt = at(config.broker.tls.listen).map(|address| ("broker.tls.listen", address));
        let http = [("gateway.listen", config.gateway.listen), ("admin.listen", config.admin.listen)];
        for (key, address) in mqtt.into_iter().chain(http) {
            generated(key, address)?;
        }
    }
    if let Some(address) = at(config.broker.tcp.listen) {
        plain(address, config.broker.tcp.insecure, config.broker.tcp.anonymous)?;
    }
    Ok(())
}

/// A listener of a node whose certificates it made itself.
fn generated(key: &'static str, address: SocketAddr) -> Result<(), BindError> {
    if is_loopback(address) { Ok(()) } else { Err(BindError::Generated { key, address }) }
}

/// The listener of plain MQTT. It shows no certificate, so `insecure` decides alone.
fn plain(address: SocketAddr, insecure: bool, anonymous: bool) -> Result<(), BindError> {
    match (is_loopback(address) || insecure, anonymous) {
        (false, _) => Err(BindError::Insecure { address }),
        (true, false) => Err(BindError::Anonymous { address }),
        (true, true) => Ok(()),
    }
}

const fn at(listen: Listen) -> Option<SocketAddr> {
    match listen {
        Listen::Off => None,
        Listen::At(address) => Some(address),
    }
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn generated_certificates_serve_this_machine_alone() {
        for here in ["127.0.0.1:8883", "127.9.9.9:0", "[::1]:8883", "[::ffff:127.0.0.1]:8883"] {
            assert_eq!(generated("broker.tls.listen", address(here)), Ok(()), "{here}");
        }
        for out in ["0.0.0.0:8883", "[::]:8883", "192.168.0.7:8883", "[::ffff:10.0.0.1]:1", "0.0.0.0:0"] {
            let refused = generated("broker.tls.listen", address(out)).unwrap_err().to_string();
            assert!(refused.contains("broker.tls.listen") && refused.contains("pki.certificate"), "{refused}");
        }
    }

    #[test]
    fn plain_mqtt_is_local_unless_insecure_and_always_anonymous() {
        let (here, out) = (address("127.0.0.1:1883"), address("0.0.0.0:1883"));
        assert_eq!(plain(here, false, true), Ok(()));
        assert_eq!(plain(out, true, true), Ok(()));
        assert_eq!(plain(here, false, false), Err(BindError::Anonymous { address: here }));
        assert_eq!(plain(out, true, false), Err(BindError::Anonymous { address: out }));
        assert_eq!(plain(out, false, true), Err(BindError::Insecure { address: out }));
        assert_eq!(plain(out, false, false), Err(BindError::Insecure { address: out }));
    }
}
