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
//! A commit of a few readings is a sync and little else. One of many is handed to the [`committer`],
//! a thread of its own, and meanwhile the next group is planned behind it, with which the committer goes
//! on: with many senders a commit follows the other without a pause. Where one fails, so does what was
//! planned behind it.
//!
//! A panic of the engine, here or in a thread of its own, is a commit that failed.
//!
//! [`committer`]: super::committer

use std::io;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use tracing::{error, warn};
use unhidra_core::durable::DurableSource;

use crate::config::Durability;
use crate::ledger::{Answers, Ledger, Plan, Writes};
use crate::metrics::Stopwatch;
use crate::waiting::Weight;
use crate::{Batch, Health, ReadError};

use super::closed;
use super::database::{Database, caught};
use super::folder::{self, OpenError};
use super::shared::{Ended, Next, Pace, Shared};

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

/// A group that is planned.
struct Planned {
    plan: Plan,
    weight: Weight,
    /// Since the first of it was taken.
    since: Stopwatch,
}

/// The writer's state: the ledger, a group that is being committed, and one that is planned behind it.
struct Writer<'a> {
    shared: &'a Shared,
    ledger: Ledger,
    committer: SyncSender<Arc<Writes>>,
    source: DurableSource,
    unsynced: Unsynced,
    interval: Duration,
    committing: Option<Planned>,
    next: Option<Planned>,
    /// From how many bytes on a group is handed over.
    worth: usize,
}

/// Writes until the queue is closed and empty, or until the files fail for good. Whether all it has
/// written is synced then.
pub(super) fn run(shared: &Shared, ledger: Ledger, committer: SyncSender<Arc<Writes>>) -> bool {
    shared.begin_writer();
    let guard = Guard(shared);
    let mut pace = Pace { linger: shared.config.linger(), since: Stopwatch::start() };
    let mut writer = Writer {
        shared,
        ledger,
        committer,
        source: DurableSource::new_for_storage(),
        unsynced: Unsynced(None),
        interval: Duration::from_millis(shared.config.sync_interval_ms),
        committing: None,
        next: None,
        worth: pace.linger.bytes(),
    };
    loop {
        let planned = writer.next.as_ref().map_or_else(Weight::default, |next| next.weight);
        let sync_in = writer.unsynced.due_in(writer.interval);
        let done = match shared.take(writer.committing.is_some(), planned, sync_in, &mut pace) {
            Next::Group(group, weight) => writer.plan(group, weight),
            Next::Ended(ended) => writer.ended(ended),
            Next::Sync => writer.sync(),
            Next::End => break,
        };
        if let Err(cause) = done {
            fail(shared, writer.take_void(), cause);
            return false;
        }
    }
    let synced = shared.sync();
    let is_synced = synced.is_ok();
    if !is_synced && let Err(cause) = folder::mark_unsynced(&shared.path) {
        error!(partition = %shared.partition, %cause, "its last sync failed, and that cannot be marked for the next start");
    }
    drop(guard);
    // Without this note the next start takes the journals for those of a node that was killed.
    let noted = synced.and_then(|()| closed::write(&shared.path).map_err(|e| e.to_string()));
    if let Err(cause) = noted {
        warn!(partition = %shared.partition, cause, "closed without a note of where the journals end");
    }
    is_synced
}

