//! What an outlet has read of the log and the outside has not taken yet: a bounded run of rows, in the
//! order of each partition, and how far each partition's cursor has come.
//!
//! ```text
//!           cursor                          read
//!   taken ----+---- waits here, in order ----+---- still in the store
//! ```
//!
//! A plain value. Rows an outlet does not want move `read`, and the cursor with it as soon as nothing
//! of the partition waits before them. The log's places follow one another, so a place that is
//! skipped is a row that was removed before the outlet took it, as is one that was trimmed: a gap. Not
//! before the first row there is, where that is what an outlet begins with: those were gone before it.

use std::collections::{BTreeSet, VecDeque};

use unhidra_core::ids::{DeviceId, Offset, Partition};
use unhidra_core::time::{Timestamp, UnixTime};

/// A row that waits.
#[derive(Clone, Debug)]
pub(crate) struct Waiting<T> {
    /// What is sent.
    pub(crate) item: T,
    /// Whose it is.
    pub(crate) device: DeviceId,
    pub(crate) partition: Partition,
    pub(crate) offset: Offset,
    /// Bytes of its body.
    pub(crate) bytes: usize,
    /// When the node heard it.
    pub(crate) received_at: UnixTime,
    /// When it was read.
    pub(crate) read_at: Timestamp,
}

/// What stands at a place of the log.
#[derive(Clone, Debug)]
pub(crate) enum Found<T> {
    /// A row to be sent.
    Wanted(Waiting<T>),
    /// Another.
    Unwanted,
    /// What was there has been removed.
    Removed,
}

/// One partition's log.
#[derive(Clone, Copy, Debug)]
struct Lane {
    read: Offset,
    taken: Offset,
    waiting: usize,
    /// Whether what is removed is missed: not before the first row there is.
    has_begun: bool,
    /// Whether the page before had a gap too.
    in_gap: bool,
}

/// Rows that were removed before the outlet took them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Gap {
    /// How many.
    pub(crate) rows: u64,
    /// Whether those read before them were there.
    pub(crate) begins: bool,
}

/// What a page of the log has brought.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Read {
    pub(crate) gap: Option<Gap>,
}

/// What was read and is not taken.
#[derive(Debug)]
pub(crate) struct Window<T> {
    rows: VecDeque<Waiting<T>>,
    bytes: usize,
    lanes: Vec<Lane>,
    rows_max: usize,
    bytes_max: usize,
    /// The partition that is read next, so that none is starved.
    turn: usize,
}

impl<T> Window<T> {
    /// One that goes on behind these cursors, one for each partition. It reads on while fewer rows and
    /// bytes wait than these, so that a page more is all it ever holds.
    pub(crate) fn new(cursors: &[Offset], rows_max: usize, bytes_max: usize) -> Self {
        let lane = |cursor: &Offset| Lane { read: *cursor, taken: *cursor, waiting: 0, has_begun: true, in_gap: false };
        let lanes = cursors.iter().map(lane).collect();
        Self { rows: VecDeque::new(), bytes: 0, lanes, rows_max, bytes_max, turn: 0 }
    }

    /// The same that begins with the oldest row there is of each partition of which nothing was taken yet, be it
    /// new or as a restart finds it.
    pub(crate) fn beginning_at_the_oldest(mut self) -> Self {
        self.lanes.iter_mut().for_each(|lane| lane.has_begun = lane.taken > Offset::ZERO);
        self
    }

    /// The partition to be read, and behind which place; `None` where there is no room, or nothing new
    /// by these ends of the logs.
    pub(crate) fn wants(&mut self, ends: &[Offset]) -> Option<(Partition, Offset)> {
        if self.rows.len() >= self.rows_max || self.bytes >= self.bytes_max {
            return None;
        }
        let count = self.lanes.len();
        let order = (self.turn..count).chain(0..self.turn);
        let found = order.zip(0..count).map(|(at, _)| at).find(|at| {
            let (lane, end) = (self.lanes.get(*at), ends.get(*at));
            lane.zip(end).is_some_and(|(lane, end)| lane.read < *end)
        })?;
        self.turn = (found + 1) % count.max(1);
        let number = u16::try_from(found).ok()?;
        self.lanes.get(found).map(|lane| (Partition::new(number), lane.read))
    }

