//! The configuration: one TOML document, of which every key has its default in `default.toml`.
//!
//! ```text
//! default.toml  <  --config FILE  <  --set KEY=VALUE ...  <  --data, --log-format
//! ```
//!
//! The defaults are also the schema: a key they do not have is unknown, and a value has the type
//! its default has. What a value may be beyond that, its crate's own types say.

mod bind;
mod error;
mod identifiers;
mod layer;
mod reload;
mod shown;

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

pub use bind::BindError;
pub use error::{ConfigError, Origin, Setting};
pub(crate) use identifiers::check as check_identifiers;
pub use identifiers::{Part, SameClientError};
pub use reload::{ReloadError, Reloaded, renewed};

use crate::folder::Layout;
use crate::log::Format;
use layer::Layer;
use shown::shown;

/// Every default, and what each key means. Embedded in the binary.
pub const DEFAULT: &str = include_str!("default.toml");

/// The node's whole configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The data folder.
    pub data: PathBuf,
    /// `[pki]`
    pub pki: unhidra_certs::Config,
    /// `[broker]`
    pub broker: unhidra_broker::Config,
    /// `[users]`. Its file is resolved: where the configuration names none, it lies beside the data
    /// folder.
    pub users: crate::access::Config,
    /// `[jwt]`
    pub jwt: crate::access::TokenConfig,
    /// `[acl]`
    pub acl: crate::access::AclConfig,
    /// `[pump]`
    pub pump: Pump,
    /// `[bridge]`
    pub bridge: unhidra_bridge::Config,
    /// `[upstream]`: each outside broker with what holds for all of them.
    pub upstream: Vec<crate::upstream::UpstreamConfig>,
    /// `[store]`. The file of its master key is resolved: where the configuration names none, it lies beside
    /// the data folder.
    pub store: unhidra_store::Config,
    /// `[retention]`
    pub retention: crate::retention::Config,
    /// `[gateway]`
    pub gateway: unhidra_gateway::Config,
    /// `[outlets.NAME]`, by name
    pub outlets: BTreeMap<String, crate::outlets::Config>,
    /// `[admin]`
    pub admin: crate::admin::Config,
    /// `[log]`
    pub log: crate::log::Config,
    /// `[demo]`
    pub demo: Demo,
}

/// The table `[pump]`: what carries messages between the rooms.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Pump {
    /// Shards for each partition of the store; 0 for one a core.
    pub shards: usize,
    /// Events that may wait for one shard. At the bound the connections that bring them stop
    /// reading.
    pub inbox_max: NonZeroUsize,
    /// How long a node that ends waits for what is under way, in s.
    pub drain_timeout_s: u64,
}

/// The table `[demo]`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Demo {
    /// The demo's data folder.
    pub data: PathBuf,
}

/// Whose configuration is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// A node's, or a subcommand's on a node's folder.
    Node,
    /// The demo's, which has a data folder of its own: `demo.data`, whatever `data` says.
    Demo,
}

/// Where the configuration comes from: what the command line says.
#[derive(Clone)]
pub struct Sources {
    /// Whose it is.
    pub purpose: Purpose,
    /// `--config`
    pub file: Option<PathBuf>,
    /// `--set`, each `KEY=VALUE`, in order.
    pub set: Vec<String>,
    /// `--data`
    pub data: Option<PathBuf>,
    /// `--log-format`
    pub log_format: Option<Format>,
}

impl fmt::Debug for Sources {
    // What is set may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("purpose", &self.purpose)
            .field("file", &self.file)
            .field("set", &keys_of(&self.set))
            .field("data", &self.data)
            .field("log_format", &self.log_format)
            .finish()
    }
}

/// What assignments of the form `KEY=VALUE` set, for whoever prints them. What is none has no key.
pub(crate) fn keys_of(assignments: &[String]) -> Vec<&str> {
    assignments.iter().map(|text| text.split_once('=').map_or("[no assignment]", |(key, _)| key)).collect()
}

/// A configuration, and the document it was read from.
#[derive(Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    table: Table,
}

impl fmt::Debug for Loaded {
    // The document holds all values as they were written, and some of them are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").field("data", &self.config.data).finish_non_exhaustive()
    }
}

impl Sources {
    /// Reads the configuration.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the key, the value, where it stands, and what is allowed.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let schema = layer::defaults()?;
        let layers = self.layers(&schema)?;
        let mut table = schema.clone();
        for layer in &layers {
            layer.check(&schema)?;
            layer.merge_into(&mut table);
        }
        layer::fill_named(&mut table, &schema);
        self.name_the_data_folder(&mut table);
        let config = parse(&table, &layers)?;
        Ok(Loaded { config, table })
    }

    fn layers(&self, schema: &Table) -> Result<Vec<Layer>, ConfigError> {
        let file = self.file.iter().map(|path| Layer::from_file(path));
        let set = self.set.iter().map(|text| Layer::from_assignment(text, schema));
        let data = self.data.iter().map(|path| Ok(Layer::from_option("--data", "data", &path.to_string_lossy())));
        let format = self.log_format.iter().map(|format| {
            let word = match format {
                Format::Text => "text",
                Format::Json => "json",
            };
            Ok(Layer::from_option("--log-format", "log.format", word))
        });
        file.chain(set).chain(data).chain(format).collect()
    }

    fn name_the_data_folder(&self, table: &mut Table) {
        if self.purpose == Purpose::Demo && self.data.is_none() {
            let own = layer::get(table, "demo.data").cloned();
            table.extend(own.map(|own| ("data".to_owned(), own)));
        }
    }
}

/// Reads the merged document into its types, and holds it to the rules no type can say.
fn parse(table: &Table, layers: &[Layer]) -> Result<Config, ConfigError> {
    let mut whole = table.clone();
    crate::upstream::expand(&mut whole);
    let mut config: Config = serde_path_to_error::deserialize(Value::Table(whole)).map_err(|error| {
        let key = crate::upstream::written(table, error.path().to_string());
        let value = layer::get(table, &key).map(|value| shown(&key, value)).unwrap_or_default();
        let origin = layer::origin(layers, &key);
        ConfigError::Invalid {
            setting: Box::new(Setting { key, value, origin }),
            cause: error.inner().message().to_owned(),
        }
    })?;
    config.broker.check()?;
    config.store.check()?;
    config.retention.check()?;
    config.bridge.check()?;
    crate::log::check(&config.log.level)?;
    bind::check(&config)?;
    for (name, outlet) in &config.outlets {
        outlet.check().map_err(|fault| {
            let key = format!("outlets.{name}.{}", fault.key);
            let value = layer::get(table, &key).map(|value| shown(&key, value)).unwrap_or_default();
            let origin = layer::origin(layers, &key);
            ConfigError::Invalid { setting: Box::new(Setting { key, value, origin }), cause: fault.cause }
        })?;
    }
    crate::upstream::check(&config.upstream)?;
    check_identifiers(&config, None)?;
    if config.store.names_no_master_key() {
        config.store.master_key_file = Layout::at(&config.data)?.store_key();
    }
    if config.users.file.as_os_str().is_empty() {
        config.users.file = Layout::at(&config.data)?.users();
    }
    Ok(config)
}

/// A path of a configuration file begins at the file's folder.
fn beside(file: &Path, path: &str) -> PathBuf {
    match file.parent() {
        Some(folder) if !path.is_empty() => folder.join(path),
        _ => path.into(),
    }
}

#[cfg(test)]
mod tests;
