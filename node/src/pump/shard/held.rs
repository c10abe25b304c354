//! The end of a shard whose store takes no rows.
//!
//! A batch that is held back for want of room on the disk goes on when somebody has made some, and in a node that
//! ends nobody does. So it is left: what it was to acknowledge stays unanswered, comes again to the next life of
//! the node, and opens there as if this one had not seen it. What was concluded from it goes with it, as after a
//! commit that failed.

use rand_core::CryptoRng;

use super::Shard;

impl<R: CryptoRng> Shard<R> {
    /// Leaves the rows that the store holds back, and all that rests on them, where nobody makes room for them
    /// any more. What was handed over before them is answered first. Says whether it did.
    pub(super) fn leave_held(&mut self) -> bool {
        let is_held = self.leaves_rows && self.blocked.as_ref().is_some_and(|(batch, _)| batch.appends());
        if !is_held || self.in_flight.len() > 1 {
            return false;
        }
        tracing::warn!(partition = %self.partition, "no readings are taken, and the node ends: their devices keep them");
        self.blocked = None;
        let waits = self.in_flight.pop_back().unwrap_or_default();
        self.void(waits);
        self.recover();
        true
    }
}
