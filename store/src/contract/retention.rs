//! What goes when its time is over, what stays of it, and what is refused when there is no room.

use std::time::Duration;

use super::*;
use crate::{Bounds, Overdue, Reason, STUBS, Tally, Trim};

const STUBS_LEN: u64 = STUBS as u64;

/// A row received `s` seconds after the epoch.
fn at(name: &str, s: u32) -> Op {
    let received_at = UnixTime::from_s(u64::from(s));
    Op::Reading { tag: tag(s), uplink: Uplink { received_at, ..uplink(name, &format!("{name} {s:03}")) } }
}

/// A store with `rows` rows of one device, a second apart, from second 1 on.
async fn filled(bench: &mut impl Bench, rows: u32) -> Arc<dyn Store> {
    let store = bench.open(1).await;
    write(&*store, vec![Op::Device(device("a"))]).await.unwrap();
    for first in (1..=rows).step_by(100) {
        write(&*store, (first..=rows.min(first + 99)).map(|s| at("a", s)).collect()).await.unwrap();
    }
    store
}

const fn age(s: u64) -> Bounds {
    Bounds { age: Some(Duration::from_secs(s)), rows: None, bytes: None }
}

async fn look(store: &dyn Store, bounds: Bounds, now_s: u64) -> Overdue {
    store.overdue(&id("a"), bounds, UnixTime::from_s(now_s), None, 1000).await.unwrap()
}

async fn trim(store: &dyn Store, found: &Overdue) {
    write(store, vec![Op::Trim { device: id("a"), trim: found.trim.clone() }]).await.unwrap();
}

fn kinds(rows: &[Reading]) -> (usize, usize) {
    let trimmed = rows.iter().filter(|row| row.uplink.kind == UplinkKind::Trimmed).count();
    (trimmed, rows.len() - trimmed)
}

/// Whoever reads a log page by page, and began behind `since`, is told what of an earlier page is not there.
pub(super) async fn a_page_of_the_log_tells_what_is_gone_before_it(bench: &mut impl Bench) {
    let store = filled(bench, 70).await;
    write(&*store, vec![Op::Device(device("b")), at("b", 201), at("b", 202), at("a", 203)]).await.unwrap();
    let gone = async |since: u64, after: u64| {
        let page = store.readable_log(Partition::new(0), Offset::new(since), Offset::new(after), ALL);
        page.await.unwrap().gone
    };
    assert!(gone(0, 70).await.is_empty(), "all is there");
    let found = look(&*store, Bounds { age: None, rows: Some(1), bytes: None }, 300).await;
    trim(&*store, &found).await;
    let first = store.log(Partition::new(0), Offset::ZERO, ALL).await.unwrap().rows[0].clone();
    let (first, prev) = (first.offset.get(), first.prev.get());
    assert_eq!((first, prev), (8, 7), "64 of the 70 are left as stubs, but for the newest");
    assert_eq!(gone(0, 7).await, [(id("a"), Offset::new(7))]);
    for (since, after) in [(7, 7), (0, 6), (0, 8), (0, 71)] {
        assert!(gone(since, after).await.is_empty(), "since {since}, after {after}");
    }
}

pub(super) async fn rows_whose_time_is_over_go_and_their_newest_stay_as_stubs(bench: &mut impl Bench) {
    let store = filled(bench, 100).await;
    let nothing = look(&*store, age(60), 60).await;
    assert!(nothing.trim.is_empty() && nothing.rows.is_empty() && !nothing.more);
    assert_eq!(nothing.oldest, Some(UnixTime::from_s(1)));
    // The first thirty.
    let found = look(&*store, age(60), 90).await;
    assert_eq!((found.trim.delete.len(), found.trim.stub.len(), found.more), (30, 0, false));
    assert_eq!((found.rows.clone(), found.oldest), (vec![(Reason::Age, 30)], Some(UnixTime::from_s(31))));
    trim(&*store, &found).await;
    let history = store.history(&id("a"), Offset::ZERO, ALL).await.unwrap().rows;
    assert_eq!((history.len(), history[0].offset.get(), history[0].prev.get()), (70, 31, 30));
    assert_eq!(store.log(Partition::new(0), Offset::ZERO, ALL).await.unwrap().rows, history);
    // All of them: the newest 64 stay as what they were known by.
    let before = store.session(&id("a")).await.unwrap();
    let found = look(&*store, age(60), 1000).await;
    assert_eq!((found.trim.delete.len(), found.trim.stub.len()), (6, STUBS));
    trim(&*store, &found).await;
    let history = store.history(&id("a"), Offset::ZERO, ALL).await.unwrap().rows;
    assert_eq!(kinds(&history), (STUBS, 0));
    let stub = &history[0];
    assert_eq!((stub.offset.get(), stub.prev.get()), (37, 36));
    assert_eq!((&*stub.uplink.name, stub.uplink.body.len(), stub.uplink.reading_id), ("", 0, Some(u64::MAX)));
    assert!(store.newest(&id("a"), ALL).await.unwrap().rows.is_empty(), "nobody is shown them");
    assert_eq!(store.session(&id("a")).await.unwrap(), before, "a repeat is known as before");
    let ids = store.records(&id("a"), 64).await.unwrap().reading_ids;
    assert_eq!(ids, (37..=100).map(|at| (Offset::new(at), u64::MAX)).collect::<Vec<_>>(), "and by its reading id");
    assert!(look(&*store, age(60), 1000).await.trim.is_empty(), "there is nothing left to do");
    // A stub that is none of the newest any more is deleted.
    write(&*store, vec![at("a", 990)]).await.unwrap();
    let found = look(&*store, age(60), 1000).await;
    assert_eq!((found.trim.delete.clone(), found.trim.stub.len()), (vec![Offset::new(37)], 0));
    assert!(found.rows.is_empty(), "it was counted when it became one");
}

