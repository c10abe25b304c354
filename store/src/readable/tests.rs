use bytes::Bytes;
use unhidra_core::ids::Fence;

use super::*;
use crate::contract::{device, id, reading};
use crate::ledger::Ledger;
use crate::memory::tables::Tables;
use crate::rows::{KeyVisitor, Visitor};
use crate::{Batch, Op, Unit};

const PARTITION: Partition = Partition::new(0);

/// Tables whose file of readings does not read in some blocks of places: a look that comes to one ends.
struct Blocks {
    tables: Tables,
    damaged: Vec<std::ops::RangeInclusive<u64>>,
    /// Whether a look back reads the block that it begins before.
    reads_ahead: bool,
}

impl Blocks {
    fn reads(&self, table: Table, key: &[u8]) -> Result<(), ReadError> {
        let place = table::parse_reading(key).filter(|_| table == Table::Readings);
        match place.is_some_and(|at| self.damaged.iter().any(|block| block.contains(&at.get()))) {
            true => Err(damaged(table, key, "its block is not what was written")),
            false => Ok(()),
        }
    }
}

impl Rows for Blocks {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        self.reads(table, key)?;
        self.tables.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        order: Order,
        visit: &mut Visitor<'_>,
    ) -> Result<(), ReadError> {
        if let (true, Order::Descending, Some(after)) = (self.reads_ahead, order, after) {
            self.reads(table, after)?;
        }
        self.tables.scan(table, prefix, after, order, &mut |key, value| {
            self.reads(table, key)?;
            visit(key, value)
        })
    }

    fn keys(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        order: Order,
        visit: &mut KeyVisitor<'_>,
    ) -> Result<(), ReadError> {
        self.scan(table, prefix, after, order, &mut |key, _| Ok(visit(key)))
    }
}

/// A device with rows in the places 1 to `count`.
fn blocks(count: u32, damaged: Vec<std::ops::RangeInclusive<u64>>) -> Blocks {
    let mut tables = Tables::new();
    let ops = std::iter::once(Op::Device(device("a"))).chain((0..count).map(|n| reading("a", n))).collect();
    let fence = Fence::new(1);
    let batch = Batch { partition: PARTITION, fence, ops, unit: Unit::Batch, done: Box::new(|_| ()) };
    let plan = Ledger::load(&tables, PARTITION, 1, fence, 8, 8).unwrap().plan(&tables, vec![batch]);
    tables.apply(&plan.writes);
    Blocks { tables, damaged, reads_ahead: false }
}

/// Everything a reader is given who goes on from page to page, and the places that were told as damaged.
fn read_all(rows: &Blocks, page: usize) -> (Vec<u64>, Vec<u64>) {
    let (mut given, mut told, mut after) = (Vec::new(), Vec::new(), Offset::ZERO);
    loop {
        let read = history(rows, PARTITION, &id("a"), after, Limit { rows: page, bytes: usize::MAX }).unwrap();
        given.extend(read.page.rows.iter().map(|row| row.offset.get()));
        told.extend(read.damaged.iter().map(|row| row.offset.get()));
        let reached = read.reached(after);
        if !read.page.more {
            return (given, told);
        }
        assert!(reached > after, "it goes on");
        after = reached;
    }
}

#[test]
fn a_block_that_does_not_read_is_told_by_its_last_place_and_what_lies_behind_is_read() {
    for page in [1, 7, 1000] {
        let rows = blocks(200, vec![20..=90, 150..=150]);
        let expected: Vec<u64> = (1..=200).filter(|at| !(20..=90).contains(at) && *at != 150).collect();
        assert_eq!(read_all(&rows, page), (expected, vec![90, 150]), "pages of {page}");
    }
}

#[test]
fn blocks_at_either_end_are_told_too() {
    assert_eq!(read_all(&blocks(50, vec![1..=10]), 100), ((11..=50).collect(), vec![10]));
    let (given, told) = read_all(&blocks(50, vec![41..=50]), 100);
    assert_eq!((given, told), ((1..=40).collect(), vec![50]));
    assert_eq!(read_all(&blocks(50, vec![1..=50]), 100), (vec![], vec![50]));
}

/// The places of a device's newest rows, those that were told as damaged, and whether there is more.
fn newest_of(rows: &Blocks, page: usize) -> (Vec<u64>, Vec<u64>, bool) {
    let read = newest(rows, PARTITION, &id("a"), Limit { rows: page, bytes: usize::MAX }).unwrap();
    let given = read.page.rows.iter().map(|row| row.offset.get()).collect();
    (given, read.damaged.iter().map(|row| row.offset.get()).collect(), read.page.more)
}

#[test]
fn behind_a_block_that_does_not_read_the_newest_go_on_and_it_is_told() {
    let rows = blocks(50, vec![20..=30]);
    let given: Vec<u64> = (31..=50).chain(1..=19).collect::<Vec<_>>();
    let (mut found, told, more) = newest_of(&rows, 100);
    assert_eq!((told, more), (vec![30], false));
    assert!(found.is_sorted_by(|one, next| one > next), "newest first: {found:?}");
    found.sort_by_key(|at| (*at < 20, *at));
    assert_eq!(found, given);
    assert_eq!(newest_of(&rows, 5), ((46..=50).rev().collect(), vec![], true), "who asks for less does not hear of it");
    let (found, told, more) = newest_of(&rows, 25);
    assert_eq!((found.len(), found.last(), told, more), (25, Some(&15), vec![30], true));
    let many: Vec<_> = (1..=9).map(|n| n * 5..=n * 5).collect();
    let (found, told, more) = newest_of(&blocks(50, many), 100);
    assert_eq!((found.len(), told, more), (41, (1..=9).rev().map(|n| n * 5).collect(), false));
}

#[test]
fn where_the_newest_rows_do_not_read_the_older_ones_are_given() {
    assert_eq!(newest_of(&blocks(50, vec![50..=50]), 100), ((1..=49).rev().collect(), vec![50], false));
    assert_eq!(newest_of(&blocks(50, vec![41..=50]), 3), (vec![40, 39, 38], vec![50], true));
    assert_eq!(newest_of(&blocks(50, vec![1..=10]), 100), ((11..=50).rev().collect(), vec![10], false));
    assert_eq!(newest_of(&blocks(50, vec![1..=50]), 100), (vec![], vec![50], false));
    // As many are told as a page may hold.
    assert_eq!(newest_of(&blocks(50, vec![10..=10, 50..=50]), 1), (vec![], vec![50], true));
}

/// The row beside the block is not shown by any look that such an engine takes.
#[test]
fn the_row_before_a_block_is_given_by_an_engine_that_reads_ahead() {
    let rows = Blocks { reads_ahead: true, ..blocks(50, vec![20..=30]) };
    let (found, told, more) = newest_of(&rows, 100);
    assert_eq!((found.len(), told, more), (39, vec![30], false));
    assert!(found.contains(&19), "{found:?}");
}
