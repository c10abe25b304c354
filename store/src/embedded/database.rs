//! One partition's database: fjall, its tables, and their sealing.

use std::fs::{File, TryLockError};
use std::io;
use std::ops::{Bound, ControlFlow};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::rand;
use bytes::Bytes;
use fjall::compaction::Leveled;
use fjall::config::CompressionPolicy;
use fjall::{AbstractTree as _, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Slice, Snapshot};

use crate::ReadError;
use crate::config::Config;
use crate::keyring::Keyring;
use crate::ledger::Writes;
use crate::rows::{KeyVisitor, Order, Rows, Visitor, bounds, damaged, prefix_end};
use crate::sealed::{OPENING_MAX, Sealing, UnsealError};
use crate::table::{self, Table};
use crate::tag::Tag;

use super::folder::{self, OpenError};
use super::ripening::Ripening;
use super::{closed, journal, levels};

/// What stands before the salt of an opening: version, tag, and no key.
const OPENING_HEADER: [u8; 4] = [2, Tag::Opening.as_byte(), 0, 0];

/// How many runs of readings are merged at once. From 20 on the engine slows its writers.
const READINGS_RUNS: u8 = 16;

/// The engine's own bound of a table in memory, in bytes: out of reach, see [`Ripening`].
const NEVER_FULL: u64 = u64::MAX;

/// How many pieces of a table wait in memory to be written out. At 4 the engine holds up its writers, also where
/// its thread has ended and will never write.
const SEALED_MAX: usize = 3;

/// One partition's files, open.
pub(super) struct Database {
    pub(super) fjall: fjall::Database,
    /// In the order of [`Table::ALL`].
    pub(super) tables: Vec<Keyspace>,
    ripening: Mutex<[(Table, Ripening); Table::ALL.len()]>,
}

/// One life of a partition's folder: its number, and what seals its records.
pub(super) struct Opening {
    pub(super) number: u32,
    pub(super) sealing: Sealing,
}

impl Database {
    /// Opens the files of a partition that was made: a marker that is gone is damage, and no reason to make it anew.
    pub(super) fn open_made(path: &Path, config: &Config, partitions: u16) -> Result<Self, OpenError> {
        if !levels::is_partition(path) {
            levels::check(path)?;
        }
        Self::open(path, config, partitions)
    }

    /// Opens the files, and makes what is missing of them. What can be damaged without the engine
    /// noticing is looked at first.
    pub(super) fn open(path: &Path, config: &Config, partitions: u16) -> Result<Self, OpenError> {
        if levels::is_partition(path) {
            let held = hold(path)?;
            let walked = journal::check(path)?;
            if let Some(damage) = closed::survey(path, &walked)? {
                return Err(damage.into());
            }
            levels::check(path)?;
            closed::take(path).map_err(|cause| OpenError::Io { path: path.into(), cause })?;
            drop(held);
        }
        match caught(|| Self::open_engine(path, config, partitions)) {
            Ok(opened) => opened,
            Err(cause) => Err(OpenError::Engine { path: path.into(), cause }),
        }
    }

