//! The table `[outlets.NAME]`: what one outlet is.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;
use serde::Deserialize;
use unhidra_core::backoff::BackoffBounds;
use unhidra_core::breaker::BreakerOptions;

use super::template::Template;

/// The longest wait after the first failure; it doubles with each further one.
const RETRY_BASE: Duration = Duration::from_millis(500);

/// One outlet, as it is configured.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where readings go.
    pub kind: Kind,
    /// Where it begins when it is new.
    pub from: Beginning,
    /// Which rows, by what they are.
    pub kinds: Vec<RowKind>,
    /// Which devices; one that ends in `*` stands for all that begin so. Empty: all.
    pub devices: Vec<String>,
    /// Of which classes. Empty: all.
    pub classes: Vec<String>,
    /// With one of which tags. Empty: all.
    pub tags: Vec<String>,
    /// Under which names, likewise with `*`. Empty: all.
    pub names: Vec<String>,
    /// What a message holds.
    pub format: Format,
    /// Whether the last value of each topic is retained.
    pub retain: bool,
    /// Where to: `https://HOST/PATH`, `mqtts://HOST:PORT`.
    pub url: ServerUrl,
    /// The topic of a message, for another broker.
    pub topic: String,
    /// The Client Identifier there; empty for `unhidra-NAME`.
    pub client_id: String,
    /// The User Name there; empty for none.
    pub user: String,
    /// The file of the password there.
    pub password_file: PathBuf,
    /// The file of what signs a webhook's requests.
    pub secret_file: PathBuf,
    /// The file of the authorities that are trusted; empty for the system's.
    pub ca: PathBuf,
    /// The file of the certificate this node shows; empty for none.
    pub certificate: PathBuf,
    /// The file of that certificate's key.
    pub key: PathBuf,
    /// Whether it may cross a network without TLS.
    pub insecure: bool,
    /// Rows in one request, or on their way to a broker at once.
    pub batch_rows: usize,
    /// Bytes of bodies, likewise.
    pub batch_bytes: usize,
    /// How long a request waits for more rows, in ms.
    pub linger_ms: u64,
    /// How long the other side has to answer, in s.
    pub timeout_s: u64,
    /// How often a row that is refused is offered before it is left behind, and rows over which the other
    /// side fails before one of them is suspected.
    pub refusals_max: u32,
    /// How many rows may be left behind with none taken between them, and without a witness.
    pub left_behind_max: u32,
    /// The most a retry waits, in s.
    pub retry_max_s: u64,
    /// The most that a `Retry-After` may ask for, in s.
    pub retry_after_max_s: u64,
    /// Failures in a row that open the circuit breaker.
    pub breaker_failures: u32,
    /// How long it stays open, in s.
    pub breaker_open_s: u64,
}

/// An address whose path or query may hold a token: it is printed as `[url]`.
#[derive(Clone, Deserialize, Eq, PartialEq)]
#[serde(transparent)]
pub struct ServerUrl(String);

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[url]")
    }
}

/// Where readings go.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Nowhere.
    Off,
    /// To the clients of this node's broker.
    Local,
    /// To another broker.
    Mqtt,
    /// To an HTTP server.
    Webhook,
}

impl Kind {
    /// Its word in the configuration, in JSON and on screens.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Local => "local",
            Self::Mqtt => "mqtt",
            Self::Webhook => "webhook",
        }
    }
}

/// Where a new outlet begins.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Beginning {
    /// With what arrives from now on.
    Newest,
    /// With the oldest row there is.
    Oldest,
}

/// What a row is, as far as an outlet may show it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum RowKind {
    /// A measured value.
    Reading,
    /// Something that happened.
    Event,
    /// The answer to a command.
    Receipt,
}

/// What a message holds.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// A JSON object a row; of a webhook, an array of them.
    Json,
    /// JSON lines, of a webhook alone.
    Lines,
    /// The body as the device gave it, of MQTT alone.
    Raw,
}

/// What is wrong with an outlet's table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    /// The key, below the outlet's name.
    pub key: &'static str,
    /// What is wrong, and what is allowed.
    pub cause: String,
}

fn fault(key: &'static str, cause: impl Into<String>) -> Fault {
    Fault { key, cause: cause.into() }
}

