//! What an operator may set about outside brokers. The defaults stand in `default.toml`.

use std::fmt;
use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;
use toml::{Table, Value};
use unhidra_broker::Prefix;
use unhidra_core::backoff::BackoffBounds;
use unhidra_core::breaker::BreakerOptions;

/// The key of the list of brokers in `[upstream]`.
pub(crate) const LIST: &str = "broker";

/// The keys of one broker that name files.
pub(crate) const PATHS: [&str; 4] = ["ca", "certificate", "key", "password_file"];

/// The most outside brokers one node speaks to.
pub(super) const UPSTREAMS_MAX: usize = 64;

/// One outside broker: the keys of `[upstream]` and over them those of one `[[upstream.broker]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamConfig {
    /// What it is called here.
    pub name: UpstreamName,
    /// Where it listens, HOST:PORT.
    pub address: Address,
    /// What it speaks.
    pub version: Version,
    /// Whether in TLS.
    pub tls: bool,
    /// Whether it may be spoken to in the clear elsewhere than on this machine.
    pub insecure: bool,
    /// The authorities its certificate may stand under (PEM).
    pub ca: PathBuf,
    /// The node's certificate for it (PEM); empty: none.
    pub certificate: PathBuf,
    /// The certificate's key (PEM, mode 0600).
    pub key: PathBuf,
    /// The node's User Name there; empty: none.
    pub user: String,
    /// The file of its password (mode 0600); empty: none.
    pub password_file: PathBuf,
    /// The node's Client Identifier there; empty: made from its identity key.
    pub client_id: String,
    /// What the devices' topics begin with there; empty: as in `broker.prefix`.
    pub prefix: String,
    /// How long that broker is to keep what comes while the node is away, in s.
    pub session_expiry_s: u32,
    /// Keep Alive, in s.
    pub keep_alive_s: NonZeroU16,
    /// How long a connection may take until that broker has let the node in, in s, 1 to an hour.
    pub connect_timeout_s: u64,
    /// Messages of that broker that may wait for their answer.
    pub receive_max: NonZeroU16,
    /// The largest packet of that broker, in bytes.
    pub packet_bytes_max: NonZeroU32,
    /// Messages for devices behind that broker that may wait, or be without its PUBACK: at most as many as
    /// MQTT has identifiers.
    pub downlinks_max: NonZeroUsize,
    /// How long a device counts as there after it was heard, in s, 1 to a year.
    pub silent_s: u64,
    /// The longest wait after the first failure, in ms, 1 to an hour.
    pub backoff_base_ms: u64,
    /// The longest wait of all, in s, 1 to a day.
    pub backoff_cap_s: u64,
    /// Failures in a row after which that broker is left alone.
    pub breaker_failures: NonZeroU32,
    /// For how long, in s, 1 to a day.
    pub breaker_rest_s: u64,
}

impl UpstreamConfig {
    /// The numbers that no type bounds, and the most each may be; the least is 1.
    const fn numbers(&self) -> [(&'static str, u64, u64); 6] {
        const HOUR_S: u64 = 60 * 60;
        const DAY_S: u64 = 24 * HOUR_S;
        [
            ("connect_timeout_s", self.connect_timeout_s, HOUR_S),
            ("downlinks_max", self.downlinks_max.get() as u64, u16::MAX as u64),
            ("silent_s", self.silent_s, 365 * DAY_S),
            ("backoff_base_ms", self.backoff_base_ms, HOUR_S * 1000),
            ("backoff_cap_s", self.backoff_cap_s, DAY_S),
            ("breaker_rest_s", self.breaker_rest_s, DAY_S),
        ]
    }

    /// The bounds of the wait between two connections.
    #[must_use]
    pub const fn backoff(&self) -> BackoffBounds {
        BackoffBounds {
            base: Duration::from_millis(self.backoff_base_ms),
            cap: Duration::from_secs(self.backoff_cap_s),
        }
    }

    /// When it is left alone.
    #[must_use]
    pub const fn breaker(&self) -> BreakerOptions {
        BreakerOptions { failures: self.breaker_failures, rest: Duration::from_secs(self.breaker_rest_s) }
    }
}

/// What an outside broker speaks.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
pub enum Version {
    /// MQTT 5.0.
    #[serde(rename = "5.0")]
    V5,
    /// MQTT 3.1.1.
    #[serde(rename = "3.1.1")]
    V311,
}

/// The name of an outside broker: 1 to 32 of a-z, 0-9 and -.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(try_from = "String")]
pub struct UpstreamName(String);

/// A text that is no [`UpstreamName`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{found:?} is no name of an outside broker: 1 to 32 of a-z, 0-9 and -")]
pub struct UpstreamNameError {
    found: String,
}

impl UpstreamName {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for UpstreamName {
    type Error = UpstreamNameError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let fits = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if fits && (1..=32).contains(&text.len()) {
            Ok(Self(text))
        } else {
            Err(UpstreamNameError { found: text.chars().take(64).collect() })
        }
    }
}

impl fmt::Display for UpstreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where an outside broker listens.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct Address {
    /// A name, or an address without brackets.
    pub host: String,
    /// The port.
    pub port: NonZeroU16,
}

/// A text that is no [`Address`]. It is not told: whoever writes it as a URL may write a password in it.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error(
    "an address has the form HOST:PORT, as in broker.example.org:8883 or [::1]:1883, and holds no user and no \
     password: they stand under user and password_file"
)]
pub struct AddressError;

