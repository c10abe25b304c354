//! A partition's writer: one OS thread that takes all that waits, commits it, and answers.
//!
//! ```text
//! wait -> take -> plan -> commit -> answer -> wait          (while one commit runs the next gathers; see also `linger`)
//!                            |
//!                            +-- failed -> answer "unknown" to all -> reopen -> wait, or Failed for good
//!                                                                        ^  |
//!                                                no room, no disk: later +--+
//! ```
//!
//! A panic of the engine, here or in a thread of its own, is a commit that failed.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tracing::{error, warn};
use unhidra_core::durable::DurableSource;
use unhidra_core::ids::{Fence, Offset, Partition};

use crate::config::{Config, Durability};
use crate::health::Board;
use crate::ledger::{Answers, Ledger, Plan, Writes};
use crate::linger::Linger;
use crate::metrics::{Metrics, Stopwatch};
use crate::waiting::Waiting;
use crate::{Batch, CommitError, Full, Health, ReadError};

use super::closed;
use super::copy::{Held, Lent};
use super::database::{Database, Opening, View};
use super::folder::{self, OpenError};

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
    /// What copies under way read from; closed with the files.
    lent: Mutex<Vec<Weak<Mutex<Option<Held>>>>>,
    queue: Mutex<Queue>,
    arrived: Condvar,
    pub(super) room: Arc<Notify>,
    pub(super) committed: watch::Sender<Offset>,
    pub(super) board: Arc<Board>,
    pub(super) metrics: Metrics,
    #[cfg(any(test, feature = "faults"))]
    pub(super) fault: Mutex<Option<crate::Fault>>,
    /// How often the timer of `durability = "interval"` has synced.
    #[cfg(any(test, feature = "faults"))]
    pub(super) synced: watch::Sender<u64>,
}

