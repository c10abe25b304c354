//! What argon2 works in, kept from check to check: given back to the allocator each time, it would stay
//! with each of the threads that ever checked a password.

use std::sync::{Arc, Mutex, PoisonError};

use argon2::Block;

/// The memory of checks that run: as many pieces as ever ran at once, each as large as the dearest
/// hash it was used for.
#[derive(Clone, Debug, Default)]
pub(super) struct Memories(Arc<Mutex<Vec<Memory>>>);

/// The memory of one check.
#[derive(Debug, Default)]
pub(super) struct Memory(Vec<Block>);

impl Memories {
    /// Runs one check in a piece that no other has.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let done = work(&mut memory);
        memory.wipe();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
        done
    }
}

impl Memory {
    /// So many blocks of 1 KiB. `None` where the system has no more.
    pub(super) fn blocks(&mut self, count: usize) -> Option<&mut [Block]> {
        let more = count.saturating_sub(self.0.len());
        self.0.try_reserve_exact(more).ok()?;
        self.0.resize(self.0.len() + more, Block::default());
        self.0.get_mut(..count)
    }

    /// Leaves nothing of a password: the first block alone would tell a guess from it at once.
    fn wipe(&mut self) {
        self.0.fill(Block::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Memories {
        /// Blocks in each piece that nobody uses.
        pub(in crate::access) fn sizes(&self) -> Vec<usize> {
            self.0.lock().unwrap().iter().map(|memory| memory.0.len()).collect()
        }
    }

    #[test]
    fn a_piece_serves_one_check_after_another_and_keeps_nothing_of_them() {
        let memories = Memories::default();
        for count in [8, 16, 8] {
            memories.with(|memory| {
                let blocks = memory.blocks(count).unwrap();
                assert!(
                    blocks.len() == count && blocks.iter().all(|block| block.as_ref().iter().all(|word| *word == 0))
                );
                blocks.iter_mut().for_each(|block| block.as_mut().fill(7));
            });
        }
        assert_eq!(memories.sizes(), [16]);
        memories.with(|_| memories.with(|_| {}));
        assert_eq!(memories.sizes().len(), 2, "as many as were in use at once");
    }
}
