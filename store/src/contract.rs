//! What every engine must do. Each engine's tests run [`hold`] over themselves.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use unhidra_core::device::{Device, Fingerprint, Standing, Suite};
use unhidra_core::ids::{CommandId, DeviceId, DeviceNumber, Fence, Offset, Partition, Version};
use unhidra_core::message::{Command, CommandState, Reading, ReceiptStatus, Uplink, UplinkKind};
use unhidra_core::time::UnixTime;

use crate::{
    Batch, BoxFuture, BrokerTable, CommitError, Committed, Full, Health, Lane, Limit, MessageTag, Op, PrekeyChange,
    PrekeyKind, PrekeyRecord, RECENT_TAGS, Slot, Store, StoredSession,
};

/// An engine under test, and a folder of its own.
pub(crate) trait Bench {
    /// A store with as many partitions over the same data, as after a restart of the node.
    fn open(&mut self, partitions: u16) -> BoxFuture<'_, Arc<dyn Store>>;
}

/// What a submitted batch comes to.
pub(crate) type Answer = oneshot::Receiver<Result<Committed, CommitError>>;

pub(crate) fn id(text: &str) -> DeviceId {
    text.parse().unwrap()
}

pub(crate) fn device(name: &str) -> Device {
    Device {
        id: id(name),
        number: DeviceNumber::new(0),
        identity_key: [1; 32],
        certificate: Fingerprint([2; 32]),
        certificate_expires: UnixTime::from_s(4_000_000_000),
        suite: Suite::X3dh,
        tags: ["site=north".parse().unwrap(), "a".parse().unwrap()].into(),
        class: "pump-mk2".into(),
        enrolled_at: UnixTime::from_s(1_700_000_000),
        standing: Standing::Enrolled,
    }
}

pub(crate) fn tag(n: u32) -> MessageTag {
    MessageTag { key: [7; 4], number: n, tag: (!n).to_be_bytes() }
}

