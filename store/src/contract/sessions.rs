//! Sessions: their parts, their versions, and what a device's newest rows remember.

use super::*;

pub(super) async fn sessions_keep_their_parts_and_their_version(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    write(&*store, vec![Op::Device(device("a"))]).await.unwrap();
    assert_eq!(store.session(&id("a")).await, Ok(None), "nothing was written of it");
    assert_eq!(store.session(&id("nobody")).await, Ok(None));
    let ops = vec![
        session("a", 0, "w1"),
        chain("a", Slot::Present, Lane::Receive, 1, "r1"),
        reading("a", 0),
        chain("a", Slot::Present, Lane::Send, 2, "s1"),
        Op::Peer { device: id("a"), bytes: Bytes::from_static(b"peer") },
    ];
    assert_eq!(write(&*store, ops).await.unwrap().durable.len(), 3, "one for each session and chain");
    let stored = store.session(&id("a")).await.unwrap().unwrap();
    let parts = |whole: &str, receive: Option<&str>, send: Option<&str>| {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        Some(StoredSession { whole: bytes(whole), receive: receive.map(bytes), send: send.map(bytes) })
    };
    assert_eq!((stored.version, stored.newest), (Version::new(3), Offset::new(1)));
    assert_eq!((stored.present, stored.previous), (parts("w1", Some("r1"), Some("s1")), None));
    assert_eq!(stored.peer.as_deref(), Some(&b"peer"[..]));
    // A chain written anew replaces the one before it; the whole one deletes both.
    write(&*store, vec![chain("a", Slot::Present, Lane::Receive, 3, "r2")]).await.unwrap();
    assert_eq!(store.session(&id("a")).await.unwrap().unwrap().present, parts("w1", Some("r2"), Some("s1")));
    write(&*store, vec![session("a", 4, "w2")]).await.unwrap();
    let stored = store.session(&id("a")).await.unwrap().unwrap();
    assert_eq!((stored.version, stored.present), (Version::new(5), parts("w2", None, None)));
}

pub(super) async fn a_rotated_session_becomes_the_previous_one(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    let rotate = |expect| Op::Rotate { device: id("a"), expect: Version::new(expect) };
    let end = |expect, present| Op::EndSessions { device: id("a"), expect: Version::new(expect), present };
    let whole = |session: &Option<StoredSession>| session.clone().map(|session| session.whole);
    let bytes = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
    let ops = vec![
        Op::Device(device("a")),
        session("a", 0, "w1"),
        chain("a", Slot::Present, Lane::Receive, 1, "r1"),
        rotate(2),
        session("a", 3, "w2"),
    ];
    write(&*store, ops).await.unwrap();
    let stored = store.session(&id("a")).await.unwrap().unwrap();
    let previous = stored.previous.clone().unwrap();
    assert_eq!((stored.version.get(), whole(&stored.present)), (4, bytes("w2")));
    assert_eq!((Some(previous.whole), previous.receive, previous.send), (bytes("w1"), bytes("r1"), None));
    // Once more: the first is gone, its chain with it, and the previous one goes on receiving.
    write(&*store, vec![rotate(4), session("a", 5, "w3")]).await.unwrap();
    assert_eq!(store.session(&id("a")).await.unwrap().unwrap().previous.unwrap().receive, None);
    write(&*store, vec![chain("a", Slot::Previous, Lane::Receive, 6, "r2")]).await.unwrap();
    let stored = store.session(&id("a")).await.unwrap().unwrap();
    let previous = stored.previous.clone().unwrap();
    assert_eq!((Some(previous.whole), previous.receive, previous.send), (bytes("w2"), bytes("r2"), None));
    write(&*store, vec![end(7, false)]).await.unwrap();
    let stored = store.session(&id("a")).await.unwrap().unwrap();
    assert_eq!((stored.version.get(), whole(&stored.present), stored.previous), (8, bytes("w3"), None));
    write(&*store, vec![end(8, true)]).await.unwrap();
    let stored = store.session(&id("a")).await.unwrap().unwrap();
    assert_eq!((stored.version.get(), stored.present, stored.previous), (9, None, None), "the version outlives them");
}

