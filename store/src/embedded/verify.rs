//! Reads all of a store that no process has open, and says what is damaged.
//!
//! ```text
//! journals, lists of tables, table files --whole--> open --> every record of every table, and
//!      |                                                     whether those that must agree do
//!      +-- damaged, and loss is not accepted: told, and nothing is opened or changed
//! ```
//!
//! With loss accepted, what is whole is kept: of a journal its whole batches, of a damaged table
//! file what the engine can read, of the records those that open and what they still agree on. Then
//! the store is marked as put back from a copy: a lost record may be one that said which message
//! keys were used, so no session goes on.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use unhidra_core::ids::Partition;

use crate::config::Config;
use crate::sealed::Keys;
use crate::table::Table;

use super::journal::{Damage, Walked};
use super::{Embedded, OpenError, closed, database, folder, journal, levels, mark_restored};

mod records;
mod salvage;
#[cfg(test)]
mod tests;

/// How many findings are told one by one; more are counted.
pub const FINDINGS_MAX: usize = 1000;

/// What a look over a store has found.
#[derive(Debug, Default)]
pub struct Verified {
    /// What is damaged, at most [`FINDINGS_MAX`] of it.
    pub findings: Vec<Finding>,
    /// How much is damaged in all.
    pub found: u64,
    /// How many records were read.
    pub records: u64,
    /// Whether the records were read: not where files are damaged and loss was not accepted.
    pub is_complete: bool,
    /// Whether what was damaged is gone now.
    pub is_mended: bool,
}

/// One thing that is not as it was written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// Where.
    pub place: Place,
    /// What is there.
    pub found: String,
}

/// Where something is damaged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// In a file.
    File {
        /// Which.
        path: PathBuf,
        /// Where, in bytes from its beginning.
        offset: u64,
    },
    /// A record.
    Record {
        /// In which partition.
        partition: Partition,
        /// In which table.
        table: &'static str,
        /// Under which key, in hexadecimal.
        key: String,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, offset } => write!(f, "{} at byte {offset}", path.display()),
            Self::Record { partition, table, key } => write!(f, "partition {partition}, {table}/{key}"),
        }
    }
}

impl Verified {
    fn file(&mut self, damage: Damage) {
        let Damage { file, offset, found } = damage;
        self.add(Place::File { path: file, offset }, found);
    }

    fn record(&mut self, partition: Partition, table: Table, key: &[u8], found: String) {
        let key = key.iter().map(|byte| format!("{byte:02x}")).collect();
        self.add(Place::Record { partition, table: table.name(), key }, found);
    }

    fn add(&mut self, place: Place, found: String) {
        self.found += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { place, found });
        }
    }
}

/// Looks over the store at `path`, which no process has open. `progress` hears what is looked at.
/// Blocks.
///
/// Without `accept_loss` nothing that is damaged is changed. A store whose files are whole is opened
/// as a node opens it. With it, what is damaged is dropped, and whoever opens the store next is told
/// that it was put back from a copy ([`Store::is_restored`](crate::Store::is_restored)).
///
/// # Errors
///
/// [`OpenError`] where there is no store, or one that cannot be read at all; with `accept_loss` also
/// where the engine's list of its tables is damaged, for then nobody knows what is lost.
pub fn verify(
    path: &Path,
    config: &Config,
    keys: Keys,
    accept_loss: bool,
    progress: &mut dyn FnMut(&str),
) -> Result<Verified, OpenError> {
    let mut verified = Verified::default();
    let partitions: Vec<PathBuf> = (0..folder::partitions(path)?)
        .map(|partition| folder::partition_path(path, Partition::new(partition)))
        .collect();
    for partition in &partitions {
        look_at_files(partition, config, accept_loss, &mut verified, progress)?;
    }
    if verified.found > 0 && !accept_loss {
        return Ok(verified);
    }
    let store = Embedded::open(path, config, keys)?;
    for shared in &store.partitions {
        records::look(shared, accept_loss, &mut verified, progress)
            .map_err(|cause| OpenError::Engine { path: shared.path.clone(), cause })?;
    }
    drop(store);
    verified.is_complete = true;
    if accept_loss && verified.found > 0 {
        mark_restored(path)?;
        verified.is_mended = true;
    }
    Ok(verified)
}

/// Looks at one partition's files, and with `accept_loss` makes them ones that open.
fn look_at_files(
    partition: &Path,
    config: &Config,
    accept_loss: bool,
    verified: &mut Verified,
    progress: &mut dyn FnMut(&str),
) -> Result<(), OpenError> {
    let io = |cause| OpenError::Io { path: partition.into(), cause };
    let held = database::hold(partition)?;
    progress(&format!("{}: journals", partition.display()));
    let walked = journal::survey(partition)?;
    let damages: Vec<Damage> = walked.iter().flat_map(Walked::damages).collect();
    // Where a journal is damaged it is not what it was closed as either: that says nothing new.
    let closed = if damages.is_empty() { closed::survey(partition, &walked)? } else { None };
    progress(&format!("{}: lists of tables", partition.display()));
    let lists = levels::survey(partition)?;
    let mut tables = Vec::new();
    for table in levels::tables(partition).map_err(io)? {
        progress(&format!("{}", table.path.display()));
        tables.extend(table.damage().map_err(io)?);
    }
    let is_table_damaged = !tables.is_empty();
    let is_journal_damaged = !damages.is_empty() || closed.is_some();
    if accept_loss {
        if let Some(Damage { file, offset, found }) = lists.into_iter().next() {
            let cause = format!(
                "{} is damaged at byte {offset}: {found}; it says what the store is made of, so nobody knows what is \
                 lost: put a backup back",
                file.display()
            );
            return Err(OpenError::Engine { path: partition.into(), cause });
        }
        if is_journal_damaged {
            for journal in walked.iter().filter(|journal| journal.damage().is_some()) {
                journal.keep_whole().map_err(io)?;
            }
            closed::take(partition).map_err(io)?;
        }
        tables.iter().cloned().chain(damages).chain(closed).for_each(|damage| verified.file(damage));
        drop(held);
        if is_table_damaged {
            progress(&format!("{}: writing what can be read anew", partition.display()));
            salvage::rebuild(partition, config)?;
        }
    } else {
        damages.into_iter().chain(closed).chain(lists).chain(tables).for_each(|damage| verified.file(damage));
    }
    Ok(())
}

/// Deletes a folder, if it is there.
fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}
