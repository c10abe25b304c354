//! The engine of tests and of the simulated world: the same semantics, no files, and it dies, fails
//! or stands still when it is told to.
//!
//! A [`Memory`] is one life of a node's store; what is durable outlives it, and [`Memory::reopen`]
//! begins the next life. Its writer is one task: on a runtime with one thread and a paused clock
//! everything happens in the same order each time.
//!
//! ```text
//! Open --close--> Closing --all is written--> Closed
//!   |                |
//!   +----------------+--crash, reopen, drop--> Dead
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use unhidra_core::command::Command;
use unhidra_core::device::Device;
use unhidra_core::durable::DurableSource;
use unhidra_core::ids::{CommandId, DeviceId, DeviceNumber, Epoch, Fence, Offset, Partition};
use unhidra_core::message::Reading;
use unhidra_core::setting::Setting;
use unhidra_core::time::UnixTime;

use crate::health::Board;
use crate::ledger::{Answers, Ledger, Plan};
use crate::partition::partition_of;
use crate::rows::Rows;
use crate::table::{self, Key, Part, Table};
use crate::waiting::{Bounds, Waiting, Weight};
use crate::{
    ActRow, Batch, Bounds as Keep, BoxFuture, BrokerTable, CommitError, CrashPoint, Fault, Full, Health, Limit,
    OLDEST_LOOK, Oldest, Overdue, Page, PrekeyRecord, ReadError, Readable, Restored, RestoredError, Slot, Store,
    Stored, Tally, Usage, Waits, query, readable, retention,
};

use self::tables::Tables;

mod serve;
pub(crate) mod tables;

/// How a [`Memory`] is made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many partitions, at least 1.
    pub partitions: u16,
    /// The log's life.
    pub epoch: Epoch,
    /// How many records may wait for a writer.
    pub queue_records: usize,
    /// How many bytes may wait for a writer.
    pub queue_bytes: usize,
    /// How many devices a writer remembers.
    pub known_devices: usize,
    /// How many acts each partition remembers.
    pub acts_max: u64,
    /// How long a commit takes, by the runtime's clock. While it does the next group gathers.
    pub commit_time: Duration,
}

impl Options {
    /// One partition, a queue of 4 096 records or 4 MiB, 1 024 devices and 50 acts remembered, and commits that take
    /// no time.
    pub const SMALL: Self = Self {
        partitions: 1,
        epoch: Epoch::new(1),
        queue_records: 4096,
        queue_bytes: 4 << 20,
        known_devices: 1024,
        acts_max: 50,
        commit_time: Duration::ZERO,
    };

    const fn bounds(&self) -> Bounds {
        Bounds {
            queue_records: self.queue_records,
            queue_bytes: self.queue_bytes,
            commit_records: 4096,
            commit_bytes: 1 << 20,
        }
    }
}

/// One life of a node's store, in memory.
pub struct Memory {
    life: Arc<Life>,
}

/// What the handle and the writer's task share.
struct Life {
    options: Options,
    fence: Fence,
    disk: Arc<Mutex<Disk>>,
    state: Mutex<State>,
    wake: Notify,
    rooms: Vec<Arc<Notify>>,
    committed: Vec<watch::Sender<Offset>>,
    board: Board,
    phase: watch::Sender<Phase>,
    /// Whose sessions the disk takes its time over.
    slow: watch::Sender<Option<DeviceId>>,
}

/// A copy of what was durable once.
#[derive(Clone)]
pub struct DiskCopy(Vec<Tables>);

impl std::fmt::Debug for DiskCopy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskCopy").field("partitions", &self.0.len()).finish_non_exhaustive()
    }
}

/// What is durable.
struct Disk {
    partitions: Vec<Tables>,
    lives: u64,
    epoch: Epoch,
    restored: Option<Restored>,
}

/// Where a life stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Open,
    Closing,
    Closed,
    Dead,
}

struct State {
    waiting: Vec<Waiting>,
    stalled: bool,
    reopening: bool,
    /// No rows are taken.
    held: bool,
    next_commit: Option<Fate>,
    /// Whose records the disk does not give.
    unreadable: Option<DeviceId>,
    /// Batches nobody will answer. Kept until the life's handle is gone, for a dead node does not
    /// drop its acknowledgements one by one either.
    lost: Vec<Lost>,
}

