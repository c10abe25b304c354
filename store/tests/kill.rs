//! A process that writes is killed, and everything it had reported as durable is there.

#![allow(clippy::unwrap_used, reason = "a test stops at what goes wrong")]

use std::collections::HashMap;
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;
use unhidra_core::device::{Device, Fingerprint, Standing};
use unhidra_core::ids::{DeviceId, DeviceNumber, Offset, Partition, Version};
use unhidra_core::message::{Uplink, UplinkKind};
use unhidra_core::suite::Suite;
use unhidra_core::time::UnixTime;
use unhidra_store::{Batch, Config, Durability, Embedded, Lane, Limit, MessageTag, Op, Slot, Store, Unit, keyfile};

const FOLDER: &str = "UNHIDRA_STORE_KILL_FOLDER";
const DEVICES: u32 = 5;
const PARTITION: Partition = Partition::new(0);

fn config() -> Config {
    Config {
        key_file: std::path::PathBuf::new(),
        master_key_file: "store.key".into(),
        master_key_command: unhidra_store::KeyCommand::default(),
        master_key_command_timeout_s: 10,
        master_key_env: String::new(),
        key_rotation_days: 90,
        key_expiry_days: 365,
        acts_max: 1000,
        partitions: 1,
        durability: Durability::Fsync,
        sync_interval_ms: 1000,
        queue_records: 4096,
        queue_bytes: 4 << 20,
        commit_records: 256,
        commit_bytes: 1 << 20,
        linger_bytes: 16 << 10,
        linger_max_ms: 12,
        reads: 2,
        cache_bytes: 4 << 20,
        // Small, so that the kills fall into flushes and compactions too.
        memtable_bytes: 64 << 10,
        readings_memtable_bytes: 64 << 10,
        readings_memtable_s: 60,
        sessions_memtable_bytes: 64 << 10,
        sessions_memtable_s: 10,
        journal_bytes: 64 << 20,
        compaction_threads: 1,
        open_files: 64,
        known_devices: 131_072,
    }
}

fn open(folder: &Path) -> Embedded {
    let config = config();
    let path = folder.join("store");
    let key = keyfile::load_or_create(&config.master_key_path(folder).unwrap(), &path).unwrap();
    Embedded::open(&path, &config, unhidra_store::Keys::sealed(key, UnixTime::from_s(1_800_000_000))).unwrap()
}

fn device(n: u32) -> DeviceId {
    format!("device-{n}").parse().unwrap()
}

/// Everything `before` held is there in `store`, each device's chain of rows is whole, and each
/// row's session write came with it.
async fn check(store: &Embedded, reported: &HashMap<u64, String>) -> u64 {
    let mut rows = HashMap::new();
    let mut after = Offset::ZERO;
    loop {
        let page = store.log(PARTITION, after, Limit::default()).await.unwrap();
        for row in &page.rows {
            assert_eq!(row.offset, after.next().unwrap(), "the log has no hole");
            after = row.offset;
            rows.insert(row.offset.get(), row.clone());
        }
        if !page.more {
            break;
        }
    }
    for (offset, body) in reported {
        let row = rows.get(offset).unwrap_or_else(|| panic!("row {offset} was reported and is gone"));
        assert_eq!(row.uplink.body, body.as_bytes());
    }
    for n in 0..DEVICES {
        let Some(stored) = store.session(&device(n)).await.unwrap() else { continue };
        let mut at = stored.newest;
        let mut count = 0;
        while at != Offset::ZERO {
            let row = &rows[&at.get()];
            assert_eq!(row.uplink.device, device(n));
            (at, count) = (row.prev, count + 1);
        }
        assert_eq!(stored.version, Version::new(count), "a row and its chain record are one write");
    }
    after.get()
}

