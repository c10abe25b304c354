//! As whom this node comes to other brokers.
//!
//! An MQTT broker knows a client by its Client Identifier alone, and ends the older of two connections
//! under one [MQTT-3.1.4-3]. Where two parts of this node come to one broker under one identifier, each
//! would throw out the other, for ever: whatever they are, upstreams or outlets, that is refused.

use std::fmt;
use std::net::IpAddr;

use thiserror::Error;

use super::Config;
use crate::outlets::Kind;

/// A part of the node that comes to another broker, as the configuration names it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Part {
    /// `[[upstream.broker]]` of this name.
    Upstream(String),
    /// `[outlets.NAME]` of this name.
    Outlet(String),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upstream(name) => write!(f, "the upstream {name}"),
            Self::Outlet(name) => write!(f, "the outlet {name}"),
        }
    }
}

/// Two come to one broker under one name.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error(
    "{first} and {second}: both come to {address} with the same Client Identifier ({client_id}), and that broker would \
     end the connection of each for the other; set client_id of one of them to another"
)]
pub struct SameClientError {
    /// The one.
    pub first: Part,
    /// The other.
    pub second: Part,
    /// Where both go, HOST:PORT.
    pub address: String,
    /// What both are called there, in quotes, and whence it is where nobody set it.
    pub client_id: String,
}

/// One that comes to another broker.
struct Client {
    part: Part,
    host: String,
    port: u16,
    identifier: Identifier,
}

/// What it is called there.
#[derive(Clone, Eq, PartialEq)]
enum Identifier {
    /// The node's own, made of its identity key: not known where the configuration is read.
    Own,
    /// This text.
    Text(String),
}

impl Client {
    fn is_same(&self, other: &Self) -> bool {
        self.port == other.port && self.identifier == other.identifier && is_same_host(&self.host, &other.host)
    }
}

/// Whether two names are one host as far as their letters tell. Two names of one machine are not known.
fn is_same_host(one: &str, other: &str) -> bool {
    let address = |host: &str| host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
    match (address(one), address(other)) {
        (Some(one), Some(other)) => one == other,
        // A full name may end in the root's dot.
        _ => one.trim_end_matches('.').eq_ignore_ascii_case(other.trim_end_matches('.')),
    }
}

/// Holds all that come to other brokers to one Client Identifier each at one address. `own` is the node's,
/// where it is known.
///
/// # Errors
///
/// [`SameClientError`] names both.
pub(crate) fn check(config: &Config, own: Option<&str>) -> Result<(), SameClientError> {
    let clients = clients(config, own);
    for (at, first) in clients.iter().enumerate() {
        if let Some(second) = clients.iter().skip(at + 1).find(|second| second.is_same(first)) {
            let host = if first.host.contains(':') { format!("[{}]", first.host) } else { first.host.clone() };
            return Err(SameClientError {
                first: first.part.clone(),
                second: second.part.clone(),
                address: format!("{host}:{}", first.port),
                client_id: match &first.identifier {
                    Identifier::Own => "the node's own, for client_id is empty".to_owned(),
                    Identifier::Text(text) => format!("{text:?}"),
                },
            });
        }
    }
    Ok(())
}

