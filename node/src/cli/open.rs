//! A data folder, opened by the process that holds its lock.

use std::sync::Arc;

use rand_core::CryptoRng;
use unhidra_bridge::IdentitySecret;
use unhidra_certs::Pki;
use unhidra_core::time::UnixTime;
use unhidra_store::{Embedded, Keys};

use super::CliError;
use crate::config::Config;
use crate::folder::{Folder, Kind};
use crate::keys;
use crate::master::Source;

/// What a data folder holds.
pub(crate) struct Opened {
    /// The folder. Its lock is held as long as this is.
    pub(crate) folder: Folder,
    /// The store.
    pub(crate) store: Arc<Embedded>,
    /// The certificates.
    pub(crate) pki: Pki,
    /// The node's long-term key.
    pub(crate) identity: IdentitySecret,
}

impl Opened {
    /// Opens what is in `folder`, and makes what is not there yet. Blocks until the store has read
    /// back what is on the disk.
    pub(crate) async fn open(
        folder: Folder,
        config: &Config,
        rng: &mut impl CryptoRng,
        now: UnixTime,
    ) -> Result<Self, CliError> {
        let layout = folder.layout();
        let pki = Pki::open(&config.pki, &layout.pki(), now)?;
        let seed = keys::load_or_make(&layout.identity_key(), rng)?;
        let identity = IdentitySecret::from_seed(seed.as_bytes());
        let path = layout.store();
        let keys = keys_of(&folder, config, now).await?;
        let store = Arc::new(Embedded::open(&path, &config.store, keys)?);
        Ok(Self { folder, store, pki, identity })
    }
}

/// What opens the records of a folder's store.
pub(super) async fn keys_of(folder: &Folder, config: &Config, now: UnixTime) -> Result<Keys, CliError> {
    let layout = folder.layout();
    Ok(match folder.kind() {
        Kind::Plain => Keys::Plain,
        Kind::Sealed => {
            let source = Source::of(&config.store, layout.root());
            Keys::sealed(source.read_or_create(&layout.store()).await?, now)
        }
    })
}
