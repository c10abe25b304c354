//! What a node does first when its store was put back from a copy (e2ee/PROTOCOL.md section 8).
//!
//! ```text
//! marked --every SPK and OPK replaced, every session only receives--> durable --> not marked
//!    ^                                                                   |
//!    +--- a crash before the end: all of it again -----------------------+
//! ```
//!
//! `unhidra store restored` sets the mark. Until it is taken away again nobody is served.

use std::collections::BTreeMap;

use rand_core::CryptoRng;
use thiserror::Error;
use unhidra_bridge::{SignedPrekeys, SignedPrekeysError, put_back};
use unhidra_core::ids::Partition;
use unhidra_core::time::UnixTime;
use unhidra_store::{CommitError, Op, ReadError, RestoredError, Store};

use crate::commit::commit;

/// Devices read and written at once.
const PAGE: usize = 256;

/// Why the store cannot be served from after it was put back.
#[derive(Debug, Error)]
pub enum SettleError {
    /// It does not read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It does not write.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// No signed prekey can be made.
    #[error(transparent)]
    Prekeys(#[from] SignedPrekeysError),
    /// The mark stays.
    #[error(transparent)]
    Mark(#[from] RestoredError),
}

/// Acts on the mark, where there is one, and takes it away. Whether there was one.
///
/// # Errors
///
/// [`SettleError`]: the mark stays, and all of it is done again the next time.
pub(crate) async fn settle(store: &dyn Store, now: UnixTime, rng: &mut impl CryptoRng) -> Result<bool, SettleError> {
    if !store.is_restored() {
        return Ok(false);
    }
    let ops = SignedPrekeys::replace(&store.signed_prekeys().await?, now, rng)?;
    commit(store, Partition::new(0), ops).await?;
    let (mut after, mut count) = (None, 0_usize);
    loop {
        let page = store.devices(after.as_ref(), PAGE).await?;
        let mut writes: BTreeMap<u16, Vec<Op>> = BTreeMap::new();
        for device in &page.rows {
            let stored = store.session(&device.id).await?.unwrap_or_default();
            let prekeys = store.prekeys(&device.id).await?;
            let ops = put_back(device, stored.peer.as_deref(), &prekeys);
            writes.entry(store.partition_of(&device.id).get()).or_default().extend(ops);
        }
        for (partition, ops) in writes {
            commit(store, Partition::new(partition), ops).await?;
        }
        count += page.rows.len();
        after = page.rows.last().map(|device| device.id);
        if !page.more || after.is_none() {
            break;
        }
    }
    store.settle_restored().await?;
    tracing::warn!(
        devices = count,
        "the store was put back from a copy: each device is asked for a new session, and clients begin anew"
    );
    Ok(true)
}
