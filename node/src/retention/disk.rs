//! The bound on what the store takes of the disk.
//!
//! ```text
//!   0 ------------------- 90 % ----------------- 100 %
//!        nothing           the oldest rows of     no rows are taken, until it is
//!                          all devices go         below 97 % again
//! ```
//!
//! What comes until the next look is not asked about: so no rows are taken either where it would be over
//! its bound by then, at the rate of late, and from half of the bound on it looks oftener, while it makes
//! room too.
//!
//! What goes is on the disk still, until it is compacted. So what went is remembered, as long as the
//! disk does not show it, and no more goes than would do: rows are not deleted because others have
//! not yet made room. Where that does not help, the store is compacted as a whole, and takes no rows
//! while it is over its bound; devices keep what is not acknowledged.

use std::sync::Arc;
use std::time::Duration;

use unhidra_core::ids::{DeviceId, Offset, Partition};
use unhidra_core::time::{Clock, Timestamp};
use unhidra_store::{Op, Reason, Store};

use super::LookError;
use super::metrics::{Metrics, shown};
use super::recount::Recount;
use crate::commit::commit_each;

/// How often the disk is looked at where it has a bound.
const LOOK: Duration = Duration::from_secs(2);

/// How often it is from half of the bound on: what passes it is what comes in this time, and what the
/// engine holds in memory.
const WATCH: Duration = Duration::from_millis(250);

/// How often it is where it is only shown.
const LOOK_UNBOUNDED: Duration = Duration::from_secs(60);

/// Rows that go in one commit.
const STEP: usize = 1024;

/// How much of what went the disk may not show yet, in parts of the bound: beyond, nothing more goes.
const OWED_PART: u64 = 4;

/// How much of what went is worth a whole compaction at once while no rows are taken, likewise.
const WORTH_PART: u64 = 50;

/// How long a whole compaction is not tried again otherwise.
const COMPACT_AGAIN: Duration = Duration::from_secs(60);

/// The bound, and where the use of the disk stands.
pub(super) struct Disk {
    max: u64,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock + Send + Sync>,
    metrics: Metrics,
    recount: Recount,
    /// How far the logs have been trimmed, for each partition.
    reached: Vec<Offset>,
    used: u64,
    measured_at: Option<Timestamp>,
    /// By how much it would grow from one watch to the next, at the rate between the last two looks.
    ahead: u64,
    /// What went, and is on the disk still.
    pub(super) owed: u64,
    pub(super) level: Level,
    compacted_at: Option<Timestamp>,
}

/// What one step along a partition's log gave.
struct Step {
    /// How many bytes went.
    bytes: u64,
    /// Whether the log ends there.
    end: bool,
}

/// How full it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Level {
    Free,
    Near,
    Full,
}

impl Disk {
    pub(super) fn new(
        max: u64,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock + Send + Sync>,
        metrics: Metrics,
        recount: Recount,
    ) -> Self {
        metrics.disk_bytes_max.set(shown(max));
        let reached = vec![Offset::ZERO; usize::from(store.partitions())];
        Self {
            max,
            store,
            clock,
            metrics,
            recount,
            reached,
            used: 0,
            measured_at: None,
            ahead: 0,
            owed: 0,
            level: Level::Free,
            compacted_at: None,
        }
    }

    /// How long it is until the next look.
    pub(super) const fn pause(&self) -> Duration {
        match self.max {
            0 => LOOK_UNBOUNDED,
            max if self.used < max / 2 => LOOK,
            _ => WATCH,
        }
    }

    /// Looks once, and does what is to be done.
    pub(super) async fn look(&mut self) -> Result<(), LookError> {
        self.measure().await?;
        if self.max == 0 || self.used < near(self.max) {
            return Ok(());
        }
        self.make_room().await?;
        // While no rows come nothing is compacted by itself: what went must be made to leave.
        let is_held = self.level == Level::Full && self.used >= relieved(self.max);
        let held = is_held && self.owed >= self.max / WORTH_PART;
        let stuck = is_held || self.owed >= self.max / OWED_PART;
        if held || (stuck && self.may_compact()) {
            tracing::info!(used = self.used, "the store is compacted to make room");
            let store = self.store.clone();
            self.watching(store.compact()).await??;
            self.compacted_at = Some(self.clock.now());
            self.owed = 0;
            self.measure().await?;
        }
        Ok(())
    }

