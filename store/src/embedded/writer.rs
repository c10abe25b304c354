//! A partition's writer: one OS thread that takes all that waits, commits it, and answers.
//!
//! ```text
//! wait -> take -> plan -> commit -> answer -> wait          (no linger: while one commit runs, the next gathers)
//!                            |
//!                            +-- failed -> answer "unknown" to all -> reopen -> wait, or Failed for good
//! ```

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};

use tokio::sync::{Notify, watch};
use tracing::{error, warn};
use unhidra_core::durable::DurableSource;
use unhidra_core::ids::{Fence, Offset, Partition};

use crate::config::Config;
use crate::health::Board;
use crate::ledger::{Answers, Ledger, Plan, Writes};
use crate::metrics::{Metrics, Stopwatch};
use crate::waiting::Waiting;
use crate::{Batch, CommitError, Full, Health, ReadError};

use super::database::{Database, Opening, View};
use super::folder;

/// What the writer of a partition and its readers share.
pub(super) struct Shared {
    pub(super) partition: Partition,
    pub(super) partitions: u16,
    pub(super) path: PathBuf,
    pub(super) config: Config,
    pub(super) opening: Opening,
    pub(super) fence: Fence,
    /// `None` while the files are reopened, and after they are closed.
    database: RwLock<Option<Database>>,
    queue: Mutex<Queue>,
    arrived: Condvar,
    pub(super) room: Arc<Notify>,
    pub(super) committed: watch::Sender<Offset>,
    pub(super) board: Arc<Board>,
    pub(super) metrics: Metrics,
    #[cfg(any(test, feature = "faults"))]
    pub(super) fault: Mutex<Option<crate::Fault>>,
}

struct Queue {
    waiting: Waiting,
    open: bool,
}

impl Shared {
    pub(super) fn new(
        partition: Partition,
        partitions: u16,
        path: PathBuf,
        config: &Config,
        (database, opening): (Database, Opening),
        board: Arc<Board>,
        metrics: Metrics,
    ) -> Self {
        Self {
            partition,
            partitions,
            path,
            config: config.clone(),
            fence: Fence::new(u64::from(opening.number)),
            opening,
            database: RwLock::new(Some(database)),
            queue: Mutex::new(Queue { waiting: Waiting::new(config.bounds()), open: true }),
            arrived: Condvar::new(),
            room: Arc::new(Notify::new()),
            committed: watch::Sender::new(Offset::ZERO),
            board,
            metrics,
            #[cfg(any(test, feature = "faults"))]
            fault: Mutex::new(None),
        }
    }