impl Address {
    /// Whether nobody but this machine is on the way.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
    }
}

impl FromStr for Address {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let none = || AddressError;
        let (host, port) = text.rsplit_once(':').ok_or_else(none)?;
        let port = port.parse().map_err(|_| none())?;
        let host = match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
            Some(Some(inside)) => inside,
            Some(None) => return Err(none()),
            None if host.contains(':') => return Err(none()),
            None => host,
        };
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || matches!(c, '@' | '/' | '?')) {
            return Err(none());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What is wrong about an outside broker beyond what one key says.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum UpstreamError {
    /// There are too many.
    #[error("{found} outside brokers in [[upstream.broker]]; at most {UPSTREAMS_MAX} are allowed")]
    TooMany {
        /// How many there are.
        found: usize,
    },
    /// Two have one name.
    #[error("two outside brokers are called {name}; give one of them another name")]
    Twice {
        /// The name.
        name: UpstreamName,
    },
    /// Whoever is on the way would read who speaks when, and could forge what this node acknowledges.
    #[error(
        "upstream {name}: {address} would be spoken to in the clear; set tls = true, or insecure = true if \
         everybody on the way may see and disturb it"
    )]
    Insecure {
        /// Which.
        name: UpstreamName,
        /// Where it is.
        address: Address,
    },
    /// Nothing says whose certificate is good.
    #[error("upstream {name}: tls = true needs ca, the file of the authorities its certificate may stand under")]
    NoAuthority {
        /// Which.
        name: UpstreamName,
    },
    /// One without the other.
    #[error("upstream {name}: certificate and key go together; set both or neither")]
    HalfAKey {
        /// Which.
        name: UpstreamName,
    },
    /// A number out of its bounds.
    #[error("upstream {name}: {key} = {found}; 1 to {max} are allowed")]
    Number {
        /// Which.
        name: UpstreamName,
        /// Its key.
        key: &'static str,
        /// What it says.
        found: u64,
        /// The most it may say.
        max: u64,
    },
    /// A prefix that is none.
    #[error("upstream {name}: prefix = {found:?} is no prefix of topics")]
    Prefix {
        /// Which.
        name: UpstreamName,
        /// What it says.
        found: String,
    },
}

/// Holds outside brokers to what no type can say.
///
/// # Errors
///
/// [`UpstreamError`] names the broker and what to set.
pub fn check(upstreams: &[UpstreamConfig]) -> Result<(), UpstreamError> {
    if upstreams.len() > UPSTREAMS_MAX {
        return Err(UpstreamError::TooMany { found: upstreams.len() });
    }
    for (at, upstream) in upstreams.iter().enumerate() {
        let name = upstream.name.clone();
        if upstreams.iter().skip(at + 1).any(|other| other.name == name) {
            return Err(UpstreamError::Twice { name });
        }
        if !upstream.tls && !upstream.insecure && !upstream.address.is_loopback() {
            return Err(UpstreamError::Insecure { name, address: upstream.address.clone() });
        }
        if upstream.tls && upstream.ca.as_os_str().is_empty() {
            return Err(UpstreamError::NoAuthority { name });
        }
        if upstream.certificate.as_os_str().is_empty() != upstream.key.as_os_str().is_empty() {
            return Err(UpstreamError::HalfAKey { name });
        }
        if let Some((key, found, max)) = upstream.numbers().into_iter().find(|(_, n, max)| !(1..=*max).contains(n)) {
            return Err(UpstreamError::Number { name, key, found, max });
        }
        if !upstream.prefix.is_empty() && upstream.prefix.parse::<Prefix>().is_err() {
            return Err(UpstreamError::Prefix { name, found: upstream.prefix.clone() });
        }
    }
    Ok(())
}