    /// Does what may take long, and looks at the use of the disk meanwhile: rows come all the while.
    async fn watching<T>(&mut self, work: impl Future<Output = T>) -> Result<T, LookError> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                () = tokio::time::sleep(WATCH) => self.measure().await?,
            }
        }
    }

    async fn measure(&mut self) -> Result<(), LookError> {
        let used = self.store.disk_bytes().await?;
        let now = self.clock.now();
        let since = self.measured_at.replace(now).map(|at| now.saturating_since(at).as_millis());
        if let Some(ms) = since.and_then(|ms| u64::try_from(ms).ok()).filter(|ms| *ms > 0) {
            let grown = used.saturating_sub(self.used);
            self.ahead = grown.saturating_mul(WATCH.as_millis().try_into().unwrap_or(u64::MAX)) / ms;
        }
        self.owed = self.owed.saturating_sub(self.used.saturating_sub(used));
        self.used = used;
        self.metrics.disk_bytes.set(shown(used));
        self.rise_or_fall();
        Ok(())
    }

    fn rise_or_fall(&mut self) {
        let (used, max) = (self.used, self.max);
        let soon = used.saturating_add(self.ahead);
        let level = match self.level {
            _ if max == 0 => Level::Free,
            _ if soon >= max => Level::Full,
            _ if used < near(max) => Level::Free,
            // A little below, or it would come and go with every flush.
            Level::Full if used >= relieved(max) => Level::Full,
            _ => Level::Near,
        };
        if level == self.level {
            return;
        }
        match level {
            Level::Free => tracing::info!(used, max, "the store is well within retention.disk_bytes_max"),
            Level::Near => {
                tracing::warn!(used, max, "the store is near retention.disk_bytes_max: the oldest readings go");
            }
            Level::Full => {
                tracing::error!(
                    used,
                    max,
                    "the store is at retention.disk_bytes_max: no readings are taken until it has made room"
                );
            }
        }
        if (level == Level::Full) != (self.level == Level::Full) {
            let why = (level == Level::Full).then(|| {
                format!(
                    "the store takes {used} bytes of the disk, and retention.disk_bytes_max allows {max}; give it more, or keep less"
                )
            });
            self.metrics.held.set(i64::from(level == Level::Full));
            self.store.hold_rows(why);
        }
        self.level = level;
    }

    /// Lets the oldest rows go, as many as would bring it below.
    async fn make_room(&mut self) -> Result<(), LookError> {
        let goal = self.max / 100 * 85;
        let began = self.clock.now();
        let all = 0..self.store.partitions();
        // What went since it last came to all ends, and the partitions that are not at theirs.
        let (mut went, mut ahead) = (0, all.clone().collect::<Vec<_>>());
        while self.used.saturating_sub(self.owed) > goal && self.owed < self.max / OWED_PART {
            let (mut freed, mut further) = (0, Vec::new());
            for number in ahead {
                let step = self.step(Partition::new(number)).await?;
                freed += step.bytes;
                further.extend((!step.end).then_some(number));
            }
            (went, ahead) = (went + freed, further);
            // Stubs free nothing, and those of thousands of silent devices may lie before the first row that does. So
            // it goes on, until the use of the disk is to be looked at again; the next look goes on from there.
            let is_late = freed == 0 && self.clock.now().saturating_since(began) >= WATCH;
            if is_late || (ahead.is_empty() && went == 0) {
                break;
            }
            if ahead.is_empty() {
                (went, ahead) = (0, all.clone().collect());
            }
        }
        Ok(())
    }

    /// Lets a few of a partition's oldest rows go.
    async fn step(&mut self, partition: Partition) -> Result<Step, LookError> {
        let store = self.store.clone();
        let at = usize::from(partition.get());
        let after = self.reached.get(at).copied().unwrap_or(Offset::ZERO);
        let found = self.watching(store.oldest(partition, after, STEP)).await??;
        if let Some(error) = found.damaged {
            tracing::warn!(%error, "a damaged row stays; `unhidra store verify` says what is damaged");
        }
        let devices: Vec<DeviceId> = found.trims.iter().map(|(device, _)| *device).collect();
        let ops: Vec<Op> = found.trims.into_iter().map(|(device, trim)| Op::Trim { device, trim }).collect();
        if !ops.is_empty() {
            let committed = self.watching(commit_each(&*store, partition, ops)).await;
            // However it ended: a commit of unknown outcome may have been done.
            self.recount.add(devices);
            let committed = committed??;
            if let Some(left) = committed.left_out.first() {
                let devices = committed.left_out.len();
                tracing::warn!(devices, first = %left.device, cause = %left.cause, "rows of a device stay");
            }
            self.metrics.trimmed(Reason::Disk, found.rows);
            self.metrics.freed(found.bytes);
        }
        self.owed += found.bytes;
        if let Some(reached) = self.reached.get_mut(at) {
            // At the end are stubs alone: once they are old, they go.
            *reached = if found.end { Offset::ZERO } else { found.reached };
        }
        Ok(Step { bytes: found.bytes, end: found.end })
    }

    fn may_compact(&self) -> bool {
        self.compacted_at.is_none_or(|at| self.clock.now().saturating_since(at) >= COMPACT_AGAIN)
    }
}

/// Below which rows are taken again.
const fn relieved(max: u64) -> u64 {
    max / 100 * 97
}

/// From where on it is near its bound.
const fn near(max: u64) -> u64 {
    max / 100 * 90
}
