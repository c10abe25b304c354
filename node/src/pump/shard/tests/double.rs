//! A store whose writer is the test: it says what becomes of each batch, and when. Reads, and what the
//! test has written, are the memory engine's.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::Notify;
use unhidra_core::command::Command;
use unhidra_core::device::Device;
use unhidra_core::ids::{CommandId, DeviceNumber, Epoch, Fence, Offset};
use unhidra_core::setting::Setting;
use unhidra_core::time::UnixTime;
use unhidra_store::memory::Memory;
use unhidra_store::{
    ActRow, Bounds, BoxFuture, BrokerTable, Full, Limit, Oldest, Overdue, Page, PrekeyRecord, Readable, Restored,
    RestoredError, Store, Stored, Tally, Usage, Waits,
};

use super::*;

/// The store that a shard is given.
pub(super) struct Double {
    inner: Arc<Memory>,
    batches: mpsc::UnboundedSender<Batch>,
    /// How many of the next batches there is no room for.
    refusals: Mutex<usize>,
    /// Whether there is room, and who waits is told, as soon as it was said that there is none.
    frees_at_once: AtomicBool,
    /// Told of each refusal: how many are left.
    refused: mpsc::UnboundedSender<usize>,
    room: Arc<Notify>,
    /// What it says of itself.
    pub(super) health: watch::Sender<Health>,
    /// Whose records were read, in order.
    reads: Mutex<Vec<DeviceId>>,
}

/// What the test hears of it: each batch that was taken, and each that was not.
pub(super) struct Heard {
    pub(super) batches: mpsc::UnboundedReceiver<Batch>,
    pub(super) refused: mpsc::UnboundedReceiver<usize>,
}

impl Double {
    pub(super) fn over(inner: Arc<Memory>) -> (Arc<Self>, Heard) {
        let (batches, taken) = mpsc::unbounded_channel();
        let (refused, not_taken) = mpsc::unbounded_channel();
        let double = Self {
            inner,
            batches,
            refusals: Mutex::new(0),
            frees_at_once: AtomicBool::new(false),
            refused,
            room: Arc::new(Notify::new()),
            health: watch::Sender::new(Health::Ready),
            reads: Mutex::default(),
        };
        (Arc::new(double), Heard { batches: taken, refused: not_taken })
    }

    /// There is no room for so many of the next batches.
    pub(super) fn has_no_room_for(&self, batches: usize) {
        *self.refusals.lock().unwrap() = batches;
    }

    /// There is room again before whoever is refused has heard of it.
    pub(super) fn frees_at_once(&self) {
        self.frees_at_once.store(true, Ordering::Relaxed);
    }

    /// Whoever waits for room is told that there may be some.
    pub(super) fn signal_room(&self) {
        self.room.notify_waiters();
    }

    /// How often a device's records were read.
    pub(super) fn reads_of(&self, device: &DeviceId) -> usize {
        self.reads.lock().unwrap().iter().filter(|read| *read == device).count()
    }
}

/// What the memory engine does as it would for itself.
macro_rules! of_the_inner {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        $(fn $name(&self, $($argument: $type),*) -> $result {
            self.inner.$name($($argument),*)
        })*
    };
}

impl Store for Double {
    fn submit(&self, batch: Batch) -> Result<(), Full> {
        let mut refusals = self.refusals.lock().unwrap();
        match refusals.checked_sub(1) {
            None => _ = self.batches.send(batch),
            Some(left) => {
                *refusals = left;
                _ = self.refused.send(left);
                if self.frees_at_once.load(Ordering::Relaxed) {
                    self.signal_room();
                }
                return Err(Full(Box::new(batch)));
            }
        }
        Ok(())
    }

    fn room(&self, _: Partition) -> Arc<Notify> {
        self.room.clone()
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    fn session(&self, device: &DeviceId) -> BoxFuture<'_, Result<Option<Stored>, ReadError>> {
        self.reads.lock().unwrap().push(*device);
        self.inner.session(device)
    }

    of_the_inner! {
        history(device: &DeviceId, after: Offset, max: Limit) -> BoxFuture<'_, Result<Page<Reading>, ReadError>>;
        readable_history(device: &DeviceId, after: Offset, max: Limit) -> BoxFuture<'_, Result<Readable, ReadError>>;
        newest(device: &DeviceId, max: Limit) -> BoxFuture<'_, Result<Page<Reading>, ReadError>>;
        readable_newest(device: &DeviceId, max: Limit) -> BoxFuture<'_, Result<Readable, ReadError>>;
        log(partition: Partition, after: Offset, max: Limit) -> BoxFuture<'_, Result<Page<Reading>, ReadError>>;
        readable_log(partition: Partition, since: Offset, after: Offset, max: Limit)
            -> BoxFuture<'_, Result<Readable, ReadError>>;
        overdue(device: &DeviceId, bounds: Bounds, now: UnixTime, tally: Option<Tally>, max: usize)
            -> BoxFuture<'_, Result<Overdue, ReadError>>;
        oldest(partition: Partition, after: Offset, max: usize) -> BoxFuture<'_, Result<Oldest, ReadError>>;
        ended_commands(device: &DeviceId, before: UnixTime, max: usize)
            -> BoxFuture<'_, Result<Vec<CommandId>, ReadError>>;
        disk_bytes() -> BoxFuture<'_, Result<u64, ReadError>>;
        compact() -> BoxFuture<'_, Result<(), ReadError>>;
        usage(partition: Partition) -> BoxFuture<'_, Result<Usage, ReadError>>;
        hold_rows(why: Option<String>) -> ();
        committed(partition: Partition) -> watch::Receiver<Offset>;
        device(device: &DeviceId) -> BoxFuture<'_, Result<Option<Device>, ReadError>>;
        devices(after: Option<&DeviceId>, max: usize) -> BoxFuture<'_, Result<Page<Device>, ReadError>>;
        command(device: &DeviceId, id: &CommandId) -> BoxFuture<'_, Result<Option<Command>, ReadError>>;
        open_commands(device: &DeviceId) -> BoxFuture<'_, Result<Vec<Command>, ReadError>>;
        commands(device: &DeviceId, max: usize) -> BoxFuture<'_, Result<Vec<Command>, ReadError>>;
        waits(partition: Partition, after: DeviceNumber, max: usize) -> BoxFuture<'_, Result<Page<Waits>, ReadError>>;
        reading_ids(device: &DeviceId, max: usize) -> BoxFuture<'_, Result<Vec<(Offset, u64)>, ReadError>>;
        settings(device: &DeviceId) -> BoxFuture<'_, Result<Vec<Setting>, ReadError>>;
        signed_prekeys() -> BoxFuture<'_, Result<Vec<PrekeyRecord>, ReadError>>;
        prekeys(device: &DeviceId) -> BoxFuture<'_, Result<Vec<PrekeyRecord>, ReadError>>;
        broker_records(table: BrokerTable, after: Option<&[u8]>, max: Limit)
            -> BoxFuture<'_, Result<Page<(Bytes, Bytes)>, ReadError>>;
        acts(partition: Partition, after: u64, max: usize) -> BoxFuture<'_, Result<Page<ActRow>, ReadError>>;
        partition_of(device: &DeviceId) -> Partition;
        partitions() -> u16;
        fence(partition: Partition) -> Fence;
        epoch() -> Epoch;
        restored() -> Option<Restored>;
        settle_restored() -> BoxFuture<'_, Result<(), RestoredError>>;
        close() -> BoxFuture<'_, ()>;
    }
}