    /// Takes a page in order. `end` is how far the log went before the page was read, where the page is
    /// its last.
    pub(crate) fn fill(
        &mut self,
        partition: Partition,
        rows: impl IntoIterator<Item = (Offset, Found<T>)>,
        end: Option<Offset>,
    ) -> Read {
        let Some(lane) = self.lanes.get_mut(usize::from(partition.get())) else { return Read::default() };
        let mut missing = 0;
        for (offset, found) in rows {
            let skipped = offset.get().saturating_sub(lane.read.get()).saturating_sub(1);
            if lane.has_begun {
                missing += skipped + u64::from(matches!(found, Found::Removed));
            } else if !matches!(found, Found::Removed) {
                // From here on what goes is missed, also after a restart.
                lane.has_begun = true;
                lane.taken = Offset::new(offset.get().saturating_sub(1));
            }
            lane.read = lane.read.max(offset);
            match found {
                Found::Wanted(row) => {
                    self.bytes = self.bytes.saturating_add(row.bytes);
                    self.rows.push_back(row);
                    lane.waiting += 1;
                }
                Found::Unwanted | Found::Removed => {}
            }
        }
        if let Some(end) = end.filter(|end| *end > lane.read) {
            missing += if lane.has_begun { end.get() - lane.read.get() } else { 0 };
            lane.read = end;
        }
        // What comes behind the end of the log is new.
        lane.has_begun |= end.is_some();
        if lane.waiting == 0 && lane.has_begun {
            lane.taken = lane.read;
        }
        let begins = !lane.in_gap;
        lane.in_gap = missing > 0;
        Read { gap: (missing > 0).then_some(Gap { rows: missing, begins }) }
    }

    /// The first `count` rows.
    pub(crate) fn first(&self, count: usize) -> impl Iterator<Item = &Waiting<T>> {
        self.rows.iter().take(count)
    }

    /// The row with so many before it.
    pub(crate) fn at(&self, index: usize) -> Option<&Waiting<T>> {
        self.rows.get(index)
    }

    /// The place of a row that another device than the first row's has waiting first, so that the device
    /// finds nothing out of order where it is sent out of its turn: the next one behind `behind`, or
    /// else the first there is.
    pub(crate) fn witness(&self, behind: usize) -> Option<usize> {
        let mut devices = BTreeSet::new();
        let firsts = self.rows.iter().enumerate().filter(|(_, row)| devices.insert(&row.device)).skip(1);
        let mut before = None;
        for (at, _) in firsts {
            if at > behind {
                return Some(at);
            }
            before.get_or_insert(at);
        }
        before
    }

    /// How many of the first rows have at most so many bytes; at least one, where there is one.
    pub(crate) fn fit(&self, rows_max: usize, bytes_max: usize) -> usize {
        let mut bytes = 0_usize;
        let fits = self.rows.iter().take(rows_max).take_while(|row| {
            bytes = bytes.saturating_add(row.bytes);
            bytes <= bytes_max
        });
        fits.count().max(usize::from(!self.rows.is_empty()))
    }