pub(super) async fn a_wrong_expectation_fails_its_batch_alone(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    write(&*store, vec![Op::Device(device("a")), Op::Device(device("b"))]).await.unwrap();
    // Submitted together, so that they may share a commit: the second builds on the first.
    let partition = Partition::new(0);
    let (first, first_answer) = batch(&*store, partition, vec![session("a", 0, "w1"), reading("a", 0)]);
    let (second, second_answer) =
        batch(&*store, partition, vec![chain("a", Slot::Present, Lane::Receive, 1, "r1"), reading("a", 1)]);
    let (wrong, wrong_answer) =
        batch(&*store, partition, vec![reading("b", 7), chain("a", Slot::Present, Lane::Receive, 1, "r2")]);
    let (fourth, fourth_answer) = batch(&*store, partition, vec![session("b", 0, "w"), reading("b", 0)]);
    for batch in [first, second, wrong, fourth] {
        store.submit(batch).unwrap();
    }
    assert!(first_answer.await.unwrap().is_ok());
    assert!(second_answer.await.unwrap().is_ok());
    let (expected, found) = (Version::new(1), Version::new(2));
    assert_eq!(wrong_answer.await.unwrap().unwrap_err(), CommitError::Version { device: id("a"), expected, found });
    assert_eq!(fourth_answer.await.unwrap().unwrap().readings[0].offset.get(), 3);
    assert_eq!(*store.health().borrow(), Health::Ready);
    let stored = store.session(&id("a")).await.unwrap().unwrap();
    assert_eq!(stored.present.unwrap().receive.as_deref(), Some(&b"r1"[..]));
}

pub(super) async fn the_newest_tags_are_given_oldest_first(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    write(&*store, vec![Op::Device(device("a")), Op::Device(device("b"))]).await.unwrap();
    let rows = RECENT_TAGS as u32 + 8;
    for n in 0..rows {
        write(&*store, vec![reading("a", n), reading("b", 1000 + n)]).await.unwrap();
    }
    let expected: Vec<MessageTag> = (8..rows).map(tag).collect();
    assert_eq!(store.session(&id("a")).await.unwrap().unwrap().recent, expected);
}

/// A device's newest row and its session are two records: where damage took one back, the session
/// is not given, and a later write does not make it look whole.
pub(super) async fn a_session_of_another_moment_than_its_rows_is_not_given(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    let row = |n| vec![chain("a", Slot::Present, Lane::Receive, n, "r"), reading("a", n)];
    write(&*store, vec![Op::Device(device("a")), session("a", 0, "w"), reading("a", 0)]).await.unwrap();
    write(&*store, row(1)).await.unwrap();
    // What a seal and a reset write moves no row.
    write(&*store, vec![chain("a", Slot::Present, Lane::Send, 2, "s")]).await.unwrap();
    write(&*store, vec![Op::Peer { device: id("a"), bytes: Bytes::from_static(b"peer") }]).await.unwrap();
    // A row of which nothing else of the batch speaks.
    write(&*store, vec![reading("a", 2)]).await.unwrap();
    let stored = store.session(&id("a")).await.unwrap().unwrap();
    assert_eq!((stored.stale, stored.version.get(), stored.newest.get()), (false, 3, 3));
    drop(store);
    bench.damage(&id("a"), Offset::new(3));

    let store = bench.open(1).await;
    let stored = store.session(&id("a")).await.unwrap().unwrap();
    assert!(stored.stale && stored.present.is_none() && stored.previous.is_none());
    assert_eq!((stored.version.get(), stored.newest.get(), stored.peer.is_some()), (3, 2, true));
    write(&*store, vec![Op::Peer { device: id("a"), bytes: Bytes::from_static(b"reset") }]).await.unwrap();
    let stored = store.session(&id("a")).await.unwrap().unwrap();
    assert_eq!((stored.stale, stored.present, stored.version.get()), (false, None, 3));
    write(&*store, vec![session("a", 3, "new")]).await.unwrap();
    assert!(store.session(&id("a")).await.unwrap().unwrap().present.is_some());
}