impl Writer<'_> {
    /// Plans a group, and begins its commit where none runs.
    fn plan(&mut self, group: Vec<Batch>, weight: Weight) -> Result<(), String> {
        let before = self.committing.as_ref().map(|committing| &committing.plan);
        let mut next = self.next.take().unwrap_or_else(|| Planned {
            plan: self.ledger.empty_plan(before),
            weight: Weight::default(),
            since: Stopwatch::start(),
        });
        let mut group = Some(group);
        let added = self.shared.read(|view| {
            self.ledger.add(&mut next.plan, before, view, group.take().unwrap_or_default());
            Ok(())
        });
        if let Err(cause) = added {
            // The engine gave no view: what was to be planned is answered with the rest.
            next.plan.breaks(cause, group.unwrap_or_default());
        }
        next.weight = next.weight.plus(weight);
        // With a sync to be made between two commits the committer does not go on by itself.
        if self.committing.is_some() && self.shared.config.durability == Durability::Fsync && self.is_many(&next) {
            self.shared.put_behind(Arc::clone(&next.plan.writes));
        }
        self.next = Some(next);
        self.begin()
    }

    /// Whether a group is the committer's. One that writes nothing is answered at once, and one that
    /// is broken is not committed.
    fn is_many(&self, next: &Planned) -> bool {
        next.weight.bytes >= self.worth && next.plan.broken.is_none() && !next.plan.writes.is_empty()
    }

    /// Begins to commit what is planned, where nothing is being committed.
    fn begin(&mut self) -> Result<(), String> {
        if self.committing.is_some() {
            return Ok(());
        }
        // While one commit follows the other nobody waits for the timer.
        if self.is_sync_due() {
            self.sync()?;
        }
        let Some(next) = self.next.take() else { return Ok(()) };
        if let Some(cause) = &next.plan.broken {
            let cause = cause.to_string();
            self.next = Some(next);
            return self.reopen(&cause);
        }
        // Every batch of the group was refused, or asked for nothing.
        if next.plan.writes.is_empty() {
            self.settle(next, false);
            return Ok(());
        }
        if next.weight.bytes >= self.worth {
            return self.hand_over(next);
        }
        let writes = Arc::clone(&next.plan.writes);
        self.committing = Some(next);
        let outcome = caught(|| commit(self.shared, &writes)).and_then(|outcome| outcome);
        self.ended(Ended { outcome, goes_on: false })
    }

    /// Gives a group to the committer, which has nothing to do.
    fn hand_over(&mut self, next: Planned) -> Result<(), String> {
        let writes = Arc::clone(&next.plan.writes);
        self.committing = Some(next);
        self.committer.send(writes).map_err(|_| "the committer's thread has ended".to_owned())
    }

    /// Answers for what was committed. Where much is planned behind it, its commit runs meanwhile.
    fn ended(&mut self, Ended { outcome, goes_on }: Ended) -> Result<(), String> {
        if let Err(cause) = outcome {
            return self.reopen(&cause);
        }
        let Some(done) = self.committing.take() else { return Ok(()) };
        self.unsynced.committed(self.shared.config.durability);
        let mut begun = Ok(());
        if goes_on {
            self.committing = self.next.take();
        // A sync that fails voids what is planned: what was committed is answered before it.
        } else if !self.is_sync_due()
            && let Some(next) = self.next.take()
        {
            match self.is_many(&next) {
                true => begun = self.hand_over(next),
                false => self.next = Some(next),
            }
        }
        self.settle(done, true);
        begun.and_then(|()| self.begin())
    }

    fn settle(&mut self, Planned { plan, since, .. }: Planned, committed: bool) {
        let metrics = &self.shared.metrics;
        metrics.refused.inc_by(plan.refused() as u64);
        metrics.left_out.inc_by(plan.left_out() as u64);
        if committed {
            metrics.commits.inc();
            metrics.records.inc_by(plan.records());
            metrics.commit_duration.observe(since.seconds());
        }
        let answers = self.ledger.settle(plan, &self.source);
        // First the log, then the answers: who hears of a row finds it.
        self.shared.committed.send_replace(self.ledger.newest());
        answers.give();
    }

    fn is_sync_due(&self) -> bool {
        self.unsynced.due_in(self.interval).is_some_and(|sync_in| sync_in.is_zero())
    }

    fn sync(&mut self) -> Result<(), String> {
        self.unsynced = Unsynced(None);
        if let Err(cause) = self.shared.sync() {
            return self.reopen(&cause);
        }
        #[cfg(any(test, feature = "faults"))]
        self.shared.synced.send_modify(|syncs| *syncs += 1);
        Ok(())
    }

    fn reopen(&mut self, cause: &str) -> Result<(), String> {
        let void = self.take_void();
        self.ledger = reopen(self.shared, void, cause)?;
        Ok(())
    }

    /// What was planned, of which nobody knows what became of it; oldest first.
    fn take_void(&mut self) -> Vec<Plan> {
        self.shared.forget_behind();
        [self.committing.take(), self.next.take()].into_iter().flatten().map(|planned| planned.plan).collect()
    }
}

/// Commits in one atomic write, as durable as the configuration says. The engine may panic: the caller
/// catches it.
pub(super) fn commit(shared: &Shared, writes: &Writes) -> Result<(), String> {
    let sync = shared.config.durability == Durability::Fsync;
    #[cfg(any(test, feature = "faults"))]
    if let Some(fault) = shared.take_fault() {
        return fault.strike(|| shared.commit(writes, sync));
    }
    shared.commit(writes, sync)
}

/// After a failed commit or sync: tells all who were ahead of the store, and reads back what is on
/// the disk. Where there is no room, or the disk does not take it, it is tried again until it does;
/// nobody is served meanwhile.
fn reopen(shared: &Shared, void: Vec<Plan>, cause: &str) -> Result<Ledger, String> {
    // Before it is said: who reads the log and asks finds it so.
    shared.board.set(shared.partition, Health::Reopening);
    error!(partition = %shared.partition, cause, "a commit failed; reopening the store");
    shared.metrics.reopenings.inc();
    for plan in void {
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
                shared.board.set(shared.partition, Health::Ready);
                warn!(partition = %shared.partition, "the store serves again");
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
    use io::ErrorKind::{NotFound, PermissionDenied};
    !matches!(cause.kind(), NotFound | PermissionDenied)
}

/// Writes anew what may be in memory alone, and opens it.
fn renew(shared: &Shared) -> Result<Ledger, OpenError> {
    let io = |cause| OpenError::Io { path: shared.path.clone(), cause };
    // First of all: to close the files waits for those that read, and a process that is killed meanwhile would
    // leave no word of it.
    let marked = folder::mark_unsynced(&shared.path);
    // The engine is asked for nothing more: it may show what it could not write.
    shared.close_files();
    marked.map_err(io)?;
    folder::write_anew(&shared.path).map_err(io)?;
    let database = Database::open_made(&shared.path, &shared.config, shared.partitions)?;
    shared.set_files(database);
    let engine = |cause: ReadError| OpenError::Engine { path: shared.path.clone(), cause: cause.to_string() };
    shared.ledger().map_err(engine)
}

/// The writer ends and the partition with it.
fn fail(shared: &Shared, void: Vec<Plan>, cause: String) {
    error!(partition = %shared.partition, cause, "the store cannot go on");
    shared.close();
    for plan in void {
        plan.unknown(&cause).give();
    }
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
