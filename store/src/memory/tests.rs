use unhidra_core::command::Stage;

use super::*;
use crate::Op;
use crate::contract::{self, Bench, batch, device, id, reading, write};

/// A place whose store can be opened again.
struct Place {
    commit_time: Duration,
    last: Option<Arc<Memory>>,
}

impl Bench for Place {
    fn open(&mut self, partitions: u16) -> BoxFuture<'_, Arc<dyn Store>> {
        // Few, so that the contract meets a writer that has forgotten.
        let options = Options { partitions, commit_time: self.commit_time, known_devices: 2, ..Options::SMALL };
        let memory = Arc::new(match &self.last {
            Some(last) => last.reopen(),
            None => Memory::new(options),
        });
        self.last = Some(Arc::clone(&memory));
        Box::pin(async move { memory as Arc<dyn Store> })
    }

    fn damage(&mut self, device: &DeviceId, offset: Offset) {
        assert!(self.last.as_ref().unwrap().delete_row(device, offset));
    }

    fn damage_session(&mut self, device: &DeviceId) {
        assert!(self.last.as_ref().unwrap().damage_session(device).is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_engine_holds_the_contract() {
    contract::hold(|| Place { commit_time: Duration::ZERO, last: None }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_engine_holds_the_contract_with_commits_that_take_time() {
    contract::hold(|| Place { commit_time: Duration::from_millis(1), last: None }).await;
}

async fn enrolled() -> Memory {
    let memory = Memory::new(Options::SMALL);
    write(&memory, vec![Op::Device(device("a")), reading("a", 0)]).await.unwrap();
    memory
}

async fn rows(memory: &Memory) -> usize {
    memory.history(&id("a"), Offset::ZERO, Limit::default()).await.unwrap().rows.len()
}

#[tokio::test]
async fn a_node_that_dies_before_the_commit_has_nothing_of_it() {
    let memory = enrolled().await;
    memory.crash_at(CrashPoint::BeforeCommit);
    let (batch, mut answer) = batch(&memory, Partition::new(0), vec![reading("a", 1)]);
    memory.submit(batch).unwrap();
    memory.crashed().await;
    assert!(answer.try_recv().is_err(), "nobody hears of it");
    assert_eq!(memory.device(&id("a")).await, Err(ReadError::Unavailable));
    assert_eq!(rows(&memory.reopen()).await, 1);
}

#[tokio::test]
async fn a_node_that_dies_after_the_commit_has_it_and_nobody_heard() {
    let memory = enrolled().await;
    memory.crash_at(CrashPoint::AfterCommit);
    let (first, mut answer) = batch(&memory, Partition::new(0), vec![reading("a", 1)]);
    memory.submit(first).unwrap();
    memory.crashed().await;
    let (late, mut late_answer) = batch(&memory, Partition::new(0), vec![reading("a", 2)]);
    memory.submit(late).unwrap();
    let next = memory.reopen();
    assert_eq!(rows(&next).await, 2);
    let empty = tokio::sync::oneshot::error::TryRecvError::Empty;
    assert_eq!((answer.try_recv().unwrap_err(), late_answer.try_recv().unwrap_err()), (empty.clone(), empty));
    drop(memory);
    let closed = tokio::sync::oneshot::error::TryRecvError::Closed;
    assert_eq!(answer.try_recv().unwrap_err(), closed, "with the node its answers are gone");
}

#[tokio::test]
async fn a_failed_commit_fails_what_waits_behind_it_and_then_serves_again() {
    for (fault, expected) in [(Fault::NotWritten, 1), (Fault::Written, 2)] {
        let memory = Arc::new(enrolled().await);
        let partition = Partition::new(0);
        memory.fail_next_commit(fault);
        let mut health = memory.health();
        let (first, first_answer) = batch(&*memory, partition, vec![reading("a", 1)]);
        memory.submit(first).unwrap();
        // Let the writer take the first alone, and have its commit wait behind what is submitted here.
        tokio::task::yield_now().await;
        let (late, late_answer) = batch(&*memory, partition, vec![reading("a", 3)]);
        let (mut behind, behind_answer) = batch(&*memory, partition, vec![reading("a", 2)]);
        let answer = std::mem::replace(&mut behind.done, Box::new(|_| ()));
        let submits = Arc::clone(&memory);
        behind.done = Box::new(move |result| {
            answer(result);
            submits.submit(late).unwrap();
        });
        memory.submit(behind).unwrap();
        for answer in [first_answer, behind_answer, late_answer] {
            assert!(matches!(answer.await.unwrap(), Err(CommitError::Unknown(_))));
        }
        health.wait_for(|health| *health == Health::Ready).await.unwrap();
        assert_eq!(rows(&memory).await, expected, "{fault:?}");
        let committed = write(&*memory, vec![reading("a", 2)]).await.unwrap();
        assert_eq!(committed.readings[0].offset.get(), expected as u64 + 1, "{fault:?}");
    }
}

#[tokio::test]
async fn a_stalled_store_answers_nobody_until_it_is_resumed() {
    let memory = enrolled().await;
    memory.stall();
    let (first, mut answer) = batch(&memory, Partition::new(0), vec![reading("a", 1)]);
    memory.submit(first).unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(answer.try_recv().is_err());
    assert_eq!(rows(&memory).await, 1, "reads go on");
    memory.resume();
    assert!(answer.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_commit_takes_the_time_it_is_told_to_and_the_next_group_gathers() {
    let memory = Memory::new(Options { commit_time: Duration::from_millis(5), ..Options::SMALL });
    let started = tokio::time::Instant::now();
    write(&memory, vec![Op::Device(device("a"))]).await.unwrap();
    assert_eq!(started.elapsed(), Duration::from_millis(5));
    let submit = |n| {
        let (batch, answer) = batch(&memory, Partition::new(0), vec![reading("a", n)]);
        memory.submit(batch).unwrap();
        answer
    };
    let first = submit(1);
    tokio::task::yield_now().await;
    let rest: Vec<_> = (2..50).map(submit).collect();
    first.await.unwrap().unwrap();
    assert_eq!(started.elapsed(), Duration::from_millis(10));
    for answer in rest {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(started.elapsed(), Duration::from_millis(15), "all the others in one commit");
}

#[tokio::test]
async fn a_deleted_row_is_gone_from_every_read() {
    let memory = enrolled().await;
    write(&memory, vec![reading("a", 1), reading("a", 2)]).await.unwrap();
    assert!(memory.delete_row(&id("a"), Offset::new(2)));
    assert!(!memory.delete_row(&id("a"), Offset::new(2)) && !memory.delete_row(&id("b"), Offset::new(1)));
    let left = [1, 3].map(Offset::new);
    let page = memory.log(Partition::new(0), Offset::ZERO, Limit::default()).await.unwrap();
    assert_eq!(page.rows.iter().map(|row| row.offset).collect::<Vec<_>>(), left);
    let page = memory.history(&id("a"), Offset::ZERO, Limit::default()).await.unwrap();
    assert_eq!(page.rows.iter().map(|row| row.offset).collect::<Vec<_>>(), left);
}

#[tokio::test]
async fn a_damaged_command_hides_no_device_behind_it_that_waits() {
    let memory = enrolled().await;
    let sent = [("a", 1), ("b", 2)].map(|(name, n)| Op::Command(contract::command(name, n, Stage::Sent)));
    write(&memory, [Op::Device(device("b"))].into_iter().chain(sent).collect()).await.unwrap();
    let key = table::command(DeviceNumber::new(1), &CommandId::new([1; 16]));
    lock(&memory.life.disk).partitions[0].write(Table::Commands, key, Some(Bytes::from_static(b"?")));
    assert!(memory.open_commands(&id("a")).await.is_err(), "it is told where it is read");
    let waiting = memory.waits(Partition::new(0), DeviceNumber::new(0), 9).await.unwrap();
    assert_eq!(waiting.rows.iter().map(|waits| waits.device).collect::<Vec<_>>(), [id("b")]);
}

#[tokio::test]
async fn a_handle_of_the_life_before_writes_nothing() {
    let memory = enrolled().await;
    let next = memory.reopen();
    let (late, mut answer) = batch(&memory, Partition::new(0), vec![reading("a", 1)]);
    memory.submit(late).unwrap();
    write(&next, vec![reading("a", 9)]).await.unwrap();
    assert!(answer.try_recv().is_err());
    assert_eq!(rows(&next).await, 2);
}

#[tokio::test]
async fn a_fault_waits_for_a_commit_that_writes() {
    let memory = enrolled().await;
    memory.fail_next_commit(Fault::NotWritten);
    assert_eq!(write(&memory, vec![reading("b", 0)]).await.unwrap_err(), CommitError::NoDevice(id("b")));
    assert_eq!(*memory.health().borrow(), Health::Ready);
    assert!(matches!(write(&memory, vec![reading("a", 1)]).await, Err(CommitError::Unknown(_))));
}
