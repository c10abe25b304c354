//! One journal from its beginning to its end: what is whole, and what is not.

use std::fmt;

use super::batch::{Batch, Broken, batch, next_whole};

/// Sequence numbers are counted from 0, one for each batch and a few for what the engine does
/// itself: one as large as this was never given.
const SEQNO_MAX: u64 = 1 << 56;

/// What a walk has found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Walk {
    /// The whole batches, in order.
    pub(super) batches: Vec<Batch>,
    /// What stands between and behind them, but for the zeros of a file that was made larger than
    /// it is in use.
    pub(super) faults: Vec<Fault>,
}

/// A place where a batch should begin and no good one does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Fault {
    /// Where, in bytes from the beginning of the file.
    pub(super) at: usize,
    /// What is there.
    pub(super) found: Found,
    /// Where the next whole batch begins, if one does.
    pub(super) next: Option<usize>,
}

impl Fault {
    /// Whether it may be a batch that was never whole: power failed while it was written, and nobody
    /// was told that it is durable. What has a whole batch behind it was whole once.
    pub(super) const fn may_be_torn(&self) -> bool {
        matches!(self.found, Found::Broken(_)) && self.next.is_none()
    }
}

/// What stands where a batch should.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Found {
    /// No whole batch.
    Broken(Broken),
    /// A whole one whose number is not above that of the one before it.
    Backwards { seqno: u64, after: u64 },
    /// A whole one whose number was never given.
    Beyond { seqno: u64 },
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(broken) => broken.fmt(f),
            Self::Backwards { seqno, after } => write!(f, "a batch with the number {seqno} behind number {after}"),
            Self::Beyond { seqno } => write!(f, "a batch with the number {seqno}, which was never given"),
        }
    }
}

impl Walk {
    /// The first byte behind the last whole batch.
    pub(super) fn end(&self) -> usize {
        self.batches.last().map_or(0, |batch| batch.end)
    }

    /// The number of the last batch.
    pub(super) fn seqno(&self) -> Option<u64> {
        self.batches.last().map(|batch| batch.seqno)
    }
}

/// Walks a journal. `after` is the number of the last batch of the journal before it.
pub(super) fn walk(bytes: &[u8], after: Option<u64>) -> Walk {
    let mut walk = Walk::default();
    let mut at = 0;
    while bytes.get(at..).is_some_and(|rest| rest.iter().any(|byte| *byte != 0)) {
        let last = walk.seqno().or(after);
        let found = match (batch(bytes, at), last) {
            (Ok(Batch { seqno, .. }), _) if seqno >= SEQNO_MAX => Found::Beyond { seqno },
            (Ok(Batch { seqno, .. }), Some(after)) if seqno <= after => Found::Backwards { seqno, after },
            (Ok(batch), _) => {
                at = batch.end;
                walk.batches.push(batch);
                continue;
            }
            (Err(broken), _) => Found::Broken(broken),
        };
        let next = next_whole(bytes, at + 1, last, SEQNO_MAX).map(|batch| batch.start);
        walk.faults.push(Fault { at, found, next });
        match next {
            Some(next) => at = next,
            None => break,
        }
    }
    walk
}

#[cfg(test)]
mod tests {
    use super::super::batch::tests::written;
    use super::*;

    fn journal(numbers: &[u64]) -> Vec<u8> {
        numbers.iter().flat_map(|number| written(*number, &[(b"key", &number.to_be_bytes())])).collect()
    }

    /// The length of a batch of `journal`.
    const LEN: usize = 13 + 21 + 3 + 8 + 13;

    /// The bytes of the value of a batch, in the file.
    fn value_of(nth: usize) -> std::ops::Range<usize> {
        nth * LEN + 37..nth * LEN + 45
    }

    #[test]
    fn a_whole_journal_is_walked_to_its_end_whatever_room_it_has() {
        let bytes = journal(&[3, 4, 9]);
        assert_eq!(bytes.len(), 3 * LEN);
        for room in [0, 1, 5000] {
            let found = walk(&[&bytes[..], &vec![0; room]].concat(), Some(2));
            assert_eq!((found.batches.len(), found.end(), found.seqno()), (3, bytes.len(), Some(9)));
            assert_eq!(found.faults, []);
        }
        assert_eq!(walk(&[], None), Walk::default());
        assert_eq!(walk(&[0; 100], None), Walk::default());
    }

    #[test]
    fn a_torn_tail_is_told_from_damage_by_what_is_behind_it() {
        let bytes = journal(&[3, 4, 5]);
        let cut = walk(&bytes[..bytes.len() - 1], None);
        let fault = Fault { at: 2 * LEN, found: Found::Broken(Broken::Short), next: None };
        assert_eq!((cut.end(), &cut.faults[..]), (2 * LEN, &[fault][..]));
        assert!(fault.may_be_torn());
        // Pages of the last batch that were never written.
        let mut hole = bytes.clone();
        hole[value_of(2)].fill(0);
        let found = walk(&hole, None);
        assert!(matches!(found.faults[0].found, Found::Broken(Broken::Checksum { .. })));
        assert!(found.faults[0].may_be_torn());
        // The same, with a whole batch behind it.
        let mut hole = bytes.clone();
        hole[value_of(1)].fill(0);
        let found = walk(&hole, None);
        assert!(!found.faults[0].may_be_torn());
        assert_eq!((found.faults[0].at, found.faults[0].next), (LEN, Some(2 * LEN)));
        assert_eq!(found.batches.len(), 2, "the whole ones on both sides");
    }

    #[test]
    fn every_flip_before_the_last_batch_is_damage() {
        let bytes = journal(&[30, 40, 50]);
        for at in 0..2 * LEN {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                let found = walk(&flipped, Some(10));
                let is_number = (5..13).contains(&(at % LEN));
                match found.faults.first() {
                    Some(fault) => assert!(!fault.may_be_torn(), "byte {at}: {found:?}"),
                    None => assert!(is_number && found.batches.len() == 3, "byte {at}: {found:?}"),
                }
            }
        }
    }

    #[test]
    fn numbers_rise_within_a_journal_and_from_one_to_the_next() {
        let backwards = walk(&journal(&[3, 3]), None);
        let fault = Fault { at: LEN, found: Found::Backwards { seqno: 3, after: 3 }, next: None };
        assert_eq!((backwards.batches.len(), &backwards.faults[..]), (1, &[fault][..]));
        assert!(!fault.may_be_torn(), "it is whole");
        let fault = Fault { at: 0, found: Found::Backwards { seqno: 3, after: 7 }, next: Some(LEN) };
        assert_eq!(walk(&journal(&[3, 8]), Some(7)).faults, [fault]);
        let seqno = 1 << 60;
        let beyond = Fault { at: 0, found: Found::Beyond { seqno }, next: Some(LEN) };
        assert_eq!(walk(&journal(&[seqno, 5]), None).faults, [beyond]);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic_and_every_walk_ends(bytes in proptest::collection::vec(0..8_u8, 0..300)) {
            let walk = walk(&bytes, None);
            proptest::prop_assert!(walk.end() <= bytes.len());
        }
    }
}