struct Queue {
    waiting: Waiting,
    open: bool,
    /// No rows are taken.
    held: bool,
    /// The writer waits until so many bytes wait: for less it is not woken.
    lingers_for: Option<usize>,
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
            lent: Mutex::default(),
            queue: Mutex::new(Queue {
                waiting: Waiting::new(config.bounds()),
                open: true,
                held: false,
                lingers_for: None,
            }),
            arrived: Condvar::new(),
            room: Arc::new(Notify::new()),
            committed: watch::Sender::new(Offset::ZERO),
            board,
            metrics,
            #[cfg(any(test, feature = "faults"))]
            fault: Mutex::new(None),
            #[cfg(any(test, feature = "faults"))]
            synced: watch::Sender::new(0),
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
        let pushed = match queue.held && batch.appends() {
            true => Err(Full(Box::new(batch))),
            false => queue.waiting.push(batch),
        };
        let is_awaited = queue.lingers_for.is_none_or(|bytes| queue.waiting.bytes() >= bytes);
        drop(queue);
        match pushed {
            Ok(weight) => {
                self.metrics.queued(weight);
                if is_awaited {
                    self.arrived.notify_one();
                }
                Ok(())
            }
            Err(full) => {
                self.metrics.full.inc();
                Err(full)
            }
        }
    }

    /// Gives back what appends rows from now on, or no longer.
    pub(super) fn hold_rows(&self, held: bool) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).held = held;
        if !held {
            self.room.notify_waiters();
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

    /// Commits in one atomic write.
    pub(super) fn commit(&self, writes: &Writes, sync: bool) -> Result<(), String> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or("the files are closed")?;
        database.commit(&self.opening.sealing, writes, sync)
    }

    fn sync(&self) -> Result<(), String> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        database.as_ref().ok_or("the files are closed")?.sync()
    }

    /// Writes down how new a key ring is used.
    pub(super) fn mark_ring(&self) -> Result<(), String> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        database.as_ref().ok_or("the files are closed")?.mark_ring(&self.opening)
    }

    pub(super) fn ledger(&self) -> Result<Ledger, ReadError> {
        self.read(|view| {
            let config = &self.config;
            Ledger::load(view, self.partition, self.partitions, self.fence, config.known_devices, config.acts_max)
        })
    }

    /// The next group, once one waits and lingering for more is over. `sync_in` is when what was
    /// committed is to be synced at the latest, if something is.
    fn take(&self, sync_in: Option<Duration>, linger: &mut Linger, since: &mut Stopwatch) -> Next {
        if sync_in.is_some_and(|sync_in| sync_in.is_zero()) {
            return Next::Sync;
        }
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |queue: &mut Queue| queue.open && queue.waiting.is_empty();
        let mut queue = match sync_in {
            None => self.arrived.wait_while(queue, waits).unwrap_or_else(PoisonError::into_inner),
            Some(sync_in) => {
                self.arrived.wait_timeout_while(queue, sync_in, waits).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        if queue.waiting.is_empty() {
            return if queue.open { Next::Sync } else { Next::End };
        }
        if queue.open
            && let Some(patience) = linger.patience(queue.waiting.bytes())
        {
            queue.lingers_for = Some(linger.bytes());
            let lacks =
                |queue: &mut Queue| queue.open && !queue.waiting.is_empty() && queue.waiting.bytes() < linger.bytes();
            queue = self.arrived.wait_timeout_while(queue, patience, lacks).unwrap_or_else(PoisonError::into_inner).0;
            queue.lingers_for = None;
            linger.waited(queue.waiting.bytes() >= linger.bytes());
        }
        let (group, weight) = queue.waiting.take();
        drop(queue);
        linger.took(weight.bytes, since.elapsed());
        *since = Stopwatch::start();
        self.metrics.taken(weight);
        self.room.notify_waiters();
        Next::Group(group)
    }

    /// Waits, and says whether the queue is open still.
    fn pause(&self, pause: Duration) -> bool {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.arrived.wait_timeout_while(queue, pause, |queue| queue.open);
        waited.unwrap_or_else(PoisonError::into_inner).0.open
    }

    fn take_all(&self) -> Vec<Batch> {
        let (batches, weight) = self.queue.lock().unwrap_or_else(PoisonError::into_inner).waiting.take_all();
        self.metrics.taken(weight);
        self.room.notify_waiters();
        batches
    }

    /// What a copy reads from, until the files are closed.
    pub(super) fn lend(&self) -> Result<Lent, ReadError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let held = database.as_ref().ok_or(ReadError::Unavailable)?.lend();
        let held = Arc::new(Mutex::new(Some(held)));
        let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        lent.retain(|copy| copy.strong_count() > 0);
        lent.push(Arc::downgrade(&held));
        Ok(held)
    }

    fn close_files(&self) {
        let database = self.database.write().unwrap_or_else(PoisonError::into_inner).take();
        // While a copy holds the files the engine does: nobody could open them again.
        for copy in self.lent.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if let Some(copy) = copy.upgrade() {
                copy.lock().unwrap_or_else(PoisonError::into_inner).take();
            }
        }
        if let Some(database) = database {
            database.close();
        }
    }
}

/// What the writer does next.
enum Next {
    /// Writes these.
    Group(Vec<Batch>),
    /// Syncs what it has committed without.
    Sync,
    /// Nothing more: the queue is closed and empty.
    End,
}

/// Since when something is committed and not synced; `None` where nothing is, or nobody asked.
struct Unsynced(Option<Stopwatch>);

impl Unsynced {
    fn committed(&mut self, durability: Durability) {
        if durability == Durability::Interval {
            self.0.get_or_insert_with(Stopwatch::start);
        }
    }

    fn due_in(&self, interval: Duration) -> Option<Duration> {
        self.0.as_ref().map(|since| interval.saturating_sub(since.elapsed()))
    }
}

/// Writes until the queue is closed and empty, or until the files fail for good. Whether all it has
/// written is synced then.
pub(super) fn run(shared: &Shared, mut ledger: Ledger) -> bool {
    let guard = Guard(shared);
    let source = DurableSource::new_for_storage();
    let interval = Duration::from_millis(shared.config.sync_interval_ms);
    let mut unsynced = Unsynced(None);
    let mut linger = shared.config.linger();
    let mut since = Stopwatch::start();
    loop {
        let written = match shared.take(unsynced.due_in(interval), &mut linger, &mut since) {
            Next::Group(group) => {
                unsynced.committed(shared.config.durability);
                write(shared, ledger, &source, group)
            }
            Next::Sync => {
                unsynced = Unsynced(None);
                match shared.sync() {
                    Ok(()) => {
                        #[cfg(any(test, feature = "faults"))]
                        shared.synced.send_modify(|syncs| *syncs += 1);
                        Ok(ledger)
                    }
                    Err(cause) => reopen(shared, None, &cause),
                }
            }
            Next::End => break,
        };
        match written {
            Ok(next) => ledger = next,
            Err(cause) => {
                fail(shared, cause);
                return false;
            }
        }
    }
    let synced = shared.sync();
    let is_synced = synced.is_ok();
    drop(guard);
    // Without this note the next start takes the journals for those of a node that was killed.
    let noted = synced.and_then(|()| closed::write(&shared.path).map_err(|e| e.to_string()));
    if let Err(cause) = noted {
        warn!(partition = %shared.partition, cause, "closed without a note of where the journals end");
    }
    is_synced
}

