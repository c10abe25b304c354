//! What every engine must do. Each engine's tests run [`hold`] over themselves.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use unhidra_core::command::{By, Command, Ended, Ending, Life, Stage};
use unhidra_core::device::{Device, Fingerprint, Standing};
use unhidra_core::ids::{CommandId, DeviceId, DeviceNumber, Fence, Offset, Partition, Version};
use unhidra_core::message::{Reading, ReceiptStatus, Uplink, UplinkKind};
use unhidra_core::setting::{Acknowledged, Setting};
use unhidra_core::suite::Suite;
use unhidra_core::time::UnixTime;

use crate::{
    Batch, BoxFuture, BrokerTable, CommitError, Committed, Full, Health, Lane, LeftOut, Limit, MessageTag, Op,
    PrekeyChange, PrekeyKind, PrekeyRecord, RECENT_TAGS, ReadError, Slot, Store, StoredSession, Unit,
};

mod acts;
mod life;
mod records;
mod retention;
mod sessions;
pub(crate) mod told;

/// An engine under test, and a folder of its own.
pub(crate) trait Bench {
    /// A store with as many partitions over the same data, as after a restart of the node.
    fn open(&mut self, partitions: u16) -> BoxFuture<'_, Arc<dyn Store>>;

    /// Takes one row of a store that is closed away, as damage would.
    fn damage(&mut self, device: &DeviceId, offset: Offset);

    /// Makes the present session of a device of a store that is closed a record that does not read.
    fn damage_session(&mut self, device: &DeviceId);
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
    (Batch { partition, fence: store.fence(partition), ops, unit: Unit::Batch, done }, answered)
}

/// Submits and waits for the answer.
pub(crate) async fn write(store: &dyn Store, ops: Vec<Op>) -> Result<Committed, CommitError> {
    let partition = ops.iter().find_map(Op::device).map_or(Partition::new(0), |device| store.partition_of(device));
    write_to(store, partition, ops).await
}

async fn write_to(store: &dyn Store, partition: Partition, ops: Vec<Op>) -> Result<Committed, CommitError> {
    let (batch, answered) = batch(store, partition, ops);
    store.submit(batch).unwrap();
    answered.await.unwrap()
}

fn session(name: &str, expect: u32, whole: &str) -> Op {
    let whole = Bytes::copy_from_slice(whole.as_bytes());
    Op::Session { device: id(name), slot: Slot::Present, expect: Version::new(expect), whole }
}

fn chain(name: &str, slot: Slot, lane: Lane, expect: u32, delta: &str) -> Op {
    let delta = Bytes::copy_from_slice(delta.as_bytes());
    Op::Chain { device: id(name), slot, lane, expect: Version::new(expect), delta }
}

pub(crate) fn command(name: &str, n: u8, stage: Stage) -> Command {
    Command {
        id: CommandId::new([n; 16]),
        device: id(name),
        name: "reboot".into(),
        body: Bytes::from_static(b"now"),
        created_at: UnixTime::from_s(u64::from(100 - n)),
        expires_at: UnixTime::from_s(10_000),
        asked_by: None,
        life: Life { stage, ..Life::default() },
    }
}

