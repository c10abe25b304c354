//! The command ids seen last: a command that comes again is acknowledged and not acted on twice.

use unhidra_core::ids::CommandId;

use super::ring::{Remembered, place};
use crate::storage::COMMANDS;

/// The last 64.
pub(crate) struct SeenCommands {
    ids: [Option<CommandId>; COMMANDS as usize],
    /// The sequence of the next one.
    next: u64,
}

impl SeenCommands {
    pub(crate) const fn new() -> Self {
        Self { ids: [None; COMMANDS as usize], next: 1 }
    }

    /// Puts back what was read from storage, in any order.
    pub(crate) fn restore(&mut self, seen: &Remembered<16>) {
        self.put(seen.sequence, CommandId::new(seen.bytes));
        self.next = self.next.max(seen.sequence.saturating_add(1));
    }

    pub(crate) fn contains(&self, id: &CommandId) -> bool {
        self.ids.contains(&Some(*id))
    }

    /// What is to be written to remember `id`, and in which place.
    pub(crate) fn next_record(&self, id: &CommandId) -> (u8, Remembered<16>) {
        (place(self.next, COMMANDS), Remembered { sequence: self.next, bytes: *id.as_bytes() })
    }

    /// It was written.
    pub(crate) fn remember(&mut self, id: CommandId) {
        self.put(self.next, id);
        self.next = self.next.saturating_add(1);
    }

    fn put(&mut self, sequence: u64, id: CommandId) {
        if let Some(at) = self.ids.get_mut(usize::from(place(sequence, COMMANDS))) {
            *at = Some(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> CommandId {
        CommandId::new([n; 16])
    }

    #[test]
    fn the_last_64_are_known_again_after_a_reset_too() {
        let mut seen = SeenCommands::new();
        let mut read_back = SeenCommands::new();
        for n in 1..=70 {
            let (_, record) = seen.next_record(&id(n));
            read_back.restore(&record);
            seen.remember(id(n));
        }
        for memory in [&seen, &read_back] {
            assert!(!memory.contains(&id(6)) && (7..=70).all(|n| memory.contains(&id(n))));
            assert_eq!(memory.next, 71);
        }
    }
}
