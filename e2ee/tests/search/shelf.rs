//! The node's skipped keys on the heap.

use unhidra_e2ee::skipped::{SkippedKey, SkippedKeys};

/// Nothing until the first message is late.
#[derive(Default)]
pub(crate) struct Shelf(Vec<SkippedKey>);

impl SkippedKeys for Shelf {
    fn slots(&self) -> &[SkippedKey] {
        &self.0
    }

    fn slots_mut(&mut self) -> &mut [SkippedKey] {
        &mut self.0
    }

    fn grow(&mut self, len: usize) {
        while self.0.len() < len {
            self.0.push(SkippedKey::default());
        }
    }
}
