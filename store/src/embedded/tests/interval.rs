//! The timer of `durability = "interval"`.

use std::time::Duration;

use super::beside::taken;
use super::*;
use crate::config::Durability;
use crate::metrics::Stopwatch;

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
