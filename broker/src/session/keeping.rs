//! What must be stored before something else may go out.
//!
//! Exactly once holds over a crash if four things are on disk before the packet behind them leaves:
//! the identifier of a QoS 2 message before its PUBLISH, a received one before its PUBREC, a PUBREC
//! before our PUBREL, a PUBREL before our PUBCOMP.

use std::collections::VecDeque;

use unhidra_core::delivery::AckToken;

use super::Transmit;

/// The steps of one session that are on their way to the store, in order.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    next: u64,
    /// Bounded by what may be unanswered in either direction.
    waiting: VecDeque<(u64, After)>,
}

/// What a step holds back.
#[derive(Debug)]
pub(super) enum After {
    /// This goes out.
    Transmit(Transmit),
    /// The message under this token may be answered.
    Answer(AckToken),
}

impl Keeping {
    /// Numbers a step, with what waits for it.
    pub(super) fn add(&mut self, after: Option<After>) -> u64 {
        self.next += 1;
        self.waiting.extend(after.map(|after| (self.next, after)));
        self.next
    }

    /// Everything up to a number is stored: what waited for it, in order.
    pub(super) fn pop(&mut self, number: u64) -> Option<After> {
        self.waiting.front().filter(|(waits_for, _)| *waits_for <= number)?;
        self.waiting.pop_front().map(|(_, after)| after)
    }
}