/// What becomes of the next commit.
#[derive(Clone, Copy)]
enum Fate {
    Fails(Fault),
    Kills(CrashPoint),
}

/// Held for its drop alone.
enum Lost {
    Batch { _batch: Batch },
    Plan { _plan: Plan },
}

/// The writer's next step.
enum Next {
    Write(Partition, Vec<Batch>),
    Wait,
    End,
}

impl Memory {
    /// An empty store.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime: its writer is a task.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let partitions = (0..options.partitions.max(1)).map(|_| Tables::new()).collect();
        let disk = Disk { partitions, lives: 0, epoch: options.epoch, restored: None };
        Self::begin(options, Arc::new(Mutex::new(disk)))
    }

    /// Ends this life, as a kill would, and begins the next over what is durable.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[must_use]
    pub fn reopen(&self) -> Self {
        self.life.die();
        Self::begin(self.life.options, Arc::clone(&self.life.disk))
    }

    /// A copy of what is durable, as a backup would be.
    #[must_use]
    pub fn copy(&self) -> DiskCopy {
        DiskCopy(lock(&self.life.disk).partitions.clone())
    }

    /// Ends this life, puts a copy back in place of what was durable, marks it as that, with another
    /// life of the log, and begins the next life over it.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[must_use]
    pub fn put_back(&self, copy: DiskCopy, epoch: Epoch) -> Self {
        self.life.die();
        // The life that ends keeps its own disk: whatever it has not done yet is lost.
        let restored = Some(Restored::Copy);
        let disk = Disk { partitions: copy.0, lives: self.life.fence.get(), epoch, restored };
        Self::begin(self.life.options, Arc::new(Mutex::new(disk)))
    }

    fn begin(options: Options, disk: Arc<Mutex<Disk>>) -> Self {
        let partitions = options.partitions.max(1);
        let (fence, epoch) = {
            let mut disk = lock(&disk);
            disk.lives += 1;
            (Fence::new(disk.lives), disk.epoch)
        };
        let state = State {
            waiting: (0..partitions).map(|_| Waiting::new(options.bounds())).collect(),
            stalled: false,
            reopening: false,
            held: false,
            next_commit: None,
            unreadable: None,
            lost: Vec::new(),
        };
        let life = Arc::new(Life {
            options: Options { partitions, epoch, ..options },
            fence,
            disk,
            state: Mutex::new(state),
            wake: Notify::new(),
            rooms: (0..partitions).map(|_| Arc::new(Notify::new())).collect(),
            committed: (0..partitions).map(|_| watch::Sender::new(Offset::ZERO)).collect(),
            board: Board::new(partitions),
            phase: watch::Sender::new(Phase::Open),
            slow: watch::Sender::new(None),
        });
        let ledgers = life.ledgers();
        tokio::spawn(run(Arc::clone(&life), ledgers));
        Self { life }
    }

    /// The node dies at its next commit.
    pub fn crash_at(&self, point: CrashPoint) {
        lock(&self.life.state).next_commit = Some(Fate::Kills(point));
    }

    /// Completes once the node has died of [`Memory::crash_at`].
    pub async fn crashed(&self) {
        // The sender is in the life this handle holds, so it is never gone.
        _ = self.life.phase.subscribe().wait_for(|phase| *phase == Phase::Dead).await;
    }

    /// The next commit fails, its outcome unknown to those who asked for it.
    pub fn fail_next_commit(&self, fault: Fault) {
        lock(&self.life.state).next_commit = Some(Fate::Fails(fault));
    }

    /// Nothing is committed, and so nothing answered, until [`Memory::resume`].
    pub fn stall(&self) {
        lock(&self.life.state).stalled = true;
    }

    /// Commits go on.
    pub fn resume(&self) {
        lock(&self.life.state).stalled = false;
        self.life.wake.notify_one();
    }

    /// The disk gives nothing of a device's record and sessions from now on, or of nobody's no more: an error
    /// that may pass, and no damage.
    pub fn fail_reads_of(&self, device: Option<DeviceId>) {
        lock(&self.life.state).unreadable = device;
    }

    /// A read of a device's sessions takes as long as this is so.
    pub fn hold_reads_of(&self, device: Option<DeviceId>) {
        self.life.slow.send_replace(device);
    }

    /// Deletes one row, as damage would, and says whether it was there.
    pub fn delete_row(&self, device: &DeviceId, offset: Offset) -> bool {
        let mut disk = lock(&self.life.disk);
        let tables = &mut disk.partitions[usize::from(self.partition_of(device).get())];
        let Ok(Some(number)) = query::number(&*tables, device) else { return false };
        tables.write(Table::Log, table::log(offset, number), None);
        tables.write(Table::Readings, table::reading(number, offset), None)
    }

    /// Makes one row a record that does not read, as damage would, and says whether it was there.
    pub fn damage_row(&self, device: &DeviceId, offset: Offset) -> bool {
        let mut disk = lock(&self.life.disk);
        let tables = &mut disk.partitions[usize::from(self.partition_of(device).get())];
        let Ok(Some(number)) = query::number(&*tables, device) else { return false };
        tables.write(Table::Readings, table::reading(number, offset), Some(Bytes::from_static(b"?")))
    }

    /// Makes the present session of a device a record that does not read, as damage would, and gives what
    /// was there, for [`Memory::mend_session`].
    pub fn damage_session(&self, device: &DeviceId) -> Option<Bytes> {
        self.put_session(device, Bytes::from_static(b"?"))
    }

    /// Makes a device's record in the registry one that does not read, as damage would.
    pub fn damage_device(&self, device: &DeviceId) {
        let mut disk = lock(&self.life.disk);
        let tables = &mut disk.partitions[usize::from(self.partition_of(device).get())];
        tables.write(Table::Registry, Key::from_slice(device.as_bytes()), Some(Bytes::from_static(b"?")));
    }

    /// Puts back what [`Memory::damage_session`] has given.
    pub fn mend_session(&self, device: &DeviceId, record: Bytes) {
        self.put_session(device, record);
    }

    fn put_session(&self, device: &DeviceId, record: Bytes) -> Option<Bytes> {
        let mut disk = lock(&self.life.disk);
        let tables = &mut disk.partitions[usize::from(self.partition_of(device).get())];
        let number = query::number(&*tables, device).ok().flatten()?;
        let key = table::session(number, Part::Whole(Slot::Present));
        let before = tables.get(Table::Sessions, &key).ok().flatten()?;
        tables.write(Table::Sessions, key, Some(record));
        Some(before)
    }

    fn read<T: Send + 'static>(
        &self,
        partition: Partition,
        read: impl FnOnce(&dyn Rows, Partition) -> Result<T, ReadError> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, ReadError>> {
        Box::pin(async move { self.life.read(partition, |rows| read(rows, partition)) })
    }

    fn all(&self) -> impl Iterator<Item = Partition> + use<> {
        (0..self.partitions()).map(Partition::new)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.life.die();
        let lost = std::mem::take(&mut lock(&self.life.state).lost);
        drop(lost);
    }
}

