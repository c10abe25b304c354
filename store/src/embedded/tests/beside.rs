//! A group that is planned while the one before it is being committed.

use std::mem::ManuallyDrop;
use std::time::Duration;

use super::*;
use crate::Committed;

/// Longer than a commit takes anywhere, and short enough to fail.
const SOON: Duration = Duration::from_secs(60);
const PARTITION: Partition = Partition::new(0);

/// Every group is handed over, however small.
struct Handed(Folder);

impl Handed {
    fn new() -> Self {
        Self(Folder::new(|| key(1)))
    }

    fn open(&self, partitions: u16) -> Embedded {
        let config = Config { partitions, queue_records: 2048, linger_bytes: 1, ..config() };
        self.0.open_with(key(1), &config).unwrap()
    }
}

impl Bench for Handed {
    fn open(&mut self, partitions: u16) -> BoxFuture<'_, Arc<dyn Store>> {
        let store = Self::open(self, partitions);
        Box::pin(async move { Arc::new(store) as Arc<dyn Store> })
    }

    fn damage(&mut self, device: &DeviceId, offset: Offset) {
        assert_eq!(Self::open(self, 1).delete_row(device, offset), Ok(true));
    }

    fn damage_session(&mut self, device: &DeviceId) {
        assert_eq!(Self::open(self, 1).damage_session(device), Ok(()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_engine_holds_the_contract_where_all_is_handed_over() {
    contract::hold(Handed::new).await;
}

fn session(expect: u32) -> Op {
    let (device, expect, whole) = (id("a"), Version::new(expect), Bytes::from_static(b"state"));
    Op::Session { device, slot: Slot::Present, expect, whole }
}

/// Submits a batch and waits until the writer has taken it.
pub(super) async fn taken(store: &Embedded, ops: Vec<Op>) -> contract::Answer {
    let mut taken = Box::pin(store.room(PARTITION).notified_owned());
    taken.as_mut().enable();
    let (batch, answer) = batch(store, PARTITION, ops);
    store.submit(batch).unwrap();
    tokio::time::timeout(SOON, taken).await.expect("nothing is taken while a commit runs");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_while_a_commit_runs_is_planned_behind_it() {
    let folder = Handed::new();
    let store = folder.open(1);
    write(&store, vec![Op::Device(device("a"))]).await.unwrap();
    let (mut first, second);
    {
        let held = store.shared(PARTITION).gate.hold();
        first = taken(&store, vec![session(0), reading("a", 0)]).await;
        second = taken(&store, vec![session(1), reading("a", 1)]).await;
        assert!(first.try_recv().is_err(), "answered before it was durable");
        drop(held);
    }
    let at = |answer: Result<Result<Committed, CommitError>, _>| answer.unwrap().unwrap().readings[0];
    let (first, second) = (at(first.await), at(second.await));
    assert_eq!((first.offset.get(), second.offset.get(), second.prev.get()), (1, 2, 1));
    assert_eq!(store.session(&id("a")).await.unwrap().unwrap().version, Version::new(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_commit_fails_so_does_what_was_planned_behind_it() {
    for fault in [Fault::NotWritten, Fault::Written, Fault::Panic] {
        let folder = Handed::new();
        let store = folder.open(1);
        write(&store, vec![Op::Device(device("a"))]).await.unwrap();
        let (first, second);
        {
            let held = store.shared(PARTITION).gate.hold();
            store.fail_next_commit(PARTITION, fault);
            first = taken(&store, vec![session(0), reading("a", 0)]).await;
            second = taken(&store, vec![session(1), reading("a", 1)]).await;
            drop(held);
        }
        for answer in [first, second] {
            assert!(matches!(answer.await.unwrap(), Err(CommitError::Unknown(_))), "{fault:?}");
        }
        let mut health = store.health();
        tokio::time::timeout(SOON, health.wait_for(|health| *health == Health::Ready)).await.unwrap().unwrap();
        let written = u32::from(fault == Fault::Written);
        let next = write(&store, vec![session(written), reading("a", 2)]).await.unwrap();
        assert_eq!(next.readings[0].offset.get(), u64::from(written) + 1, "{fault:?}: what is durable is read back");
    }
}

/// Else the writer would wait for ever for the end of a commit whose thread is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_on_the_committers_thread_is_a_commit_that_failed() {
    let folder = Handed::new();
    // Where the rule is broken nobody could wait for its writer: it is given up with the test.
    let store = ManuallyDrop::new(folder.open(1));
    write(&*store, vec![Op::Device(device("a"))]).await.unwrap();
    store.fail_next_commit(PARTITION, Fault::Panic);
    let answer = tokio::time::timeout(SOON, write(&*store, vec![session(0), reading("a", 0)])).await;
    assert!(matches!(answer.expect("the writer waits for a thread that is gone"), Err(CommitError::Unknown(_))));
    let mut health = store.health();
    tokio::time::timeout(SOON, health.wait_for(|health| *health == Health::Ready)).await.unwrap().unwrap();
    let next = tokio::time::timeout(SOON, write(&*store, vec![session(0), reading("a", 0)])).await.unwrap().unwrap();
    assert_eq!(next.readings[0].offset.get(), 1, "nothing of it was written, and the committer goes on");
    drop(ManuallyDrop::into_inner(store));
}

/// What the writer has answered, in its order: the first by `1`, the second by `2`.
type Heard = std::sync::mpsc::Receiver<(u8, bool)>;

/// Submits a batch behind those before it, and notes when it is answered and whether it was taken.
async fn noted(store: &Embedded, ops: Vec<Op>, name: u8, note: &std::sync::mpsc::Sender<(u8, bool)>) {
    let mut taken = Box::pin(store.room(PARTITION).notified_owned());
    taken.as_mut().enable();
    let note = note.clone();
    let done = Box::new(move |result: Result<Committed, CommitError>| _ = note.send((name, result.is_ok())));
    store.submit(Batch { partition: PARTITION, fence: store.fence(PARTITION), ops, unit: Unit::Batch, done }).unwrap();
    tokio::time::timeout(SOON, taken).await.expect("nothing is taken while a commit runs");
}

/// The second group writes nothing, so that no commit of its own is waited for: it has its answer behind
/// the first all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_writes_nothing_is_answered_behind_the_one_before_it() {
    for (ops, is_taken) in [(vec![session(77)], false), (vec![Op::Reseal(Vec::new())], true)] {
        let folder = Handed::new();
        let store = folder.open(1);
        write(&store, vec![Op::Device(device("a"))]).await.unwrap();
        let (note, heard): (_, Heard) = std::sync::mpsc::channel();
        {
            let held = store.shared(PARTITION).gate.hold();
            noted(&store, vec![session(0), reading("a", 0)], 1, &note).await;
            noted(&store, ops, 2, &note).await;
            drop(held);
        }
        let order = [heard.recv_timeout(SOON).unwrap(), heard.recv_timeout(SOON).unwrap()];
        assert_eq!(order, [(1, true), (2, is_taken)]);
    }
}

/// The engine gives no view to plan on: the batch is answered, and the files are opened anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_cannot_be_planned_is_answered_and_the_store_serves_again() {
    let folder = Handed::new();
    let store = folder.open(1);
    write(&store, vec![Op::Device(device("a")), reading("a", 0)]).await.unwrap();
    store.shared(PARTITION).close_files();
    let answer = tokio::time::timeout(SOON, write(&store, vec![reading("a", 1)])).await.unwrap();
    assert!(matches!(answer, Err(CommitError::Unknown(_))), "{answer:?}");
    let mut health = store.health();
    tokio::time::timeout(SOON, health.wait_for(|health| *health == Health::Ready)).await.unwrap().unwrap();
    let next = write(&store, vec![reading("a", 1)]).await.unwrap();
    assert_eq!(next.readings[0].offset.get(), 2);
}

/// Rows that are held are held still, and the store says so, once it has been opened anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_full_is_full_still_after_a_commit_that_failed() {
    let folder = Handed::new();
    let store = folder.open(1);
    write(&store, vec![Op::Device(device("a"))]).await.unwrap();
    store.hold_rows(Some("no room".into()));
    store.fail_next_commit(PARTITION, Fault::NotWritten);
    let mut health = store.health();
    assert!(matches!(write(&store, vec![Op::Device(device("b"))]).await, Err(CommitError::Unknown(_))));
    let is_well = |health: &Health| matches!(health, Health::Ready | Health::Full(_));
    let reopened = tokio::time::timeout(SOON, health.wait_for(is_well)).await.unwrap().unwrap().clone();
    assert_eq!(reopened, Health::Full("no room".into()));
    assert!(store.submit(batch(&store, PARTITION, vec![reading("a", 0)]).0).is_err(), "no rows are taken");
    store.hold_rows(None);
    assert_eq!(*health.borrow(), Health::Ready);
    write(&store, vec![reading("a", 0)]).await.unwrap();
}

/// What waits behind a commit goes into one commit of its own up to the bounds, and no further.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_planned_beside_a_commit_keeps_to_the_bounds_of_one() {
    let folder = Folder::new(|| key(1));
    let store = folder.open_with(key(1), &Config { linger_bytes: 400, commit_records: 2, ..config() }).unwrap();
    write(&store, vec![Op::Device(device("a"))]).await.unwrap();
    let before = store.metrics().commits.get();
    let row = |body: usize| vec![Op::Reading { tag: contract::tag(0), uplink: uplink("a", &"x".repeat(body)) }];
    let answers = {
        let held = store.shared(PARTITION).gate.hold();
        let running = taken(&store, row(400)).await;
        let planned = taken(&store, row(400)).await;
        // The second of these makes them worth a look, and only the first has room.
        let (first, first_answer) = batch(&store, PARTITION, row(150));
        store.submit(first).unwrap();
        let second_answer = taken(&store, row(150)).await;
        drop(held);
        [running, planned, first_answer, second_answer]
    };
    for (answer, place) in answers.into_iter().zip(1..) {
        assert_eq!(answer.await.unwrap().unwrap().readings[0].offset.get(), place);
    }
    assert_eq!(store.metrics().commits.get() - before, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_committer_does_not_go_on_with_what_is_to_grow() {
    let folder = Handed::new();
    let store = folder.open(1);
    write(&store, vec![Op::Device(device("a"))]).await.unwrap();
    let shared = store.shared(PARTITION);
    shared.put_behind(Arc::default());
    assert!(shared.ended(Ok(())).is_some(), "with what is ready it does");
    shared.forget_behind();
    shared.put_behind(Arc::default());
    let held = shared.gate.hold();
    let _answer = taken(&store, vec![session(0), reading("a", 0)]).await;
    assert!(shared.ended(Ok(())).is_none(), "it would commit the half of a group");
    drop(held);
}
