//! The bound on what the store takes of the disk.
//!
//! ```text
//!   0 ------------------- 90 % ----------------- 100 %
//!        nothing           the oldest rows of     no rows are taken, until it is
//!                          all devices go         below 97 % again
//! ```
//!
//! What goes is on the disk still, until it is compacted. So what went is remembered, as long as the
//! disk does not show it, and no more goes than would do: rows are not deleted because others have
//! not yet made room. Where that does not help, the store is compacted as a whole, and takes no rows
//! while it is over its bound; devices keep what is not acknowledged.

use std::sync::Arc;
use std::time::Duration;

use unhidra_core::ids::{Offset, Partition};
use unhidra_core::time::{Clock, Timestamp};
use unhidra_store::{Op, Reason, Store};

use super::LookError;
use super::metrics::{Metrics, shown};
use crate::commit::commit;

/// How often the disk is looked at where it has a bound.
const LOOK: Duration = Duration::from_secs(2);

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
    /// How far the logs have been trimmed, for each partition.
    reached: Vec<Offset>,
    used: u64,
    /// What went, and is on the disk still.
    pub(super) owed: u64,
    pub(super) level: Level,
    compacted_at: Option<Timestamp>,
}

/// How full it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Level {
    Free,
    Near,
    Full,
}

impl Disk {
    pub(super) fn new(max: u64, store: Arc<dyn Store>, clock: Arc<dyn Clock + Send + Sync>, metrics: Metrics) -> Self {
        metrics.disk_bytes_max.set(shown(max));
        let reached = vec![Offset::ZERO; usize::from(store.partitions())];
        Self { max, store, clock, metrics, reached, used: 0, owed: 0, level: Level::Free, compacted_at: None }
    }

    /// How long it is until the next look.
    pub(super) const fn pause(&self) -> Duration {
        if self.max == 0 { LOOK_UNBOUNDED } else { LOOK }
    }

    /// Looks once, and does what is to be done.
    pub(super) async fn look(&mut self) -> Result<(), LookError> {
        self.measure().await?;
        if self.max == 0 || self.used < near(self.max) {
            return Ok(());
        }
        self.make_room().await?;
        // While no rows come nothing is compacted by itself: what went must be made to leave.
        let held = self.level == Level::Full && self.owed >= self.max / WORTH_PART;
        let stuck = self.level == Level::Full || self.owed >= self.max / OWED_PART;
        if held || (stuck && self.may_compact()) {
            tracing::info!(used = self.used, "the store is compacted to make room");
            self.store.compact().await?;
            self.compacted_at = Some(self.clock.now());
            self.owed = 0;
            self.measure().await?;
        }
        Ok(())
    }

    async fn measure(&mut self) -> Result<(), LookError> {
        let used = self.store.disk_bytes().await?;
        self.owed = self.owed.saturating_sub(self.used.saturating_sub(used));
        self.used = used;
        self.metrics.disk_bytes.set(shown(used));
        self.rise_or_fall();
        Ok(())
    }

    fn rise_or_fall(&mut self) {
        let (used, max) = (self.used, self.max);
        let level = match self.level {
            _ if max == 0 || used < near(max) => Level::Free,
            _ if used >= max => Level::Full,
            // A little below, or it would come and go with every flush.
            Level::Full if used >= max / 100 * 97 => Level::Full,
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
        while self.used.saturating_sub(self.owed) > goal && self.owed < self.max / OWED_PART {
            let mut went = 0;
            for (partition, reached) in (0..).map(Partition::new).zip(&mut self.reached) {
                let found = self.store.oldest(partition, *reached, STEP).await?;
                went += found.bytes;
                if let Some(error) = found.damaged {
                    tracing::warn!(%error, "a damaged row stays; `unhidra store verify` says what is damaged");
                }
                let ops: Vec<Op> = found.trims.into_iter().map(|(device, trim)| Op::Trim { device, trim }).collect();
                if !ops.is_empty() {
                    commit(&*self.store, partition, ops).await?;
                    self.metrics.trimmed(Reason::Disk, found.rows);
                    self.metrics.freed(found.bytes);
                }
                // At the end are stubs alone: once they are old, they go.
                *reached = if found.end { Offset::ZERO } else { found.reached };
            }
            self.owed += went;
            if went == 0 {
                break;
            }
        }
        Ok(())
    }

    fn may_compact(&self) -> bool {
        self.compacted_at.is_none_or(|at| self.clock.now().saturating_since(at) >= COMPACT_AGAIN)
    }
}

/// From where on it is near its bound.
const fn near(max: u64) -> u64 {
    max / 100 * 90
}