    /// Queues a batch, or gives it back.
    pub(super) fn submit(&self, batch: Batch) -> Result<(), Full> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if !queue.open {
            drop(queue);
            (batch.done)(Err(CommitError::Closed));
            return Ok(());
        }
        let pushed = queue.waiting.push(batch);
        drop(queue);
        match pushed {
            Ok(weight) => {
                self.metrics.queued(weight);
                self.arrived.notify_one();
                Ok(())
            }
            Err(full) => {
                self.metrics.full.inc();
                Err(full)
            }
        }
    }

    /// Takes no more batches; the writer ends when it has written those that wait.
    pub(super) fn close(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).open = false;
        self.arrived.notify_one();
    }

    /// Reads from the open files.
    pub(super) fn read<T>(&self, read: impl FnOnce(&View<'_>) -> Result<T, ReadError>) -> Result<T, ReadError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or(ReadError::Unavailable)?;
        read(&database.view(&self.opening.sealing))
    }

    /// Commits in one atomic, durable write.
    pub(super) fn commit(&self, writes: &Writes) -> Result<(), String> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or("the files are closed")?;
        database.commit(&self.opening.sealing, writes)
    }

    pub(super) fn ledger(&self) -> Result<Ledger, ReadError> {
        self.read(|view| Ledger::load(view, self.partition, self.partitions, self.fence, self.config.known_devices))
    }

    /// The next group, once one waits; `None` when the queue is closed and empty.
    fn take(&self) -> Option<Vec<Batch>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        while queue.waiting.is_empty() {
            if !queue.open {
                return None;
            }
            queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let (group, weight) = queue.waiting.take();
        drop(queue);
        self.metrics.taken(weight);
        self.room.notify_waiters();
        Some(group)
    }

    fn take_all(&self) -> Vec<Batch> {
        let (batches, weight) = self.queue.lock().unwrap_or_else(PoisonError::into_inner).waiting.take_all();
        self.metrics.taken(weight);
        self.room.notify_waiters();
        batches
    }

    fn close_files(&self) {
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Writes until the queue is closed and empty, or until the files fail for good.
pub(super) fn run(shared: &Shared, mut ledger: Ledger) {
    let guard = Guard(shared);
    let source = DurableSource::new_for_storage();
    while let Some(group) = shared.take() {
        match write(shared, ledger, &source, group) {
            Ok(next) => ledger = next,
            Err(cause) => return fail(shared, cause),
        }
    }
    drop(guard);
}

/// Plans a group, commits it and answers.
fn write(shared: &Shared, mut ledger: Ledger, source: &DurableSource, group: Vec<Batch>) -> Result<Ledger, String> {
    let watch = Stopwatch::start();
    let batches = group.len();
    let plan = shared.read(|view| Ok(ledger.plan(view, group))).map_err(|e| e.to_string())?;
    let refused = batches.saturating_sub(plan.accepted());
    if let Err(cause) = commit(shared, &plan) {
        return reopen(shared, plan, &cause);
    }
    shared.metrics.refused.inc_by(refused as u64);
    if refused < batches {
        shared.metrics.commits.inc();
        shared.metrics.records.inc_by(plan.records());
        shared.metrics.commit_duration.observe(watch.seconds());
    }
    let answers = ledger.settle(plan, source);
    // First the log, then the answers: who hears of a row finds it.
    shared.committed.send_replace(ledger.newest());
    answers.give();
    Ok(ledger)
}

fn commit(shared: &Shared, plan: &Plan) -> Result<(), String> {
    match &plan.broken {
        Some(cause) => return Err(cause.to_string()),
        // Every batch of the group was refused, or asked for nothing.
        None if plan.writes.is_empty() => return Ok(()),
        None => {}
    }
    #[cfg(any(test, feature = "faults"))]
    if let Some(fault) = shared.fault.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return fault.strike(|| shared.commit(&plan.writes));
    }
    shared.commit(&plan.writes)
}

/// After a failed commit: tells all who were ahead of the store, and reads back what is on the disk.
fn reopen(shared: &Shared, plan: Plan, cause: &str) -> Result<Ledger, String> {
    error!(partition = %shared.partition, cause, "a commit failed; reopening the store");
    shared.board.set(shared.partition, Health::Reopening);
    shared.metrics.reopenings.inc();
    plan.unknown(cause).give();
    Answers::all_unknown(shared.take_all(), cause).give();
    folder::mark_unsynced(&shared.path).map_err(|e| format!("{cause}; {e}"))?;
    shared.close_files();
    folder::write_anew(&shared.path).map_err(|e| format!("{cause}; writing the journals anew: {e}"))?;
    let database =
        Database::open(&shared.path, &shared.config, shared.partitions).map_err(|e| format!("{cause}; {e}"))?;
    *shared.database.write().unwrap_or_else(PoisonError::into_inner) = Some(database);
    let ledger = shared.ledger().map_err(|e| format!("{cause}; {e}"))?;
    shared.committed.send_replace(ledger.newest());
    // What came meanwhile was built on what is void. What comes from here on either fits what is
    // on the disk, or its expected versions say that it does not.
    Answers::all_unknown(shared.take_all(), cause).give();
    warn!(partition = %shared.partition, "the store serves again");
    shared.board.set(shared.partition, Health::Ready);
    Ok(ledger)
}

/// The writer ends and the partition with it.
fn fail(shared: &Shared, cause: String) {
    error!(partition = %shared.partition, cause, "the store cannot go on");
    shared.close();
    Answers::all_unknown(shared.take_all(), &cause).give();
    shared.close_files();
    shared.board.set(shared.partition, Health::Failed(cause));
}

/// However the writer ends, its files are closed, and a panic is not mistaken for silence.
struct Guard<'a>(&'a Shared);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.close_files();
        if std::thread::panicking() {
            self.0.close();
            drop(self.0.take_all());
            self.0.board.set(self.0.partition, Health::Failed("the writer panicked".into()));
        }
    }
}