    fn open_engine(path: &Path, config: &Config, partitions: u16) -> Result<Self, OpenError> {
        let engine = |cause| match cause {
            fjall::Error::Locked => OpenError::InUse { path: path.into() },
            fjall::Error::Io(cause) | fjall::Error::Storage(fjall::LsmError::Io(cause))
                // A file that ends too soon, or says so, is damaged: it does not pass.
                if cause.kind() != io::ErrorKind::UnexpectedEof =>
            {
                OpenError::Io { path: path.into(), cause }
            }
            cause => OpenError::Engine { path: path.into(), cause: cause.to_string() },
        };
        let fjall = fjall::Database::builder(path)
            .cache_size(config.cache_bytes / u64::from(partitions.max(1)))
            .max_journaling_size(config.journal_share(partitions))
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
                .max_memtable_size(NEVER_FULL)
                .data_block_compression_policy(CompressionPolicy::disabled())
                .manual_journal_persist(true)
        };
        // Readings come in the order of time and lie in the order of devices, so that each merge
        // writes all it merges with: few and large merges cost least.
        let readings_bytes = config.readings_share(partitions);
        let readings = || options().compaction_strategy(Arc::new(Leveled::default().with_l0_threshold(READINGS_RUNS)));
        // Each piece that is written out, and each merge, takes several syncs, in which the engine lets
        // nobody add to the table. Where much comes there are to be few of them.
        let busy_bytes = config.sessions_share(partitions);
        let tables = Table::ALL.into_iter().map(|table| match table {
            Table::Readings => fjall.keyspace(table.name(), readings),
            _ => fjall.keyspace(table.name(), options),
        });
        let tables = tables.collect::<Result<_, _>>();
        let tables = tables.map_err(engine)?;
        // The engine syncs what is in the folder of each table, and not that the folder is there.
        let folders = path.join("keyspaces");
        folder::sync_folder(&folders).map_err(|cause| OpenError::Io { path: folders, cause })?;
        let busy_age = Duration::from_secs(config.sessions_memtable_s);
        let readings_age = Duration::from_secs(config.readings_memtable_s);
        let ripening = Mutex::new(Table::ALL.map(|table| {
            let ripening = match table {
                Table::Readings => Ripening::new(readings_bytes, Some(readings_age)),
                Table::Sessions | Table::Log => Ripening::new(busy_bytes, Some(busy_age)),
                _ => Ripening::new(config.memtable_bytes, None),
            };
            (table, ripening)
        }));
        Ok(Self { tables, ripening, fjall })
    }

    /// The newest generation of the key ring that this partition was used with; 0 for none.
    pub(super) fn ring_seen(&self) -> Result<u64, String> {
        let last = self.table(Table::Openings).last_key_value();
        let Some(last) = last else { return Ok(0) };
        let (_, record) = last.into_inner().map_err(|e| e.to_string())?;
        let seen = record.get(OPENING_HEADER.len() + 32..).and_then(|seen| <[u8; 8]>::try_from(seen).ok());
        Ok(seen.map_or(0, u64::from_be_bytes))
    }

    /// Writes down how new a key ring this opening is used with.
    pub(super) fn mark_ring(&self, opening: &Opening) -> Result<(), String> {
        let Some((salt, generation)) = opening.sealing.opening_record() else { return Ok(()) };
        self.put_opening(opening.number, &salt, generation)
    }

    /// Makes an opening's record durable: no record of version 1 of the format has the generation.
    fn put_opening(&self, number: u32, salt: &[u8; 32], generation: u64) -> Result<(), String> {
        let record = [&OPENING_HEADER[..], salt, &generation.to_be_bytes()].concat();
        let mut batch = self.fjall.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(self.table(Table::Openings), number.to_be_bytes(), record);
        batch.commit().map_err(said)
    }

    /// Begins an opening: gives it the next number, and makes its salt durable before its first use.
    pub(super) fn begin(&self, ring: Option<&Arc<Keyring>>) -> Result<Opening, String> {
        let openings = self.table(Table::Openings);
        let last = openings.last_key_value().map(fjall::Guard::key).transpose().map_err(|e| e.to_string())?;
        let last = last.and_then(|key| table::tail::<4>(&key)).map_or(0, u32::from_be_bytes);
        let number = last.saturating_add(1);
        if number > OPENING_MAX {
            return Err(format!("it was opened {OPENING_MAX} times, which is as often as its records can say"));
        }
        let mut salt = [0; 32];
        rand::fill(&mut salt).map_err(|_| "no random bytes for a salt")?;
        self.put_opening(number, &salt, ring.map_or(0, |ring| ring.generation()))?;
        let sealing = match ring {
            None => Sealing::Plain,
            Some(ring) => Sealing::data(Arc::clone(ring), number, salt),
        };
        Ok(Opening { number, sealing })
    }

    /// Commits `writes` in one atomic write. With `sync` it is on the disk when this returns; without,
    /// the system has it, and a process that dies loses nothing.
    pub(super) fn commit(&self, sealing: &Sealing, writes: &Writes, sync: bool) -> Result<(), String> {
        let mode = if sync { PersistMode::SyncData } else { PersistMode::Buffer };
        let mut batch = fjall::OwnedWriteBatch::with_capacity(self.fjall.clone(), writes.len()).durability(Some(mode));
        let mut sealed = Vec::new();
        for ((table, key), value) in writes {
            let keyspace = self.table(*table);
            let record = match value {
                None => {
                    batch.remove(keyspace, key.as_slice());
                    continue;
                }
                // Where the key says all there is nothing to seal.
                Some(value) if table.is_index() => Slice::from(&value[..]),
                Some(value) => {
                    sealing.seal_into(&mut sealed, *table, key, value).map_err(|e| e.to_string())?;
                    Slice::from(&sealed[..])
                }
            };
            batch.insert(keyspace, key.as_slice(), record);
        }
        caught(|| batch.commit())?.map_err(said)?;
        self.write_out_ripe()
    }

    /// Has what is ripe written out, beside what goes on. Where that takes too long, whoever writes waits: of
    /// a table at most four full pieces are in memory.
    fn write_out_ripe(&self) -> Result<(), String> {
        let mut ripening = self.ripening.lock().unwrap_or_else(PoisonError::into_inner);
        for (table, ripening) in ripening.iter_mut() {
            let keyspace = self.table(*table);
            let bytes = keyspace.tree.active_memtable().size();
            if !ripening.is_ripe(bytes) {
                continue;
            }
            let is_behind = || keyspace.tree.sealed_memtable_count() >= SEALED_MAX;
            while is_behind() && ripening.is_full(bytes) {
                // An engine whose thread has ended says so here, and would not write it out any more.
                caught(|| self.fjall.persist(PersistMode::Buffer))?.map_err(said)?;
                #[expect(clippy::disallowed_methods, reason = "the engine has no word for what has been written out")]
                std::thread::sleep(Duration::from_millis(10));
            }
            if !is_behind() {
                caught(|| keyspace.rotate_memtable())?.map_err(said)?;
                ripening.begin_anew();
            }
        }
        Ok(())
    }

    /// Makes durable what was committed without a sync.
    pub(super) fn sync(&self) -> Result<(), String> {
        caught(|| self.fjall.persist(PersistMode::SyncData))?.map_err(said)
    }

    /// A table's records as they lie, for a copy of them.
    pub(super) fn raw_records(
        &self,
        table: Table,
        order: Order,
    ) -> impl Iterator<Item = Result<(Slice, Slice), ReadError>> {
        let mut rows = self.fjall.snapshot().iter(self.table(table));
        std::iter::from_fn(move || {
            let row = next(table, &[], || match order {
                Order::Ascending => rows.next(),
                Order::Descending => rows.next_back(),
            });
            row.transpose()
        })
    }

    /// Writes records as they lay elsewhere, without a sync.
    pub(super) fn put_records<R: AsRef<[u8]>>(&self, table: Table, records: &[(R, R)]) -> Result<(), String> {
        let batch = fjall::OwnedWriteBatch::with_capacity(self.fjall.clone(), records.len());
        let mut batch = batch.durability(Some(PersistMode::Buffer));
        for (key, record) in records {
            batch.insert(self.table(table), key.as_ref(), record.as_ref());
        }
        batch.commit().map_err(said)?;
        self.write_out_ripe()
    }

    /// Closes the files, whatever state the engine is in.
    pub(super) fn close(self) {
        // It may panic over what an earlier panic has left.
        _ = caught(move || drop(self));
    }

    /// A consistent view.
    pub(super) fn view<'a>(&'a self, sealing: &'a Sealing) -> View<'a> {
        View { database: self, sealing, snapshot: self.fjall.snapshot() }
    }

    pub(super) fn table(&self, table: Table) -> &Keyspace {
        &self.tables[table.index()]
    }
}

