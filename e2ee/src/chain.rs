//! A chain of message keys, sending or receiving.

use crate::kdf::{chain_step, chain_step_over};
use crate::keys::{ChainKey, MessageKey};

/// A chain key and the number of the message whose key it gives next.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) key: ChainKey,
    pub(crate) next: u32,
}

impl Chain {
    pub(crate) const fn new(key: ChainKey) -> Self {
        Self { key, next: 0 }
    }

    /// The key of message `number`, not before [`next`](Self::next), and the chain after it. `None`
    /// where no number comes after it.
    pub(crate) fn reach(&self, number: u32) -> Option<(MessageKey, Self)> {
        let next = number.checked_add(1)?;
        let at = self.over(number);
        let (message, key) = chain_step(&at.key);
        Some((message, Self { key, next }))
    }

    /// The chain at message `number`, which is itself where that is not ahead.
    pub(crate) fn over(&self, number: u32) -> Self {
        let mut at = Self { key: ChainKey(self.key.0), next: self.next };
        while at.next < number {
            at = Self { key: chain_step_over(&at.key), next: at.next.saturating_add(1) };
        }
        at
    }
}