    /// The first `count` rows are done: taken, or left behind.
    pub(crate) fn done(&mut self, count: usize) {
        for row in self.rows.drain(..count.min(self.rows.len())) {
            self.bytes -= row.bytes;
            if let Some(lane) = self.lanes.get_mut(usize::from(row.partition.get())) {
                lane.waiting -= 1;
                lane.taken = if lane.waiting == 0 { lane.read } else { row.offset };
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether as much waits as one message may hold.
    pub(crate) fn is_full(&self, rows_max: usize, bytes_max: usize) -> bool {
        self.rows.len() >= rows_max || self.bytes >= bytes_max
    }

    /// The place behind which each partition goes on after a crash.
    pub(crate) fn cursors(&self) -> Vec<Offset> {
        self.lanes.iter().map(|lane| lane.taken).collect()
    }

    /// How many rows of the log are not done, wanted or not.
    pub(crate) fn lag(&self, ends: &[Offset]) -> u64 {
        self.lanes.iter().zip(ends).map(|(lane, end)| end.get().saturating_sub(lane.taken.get())).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn offset(n: u64) -> Offset {
        Offset::new(n)
    }

    fn waiting(partition: u16, n: u64) -> Waiting<u64> {
        Waiting {
            item: n,
            device: DeviceId::parse("a").unwrap(),
            partition: Partition::new(partition),
            offset: offset(n),
            bytes: 10,
            received_at: UnixTime::EPOCH,
            read_at: Timestamp::ZERO,
        }
    }

    fn page(partition: u16, wanted: &[u64], skipped: &[u64]) -> Vec<(Offset, Found<u64>)> {
        let wanted = wanted.iter().map(|n| (offset(*n), Found::Wanted(waiting(partition, *n))));
        let mut rows: Vec<_> = wanted.chain(skipped.iter().map(|n| (offset(*n), Found::Unwanted))).collect();
        rows.sort_by_key(|(offset, _)| *offset);
        rows
    }

    #[test]
    fn the_cursor_stands_before_the_first_row_that_waits() {
        let mut window = Window::new(&[offset(10)], 100, 1000);
        let partition = Partition::new(0);
        assert_eq!(window.wants(&[offset(15)]), Some((partition, offset(10))));
        assert_eq!(window.fill(partition, page(0, &[12, 14], &[11, 13, 15]), Some(offset(15))), Read::default());
        assert_eq!((window.cursors(), window.lag(&[offset(16)])), (vec![offset(10)], 6));
        window.done(1);
        assert_eq!(window.cursors(), [offset(12)]);
        window.done(1);
        assert_eq!((window.cursors(), window.wants(&[offset(15)])), (vec![offset(15)], None));
        window.fill(partition, page(0, &[], &[16, 17]), Some(offset(17)));
        assert_eq!(window.cursors(), [offset(17)]);
    }

    #[test]
    fn a_place_that_is_skipped_is_a_gap_and_begins_once() {
        let mut window = Window::new(&[offset(0)], 100, 1000);
        let mut fill = |rows: &[u64], end| {
            window.fill(Partition::new(0), page(0, rows, &[]), end).gap.map(|gap| (gap.rows, gap.begins))
        };
        assert_eq!(fill(&[4, 5], None), Some((3, true)));
        assert_eq!(fill(&[7], None), Some((1, false)));
        assert_eq!(fill(&[8], Some(offset(8))), None);
        // All that was read of is gone.
        assert_eq!(fill(&[], Some(offset(12))), Some((4, true)));
        assert_eq!(fill(&[13], None), None);
        let trimmed = [(offset(14), Found::Removed), (offset(16), Found::Removed)];
        let read = window.fill(Partition::new(0), trimmed, None);
        assert_eq!(read.gap, Some(Gap { rows: 3, begins: true }));
        assert_eq!(window.lag(&[offset(16)]), 16, "rows before it wait still");
    }

    #[test]
    fn what_went_before_the_oldest_row_there_is_is_not_missed() {
        let lane = |cursor| Window::new(&[offset(cursor)], 100, 1000).beginning_at_the_oldest();
        let fill = |window: &mut Window<u64>, rows: Vec<(Offset, Found<u64>)>, end: Option<u64>| {
            window.fill(Partition::new(0), rows, end.map(offset)).gap.map(|gap| gap.rows)
        };
        let stubs = |rows: &[u64]| rows.iter().map(|n| (offset(*n), Found::Removed)).collect::<Vec<_>>();
        let mut window = lane(0);
        assert_eq!(fill(&mut window, page(0, &[1000], &[]), None), None);
        assert_eq!(window.cursors(), [offset(999)], "a restart knows that it has begun");
        assert_eq!(fill(&mut window, page(0, &[1003], &[]), None), Some(2));
        // Stubs before it, over several pages: a restart between them begins again.
        let mut window = lane(0);
        assert_eq!(fill(&mut window, stubs(&[500, 510]), None), None);
        assert_eq!(window.cursors(), [offset(0)]);
        assert_eq!(fill(&mut window, [stubs(&[520]), page(0, &[], &[530]), stubs(&[532])].concat(), None), Some(2));
        assert_eq!(window.cursors(), [offset(532)]);
        // A log that is all gone: what comes behind it is missed where it goes.
        let mut window = lane(0);
        assert_eq!(fill(&mut window, stubs(&[40]), Some(50)), None);
        assert_eq!(window.cursors(), [offset(50)]);
        assert_eq!(fill(&mut window, page(0, &[53], &[]), None), Some(2));
        // One that has taken something.
        assert_eq!(fill(&mut lane(10), page(0, &[1000], &[]), None), Some(989));
    }

    #[test]
    fn it_reads_no_further_than_its_bounds() {
        let mut window = Window::new(&[offset(0), offset(0)], 3, 1000);
        let ends = [offset(9), offset(9)];
        assert_eq!(window.wants(&ends).map(|(partition, _)| partition.get()), Some(0));
        window.fill(Partition::new(0), page(0, &[1, 2], &[]), None);
        assert_eq!(window.wants(&ends).map(|(partition, _)| partition.get()), Some(1), "each has its turn");
        window.fill(Partition::new(1), page(1, &[1], &[]), None);
        assert_eq!(window.wants(&ends), None);
        window.done(1);
        assert_eq!(window.wants(&ends), Some((Partition::new(0), offset(2))));
        assert_eq!((window.fit(9, 10), window.fit(1, 100), window.fit(9, 1), window.fit(9, 99)), (1, 1, 1, 2));
    }

    #[test]
    fn a_witness_is_what_another_device_has_waiting_first() {
        let mut window = Window::new(&[offset(0)], 100, 1000);
        let row = |(n, device): (u64, &str)| {
            let row = Waiting { device: DeviceId::parse(device).unwrap(), ..waiting(0, n) };
            (offset(n), Found::Wanted(row))
        };
        let devices = ["a", "a", "b", "a", "b", "c", "c"];
        window.fill(Partition::new(0), (1..).zip(devices).map(row), None);
        let found = [0, 1, 2, 3, 5, 6].map(|behind| window.witness(behind));
        assert_eq!(found, [Some(2), Some(2), Some(5), Some(5), Some(2), Some(2)]);
        window.done(5);
        assert_eq!((window.len(), window.witness(0)), (2, None), "one device is left");
        window.done(2);
        assert_eq!(window.witness(0), None);
    }

    proptest! {
        #[test]
        fn no_row_is_passed_that_was_not_done(
            steps in proptest::collection::vec((0_u16..2, 1_u64..4, any::<bool>(), 0_usize..4), 1..60)
        ) {
            let mut window = Window::new(&[offset(0), offset(0)], 8, 10_000);
            let (mut ends, mut given, mut done) = ([0_u64; 2], [Vec::new(), Vec::new()], 0);
            for (partition, rows, wanted, take) in steps {
                let at = usize::from(partition);
                for _ in 0..rows {
                    ends[at] += 1;
                    let row = if wanted { Found::Wanted(waiting(partition, ends[at])) } else { Found::Unwanted };
                    window.fill(Partition::new(partition), [(offset(ends[at]), row)], None);
                    if wanted {
                        given[at].push(ends[at]);
                    }
                }
                let taken: Vec<(usize, u64)> =
                    window.first(take).map(|row| (usize::from(row.partition.get()), row.item)).collect();
                window.done(take);
                for (at, item) in taken {
                    prop_assert_eq!(given[at].remove(0), item, "in order");
                    done += 1;
                }
                for (at, cursor) in window.cursors().into_iter().enumerate() {
                    match given[at].first() {
                        Some(first) => prop_assert!(cursor.get() < *first),
                        None => prop_assert_eq!(cursor.get(), ends[at]),
                    }
                }
            }
            prop_assert_eq!(window.len(), given[0].len() + given[1].len());
            prop_assert!(done <= ends[0] + ends[1]);
        }
    }
}
