//! The timer of `durability = "interval"`.

use std::time::Duration;

use super::beside::taken;
use super::*;
use crate::Committed;
use crate::config::Durability;
use crate::metrics::Stopwatch;

const PARTITION: Partition = Partition::new(0);
/// Longer than any disk of a test takes, and short enough to fail.
const SOON: Duration = Duration::from_secs(60);

fn interval(ms: u64) -> Config {
    Config { durability: Durability::Interval, sync_interval_ms: ms, ..config() }
}

/// Waits until the timer has synced so often, and gives how often it has.
async fn synced(store: &Embedded, times: u64) -> u64 {
    let mut synced = store.shared(Partition::new(0)).synced.subscribe();
    *tokio::time::timeout(SOON, synced.wait_for(|found| *found >= times)).await.unwrap().unwrap()
}

#[tokio::test]
async fn what_is_committed_is_synced_though_nothing_follows_and_once() {
    let folder = Folder::new(|| key(1));
    let store = folder.open_with(key(1), &interval(20)).unwrap();
    for n in 1..=3 {
        let before = Stopwatch::start();
        write(&store, vec![Op::Device(device("a"))]).await.unwrap();
        assert_eq!(synced(&store, n).await, n, "not without something to sync");
        assert!(before.elapsed() >= Duration::from_millis(20), "and not before the interval is over");
    }
    store.close().await;
}

/// A queue that is never empty does not put the timer off, and neither do commits of which each begins
/// where the one before it ends.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_is_synced_while_more_comes() {
    for linger_bytes in [config().linger_bytes, 1] {
        let folder = Folder::new(|| key(1));
        let config = Config { linger_bytes, ..interval(20) };
        let store = Arc::new(folder.open_with(key(1), &config).unwrap());
        write(&*store, vec![Op::Device(device("a"))]).await.unwrap();
        let load = || {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                loop {
                    write(&*store, vec![reading("a", 0)]).await.unwrap();
                }
            })
        };
        let loads: Vec<_> = (0..8).map(|_| load()).collect();
        let before = synced(&store, 1).await;
        synced(&store, before + 5).await;
        for load in loads {
            load.abort();
            _ = load.await;
        }
        store.close().await;
    }
}

/// Where one commit always runs and one is always planned behind it, nobody waits for the timer.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_is_synced_while_one_commit_follows_the_other() {
    let folder = Folder::new(|| key(1));
    let store = folder.open_with(key(1), &Config { linger_bytes: 1, ..interval(1) }).unwrap();
    write(&store, vec![Op::Device(device("a"))]).await.unwrap();
    let before = synced(&store, 1).await;
    let commits = store.shared(Partition::new(0)).gate.hold();
    let mut running = taken(&store, vec![reading("a", 0)]).await;
    let start = Stopwatch::start();
    while synced(&store, 0).await == before {
        assert!(start.elapsed() < SOON, "nothing is synced as long as there is always a next commit");
        let behind = taken(&store, vec![reading("a", 1)]).await;
        commits.let_one_pass();
        running.await.unwrap().unwrap();
        running = behind;
    }
    drop(commits);
    running.await.unwrap().unwrap();
    store.close().await;
}

/// Submits a batch behind those before it, and notes under `name` whether it was taken. Where there is a
/// `pause`, its answer holds up the writer so long.
async fn noted(store: &Embedded, ops: Vec<Op>, name: u64, note: &Note, pause: Option<Duration>) {
    let mut taken = Box::pin(store.room(PARTITION).notified_owned());
    taken.as_mut().enable();
    let note = note.clone();
    let done = Box::new(move |result: Result<Committed, CommitError>| {
        _ = note.send((name, result.map(|done| done.readings[0].offset.get())));
        if let Some(pause) = pause {
            let since = Stopwatch::start();
            while since.elapsed() < pause {
                std::thread::yield_now();
            }
        }
    });
    store.submit(Batch { partition: PARTITION, fence: store.fence(PARTITION), ops, unit: Unit::Batch, done }).unwrap();
    tokio::time::timeout(SOON, taken).await.expect("nothing is taken while a commit runs");
}

type Note = std::sync::mpsc::Sender<(u64, Result<u64, CommitError>)>;