/// An error of the engine's, for people.
fn said(error: fjall::Error) -> String {
    match error {
        // It says no more than that.
        fjall::Error::Poisoned => {
            "a thread of the engine's own has failed, and said why in the log; nothing more is taken".to_owned()
        }
        error => error.to_string(),
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
    Engine(ReadError),
    Record(UnsealError),
}

impl From<UnsealError> for Failure {
    fn from(cause: UnsealError) -> Self {
        Self::Record(cause)
    }
}

impl View<'_> {
    /// What the partition takes of the disk.
    pub(super) fn disk_bytes(&self) -> Result<u64, ReadError> {
        engine(|| self.database.fjall.disk_space())
    }

    /// Writes out and compacts rows and log as a whole. The files cannot be closed meanwhile.
    pub(super) fn compact(&self) -> Result<(), ReadError> {
        for table in [Table::Readings, Table::Log] {
            let keyspace = self.database.table(table);
            engine(|| keyspace.rotate_memtable_and_wait().and_then(|()| keyspace.major_compact()))?;
        }
        Ok(())
    }

    /// Opens a record.
    pub(super) fn open(&self, table: Table, key: &[u8], record: &[u8]) -> Result<Bytes, ReadError> {
        if table.is_index() {
            return Ok(Bytes::new());
        }
        let opened = self.sealing.open(table, key, record, |opening| self.salt(opening));
        opened.map_err(|failure| named(table, key, failure))
    }

    fn salt(&self, opening: u32) -> Result<Option<[u8; 32]>, Failure> {
        let openings = self.database.table(Table::Openings);
        let key = opening.to_be_bytes();
        let salt = read(Table::Openings, &key, || self.snapshot.get(openings, key)).map_err(Failure::Engine)?;
        Ok(salt.and_then(|record| salt_in(&record)))
    }

    /// Whether there is a record, whatever it says.
    pub(super) fn has(&self, table: Table, key: &[u8]) -> Result<bool, ReadError> {
        read(table, key, || self.snapshot.contains_key(self.database.table(table), key))
    }

    /// A table's records as they lie, in the order of their keys.
    pub(super) fn records(&self, table: Table) -> impl Iterator<Item = Result<(Slice, Slice), ReadError>> {
        let mut rows = self.snapshot.iter(self.database.table(table));
        std::iter::from_fn(move || next(table, &[], || rows.next()).transpose())
    }

    /// Shows `visit` a table's records as they lie, from the first key after `after` on, until it breaks.
    pub(super) fn records_after(
        &self,
        table: Table,
        after: Option<&[u8]>,
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rows = self.snapshot.range::<&[u8], _>(self.database.table(table), (from, Bound::Unbounded));
        while let Some((key, record)) = next(table, after.unwrap_or_default(), || rows.next())? {
            if visit(&key, &record).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Opens a record of whatever version.
    pub(super) fn open_any(&self, table: Table, key: &[u8], record: &[u8]) -> Result<Bytes, ReadError> {
        let opened = self.sealing.open_any(table, key, record, |opening| self.salt(opening));
        opened.map_err(|failure| named(table, key, failure))
    }
}

impl Rows for View<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        let record = read(table, key, || self.snapshot.get(self.database.table(table), key))?;
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
        let end = prefix_end(prefix);
        let run = bounds(prefix, end.as_deref(), after, order);
        let mut rows = self.snapshot.range::<&[u8], _>(self.database.table(table), run);
        while let Some((key, record)) = next(table, after.unwrap_or(prefix), || match order {
            Order::Ascending => rows.next(),
            Order::Descending => rows.next_back(),
        })? {
            if visit(&key, self.open(table, &key, &record)?)? == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    fn keys(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        order: Order,
        visit: &mut KeyVisitor<'_>,
    ) -> Result<(), ReadError> {
        let end = prefix_end(prefix);
        let run = bounds(prefix, end.as_deref(), after, order);
        let mut rows = self.snapshot.range::<&[u8], _>(self.database.table(table), run);
        while let Some((key, _)) = next(table, after.unwrap_or(prefix), || match order {
            Order::Ascending => rows.next(),
            Order::Descending => rows.next_back(),
        })? {
            if visit(&key) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }
}

/// The salt in an opening's record.
pub(super) fn salt_in(record: &[u8]) -> Option<[u8; 32]> {
    // Version 1 wrote the salt alone.
    match record.strip_prefix(&OPENING_HEADER[..]) {
        Some(rest) if record.len() > 32 => rest.first_chunk::<32>().copied(),
        _ => record.try_into().ok(),
    }
}

/// Says of which record it is.
fn named(table: Table, key: &[u8], failure: Failure) -> ReadError {
    match failure {
        Failure::Engine(cause) => cause,
        Failure::Record(cause) => damaged(table, key, cause),
    }
}

/// Holds a partition as the engine does, so that nobody has it open while its files are looked at.
pub(super) fn hold(path: &Path) -> Result<File, OpenError> {
    let io = |cause| OpenError::Io { path: path.into(), cause };
    let lock =
        File::options().read(true).write(true).create(true).truncate(false).open(path.join("lock")).map_err(io)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: path.into() }),
        Err(TryLockError::Error(cause)) => Err(io(cause)),
    }
}

