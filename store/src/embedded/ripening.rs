//! When a table is written out from memory.
//!
//! The engine is never to find a table full: while its one thread merges, each commit would leave it a note of
//! every full table in a queue of a thousand, and once that is full the thread waits in it for itself, for
//! good. So its own bound is out of reach, and what is full is written out from here.
//!
//! Tables that grow large in memory need few merges where much comes (`readings_memtable_bytes`,
//! `sessions_memtable_bytes`). Where less comes they would hold that memory for long, and all of it would be
//! read back from journals at a start. So what is an eighth of it and more is written out some time
//! (`readings_memtable_s`, `sessions_memtable_s`) after the first record of it came.

use std::time::Duration;

use crate::metrics::Stopwatch;

/// The part of a full table that is worth a file of its own.
const WORTH: u64 = 8;

/// How full a table is in memory, and since when.
pub(super) struct Ripening {
    /// From how many bytes on it is written out, as the engine counts them.
    full: u64,
    /// `None`: only what is full is.
    age: Option<Duration>,
    clock: Stopwatch,
    /// When the first of what is in memory was seen, by the clock.
    since: Option<Duration>,
}

impl Ripening {
    pub(super) fn new(full: u64, age: Option<Duration>) -> Self {
        Self { full, age, clock: Stopwatch::start(), since: None }
    }

    /// Whether the table, which holds so many bytes in memory, is to be written out.
    pub(super) fn is_ripe(&mut self, bytes: u64) -> bool {
        self.is_ripe_at(bytes, self.clock.elapsed())
    }

    /// Whether so many bytes are as much as it may hold in one piece.
    pub(super) const fn is_full(&self, bytes: u64) -> bool {
        bytes >= self.full
    }

    /// It is being written out.
    pub(super) const fn begin_anew(&mut self) {
        self.since = None;
    }

    fn is_ripe_at(&mut self, bytes: u64, now: Duration) -> bool {
        if bytes == 0 {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let is_old = self.age.is_some_and(|age| now.saturating_sub(since) >= age);
        self.is_full(bytes) || (is_old && bytes >= self.full / WORTH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_full_is_written_out_whatever_its_age() {
        for age in [None, Some(AGE)] {
            let mut ripening = Ripening::new(80_000, age);
            assert!(!ripening.is_ripe_at(79_999, Duration::ZERO));
            assert!(ripening.is_ripe_at(80_000, Duration::ZERO));
            assert!(ripening.is_ripe_at(80_001, Duration::ZERO), "until it has begun anew");
        }
    }

    #[test]
    fn an_eighth_is_written_out_once_it_is_old_enough() {
        let mut ripening = Ripening::new(80_000, Some(AGE));
        assert!(!ripening.is_ripe_at(9_999, Duration::ZERO));
        assert!(!ripening.is_ripe_at(10_000, AGE / 2), "it is young");
        assert!(!ripening.is_ripe_at(9_999, AGE), "it is too little");
        assert!(ripening.is_ripe_at(10_000, AGE));
        ripening.begin_anew();
        assert!(!ripening.is_ripe_at(10_000, AGE + AGE / 2), "what is there is new");
        assert!(ripening.is_ripe_at(10_000, 3 * AGE));
        assert!(!Ripening::new(80_000, None).is_ripe_at(79_999, 100 * AGE));
    }

    #[test]
    fn the_age_counts_from_the_first_record() {
        let mut ripening = Ripening::new(80_000, Some(AGE));
        assert!(!ripening.is_ripe_at(0, Duration::ZERO));
        assert!(!ripening.is_ripe_at(20_000, 10 * AGE), "it came just now");
        assert!(!ripening.is_ripe_at(20_000, 11 * AGE - Duration::from_secs(1)));
        assert!(ripening.is_ripe_at(20_000, 11 * AGE));
    }
}