/// Else one reading of a clock that was ahead would keep all that come after it, for as long.
pub(super) async fn rows_of_the_future_go_with_those_that_came_later(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    write(&*store, vec![Op::Device(device("a"))]).await.unwrap();
    write(&*store, [10, 5000, 20].map(|s| at("a", s)).into()).await.unwrap();
    // Nothing behind it says that its time is over, and nothing that is there is due before the next one to come.
    let found = look(&*store, age(100), 60).await;
    assert!(found.trim.is_empty() && !found.more);
    assert_eq!(found.oldest, Some(UnixTime::from_s(10)));
    write(&*store, (0..70).map(|n| at("a", if n < 2 { 6000 } else { 950 + n })).collect()).await.unwrap();
    let found = look(&*store, age(100), 1000).await;
    assert_eq!(
        (found.trim.delete.clone(), found.trim.stub.len(), found.more),
        ([1, 2, 3].map(Offset::new).to_vec(), 0, false)
    );
    assert_eq!((found.rows.clone(), found.oldest), (vec![(Reason::Age, 3)], Some(UnixTime::from_s(952))));
    // A few at once, each look behind the other.
    let few = store.overdue(&id("a"), age(100), UnixTime::from_s(1000), None, 1).await.unwrap();
    let next = store.overdue(&id("a"), age(100), UnixTime::from_s(1000), few.tally, 1).await.unwrap();
    assert_eq!([few.trim.delete, next.trim.delete], [1, 2].map(|n| vec![Offset::new(n)]));
    trim(&*store, &found).await;
    // Those that are left are young, as far as anyone can say.
    let found = look(&*store, age(100), 1000).await;
    assert!(found.trim.is_empty() && !found.more);
    assert_eq!(found.oldest, Some(UnixTime::from_s(952)));
    // Without one of the present there is none that is the oldest.
    assert_eq!(look(&*store, age(100), 940).await.oldest, None);
}

/// As of a day whose clock was ahead.
pub(super) async fn a_look_past_rows_of_the_future_goes_on_where_it_was(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    write(&*store, vec![Op::Device(device("a"))]).await.unwrap();
    for _ in 0..170 {
        write(&*store, (0..100).map(|_| at("a", 5000)).collect()).await.unwrap();
    }
    write(&*store, (0..100).map(|n| at("a", if n < 1 { 20 } else { 990 })).collect()).await.unwrap();
    let (mut looks, mut gone, mut tally) = (0, 0, None);
    loop {
        let found = store.overdue(&id("a"), age(100), UnixTime::from_s(1000), tally, 5000).await.unwrap();
        (tally, looks, gone) = (found.tally, looks + 1, gone + found.trim.delete.len());
        trim(&*store, &found).await;
        if !found.more {
            break;
        }
    }
    assert_eq!((looks, gone), (5, 17_001), "one that looks no further than it may, and four that let them go");
}

