//! One bit of one file is flipped, over and over: a store serves what it served, or refuses and says
//! where. Nothing else is ever served.
//!
//! `FLIPS` says how many (300), `FLIPS_SEED` which. A failure prints the file, the byte and the bit.

#![allow(clippy::unwrap_used, reason = "a test stops at what goes wrong")]

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use unhidra_core::command::{Command, Life, Stage};
use unhidra_core::device::{Device, Fingerprint, Standing};
use unhidra_core::ids::{CommandId, DeviceId, DeviceNumber, Offset, Partition, Version};
use unhidra_core::message::{Uplink, UplinkKind};
use unhidra_core::suite::Suite;
use unhidra_core::time::UnixTime;
use unhidra_store::{
    Batch, BrokerTable, Config, Contents, Durability, Embedded, Keys, Lane, Limit, MessageTag, Op, OpenError,
    PrekeyChange, PrekeyKind, PrekeyRecord, ReadError, Slot, Store, StoredSession, Unit, keyfile, verify,
};

const DEVICES: u32 = 4;
const ROWS: u32 = 160;
const PARTITION: Partition = Partition::new(0);
const ALL: Limit = Limit { rows: usize::MAX, bytes: usize::MAX };

/// What is kept here for others are texts.
struct Opaque;

impl Contents for Opaque {
    fn broker(&self, _: BrokerTable, _: &[u8], _: &Bytes) -> Result<(), String> {
        Ok(())
    }

    fn session(&self, _: &StoredSession) -> Result<(), String> {
        Ok(())
    }

