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
