//! The log of acts, and what is sealed anew.

use super::*;
use crate::table::{self, RecordName, Table};
use crate::{Act, Deed, Page};

fn act(n: u64) -> Act {
    Act::on(UnixTime::from_s(n), "uid 7", Deed::Revoke, id("a"), &format!("act {n}"))
}

pub(super) async fn acts_are_numbered_in_their_batches_commit(bench: &mut impl Bench) {
    let store = bench.open(2).await;
    write(&*store, vec![Op::Device(device("a"))]).await.unwrap();
    let (zero, one) = (Partition::new(0), Partition::new(1));
    write_to(&*store, zero, vec![Op::Act(act(1)), Op::Act(act(2))]).await.unwrap();
    // What is not done is not told.
    let refused = vec![Op::Act(act(9)), reading("nobody", 0)];
    assert!(write_to(&*store, zero, refused).await.is_err());
    write_to(&*store, zero, vec![Op::Act(act(3))]).await.unwrap();
    write_to(&*store, one, vec![Op::Act(act(4))]).await.unwrap();
    let page = store.acts(zero, 0, 2).await.unwrap();
    let told: Vec<_> = page.rows.iter().map(|row| (row.partition, row.number, row.act.clone())).collect();
    assert_eq!((told, page.more), (vec![(zero, 1, act(1)), (zero, 2, act(2))], true));
    let page = store.acts(zero, 2, 9).await.unwrap();
    assert_eq!((page.rows.len(), page.rows[0].number, &page.rows[0].act, page.more), (1, 3, &act(3), false));
    assert_eq!(store.acts(one, 0, 9).await.unwrap().rows[0].number, 1, "each partition numbers its own");
    store.close().await;
    drop(store);
    let store = bench.open(2).await;
    write_to(&*store, zero, vec![Op::Act(act(5))]).await.unwrap();
    assert_eq!(store.acts(zero, 3, 9).await.unwrap().rows[0].number, 4, "it goes on after a restart");
}

pub(super) async fn the_oldest_act_goes_at_the_bound(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    for n in 1..=60 {
        write(&*store, vec![Op::Act(act(n))]).await.unwrap();
    }
    let numbers = |page: Page<crate::ActRow>| page.rows.iter().map(|row| row.number).collect::<Vec<_>>();
    let kept = numbers(store.acts(Partition::new(0), 0, 100).await.unwrap());
    assert_eq!(kept, (11..=60).collect::<Vec<_>>());
    store.close().await;
    drop(store);
    let store = bench.open(1).await;
    write(&*store, vec![Op::Act(act(61))]).await.unwrap();
    let kept = numbers(store.acts(Partition::new(0), 0, 100).await.unwrap());
    assert_eq!(kept, (12..=61).collect::<Vec<_>>());
}

pub(super) async fn what_is_sealed_anew_is_what_it_was(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    write(&*store, vec![Op::Device(device("a")), reading("a", 0), session("a", 0, "first")]).await.unwrap();
    let number = store.device(&id("a")).await.unwrap().unwrap().number;
    let before = store.session(&id("a")).await.unwrap();
    let name = |table, key| RecordName { table, key };
    let whole = table::session(number, table::Part::Whole(Slot::Present));
    let names = vec![
        name(Table::Readings, table::reading(number, Offset::new(1))),
        name(Table::Readings, table::reading(number, Offset::new(99))),
        name(Table::Sessions, whole.clone()),
    ];
    write(&*store, vec![Op::Reseal(names)]).await.unwrap();
    assert_eq!(store.session(&id("a")).await.unwrap(), before);
    assert_eq!(store.history(&id("a"), Offset::ZERO, ALL).await.unwrap().rows.len(), 1, "nothing is made of nothing");
    // What the same batch, or the same group, writes is not set back.
    let again = vec![name(Table::Sessions, whole)];
    write(&*store, vec![session("a", 1, "second"), Op::Reseal(again.clone())]).await.unwrap();
    let (first, first_answer) = batch(&*store, Partition::new(0), vec![session("a", 2, "third")]);
    let (second, second_answer) = batch(&*store, Partition::new(0), vec![Op::Reseal(again)]);
    store.submit(first).unwrap();
    store.submit(second).unwrap();
    first_answer.await.unwrap().unwrap();
    second_answer.await.unwrap().unwrap();
    let stored = store.session(&id("a")).await.unwrap().unwrap();
    assert_eq!((stored.version, &stored.present.unwrap().whole[..]), (Version::new(3), &b"third"[..]));
}