    fn peer(&self, _: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn prekey(&self, _: &PrekeyRecord) -> Result<(), String> {
        Ok(())
    }
}

fn config() -> Config {
    Config {
        key_file: PathBuf::new(),
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
        // Small, so that there are table files, and more than one of a tree.
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

fn keys(folder: &Path) -> Keys {
    let master = keyfile::load_or_create(&config().master_key_path(folder).unwrap(), &folder.join("store")).unwrap();
    Keys::sealed(master, UnixTime::from_s(1_800_000_000))
}

fn open(folder: &Path) -> Result<Embedded, OpenError> {
    Embedded::open(&folder.join("store"), &config(), keys(folder))
}

fn device(n: u32) -> DeviceId {
    format!("device-{n}").parse().unwrap()
}

async fn write(store: &Embedded, ops: Vec<Op>) {
    let (told, hear) = tokio::sync::oneshot::channel();
    let done = Box::new(move |result: Result<_, _>| told.send(result.map(drop)).unwrap());
    store.submit(Batch { partition: PARTITION, fence: store.fence(PARTITION), ops, unit: Unit::Batch, done }).unwrap();
    hear.await.unwrap().unwrap();
}

/// What a node writes: devices, sessions with every row, commands, prekeys, the broker's records.
async fn work(store: &Embedded) {
    for n in 0..DEVICES {
        let entry = Device {
            id: device(n),
            number: DeviceNumber::new(0),
            identity_key: [7; 32],
            certificate: Fingerprint([8; 32]),
            certificate_expires: UnixTime::EPOCH,
            suite: Suite::X3dh,
            tags: [].into(),
            class: "pump".into(),
            enrolled_at: UnixTime::EPOCH,
            standing: Standing::Enrolled,
        };
        let whole = Bytes::from(vec![9; 284]);
        let session = Op::Session { device: device(n), slot: Slot::Present, expect: Version::new(0), whole };
        let record = PrekeyRecord {
            kind: PrekeyKind::OneTime(device(n)),
            id: 1,
            created_at: UnixTime::EPOCH,
            secret: Bytes::from_static(&[3; 32]),
        };
        write(store, vec![Op::Device(entry), session, reading(n, 0), Op::Prekey(PrekeyChange::Put(record))]).await;
    }
    for row in 1..ROWS {
        for n in 0..DEVICES {
            let delta = Bytes::from(vec![row as u8; 41]);
            let (device, expect) = (device(n), Version::new(row));
            let mut ops =
                vec![Op::Chain { device, slot: Slot::Present, lane: Lane::Receive, expect, delta }, reading(n, row)];
            if row % 20 == 0 {
                ops.push(Op::Command(Command {
                    id: CommandId::new([row as u8; 16]),
                    device,
                    name: "reboot".into(),
                    body: Bytes::from_static(b"now"),
                    created_at: UnixTime::from_ms(u64::from(row)),
                    expires_at: UnixTime::from_ms(u64::from(row) + 1000),
                    asked_by: None,
                    life: Life { stage: Stage::Waiting, ..Life::default() },
                }));
            }
            if row % 10 == 0 {
                ops.push(retained(&format!("topic/{row}"), "21.5"));
            }
            write(store, ops).await;
        }
    }
}

fn retained(topic: &str, value: &str) -> Op {
    let (key, value) = (Bytes::copy_from_slice(topic.as_bytes()), Some(Bytes::copy_from_slice(value.as_bytes())));
    Op::Broker { table: BrokerTable::Retained, key, value }
}

fn reading(n: u32, number: u32) -> Op {
    let uplink = Uplink {
        device: device(n),
        kind: UplinkKind::Reading,
        name: "temperature".into(),
        device_time: None,
        received_at: UnixTime::EPOCH,
        reading_id: None,
        body: Bytes::from(format!("{number} of {n}, {}", "x".repeat(120))),
    };
    Op::Reading { tag: MessageTag { key: [1; 4], number, tag: number.to_be_bytes() }, uplink }
}

/// All a store serves, by what was asked for.
async fn export(store: &Embedded) -> BTreeMap<String, Result<String, ReadError>> {
    fn shown<T: std::fmt::Debug>(answer: Result<T, ReadError>) -> Result<String, ReadError> {
        answer.map(|answer| format!("{answer:?}"))
    }
    let mut all = BTreeMap::new();
    all.insert("log".to_owned(), shown(store.log(PARTITION, Offset::ZERO, ALL).await));
    all.insert("devices".to_owned(), shown(store.devices(None, usize::MAX).await));
    all.insert("retained".to_owned(), shown(store.broker_records(BrokerTable::Retained, None, ALL).await));
    for n in 0..DEVICES {
        let id = device(n);
        all.insert(format!("rows of {id}"), shown(store.history(&id, Offset::ZERO, ALL).await));
        all.insert(format!("newest of {id}"), shown(store.newest(&id, Limit::default()).await));
        all.insert(format!("session of {id}"), shown(store.session(&id).await));
        all.insert(format!("commands of {id}"), shown(store.open_commands(&id).await));
        all.insert(format!("prekeys of {id}"), shown(store.prekeys(&id).await));
    }
    all
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (entry, name) = (entry.as_ref().unwrap(), entry.as_ref().unwrap().file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(name)),
            false => copy_file(&entry.path(), &to.join(name)),
        }
    }
}

/// Of a journal most of the zeros behind what is in it are left out.
fn copy_file(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
    if from.extension().is_some_and(|extension| extension == "jnl") {
        let bytes = fs::read(from).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let file = fs::File::options().write(true).open(to).unwrap();
        file.set_len(bytes.len().min(end + 16) as u64).unwrap();
    }
}

fn files(folder: &Path) -> Vec<(PathBuf, usize)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(self::files(&path)),
            false => files.push((path.clone(), fs::metadata(&path).unwrap().len() as usize)),
        }
    }
    files.retain(|(_, len)| *len > 0);
    files.sort();
    files
}

/// A generator small enough to stand here: Marsaglia's xorshift, 64 bits.
struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

/// What came of a flip.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Outcome {
    /// It serves what it served.
    Same,
    /// It does not open, and says where.
    Refused,
    /// It opens, and what is damaged is refused when it is read, and named; all else is the same.
    RefusedAtRead,
}

