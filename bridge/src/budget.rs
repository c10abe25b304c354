//! What failed key agreements may cost: a bound on the DH steps a forger makes the node pay for.

use std::time::Duration;

use unhidra_core::time::Timestamp;

/// Failed opens that cost a DH step, a device and window (e2ee/PROTOCOL.md section 7).
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
}
