//! Whether those who are inside have messages on their way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use unhidra_core::time::Timestamp;

/// How long a look is good for.
const LOOK: Duration = Duration::from_millis(100);

/// Said by every connection that moves messages, asked by those who compute handshakes.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// Since the last look. All connections read it and seldom one writes it, so that its cache line
    /// stays with every core.
    moved: AtomicBool,
    look: Mutex<Look>,
}

#[derive(Debug, Default)]
struct Look {
    at: Timestamp,
    moved: bool,
}

impl Traffic {
    /// A message has come, or goes out.
    pub(crate) fn moves(&self) {
        if !self.moved.load(Ordering::Relaxed) {
            self.moved.store(true, Ordering::Relaxed);
        }
    }

    /// Whether messages moved between the last two looks, or since the last.
    pub(crate) fn is_moving(&self, now: Timestamp) -> bool {
        let mut look = self.look.lock().unwrap_or_else(PoisonError::into_inner);
        if now >= look.at.saturating_add(LOOK) {
            *look = Look { at: now, moved: self.moved.swap(false, Ordering::Relaxed) };
        }
        look.moved || self.moved.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_seen_at_once_and_forgotten_a_look_after_the_last() {
        let at = |ms| Timestamp::ZERO.saturating_add(Duration::from_millis(ms));
        let traffic = Traffic::default();
        assert!(!traffic.is_moving(at(50)), "nobody has said anything");
        traffic.moves();
        assert!(traffic.is_moving(at(60)) && traffic.is_moving(at(100)) && traffic.is_moving(at(199)));
        assert!(!traffic.is_moving(at(200)), "nothing for a whole look");
        traffic.moves();
        assert!(traffic.is_moving(at(201)));
    }
}