/// Writes for as long as it lives, and reports what is durable. Run by the test below alone.
#[ignore = "the process that is killed, started by the test beside it"]
#[tokio::test]
async fn writes_until_it_is_killed() {
    let Ok(folder) = env::var(FOLDER) else { return };
    let store = open(Path::new(&folder));
    let enrolled = (0..DEVICES).map(|n| Op::Device(registry_entry(n))).collect();
    let (told, hear) = tokio::sync::oneshot::channel();
    let done = Box::new(move |result: Result<_, _>| told.send(result.is_ok()).unwrap());
    store
        .submit(Batch { partition: PARTITION, fence: store.fence(PARTITION), ops: enrolled, unit: Unit::Batch, done })
        .unwrap();
    assert!(hear.await.unwrap());
    let mut versions = Vec::new();
    for n in 0..DEVICES {
        versions.push(store.session(&device(n)).await.unwrap().unwrap_or_default().version);
    }
    let in_flight = Arc::new(Semaphore::new(64));
    for n in 0_u32.. {
        let permit = Arc::clone(&in_flight).acquire_owned().await.unwrap();
        let at = n % DEVICES;
        let version = &mut versions[at as usize];
        let body = format!("body {n} of {at}");
        let ops = vec![chain(at, *version), reading(at, n, &body)];
        *version = version.next().unwrap();
        let done = Box::new(move |result: Result<unhidra_store::Committed, _>| {
            let place = result.unwrap().readings[0];
            writeln!(std::io::stdout(), "durable {} {body}", place.offset).unwrap();
            drop(permit);
        });
        store
            .submit(Batch { partition: PARTITION, fence: store.fence(PARTITION), ops, unit: Unit::Batch, done })
            .unwrap();
    }
}

fn chain(n: u32, expect: Version) -> Op {
    let delta = Bytes::from(vec![7; 41]);
    Op::Chain { device: device(n), slot: Slot::Present, lane: Lane::Receive, expect, delta }
}

fn reading(n: u32, number: u32, body: &str) -> Op {
    let uplink = Uplink {
        device: device(n),
        kind: UplinkKind::Reading,
        name: "t".into(),
        device_time: None,
        received_at: UnixTime::EPOCH,
        reading_id: None,
        body: Bytes::copy_from_slice(body.as_bytes()),
    };
    Op::Reading { tag: MessageTag { key: [0; 4], number, tag: [0; 4] }, uplink }
}

fn registry_entry(n: u32) -> Device {
    Device {
        id: device(n),
        number: DeviceNumber::new(0),
        identity_key: [0; 32],
        certificate: Fingerprint([0; 32]),
        certificate_expires: UnixTime::EPOCH,
        suite: Suite::X3dh,
        tags: [].into(),
        class: String::new(),
        enrolled_at: UnixTime::EPOCH,
        standing: Standing::Enrolled,
    }
}

fn spawn(folder: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "writes_until_it_is_killed", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn what_was_reported_as_durable_survives_kills() {
    let folder = tempfile::tempdir().unwrap();
    let mut reported = HashMap::new();
    let mut newest = 0;
    for reports in [1, 40, 700, 3000] {
        let mut child = spawn(folder.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut heard = 0;
        while heard < reports {
            let line = lines.next().expect("the process ended by itself");
            heard += usize::from(remember(&mut reported, &line));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had said before it died; a line cut short was not said.
        lines.for_each(|line| _ = remember(&mut reported, &line));
        let store = open(folder.path());
        let found = check(&store, &reported).await;
        assert!(found > newest);
        newest = found;
        store.close().await;
    }
    assert!(reported.len() >= 3741);
}

/// Takes a report, and says whether the line was one.
fn remember(reported: &mut HashMap<u64, String>, line: &str) -> bool {
    let Some((offset, body)) = line.strip_prefix("durable ").and_then(|rest| rest.split_once(' ')) else {
        return false;
    };
    let whole = body.split_once(" of ").is_some_and(|(_, device)| device.len() == 1);
    if whole {
        let before = reported.insert(offset.parse().unwrap(), body.to_owned());
        assert_eq!(before, None, "offset {offset} was given twice");
    }
    whole
}
