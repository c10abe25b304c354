//! A copy of all partitions, read a piece at a time while the store goes on; and a store made of one.
//!
//! Records are copied as they lie, sealed, so a copy is as safe as the folder it was made of. Each
//! partition is seen as it was at one instant. A store that has to close its files, after a commit
//! that failed, takes them from the copy too, which then ends with an error.

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use fjall::{Keyspace, PersistMode, Readable, Snapshot};

use super::database::Database;
use super::folder::{OpenError, partition_path};
use crate::ReadError;
use crate::config::Config;
use crate::table::Table;
use unhidra_core::ids::Partition;

/// Some records of one table of one partition, in the order of their keys.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Piece {
    /// Whose.
    pub partition: u16,
    /// Which table, by its number on the disk.
    pub table: u8,
    /// Keys, and records as they lie.
    pub records: Vec<(Bytes, Bytes)>,
}

/// One partition's files, as long as they may be read.
pub(super) struct Held {
    pub(super) snapshot: Snapshot,
    /// In the order of [`Table::ALL`].
    pub(super) tables: Vec<Keyspace>,
}

/// What a copy and the partition it reads from share: whoever closes the files takes them away.
pub(super) type Lent = Arc<Mutex<Option<Held>>>;

/// A copy under way.
pub struct Copying {
    partitions: Vec<Lent>,
    partition: usize,
    table: usize,
    after: Option<Vec<u8>>,
}

impl std::fmt::Debug for Copying {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Copying").field("partition", &self.partition).finish_non_exhaustive()
    }
}

impl Copying {
    pub(super) const fn new(partitions: Vec<Lent>) -> Self {
        Self { partitions, partition: 0, table: 0, after: None }
    }

    /// The next piece, of about `max` bytes or of one record; `None` at the end. Blocks.
    ///
    /// # Errors
    ///
    /// [`ReadError::Unavailable`] where the store has closed its files; [`ReadError::Engine`].
    pub fn read(&mut self, max: usize) -> Result<Option<Piece>, ReadError> {
        while let Some(lent) = self.partitions.get(self.partition) {
            let Some(table) = order().nth(self.table) else {
                // Nothing more is read from it: whatever it holds up may go.
                lent.lock().unwrap_or_else(PoisonError::into_inner).take();
                (self.partition, self.table) = (self.partition + 1, 0);
                continue;
            };
            let records = {
                let held = lent.lock().unwrap_or_else(PoisonError::into_inner);
                let held = held.as_ref().ok_or(ReadError::Unavailable)?;
                records(held, table, self.after.as_deref(), max)?
            };
            let Some((last, _)) = records.last() else {
                (self.table, self.after) = (self.table + 1, None);
                continue;
            };
            self.after = Some(last.to_vec());
            let partition = u16::try_from(self.partition).unwrap_or(u16::MAX);
            return Ok(Some(Piece { partition, table: table.as_byte(), records }));
        }
        Ok(None)
    }
}

/// The tables in the order of a copy: what opens records comes before them.
fn order() -> impl Iterator<Item = Table> {
    let others = Table::ALL.into_iter().filter(|table| *table != Table::Openings);
    std::iter::once(Table::Openings).chain(others)
}

fn records(held: &Held, table: Table, after: Option<&[u8]>, max: usize) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
    let engine = |cause: fjall::Error| ReadError::Engine(cause.to_string());
    let Some(keyspace) = held.tables.get(table.index()) else { return Ok(Vec::new()) };
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut records = Vec::new();
    let mut bytes = 0;
    for row in held.snapshot.range::<&[u8], _>(keyspace, (from, Bound::Unbounded)) {
        let (key, record) = row.into_inner().map_err(engine)?;
        bytes += key.len() + record.len();
        records.push((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&record)));
        if bytes >= max {
            break;
        }
    }
    Ok(records)
}

/// A store's folder while it is made of a copy. Unless it is [finished](Self::finish), what there is
/// of it is no store.
pub struct Restoring {
    path: PathBuf,
    databases: Vec<Database>,
}

impl std::fmt::Debug for Restoring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Restoring").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Restoring {
    /// Makes the files of a store with as many partitions, in a folder that is there and empty. Its
    /// format file, and its key ring, are the caller's to put there.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn begin(path: &Path, config: &Config, partitions: u16) -> Result<Self, OpenError> {
        config.check()?;
        let open = |partition| Database::open(&partition_path(path, Partition::new(partition)), config, partitions);
        let databases = (0..partitions).map(open).collect::<Result<_, _>>()?;
        Ok(Self { path: path.to_owned(), databases })
    }

    /// Writes a piece. It is durable once all is finished. Blocks.
    ///
    /// # Errors
    ///
    /// [`OpenError::Engine`] where the files take it not, or it is of a partition or a table that
    /// there is none of.
    pub fn put(&mut self, piece: Piece) -> Result<(), OpenError> {
        let engine = |cause: String| OpenError::Engine { path: self.path.clone(), cause };
        let Piece { partition, table, records } = piece;
        let database = self.databases.get(usize::from(partition));
        let database = database.ok_or_else(|| engine(format!("the copy has a partition {partition}")))?;
        let found = Table::ALL.into_iter().find(|known| known.as_byte() == table);
        let found = found.ok_or_else(|| engine(format!("the copy has a table {table}, of a newer version")))?;
        database.put_records(found, &records).map_err(engine)
    }

    /// Makes all of it durable, and closes the files.
    ///
    /// # Errors
    ///
    /// [`OpenError::Engine`].
    pub fn finish(self) -> Result<(), OpenError> {
        for database in &self.databases {
            let engine = |cause| OpenError::Engine { path: self.path.clone(), cause };
            database.persist().map_err(engine)?;
        }
        Ok(())
    }
}

impl Database {
    /// What a copy reads from.
    pub(super) fn lend(&self) -> Held {
        Held { snapshot: self.fjall.snapshot(), tables: self.tables.clone() }
    }

    fn persist(&self) -> Result<(), String> {
        self.fjall.persist(PersistMode::SyncAll).map_err(|e| e.to_string())
    }
}
