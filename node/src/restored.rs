//! What a node does first when its store is at an earlier moment than it was: put back from a copy,
//! or cut off by a power cut without leaving a hole (e2ee/PROTOCOL.md section 8).
//!
//! ```text
//! marked --every SPK and OPK replaced, every session only receives--> durable --> not marked
//!    ^                                                                   |
//!    +--- a crash before the end: all of it again -----------------------+
//! ```
//!
//! A device of which a record is damaged is left out, and has a mark of its own from then on: nothing is
//! served from what there is of it, also once it reads again, until the same has been done to it alone.
//!
//! The broker's sessions, and what waits for them, are of the past too: a message that was taken
//! since would come twice, and an identifier that was released would hide another message. They
//! are deleted, and clients find that they have none. Retained messages stay: each was its topic's
//! last word when the copy was made, and the next word replaces it.
//!
//! `unhidra store restored` sets the mark, and so does the store itself when it opens after a power cut
//! that may have taken what was committed without a sync. Until it is taken away again nobody is served. Where
//! what is damaged is nobody's alone (the signed prekeys, the registry, the broker's) it stays.

use std::collections::BTreeMap;

use rand_core::CryptoRng;
use thiserror::Error;
use unhidra_bridge::{SignedPrekeys, SignedPrekeysError, put_back, put_back_told};
use unhidra_core::command::Command;
use unhidra_core::device::Device;
use unhidra_core::ids::{DeviceId, Partition};
use unhidra_core::setting::Setting;
use unhidra_core::time::UnixTime;
use unhidra_store::{
    Act, BrokerTable, CommitError, Deed, LeftOut, Limit, Op, ReadError, Restored, RestoredError, Store,
};

use crate::actor;
use crate::commit::{commit, commit_each};
use crate::unsettled::{self, Unsettled};

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

/// Acts on the mark, where there is one, and takes it away. Gives the devices that may not be served yet.
///
/// A damaged record leaves out the device it is of: that one is written down as [`Unsettled`], before the mark
/// goes, and nothing of it is served. What is nobody's alone stops all.
///
/// # Errors
///
/// [`SettleError`]: the mark stays, and all of it is done again the next time.
pub(crate) async fn settle(
    store: &dyn Store,
    now: UnixTime,
    rng: &mut impl CryptoRng,
) -> Result<Unsettled, SettleError> {
    let unsettled = Unsettled::load(store).await?;
    let (of, what) = match store.restored() {
        None => return Ok(unsettled),
        Some(Restored::Copy) => ("put back from a copy", "the store was put back from a copy"),
        Some(Restored::PowerCut) => {
            ("a power cut may have taken the newest", "a power cut may have taken the store's end")
        }
    };
    let ops = SignedPrekeys::replace(&store.signed_prekeys().await?, now, rng)?;
    commit(store, Partition::new(0), ops).await?;
    let (mut after, mut count, mut left_out) = (None, 0_usize, 0_usize);
    loop {
        let page = store.devices(after.as_ref(), PAGE).await?;
        let damaged = put_back_all(store, &page.rows, now).await?;
        mark_left_out(store, &page.rows, &damaged, &unsettled, now).await?;
        count += page.rows.len() - damaged.len();
        left_out += damaged.len();
        after = page.rows.last().map(|device| device.id);
        if !page.more || after.is_none() {
            break;
        }
    }
    let forgotten = forget_sessions(store).await?;
    let mut text = format!("{of}; each device is asked for a new session");
    if left_out > 0 {
        text = format!("{text}, but {left_out} with damaged records, which are not served");
    }
    let act = Act::new(now, &actor::current(), Deed::Restore, &text);
    commit(store, Partition::new(0), vec![Op::Act(act)]).await?;
    store.settle_restored().await?;
    tracing::warn!(
        devices = count,
        left_out,
        broker_records = forgotten,
        "{what}: each device is asked for a new session, and clients begin anew"
    );
    Unsettled::load(store).await.map_err(SettleError::from)
}

/// What a device was to be told, as it has become.
pub(crate) struct PutBack {
    pub(crate) commands: Vec<Command>,
    pub(crate) settings: Vec<Setting>,
}

