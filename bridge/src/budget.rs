//! What a forger may make the node pay for: failed key agreements, and long ways along a chain.

use std::time::Duration;

use unhidra_core::time::Timestamp;
use unhidra_e2ee::role::LONG_TRY_INTERVAL;

/// Failed opens that cost a DH step, a device, door and window; handshakes apart (e2ee/PROTOCOL.md section 7).
const FAILURES_MAX: u8 = 10;
const WINDOW: Duration = Duration::from_secs(60);

/// Counts failed opens that cost a DH step. Past ten in a minute such messages are not read.
#[derive(Debug, Default)]
pub(crate) struct StepBudget {
    since: Option<Timestamp>,
    failures: u8,
}

impl StepBudget {
    /// Whether the next costly message is to be refused unread.
    pub(crate) fn is_spent(&self, now: Timestamp) -> bool {
        self.failures >= FAILURES_MAX && self.since.is_some_and(|since| now.saturating_since(since) < WINDOW)
    }

    /// Counts one failed open that cost a step.
    pub(crate) fn spend(&mut self, now: Timestamp) {
        match self.since {
            Some(since) if now.saturating_since(since) < WINDOW => self.failures = self.failures.saturating_add(1),
            _ => (self.since, self.failures) = (Some(now), 1),
        }
    }
}

/// Keeps the time between two long tries of a device, whether they open or not
/// (e2ee/PROTOCOL.md section 7).
#[derive(Debug, Default)]
pub(crate) struct LongTries {
    last: Option<Timestamp>,
}

impl LongTries {
    /// Whether there may be one now, which is then taken.
    pub(crate) fn take(&mut self, now: Timestamp) -> bool {
        let may = self.last.is_none_or(|last| now.saturating_since(last) >= LONG_TRY_INTERVAL);
        if may {
            self.last = Some(now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_a_minute() {
        let mut budget = StepBudget::default();
        let start = Timestamp::from_ms(5);
        for _ in 0..9 {
            budget.spend(start);
        }
        assert!(!budget.is_spent(start));
        budget.spend(start);
        assert!(budget.is_spent(start.saturating_add(Duration::from_millis(59_999))));
        let later = start.saturating_add(WINDOW);
        assert!(!budget.is_spent(later));
        budget.spend(later);
        assert!(!budget.is_spent(later), "a new window counts from one");
    }

    #[test]
    fn one_long_try_in_ten_minutes() {
        let mut tries = LongTries::default();
        let start = Timestamp::from_ms(5);
        assert!(tries.take(start));
        assert!(!tries.take(start.saturating_add(LONG_TRY_INTERVAL - Duration::from_millis(1))));
        assert!(tries.take(start.saturating_add(LONG_TRY_INTERVAL)));
    }
}
