//! Whether a commit waits a moment for more to share its sync. No I/O, no clock.
//!
//! A sync writes whole pages. On a disk that syncs in a fraction of a millisecond, readings that come
//! every fifth of one would each write the last page of the journal again: 4 096 bytes for each. So
//! where enough comes to fill several pages soon, the writer waits until it has; where little comes
//! nobody waits at all.

use std::time::Duration;

/// How much of the past the rate remembers.
const MEMORY: Duration = Duration::from_millis(100);
/// How many commits do not wait after one that waited in vain, at first and at most. Senders that
/// wait for their answers before they send more can fill nothing, however long one waits for them.
const REST: u32 = 8;
const REST_MAX: u32 = 1024;

/// What a partition's writer knows of how fast it gets work.
#[derive(Debug)]
pub(crate) struct Linger {
    /// What a commit is worth waiting for, in bytes.
    bytes: usize,
    /// How long at most. Zero: never.
    max: Duration,
    /// Bytes a second that came lately.
    rate: f64,
    /// Commits that are not to wait.
    rest: u32,
    /// How many there will be after the next vain wait.
    next_rest: u32,
}

impl Linger {
    pub(crate) const fn new(bytes: usize, max: Duration) -> Self {
        Self { bytes, max, rate: 0.0, rest: 0, next_rest: REST }
    }

    /// How many bytes are worth waiting for.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How long the writer may wait, of which `waiting` bytes do: as long as may be, where at the rate
    /// of late enough comes in that time; else not at all.
    pub(crate) fn patience(&mut self, waiting: usize) -> Option<Duration> {
        let lacking = self.bytes.saturating_sub(waiting);
        if lacking == 0 || self.rate * self.max.as_secs_f64() < lacking as f64 {
            return None;
        }
        if self.rest > 0 {
            self.rest -= 1;
            return None;
        }
        Some(self.max)
    }

    /// Learns whether enough came while the writer waited.
    pub(crate) fn waited(&mut self, enough: bool) {
        if enough {
            self.next_rest = REST;
        } else {
            self.rest = self.next_rest;
            self.next_rest = self.next_rest.saturating_mul(2).min(REST_MAX);
        }
    }

    /// Learns that `bytes` came in the time since it was told last.
    pub(crate) fn took(&mut self, bytes: usize, since: Duration) {
        let (since, memory) = (since.as_secs_f64().max(1e-6), MEMORY.as_secs_f64());
        let share = since / (since + memory);
        self.rate += share * (bytes as f64 / since - self.rate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// One that has seen `bytes` every millisecond for a second.
    fn at_rate(bytes: usize) -> Linger {
        let mut linger = Linger::new(16_384, 10 * MS);
        (0..1_000).for_each(|_| linger.took(bytes, MS));
        linger
    }

    #[test]
    fn a_commit_waits_only_where_enough_comes_in_time() {
        assert_eq!(Linger::new(16_384, 10 * MS).patience(300), None, "nothing came lately");
        assert_eq!(at_rate(300).patience(300), None, "3 000 bytes in 10 ms");
        assert_eq!(at_rate(2_000).patience(300), Some(10 * MS), "20 000 bytes in 10 ms");
        assert_eq!(at_rate(2_000).patience(16_384), None, "enough is there");
    }

    #[test]
    fn after_a_pause_nobody_waits() {
        let mut linger = at_rate(2_000);
        linger.took(300, Duration::from_secs(2));
        assert_eq!(linger.patience(300), None);
    }

    #[test]
    fn who_waits_in_vain_waits_ever_more_seldom() {
        let mut linger = at_rate(2_000);
        let mut waits = 0;
        for _ in 0..10_000 {
            if linger.patience(300).is_some() {
                waits += 1;
                linger.waited(false);
            }
        }
        assert!((8..20).contains(&waits), "{waits}");
        linger.rest = 0;
        linger.waited(true);
        linger.waited(false);
        assert_eq!(linger.rest, REST, "once it was worth it, the count begins anew");
    }

    #[test]
    fn without_a_time_nobody_waits() {
        let mut linger = Linger::new(16_384, Duration::ZERO);
        (0..1_000).for_each(|_| linger.took(1 << 20, MS));
        assert_eq!(linger.patience(1), None);
    }
}