fn clients(config: &Config, own: Option<&str>) -> Vec<Client> {
    let upstreams = config.upstream.iter().map(|upstream| Client {
        part: Part::Upstream(upstream.name.as_str().to_owned()),
        host: upstream.address.host.clone(),
        port: upstream.address.port.get(),
        identifier: match (upstream.client_id.as_str(), own) {
            ("", None) => Identifier::Own,
            ("", Some(own)) => Identifier::Text(own.to_owned()),
            (set, _) => Identifier::Text(set.to_owned()),
        },
    });
    let outlets = config.outlets.iter().filter(|(_, outlet)| outlet.kind == Kind::Mqtt);
    let outlets = outlets.filter_map(|(name, outlet)| {
        // One without an address is refused for that.
        let address = outlet.server().ok()?;
        let identifier = Identifier::Text(outlet.identifier(name));
        Some(Client { part: Part::Outlet(name.clone()), host: address.host, port: address.port?, identifier })
    });
    upstreams.chain(outlets).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Purpose, Sources};

    fn config(parts: &[(&str, &str, &str)]) -> Result<Config, String> {
        let mut set = Vec::new();
        let mut upstreams = Vec::new();
        for (part, address, client_id) in parts {
            match part.strip_prefix("outlet ") {
                Some(name) => set.extend([
                    format!("outlets.{name}.kind=mqtt"),
                    format!("outlets.{name}.url=mqtt://{address}"),
                    format!("outlets.{name}.insecure=true"),
                    format!("outlets.{name}.client_id={client_id}"),
                ]),
                None => upstreams.push(format!(
                    "{{name='{part}',address='{address}',client_id='{client_id}',tls=false,insecure=true}}"
                )),
            }
        }
        set.push(format!("upstream.broker=[{}]", upstreams.join(",")));
        let sources = Sources { purpose: Purpose::Node, file: None, set, data: None, log_format: None };
        sources.load().map(|loaded| loaded.config).map_err(|error| error.to_string())
    }

    /// They would take each other's session over for ever.
    #[test]
    fn two_of_one_address_and_one_client_identifier_are_refused_by_their_names() {
        for (first, second, says) in [
            (("works", "A.example:1", ""), ("harbour", "a.example.:1", ""), "client_id is empty"),
            (("works", "[::1]:1", "n"), ("harbour", "[0:0:0:0:0:0:0:1]:1", "n"), "\"n\""),
            (("works", "[::ffff:10.0.0.1]:1", "n"), ("harbour", "10.0.0.1:1", "n"), "\"n\""),
            (("works", "a.example:1", "n"), ("outlet harbour", "a.example:1", "n"), "\"n\""),
            (("works", "a.example:1", "unhidra-harbour"), ("outlet harbour", "A.example:1", ""), "unhidra-harbour"),
            (("outlet works", "[::1]:1", "n"), ("outlet harbour", "[::1]:1", "n"), "\"n\""),
            (("outlet works", "a:1", ""), ("outlet harbour", "a:1", "unhidra-works"), "unhidra-works"),
        ] {
            let error = config(&[first, second]).unwrap_err();
            for part in ["works", "harbour", ":1", says, "set client_id of one"] {
                assert!(error.contains(part), "{part}: {error}");
            }
            let is_outlet = second.0.starts_with("outlet");
            assert!(error.contains("outlet harbour") || error.contains("upstream harbour") && !is_outlet, "{error}");
        }
        for (first, second) in [
            (("works", "a.example:1", ""), ("harbour", "a.example:2", "")),
            (("works", "a.example:1", ""), ("harbour", "b.example:1", "")),
            (("works", "a.example:1", "n"), ("harbour", "a.example:1", "")),
            (("works", "a.example:1", "n"), ("outlet harbour", "a.example:1", "")),
            (("works", "a.example:1", ""), ("outlet harbour", "a.example:1", "")),
            (("outlet works", "a.example:1", ""), ("outlet harbour", "a.example:1", "")),
            (("outlet works", "a.example:1", "n"), ("outlet harbour", "a.example:2", "n")),
        ] {
            assert!(config(&[first, second]).is_ok(), "{first:?} {second:?}");
        }
    }

    #[test]
    fn an_outlet_that_comes_to_no_broker_takes_nobody_over() {
        let mut config = config(&[("works", "a:1", "n"), ("outlet harbour", "a:1", "m")]).unwrap();
        let outlet = config.outlets.get_mut("harbour").unwrap();
        outlet.client_id = "n".to_owned();
        assert!(check(&config, None).is_err());
        for kind in [Kind::Off, Kind::Local, Kind::Webhook] {
            config.outlets.get_mut("harbour").unwrap().kind = kind;
            assert_eq!(check(&config, None), Ok(()), "{kind:?}");
        }
    }

    /// Once the identity key is known, so is what an empty `client_id` stands for.
    #[test]
    fn the_nodes_own_identifier_is_taken_by_whoever_sets_it() {
        let own = "unhidra-0123456789abcdef";
        for second in [("harbour", "a:1", own), ("outlet harbour", "a:1", own)] {
            let config = config(&[("works", "a:1", ""), second]).unwrap();
            let error = check(&config, Some(own)).unwrap_err().to_string();
            assert!(error.contains("works") && error.contains("harbour") && error.contains(own), "{error}");
            assert_eq!(check(&config, Some("unhidra-another")), Ok(()));
        }
    }
}