pub(super) async fn a_log_without_a_whole_row_goes_on_where_it_was(bench: &mut impl Bench) {
    let store = filled(bench, 3).await;
    trim(&*store, &look(&*store, age(1), 1000).await).await;
    assert_eq!(store.usage(Partition::new(0)).await.unwrap().oldest, None);
    store.close().await;
    drop(store);
    let store = bench.open(1).await;
    assert_eq!(store.committed(Partition::new(0)).borrow().get(), 3);
    let committed = write(&*store, vec![at("a", 2000)]).await.unwrap();
    assert_eq!((committed.readings[0].offset.get(), committed.readings[0].prev.get()), (4, 3));
    let usage = store.usage(Partition::new(0)).await.unwrap();
    assert_eq!((usage.oldest, usage.newest), (Some(UnixTime::from_s(2000)), Offset::new(4)));
    assert!(usage.disk_bytes > 0);
    // Whoever asks for the newest row to be deleted is left a stub of it.
    let all = Trim { delete: (1..=4).map(Offset::new).collect(), stub: Vec::new() };
    write(&*store, vec![Op::Trim { device: id("a"), trim: all }]).await.unwrap();
    let log = store.log(Partition::new(0), Offset::ZERO, ALL).await.unwrap().rows;
    assert_eq!((offsets(&log), kinds(&log)), (vec![4], (1, 0)));
}

pub(super) async fn bounds_of_rows_and_bytes_keep_the_newest(bench: &mut impl Bench) {
    let store = filled(bench, 300).await;
    let rows = |rows| Bounds { rows: Some(rows), ..Bounds::default() };
    assert!(look(&*store, rows(300), 0).await.trim.is_empty());
    let found = look(&*store, rows(200), 0).await;
    assert_eq!((found.trim.delete.len(), found.trim.stub.len()), (100, 0));
    assert_eq!(found.rows, [(Reason::Rows, 100)]);
    trim(&*store, &found).await;
    // The tally goes on from there.
    let next = store.overdue(&id("a"), rows(200), UnixTime::EPOCH, found.tally, 1000).await.unwrap();
    assert!(next.trim.is_empty() && !next.more);
    write(&*store, vec![at("a", 301), at("a", 302)]).await.unwrap();
    let next = store.overdue(&id("a"), rows(200), UnixTime::EPOCH, next.tally, 1000).await.unwrap();
    assert_eq!(next.trim.delete, [101, 102].map(Offset::new));
    trim(&*store, &next).await;
    // All rows weigh the same: half of the bytes is half of the rows.
    let bytes = |bytes| Bounds { bytes: Some(bytes), ..Bounds::default() };
    let one = look(&*store, bytes(0), 0).await.bytes / 200;
    let found = look(&*store, bytes(200 * one * 3 / 4), 0).await;
    assert!((40..80).contains(&found.trim.delete.len()), "{} of 200 at {one} bytes", found.trim.delete.len());
    assert_eq!(found.rows.iter().map(|(why, _)| *why).collect::<Vec<_>>(), [Reason::Bytes]);
    // Below the stubs there is no less.
    let found = look(&*store, rows(10), 0).await;
    assert_eq!((found.trim.delete.len(), found.trim.stub.len()), (200 - STUBS, STUBS - 10));
    trim(&*store, &found).await;
    assert_eq!(kinds(&store.history(&id("a"), Offset::ZERO, ALL).await.unwrap().rows), (STUBS - 10, 10));
    assert!(look(&*store, rows(10), 0).await.trim.is_empty());
}

pub(super) async fn much_is_trimmed_in_steps(bench: &mut impl Bench) {
    let store = filled(bench, 300).await;
    let (mut steps, mut gone, mut tally) = (0, 0, None);
    loop {
        let found = store.overdue(&id("a"), age(10), UnixTime::from_s(1000), tally, 50).await.unwrap();
        tally = found.tally;
        assert!(found.trim.delete.len() + found.trim.stub.len() <= 50);
        gone += found.trim.delete.len() as u64;
        trim(&*store, &found).await;
        steps += 1;
        if !found.more {
            break;
        }
    }
    assert!(gone == 300 - STUBS_LEN && steps >= 6, "{gone} rows in {steps} steps");
}

