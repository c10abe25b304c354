//! What the writer of a partition, its committer and its readers share: the queue and the files.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::thread::{self, ThreadId};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use unhidra_core::ids::{Fence, Offset, Partition};

use crate::config::Config;
use crate::health::Board;
use crate::ledger::{Ledger, Writes};
use crate::linger::Linger;
use crate::metrics::{Metrics, Stopwatch};
use crate::waiting::{Waiting, Weight};
use crate::{Batch, CommitError, Full, ReadError};

use super::copy::{Held, Lent};
use super::database::{Database, Opening, View, caught};

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
    /// The writer's thread, once it runs.
    writer: OnceLock<ThreadId>,
    pub(super) room: Arc<Notify>,
    pub(super) committed: watch::Sender<Offset>,
    pub(super) board: Arc<Board>,
    pub(super) metrics: Metrics,
    #[cfg(any(test, feature = "faults"))]
    pub(super) fault: Mutex<Option<crate::Fault>>,
    /// The next sync beside a commit's own fails.
    #[cfg(any(test, feature = "faults"))]
    pub(super) sync_fails: Mutex<bool>,
    /// Each commit goes through it.
    #[cfg(any(test, feature = "faults"))]
    pub(super) gate: super::faults::Gate,
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
    /// What the committer goes on with by itself when a commit has ended well.
    behind: Option<Arc<Writes>>,
    /// How commits that were handed over have ended; at most the one before and what was behind it.
    ended: VecDeque<Ended>,
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
                behind: None,
                ended: VecDeque::with_capacity(2),
            }),
            arrived: Condvar::new(),
            writer: OnceLock::new(),
            room: Arc::new(Notify::new()),
            committed: watch::Sender::new(Offset::ZERO),
            board,
            metrics,
            #[cfg(any(test, feature = "faults"))]
            fault: Mutex::new(None),
            #[cfg(any(test, feature = "faults"))]
            sync_fails: Mutex::new(false),
            #[cfg(any(test, feature = "faults"))]
            gate: super::faults::Gate::default(),
            #[cfg(any(test, feature = "faults"))]
            synced: watch::Sender::new(0),
        }
    }

    /// Takes the thread this runs on for the writer's.
    pub(super) fn begin_writer(&self) {
        // A partition has one writer, which begins once.
        _ = self.writer.set(thread::current().id());
    }

    /// Whether this runs on the writer's thread.
    pub(super) fn is_writer(&self) -> bool {
        self.writer.get() == Some(&thread::current().id())
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
        // Before the writer can take it, or less than nothing would wait.
        if let Ok(weight) = pushed {
            self.metrics.queued(weight);
        }
        let is_awaited = queue.lingers_for.is_none_or(|bytes| queue.waiting.bytes() >= bytes);
        drop(queue);
        match pushed {
            Ok(_) => {
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

    /// Takes no more batches; the writer ends when it has written those that wait. Who waits for room
    /// is told so by the next attempt.
    pub(super) fn close(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).open = false;
        self.arrived.notify_one();
        self.room.notify_waiters();
    }

    /// Reads from the open files.
    pub(super) fn read<T>(&self, read: impl FnOnce(&View<'_>) -> Result<T, ReadError>) -> Result<T, ReadError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or(ReadError::Unavailable)?;
        read(&caught(|| database.view(&self.opening.sealing)).map_err(ReadError::Engine)?)
    }

    /// Commits in one atomic write.
    pub(super) fn commit(&self, writes: &Writes, sync: bool) -> Result<(), String> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or("the files are closed")?;
        database.commit(&self.opening.sealing, writes, sync)
    }

    pub(super) fn sync(&self) -> Result<(), String> {
        #[cfg(any(test, feature = "faults"))]
        self.take_sync_fault()?;
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

    /// What is to be done next. While a commit runs that is to plan more, once enough waits to be
    /// worth it and `planned` has room for it, or to see how the commit has ended; else it is the
    /// next group, once one waits and lingering for more is over. `sync_in` is when what was committed
    /// is to be synced at the latest, if something is.
    pub(super) fn take(&self, running: bool, planned: Weight, sync_in: Option<Duration>, pace: &mut Pace) -> Next {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = match running {
            true => self.wait_beside(queue, planned, pace.linger.bytes()),
            false => self.wait_for_group(queue, sync_in, &mut pace.linger),
        };
        let mut queue = match queue {
            Ok(queue) => queue,
            Err(next) => return next,
        };
        // It is to grow: the committer goes on with it again when it has.
        queue.behind = None;
        let (group, weight) = queue.waiting.take(planned);
        drop(queue);
        pace.linger.took(weight.bytes, pace.since.elapsed());
        pace.since = Stopwatch::start();
        self.metrics.taken(weight);
        self.room.notify_waiters();
        Next::Group(group, weight)
    }

    /// Waits for a group while nothing is committed.
    fn wait_for_group<'a>(
        &'a self,
        queue: MutexGuard<'a, Queue>,
        sync_in: Option<Duration>,
        linger: &mut Linger,
    ) -> Result<MutexGuard<'a, Queue>, Next> {
        let waits = |queue: &mut Queue| queue.open && queue.waiting.is_empty();
        let mut queue = match sync_in {
            None => self.arrived.wait_while(queue, waits).unwrap_or_else(PoisonError::into_inner),
            Some(Duration::ZERO) => return Err(Next::Sync),
            Some(sync_in) => {
                self.arrived.wait_timeout_while(queue, sync_in, waits).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        if queue.waiting.is_empty() {
            return Err(if queue.open { Next::Sync } else { Next::End });
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
        Ok(queue)
    }

    /// Waits for the commit to end, or for `worth` bytes that go beside what is planned.
    fn wait_beside<'a>(
        &'a self,
        mut queue: MutexGuard<'a, Queue>,
        planned: Weight,
        worth: usize,
    ) -> Result<MutexGuard<'a, Queue>, Next> {
        queue.lingers_for = Some(worth);
        let lacks = |queue: &mut Queue| {
            queue.ended.is_empty() && (queue.waiting.bytes() < worth || !queue.waiting.fits(planned))
        };
        let mut queue = self.arrived.wait_while(queue, lacks).unwrap_or_else(PoisonError::into_inner);
        queue.lingers_for = None;
        match queue.ended.pop_front() {
            Some(ended) => Err(Next::Ended(ended)),
            None => Ok(queue),
        }
    }

    /// Has the committer go on with `writes` by itself once what it commits now has ended well. Where
    /// that has ended already, the writer hears of it first.
    pub(super) fn put_behind(&self, writes: Arc<Writes>) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.ended.is_empty() {
            queue.behind = Some(writes);
        }
    }

    /// The committer goes on with nothing by itself: what is planned is void.
    pub(super) fn forget_behind(&self) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.behind = None;
        queue.ended.clear();
    }

    /// Says how the commit that was handed over has ended. Gives what is committed next, if it ended
    /// well and something is ready.
    pub(super) fn ended(&self, outcome: Result<(), String>) -> Option<Arc<Writes>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let behind = queue.behind.take_if(|_| outcome.is_ok());
        queue.ended.push_back(Ended { outcome, goes_on: behind.is_some() });
        drop(queue);
        self.arrived.notify_one();
        behind
    }

    /// Shows readers and committer the files from now on.
    pub(super) fn set_files(&self, database: Database) {
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = Some(database);
    }

    /// Waits, and says whether the queue is open still.
    pub(super) fn pause(&self, pause: Duration) -> bool {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.arrived.wait_timeout_while(queue, pause, |queue| queue.open);
        waited.unwrap_or_else(PoisonError::into_inner).0.open
    }

    pub(super) fn take_all(&self) -> Vec<Batch> {
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

    pub(super) fn close_files(&self) {
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
pub(super) enum Next {
    /// Plans these.
    Group(Vec<Batch>, Weight),
    /// Answers for the commit that was handed over.
    Ended(Ended),
    /// Syncs what it has committed without.
    Sync,
    /// Nothing more: the queue is closed and empty.
    End,
}

/// How a commit has ended that was handed over.
pub(super) struct Ended {
    pub(super) outcome: Result<(), String>,
    /// Whether what was behind it is being committed.
    pub(super) goes_on: bool,
}

/// How fast work came lately.
pub(super) struct Pace {
    pub(super) linger: Linger,
    /// Since something was taken last.
    pub(super) since: Stopwatch,
}