/// A server's address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Address {
    /// Whether it is spoken to by TLS.
    pub(crate) tls: bool,
    pub(crate) host: String,
    /// `None` for the scheme's own.
    pub(crate) port: Option<u16>,
    /// Path and query of a request.
    pub(crate) path: String,
}

impl Address {
    /// For logs and screens: no path and no query, which may hold what is secret.
    pub(crate) fn shown(&self, scheme: &str) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match self.port {
            Some(port) => format!("{scheme}://{host}:{port}"),
            None => format!("{scheme}://{host}"),
        }
    }

    fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl Config {
    /// The bounds of the wait between two attempts that fail.
    #[must_use]
    pub const fn backoff(&self) -> BackoffBounds {
        BackoffBounds { base: RETRY_BASE, cap: Duration::from_secs(self.retry_max_s) }
    }

    /// When the other side is left alone.
    #[must_use]
    pub const fn breaker(&self) -> BreakerOptions {
        let failures = match NonZeroU32::new(self.breaker_failures) {
            Some(failures) => failures,
            None => NonZeroU32::MIN,
        };
        BreakerOptions { failures, rest: Duration::from_secs(self.breaker_open_s) }
    }

    /// Holds the table to what its types do not say.
    ///
    /// # Errors
    ///
    /// [`Fault`] names the key.
    pub fn check(&self) -> Result<(), Fault> {
        let at_least_one = [
            ("batch_rows", self.batch_rows as u64),
            ("batch_bytes", self.batch_bytes as u64),
            ("timeout_s", self.timeout_s),
            ("refusals_max", u64::from(self.refusals_max)),
            ("left_behind_max", u64::from(self.left_behind_max)),
            ("retry_max_s", self.retry_max_s),
            ("breaker_failures", u64::from(self.breaker_failures)),
            ("breaker_open_s", self.breaker_open_s),
        ];
        if let Some((key, _)) = at_least_one.into_iter().find(|(_, value)| *value == 0) {
            return Err(fault(key, "it is at least 1"));
        }
        if self.kinds.is_empty() && self.kind != Kind::Off {
            return Err(fault("kinds", "it names at least one of \"reading\", \"event\" and \"receipt\""));
        }
        match self.kind {
            Kind::Off => Ok(()),
            Kind::Local => self.check_format(Format::Lines),
            Kind::Mqtt => {
                self.check_format(Format::Lines)?;
                if self.batch_rows > usize::from(u16::MAX) {
                    return Err(fault("batch_rows", "at most 65535 messages may be on their way to a broker"));
                }
                self.server()?;
                Template::parse(&self.topic).map_err(|error| fault("topic", error.to_string())).map(|_| ())
            }
            Kind::Webhook => {
                self.check_format(Format::Raw)?;
                self.server()?;
                if self.secret_file.as_os_str().is_empty() {
                    return Err(fault("secret_file", "a webhook is signed: name the file of its secret, mode 0600"));
                }
                Ok(())
            }
        }
    }

    fn check_format(&self, refused: Format) -> Result<(), Fault> {
        match self.format {
            format if format != refused => Ok(()),
            Format::Raw => Err(fault("format", "a webhook's is \"json\" or \"lines\"")),
            _ => Err(fault("format", "that of MQTT is \"json\" or \"raw\"")),
        }
    }

    /// The schemes it may use, with TLS and without.
    const fn schemes(&self) -> [&'static str; 2] {
        match self.kind {
            Kind::Webhook => ["https", "http"],
            Kind::Off | Kind::Local | Kind::Mqtt => ["mqtts", "mqtt"],
        }
    }

    /// Its Client Identifier at another broker, where `name` is the outlet's.
    pub(crate) fn identifier(&self, name: &str) -> String {
        if self.client_id.is_empty() { format!("unhidra-{name}") } else { self.client_id.clone() }
    }

    /// The server `url` names.
    ///
    /// # Errors
    ///
    /// [`Fault`] where it names none, or one that is spoken to in the clear across a network.
    pub(crate) fn server(&self) -> Result<Address, Fault> {
        let [secure, plain] = self.schemes();
        let form = format!("it has the form {secure}://HOST:PORT or {plain}://HOST:PORT");
        let uri: Uri = self.url.0.parse().map_err(|_| fault("url", form.clone()))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(fault("url", form));
        };
        if authority.as_str().contains('@') {
            return Err(fault("url", "it holds no user and no password: they stand in files"));
        }
        let tls = match scheme {
            scheme if scheme == secure => true,
            scheme if scheme == plain => false,
            _ => return Err(fault("url", form)),
        };
        if self.kind == Kind::Mqtt && uri.port_u16().is_none() {
            return Err(fault("url", form));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let address = Address { tls, host, port: uri.port_u16(), path };
        if !tls && !address.is_loopback() && !self.insecure {
            let cause = format!(
                "readings would cross a network in the clear: use {secure}://, or set insecure = true if everybody \
                 on the way may read and forge them"
            );
            return Err(fault("url", cause));
        }
        if self.certificate.as_os_str().is_empty() != self.key.as_os_str().is_empty() {
            return Err(fault("key", "a certificate and its key belong together"));
        }
        Ok(address)
    }

    /// Where it goes, for logs and screens.
    pub(crate) fn target(&self, prefix: &str) -> String {
        let [secure, plain] = self.schemes();
        match self.kind {
            Kind::Off => "nowhere".to_owned(),
            Kind::Local => format!("{prefix}/readings/DEVICE/NAME"),
            Kind::Mqtt | Kind::Webhook => match self.server() {
                Ok(address) => address.shown(if address.tls { secure } else { plain }),
                Err(_) => "nowhere".to_owned(),
            },
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The defaults, and `text` over them.
    pub(crate) fn config(text: &str) -> Config {
        let defaults: toml::Table = crate::config::DEFAULT.parse().unwrap();
        let mut table = defaults["outlets"]["NAME"].as_table().unwrap().clone();
        table.extend(text.parse::<toml::Table>().unwrap());
        toml::Value::Table(table).try_into().unwrap()
    }

    #[test]
    fn an_outlet_is_off_until_somebody_turns_it_on() {
        let config = config("");
        assert_eq!((config.kind, config.insecure, config.retain), (Kind::Off, false, false));
        assert_eq!(config.check(), Ok(()));
        assert_eq!((config.breaker_failures, config.breaker_open_s), (20, 60));
    }

    #[test]
    fn what_would_cross_a_network_in_the_clear_is_refused_unless_it_is_said() {
        let webhook = |url: &str, more: &str| {
            config(&format!("kind = 'webhook'\nsecret_file = 's'\nurl = '{url}'\n{more}")).check().map_err(|f| f.key)
        };
        for url in ["https://a.example/x?y", "http://127.0.0.1:80/x", "http://[::1]:80/", "http://localhost:1/"] {
            assert_eq!(webhook(url, ""), Ok(()), "{url}");
        }
        for url in ["http://a.example/", "http://10.0.0.1/", "ftp://a", "a.example", "", "https://u:p@a.example/"] {
            assert_eq!(webhook(url, ""), Err("url"), "{url}");
        }
        assert_eq!(webhook("http://10.0.0.1/", "insecure = true"), Ok(()));
        assert_eq!(webhook("https://a.example/", "certificate = 'c'"), Err("key"));
        let mqtt = |url: &str| config(&format!("kind = 'mqtt'\nurl = '{url}'")).check().map_err(|f| f.key);
        assert_eq!(mqtt("mqtts://a.example:8"), Ok(()));
        for url in ["mqtts://a.example", "mqtt://a.example:8", "https://a.example:8"] {
            assert_eq!(mqtt(url), Err("url"), "{url}");
        }
    }

    #[test]
    fn a_key_that_cannot_be_meant_is_named() {
        for (text, key) in [
            ("kind = 'webhook'\nurl = 'https://a/'", "secret_file"),
            ("kind = 'webhook'\nurl = 'https://a/'\nsecret_file = 's'\nformat = 'raw'", "format"),
            ("kind = 'local'\nformat = 'lines'", "format"),
            ("kind = 'local'\nkinds = []", "kinds"),
            ("kind = 'local'\nbatch_rows = 0", "batch_rows"),
            ("kind = 'mqtt'\nurl = 'mqtt://[::1]:8'\ntopic = 'a/{b}'", "topic"),
        ] {
            assert_eq!(config(text).check().map_err(|fault| fault.key), Err(key), "{text}");
        }
    }

    #[test]
    fn a_target_shows_neither_path_nor_query() {
        let config = config("kind = 'webhook'\nsecret_file = 's'\nurl = 'https://a.example:444/hook?token=hunter2'");
        assert_eq!(config.target("unhidra"), "https://a.example:444");
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
