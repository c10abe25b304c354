//! Readings a stream has not been given and will not be: they were trimmed, or do not read any more.
//!
//! A page of the log shows it in four ways. A row names by `prev` one behind the page's beginning
//! that is not among those before it, or one of an earlier page that the store does not have; what is left of a row
//! stands in its place; or the store tells that the row there does not read. Each time the
//! client is told up to which place its device's readings are gone, before it is given the next.

use std::collections::BTreeMap;

use unhidra_core::ids::{DeviceId, Offset, Partition};
use unhidra_core::message::{Reading, UplinkKind};
use unhidra_store::Readable;

use crate::frame::Gap;

/// The first row of each device behind `end`, as the device and the row before it: what that row would say of the rows up
/// to `end`, which is where live frames begin, and they have no gaps.
pub(crate) fn next_after(rows: &[Reading], end: Offset) -> Vec<(DeviceId, Offset)> {
    let mut next: BTreeMap<DeviceId, Offset> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.offset > end) {
        next.entry(row.uplink.device).or_insert(row.prev);
    }
    next.into_iter().filter(|(_, prev)| *prev <= end).collect()
}

/// Parts a page of rows behind `from` into those that are shown and the gaps before them. `next` is what the rows
/// behind the page say ([`next_after`]).
pub(crate) fn part(
    partition: Partition,
    read: Readable,
    from: Offset,
    next: &[(DeviceId, Offset)],
) -> (Vec<Reading>, Vec<Gap>) {
    let Readable { page, damaged, gone: not_there } = read;
    let rows = page.rows;
    // Whether there is no such row: not in this page, where it would be in it, or not before it.
    let is_gone = |device: DeviceId, prev: Offset, before: Option<Offset>| {
        if prev > from { before != Some(prev) } else { not_there.contains(&(device, prev)) }
    };
    let mut last: BTreeMap<DeviceId, Offset> = BTreeMap::new();
    let mut gone: BTreeMap<DeviceId, Offset> = BTreeMap::new();
    let mut shown = Vec::with_capacity(rows.len());
    for row in rows {
        let device = row.uplink.device;
        let before = last.insert(device, row.offset);
        if row.uplink.kind == UplinkKind::Trimmed {
            gone.insert(device, row.offset);
            continue;
        }
        if is_gone(device, row.prev, before) {
            gone.insert(device, row.prev);
        }
        shown.push(row);
    }
    // Of one whose device does not read either, the row after it tells by its `prev`.
    for (device, offset) in damaged.iter().filter_map(|row| row.device.map(|device| (device, row.offset))) {
        gone.entry(device).and_modify(|known| *known = offset.max(*known)).or_insert(offset);
    }
    for (device, prev) in next {
        if is_gone(*device, *prev, last.get(device).copied()) {
            gone.insert(*device, *prev);
        }
    }
    let gap = |(device, offset): (DeviceId, Offset)| Gap {
        device: device.to_string(),
        partition: partition.get(),
        offset: offset.get(),
    };
    (shown, gone.into_iter().map(gap).collect())
}

#[cfg(test)]
mod tests {
    use unhidra_store::Page;

    use super::*;
    use crate::testing::reading;

    fn trimmed(device: &str, offset: u64, prev: u64) -> Reading {
        let mut row = reading(device, offset, prev, b"");
        row.uplink.kind = UplinkKind::Trimmed;
        row
    }

    fn read(rows: Vec<Reading>) -> Readable {
        Page { rows, more: false }.into()
    }

    fn parted(rows: Vec<Reading>, from: u64) -> (Vec<u64>, Vec<(String, u64)>) {
        let (shown, gaps) = part(Partition::new(0), read(rows), Offset::new(from), &[]);
        let shown = shown.iter().map(|row| row.offset.get()).collect();
        (shown, gaps.into_iter().map(|gap| (gap.device, gap.offset)).collect())
    }

    #[test]
    fn a_whole_chain_has_no_gap() {
        let rows = || vec![reading("a", 5, 3, b""), reading("b", 6, 0, b""), reading("a", 7, 5, b"")];
        assert_eq!(parted(rows(), 4), (vec![5, 6, 7], vec![]));
        assert_eq!(parted(rows(), 3), (vec![5, 6, 7], vec![]), "3 is what the stream was given last");
    }

    #[test]
    fn a_row_whose_predecessor_is_gone_says_up_to_where() {
        let rows = vec![reading("a", 5, 3, b""), reading("b", 6, 4, b""), reading("a", 7, 5, b"")];
        assert_eq!(parted(rows, 2), (vec![5, 6, 7], vec![("a".into(), 3), ("b".into(), 4)]));
    }

    #[test]
    fn a_row_of_an_earlier_page_that_is_not_there_is_told_once() {
        let rows = vec![reading("a", 5, 3, b""), reading("b", 6, 2, b""), reading("a", 7, 5, b"")];
        let gone = vec![(rows[0].uplink.device, Offset::new(3))];
        let (shown, gaps) = part(Partition::new(0), Readable { gone, ..read(rows) }, Offset::new(4), &[]);
        let told: Vec<_> = gaps.iter().map(|gap| (&*gap.device, gap.offset)).collect();
        assert_eq!((shown.len(), told), (3, vec![("a", 3)]));
    }

    #[test]
    fn what_is_left_of_a_row_is_a_gap_and_shown_to_nobody() {
        let rows = vec![trimmed("a", 5, 4), trimmed("a", 6, 5), reading("b", 7, 0, b""), reading("a", 8, 6, b"")];
        assert_eq!(parted(rows, 0), (vec![7, 8], vec![("a".into(), 6)]));
    }

    #[test]
    fn what_went_up_to_where_live_frames_begin_is_told_by_the_row_behind() {
        let at = |offset| Offset::new(offset);
        let all =
            [reading("b", 8, 0, b""), reading("a", 20, 9, b""), reading("a", 21, 20, b""), reading("b", 22, 8, b"")];
        let next = next_after(&all, at(9));
        let (shown, gaps) = part(Partition::new(0), read(vec![all[0].clone()]), at(3), &next);
        let told: Vec<_> = gaps.iter().map(|gap| (&*gap.device, gap.offset)).collect();
        assert_eq!((shown.len(), told), (1, vec![("a", 9)]), "b's row before is there");
        // What the stream was given already is no gap, nor what lies behind the end.
        assert!(part(Partition::new(0), read(Vec::new()), at(9), &next).1.is_empty());
        assert!(next_after(&all, at(30)).is_empty() && next_after(&all[2..3], at(9)).is_empty());
    }
}
