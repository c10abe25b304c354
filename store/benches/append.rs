//! Durable appends a second with group commit, and the syncs of the disk beneath them.
//!
//! `cargo bench -p unhidra-store [-- SECONDS]` prints one line for each number of messages in flight.
//! Each message is what a shard submits for one: its chain record and its row of 64 bytes.

#![allow(clippy::disallowed_methods, reason = "a benchmark measures")]
#![allow(clippy::unwrap_used, reason = "a benchmark stops at what goes wrong")]

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use unhidra_core::device::{Device, Fingerprint, Standing};
use unhidra_core::ids::{DeviceId, DeviceNumber, Partition, Version};
use unhidra_core::message::{Uplink, UplinkKind};
use unhidra_core::suite::Suite;
use unhidra_core::time::UnixTime;
use unhidra_store::{Batch, Config, Durability, Embedded, Keys, Lane, LocalMaster, MessageTag, Op, Slot, Store, Unit};
use zeroize::Zeroizing;

const DEVICES: usize = 1000;
const PARTITION: Partition = Partition::new(0);

fn main() {
    let seconds = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(3);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    println!("fdatasync            {:>8.0} /s", syncs(folder.path()));
    for (sealing, keys) in [("plain", Keys::Plain), ("sealed", key())] {
        let store = Embedded::open(&folder.path().join(sealing), &config(), keys).unwrap();
        let mut versions = enrol(&store);
        for in_flight in [1, 64, 512, 4096] {
            let run = append(&store, &mut versions, in_flight, Duration::from_secs(seconds));
            println!("{sealing:<6} {in_flight:>5} in flight {run}");
        }
    }
    println!("{}", peak_memory());
}

fn key() -> Keys {
    Keys::sealed(LocalMaster::new(Zeroizing::new([7; 32])), UnixTime::from_s(1_800_000_000))
}

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
        queue_records: 65_536,
        queue_bytes: 16 << 20,
        commit_records: 4096,
        commit_bytes: 1 << 20,
        linger_bytes: 16 << 10,
        linger_max_ms: 12,
        reads: 4,
        cache_bytes: 16 << 20,
        memtable_bytes: 8 << 20,
        readings_memtable_bytes: 8 << 20,
        readings_memtable_s: 60,
        sessions_memtable_bytes: 8 << 20,
        sessions_memtable_s: 10,
        journal_bytes: 64 << 20,
        compaction_threads: 1,
        open_files: 256,
        known_devices: 131_072,
    }
}

/// The line of the process's status that says how much memory it has had at once.
fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("VmHWM: not known here").to_owned()
}

/// Syncs of 4 KiB appended to one file, a second.
fn syncs(folder: &Path) -> f64 {
    let mut file = File::create(folder.join("sync")).unwrap();
    let started = Instant::now();
    let mut count = 0;
    while started.elapsed() < Duration::from_secs(1) {
        file.write_all(&[7; 4096]).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    f64::from(count) / started.elapsed().as_secs_f64()
}

fn device(n: usize) -> DeviceId {
    format!("device-{n:04}").parse().unwrap()
}

fn enrol(store: &Embedded) -> Vec<Version> {
    let (told, hear) = mpsc::channel();
    let entry = |n| {
        Op::Device(Device {
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
        })
    };
    let ops = (0..DEVICES).map(entry).collect();
    let done = Box::new(move |result: Result<_, _>| told.send(result.is_ok()).unwrap());
    store.submit(Batch { partition: PARTITION, fence: store.fence(PARTITION), ops, unit: Unit::Batch, done }).unwrap();
    assert!(hear.recv().unwrap());
    vec![Version::default(); DEVICES]
}

struct Run {
    rate: f64,
    latencies: Vec<Duration>,
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = |share: f64| {
            let index = (self.latencies.len() as f64 * share) as usize;
            self.latencies[index.min(self.latencies.len() - 1)].as_secs_f64() * 1e3
        };
        write!(
            f,
            "{:>8.0} /s   p50 {:>7.2} ms   p99 {:>7.2} ms   max {:>7.2} ms",
            self.rate,
            at(0.5),
            at(0.99),
            at(1.0)
        )
    }
}

/// Keeps `in_flight` messages in the store's queue for a while.
fn append(store: &Embedded, versions: &mut [Version], in_flight: usize, length: Duration) -> Run {
    let (told, hear) = mpsc::channel();
    let started = Instant::now();
    let mut latencies = Vec::new();
    let mut waiting = 0;
    let mut n = 0;
    loop {
        let more = started.elapsed() < length;
        if !more && waiting == 0 {
            break;
        }
        if more && waiting < in_flight {
            submit(store, versions, n, told.clone());
            (waiting, n) = (waiting + 1, n + 1);
        } else {
            latencies.push(hear.recv().unwrap());
            waiting -= 1;
        }
        while let Ok(latency) = hear.try_recv() {
            latencies.push(latency);
            waiting -= 1;
        }
    }
    let rate = latencies.len() as f64 / started.elapsed().as_secs_f64();
    latencies.sort_unstable();
    Run { rate, latencies }
}

fn submit(store: &Embedded, versions: &mut [Version], n: usize, told: mpsc::Sender<Duration>) {
    let at = n % DEVICES;
    let uplink = Uplink {
        device: device(at),
        kind: UplinkKind::Reading,
        name: "temperature".into(),
        device_time: None,
        received_at: UnixTime::from_ms(1_700_000_000_000),
        reading_id: None,
        body: Bytes::from(vec![7; 64]),
    };
    let tag = MessageTag { key: [7; 4], number: n as u32, tag: [7; 4] };
    let (slot, lane, delta) = (Slot::Present, Lane::Receive, Bytes::from(vec![7; 41]));
    let chain = Op::Chain { device: device(at), slot, lane, expect: versions[at], delta };
    versions[at] = versions[at].next().unwrap();
    let submitted = Instant::now();
    let done = Box::new(move |result: Result<_, _>| {
        assert!(result.is_ok());
        told.send(submitted.elapsed()).unwrap();
    });
    let ops = vec![chain, Op::Reading { tag, uplink }];
    store.submit(Batch { partition: PARTITION, fence: store.fence(PARTITION), ops, unit: Unit::Batch, done }).unwrap();
}