impl Life {
    fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    fn die(&self) {
        self.phase.send_replace(Phase::Dead);
        self.wake.notify_one();
    }

    fn ledgers(&self) -> Vec<Ledger> {
        let disk = lock(&self.disk);
        let partitions = (0..self.options.partitions).map(Partition::new).zip(&disk.partitions);
        let load = |(partition, tables): (Partition, &Tables)| {
            let Options { partitions, known_devices, acts_max, .. } = self.options;
            let ledger = Ledger::load(tables, partition, partitions, self.fence, known_devices, acts_max);
            let ledger = ledger.unwrap_or_else(|e| panic!("memory does not fail: {e}"));
            self.committed[usize::from(partition.get())].send_replace(ledger.newest());
            ledger
        };
        partitions.map(load).collect()
    }

    fn read<T>(
        &self,
        partition: Partition,
        read: impl FnOnce(&Tables) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        if matches!(self.phase(), Phase::Closed | Phase::Dead) || lock(&self.state).reopening {
            return Err(ReadError::Unavailable);
        }
        read(&lock(&self.disk).partitions[usize::from(partition.get())])
    }

    fn submit(&self, batch: Batch) -> Result<(), Full> {
        let mut state = lock(&self.state);
        match self.phase() {
            Phase::Open if state.held && batch.appends() => return Err(Full(Box::new(batch))),
            Phase::Open => {
                state.waiting[usize::from(batch.partition.get())].push(batch)?;
                self.wake.notify_one();
            }
            Phase::Closing | Phase::Closed => {
                drop(state);
                (batch.done)(Err(CommitError::Closed));
            }
            Phase::Dead => state.lost.push(Lost::Batch { _batch: batch }),
        }
        Ok(())
    }

