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
//! keys were used, so no session goes on. Each partition that loses something gets an act: in the
//! commit of what is dropped of its records, or in its first one, where its files were damaged.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use unhidra_core::ids::Partition;
use unhidra_core::time::UnixTime;

use crate::config::Config;
use crate::sealed::Keys;
use crate::table::Table;
use crate::{Act, BrokerTable, Deed, PrekeyRecord, StoredSession};

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

/// That what is damaged is dropped: by whom, and when. It becomes an act
/// ([`Deed::AcceptLoss`]) of each partition that loses something.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Acceptance {
    /// Who says so.
    pub by: Box<str>,
    /// When.
    pub at: UnixTime,
}

/// Reads what the store keeps for others, and does not understand itself.
///
/// Each method says in words what is wrong with a record, if anything is.
pub trait Contents {
    /// A record of the broker's or of an outlet's, by its table and key.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    fn broker(&self, table: BrokerTable, key: &[u8], value: &Bytes) -> Result<(), String>;

    /// A session: the whole, and what its chains have become since.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    fn session(&self, session: &StoredSession) -> Result<(), String>;

    /// What outlives a device's sessions.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    fn peer(&self, bytes: &[u8]) -> Result<(), String>;

    /// A prekey's secret.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    fn prekey(&self, prekey: &PrekeyRecord) -> Result<(), String>;
}

/// Looks over the store at `path`, which no process has open. `contents` reads what the store does not
/// understand, `progress` hears what is looked at. Blocks.
///
/// Without `accepted` nothing that is damaged is changed. A store whose files are whole is opened
/// as a node opens it. With it, what is damaged is dropped, and whoever opens the store next is told
/// that it was put back from a copy ([`Store::restored`](crate::Store::restored)): that is
/// marked before the first change, so that whoever stops half way leaves no store that goes on as if
/// nothing were lost.
///
/// # Errors
///
/// [`OpenError`] where there is no store, or one that cannot be read at all; with `accepted` also
/// where the engine's list of its tables is damaged, for then nobody knows what is lost, and where a
/// table file is damaged in its own list of what is in it, without which nothing of its table reads.
pub fn verify(
    path: &Path,
    config: &Config,
    keys: Keys,
    accepted: Option<&Acceptance>,
    contents: &dyn Contents,
    progress: &mut dyn FnMut(&str),
) -> Result<Verified, OpenError> {
    let mut verified = Verified::default();
    let mut files = Vec::new();
    for partition in (0..folder::partitions(path)?).map(Partition::new) {
        let partition = folder::partition_path(path, partition);
        // What was accepted once is gone on with; nothing that is damaged is changed by it.
        salvage::resume(&partition)?;
        files.push(Files::look(partition, progress)?);
    }
    files.iter().flat_map(Files::damages).for_each(|damage| verified.file(damage.clone()));
    if verified.found > 0 && accepted.is_none() {
        return Ok(verified);
    }
    let mut mending = accepted.map(|acceptance| Mending { path, acceptance, is_marked: false, in_files: Vec::new() });
    for files in files {
        if let Some(mending) = &mut mending {
            files.mend(mending, config, progress)?;
        }
    }
    let store = Embedded::open(path, config, keys)?;
    let mut is_whole = true;
    for shared in &store.partitions {
        is_whole &= records::look(shared, mending.as_mut(), contents, &mut verified, progress)
            .map_err(|cause| OpenError::Engine { path: shared.path.clone(), cause })?;
    }
    drop(store);
    verified.is_complete = true;
    if let Some(mending) = mending.as_mut().filter(|_| verified.found > 0) {
        mending.mark()?;
        verified.is_mended = is_whole;
    }
    Ok(verified)
}

/// What is done with damage that was accepted.
struct Mending<'a> {
    path: &'a Path,
    acceptance: &'a Acceptance,
    /// Whether the store is marked as put back from a copy.
    is_marked: bool,
    /// What was damaged in the files of each partition that was looked at.
    in_files: Vec<Vec<Damage>>,
}

impl Mending<'_> {
    /// Marks the store as put back from a copy: before the first change, and once.
    fn mark(&mut self) -> Result<(), OpenError> {
        if !self.is_marked {
            mark_restored(self.path)?;
            self.is_marked = true;
        }
        Ok(())
    }

    /// The act, where `found` is damaged in a partition, the first of it at `first`.
    fn act(&self, found: u64, first: &str) -> Act {
        let detail = format!("{found} damaged, and dropped; the first: {first}");
        Act::new(self.acceptance.at, &self.acceptance.by, Deed::AcceptLoss, &detail)
    }
}

/// A partition's files, looked at. Nobody opens them meanwhile.
struct Files {
    partition: PathBuf,
    held: fs::File,
    walked: Vec<Walked>,
    journals: Vec<Damage>,
    lists: Vec<Damage>,
    tables: Vec<Damage>,
}

impl Files {
    fn look(partition: PathBuf, progress: &mut dyn FnMut(&str)) -> Result<Self, OpenError> {
        let io = |cause| OpenError::Io { path: partition.clone(), cause };
        let held = database::hold(&partition)?;
        progress(&format!("{}: journals", partition.display()));
        let walked = journal::survey(&partition)?;
        let mut journals: Vec<Damage> = walked.iter().flat_map(Walked::damages).collect();
        // Where a journal is damaged it is not what it was closed as either: that says nothing new.
        if journals.is_empty() {
            journals.extend(closed::survey(&partition, &walked)?);
        }
        progress(&format!("{}: lists of tables", partition.display()));
        let lists = levels::survey(&partition)?;
        let mut tables = Vec::new();
        for table in levels::tables(&partition).map_err(io)? {
            progress(&format!("{}", table.path.display()));
            tables.extend(table.damage().map_err(io)?);
        }
        Ok(Self { partition, held, walked, journals, lists, tables })
    }

    fn damages(&self) -> impl Iterator<Item = &Damage> {
        self.journals.iter().chain(&self.lists).chain(&self.tables)
    }

    /// Makes them files that open.
    fn mend(self, mending: &mut Mending<'_>, config: &Config, progress: &mut dyn FnMut(&str)) -> Result<(), OpenError> {
        let io = |cause| OpenError::Io { path: self.partition.clone(), cause };
        if let Some(Damage { file, offset, found }) = self.lists.first() {
            let cause = format!(
                "{} is damaged at byte {offset}: {found}; it says what the store is made of, so nobody knows what is \
                 lost: put a backup back",
                file.display()
            );
            return Err(OpenError::Engine { path: self.partition, cause });
        }
        mending.in_files.push(self.damages().cloned().collect());
        if self.damages().next().is_some() {
            mending.mark()?;
        }
        if !self.journals.is_empty() {
            for journal in self.walked.iter().filter(|journal| journal.damage().is_some()) {
                journal.keep_whole().map_err(io)?;
            }
            closed::take(&self.partition).map_err(io)?;
        }
        drop(self.held);
        if !self.tables.is_empty() {
            progress(&format!("{}: writing what can be read anew", self.partition.display()));
            salvage::rebuild(&self.partition, config).map_err(|cause| match self.tables.first() {
                Some(Damage { file, offset, .. }) if matches!(cause, OpenError::Engine { .. }) => OpenError::Engine {
                    path: self.partition.clone(),
                    cause: format!(
                        "{} is damaged at byte {offset}, in what the engine reads of a table file before anything \
                         else, so nothing of its table can be read: put a backup back ({cause})",
                        file.display()
                    ),
                },
                _ => cause,
            })?;
        }
        Ok(())
    }
}

/// Deletes a folder, if it is there.
fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}
