//! Reading the configuration and the certificates again while the node runs.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;
use toml::Table;
use unhidra_certs::{Pki, PkiError};
use unhidra_core::time::UnixTime;

use super::{ConfigError, Loaded, Sources, layer, parse};
use crate::access::Files;
use crate::folder::Layout;
use crate::tls::{self, TlsError};

/// The keys that take effect without a restart. What the files they name hold does so too.
const LIVE: [&str; 16] = [
    "pki.ca",
    "pki.ca_key",
    "pki.certificate",
    "pki.key",
    "pki.crl",
    "pki.crl_interval_s",
    "pki.names",
    "pki.node_validity_days",
    "users.file",
    "jwt.key_file",
    "jwt.algorithm",
    "jwt.issuer",
    "jwt.audience",
    "jwt.user_claim",
    "jwt.leeway_s",
    "acl.file",
];

/// What was read, all of it good. Nothing has changed until the caller puts it in place.
#[derive(Debug)]
pub struct Reloaded {
    /// What the node runs with from now on: the running configuration and its live keys anew.
    pub loaded: Loaded,
    /// The certificates, for whoever enrols devices.
    pub pki: Pki,
    /// What the MQTT listeners offer from now on.
    pub tls: tls::Offers,
    /// Keys whose new values take effect now. What the values are is told nobody: in an address or a
    /// command may stand a secret.
    pub applied: Vec<String>,
    /// Keys whose new values take effect at the next start.
    pub restart: Vec<String>,
}

/// Why nothing was reloaded. The node goes on as it was.
#[derive(Debug, Error)]
pub enum ReloadError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The certificates, as rustls sees them.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Sources {
    /// Reads the configuration and the certificates again.
    ///
    /// # Errors
    ///
    /// [`ReloadError`]: then nothing of it is used, and the node goes on as it was.
    pub fn reload(&self, running: &Loaded, layout: &Layout, now: UnixTime) -> Result<Reloaded, ReloadError> {
        let found = self.load()?;
        let (applied, restart) =
            changes(&running.table, &found.table).into_iter().partition(|key| LIVE.contains(&key.as_str()));
        let loaded = running.with_live_keys_of(&found)?;
        let pki = Pki::open(&loaded.config.pki, &layout.pki(), now)?;
        let tls = tls::Offers::new(&pki, &loaded.config.broker)?;
        Ok(Reloaded { loaded, pki, tls, applied, restart })
    }
}

/// The certificates anew, and what the MQTT listeners offer with them, where the node has made its own itself and that
/// ends soon. The configuration stays.
///
/// # Errors
///
/// [`ReloadError`]: then nothing of it is used.
pub fn renewed(
    running: &Loaded,
    pki: &Pki,
    layout: &Layout,
    now: UnixTime,
) -> Result<Option<(Pki, tls::Offers)>, ReloadError> {
    if !pki.is_renewal_due(now) {
        return Ok(None);
    }
    let pki = Pki::open(&running.config.pki, &layout.pki(), now)?;
    let tls = tls::Offers::new(&pki, &running.config.broker)?;
    Ok(Some((pki, tls)))
}

impl Reloaded {
    /// What these files hold cannot be used: their keys stay as they run, so that the next reload finds
    /// them changed and tries again. Gives back those whose new values do not take effect.
    pub fn leave(&mut self, files: &[Files], running: &Loaded) -> Vec<String> {
        let Loaded { config, table } = &mut self.loaded;
        let mut left = Vec::new();
        for file in files {
            // As a whole: their other keys run until the node ends, and are what they were.
            let name = match file {
                Files::Users => {
                    config.users.clone_from(&running.config.users);
                    "users."
                }
                Files::Tokens => {
                    config.jwt.clone_from(&running.config.jwt);
                    "jwt."
                }
                Files::Rules => {
                    config.acl.clone_from(&running.config.acl);
                    "acl."
                }
            };
            for key in LIVE.iter().filter(|key| key.starts_with(name)) {
                if let Some(value) = layer::get(&running.table, key) {
                    layer::put(table, key, value.clone());
                }
            }
            left.extend(self.applied.extract_if(.., |key| key.starts_with(name)));
        }
        left
    }
}

impl Loaded {
    fn with_live_keys_of(&self, found: &Self) -> Result<Self, ConfigError> {
        let mut table = self.table.clone();
        for key in LIVE {
            if let Some(value) = layer::get(&found.table, key) {
                layer::put(&mut table, key, value.clone());
            }
        }
        // Together they may break a rule that each of the two documents keeps: certificates taken
        // out of a configuration whose listeners have not moved yet.
        let config = parse(&table, &[])?;
        Ok(Self { config, table })
    }
}

/// The keys whose values differ.
fn changes(from: &Table, to: &Table) -> Vec<String> {
    let (from, to): (BTreeMap<_, _>, BTreeMap<_, _>) =
        (layer::leaves(from).into_iter().collect(), layer::leaves(to).into_iter().collect());
    // A table under a name of its owner's choice may come and go.
    let keys: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    keys.into_iter().filter(|key| from.get(*key) != to.get(*key)).cloned().collect()
}
