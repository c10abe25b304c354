//! When the table of readings is written out before it is full.
//!
//! It grows large in memory so that few merges are needed where much comes (`readings_memtable_bytes`).
//! Where less comes it would hold that memory for long, and all of it would be read back from journals
//! at a start. So what is an eighth of it and more is written out `readings_memtable_s` after the
//! first record of it came.

use std::time::Duration;

use crate::metrics::Stopwatch;

/// What the engine counts for each record beside its bytes.
const RECORD_OVERHEAD: u64 = 64;
/// The part of a full table that is worth a file of its own.
const WORTH: u64 = 8;

/// How much of the table is in memory, and since when.
pub(super) struct Ripening {
    full: u64,
    age: Duration,
    bytes: u64,
    clock: Stopwatch,
    /// When the first of what is in memory came, by the clock.
    since: Option<Duration>,
}

impl Ripening {
    pub(super) fn new(full: u64, age: Duration) -> Self {
        Self { full, age, bytes: 0, clock: Stopwatch::start(), since: None }
    }

    /// Counts records that were written, and their bytes. Gives whether the table is to be written out.
    pub(super) fn wrote(&mut self, records: u64, bytes: u64) -> bool {
        self.wrote_at(records, bytes, self.clock.elapsed())
    }

    fn wrote_at(&mut self, records: u64, bytes: u64, now: Duration) -> bool {
        if records > 0 {
            self.since.get_or_insert(now);
        }
        self.bytes = self.bytes.saturating_add(bytes).saturating_add(records.saturating_mul(RECORD_OVERHEAD));
        // The engine writes out what is full itself.
        let is_full = self.bytes >= self.full;
        let is_old = self.since.is_some_and(|since| now.saturating_sub(since) >= self.age);
        let is_ripe = is_old && self.bytes >= self.full / WORTH;
        if is_full || is_ripe {
            (self.bytes, self.since) = (0, None);
        }
        is_ripe && !is_full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_secs(60);

    fn ripening() -> Ripening {
        Ripening::new(80_000, AGE)
    }

    #[test]
    fn an_eighth_is_written_out_once_it_is_old_enough() {
        let mut ripening = ripening();
        assert!(!ripening.wrote_at(10, 9_000, Duration::ZERO), "9 640 bytes are less");
        assert!(!ripening.wrote_at(10, 9_000, AGE / 2), "it is young");
        assert!(ripening.wrote_at(0, 0, AGE), "also where something else is written");
        assert!(!ripening.wrote_at(1, 1, AGE), "it began anew");
    }

    #[test]
    fn the_age_counts_from_the_first_record_and_not_from_what_was_written_out_before_it() {
        let mut ripening = ripening();
        assert!(!ripening.wrote_at(0, 0, AGE), "no record of the table");
        assert!(!ripening.wrote_at(10, 19_000, 10 * AGE), "it came just now");
        assert!(!ripening.wrote_at(1, 1, 11 * AGE - Duration::from_secs(1)));
        assert!(ripening.wrote_at(1, 1, 11 * AGE));
        assert!(!ripening.wrote_at(10, 19_000, 20 * AGE), "and so after each");
        assert!(ripening.wrote_at(1, 1, 21 * AGE));
    }

    #[test]
    fn what_is_full_the_engine_writes_out() {
        let mut ripening = ripening();
        assert!(!ripening.wrote_at(10, 90_000, AGE));
        assert!(!ripening.wrote_at(10, 9_000, 2 * AGE), "what is there is new");
    }
}
