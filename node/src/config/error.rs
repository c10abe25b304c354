//! What is wrong with a configuration.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;
use unhidra_certs::{FileError, PkiError};

use super::{BindError, SameClientError};
use crate::folder::FolderError;
use crate::log::LogError;

/// Where a value stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Origin {
    /// In `default.toml`.
    Default,
    /// In a file.
    File(PathBuf),
    /// In a `--set`.
    Set,
    /// In an option of its own.
    Option(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default.toml"),
            Self::File(path) => fmt::Display::fmt(&path.display(), f),
            Self::Set => f.write_str("--set"),
            Self::Option(name) => f.write_str(name),
        }
    }
}

/// A key, its value, and where it has it from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Setting {
    /// The key, dotted.
    pub key: String,
    /// Its value, as TOML.
    pub value: String,
    /// Where.
    pub origin: Origin,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} = {}", self.origin, self.key, self.value)
    }
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration: {0}")]
    File(#[from] FileError),
    /// The file is no TOML.
    #[error("{origin} is no TOML: {cause}")]
    Syntax {
        /// Which.
        origin: Origin,
        /// Where and why not.
        cause: String,
    },
    /// An assignment is none.
    #[error("--set {found:?}: it has the form KEY=VALUE, as in gateway.listen=127.0.0.1:9000")]
    Assignment {
        /// The text found.
        found: String,
    },
    /// There is no such key.
    #[error("{}: there is no key {} (its value is {}); {hint}", setting.origin, setting.key, setting.value)]
    UnknownKey {
        /// What was found.
        setting: Box<Setting>,
        /// The nearest key, or those there are.
        hint: String,
    },
    /// A value of another type.
    #[error("{setting} is {found}, and {expected} is expected, such as {example}")]
    WrongType {
        /// What was found.
        setting: Box<Setting>,
        /// The type found.
        found: &'static str,
        /// The type allowed.
        expected: &'static str,
        /// The default.
        example: String,
    },
    /// A value of the right type that is not allowed.
    #[error("{setting}: {cause}")]
    Invalid {
        /// What was found.
        setting: Box<Setting>,
        /// What is wrong, and what is allowed.
        cause: String,
    },
    /// A limit of the broker out of its bounds.
    #[error(transparent)]
    Limit(#[from] unhidra_broker::LimitError),
    /// A setting of the bridge out of its bounds.
    #[error(transparent)]
    Bridge(#[from] unhidra_bridge::ConfigError),
    /// A setting of the store out of its bounds.
    #[error(transparent)]
    Store(#[from] unhidra_store::ConfigError),
    /// A setting of what is kept out of its bounds.
    #[error(transparent)]
    Retention(#[from] crate::retention::RetentionError),
    /// A log level that is none.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Keys of the PKI that belong together.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// An address nobody may listen on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// An outside broker that cannot be spoken to so.
    #[error(transparent)]
    Upstream(#[from] crate::upstream::UpstreamError),
    /// Two that come to one outside broker as one client.
    #[error(transparent)]
    SameClient(#[from] SameClientError),
    /// A data folder that cannot be one.
    #[error("data: {0}")]
    Folder(#[from] FolderError),
}