pub(crate) fn over(how: Ending) -> Stage {
    Stage::Over(Ended::new(how, By::Device, "because", UnixTime::from_s(200)))
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
    sessions::sessions_keep_their_parts_and_their_version(&mut bench()).await;
    sessions::a_rotated_session_becomes_the_previous_one(&mut bench()).await;
    sessions::a_session_of_another_moment_than_its_rows_is_not_given(&mut bench()).await;
    sessions::a_wrong_expectation_fails_its_batch_alone(&mut bench()).await;
    sessions::a_wrong_expectation_stops_its_device_alone(&mut bench()).await;
    sessions::a_damaged_record_stops_its_device_alone(&mut bench()).await;
    an_older_fence_fails_its_batch_alone(&mut bench()).await;
    an_unknown_device_fails_its_batch_alone(&mut bench()).await;
    what_is_too_large_fails_its_batch_alone(&mut bench()).await;
    sessions::the_newest_tags_are_given_oldest_first(&mut bench()).await;
    records::numbers_are_given_once(&mut bench()).await;
    records::devices_are_listed_in_order(&mut bench()).await;
    told::open_commands_are_those_not_final(&mut bench()).await;
    told::commands_are_listed_by_age(&mut bench()).await;
    told::devices_that_wait_are_named_with_the_first_expiry(&mut bench()).await;
    told::a_late_receipt_is_noted_at_an_end_alone(&mut bench()).await;
    told::settings_are_the_last_by_name(&mut bench()).await;
    records::prekeys_come_and_go(&mut bench()).await;
    records::all_of_a_device_is_what_its_parts_are(&mut bench()).await;
    records::broker_records_are_read_in_pages(&mut bench()).await;
    acts::acts_are_numbered_in_their_batches_commit(&mut bench()).await;
    acts::the_oldest_act_goes_at_the_bound(&mut bench()).await;
    acts::what_is_sealed_anew_is_what_it_was(&mut bench()).await;
    partitions_hold_their_own_devices(&mut bench()).await;
    retention::a_page_of_the_log_tells_what_is_gone_before_it(&mut bench()).await;
    retention::rows_whose_time_is_over_go_and_their_newest_stay_as_stubs(&mut bench()).await;
    retention::rows_of_the_future_go_with_those_that_came_later(&mut bench()).await;
    retention::a_look_past_rows_of_the_future_goes_on_where_it_was(&mut bench()).await;
    retention::a_log_without_a_whole_row_goes_on_where_it_was(&mut bench()).await;
    retention::bounds_of_rows_and_bytes_keep_the_newest(&mut bench()).await;
    retention::much_is_trimmed_in_steps(&mut bench()).await;
    retention::a_look_begins_behind_what_is_gone(&mut bench()).await;
    retention::the_oldest_of_all_go_first(&mut bench()).await;
    retention::held_rows_are_given_back_and_all_else_goes_on(&mut bench()).await;
    retention::commands_that_are_over_are_forgotten_and_no_others(&mut bench()).await;
    life::a_full_queue_gives_back_and_room_is_signalled(&mut bench()).await;
    life::a_restart_keeps_all(&mut bench()).await;
    life::a_closed_store_answers_so(&mut bench()).await;
    life::who_waits_for_room_hears_of_the_end(&mut bench()).await;
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
        Op::Command(command("a", 1, Stage::Waiting)),
        Op::Setting(told::setting("a", "interval", 1)),
        Op::Broker { table: BrokerTable::Retained, key: Bytes::from_static(b"t"), value: Some(Bytes::new()) },
        Op::Device(device("b")),
    ];
    refused.push(reading("nobody", 0));
    let cause = write_to(&*store, Partition::new(0), refused).await.unwrap_err();
    assert_eq!(cause, CommitError::NoDevice(id("nobody")));
    assert_eq!(store.session(&id("a")).await, Ok(None));
    assert!(store.open_commands(&id("a")).await.unwrap().is_empty());
    assert!(store.settings(&id("a")).await.unwrap().is_empty());
    assert!(store.broker_records(BrokerTable::Retained, None, ALL).await.unwrap().rows.is_empty());
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
        store
            .submit(Batch { partition, fence: store.fence(partition), ops: vec![op], unit: Unit::Batch, done })
            .unwrap();
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
        Op::Command(command("a", 1, Stage::Waiting)),
        Op::Setting(told::setting("a", "interval", 1)),
        Op::Prekey(PrekeyChange::Put(prekey)),
    ] {
        assert_eq!(write(&*store, vec![op]).await.unwrap_err(), CommitError::NoDevice(id("a")));
    }
    let delete = PrekeyChange::Delete { kind: PrekeyKind::OneTime(id("a")), id: 1 };
    assert!(write(&*store, vec![Op::Prekey(delete)]).await.is_ok(), "what is not there is no error");
    let forget = Op::ForgetSetting { device: id("a"), name: "interval".parse().unwrap() };
    assert!(write(&*store, vec![forget]).await.is_ok(), "nor is this");
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
