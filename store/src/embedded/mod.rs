//! The default engine, over fjall: a folder of files that one process has open.
//!
//! ```text
//! submit -> queue (bounded) -> writer, one OS thread a partition -> fjall, fdatasync -> done
//! read   -> semaphore       -> a thread of the blocking pool     -> fjall, a snapshot
//! ```
//!
//! Each partition is a database of its own: a journal, and so a lock and a sync, of its own. The
//! node's signed prekeys and the broker's records lie in the partition whose batch wrote them;
//! write one key through the same partition always. Reads look in all.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore, watch};
use tracing::warn;
use unhidra_core::command::Command;
use unhidra_core::device::Device;
use unhidra_core::ids::{CommandId, DeviceId, DeviceNumber, Epoch, Fence, Offset, Partition};
use unhidra_core::message::Reading;
use unhidra_core::setting::Setting;
use unhidra_core::time::UnixTime;

use crate::config::{Config, Durability};
use crate::health::Board;
use crate::keyring::Keyring;
use crate::metrics::Metrics;
use crate::partition::partition_of;
use crate::sealed::Keys;
use crate::{
    ActRow, Batch, Bounds, BoxFuture, BrokerTable, DeviceRecords, Full, Health, Limit, OLDEST_LOOK, Oldest, Overdue,
    Page, PrekeyRecord, ReadError, Readable, Restored, RestoredError, Store, Stored, Tally, Usage, Waits, query,
    readable, retention,
};

use self::database::{Database, View};
use self::shared::Shared;

mod boot;
mod checking;
mod closed;
mod committer;
mod copy;
mod database;
#[cfg(any(test, feature = "faults"))]
mod faults;
mod folder;
mod journal;
mod keys;
mod levels;
mod migration;
mod ripening;
mod shared;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

pub use self::checking::Checking;
pub use self::copy::{Copying, Piece, Restoring};
pub use self::folder::{OpenError, mark_restored};
pub(crate) use self::folder::{is_folder, sync_parent};
pub use self::keys::Resealable;
pub use self::verify::{Acceptance, Contents, FINDINGS_MAX, Finding, Place, Verified, verify};

/// The engine over fjall.
pub struct Embedded {
    partitions: Vec<Arc<Shared>>,
    writers: Arc<Mutex<Vec<JoinHandle<bool>>>>,
    path: PathBuf,
    epoch: Epoch,
    restored: Option<Restored>,
    /// What follows from that is done.
    is_settled: AtomicBool,
    /// `None` in a plain folder.
    ring: Option<Arc<Keyring>>,
    board: Arc<Board>,
    reads: Arc<Semaphore>,
    metrics: Metrics,
}

impl Embedded {
    /// Opens the folder at `path`, makes it where it is missing, and starts its writers. Blocks
    /// until what is on the disk has been read back.
    ///
    /// # Errors
    ///
    /// [`OpenError`] says what the folder is and what was allowed.
    pub fn open(path: &Path, config: &Config, keys: Keys) -> Result<Self, OpenError> {
        let (format, ring) = folder::prepare(path, config, keys)?;
        let metrics = Metrics::new();
        let format = boot::begin(path, format, config.durability, &metrics)?;
        let board = Arc::new(Board::new(format.partitions));
        let mut partitions = Vec::new();
        let mut ledgers = Vec::new();
        for partition in (0..format.partitions).map(Partition::new) {
            let path = folder::partition_path(path, partition);
            let engine = |cause: String| OpenError::Engine { path: path.clone(), cause };
            if !path.is_dir() {
                let cause = match path.with_extension("lost").is_dir() {
                    true => {
                        "it is missing: `unhidra store verify --accept-loss` was stopped in the middle; run it again"
                    }
                    false => "it is missing",
                };
                return Err(engine(cause.into()));
            }
            folder::write_anew(&path).map_err(|cause| OpenError::Io { path: path.clone(), cause })?;
            let database = Database::open_made(&path, config, format.partitions)?;
            if let Some(ring) = &ring {
                ring.check_seen(database.ring_seen().map_err(&engine)?)?;
            }
            let opening = database.begin(ring.as_ref()).map_err(&engine)?;
            if format.version != folder::VERSION {
                let records = migration::migrate(&database, &opening).map_err(engine)?;
                tracing::info!(%partition, records, found = format.version, "session records written in the present format");
            }
            let files = (database, opening);
            let shared = Shared::new(
                partition,
                format.partitions,
                path.clone(),
                config,
                files,
                Arc::clone(&board),
                metrics.clone(),
            );
            let ledger = shared.ledger().map_err(|e| engine(e.to_string()))?;
            shared.committed.send_replace(ledger.newest());
            partitions.push(Arc::new(shared));
            ledgers.push(ledger);
        }
        if format.version != folder::VERSION {
            folder::settle_version(path)?;
        }
        if config.durability == Durability::Fsync {
            // Each opening's record was synced, and with it all that was committed before it.
            boot::settle(path).map_err(|cause| OpenError::Io { path: path.into(), cause })?;
        }
        // The writers start once everything is read, so that no error leaves one behind.
        let writers = Arc::new(Mutex::new(Vec::new()));
        let store = Self {
            partitions,
            writers: Arc::clone(&writers),
            path: path.to_owned(),
            epoch: format.epoch,
            restored: format.restored,
            is_settled: AtomicBool::new(false),
            ring,
            board,
            reads: Arc::new(Semaphore::new(config.reads.min(Semaphore::MAX_PERMITS))),
            metrics,
        };
        let no_thread = |cause| OpenError::Io { path: path.into(), cause };
        let named = |what: &str, partition: Partition| thread::Builder::new().name(format!("{what}-{partition}"));
        for (shared, ledger) in store.partitions.iter().zip(ledgers) {
            let (committer, groups) = mpsc::sync_channel(1);
            let (writing, committing) = (Arc::clone(shared), Arc::clone(shared));
            // Nobody joins it: it ends when its writer has, and the files are closed then.
            let thread = named("commit", shared.partition).spawn(move || committer::run(&committing, &groups));
            thread.map_err(no_thread)?;
            let thread = named("store", shared.partition).spawn(move || writer::run(&writing, ledger, committer));
            let writer = thread.map_err(no_thread)?;
            writers.lock().unwrap_or_else(PoisonError::into_inner).push(writer);
        }
        Ok(store)
    }