async fn outcome(folder: &Path, expected: &BTreeMap<String, Result<String, ReadError>>) -> Result<Outcome, String> {
    let store = match open(folder) {
        Ok(store) => store,
        Err(refused) => {
            return match refused {
                OpenError::Damaged { .. } | OpenError::Format { .. } | OpenError::Version { .. } => {
                    Ok(Outcome::Refused)
                }
                OpenError::OtherKey { .. } | OpenError::Keys(_) => Ok(Outcome::Refused),
                // It names the partition, and verify the place.
                OpenError::Engine { .. } => Ok(Outcome::Refused),
                other => Err(format!("refused without a place: {other}")),
            };
        }
    };
    let found = export(&store).await;
    store.close().await;
    let mut outcome = Outcome::Same;
    for (what, answer) in found {
        match answer {
            Err(ReadError::Damaged { .. }) => outcome = Outcome::RefusedAtRead,
            Err(other) => return Err(format!("{what}: {other}")),
            Ok(_) if expected[&what] == answer => {}
            Ok(served) => return Err(format!("{what} was served as {}", served.chars().take(400).collect::<String>())),
        }
    }
    Ok(outcome)
}

async fn flip_all(pristine: &Path, expected: &BTreeMap<String, Result<String, ReadError>>, flips: u64, seed: u64) {
    let place = tempfile::tempdir().unwrap();
    let files = files(&pristine.join("store"));
    let mut draws = Draws(seed | 1);
    let mut counts = BTreeMap::new();
    let mut wrong = Vec::new();
    for n in 0..flips {
        // Every file has the same chance, and every byte in it: small ones say much.
        let (path, len) = &files[draws.below(files.len())];
        let (at, bit) = (draws.below(*len), draws.below(8));
        let folder = place.path().join(n.to_string());
        copy(pristine, &folder);
        let path = folder.join(path.strip_prefix(pristine).unwrap());
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 1 << bit;
        fs::write(&path, bytes).unwrap();
        let looked = tempfile::tempdir().unwrap();
        copy(&folder, looked.path());
        let name = path.strip_prefix(&folder).unwrap().display().to_string();
        match outcome(&folder, expected).await {
            Ok(outcome) => {
                *counts.entry(outcome).or_insert(0) += 1;
                if outcome != Outcome::Same {
                    let verified = verify(
                        &looked.path().join("store"),
                        &config(),
                        keys(looked.path()),
                        None,
                        &Opaque,
                        &mut |_| (),
                    );
                    if verified.is_ok_and(|verified| verified.found == 0) {
                        wrong.push(format!("{name}, byte {at}, bit {bit}: {outcome:?}, and verify finds nothing"));
                    }
                }
            }
            Err(cause) => wrong.push(format!("{name}, byte {at} of {len}, bit {bit}: {cause}")),
        }
        fs::remove_dir_all(&folder).unwrap();
    }
    println!("{flips} flips with FLIPS_SEED={seed}: {counts:?}");
    assert!(wrong.is_empty(), "{} of {flips} with FLIPS_SEED={seed}:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn flips_of_one_bit_are_never_served() {
    let (flips, seed) = (number("FLIPS", 300), number("FLIPS_SEED", 20_261_121));
    let place = tempfile::tempdir().unwrap();
    let (folder, killed, closed) = (place.path().join("a"), place.path().join("killed"), place.path().join("closed"));
    fs::create_dir(&folder).unwrap();
    let store = open(&folder).unwrap();
    work(&store).await;
    store.close().await;
    drop(store);
    let store = open(&folder).unwrap();
    write(&store, vec![retained("last", "word")]).await;
    let expected = export(&store).await;
    // The last batch of a killed node's journal cannot be told from one that is torn. This one says
    // what was said before it.
    write(&store, vec![retained("last", "word")]).await;
    copy(&folder, &killed);
    store.close().await;
    drop(store);
    copy(&folder, &closed);
    assert!(files(&closed).iter().any(|(path, _)| path.ends_with("closed")));
    assert!(files(&closed).iter().filter(|(path, _)| path.to_string_lossy().contains("/tables/")).count() > 3);
    assert_eq!(outcome(&folder, &expected).await, Ok(Outcome::Same));
    flip_all(&killed, &expected, flips / 2, seed).await;
    flip_all(&closed, &expected, flips - flips / 2, seed).await;
}