pub(super) async fn a_look_begins_behind_what_is_gone(bench: &mut impl Bench) {
    let store = filled(bench, 300).await;
    let rows = |rows| Bounds { rows: Some(rows), ..Bounds::default() };
    let first = async |bounds, tally| {
        let found = store.overdue(&id("a"), bounds, UnixTime::from_s(1000), tally, 1000).await.unwrap();
        (found.trim.delete.first().map(|offset| offset.get()), found.tally)
    };
    for bounds in [age(800), rows(100)] {
        let (oldest, tally) = first(bounds, None).await;
        assert_eq!(oldest, Some(1), "{bounds:?}");
        // Whoever says that those have gone is not shown them again, whatever is asked for, though they are there.
        for (bounds, begins) in [(age(800), None), (rows(90), Some(201)), (age(10), Some(201)), (rows(100), None)] {
            assert_eq!(first(bounds, tally).await.0, begins, "{bounds:?}");
            assert_eq!(first(bounds, tally.map(Tally::anew)).await.0, begins, "counted anew: {bounds:?}");
        }
    }
    // Stubs do not make it begin anew.
    let (_, tally) = first(age(10), None).await;
    write(&*store, vec![at("a", 990)]).await.unwrap();
    assert_eq!(first(age(10), tally).await.0, Some(301 - STUBS_LEN));
}

pub(super) async fn the_oldest_of_all_go_first(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    write(&*store, vec![Op::Device(device("a")), Op::Device(device("b"))]).await.unwrap();
    let both = (0..100).flat_map(|s| [at("a", s), at("b", s)]).collect();
    write(&*store, both).await.unwrap();
    let found = store.oldest(Partition::new(0), Offset::ZERO, 20).await.unwrap();
    assert_eq!((found.rows, found.reached.get(), found.end), (20, 20, false));
    let mut trims = found.trims;
    trims.sort_by_key(|(device, _)| *device);
    let odd: Vec<Offset> = (1..20).step_by(2).map(Offset::new).collect();
    assert_eq!(trims[0], (id("a"), Trim { delete: odd, stub: Vec::new() }));
    let ops = trims.into_iter().map(|(device, trim)| Op::Trim { device, trim }).collect();
    write(&*store, ops).await.unwrap();
    assert_eq!(store.log(Partition::new(0), Offset::ZERO, ALL).await.unwrap().rows.len(), 180);
    // To the end: of each the newest are left as stubs.
    let found = store.oldest(Partition::new(0), Offset::ZERO, 1000).await.unwrap();
    assert_eq!((found.rows, found.end), (180, true));
    let ops = found.trims.into_iter().map(|(device, trim)| Op::Trim { device, trim }).collect();
    write(&*store, ops).await.unwrap();
    let log = store.log(Partition::new(0), Offset::ZERO, ALL).await.unwrap().rows;
    assert_eq!(kinds(&log), (2 * STUBS, 0));
    let found = store.oldest(Partition::new(0), Offset::ZERO, 1000).await.unwrap();
    assert!(found.trims.is_empty() && found.rows == 0 && found.end);
}

pub(super) async fn held_rows_are_given_back_and_all_else_goes_on(bench: &mut impl Bench) {
    let store = filled(bench, 100).await;
    let partition = Partition::new(0);
    let health = store.health();
    store.hold_rows(Some("no room".into()));
    assert_eq!(*health.borrow(), Health::Full("no room".into()));
    let (with_row, answer) = batch(&*store, partition, vec![at("a", 101)]);
    let Err(Full(back)) = store.submit(with_row) else { panic!("it is taken") };
    assert!(write(&*store, vec![Op::Command(command("a", 1, Stage::Waiting))]).await.is_ok());
    trim(&*store, &look(&*store, age(1), 1000).await).await;
    let room = store.room(partition);
    let mut notified = std::pin::pin!(room.notified());
    notified.as_mut().enable();
    store.hold_rows(None);
    notified.await;
    assert_eq!(*health.borrow(), Health::Ready);
    store.submit(*back).unwrap();
    assert_eq!(answer.await.unwrap().unwrap().readings[0].offset.get(), 101);
}

pub(super) async fn commands_that_are_over_are_forgotten_and_no_others(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    write(&*store, vec![Op::Device(device("a"))]).await.unwrap();
    let done = command("a", 1, over(Ending::Done));
    let open = command("a", 2, Stage::Sent);
    write(&*store, vec![Op::Command(done.clone()), Op::Command(open.clone())]).await.unwrap();
    let ended = async |before| store.ended_commands(&id("a"), UnixTime::from_s(before), 10).await.unwrap();
    assert!(ended(200).await.is_empty(), "it ended then");
    assert_eq!(ended(201).await, [done.id]);
    let forget = Op::Forget { device: id("a"), commands: vec![done.id, open.id, CommandId::new([9; 16])] };
    write(&*store, vec![forget]).await.unwrap();
    assert_eq!(store.command(&id("a"), &done.id).await, Ok(None));
    assert_eq!(store.open_commands(&id("a")).await.unwrap(), [open]);
}