/// Plans a group, commits it and answers.
fn write(shared: &Shared, mut ledger: Ledger, source: &DurableSource, group: Vec<Batch>) -> Result<Ledger, String> {
    let watch = Stopwatch::start();
    let batches = group.len();
    let plan = shared.read(|view| Ok(ledger.plan(view, group))).map_err(|e| e.to_string())?;
    let refused = batches.saturating_sub(plan.accepted());
    if let Err(cause) = commit(shared, &plan) {
        return reopen(shared, Some(plan), &cause);
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
    let sync = shared.config.durability == Durability::Fsync;
    #[cfg(any(test, feature = "faults"))]
    if let Some(fault) = shared.fault.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return super::database::caught(|| fault.strike(|| shared.commit(&plan.writes, sync)))?;
    }
    shared.commit(&plan.writes, sync)
}

/// After a failed commit or sync: tells all who were ahead of the store, and reads back what is on
/// the disk. Where there is no room, or the disk does not take it, it is tried again until it does;
/// nobody is served meanwhile.
fn reopen(shared: &Shared, plan: Option<Plan>, cause: &str) -> Result<Ledger, String> {
    error!(partition = %shared.partition, cause, "a commit failed; reopening the store");
    shared.board.set(shared.partition, Health::Reopening);
    shared.metrics.reopenings.inc();
    if let Some(plan) = plan {
        plan.unknown(cause).give();
    }
    Answers::all_unknown(shared.take_all(), cause).give();
    let mut pause = PAUSE_MIN;
    loop {
        match renew(shared) {
            Ok(ledger) => {
                shared.committed.send_replace(ledger.newest());
                // What came meanwhile was built on what is void. What comes from here on either fits
                // what is on the disk, or its expected versions say that it does not.
                Answers::all_unknown(shared.take_all(), cause).give();
                warn!(partition = %shared.partition, "the store serves again");
                shared.board.set(shared.partition, Health::Ready);
                return Ok(ledger);
            }
            Err(OpenError::Io { path, cause: now }) if may_pass(&now) => {
                error!(partition = %shared.partition, path = %path.display(), cause = %now, "the store stays closed");
                shared.close_files();
                if !shared.pause(pause) {
                    return Err(format!("{cause}; {now}"));
                }
                Answers::all_unknown(shared.take_all(), cause).give();
                pause = PAUSE_MAX.min(pause * 2);
            }
            Err(now) => return Err(format!("{cause}; {now}")),
        }
    }
}

/// Between two tries to open the files again.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Whether an error of the system's may go away without a person who changes the folder.
fn may_pass(cause: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, NotFound, PermissionDenied};
    !matches!(cause.kind(), NotFound | PermissionDenied) || cause.kind() == Interrupted
}

/// Writes anew what may be in memory alone, and opens it.
fn renew(shared: &Shared) -> Result<Ledger, OpenError> {
    let io = |cause| OpenError::Io { path: shared.path.clone(), cause };
    // The engine is asked for nothing more: it may show what it could not write.
    shared.close_files();
    folder::mark_unsynced(&shared.path).map_err(io)?;
    folder::write_anew(&shared.path).map_err(io)?;
    let database = Database::open(&shared.path, &shared.config, shared.partitions)?;
    *shared.database.write().unwrap_or_else(PoisonError::into_inner) = Some(database);
    let engine = |cause: ReadError| OpenError::Engine { path: shared.path.clone(), cause: cause.to_string() };
    shared.ledger().map_err(engine)
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
