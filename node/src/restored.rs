//! What a node does first when its store is at an earlier moment than it was: put back from a copy,
//! or cut off by a power cut without leaving a hole (e2ee/PROTOCOL.md section 8).
//!
//! ```text
//! marked --every SPK and OPK replaced, every session only receives--> durable --> not marked
//!    ^                                                                   |
//!    +--- a crash before the end: all of it again -----------------------+
//! ```
//!
//! The broker's sessions, and what waits for them, are of the past too: a message that was taken
//! since would come twice, and an identifier that was released would hide another message. They
//! are deleted, and clients find that they have none. Retained messages stay: each was its topic's
//! last word when the copy was made, and the next word replaces it.
//!
//! `unhidra store restored` sets the mark, and so does the store itself when it opens after a power cut
//! that may have taken what was committed without a sync. Until it is taken away again nobody is served.

use std::collections::BTreeMap;

use rand_core::CryptoRng;
use thiserror::Error;
use unhidra_bridge::{SignedPrekeys, SignedPrekeysError, put_back, put_back_told};
use unhidra_core::ids::Partition;
use unhidra_core::time::UnixTime;
use unhidra_store::{Act, BrokerTable, CommitError, Deed, Limit, Op, ReadError, Restored, RestoredError, Store};

use crate::actor;
use crate::commit::commit;

/// Devices read and written at once.
const PAGE: usize = 256;

/// Why a store that went back cannot be served from.
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
    let (of, what) = match store.restored() {
        None => return Ok(false),
        Some(Restored::Copy) => ("put back from a copy", "the store was put back from a copy"),
        Some(Restored::PowerCut) => {
            ("a power cut may have taken the newest", "a power cut may have taken the store's end")
        }
    };
    let ops = SignedPrekeys::replace(&store.signed_prekeys().await?, now, rng)?;
    commit(store, Partition::new(0), ops).await?;
    let (mut after, mut count) = (None, 0_usize);
    loop {
        let page = store.devices(after.as_ref(), PAGE).await?;
        let mut writes: BTreeMap<u16, Vec<Op>> = BTreeMap::new();
        for device in &page.rows {
            let stored = store.session(&device.id).await?.unwrap_or_default();
            let prekeys = store.prekeys(&device.id).await?;
            let mut ops = put_back(device, stored.peer.as_deref(), &prekeys);
            let (commands, settings) = (store.open_commands(&device.id).await?, store.settings(&device.id).await?);
            ops.extend(put_back_told(commands, settings, now));
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
    let forgotten = forget_sessions(store).await?;
    let act = Act::new(now, &actor::current(), Deed::Restore, &format!("{of}; each device is asked for a new session"));
    commit(store, Partition::new(0), vec![Op::Act(act)]).await?;
    store.settle_restored().await?;
    tracing::warn!(
        devices = count,
        broker_records = forgotten,
        "{what}: each device is asked for a new session, and clients begin anew"
    );
    Ok(true)
}

/// Deletes the broker's sessions and all that belongs to them. Says how many records it were.
async fn forget_sessions(store: &dyn Store) -> Result<usize, SettleError> {
    let tables = [
        BrokerTable::Sessions,
        BrokerTable::Subscriptions,
        BrokerTable::Queued,
        BrokerTable::Messages,
        BrokerTable::Exchanges,
    ];
    let mut count = 0_usize;
    for table in tables {
        loop {
            let page = store.broker_records(table, None, Limit { rows: PAGE, bytes: usize::MAX }).await?;
            if page.rows.is_empty() {
                break;
            }
            count += page.rows.len();
            let delete = |(key, _)| Op::Broker { table, key, value: None };
            commit(store, crate::kept::PARTITION, page.rows.into_iter().map(delete).collect()).await?;
        }
    }
    Ok(count)
}
