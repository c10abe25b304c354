//! What an operator may set about the PKI. The defaults stand in `node/src/default.toml`.

use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::{NodeName, Origin, PkiError, TrustDomain};

/// The PKI's part of the configuration. An empty path is none.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The authorities whose devices may come in, and under which the node's own certificate
    /// stands: one PEM file.
    pub ca: PathBuf,
    /// The key of one of them, with which `enroll` signs. Without it nobody is enrolled here.
    pub ca_key: PathBuf,
    /// The node's certificate and what links it to `ca`, in PEM, P-256.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// What the authorities have revoked: one PEM file with a list or several.
    pub crl: PathBuf,
    /// How often it is looked at whether that file has changed, in s, at least 1.
    pub crl_interval_s: NonZeroU16,
    /// The names a generated node certificate bears.
    pub names: Vec<NodeName>,
    /// The trust domain of the devices' certificates.
    pub trust_domain: TrustDomain,
    /// How long a device's certificate holds, in days.
    pub device_validity_days: NonZeroU16,
    /// How long a generated node certificate holds, in days. It is made anew at each start and
    /// at each reload.
    pub node_validity_days: NonZeroU16,
}

impl Config {
    /// Whether the certificates are the operator's own or made here.
    ///
    /// # Errors
    ///
    /// [`PkiError::Incomplete`] where some of the keys that belong together are given.
    pub fn origin(&self) -> Result<Origin, PkiError> {
        let given = |path: &Path| !path.as_os_str().is_empty();
        let keys = [("pki.ca", &self.ca), ("pki.certificate", &self.certificate), ("pki.key", &self.key)];
        let missing = keys.iter().find(|(_, path)| !given(path));
        let present = keys.iter().find(|(_, path)| given(path)).map(|(key, _)| *key);
        match (present.or(given(&self.ca_key).then_some("pki.ca_key")), missing) {
            (None, _) => Ok(Origin::Generated),
            (Some(_), None) => Ok(Origin::Configured),
            (Some(given), Some((missing, _))) => Err(PkiError::Incomplete { given, missing }),
        }
    }

    /// How long a device's certificate holds.
    #[must_use]
    pub fn device_validity(&self) -> Duration {
        days(self.device_validity_days)
    }

    /// How long a generated node certificate holds.
    #[must_use]
    pub fn node_validity(&self) -> Duration {
        days(self.node_validity_days)
    }
}

fn days(days: NonZeroU16) -> Duration {
    Duration::from_secs(u64::from(days.get()) * 86_400)
}
