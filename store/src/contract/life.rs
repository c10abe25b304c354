//! A store's own life: full, restarted, closed.

use super::*;

pub(super) async fn a_full_queue_gives_back_and_room_is_signalled(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    write(&*store, vec![Op::Device(device("a"))]).await.unwrap();
    let partition = Partition::new(0);
    // The writer stands still in an answer until it is let go.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (stands, standing) = oneshot::channel();
    let blocking = Batch {
        partition,
        fence: store.fence(partition),
        ops: vec![reading("a", 0)],
        unit: Unit::Batch,
        done: Box::new(move |_| {
            stands.send(()).unwrap();
            held.recv().unwrap();
        }),
    };
    store.submit(blocking).unwrap();
    standing.await.unwrap();
    let mut answers = Vec::new();
    let full = loop {
        let (batch, answer) = batch(&*store, partition, (0..256).map(|n| reading("a", n)).collect());
        match store.submit(batch) {
            Ok(()) => answers.push(answer),
            Err(Full(back)) => break back,
        }
        assert!(answers.len() < 100_000, "a queue without a bound");
    };
    assert_eq!(full.ops.len(), 256, "unharmed");
    let room = store.room(partition);
    let mut notified = std::pin::pin!(room.notified());
    notified.as_mut().enable();
    release.send(()).unwrap();
    notified.await;
    store.submit(*full).unwrap();
    for answer in answers {
        assert_eq!(answer.await.unwrap().unwrap().readings.len(), 256);
    }
}

pub(super) async fn a_restart_keeps_all(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    let ops = vec![
        Op::Device(device("a")),
        session("a", 0, "w1"),
        chain("a", Slot::Present, Lane::Send, 1, "s1"),
        Op::Peer { device: id("a"), bytes: Bytes::from_static(b"peer") },
        reading("a", 0),
        reading("a", 1),
        Op::Command(command("a", 1, Stage::Waiting)),
        Op::Broker {
            table: BrokerTable::Sessions,
            key: Bytes::from_static(b"k"),
            value: Some(Bytes::from_static(b"v")),
        },
    ];
    write(&*store, ops).await.unwrap();
    let before = (
        store.session(&id("a")).await.unwrap(),
        store.device(&id("a")).await.unwrap(),
        store.history(&id("a"), Offset::ZERO, ALL).await.unwrap(),
        store.open_commands(&id("a")).await.unwrap(),
        store.broker_records(BrokerTable::Sessions, None, ALL).await.unwrap(),
        store.epoch(),
    );
    let fence = store.fence(Partition::new(0));
    store.close().await;
    drop(store);
    let store = bench.open(1).await;
    let after = (
        store.session(&id("a")).await.unwrap(),
        store.device(&id("a")).await.unwrap(),
        store.history(&id("a"), Offset::ZERO, ALL).await.unwrap(),
        store.open_commands(&id("a")).await.unwrap(),
        store.broker_records(BrokerTable::Sessions, None, ALL).await.unwrap(),
        store.epoch(),
    );
    assert_eq!(before, after);
    assert!(store.fence(Partition::new(0)) > fence, "a batch of the life before is refused");
    assert_eq!(store.committed(Partition::new(0)).borrow().get(), 2);
    let ops = vec![chain("a", Slot::Present, Lane::Receive, 2, "r1"), reading("a", 2)];
    let committed = write(&*store, ops).await.unwrap();
    assert_eq!((committed.readings[0].offset.get(), committed.readings[0].prev.get()), (3, 2));
}

pub(super) async fn a_closed_store_answers_so(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    write(&*store, vec![Op::Device(device("a"))]).await.unwrap();
    let answers: Vec<Answer> = (0..50)
        .map(|n| {
            let (batch, answer) = batch(&*store, Partition::new(0), vec![reading("a", n)]);
            store.submit(batch).unwrap();
            answer
        })
        .collect();
    store.close().await;
    for answer in answers {
        assert!(answer.await.unwrap().is_ok(), "what was submitted is committed");
    }
    assert_eq!(write(&*store, vec![reading("a", 50)]).await.unwrap_err(), CommitError::Closed);
    assert!(store.device(&id("a")).await.is_err());
    store.close().await;
}

/// Rows are held, so nothing else would signal room: who waits for it waited for ever.
pub(super) async fn who_waits_for_room_hears_of_the_end(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    write(&*store, vec![Op::Device(device("a"))]).await.unwrap();
    let partition = Partition::new(0);
    store.hold_rows(Some("no room".into()));
    let (with_row, answer) = batch(&*store, partition, vec![reading("a", 0)]);
    let room = store.room(partition);
    let mut notified = std::pin::pin!(room.notified());
    notified.as_mut().enable();
    let Err(Full(back)) = store.submit(with_row) else { panic!("it is taken") };
    store.close().await;
    let soon = std::time::Duration::from_secs(60);
    tokio::time::timeout(soon, notified).await.expect("no word of the end");
    store.submit(*back).unwrap();
    assert_eq!(answer.await.unwrap().unwrap_err(), CommitError::Closed);
}