    /// Begins a copy of all partitions, each as it is now.
    ///
    /// # Errors
    ///
    /// [`ReadError::Unavailable`] where the store does not serve now.
    pub fn copy(&self) -> Result<Copying, ReadError> {
        self.partitions.iter().map(|shared| shared.lend()).collect::<Result<_, _>>().map(Copying::new)
    }

    /// What it counts.
    #[must_use]
    pub const fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn shared(&self, partition: Partition) -> &Arc<Shared> {
        let shared = self.partitions.get(usize::from(partition.get()));
        assert!(shared.is_some(), "partition {partition} of {}", self.partitions.len());
        &self.partitions[usize::from(partition.get())]
    }

    /// Runs a read of one partition on a thread that may block.
    fn read<T: Send + 'static>(
        &self,
        partition: Partition,
        read: impl FnOnce(&View<'_>, Partition) -> Result<T, ReadError> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, ReadError>> {
        let shared = Arc::clone(self.shared(partition));
        Box::pin(async move {
            let permit = Arc::clone(&self.reads).acquire_owned().await.map_err(|_| ReadError::Unavailable)?;
            let reading = tokio::task::spawn_blocking(move || {
                let result = shared.read(|view| read(view, partition));
                drop(permit);
                result
            });
            reading.await.unwrap_or_else(|e| Err(ReadError::Engine(e.to_string())))
        })
    }

    fn all(&self) -> impl Iterator<Item = Partition> + use<> {
        (0..self.partitions()).map(Partition::new)
    }
}

impl Store for Embedded {
    fn submit(&self, batch: Batch) -> Result<(), Full> {
        self.shared(batch.partition).submit(batch)
    }

    fn room(&self, partition: Partition) -> Arc<Notify> {
        Arc::clone(&self.shared(partition).room)
    }