    fn next(&self) -> Next {
        let mut state = lock(&self.state);
        if self.phase() == Phase::Dead {
            let left: Vec<Batch> = state.waiting.iter_mut().flat_map(|waiting| waiting.take_all().0).collect();
            state.lost.extend(left.into_iter().map(|batch| Lost::Batch { _batch: batch }));
            return Next::End;
        }
        if state.stalled {
            return Next::Wait;
        }
        let Some(at) = state.waiting.iter().position(|waiting| !waiting.is_empty()) else {
            return if self.phase() == Phase::Closing { Next::End } else { Next::Wait };
        };
        let (group, _) = state.waiting[at].take(Weight::default());
        drop(state);
        self.rooms[at].notify_waiters();
        Next::Write(Partition::new(u16::try_from(at).unwrap_or(u16::MAX)), group)
    }

    /// What becomes of the commit at hand, and whether it reaches the disk.
    fn commit(&self, partition: Partition, plan: &Plan) -> Option<Fate> {
        let fate = match self.phase() {
            Phase::Dead => Some(Fate::Kills(CrashPoint::BeforeCommit)),
            _ if plan.writes.is_empty() => None,
            _ => lock(&self.state).next_commit.take(),
        };
        if !matches!(fate, Some(Fate::Fails(Fault::NotWritten | Fault::Panic) | Fate::Kills(CrashPoint::BeforeCommit)))
        {
            lock(&self.disk).partitions[usize::from(partition.get())].apply(&plan.writes);
        }
        fate
    }

    /// As after a failed commit: everybody who waits is told, and what is durable is read again.
    async fn fail(&self, partition: Partition, plan: Plan) -> Vec<Ledger> {
        let cause = "a fault on demand";
        lock(&self.state).reopening = true;
        self.board.set(partition, Health::Reopening);
        plan.unknown(cause).give();
        self.answer_waiting(partition, cause);
        self.pass_time().await;
        let ledgers = self.ledgers();
        self.answer_waiting(partition, cause);
        lock(&self.state).reopening = false;
        self.board.set(partition, Health::Ready);
        ledgers
    }

    fn answer_waiting(&self, partition: Partition, cause: &str) {
        let at = usize::from(partition.get());
        let (batches, _) = lock(&self.state).waiting[at].take_all();
        self.rooms[at].notify_waiters();
        Answers::all_unknown(batches, cause).give();
    }

    async fn pass_time(&self) {
        if self.options.commit_time.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(self.options.commit_time).await;
        }
    }
}

/// The writer.
async fn run(life: Arc<Life>, mut ledgers: Vec<Ledger>) {
    let source = DurableSource::new_for_storage();
    loop {
        let (partition, group) = match life.next() {
            Next::Write(partition, group) => (partition, group),
            Next::Wait => {
                // A wake between `next` and here has left its permit.
                life.wake.notified().await;
                continue;
            }
            Next::End => break,
        };
        let at = usize::from(partition.get());
        let plan = ledgers[at].plan(&lock(&life.disk).partitions[at], group);
        life.pass_time().await;
        match life.commit(partition, &plan) {
            None => {
                let answers = ledgers[at].settle(plan, &source);
                life.committed[at].send_replace(ledgers[at].newest());
                answers.give();
            }
            Some(Fate::Fails(_)) => ledgers = life.fail(partition, plan).await,
            Some(Fate::Kills(_)) => {
                lock(&life.state).lost.push(Lost::Plan { _plan: plan });
                life.die();
            }
        }
    }
    life.phase.send_if_modified(|phase| {
        let closing = *phase == Phase::Closing;
        if closing {
            *phase = Phase::Closed;
        }
        closing
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