/// Lays each broker of `[upstream]` over the keys that hold for all of them: what was a table of
/// defaults with a list in it becomes a list.
pub(crate) fn expand(table: &mut Table) {
    let Some(Value::Table(common)) = table.get_mut("upstream") else { return };
    let listed = match common.remove(LIST) {
        Some(Value::Array(listed)) => listed,
        _ => Vec::new(),
    };
    let over = |one: Value| match one {
        Value::Table(one) => {
            let mut whole = common.clone();
            whole.extend(one);
            Value::Table(whole)
        }
        other => other,
    };
    let whole = listed.into_iter().map(over).collect();
    table.insert("upstream".to_owned(), Value::Array(whole));
}

/// Where a value is written that stands at `path` of what [`expand`] made: in the table of one broker, or,
/// where that leaves it out, in that of all of them.
pub(crate) fn written(table: &Table, path: String) -> String {
    let Some((index, key)) = path.strip_prefix("upstream[").and_then(|rest| rest.split_once(']')) else { return path };
    let common = table.get("upstream").and_then(Value::as_table);
    let listed = common.and_then(|common| common.get(LIST)).and_then(Value::as_array);
    let one = index.parse().ok().and_then(|index: usize| listed?.get(index)?.as_table());
    let name = key.trim_start_matches('.').split(['.', '[']).next().unwrap_or_default();
    let is_in = |table: Option<&Table>| table.is_some_and(|table| table.contains_key(name));
    if is_in(common) && !is_in(one) { format!("upstream{key}") } else { format!("upstream.{LIST}[{index}]{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<UpstreamConfig>, String> {
        let mut table: Table = crate::config::DEFAULT.parse().unwrap();
        let own: Table = text.parse().unwrap();
        let Some(Value::Table(common)) = table.get_mut("upstream") else { panic!("[upstream] has defaults") };
        common.extend(own);
        expand(&mut table);
        let read: Result<Vec<UpstreamConfig>, _> = table.remove("upstream").unwrap().try_into();
        let read = read.map_err(|error| error.to_string())?;
        check(&read).map_err(|error| error.to_string())?;
        Ok(read)
    }

    #[test]
    fn a_broker_has_the_keys_of_all_and_its_own_over_them() {
        let text = "keep_alive_s = 7\n[[broker]]\nname = 'a'\naddress = 'localhost:1'\ntls = false\n\
                    [[broker]]\nname = 'b'\naddress = '[::1]:2'\ntls = false\nkeep_alive_s = 9\nversion = '3.1.1'";
        let read = read(text).unwrap();
        assert_eq!(read.iter().map(|one| one.keep_alive_s.get()).collect::<Vec<_>>(), [7, 9]);
        assert_eq!(read.iter().map(|one| one.version).collect::<Vec<_>>(), [Version::V5, Version::V311]);
        assert_eq!(read[1].address.to_string(), "[::1]:2");
        assert_eq!(super::tests::read("").unwrap().len(), 0, "there is none by default");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let one = |more: &str| read(&format!("[[broker]]\nname = 'a'\n{more}")).map(|_| ()).unwrap_err();
        for (more, says) in [
            ("address = 'example.org:1883'\ntls = false", "insecure = true"),
            ("address = 'example.org:8883'", "needs ca"),
            ("address = 'localhost:1'\ntls = false\ncertificate = 'x'", "go together"),
            ("address = 'localhost:1'\ntls = false\nprefix = 'a/#'", "no prefix"),
            ("address = 'localhost'", "HOST:PORT"),
            ("address = '::1:8883'", "HOST:PORT"),
            ("address = 'localhost:1'\nvelocity = 3", "velocity"),
            ("address = 'localhost:1'\nversion = '4'", "3.1.1"),
            ("address = 'localhost:1'\ntls = false\nsilent_s = 0", "silent_s = 0; 1 to 31536000"),
            ("address = 'localhost:1'\ntls = false\nbackoff_base_ms = 0", "backoff_base_ms = 0"),
            ("address = 'localhost:1'\ntls = false\nbreaker_rest_s = 86401", "1 to 86400"),
            ("address = 'localhost:1'\ntls = false\ndownlinks_max = 65536", "1 to 65535"),
        ] {
            assert!(one(more).contains(says), "{more}: {}", one(more));
        }
        let twice = "[[broker]]\nname = 'a'\naddress = 'localhost:1'\ntls = false\n\
                     [[broker]]\nname = 'a'\naddress = 'localhost:2'\ntls = false";
        assert!(read(twice).unwrap_err().contains("two outside brokers"));
        assert!(read("[[broker]]\nname = 'A B'\naddress = 'localhost:1'").unwrap_err().contains("a-z"));
    }
}