pub(crate) fn uplink(name: &str, body: &str) -> Uplink {
    Uplink {
        device: id(name),
        kind: UplinkKind::Reading,
        name: "temperature".into(),
        device_time: Some(UnixTime::from_ms(1_700_000_000_123)),
        received_at: UnixTime::from_ms(1_700_000_000_456),
        reading_id: Some(u64::MAX),
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

pub(crate) fn reading(name: &str, n: u32) -> Op {
    Op::Reading { tag: tag(n), uplink: uplink(name, &format!("{name} {n}")) }
}

pub(crate) fn batch(store: &dyn Store, partition: Partition, ops: Vec<Op>) -> (Batch, Answer) {
    let (answer, answered) = oneshot::channel();
    let done = Box::new(move |result| _ = answer.send(result));
    (Batch { partition, fence: store.fence(partition), ops, done }, answered)
}

/// Submits and waits for the answer.
pub(crate) async fn write(store: &dyn Store, ops: Vec<Op>) -> Result<Committed, CommitError> {
    let partition = ops.iter().find_map(owner).map_or(Partition::new(0), |device| store.partition_of(&device));
    write_to(store, partition, ops).await
}

async fn write_to(store: &dyn Store, partition: Partition, ops: Vec<Op>) -> Result<Committed, CommitError> {
    let (batch, answered) = batch(store, partition, ops);
    store.submit(batch).unwrap();
    answered.await.unwrap()
}

fn owner(op: &Op) -> Option<DeviceId> {
    match op {
        Op::Session { device, .. }
        | Op::Chain { device, .. }
        | Op::Rotate { device, .. }
        | Op::EndSessions { device, .. }
        | Op::Peer { device, .. } => Some(*device),
        Op::Reading { uplink, .. } => Some(uplink.device),
        Op::Command(command) => Some(command.device),
        Op::Device(device) => Some(device.id),
        Op::Prekey(
            PrekeyChange::Put(PrekeyRecord { kind: PrekeyKind::OneTime(device), .. })
            | PrekeyChange::Delete { kind: PrekeyKind::OneTime(device), .. },
        ) => Some(*device),
        Op::Prekey(_) | Op::Broker { .. } => None,
    }
}

fn session(name: &str, expect: u32, whole: &str) -> Op {
    let whole = Bytes::copy_from_slice(whole.as_bytes());
    Op::Session { device: id(name), slot: Slot::Present, expect: Version::new(expect), whole }
}

fn chain(name: &str, slot: Slot, lane: Lane, expect: u32, delta: &str) -> Op {
    let delta = Bytes::copy_from_slice(delta.as_bytes());
    Op::Chain { device: id(name), slot, lane, expect: Version::new(expect), delta }
}

pub(crate) fn command(name: &str, n: u8, state: CommandState) -> Command {
    Command {
        id: CommandId::new([n; 16]),
        device: id(name),
        name: "reboot".into(),
        body: Bytes::from_static(b"now"),
        created_at: UnixTime::from_s(u64::from(100 - n)),
        expires_at: UnixTime::from_s(10_000),
        state,
    }
}

fn offsets(rows: &[Reading]) -> Vec<u64> {
    rows.iter().map(|row| row.offset.get()).collect()
}

const ALL: Limit = Limit { rows: usize::MAX, bytes: usize::MAX };

/// Runs all of it. `bench` gives a fresh engine for each rule.
pub(crate) async fn hold<B: Bench>(mut bench: impl FnMut() -> B) {
    a_reading_is_given_its_place_and_found_there(&mut bench()).await;
    a_batch_is_written_whole_or_not_at_all(&mut bench()).await;
    answers_come_in_the_order_of_submission(&mut bench()).await;
    pages_end_at_their_limits(&mut bench()).await;
    newest_leaves_out_what_nobody_is_shown(&mut bench()).await;
    sessions_keep_their_parts_and_their_version(&mut bench()).await;
    a_rotated_session_becomes_the_previous_one(&mut bench()).await;
    a_wrong_expectation_fails_its_batch_alone(&mut bench()).await;
    an_older_fence_fails_its_batch_alone(&mut bench()).await;
    an_unknown_device_fails_its_batch_alone(&mut bench()).await;
    what_is_too_large_fails_its_batch_alone(&mut bench()).await;
    the_newest_tags_are_given_oldest_first(&mut bench()).await;
    numbers_are_given_once(&mut bench()).await;
    devices_are_listed_in_order(&mut bench()).await;
    open_commands_are_those_not_final(&mut bench()).await;
    prekeys_come_and_go(&mut bench()).await;
    broker_records_are_found_by_prefix(&mut bench()).await;
    partitions_hold_their_own_devices(&mut bench()).await;
    a_full_queue_gives_back_and_room_is_signalled(&mut bench()).await;
    a_restart_keeps_all(&mut bench()).await;
    a_closed_store_answers_so(&mut bench()).await;
}

async fn a_reading_is_given_its_place_and_found_there(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    write(&*store, vec![Op::Device(device("a")), Op::Device(device("b"))]).await.unwrap();
    let committed = write(&*store, vec![reading("a", 0), reading("b", 0), reading("a", 1)]).await.unwrap();
    let places: Vec<_> = committed.readings.iter().map(|place| (place.offset.get(), place.prev.get())).collect();
    assert_eq!(places, [(1, 0), (2, 0), (3, 1)]);
    assert_eq!(store.committed(Partition::new(0)).borrow().get(), 3);
    let history = store.history(&id("a"), Offset::ZERO, ALL).await.unwrap();
    let expected = |offset, prev, n: u32| Reading {
        partition: Partition::new(0),
        offset: Offset::new(offset),
        prev: Offset::new(prev),
        uplink: uplink("a", &format!("a {n}")),
    };
    assert_eq!((history.rows, history.more), (vec![expected(1, 0, 0), expected(3, 1, 1)], false));
    let log = store.log(Partition::new(0), Offset::new(1), ALL).await.unwrap();
    assert_eq!(offsets(&log.rows), [2, 3]);
    assert_eq!(log.rows[0].uplink.device, id("b"));
    let receipt = UplinkKind::Receipt { command: CommandId::new([9; 16]), status: ReceiptStatus::Failed };
    for (n, kind) in [receipt, UplinkKind::Event, UplinkKind::Ignored].into_iter().enumerate() {
        let bare = Uplink {
            kind,
            name: "".into(),
            device_time: None,
            reading_id: None,
            body: Bytes::new(),
            ..uplink("b", "")
        };
        write(&*store, vec![Op::Reading { tag: tag(9), uplink: bare.clone() }]).await.unwrap();
        let row = store.history(&id("b"), Offset::new(3 + n as u64), ALL).await.unwrap().rows.remove(0);
        assert_eq!(row.uplink, bare);
    }
}

async fn a_batch_is_written_whole_or_not_at_all(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    write(&*store, vec![Op::Device(device("a"))]).await.unwrap();
    let mut refused = vec![
        reading("a", 0),
        session("a", 0, "whole"),
        Op::Peer { device: id("a"), bytes: Bytes::from_static(b"peer") },
        Op::Command(command("a", 1, CommandState::Queued)),
        Op::Broker { table: BrokerTable::Retained, key: Bytes::from_static(b"t"), value: Some(Bytes::new()) },
        Op::Device(device("b")),
    ];
    refused.push(reading("nobody", 0));
    let cause = write_to(&*store, Partition::new(0), refused).await.unwrap_err();
    assert_eq!(cause, CommitError::NoDevice(id("nobody")));
    assert_eq!(store.session(&id("a")).await, Ok(None));
    assert!(store.open_commands(&id("a")).await.unwrap().is_empty());
    assert!(store.broker_records(BrokerTable::Retained, b"").await.unwrap().is_empty());
    assert_eq!(store.device(&id("b")).await, Ok(None));
    assert!(store.log(Partition::new(0), Offset::ZERO, ALL).await.unwrap().rows.is_empty());
    let committed = write(&*store, vec![reading("a", 0)]).await.unwrap();
    assert_eq!(committed.readings[0].offset.get(), 1, "the refused batch has taken no offset");
}

async fn answers_come_in_the_order_of_submission(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    write(&*store, vec![Op::Device(device("a"))]).await.unwrap();
    let (told, mut hear) = tokio::sync::mpsc::unbounded_channel();
    for n in 0..200_u32 {
        let told = told.clone();
        // Every third is refused: it keeps its place all the same.
        let op = if n % 3 == 0 { session("a", 77, "wrong") } else { reading("a", n) };
        let done = Box::new(move |result: Result<Committed, CommitError>| {
            let place = result.ok().map(|committed| committed.readings[0]);
            told.send((n, place)).unwrap();
        });
        let partition = Partition::new(0);
        store.submit(Batch { partition, fence: store.fence(partition), ops: vec![op], done }).unwrap();
    }
    let mut next = 1;
    for n in 0..200 {
        let (heard, place) = hear.recv().await.unwrap();
        assert_eq!((heard, place.is_none()), (n, n % 3 == 0));
        if let Some(place) = place {
            assert_eq!((place.offset.get(), place.prev.get()), (next, next - 1));
            next += 1;
        }
    }
}

async fn pages_end_at_their_limits(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    write(&*store, vec![Op::Device(device("a")), Op::Device(device("b"))]).await.unwrap();
    for n in 0..5 {
        write(&*store, vec![reading("a", n), reading("b", n)]).await.unwrap();
    }
    let limit = |rows, bytes| Limit { rows, bytes };
    let page = store.history(&id("a"), Offset::ZERO, limit(2, usize::MAX)).await.unwrap();
    assert_eq!((offsets(&page.rows), page.more), (vec![1, 3], true));
    let page = store.history(&id("a"), Offset::new(3), limit(3, usize::MAX)).await.unwrap();
    assert_eq!((offsets(&page.rows), page.more), (vec![5, 7, 9], false));
    let page = store.history(&id("a"), Offset::new(4), limit(1, usize::MAX)).await.unwrap();
    assert_eq!((offsets(&page.rows), page.more), (vec![5], true), "an offset between two rows");
    // A body has 3 bytes.
    let page = store.history(&id("a"), Offset::ZERO, limit(9, 7)).await.unwrap();
    assert_eq!((offsets(&page.rows), page.more), (vec![1, 3], true));
    let page = store.log(Partition::new(0), Offset::new(8), limit(9, 0)).await.unwrap();
    assert_eq!((offsets(&page.rows), page.more), (vec![9], true), "one row, however large");
    let page = store.log(Partition::new(0), Offset::new(10), ALL).await.unwrap();
    assert_eq!((offsets(&page.rows), page.more), (vec![], false));
    let page = store.newest(&id("b"), limit(2, usize::MAX)).await.unwrap();
    assert_eq!((offsets(&page.rows), page.more), (vec![10, 8], true));
    let page = store.history(&id("nobody"), Offset::ZERO, ALL).await.unwrap();
    assert_eq!((offsets(&page.rows), page.more), (vec![], false));
}

async fn newest_leaves_out_what_nobody_is_shown(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    let ignored = Uplink { kind: UplinkKind::Ignored, ..uplink("a", "") };
    let ignored = Op::Reading { tag: tag(1), uplink: ignored };
    write(&*store, vec![Op::Device(device("a")), reading("a", 0), ignored, reading("a", 2)]).await.unwrap();
    assert_eq!(offsets(&store.newest(&id("a"), ALL).await.unwrap().rows), [3, 1]);
    assert_eq!(offsets(&store.history(&id("a"), Offset::ZERO, ALL).await.unwrap().rows), [1, 2, 3]);
    assert_eq!(store.session(&id("a")).await.unwrap().unwrap().recent, [tag(0), tag(1), tag(2)]);
}

async fn sessions_keep_their_parts_and_their_version(bench: &mut impl Bench) {
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

async fn a_rotated_session_becomes_the_previous_one(bench: &mut impl Bench) {
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
    let ops = vec![rotate(4), session("a", 5, "w3"), chain("a", Slot::Previous, Lane::Receive, 6, "r2")];
    write(&*store, ops).await.unwrap();
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

async fn a_wrong_expectation_fails_its_batch_alone(bench: &mut impl Bench) {
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

async fn an_older_fence_fails_its_batch_alone(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    write(&*store, vec![Op::Device(device("a"))]).await.unwrap();
    let held = store.fence(Partition::new(0));
    let (mut stale, answer) = batch(&*store, Partition::new(0), vec![reading("a", 0)]);
    stale.fence = Fence::new(held.get() - 1);
    store.submit(stale).unwrap();
    let found = Fence::new(held.get() - 1);
    assert_eq!(answer.await.unwrap().unwrap_err(), CommitError::Fenced { found, held });
    assert!(write(&*store, vec![reading("a", 0)]).await.is_ok());
}

async fn an_unknown_device_fails_its_batch_alone(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    let prekey =
        PrekeyRecord { kind: PrekeyKind::OneTime(id("a")), id: 1, created_at: UnixTime::EPOCH, secret: Bytes::new() };
    for op in [
        reading("a", 0),
        session("a", 0, "w"),
        chain("a", Slot::Present, Lane::Send, 0, "s"),
        Op::Rotate { device: id("a"), expect: Version::new(0) },
        Op::Peer { device: id("a"), bytes: Bytes::new() },
        Op::Command(command("a", 1, CommandState::Queued)),
        Op::Prekey(PrekeyChange::Put(prekey)),
    ] {
        assert_eq!(write(&*store, vec![op]).await.unwrap_err(), CommitError::NoDevice(id("a")));
    }
    let delete = PrekeyChange::Delete { kind: PrekeyKind::OneTime(id("a")), id: 1 };
    assert!(write(&*store, vec![Op::Prekey(delete)]).await.is_ok(), "what is not there is no error");
    // Enrolled and used in one batch.
    assert!(write(&*store, vec![Op::Device(device("a")), reading("a", 0)]).await.is_ok());
}

async fn what_is_too_large_fails_its_batch_alone(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    write(&*store, vec![Op::Device(device("a"))]).await.unwrap();
    let long = chain("a", Slot::Present, Lane::Send, 0, &"x".repeat(49));
    let refused = write(&*store, vec![long]).await.unwrap_err();
    assert_eq!(refused, CommitError::TooLarge { what: "a chain's bytes", found: 49, max: 48 });
    assert!(write(&*store, vec![chain("a", Slot::Present, Lane::Send, 0, &"x".repeat(48))]).await.is_ok());
    let key = |len| Op::Broker { table: BrokerTable::Retained, key: vec![b'x'; len].into(), value: Some(Bytes::new()) };
    assert!(matches!(write(&*store, vec![key(65_535)]).await, Err(CommitError::TooLarge { found: 65_535, .. })));
    assert!(write(&*store, vec![key(65_534)]).await.is_ok());
}

async fn the_newest_tags_are_given_oldest_first(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    write(&*store, vec![Op::Device(device("a")), Op::Device(device("b"))]).await.unwrap();
    let rows = RECENT_TAGS as u32 + 8;
    for n in 0..rows {
        write(&*store, vec![reading("a", n), reading("b", 1000 + n)]).await.unwrap();
    }
    let expected: Vec<MessageTag> = (8..rows).map(tag).collect();
    assert_eq!(store.session(&id("a")).await.unwrap().unwrap().recent, expected);
}

async fn numbers_are_given_once(bench: &mut impl Bench) {
    let store = bench.open(2).await;
    let mut numbers = Vec::new();
    for n in 0..20 {
        let new = device(&format!("device-{n}"));
        write(&*store, vec![Op::Device(new.clone())]).await.unwrap();
        let stored = store.device(&new.id).await.unwrap().unwrap();
        assert_eq!(Device { number: stored.number, ..new }, stored);
        numbers.push(stored.number);
    }
    let first = numbers[0];
    // A known device keeps its number, whatever the record says.
    let revoked = Standing::Revoked { at: UnixTime::from_s(5) };
    let changed = Device { number: DeviceNumber::new(9999), standing: revoked, ..device("device-0") };
    write(&*store, vec![Op::Device(changed.clone())]).await.unwrap();
    let stored = store.device(&changed.id).await.unwrap().unwrap();
    assert_eq!(stored, Device { number: first, ..changed });
    store.close().await;
    drop(store);
    let store = bench.open(2).await;
    for n in 20..30 {
        let new = device(&format!("device-{n}"));
        write(&*store, vec![Op::Device(new.clone())]).await.unwrap();
        numbers.push(store.device(&new.id).await.unwrap().unwrap().number);
    }
    let given = numbers.len();
    numbers.sort_by_key(|number| number.get());
    numbers.dedup();
    assert_eq!(numbers.len(), given);
}

async fn devices_are_listed_in_order(bench: &mut impl Bench) {
    let store = bench.open(3).await;
    let names = ["delta", "alpha", "echo", "charlie", "bravo", "alpha-2"];
    for name in names {
        write(&*store, vec![Op::Device(device(name))]).await.unwrap();
    }
    let listed = |page: &crate::Page<Device>| page.rows.iter().map(|device| device.id.to_string()).collect::<Vec<_>>();
    let first = store.devices(None, 4).await.unwrap();
    assert_eq!(
        (listed(&first), first.more),
        (["alpha", "alpha-2", "bravo", "charlie"].map(String::from).to_vec(), true)
    );
    let rest = store.devices(Some(&id("charlie")), 4).await.unwrap();
    assert_eq!((listed(&rest), rest.more), (["delta", "echo"].map(String::from).to_vec(), false));
}

async fn open_commands_are_those_not_final(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    write(&*store, vec![Op::Device(device("a")), Op::Device(device("b"))]).await.unwrap();
    let states = [
        CommandState::Queued,
        CommandState::Sent,
        CommandState::Delivered,
        CommandState::Answered(ReceiptStatus::Accepted),
        CommandState::Answered(ReceiptStatus::Done),
        CommandState::Expired,
    ];
    let commands: Vec<Command> = states.into_iter().zip(1..).map(|(state, n)| command("a", n, state)).collect();
    for command in &commands {
        write(&*store, vec![Op::Command(command.clone())]).await.unwrap();
        assert_eq!(store.command(&id("a"), &command.id).await.unwrap().as_ref(), Some(command));
    }
    write(&*store, vec![Op::Command(command("b", 9, CommandState::Queued))]).await.unwrap();
    let mut expected: Vec<Command> = commands[..4].to_vec();
    // The helper makes later numbers older.
    expected.reverse();
    assert_eq!(store.open_commands(&id("a")).await.unwrap(), expected);
    for command in &commands[..3] {
        let answered = Command { state: CommandState::Answered(ReceiptStatus::Failed), ..command.clone() };
        write(&*store, vec![Op::Command(answered.clone())]).await.unwrap();
        assert_eq!(store.command(&id("a"), &command.id).await.unwrap(), Some(answered), "it stays readable");
    }
    assert_eq!(store.open_commands(&id("a")).await.unwrap(), commands[3..4]);
    assert_eq!(store.command(&id("a"), &CommandId::new([99; 16])).await.unwrap(), None);
}

async fn prekeys_come_and_go(bench: &mut impl Bench) {
    let store = bench.open(2).await;
    write(&*store, vec![Op::Device(device("a"))]).await.unwrap();
    write(&*store, vec![Op::Device(device("b"))]).await.unwrap();
    let prekey = |kind, id: u32| PrekeyRecord {
        kind,
        id,
        created_at: UnixTime::from_s(u64::from(id)),
        secret: Bytes::from(vec![id as u8; 32]),
    };
    let (signed, own, other) = (PrekeyKind::Signed, PrekeyKind::OneTime(id("a")), PrekeyKind::OneTime(id("b")));
    for (kind, number) in [(signed, 2), (signed, 1), (own, 3), (other, 4)] {
        write(&*store, vec![Op::Prekey(PrekeyChange::Put(prekey(kind, number)))]).await.unwrap();
    }
    let held = store.prekeys(&id("a")).await.unwrap();
    assert_eq!(held, [prekey(signed, 1), prekey(signed, 2), prekey(own, 3)]);
    for (kind, number) in [(signed, 1), (own, 3), (own, 77)] {
        write(&*store, vec![Op::Prekey(PrekeyChange::Delete { kind, id: number })]).await.unwrap();
    }
    assert_eq!(store.prekeys(&id("a")).await.unwrap(), [prekey(signed, 2)]);
    assert_eq!(store.prekeys(&id("b")).await.unwrap(), [prekey(signed, 2), prekey(other, 4)]);
}

async fn broker_records_are_found_by_prefix(bench: &mut impl Bench) {
    let store = bench.open(2).await;
    let put = |table, key: &'static [u8], value: Option<&'static [u8]>| Op::Broker {
        table,
        key: Bytes::from_static(key),
        value: value.map(Bytes::from_static),
    };
    let ops = vec![
        put(BrokerTable::Retained, b"a/b", Some(b"1")),
        put(BrokerTable::Retained, b"a/a", Some(b"2")),
        put(BrokerTable::Retained, b"b", Some(b"")),
        put(BrokerTable::Retained, b"\xff\xff", Some(b"4")),
        put(BrokerTable::Queued, b"a/c", Some(b"5")),
    ];
    write(&*store, ops).await.unwrap();
    write_to(&*store, Partition::new(1), vec![put(BrokerTable::Retained, b"a/aa", Some(b"6"))]).await.unwrap();
    let found = async |table, prefix: &[u8]| -> Vec<(Vec<u8>, Vec<u8>)> {
        let records = store.broker_records(table, prefix).await.unwrap();
        records.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    };
    let row = |key: &[u8], value: &[u8]| (key.to_vec(), value.to_vec());
    assert_eq!(found(BrokerTable::Retained, b"a/").await, [row(b"a/a", b"2"), row(b"a/aa", b"6"), row(b"a/b", b"1")]);
    assert_eq!(found(BrokerTable::Retained, b"\xff").await, [row(b"\xff\xff", b"4")]);
    assert_eq!(found(BrokerTable::Queued, b"").await, [row(b"a/c", b"5")]);
    assert_eq!(found(BrokerTable::Sessions, b"").await, []);
    write(&*store, vec![put(BrokerTable::Retained, b"a/a", None), put(BrokerTable::Retained, b"b", Some(b"7"))])
        .await
        .unwrap();
    let all = [row(b"a/aa", b"6"), row(b"a/b", b"1"), row(b"b", b"7"), row(b"\xff\xff", b"4")];
    assert_eq!(found(BrokerTable::Retained, b"").await, all);
}

async fn partitions_hold_their_own_devices(bench: &mut impl Bench) {
    let store = bench.open(2).await;
    let mut held = [Vec::new(), Vec::new()];
    for n in 0..20 {
        let new = device(&format!("device-{n}"));
        held[usize::from(store.partition_of(&new.id).get())].push(new.id);
        write(&*store, vec![Op::Device(new.clone()), reading(new.id.as_str(), n)]).await.unwrap();
    }
    for (partition, devices) in (0..2).map(Partition::new).zip(&held) {
        assert!(!devices.is_empty());
        let log = store.log(partition, Offset::ZERO, ALL).await.unwrap();
        assert_eq!(log.rows.iter().map(|row| row.uplink.device).collect::<Vec<_>>(), *devices);
        assert_eq!(offsets(&log.rows), (1..=devices.len() as u64).collect::<Vec<_>>(), "a sequence of its own");
    }
    let (stranger, holds) = (held[1][0], Partition::new(1));
    let refused = write_to(&*store, Partition::new(0), vec![Op::Device(device(stranger.as_str()))]).await.unwrap_err();
    assert_eq!(refused, CommitError::OtherPartition { device: stranger, found: Partition::new(0), holds });
}

async fn a_full_queue_gives_back_and_room_is_signalled(bench: &mut impl Bench) {
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

async fn a_restart_keeps_all(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    let ops = vec![
        Op::Device(device("a")),
        session("a", 0, "w1"),
        chain("a", Slot::Present, Lane::Send, 1, "s1"),
        Op::Peer { device: id("a"), bytes: Bytes::from_static(b"peer") },
        reading("a", 0),
        reading("a", 1),
        Op::Command(command("a", 1, CommandState::Queued)),
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
        store.broker_records(BrokerTable::Sessions, b"").await.unwrap(),
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
        store.broker_records(BrokerTable::Sessions, b"").await.unwrap(),
        store.epoch(),
    );
    assert_eq!(before, after);
    assert!(store.fence(Partition::new(0)) > fence, "a batch of the life before is refused");
    assert_eq!(store.committed(Partition::new(0)).borrow().get(), 2);
    let ops = vec![chain("a", Slot::Present, Lane::Receive, 2, "r1"), reading("a", 2)];
    let committed = write(&*store, ops).await.unwrap();
    assert_eq!((committed.readings[0].offset.get(), committed.readings[0].prev.get()), (3, 2));
}

async fn a_closed_store_answers_so(bench: &mut impl Bench) {
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
