//! The node's side of a session, with its skipped keys out of line.

use unhidra_e2ee::role::NodeRole;
use unhidra_e2ee::sessions::Sessions;
use unhidra_e2ee::skipped::{SkippedKey, SkippedKeys};

/// The sessions of one device, as the node holds them.
pub(crate) type NodeSessions = Sessions<NodeRole<Shelf>>;

/// Skipped keys on the heap: nothing until the first message is late, which for most devices is
/// never.
#[derive(Default)]
pub(crate) struct Shelf(Box<[SkippedKey]>);

impl SkippedKeys for Shelf {
    fn slots(&self) -> &[SkippedKey] {
        &self.0
    }

    fn slots_mut(&mut self) -> &mut [SkippedKey] {
        &mut self.0
    }

    fn grow(&mut self, len: usize) {
        if len <= self.0.len() {
            return;
        }
        // Doubled, so that a long gap moves each key once or twice and not once for each other.
        let wanted = len.max(self.0.len().saturating_mul(2));
        let kept = self.0.iter_mut().map(std::mem::take);
        let vacant = std::iter::repeat_with(SkippedKey::default);
        self.0 = kept.chain(vacant).take(wanted).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unhidra_e2ee::session::Session;

    #[test]
    fn a_session_takes_at_most_320_bytes() {
        assert!(size_of::<Session<NodeRole<Shelf>>>() <= 320);
    }

    #[test]
    fn a_shelf_is_empty_until_it_is_used_and_grows_by_doubling() {
        let mut shelf = Shelf::default();
        assert_eq!(shelf.slots().len(), 0);
        shelf.grow(3);
        shelf.grow(2);
        assert_eq!(shelf.slots().len(), 3);
        shelf.grow(4);
        assert_eq!(shelf.slots_mut().len(), 6);
    }
}