    fn session(&self, device: &DeviceId) -> BoxFuture<'_, Result<Option<Stored>, ReadError>> {
        let device = *device;
        self.read(self.partition_of(&device), move |view, _| query::session(view, &device))
    }

    fn history(&self, device: &DeviceId, after: Offset, max: Limit) -> BoxFuture<'_, Result<Page<Reading>, ReadError>> {
        let device = *device;
        self.read(self.partition_of(&device), move |view, partition| {
            query::history(view, partition, &device, after, max)
        })
    }

    fn readable_history(
        &self,
        device: &DeviceId,
        after: Offset,
        max: Limit,
    ) -> BoxFuture<'_, Result<Readable, ReadError>> {
        let device = *device;
        self.read(self.partition_of(&device), move |view, partition| {
            readable::history(view, partition, &device, after, max)
        })
    }

    fn readable_newest(&self, device: &DeviceId, max: Limit) -> BoxFuture<'_, Result<Readable, ReadError>> {
        let device = *device;
        self.read(self.partition_of(&device), move |view, partition| readable::newest(view, partition, &device, max))
    }

    fn newest(&self, device: &DeviceId, max: Limit) -> BoxFuture<'_, Result<Page<Reading>, ReadError>> {
        let device = *device;
        self.read(self.partition_of(&device), move |view, partition| query::newest(view, partition, &device, max))
    }

    fn log(&self, partition: Partition, after: Offset, max: Limit) -> BoxFuture<'_, Result<Page<Reading>, ReadError>> {
        self.read(partition, move |view, partition| query::log(view, partition, after, max))
    }

    fn readable_log(
        &self,
        partition: Partition,
        since: Offset,
        after: Offset,
        max: Limit,
    ) -> BoxFuture<'_, Result<Readable, ReadError>> {
        self.read(partition, move |view, partition| readable::log(view, partition, since, after, max))
    }

    fn overdue(
        &self,
        device: &DeviceId,
        bounds: Bounds,
        now: UnixTime,
        tally: Option<Tally>,
        max: usize,
    ) -> BoxFuture<'_, Result<Overdue, ReadError>> {
        let device = *device;
        self.read(self.partition_of(&device), move |view, _| {
            retention::overdue(view, &device, &bounds, now, tally, max)
        })
    }

    fn oldest(&self, partition: Partition, after: Offset, max: usize) -> BoxFuture<'_, Result<Oldest, ReadError>> {
        self.read(partition, move |view, _| retention::oldest(view, after, max))
    }

    fn ended_commands(
        &self,
        device: &DeviceId,
        before: UnixTime,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<CommandId>, ReadError>> {
        let device = *device;
        self.read(self.partition_of(&device), move |view, _| query::ended_commands(view, &device, before, max))
    }

    fn disk_bytes(&self) -> BoxFuture<'_, Result<u64, ReadError>> {
        Box::pin(async move {
            let mut bytes = 0;
            for partition in self.all() {
                bytes += self.read(partition, |view, _| view.disk_bytes()).await?;
            }
            Ok(bytes)
        })
    }

    fn compact(&self) -> BoxFuture<'_, Result<(), ReadError>> {
        Box::pin(async move {
            for partition in self.all() {
                self.read(partition, |view, _| view.compact()).await?;
            }
            Ok(())
        })
    }

    fn usage(&self, partition: Partition) -> BoxFuture<'_, Result<Usage, ReadError>> {
        self.read(partition, |view, _| {
            let oldest = retention::oldest_at(view, OLDEST_LOOK)?;
            Ok(Usage { disk_bytes: view.disk_bytes()?, oldest, newest: query::log_end(view)? })
        })
    }

    fn hold_rows(&self, why: Option<String>) {
        self.partitions.iter().for_each(|shared| shared.hold_rows(why.is_some()));
        self.board.set_full(why);
    }

    fn committed(&self, partition: Partition) -> watch::Receiver<Offset> {
        self.shared(partition).committed.subscribe()
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.board.subscribe()
    }

    fn device(&self, device: &DeviceId) -> BoxFuture<'_, Result<Option<Device>, ReadError>> {
        let device = *device;
        self.read(self.partition_of(&device), move |view, _| query::device(view, &device))
    }

    fn devices(&self, after: Option<&DeviceId>, max: usize) -> BoxFuture<'_, Result<Page<Device>, ReadError>> {
        let after = after.copied();
        Box::pin(async move {
            let mut pages = Vec::new();
            for partition in self.all() {
                pages.push(self.read(partition, move |view, _| query::devices(view, after.as_ref(), max)).await?);
            }
            Ok(query::merge_devices(pages, max))
        })
    }

    fn command(&self, device: &DeviceId, id: &CommandId) -> BoxFuture<'_, Result<Option<Command>, ReadError>> {
        let (device, id) = (*device, *id);
        self.read(self.partition_of(&device), move |view, _| query::command(view, &device, &id))
    }

    fn open_commands(&self, device: &DeviceId) -> BoxFuture<'_, Result<Vec<Command>, ReadError>> {
        let device = *device;
        self.read(self.partition_of(&device), move |view, _| query::open_commands(view, &device))
    }

    fn commands(&self, device: &DeviceId, max: usize) -> BoxFuture<'_, Result<Vec<Command>, ReadError>> {
        let device = *device;
        self.read(self.partition_of(&device), move |view, _| query::commands(view, &device, max))
    }

    fn waits(
        &self,
        partition: Partition,
        after: DeviceNumber,
        max: usize,
    ) -> BoxFuture<'_, Result<Page<Waits>, ReadError>> {
        self.read(partition, move |view, _| query::waits(view, after, max))
    }

    fn reading_ids(&self, device: &DeviceId, max: usize) -> BoxFuture<'_, Result<Vec<(Offset, u64)>, ReadError>> {
        let device = *device;
        self.read(self.partition_of(&device), move |view, partition| {
            crate::reading_ids::of(view, partition, &device, max)
        })
    }

    fn settings(&self, device: &DeviceId) -> BoxFuture<'_, Result<Vec<Setting>, ReadError>> {
        let device = *device;
        self.read(self.partition_of(&device), move |view, _| query::settings(view, &device))
    }

    fn signed_prekeys(&self) -> BoxFuture<'_, Result<Vec<PrekeyRecord>, ReadError>> {
        Box::pin(async move {
            let mut signed = Vec::new();
            for partition in self.all() {
                signed.push(self.read(partition, |view, _| query::signed_prekeys(view)).await?);
            }
            Ok(query::merge_prekeys(signed, Vec::new()))
        })
    }

    fn prekeys(&self, device: &DeviceId) -> BoxFuture<'_, Result<Vec<PrekeyRecord>, ReadError>> {
        let device = *device;
        Box::pin(async move {
            let mut signed = Vec::new();
            for partition in self.all() {
                signed.push(self.read(partition, |view, _| query::signed_prekeys(view)).await?);
            }
            let own = self.read(self.partition_of(&device), move |view, _| query::one_time_prekeys(view, &device));
            Ok(query::merge_prekeys(signed, own.await?))
        })
    }

    fn records(&self, device: &DeviceId, rows: usize) -> BoxFuture<'_, Result<DeviceRecords, ReadError>> {
        let (device, home) = (*device, self.partition_of(device));
        Box::pin(async move {
            // A thread for each read would cost more than the reads.
            let read = self.read(home, move |view, partition| {
                Ok((query::records(view, partition, &device, rows)?, query::signed_prekeys(view)?))
            });
            let (mut records, signed) = read.await?;
            let mut signed = vec![signed];
            for partition in self.all().filter(|partition| *partition != home) {
                signed.push(self.read(partition, |view, _| query::signed_prekeys(view)).await?);
            }
            records.prekeys = query::merge_prekeys(signed, records.prekeys);
            Ok(records)
        })
    }

    fn broker_records(
        &self,
        table: BrokerTable,
        after: Option<&[u8]>,
        max: Limit,
    ) -> BoxFuture<'_, Result<Page<(Bytes, Bytes)>, ReadError>> {
        let after = after.map(Bytes::copy_from_slice);
        Box::pin(async move {
            let mut pages = Vec::new();
            for partition in self.all() {
                let after = after.clone();
                let read = move |view: &View<'_>, _| query::broker_records(view, table, after.as_deref(), max);
                pages.push(self.read(partition, read).await?);
            }
            Ok(query::merge_broker_records(pages, max))
        })
    }

    fn acts(&self, partition: Partition, after: u64, max: usize) -> BoxFuture<'_, Result<Page<ActRow>, ReadError>> {
        self.read(partition, move |view, partition| query::acts(view, partition, after, max))
    }

    fn partition_of(&self, device: &DeviceId) -> Partition {
        partition_of(device, self.partitions())
    }

    fn partitions(&self) -> u16 {
        u16::try_from(self.partitions.len()).unwrap_or(u16::MAX)
    }

    fn fence(&self, partition: Partition) -> Fence {
        self.shared(partition).fence
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn restored(&self) -> Option<Restored> {
        self.restored.filter(|_| !self.is_settled.load(Ordering::Acquire))
    }

    fn settle_restored(&self) -> BoxFuture<'_, Result<(), RestoredError>> {
        let path = self.path.clone();
        Box::pin(async move {
            let settled = tokio::task::spawn_blocking(move || folder::settle_restored(&path)).await;
            let settled = settled.map_err(|error| RestoredError(error.to_string()))?;
            settled.map_err(|error| RestoredError(error.to_string()))?;
            self.is_settled.store(true, Ordering::Release);
            Ok(())
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        for shared in &self.partitions {
            shared.close();
        }
        let (writers, partitions, path) = (Arc::clone(&self.writers), self.partitions.len(), self.path.clone());
        Box::pin(async move {
            _ = tokio::task::spawn_blocking(move || join(&writers, partitions, &path)).await;
        })
    }
}

impl Drop for Embedded {
    /// Ends the writers and so frees the folder, where nobody has called `close`. An answer that drops the
    /// last handle does not wait for that: its own thread is one of those that end.
    fn drop(&mut self) {
        for shared in &self.partitions {
            shared.close();
        }
        if !self.partitions.iter().any(|shared| shared.is_writer()) {
            join(&self.writers, self.partitions.len(), &self.path);
        }
    }
}

/// Waits for the writers to end. Where every partition's has ended with all it wrote synced, a power cut
/// takes nothing any more.
fn join(writers: &Mutex<Vec<JoinHandle<bool>>>, partitions: usize, path: &Path) {
    // Held while they are joined, so that a second caller waits too.
    let mut writers = writers.lock().unwrap_or_else(PoisonError::into_inner);
    // One that panicked has said so in its health.
    let synced = writers.drain(..).map(JoinHandle::join).filter(|synced| matches!(synced, Ok(true))).count();
    if synced == partitions
        && let Err(cause) = boot::settle(path)
    {
        warn!(path = %path.display(), %cause, "the store is closed, and is marked as open still");
    }
}