/// Runs something of the engine's. A panic in it is a failure like another.
pub(super) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    // Nothing of it is used afterwards but to be closed and opened anew, or to be read, which
    // changes nothing.
    panic::catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let words = panic.downcast_ref::<&str>().map(|words| (*words).to_owned());
        let words = words.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        format!("the engine panicked: {words}")
    })
}

/// Asks the engine something that is about no record.
fn engine<T>(ask: impl FnOnce() -> fjall::Result<T>) -> Result<T, ReadError> {
    caught(ask).map_err(ReadError::Engine)?.map_err(|cause| ReadError::Engine(cause.to_string()))
}

/// Reads one record of the engine's, and says of which it was where it fails.
fn read<T>(table: Table, key: &[u8], read: impl FnOnce() -> fjall::Result<T>) -> Result<T, ReadError> {
    let read = caught(read).map_err(ReadError::Engine)?;
    read.map_err(|cause| match cause {
        fjall::Error::Storage(fjall::LsmError::Io(cause)) | fjall::Error::Io(cause)
            if cause.kind() != io::ErrorKind::UnexpectedEof =>
        {
            ReadError::Engine(cause.to_string())
        }
        fjall::Error::Poisoned | fjall::Error::KeyspaceDeleted | fjall::Error::Locked => {
            ReadError::Engine(cause.to_string())
        }
        // A block is not as it was written.
        cause => damaged(table, key, cause),
    })
}

/// Reads the next row of a scan that began at `from`.
fn next(
    table: Table,
    from: &[u8],
    next: impl FnOnce() -> Option<fjall::Guard>,
) -> Result<Option<(Slice, Slice)>, ReadError> {
    read(table, from, || next().map(fjall::Guard::into_inner).transpose())
}

/// Records as they lie, for tests of what is damaged.
#[cfg(test)]
mod raw {
    use super::{Readable, Table, View};

    impl View<'_> {
        pub(in crate::embedded) fn raw(&self, table: Table, key: &[u8]) -> Vec<u8> {
            self.snapshot.get(self.database.table(table), key).unwrap().unwrap().to_vec()
        }

        pub(in crate::embedded) fn table_files(&self, table: Table) -> usize {
            self.database.table(table).table_count()
        }

        pub(in crate::embedded) fn put_raw(&self, table: Table, key: &[u8], record: &[u8]) {
            let mut batch = self.database.fjall.batch().durability(Some(super::PersistMode::SyncAll));
            batch.insert(self.database.table(table), key, record);
            batch.commit().unwrap();
        }
    }
}

#[cfg(test)]
mod tests;
