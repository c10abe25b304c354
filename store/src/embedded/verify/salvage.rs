//! What the engine can still read of a partition with damaged table files, in new files.
//!
//! A table is read from its first record on until it does not read, and from its last one back:
//! what lies between the two is lost. Records are taken as they lie, under the keys they are sealed
//! with.

use std::fs;
use std::path::Path;

use crate::config::Config;
use crate::rows::Order;
use crate::table::Table;

use super::super::database::Database;
use super::super::folder::{OpenError, sync_parent};
use super::remove;

/// Records written in one commit.
const COMMIT_RECORDS: usize = 4096;

/// Writes a partition anew, and puts it in the old one's place.
pub(super) fn rebuild(partition: &Path, config: &Config) -> Result<(), OpenError> {
    let io = |cause| OpenError::Io { path: partition.into(), cause };
    let engine = |cause| OpenError::Engine { path: partition.into(), cause };
    let (anew, lost) = (partition.with_extension("anew"), partition.with_extension("lost"));
    remove(&anew).map_err(io)?;
    let from = Database::open_made(partition, config, 1)?;
    let to = Database::open(&anew, config, 1)?;
    for table in Table::ALL {
        copy(&from, &to, table).map_err(engine)?;
    }
    to.sync().map_err(engine)?;
    to.close();
    from.close();
    // In between the partition is missing, and the store says so; `resume` puts the new one in its place.
    remove(&lost).map_err(io)?;
    fs::rename(partition, &lost).map_err(io)?;
    fs::rename(&anew, partition).map_err(io)?;
    sync_parent(partition).map_err(io)?;
    remove(&lost).map_err(io)
}

/// Ends what an earlier call was stopped in: before the new files were whole they go, and after that they are put in
/// the place of the old ones.
pub(super) fn resume(partition: &Path) -> Result<(), OpenError> {
    let io = |cause| OpenError::Io { path: partition.into(), cause };
    let (anew, lost) = (partition.with_extension("anew"), partition.with_extension("lost"));
    // The old files make way only for new ones that are whole.
    if !partition.exists() && lost.exists() && anew.exists() {
        fs::rename(&anew, partition).map_err(io)?;
        sync_parent(partition).map_err(io)?;
    }
    if partition.exists() {
        remove(&anew).and_then(|()| remove(&lost)).map_err(io)?;
    }
    Ok(())
}

fn copy(from: &Database, to: &Database, table: Table) -> Result<(), String> {
    let mut last: Option<Vec<u8>> = None;
    let mut batch = Vec::new();
    let mut is_whole = true;
    for order in [Order::Ascending, Order::Descending] {
        for record in from.raw_records(table, order) {
            let Ok((key, value)) = record else {
                is_whole = false;
                break;
            };
            if order == Order::Descending && last.as_deref().is_some_and(|last| *key <= *last) {
                break;
            }
            if order == Order::Ascending {
                last = Some(key.to_vec());
            }
            batch.push((key, value));
            if batch.len() >= COMMIT_RECORDS {
                to.put_records(table, &batch)?;
                batch.clear();
            }
        }
        if is_whole {
            break;
        }
    }
    to.put_records(table, &batch)
}
