//! What the log says of clients: one line for each that comes, goes or is refused, and no more in a
//! second than somebody can read. The metrics count them all.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use unhidra_core::time::Timestamp;

/// How many lines of one kind a second the log gets.
#[derive(Debug)]
pub(crate) struct Quota {
    per_s: u32,
    second: Mutex<Second>,
}

#[derive(Debug)]
struct Second {
    began_at: Timestamp,
    shown: u32,
    /// Not shown, in this second and those before it in which nothing was.
    hidden: u64,
}

/// The quotas of a broker. A flood of one kind hides no other.
#[derive(Debug)]
pub(crate) struct Events {
    pub(crate) connected: Quota,
    pub(crate) ended: Quota,
    pub(crate) refused: Quota,
}

impl Events {
    pub(crate) fn new(per_s: u32) -> Self {
        Self { connected: Quota::new(per_s), ended: Quota::new(per_s), refused: Quota::new(per_s) }
    }
}

impl Quota {
    fn new(per_s: u32) -> Self {
        Self { per_s, second: Mutex::new(Second { began_at: Timestamp::ZERO, shown: 0, hidden: 0 }) }
    }

    /// Whether one more may be shown: `Some`, with how many before it were not.
    pub(crate) fn take(&self, now: Timestamp) -> Option<u64> {
        let mut second = self.lock();
        if now.saturating_since(second.began_at) >= Duration::from_secs(1) {
            (second.began_at, second.shown) = (now, 0);
        }
        if second.shown >= self.per_s {
            second.hidden += 1;
            return None;
        }
        second.shown += 1;
        Some(std::mem::take(&mut second.hidden))
    }

    fn lock(&self) -> MutexGuard<'_, Second> {
        self.second.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_shown_in_a_second_than_may_and_the_next_line_says_how_many_were_not() {
        let quota = Quota::new(2);
        let at = Timestamp::from_ms;
        assert_eq!([0, 1, 2, 999].map(|ms| quota.take(at(ms))), [Some(0), Some(0), None, None]);
        assert_eq!([1000, 1001, 1999].map(|ms| quota.take(at(ms))), [Some(2), Some(0), None]);
        assert_eq!(quota.take(at(9000)), Some(1));
        assert_eq!(Quota::new(0).take(at(1)), None);
    }
}
