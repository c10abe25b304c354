//! What the store's writer has committed and the dispatcher has not yet handed on.
//!
//! The writer never waits here. A reading that does not fit, or that shows by its offset that one
//! before it was never offered, opens a gap: from then on nothing is kept, and the dispatcher reads
//! the log until it has caught up with what was offered.

use std::collections::VecDeque;
use std::sync::Arc;

use unhidra_core::ids::Offset;
use unhidra_core::message::Reading;

/// One partition's queue between the writer and the dispatcher.
pub(crate) struct Intake {
    max_rows: usize,
    max_bytes: usize,
    waiting: VecDeque<Arc<Reading>>,
    bytes: usize,
    // The newest row offered or dispatched.
    seen: Offset,
    gap: bool,
}

/// What the dispatcher does next.
#[derive(Debug, PartialEq)]
pub(crate) enum Work {
    /// Hand these on.
    Readings(Vec<Arc<Reading>>),
    /// Read the log behind what was handed on last.
    ReadLog,
    /// Wait for a wake.
    Idle,
}

/// How much is dispatched at once: one frame for those who watch everything.
pub(crate) const CHUNK_ROWS: usize = 256;
/// Bytes of bodies dispatched at once; one row is always taken.
pub(crate) const CHUNK_BYTES: usize = 128 * 1024;

impl Intake {
    /// A queue behind `newest`, the newest row of the log.
    pub(crate) const fn new(newest: Offset, max_rows: usize, max_bytes: usize) -> Self {
        Self { max_rows, max_bytes, waiting: VecDeque::new(), bytes: 0, seen: newest, gap: false }
    }

    /// Takes a committed reading. Returns whether it opened a gap.
    pub(crate) fn offer(&mut self, reading: Arc<Reading>) -> bool {
        if reading.offset <= self.seen {
            // The dispatcher has read it from the log already.
            return false;
        }
        let follows = self.seen.next() == Some(reading.offset);
        let len = reading.uplink.body.len();
        let fits =
            self.waiting.is_empty() || (self.waiting.len() < self.max_rows && self.bytes + len <= self.max_bytes);
        self.seen = reading.offset;
        if self.gap {
            return false;
        }
        if follows && fits {
            self.bytes += len;
            self.waiting.push_back(reading);
        } else {
            self.gap = true;
        }
        self.gap
    }

    /// Has the log read, whatever was offered: the store has reopened, and may hold rows whose
    /// commit was thought to have failed.
    pub(crate) const fn distrust(&mut self) {
        self.gap = true;
    }

    /// What to do next.
    pub(crate) fn take(&mut self) -> Work {
        let mut rows = Vec::new();
        let mut bytes = 0;
        while rows.len() < CHUNK_ROWS
            && bytes < CHUNK_BYTES
            && let Some(reading) = self.waiting.pop_front()
        {
            bytes += reading.uplink.body.len();
            rows.push(reading);
        }
        self.bytes -= bytes;
        match (rows.is_empty(), self.gap) {
            (false, _) => Work::Readings(rows),
            (true, true) => Work::ReadLog,
            (true, false) => Work::Idle,
        }
    }

    /// Whether the log has still to be read.
    pub(crate) const fn has_gap(&self) -> bool {
        self.gap
    }

    /// Notes that the log has been handed on up to `to`, and that it holds nothing more where `end`
    /// says so. The gap closes if that covers all that was offered.
    pub(crate) fn read(&mut self, to: Offset, end: bool) {
        if end && to >= self.seen {
            self.gap = false;
            self.seen = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::reading;

    fn row(offset: u64) -> Arc<Reading> {
        Arc::new(reading("a", offset, 0, b"xx"))
    }

    fn offsets(work: Work) -> Vec<u64> {
        match work {
            Work::Readings(rows) => rows.iter().map(|row| row.offset.get()).collect(),
            other => panic!("{other:?} instead of readings"),
        }
    }

    #[test]
    fn what_follows_is_handed_on_in_order() {
        let mut intake = Intake::new(Offset::new(4), 10, 100);
        assert!(!intake.offer(row(5)) && !intake.offer(row(6)));
        assert_eq!(offsets(intake.take()), [5, 6]);
        assert_eq!(intake.take(), Work::Idle);
    }

    #[test]
    fn what_does_not_fit_is_read_from_the_log() {
        let mut intake = Intake::new(Offset::ZERO, 2, 100);
        assert!(!intake.offer(row(1)) && !intake.offer(row(2)));
        assert!(intake.offer(row(3)));
        assert!(!intake.offer(row(4)), "a gap opens once");
        assert_eq!(offsets(intake.take()), [1, 2], "what was kept goes first");
        assert_eq!(intake.take(), Work::ReadLog);
        intake.read(Offset::new(3), true);
        assert_eq!(intake.take(), Work::ReadLog, "4 was offered: the log's end was older than that");
        intake.offer(row(5));
        intake.read(Offset::new(6), true);
        assert_eq!(intake.take(), Work::Idle);
        intake.offer(row(5));
        intake.offer(row(6));
        assert_eq!(intake.take(), Work::Idle, "both have been read already");
        intake.offer(row(7));
        assert_eq!(offsets(intake.take()), [7]);
    }

    #[test]
    fn bytes_bound_as_rows_do() {
        let mut intake = Intake::new(Offset::ZERO, 100, 3);
        assert!(!intake.offer(row(1)));
        assert!(intake.offer(row(2)));
    }

    #[test]
    fn a_row_that_was_never_offered_is_read_from_the_log() {
        let mut intake = Intake::new(Offset::ZERO, 10, 100);
        assert!(intake.offer(row(2)));
        assert_eq!(intake.take(), Work::ReadLog);
        intake.read(Offset::new(2), true);
        assert_eq!(intake.take(), Work::Idle);
        intake.distrust();
        assert_eq!(intake.take(), Work::ReadLog);
    }

    #[test]
    fn a_chunk_is_bounded() {
        let mut intake = Intake::new(Offset::ZERO, usize::MAX, usize::MAX);
        (1..=CHUNK_ROWS as u64 + 1).for_each(|n| assert!(!intake.offer(row(n))));
        assert_eq!(offsets(intake.take()).len(), CHUNK_ROWS);
        assert_eq!(offsets(intake.take()).len(), 1);
    }
}
