//! One partition's database: fjall, its tables, and their sealing.

use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::rand;
use bytes::Bytes;
use fjall::config::CompressionPolicy;
use fjall::{Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot};

use crate::ReadError;
use crate::config::Config;
use crate::ledger::Writes;
use crate::rows::{Order, Rows, Visitor, damaged, prefix_end};
use crate::sealed::{DataKey, OPENING_MAX, Sealing, UnsealError};
use crate::table::{self, Table};

use super::folder::OpenError;

/// One partition's files, open.
pub(super) struct Database {
    fjall: fjall::Database,
    /// In the order of [`Table::ALL`].
    tables: Vec<Keyspace>,
}

/// One life of a partition's folder: its number, and what seals its records.
pub(super) struct Opening {
    pub(super) number: u32,
    pub(super) sealing: Sealing,
}

impl Database {
    /// Opens the files, and makes what is missing of them.
    pub(super) fn open(path: &Path, config: &Config, partitions: u16) -> Result<Self, OpenError> {
        let engine = |cause| match cause {
            fjall::Error::Locked => OpenError::InUse { path: path.into() },
            fjall::Error::Io(cause) => OpenError::Io { path: path.into(), cause },
            cause => OpenError::Engine { path: path.into(), cause: cause.to_string() },
        };
        let fjall = fjall::Database::builder(path)
            .cache_size(config.cache_bytes / u64::from(partitions.max(1)))
            .max_journaling_size(config.journal_bytes)
            .worker_threads(config.compaction_threads)
            .max_cached_files(Some(config.open_files))
            // Sealed records do not compress.
            .journal_compression(fjall::CompressionType::None)
            // The writer says of each commit how durable it is.
            .manual_journal_persist(true)
            .open()
            .map_err(engine)?;
        let options = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(config.memtable_bytes)
                .data_block_compression_policy(CompressionPolicy::disabled())
                .manual_journal_persist(true)
        };
        let tables =
            Table::ALL.into_iter().map(|table| fjall.keyspace(table.name(), options)).collect::<Result<_, _>>();
        Ok(Self { tables: tables.map_err(engine)?, fjall })
    }

    /// Begins an opening: gives it the next number, and makes its salt durable before its first use.
    pub(super) fn begin(&self, data: Option<&Arc<DataKey>>) -> Result<Opening, String> {
        let openings = self.table(Table::Openings);
        let last = openings.last_key_value().map(fjall::Guard::key).transpose().map_err(|e| e.to_string())?;
        let last = last.and_then(|key| table::tail::<4>(&key)).map_or(0, u32::from_be_bytes);
        let number = last.saturating_add(1);
        if number > OPENING_MAX {
            return Err(format!("it was opened {OPENING_MAX} times, which is as often as its records can say"));
        }
        let mut salt = [0; 32];
        rand::fill(&mut salt).map_err(|_| "no random bytes for a salt")?;
        let mut batch = self.fjall.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(openings, number.to_be_bytes(), salt);
        batch.commit().map_err(|e| e.to_string())?;
        let sealing = match data {
            None => Sealing::Plain,
            Some(data) => Sealing::data(Arc::clone(data), number, &salt).ok_or("the cipher takes no key")?,
        };
        Ok(Opening { number, sealing })
    }

    /// Commits `writes` in one atomic, durable write.
    pub(super) fn commit(&self, sealing: &Sealing, writes: &Writes) -> Result<(), String> {
        let mut batch = fjall::OwnedWriteBatch::with_capacity(self.fjall.clone(), writes.len())
            .durability(Some(PersistMode::SyncData));
        for ((table, key), value) in writes {
            let keyspace = self.table(*table);
            match value {
                None => batch.remove(keyspace, key.as_slice()),
                // Where the key says all there is nothing to seal.
                Some(value) if table.is_index() => batch.insert(keyspace, key.as_slice(), &value[..]),
                Some(value) => {
                    let record = sealing.seal(*table, key, value).map_err(|e| e.to_string())?;
                    batch.insert(keyspace, key.as_slice(), record);
                }
            }
        }
        batch.commit().map_err(|e| e.to_string())
    }

    /// A consistent view.
    pub(super) fn view<'a>(&'a self, sealing: &'a Sealing) -> View<'a> {
        View { database: self, sealing, snapshot: self.fjall.snapshot() }
    }

    fn table(&self, table: Table) -> &Keyspace {
        &self.tables[table.index()]
    }
}

/// One consistent view of a partition.
pub(super) struct View<'a> {
    database: &'a Database,
    sealing: &'a Sealing,
    snapshot: Snapshot,
}

/// What goes wrong while a record is opened.
enum Failure {
    Engine(String),
    Record(UnsealError),
}

impl From<UnsealError> for Failure {
    fn from(cause: UnsealError) -> Self {
        Self::Record(cause)
    }
}

impl View<'_> {
    fn open(&self, table: Table, key: &[u8], record: &[u8]) -> Result<Bytes, ReadError> {
        if table.is_index() {
            return Ok(Bytes::new());
        }
        let opened = self.sealing.open(table, key, record, |opening| self.salt(opening));
        opened.map_err(|failure| match failure {
            Failure::Engine(cause) => ReadError::Engine(cause),
            Failure::Record(cause) => damaged(table, key, cause),
        })
    }

    fn salt(&self, opening: u32) -> Result<Option<[u8; 32]>, Failure> {
        let openings = self.database.table(Table::Openings);
        let salt = self.snapshot.get(openings, opening.to_be_bytes()).map_err(|e| Failure::Engine(e.to_string()))?;
        Ok(salt.and_then(|salt| salt[..].try_into().ok()))
    }
}

impl Rows for View<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        let record = self.snapshot.get(self.database.table(table), key).map_err(engine)?;
        record.map(|record| self.open(table, key, &record)).transpose()
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        order: Order,
        visit: &mut Visitor<'_>,
    ) -> Result<(), ReadError> {
        let from = after.map_or(Bound::Included(prefix), Bound::Excluded);
        let end = prefix_end(prefix);
        let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut rows = self.snapshot.range::<&[u8], _>(self.database.table(table), (from, to));
        while let Some(row) = match order {
            Order::Ascending => rows.next(),
            Order::Descending => rows.next_back(),
        } {
            let (key, record) = row.into_inner().map_err(engine)?;
            if visit(&key, self.open(table, &key, &record)?)? == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }
}

fn engine(cause: fjall::Error) -> ReadError {
    ReadError::Engine(cause.to_string())
}

/// Records as they lie, for tests of what is damaged.
#[cfg(test)]
mod raw {
    use super::{Readable, Table, View};

    impl View<'_> {
        pub(in crate::embedded) fn raw(&self, table: Table, key: &[u8]) -> Vec<u8> {
            self.snapshot.get(self.database.table(table), key).unwrap().unwrap().to_vec()
        }

        pub(in crate::embedded) fn put_raw(&self, table: Table, key: &[u8], record: &[u8]) {
            self.database.table(table).insert(key, record).unwrap();
        }
    }
}
