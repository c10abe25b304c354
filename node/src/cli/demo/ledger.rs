//! Three ledgers of the same readings, and what they disagree about.
//!
//! | ledger | who keeps it |
//! | --- | --- |
//! | journal | each device, when it publishes and when PUBACK arrives |
//! | store | the node, as its export gives it |
//! | client | a WebSocket client, as frames arrive |
//!
//! A reading is known by its device, the number in its body and the SHA-256 of its body. What a
//! device was told is durable must stand in the store exactly once, and, published while the
//! client watched, in the client's ledger exactly once.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::cli::simulate::journal::Entry;

/// What names a reading.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub(crate) struct Key {
    /// Who published it.
    pub(crate) device: String,
    /// The device's own number for it.
    pub(crate) n: u64,
    /// SHA-256 of its body, in hexadecimal.
    pub(crate) sha256: String,
}

/// The part of a simulated body that numbers it.
#[derive(Deserialize)]
struct Numbered {
    n: u64,
}

impl Key {
    /// The name of a body of a simulated device; `None` where it carries no number.
    pub(crate) fn of(device: &str, body: &[u8]) -> Option<Self> {
        let Numbered { n } = serde_json::from_slice(body).ok()?;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body);
        let mut sha256 = String::with_capacity(64);
        for byte in digest.as_ref() {
            // A String takes everything.
            let _ = write!(sha256, "{byte:02x}");
        }
        Some(Self { device: device.to_owned(), n, sha256 })
    }

    fn of_entry(entry: &Entry) -> Self {
        Self { device: entry.device.clone(), n: entry.n, sha256: entry.sha256.clone() }
    }
}

/// How often each reading was seen.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    seen: BTreeMap<Key, u64>,
}

impl Ledger {
    /// Enters one.
    pub(crate) fn enter(&mut self, key: Key) {
        *self.seen.entry(key).or_default() += 1;
    }

    /// How many different readings are in it.
    pub(crate) fn len(&self) -> u64 {
        self.seen.len() as u64
    }

    fn count(&self, key: &Key) -> u64 {
        self.seen.get(key).copied().unwrap_or_default()
    }

    fn doubled(&self) -> impl Iterator<Item = &Key> {
        self.seen.iter().filter(|(_, count)| **count > 1).map(|(key, _)| key)
    }
}

/// What the three ledgers say together.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Verdict {
    /// Readings published in this run.
    pub(crate) published: u64,
    /// Readings of this run whose PUBACK has arrived.
    pub(crate) acknowledged: u64,
    /// Readings in the store, of this run and those before it.
    pub(crate) stored: u64,
    /// Readings the client has received.
    pub(crate) received: u64,
    /// Acknowledged, and not in the store or not received.
    pub(crate) lost: u64,
    /// In the store, or received, more than once.
    pub(crate) doubled: u64,
    /// The first few of those, for a person.
    pub(crate) faults: Vec<Finding>,
}

/// One reading the ledgers disagree about.
#[derive(Debug, Eq, PartialEq, Serialize)]
pub(crate) struct Finding {
    /// Which.
    #[serde(flatten)]
    pub(crate) reading: Key,
    /// What is wrong with it.
    pub(crate) fault: &'static str,
}

/// How many findings are named; the counts hold them all.
const NAMED_MAX: usize = 10;

impl Verdict {
    /// Compares. `journals` hold what the devices ever published from this folder, `run` says from
    /// which number on a device's readings are of this run, so that the client saw them.
    pub(crate) fn reach(
        journals: &[BTreeMap<u64, Entry>],
        run: &BTreeMap<String, u64>,
        stored: &Ledger,
        received: &Ledger,
    ) -> Self {
        let mut verdict = Self { stored: stored.len(), received: received.len(), ..Self::default() };
        for entry in journals.iter().flat_map(BTreeMap::values) {
            let key = Key::of_entry(entry);
            let is_of_this_run = run.get(&entry.device).is_some_and(|first| entry.n >= *first);
            verdict.published += u64::from(is_of_this_run);
            if entry.acknowledged_at.is_none() {
                continue;
            }
            verdict.acknowledged += u64::from(is_of_this_run);
            if stored.count(&key) == 0 {
                verdict.lose(key, "acknowledged and not in the store");
            } else if is_of_this_run && received.count(&key) == 0 {
                verdict.lose(key, "acknowledged and not received");
            }
        }
        for (ledger, fault) in [(stored, "more than once in the store"), (received, "received more than once")] {
            for key in ledger.doubled() {
                verdict.doubled += 1;
                verdict.name(key.clone(), fault);
            }
        }
        verdict
    }