/// Makes one device ready that was left out, and takes its own mark away.
///
/// # Errors
///
/// [`ReadError`]: it stays left out.
pub(crate) async fn settle_device(store: &dyn Store, device: &Device, now: UnixTime) -> Result<PutBack, ReadError> {
    let mut ops = put_back_one(store, device, now).await?;
    let told = told_in(&ops);
    ops.push(unsettled::unmark(&device.id));
    match commit(store, store.partition_of(&device.id), ops).await {
        Ok(_) => {}
        Err(CommitError::Damaged { found, .. }) => return Err(*found),
        Err(error) => {
            tracing::warn!(device = %device.id, %error, "a device that was left out is not made ready yet; tried again");
            return Err(ReadError::Unavailable);
        }
    }
    tracing::warn!(
        device = %device.id,
        "a device that was left out when the store went back reads again; it is asked for a new session"
    );
    Ok(told)
}

fn told_in(ops: &[Op]) -> PutBack {
    let commands = ops.iter().filter_map(|op| if let Op::Command(command) = op { Some(command.clone()) } else { None });
    let settings = ops.iter().filter_map(|op| if let Op::Setting(setting) = op { Some(setting.clone()) } else { None });
    PutBack { commands: commands.collect(), settings: settings.collect() }
}

/// Puts these devices back, and gives those of which a record is damaged: of them nothing is written.
async fn put_back_all(
    store: &dyn Store,
    devices: &[Device],
    now: UnixTime,
) -> Result<BTreeMap<DeviceId, String>, SettleError> {
    let mut damaged = BTreeMap::new();
    let mut writes: BTreeMap<u16, Vec<Op>> = BTreeMap::new();
    for device in devices {
        match put_back_one(store, device, now).await {
            Ok(ops) => writes.entry(store.partition_of(&device.id).get()).or_default().extend(ops),
            Err(cause @ ReadError::Damaged { .. }) => drop(damaged.insert(device.id, cause.to_string())),
            Err(cause) => return Err(cause.into()),
        }
    }
    for (partition, ops) in writes {
        for LeftOut { device, cause } in commit_each(store, Partition::new(partition), ops).await?.left_out {
            match cause {
                CommitError::Damaged { .. } => drop(damaged.insert(device, cause.to_string())),
                cause => return Err(cause.into()),
            }
        }
    }
    Ok(damaged)
}

async fn put_back_one(store: &dyn Store, device: &Device, now: UnixTime) -> Result<Vec<Op>, ReadError> {
    let stored = store.session(&device.id).await?.unwrap_or_default();
    let prekeys = store.prekeys(&device.id).await?;
    let (commands, settings) = (store.open_commands(&device.id).await?, store.settings(&device.id).await?);
    let mut ops = put_back(device, stored.peer.as_deref(), &prekeys)
        .map_err(|error| ReadError::Damaged { record: format!("peer of {}", device.id), cause: error.to_string() })?;
    ops.extend(put_back_told(commands, settings, now));
    Ok(ops)
}

/// Writes down which of these devices were left out, and of which that is over.
async fn mark_left_out(
    store: &dyn Store,
    devices: &[Device],
    damaged: &BTreeMap<DeviceId, String>,
    before: &Unsettled,
    now: UnixTime,
) -> Result<(), SettleError> {
    let mut writes: BTreeMap<u16, Vec<Op>> = BTreeMap::new();
    for Device { id, .. } in devices {
        let op = match damaged.get(id) {
            Some(cause) => {
                tracing::error!(
                    device = %id,
                    %cause,
                    "a device is left out and not served, for a record of it is damaged; the others are. Stop the node \
                     and run `unhidra store verify`: with --accept-loss it goes on without the record"
                );
                unsettled::mark(id, now)
            }
            None if before.contains(id) => unsettled::unmark(id),
            None => continue,
        };
        writes.entry(store.partition_of(id).get()).or_default().push(op);
    }
    for (partition, ops) in writes {
        commit(store, Partition::new(partition), ops).await?;
    }
    Ok(())
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

#[cfg(test)]
mod tests;