/// What of a device a plan reads and does not find whole stops that device, and nobody beside it: not in
/// a batch that brings together what devices do each for itself, and not in the group.
pub(super) async fn a_damaged_record_stops_its_device_alone(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    let devices = ["a", "b", "c"];
    write(&*store, devices.map(|name| Op::Device(device(name))).into()).await.unwrap();
    write(&*store, devices.map(|name| session(name, 0, "w")).into()).await.unwrap();
    drop(store);
    bench.damage_session(&id("b"));

    let store = bench.open(1).await;
    let partition = Partition::new(0);
    let each = |n: u32| {
        let row = |name| [chain(name, Slot::Present, Lane::Receive, n, "r"), reading(name, n)];
        devices.into_iter().flat_map(row).collect::<Vec<_>>()
    };
    let (first, first_answer) = batch(&*store, partition, each(1));
    let (second, second_answer) = batch(&*store, partition, each(2));
    // One that is of one piece is refused for the same, and leaves no trace of the others.
    let (whole, whole_answer) = batch(&*store, partition, vec![reading("c", 9), reading("b", 9)]);
    let (behind, behind_answer) = batch(&*store, partition, vec![reading("a", 3)]);
    let by_device = |batch| Batch { unit: Unit::Device, ..batch };
    for batch in [by_device(first), by_device(second), whole, behind] {
        store.submit(batch).unwrap();
    }
    let is_of_b = |cause: &CommitError| {
        let CommitError::Damaged { device, found } = cause else { panic!("{cause}") };
        let ReadError::Damaged { record, .. } = &**found else { panic!("{cause}") };
        assert_eq!((*device, record.split('/').next()), (id("b"), Some("sessions")), "{cause}");
    };
    for (answer, from) in [(first_answer, 1), (second_answer, 3)] {
        let committed = answer.await.unwrap().unwrap();
        assert_eq!(committed.left_out.len(), 1);
        assert_eq!(committed.left_out[0].device, id("b"));
        is_of_b(&committed.left_out[0].cause);
        let proven: Vec<bool> = committed.durable.iter().map(Option::is_some).collect();
        assert_eq!(proven, [true, false, true], "no proof of what was not written");
        let places: Vec<u64> = committed.readings.iter().map(|place| place.offset.get()).collect();
        assert_eq!(places, [from, from + 1], "and no place for it");
    }
    is_of_b(&whole_answer.await.unwrap().unwrap_err());
    assert_eq!(behind_answer.await.unwrap().unwrap().readings[0].offset.get(), 5);
    assert_eq!(*store.health().borrow(), Health::Ready);
    let rows = store.log(partition, Offset::ZERO, ALL).await.unwrap().rows;
    assert_eq!(rows.iter().map(|row| row.uplink.device).collect::<Vec<_>>(), ["a", "c", "a", "c", "a"].map(id));
    assert!(matches!(store.session(&id("b")).await, Err(ReadError::Damaged { .. })), "it is not served");
    assert_eq!(store.session(&id("c")).await.unwrap().unwrap().version, Version::new(3));
}

/// A device whose part of a batch was left out is ahead of the store in the batches behind it too.
pub(super) async fn a_wrong_expectation_stops_its_device_alone(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    write(&*store, vec![Op::Device(device("a")), Op::Device(device("b"))]).await.unwrap();
    let ops = vec![session("a", 1, "w"), session("b", 0, "w"), reading("a", 0), reading("b", 0)];
    let (batch, answer) = batch(&*store, Partition::new(0), ops);
    store.submit(Batch { unit: Unit::Device, ..batch }).unwrap();
    let committed = answer.await.unwrap().unwrap();
    let (expected, found) = (Version::new(1), Version::new(0));
    let cause = CommitError::Version { device: id("a"), expected, found };
    assert_eq!(committed.left_out, [LeftOut { device: id("a"), cause }]);
    assert_eq!((committed.readings.len(), committed.durable.len()), (1, 2));
    assert_eq!(store.session(&id("b")).await.unwrap().unwrap().newest.get(), 1);
}