    /// Whether nothing acknowledged is missing or doubled anywhere.
    pub(crate) const fn is_good(&self) -> bool {
        self.lost == 0 && self.doubled == 0
    }

    fn lose(&mut self, reading: Key, fault: &'static str) {
        self.lost += 1;
        self.name(reading, fault);
    }

    fn name(&mut self, reading: Key, fault: &'static str) {
        if self.faults.len() < NAMED_MAX {
            self.faults.push(Finding { reading, fault });
        }
    }
}

/// From publish to client, in ms.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub(crate) struct Latency {
    /// Half were faster.
    pub(crate) p50_ms: u64,
    /// All but one in a hundred were faster.
    pub(crate) p99_ms: u64,
    /// The slowest.
    pub(crate) max_ms: u64,
}

impl Latency {
    /// Of measured times, in any order.
    pub(crate) fn of(mut times_ms: Vec<u64>) -> Self {
        times_ms.sort_unstable();
        // Nearest rank: the smallest time that at least that share does not exceed.
        let at = |percent: usize| {
            let rank = (times_ms.len() * percent).div_ceil(100);
            times_ms.get(rank.saturating_sub(1)).copied().unwrap_or_default()
        };
        Self { p50_ms: at(50), p99_ms: at(99), max_ms: at(100) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> Key {
        Key::of("pump-7", format!(r#"{{"n":{n},"v":21.5}}"#).as_bytes()).expect("numbered")
    }

    fn journal(acknowledged: std::ops::Range<u64>, open: std::ops::Range<u64>) -> Vec<BTreeMap<u64, Entry>> {
        let entry = |n: u64, acknowledged_at| {
            let Key { device, n, sha256 } = key(n);
            (n, Entry { device, n, reading: n, sha256, published_at: 1, acknowledged_at })
        };
        vec![acknowledged.map(|n| entry(n, Some(2))).chain(open.map(|n| entry(n, None))).collect()]
    }

    fn ledger(numbers: impl IntoIterator<Item = u64>) -> Ledger {
        let mut ledger = Ledger::default();
        numbers.into_iter().for_each(|n| ledger.enter(key(n)));
        ledger
    }

    fn verdict(journal: &[BTreeMap<u64, Entry>], stored: &Ledger, received: &Ledger) -> Verdict {
        Verdict::reach(journal, &BTreeMap::from([("pump-7".to_owned(), 5)]), stored, received)
    }

    #[test]
    fn three_ledgers_that_agree_are_good_and_what_was_not_acknowledged_may_be_anywhere() {
        let good = verdict(&journal(1..10, 10..13), &ledger(1..12), &ledger(5..11));
        assert!(good.is_good(), "{good:?}");
        assert_eq!((good.published, good.acknowledged, good.stored, good.received), (8, 5, 11, 6));
    }

    #[test]
    fn a_row_that_is_missing_is_lost_also_one_of_an_earlier_run() {
        for missing in [2, 7] {
            let lost = verdict(&journal(1..10, 0..0), &ledger((1..10).filter(|n| *n != missing)), &ledger(5..10));
            assert_eq!((lost.lost, lost.doubled, lost.faults[0].reading.n), (1, 0, missing));
        }
    }

    #[test]
    fn a_frame_that_is_missing_is_lost_and_one_that_comes_twice_is_doubled() {
        let lost = verdict(&journal(1..10, 0..0), &ledger(1..10), &ledger(5..9));
        assert_eq!((lost.lost, lost.faults[0].fault), (1, "acknowledged and not received"));
        let doubled = verdict(&journal(1..10, 0..0), &ledger(1..10), &ledger((5..10).chain(8..9)));
        assert_eq!((doubled.lost, doubled.doubled, doubled.faults[0].reading.n), (0, 1, 8));
        let stored_twice = verdict(&journal(1..10, 0..0), &ledger((1..10).chain(3..4)), &ledger(5..10));
        assert_eq!((stored_twice.doubled, stored_twice.is_good()), (1, false));
    }

    #[test]
    fn a_row_with_another_body_is_another_reading() {
        let mut other = ledger((1..10).filter(|n| *n != 7));
        other.enter(Key::of("pump-7", br#"{"n":7,"v":99.9}"#).expect("numbered"));
        assert_eq!(verdict(&journal(1..10, 0..0), &other, &ledger(5..10)).lost, 1);
        assert_eq!(Key::of("pump-7", b"no number"), None);
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        assert_eq!(Latency::of(Vec::new()), Latency::default());
        assert_eq!(Latency::of((1..=200).rev().collect()), Latency { p50_ms: 100, p99_ms: 198, max_ms: 200 });
        assert_eq!(Latency::of(vec![7]), Latency { p50_ms: 7, p99_ms: 7, max_ms: 7 });
    }
}
