//! What is trimmed leaves the disk: rows come at full rate, the oldest go, and the disk stays where
//! it is. `tests/soak retention` runs it for minutes.

use std::env;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};
use unhidra_core::device::{Device, Fingerprint, Standing};
use unhidra_core::ids::{DeviceId, DeviceNumber, Partition};
use unhidra_core::message::{Uplink, UplinkKind};
use unhidra_core::suite::Suite;
use unhidra_core::time::UnixTime;
use unhidra_node::config::{Purpose, Sources};
use unhidra_store::{Batch, Bounds, CommitError, Committed, Embedded, Keys, MessageTag, Op, Store, Unit};

const PARTITION: Partition = Partition::new(0);
const DEVICES: u32 = 50;
/// Rows kept of each: with 200 bytes, some 10 MB in all.
const ROWS: u64 = 1000;
const BODY: usize = 200;
/// Batches under way at once.
const WRITERS: u32 = 4;

fn device(n: u32) -> DeviceId {
    format!("device-{n}").parse().expect("an id")
}

fn registered(n: u32) -> Op {
    Op::Device(Device {
        id: device(n),
        number: DeviceNumber::new(0),
        identity_key: [1; 32],
        certificate: Fingerprint([2; 32]),
        certificate_expires: UnixTime::from_s(4_000_000_000),
        suite: Suite::X3dh,
        tags: Default::default(),
        class: String::new(),
        enrolled_at: UnixTime::EPOCH,
        standing: Standing::Enrolled,
    })
}

fn row(n: u32, number: u32) -> Op {
    let uplink = Uplink {
        device: device(n),
        kind: UplinkKind::Reading,
        name: "temperature".into(),
        device_time: None,
        received_at: UnixTime::from_s(1_800_000_000),
        reading_id: None,
        body: Bytes::from(vec![b'x'; BODY]),
    };
    Op::Reading { tag: MessageTag { key: [1; 4], number, tag: [2; 4] }, uplink }
}

async fn commit(store: &Embedded, ops: Vec<Op>) -> Result<Committed, CommitError> {
    let (answer, answered) = tokio::sync::oneshot::channel();
    let done = Box::new(move |result| drop(answer.send(result)));
    let mut batch = Batch { partition: PARTITION, fence: store.fence(PARTITION), ops, unit: Unit::Batch, done };
    let room = store.room(PARTITION);
    loop {
        let mut notified = std::pin::pin!(room.notified());
        notified.as_mut().enable();
        match store.submit(batch) {
            Ok(()) => break,
            Err(full) => batch = *full.0,
        }
        notified.await;
    }
    answered.await.expect("an answer")
}

/// Appends as fast as the store takes it, until `until`; says how many rows.
async fn write(store: Arc<Embedded>, writer: u32, until: Instant) -> u64 {
    let mut count = 0_u64;
    for number in 0_u32.. {
        if Instant::now() >= until {
            break;
        }
        let mine = (0..DEVICES).filter(|n| n % WRITERS == writer);
        let ops: Vec<Op> = mine.flat_map(|n| (0..8).map(move |nth| row(n, number * 8 + nth))).collect();
        count += ops.len() as u64;
        commit(&store, ops).await.expect("it is written");
    }
    count
}

/// Lets go what is beyond its bound, again and again; says how many rows.
async fn trim(store: Arc<Embedded>, until: Instant) -> u64 {
    let bounds = Bounds { rows: Some(ROWS), ..Bounds::default() };
    let mut tallies = vec![None; DEVICES as usize];
    let mut count = 0;
    while Instant::now() < until {
        let looks = (0..).zip(&tallies).map(|(n, tally)| {
            let store = &store;
            async move { store.overdue(&device(n), bounds, UnixTime::EPOCH, *tally, 2048).await.expect("it is read") }
        });
        let found = futures_util::future::join_all(looks).await;
        tallies = found.iter().map(|found| found.tally).collect();
        count += found.iter().flat_map(|found| &found.rows).map(|(_, rows)| rows).sum::<u64>();
        let beyond = (0..).zip(found).filter(|(_, found)| !found.trim.is_empty());
        let ops: Vec<Op> = beyond.map(|(n, found)| Op::Trim { device: device(n), trim: found.trim }).collect();
        if !ops.is_empty() {
            commit(&store, ops).await.expect("it is trimmed");
        }
    }
    count
}

#[ignore = "seconds of a disk at full rate; tests/soak retention runs it"]
#[tokio::test(flavor = "multi_thread")]
async fn the_disk_stays_where_it_is_while_rows_come_and_go() {
    let seconds = env::var("RETENTION_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let sources = Sources { purpose: Purpose::Node, file: None, set: Vec::new(), data: None, log_format: None };
    let config = sources.load().expect("the defaults").config.store;
    let folder = tempfile::tempdir().expect("a folder");
    let store = Arc::new(Embedded::open(&folder.path().join("store"), &config, Keys::Plain).expect("it opens"));
    commit(&store, (0..DEVICES).map(registered).collect()).await.expect("devices");
    let until = Instant::now() + Duration::from_secs(seconds);
    let writers: Vec<_> = (0..WRITERS).map(|writer| tokio::spawn(write(store.clone(), writer, until))).collect();
    let trimmer = tokio::spawn(trim(store.clone(), until));
    let mut samples = Vec::new();
    while Instant::now() < until {
        sleep(Duration::from_secs((seconds / 20).max(1))).await;
        let bytes = store.disk_bytes().await.expect("it is measured");
        println!("{:>4} s  {:>6} KiB on the disk", samples.len() as u64 * (seconds / 20).max(1), bytes >> 10);
        samples.push(bytes);
    }
    let mut written = 0;
    for writer in writers {
        written += writer.await.expect("a writer ends");
    }
    let trimmed = trimmer.await.expect("the trimmer ends");
    let third = samples.len() / 3;
    let most = |samples: &[u64]| samples.iter().max().copied().unwrap_or_default();
    let (middle, last) = (most(&samples[third..2 * third]), most(&samples[2 * third..]));
    println!(
        "{written} rows written ({} a second), {trimmed} trimmed, {} kept; at most {} KiB in the middle third, {} KiB in the last",
        written / seconds,
        u64::from(DEVICES) * ROWS,
        middle >> 10,
        last >> 10
    );
    assert!(trimmed * 10 > written * 8, "the trimming falls behind");
    // A journal more or less is 64 MiB; what was written meanwhile would be several times that.
    assert!(last < middle + middle / 4 + (64 << 20), "the disk fills: {middle} and then {last}");
}
