//! How much memory the process takes, looked at when somebody knocks and not more often than it
//! changes much.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use unhidra_core::time::Timestamp;

/// How long a look is good for. It is a short read of a file that the kernel makes up.
const LOOK: Duration = Duration::from_millis(100);

/// The last look.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<Option<(Timestamp, u64)>>);

impl Memory {
    /// The bytes of memory the process holds; 0 where the system does not say.
    pub(super) fn bytes(&self, now: Timestamp) -> u64 {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *last {
            Some((at, bytes)) if now < at.saturating_add(LOOK) => bytes,
            _ => {
                let bytes = resident_bytes();
                *last = Some((now, bytes));
                bytes
            }
        }
    }
}

fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages.saturating_mul(rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_takes_some_memory_and_is_not_asked_too_often() {
        let memory = Memory::default();
        let begin = memory.bytes(Timestamp::ZERO);
        assert!(begin > 100_000, "{begin}");
        let held = vec![1_u8; 64 << 20];
        assert_eq!(memory.bytes(Timestamp::ZERO), begin);
        let later = memory.bytes(Timestamp::ZERO.saturating_add(LOOK));
        assert!(later > begin + (32 << 20), "{later}, {} more asked for", held.len());
    }
}