/// The store serves again, has these rows and gives the next its place behind them.
async fn serves_again_with(store: &Embedded, rows: u64) {
    let mut health = store.health();
    tokio::time::timeout(SOON, health.wait_for(|health| *health == Health::Ready)).await.unwrap().unwrap();
    assert_eq!(store.metrics().reopenings.get(), 1);
    let read = store.log(PARTITION, Offset::ZERO, Limit { rows: 100_000, bytes: usize::MAX }).await.unwrap();
    assert_eq!(read.rows.len() as u64, rows, "what was acknowledged is there, and what was not is not");
    assert_eq!(write(store, vec![reading("a", 9)]).await.unwrap().readings[0].offset.get(), rows + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_of_the_timer_that_fails_is_seen_by_nobody_whose_commit_was_answered() {
    let folder = Folder::new(|| key(1));
    let store = Arc::new(folder.open_with(key(1), &interval(1)).unwrap());
    write(&*store, vec![Op::Device(device("a"))]).await.unwrap();
    let mut health = store.health();
    let (mut row, answered) = batch(&*store, PARTITION, vec![reading("a", 0)]);
    let answer = std::mem::replace(&mut row.done, Box::new(|_| ()));
    // While it is answered no sync is made: the next is the one behind it.
    let fails = Arc::clone(&store);
    row.done = Box::new(move |result| {
        fails.fail_next_sync(PARTITION);
        drop(fails);
        answer(result);
    });
    store.submit(row).unwrap();
    answered.await.unwrap().unwrap();
    tokio::time::timeout(SOON, async {
        while store.metrics().reopenings.get() == 0 {
            health.changed().await.unwrap();
        }
    })
    .await
    .expect("a sync that fails is not passed over");
    serves_again_with(&store, 1).await;
}

/// A commit has ended when its sync is due, and the next group is planned behind it: the one is answered as
/// what it is before the sync is made, and the other, which rests on what the reopening drops, is void.
#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_fails_behind_a_commit_voids_what_is_planned_and_nothing_before() {
    let folder = Folder::new(|| key(1));
    let store = folder.open_with(key(1), &Config { linger_bytes: 1, ..interval(1) }).unwrap();
    write(&store, vec![Op::Device(device("a"))]).await.unwrap();
    let (note, heard) = std::sync::mpsc::channel();
    let commits = store.shared(PARTITION).gate.hold();
    noted(&store, vec![reading("a", 0)], 0, &note, None).await;
    store.fail_next_sync(PARTITION);
    // One commit always runs and one group is always planned behind it, until a sync is due between them.
    let (mut rows, start) = (0, Stopwatch::start());
    let void = loop {
        assert!(start.elapsed() < SOON, "nothing is synced as long as there is always a next commit");
        noted(&store, vec![reading("a", 1)], rows + 1, &note, None).await;
        commits.let_one_pass();
        match heard.recv_timeout(SOON).unwrap() {
            (ended, Ok(offset)) => assert_eq!((ended, offset), (rows, rows + 1), "in the order they came"),
            (ended, Err(CommitError::Unknown(_))) => break ended,
            (_, Err(other)) => panic!("{other}"),
        }
        rows += 1;
    };
    drop(commits);
    assert_eq!(void, rows, "the one behind the last that was acknowledged");
    // One more came meanwhile: before the files were open again, or behind that.
    let (late, answer) = heard.recv_timeout(SOON).unwrap();
    assert_eq!(late, void + 1);
    if let Ok(offset) = answer {
        assert_eq!(offset, rows + 1);
        rows += 1;
    }
    serves_again_with(&store, rows).await;
}

/// The sync is not due yet when a commit has ended, and is when what is planned behind it is to be
/// committed: an answer held the writer up between the two looks.
#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_fails_between_an_answer_and_the_next_commit_voids_what_is_planned() {
    let pause = Duration::from_millis(300);
    let folder = Folder::new(|| key(1));
    // What is planned beside a commit is one record, and too small to be handed over at once.
    let config = Config { linger_bytes: 400, commit_records: 1, ..interval(300) };
    let store = folder.open_with(key(1), &config).unwrap();
    write(&store, vec![Op::Device(device("a"))]).await.unwrap();
    synced(&store, 1).await;
    let row = |body: usize| vec![Op::Reading { tag: contract::tag(0), uplink: uplink("a", &"x".repeat(body)) }];
    let (note, heard) = std::sync::mpsc::channel();
    let commits = store.shared(PARTITION).gate.hold();
    noted(&store, row(400), 1, &note, Some(pause)).await;
    let (last, last_answer) = batch(&store, PARTITION, row(250));
    let mut taken = Box::pin(store.room(PARTITION).notified_owned());
    taken.as_mut().enable();
    let (planned, planned_answer) = batch(&store, PARTITION, row(250));
    store.submit(planned).unwrap();
    store.submit(last).unwrap();
    tokio::time::timeout(SOON, taken).await.expect("nothing is taken while a commit runs");
    store.fail_next_sync(PARTITION);
    drop(commits);
    assert_eq!(heard.recv_timeout(SOON).unwrap(), (1, Ok(1)));
    for answer in [planned_answer, last_answer] {
        let answer = tokio::time::timeout(SOON, answer).await.unwrap().unwrap();
        assert!(matches!(answer, Err(CommitError::Unknown(_))), "{answer:?}");
    }
    serves_again_with(&store, 1).await;
}

#[tokio::test]
async fn with_fsync_there_is_nothing_for_the_timer() {
    let folder = Folder::new(|| key(1));
    let store = folder.open_with(key(1), &Config { sync_interval_ms: 1, ..config() }).unwrap();
    for n in 0..20 {
        write(&store, vec![Op::Device(device(if n % 2 == 0 { "a" } else { "b" }))]).await.unwrap();
    }
    assert_eq!(synced(&store, 0).await, 0);
    store.close().await;
}
