//! Who may listen where.

use std::net::SocketAddr;

use thiserror::Error;
use unhidra_broker::{Listen, ListenerConfig};
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
        "broker.{name}.listen = {address}: plain MQTT listens on loopback alone, on 127.0.0.1 or [::1]; \
         set broker.{name}.insecure = true if everybody who reaches it may read and forge"
    )]
    Insecure {
        /// Which listener.
        name: &'static str,
        /// What its key says.
        address: SocketAddr,
    },
    /// Nobody can come in there.
    #[error(
        "broker.{name}.listen = {listen}: nobody can come in there; let users in with broker.{name}.users = true, \
         or everybody with broker.{name}.anonymous = true, or set broker.{name}.listen = \"off\""
    )]
    Nobody {
        /// Which listener.
        name: &'static str,
        /// What its key says.
        listen: Listen,
    },
}

/// Holds every listener to its rule.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    let broker = &config.broker;
    if config.pki.origin()? == Origin::Generated {
        let tls = broker.tls.listen.addresses().iter().map(|address| ("broker.tls.listen", *address));
        let wss = broker.wss.listen.addresses().iter().map(|address| ("broker.wss.listen", *address));
        let http = [("gateway.listen", config.gateway.listen), ("admin.listen", config.admin.listen)];
        for (key, address) in tls.chain(wss).chain(http) {
            generated(key, address)?;
        }
    }
    plain("tcp", &broker.tcp)?;
    plain("ws", &broker.ws)?;
    for (name, listener) in [("tls", &broker.tls), ("tcp", &broker.tcp), ("ws", &broker.ws), ("wss", &broker.wss)] {
        somebody(name, listener)?;
    }
    Ok(())
}

/// A listener of a node whose certificates it made itself.
fn generated(key: &'static str, address: SocketAddr) -> Result<(), BindError> {
    if is_loopback(address) { Ok(()) } else { Err(BindError::Generated { key, address }) }
}

/// A listener without TLS. It shows no certificate, so `insecure` decides alone.
fn plain(name: &'static str, listener: &ListenerConfig) -> Result<(), BindError> {
    let outside = listener.listen.addresses().iter().find(|address| !is_loopback(**address));
    match outside {
        Some(address) if !listener.insecure => Err(BindError::Insecure { name, address: *address }),
        _ => Ok(()),
    }
}

fn somebody(name: &'static str, listener: &ListenerConfig) -> Result<(), BindError> {
    if listener.listen.addresses().is_empty() || listener.lets_somebody_in() {
        return Ok(());
    }
    Err(BindError::Nobody { name, listen: listener.listen.clone() })
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    use unhidra_broker::ClientCertificate;

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

    fn listener(listen: &str, insecure: bool, anonymous: bool, users: bool) -> ListenerConfig {
        let client_certificate = ClientCertificate::None;
        let (listen, proxy_from, origins) = (listen.parse().unwrap(), Vec::new(), Vec::new());
        ListenerConfig {
            listen,
            client_certificate,
            resumption: false,
            insecure,
            anonymous,
            users,
            proxy_from,
            origins,
            connections_max: 1,
        }
    }

    #[test]
    fn plain_mqtt_is_local_unless_insecure() {
        assert_eq!(plain("tcp", &listener("127.0.0.1:1883, [::1]:1883", false, true, true)), Ok(()));
        assert_eq!(plain("tcp", &listener("off", false, true, true)), Ok(()));
        assert_eq!(plain("tcp", &listener("0.0.0.0:1883", true, true, true)), Ok(()));
        let refused = BindError::Insecure { name: "tcp", address: address("[::]:1883") };
        assert_eq!(plain("tcp", &listener("127.0.0.1:1883, [::]:1883", false, true, true)), Err(refused));
    }

    #[test]
    fn a_listener_that_lets_nobody_in_is_refused() {
        let here = "127.0.0.1:1883";
        assert_eq!(somebody("tcp", &listener(here, false, false, true)), Ok(()));
        assert_eq!(somebody("tcp", &listener(here, false, true, false)), Ok(()));
        assert_eq!(somebody("tcp", &listener("off", false, false, false)), Ok(()));
        let nobody = listener(here, false, false, false);
        let refused = somebody("tcp", &nobody).unwrap_err().to_string();
        assert!(refused.contains("broker.tcp.users = true") && refused.contains(here), "{refused}");
        let devices = ListenerConfig { client_certificate: ClientCertificate::Required, ..nobody };
        assert_eq!(somebody("tls", &devices), Ok(()));
    }
}
