use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use unhidra_core::ids::Version;
use unhidra_core::message::Uplink;
use unhidra_core::time::UnixTime;
use zeroize::Zeroizing;

use super::faults::Gate;
use super::*;
use crate::config::tests::config;
use crate::contract::{self, Bench, batch, device, id, reading, uplink, write};
use crate::table::{self, Table};
use crate::{CommitError, Fault, KeyringError, Lane, LocalMaster, Op, Restored, Slot, Unit};

mod beside;
mod boot;
mod interval;
mod pipeline;
mod ripening;

const NOW: UnixTime = UnixTime::from_s(1_800_000_000);

fn key(byte: u8) -> Keys {
    Keys::sealed(LocalMaster::new(Zeroizing::new([byte; 32])), NOW)
}

/// Commits are held as long as it is there.
struct Held<'a>(&'a Gate);

impl Gate {
    fn hold(&self) -> Held<'_> {
        self.set(|room| *room = Some(0));
        Held(self)
    }

    fn set(&self, change: impl FnOnce(&mut Option<u64>)) {
        change(&mut self.room.lock().unwrap());
        self.opened.notify_all();
    }
}

impl Held<'_> {
    /// Lets one commit go on, the one that waits or the next.
    fn let_one_pass(&self) {
        self.0.set(|room| *room = room.map(|room| room + 1));
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.set(|room| *room = None);
    }
}

impl Shared {
    /// A row as it lies.
    fn raw_row(&self, device: &DeviceId, offset: Offset) -> Vec<u8> {
        let number = self.read(|view| query::number(view, device)).unwrap().unwrap();
        self.read(|view| Ok(view.raw(Table::Readings, &table::reading(number, offset)))).unwrap()
    }

    /// Flips a bit of a row.
    fn damage_row(&self, device: &DeviceId, offset: Offset) {
        let number = self.read(|view| query::number(view, device)).unwrap().unwrap();
        let mut record = self.raw_row(device, offset);
        record[20] ^= 1;
        self.read(|view| {
            view.put_raw(Table::Readings, &table::reading(number, offset), &record);
            Ok(())
        })
        .unwrap();
    }
}

/// A folder of its own, gone with the test.
struct Folder {
    folder: tempfile::TempDir,
    keys: fn() -> Keys,
}

impl Folder {
    fn new(keys: fn() -> Keys) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), keys }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn open(&self) -> Embedded {
        self.open_with((self.keys)(), &config()).unwrap()
    }

    fn open_with(&self, keys: Keys, config: &Config) -> Result<Embedded, OpenError> {
        Embedded::open(&self.path(), config, keys)
    }
}

impl Bench for Folder {
    fn open(&mut self, partitions: u16) -> BoxFuture<'_, Arc<dyn Store>> {
        let config = Config { partitions, queue_records: 2048, ..config() };
        let store = self.open_with((self.keys)(), &config).unwrap();
        Box::pin(async move { Arc::new(store) as Arc<dyn Store> })
    }

    fn damage(&mut self, device: &DeviceId, offset: Offset) {
        assert_eq!(Self::open(self).delete_row(device, offset), Ok(true));
    }

    fn damage_session(&mut self, device: &DeviceId) {
        assert_eq!(Self::open(self).damage_session(device), Ok(()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_engine_holds_the_contract_sealed() {
    contract::hold(|| Folder::new(|| key(1))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_engine_holds_the_contract_plain() {
    contract::hold(|| Folder::new(|| Keys::Plain)).await;
}

/// Whether any file of the folder holds `text`.
fn holds(path: &Path, text: &[u8]) -> bool {
    fs::read_dir(path).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => holds(&path, text),
            false => fs::read(&path).unwrap().windows(text.len()).any(|window| window == text),
        }
    })
}

#[tokio::test]
async fn no_value_is_on_the_disk_of_a_sealed_folder() {
    for (keys, found) in [((|| key(1)) as fn() -> Keys, false), (|| Keys::Plain, true)] {
        let folder = Folder::new(keys);
        let store = folder.open();
        let secret = "SECRET-4f1d9a";
        let bytes = || Bytes::from_static(b"SECRET-4f1d9a");
        let mut command = contract::command("a", 1, unhidra_core::command::Stage::Waiting);
        command.body = bytes();
        command.name = secret.into();
        let row = Uplink { name: secret.into(), ..uplink("a", secret) };
        let act = crate::Act::new(NOW, secret, crate::Deed::AddUser, secret);
        let prekey = PrekeyRecord {
            kind: crate::PrekeyKind::Signed,
            id: 1,
            created_at: unhidra_core::time::UnixTime::EPOCH,
            secret: bytes(),
        };
        let (device_id, expect) = (id("a"), Version::new(0));
        let ops = vec![
            Op::Device(Device { class: secret.into(), ..device("a") }),
            Op::Session { device: device_id, slot: Slot::Present, expect, whole: bytes() },
            Op::Chain {
                device: device_id,
                slot: Slot::Present,
                lane: Lane::Send,
                expect: Version::new(1),
                delta: bytes(),
            },
            Op::Peer { device: device_id, bytes: bytes() },
            Op::Reading { tag: contract::tag(0), uplink: row },
            Op::Act(act),
            Op::Command(command),
            Op::Prekey(crate::PrekeyChange::Put(prekey)),
        ];
        write(&store, ops).await.unwrap();
        let kept = |table| Op::Broker { table, key: Bytes::from_static(b"k"), value: Some(bytes()) };
        write(&store, BrokerTable::ALL.map(kept).into()).await.unwrap();
        let read = store.history(&id("a"), Offset::ZERO, Limit::default()).await.unwrap();
        assert_eq!(read.rows[0].uplink.body, secret);
        assert_eq!(holds(&folder.path(), secret.as_bytes()), found, "while it is open");
        for entry in store.keyring().iter().flat_map(|ring| ring.ring().keys.clone()) {
            assert!(!holds(&folder.path(), entry.key.as_bytes()), "the key {} lies there as it is", entry.id());
        }
        assert!(found || !holds(&folder.path(), &[1; 32]), "the master key is elsewhere");
        store.close().await;
        assert_eq!(holds(&folder.path(), secret.as_bytes()), found, "and closed");
    }
}

#[tokio::test]
async fn a_folder_is_refused_under_other_keys() {
    let sealed = Folder::new(|| key(1));
    sealed.open().close().await;
    assert!(matches!(sealed.open_with(Keys::Plain, &config()), Err(OpenError::Sealed { .. })));
    let other = sealed.open_with(key(2), &config());
    assert!(matches!(other, Err(OpenError::Keys(KeyringError::Ring { .. }))));
    sealed.open().close().await;
    let plain = Folder::new(|| Keys::Plain);
    plain.open().close().await;
    assert!(matches!(plain.open_with(key(1), &config()), Err(OpenError::Plain { .. })));
    assert!(fs::read_to_string(plain.path().join("format")).unwrap().contains("\nsealing = plain\n"));
}

#[tokio::test]
async fn a_folder_of_another_version_is_refused_with_both_versions() {
    let folder = Folder::new(|| Keys::Plain);
    folder.open().close().await;
    let format = folder.path().join("format");
    let text = fs::read_to_string(&format).unwrap();
    fs::write(&format, text.replace("unhidra store = 2", "unhidra store = 3")).unwrap();
    let refused = folder.open_with(Keys::Plain, &config()).err().unwrap();
    assert!(matches!(refused, OpenError::Version { found: 3, allowed: 2, .. }), "{refused}");
    assert!(refused.to_string().contains("or a newer one"), "{refused}");
    for (from, to) in [
        ("unhidra store = 2", "unhidra store = one"),
        ("sealing = plain", "sealing = maybe"),
        ("sealing = plain", "sealing = sealed"),
        ("partitions = 1", "partitions = 0"),
        ("epoch = ", "epoch = x"),
        ("epoch", "epocha"),
    ] {
        fs::write(&format, text.replace(from, to)).unwrap();
        let refused = folder.open_with(Keys::Plain, &config()).err().unwrap();
        assert!(matches!(refused, OpenError::Format { .. }), "{to}: {refused}");
    }
    fs::write(&format, "").unwrap();
    assert!(matches!(folder.open_with(Keys::Plain, &config()), Err(OpenError::Format { .. })));
}

#[test]
fn a_folder_that_holds_something_else_is_left_alone() {
    let folder = Folder::new(|| Keys::Plain);
    fs::create_dir(folder.path()).unwrap();
    fs::write(folder.path().join("photo"), "x").unwrap();
    assert!(matches!(folder.open_with(Keys::Plain, &config()), Err(OpenError::NoStore { .. })));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_folder_half_made_is_made_again() {
    let folder = Folder::new(|| Keys::Plain);
    let draft = folder.folder.path().join("store.new").join("p0");
    fs::create_dir_all(&draft).unwrap();
    fs::write(draft.join("0.jnl"), "half").unwrap();
    fs::create_dir(folder.path()).unwrap();
    drop(folder.open());
    assert!(!folder.folder.path().join("store.new").exists());
}

#[test]
fn a_place_that_is_no_folder_names_itself() {
    let folder = Folder::new(|| Keys::Plain);
    fs::write(folder.folder.path().join("file"), "x").unwrap();
    let path = folder.folder.path().join("file").join("store");
    let refused = Embedded::open(&path, &config(), Keys::Plain).err().unwrap();
    assert!(matches!(refused, OpenError::Io { .. }), "{refused:?}");
    assert!(refused.to_string().contains(&path.display().to_string()), "{refused}");
}

#[test]
fn a_folder_in_use_is_refused() {
    let folder = Folder::new(|| key(1));
    let store = folder.open();
    assert!(matches!(folder.open_with(key(1), &config()), Err(OpenError::InUse { .. })));
    drop(store);
    drop(folder.open());
}

#[test]
fn a_folder_keeps_its_partitions() {
    let folder = Folder::new(|| Keys::Plain);
    let with = |partitions| folder.open_with(Keys::Plain, &Config { partitions, ..config() });
    assert_eq!(with(3).unwrap().partitions(), 3);
    assert!(matches!(with(2), Err(OpenError::Partitions { found: 3, configured: 2, .. })));
    assert_eq!(with(0).unwrap().partitions(), 3);
    fs::remove_dir_all(folder.path().join("p1")).unwrap();
    assert!(matches!(with(0), Err(OpenError::Engine { .. })), "a lost partition is not made anew");
}

#[test]
fn a_setting_out_of_its_bounds_is_refused_before_anything_is_made() {
    let folder = Folder::new(|| Keys::Plain);
    let refused = folder.open_with(Keys::Plain, &Config { reads: 0, ..config() });
    assert!(matches!(refused, Err(OpenError::Config(_))));
    assert!(!folder.path().exists());
}

#[tokio::test]
async fn no_two_openings_seal_alike() {
    let folder = Folder::new(|| key(1));
    let mut nonces = BTreeSet::new();
    for n in 0..3 {
        let store = folder.open();
        let ops = vec![Op::Device(device("a")), reading("a", n), reading("a", n)];
        write(&store, ops).await.unwrap();
        store.close().await;
        drop(store);
        let shared = folder.open();
        let record = |offset| shared.shared(Partition::new(0)).raw_row(&id("a"), Offset::new(offset));
        for offset in 1..=u64::from(n + 1) * 2 {
            nonces.insert(record(offset)[4..13].to_vec());
        }
    }
    assert_eq!(nonces.len(), 6, "every row has a nonce of its own");
    assert_eq!(folder.open().history(&id("a"), Offset::ZERO, Limit::default()).await.unwrap().rows.len(), 6);
}

#[tokio::test]
async fn a_failed_commit_is_answered_and_the_store_serves_again() {
    for (fault, expected) in [(Fault::NotWritten, 1), (Fault::Written, 2), (Fault::Panic, 1)] {
        let folder = Folder::new(|| key(1));
        let store = Arc::new(folder.open());
        write(&*store, vec![Op::Device(device("a")), reading("a", 0)]).await.unwrap();
        let partition = Partition::new(0);
        // The writer stands still in an answer, so that one batch waits behind the one that fails.
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (mut first, first_answer) = batch(&*store, partition, vec![reading("a", 1)]);
        let (told, hear) = tokio::sync::oneshot::channel();
        let answer = std::mem::replace(&mut first.done, Box::new(|_| ()));
        first.done = Box::new(move |result| {
            answer(result);
            told.send(()).unwrap();
            held.recv().unwrap();
        });
        store.fail_next_commit(partition, fault);
        let mut health = store.health();
        store.submit(first).unwrap();
        hear.await.unwrap();
        assert_eq!(*health.borrow(), Health::Reopening);
        assert!(matches!(first_answer.await.unwrap(), Err(CommitError::Unknown(_))));
        // One waits behind it, and its answer submits another while the store is still reopening.
        let (late, late_answer) = batch(&*store, partition, vec![reading("a", 3)]);
        let (mut behind, behind_answer) = batch(&*store, partition, vec![reading("a", 2)]);
        let answer = std::mem::replace(&mut behind.done, Box::new(|_| ()));
        let submits = Arc::clone(&store);
        behind.done = Box::new(move |result| {
            answer(result);
            submits.submit(late).unwrap();
        });
        store.submit(behind).unwrap();
        release.send(()).unwrap();
        for answer in [behind_answer, late_answer] {
            assert!(matches!(answer.await.unwrap(), Err(CommitError::Unknown(_))));
        }
        health.wait_for(|health| *health == Health::Ready).await.unwrap();
        assert_eq!(store.metrics.reopenings.get(), 1);
        assert_eq!(store.committed(partition).borrow().get(), expected);
        let committed = write(&*store, vec![reading("a", 2)]).await.unwrap();
        assert_eq!(committed.readings[0].offset.get(), expected + 1, "{fault:?}");
        assert!(!folder.path().join("p0").join("unsynced").exists());
        store.close().await;
        drop(store);
        let rows = folder.open().history(&id("a"), Offset::ZERO, Limit::default()).await.unwrap().rows;
        assert_eq!(rows.len() as u64, expected + 1);
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_reopened_says_so_and_takes_no_more() {
    let folder = Folder::new(|| key(1));
    let store = folder.open();
    write(&store, vec![Op::Device(device("a"))]).await.unwrap();
    // The folder is gone from under it: neither the mark nor the files can be written.
    fs::rename(folder.path(), folder.folder.path().join("elsewhere")).unwrap();
    store.fail_next_commit(Partition::new(0), Fault::NotWritten);
    let mut health = store.health();
    assert!(matches!(write(&store, vec![reading("a", 0)]).await, Err(CommitError::Unknown(_))));
    health.wait_for(|health| matches!(health, Health::Failed(_))).await.unwrap();
    assert_eq!(write(&store, vec![reading("a", 0)]).await.unwrap_err(), CommitError::Closed);
    assert_eq!(store.device(&id("a")).await, Err(ReadError::Unavailable));
    store.close().await;
}

#[tokio::test]
async fn journals_in_doubt_are_written_anew_at_the_next_start() {
    let folder = Folder::new(|| key(1));
    let store = folder.open();
    write(&store, vec![Op::Device(device("a")), reading("a", 0)]).await.unwrap();
    store.close().await;
    drop(store);
    let partition = folder.path().join("p0");
    let inode = || {
        let journal = fs::read_dir(&partition).unwrap().map(|entry| entry.unwrap().path());
        let journal = journal.filter(|path| path.extension().is_some_and(|extension| extension == "jnl"));
        std::os::unix::fs::MetadataExt::ino(&fs::metadata(journal.last().unwrap()).unwrap())
    };
    let before = inode();
    folder::mark_unsynced(&partition).unwrap();
    // As the power left them that failed in the middle of an earlier try.
    let half = ["0.anew", "keyspaces/0/current.anew", "keyspaces/0/v0.anew", "keyspaces/3/current.anew"];
    let half = half.map(|name| partition.join(name));
    half.iter().for_each(|copy| fs::write(copy, "half a co").unwrap());
    let store = folder.open();
    assert_ne!(inode(), before, "a file of its own");
    assert_eq!(store.history(&id("a"), Offset::ZERO, Limit::default()).await.unwrap().rows.len(), 1);
    assert!(!partition.join("unsynced").exists());
    assert_eq!(half.iter().filter(|copy| copy.exists()).count(), 0);
}

/// The engine would make it anew, and delete what the new one does not name.
#[tokio::test]
async fn a_small_file_that_is_gone_is_damage_and_costs_nothing_more() {
    let folder = Folder::new(|| key(1));
    let store = folder.open();
    write(&store, vec![Op::Device(device("a")), reading("a", 0)]).await.unwrap();
    store.close().await;
    drop(store);
    let partition = folder.path().join("p0");
    for name in ["version", "keyspaces/0/current", "keyspaces/0"] {
        let (place, away) = (partition.join(name), folder.folder.path().join("away"));
        fs::rename(&place, &away).unwrap();
        let Err(refused) = folder.open_with((folder.keys)(), &config()) else { panic!("{name}") };
        assert!(matches!(&refused, OpenError::Damaged { file, .. } if *file == place), "{refused}");
        fs::rename(&away, &place).unwrap();
    }
    let rows = folder.open().history(&id("a"), Offset::ZERO, Limit::default()).await.unwrap().rows;
    assert_eq!(rows.len(), 1);
}

#[tokio::test]
async fn a_deleted_row_is_gone_from_every_read() {
    let folder = Folder::new(|| Keys::Plain);
    let store = folder.open();
    write(&store, vec![Op::Device(device("a")), reading("a", 0), reading("a", 1)]).await.unwrap();
    assert_eq!(store.delete_row(&id("a"), Offset::new(1)), Ok(true));
    assert_eq!(store.delete_row(&id("a"), Offset::new(1)), Ok(false));
    assert_eq!(store.delete_row(&id("b"), Offset::new(1)), Ok(false));
    let page = store.log(Partition::new(0), Offset::ZERO, Limit::default()).await.unwrap();
    assert_eq!(page.rows.iter().map(|row| row.offset.get()).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn a_damaged_record_is_named_and_the_others_are_read() {
    let folder = Folder::new(|| key(1));
    let store = folder.open();
    write(&store, vec![Op::Device(device("a")), Op::Device(device("b")), reading("a", 0), reading("b", 0)])
        .await
        .unwrap();
    store.shared(Partition::new(0)).damage_row(&id("a"), Offset::new(1));
    let damaged = store.history(&id("a"), Offset::ZERO, Limit::default()).await.unwrap_err();
    assert!(matches!(&damaged, ReadError::Damaged { record, .. } if record.starts_with("readings/")), "{damaged}");
    assert_eq!(store.history(&id("b"), Offset::ZERO, Limit::default()).await.unwrap().rows.len(), 1);
    // Who reads the log as a whole is refused too; who must go on is told, and goes on.
    assert_eq!(store.log(Partition::new(0), Offset::ZERO, Limit::default()).await.unwrap_err(), damaged);
    let read = store.readable_log(Partition::new(0), Offset::ZERO, Offset::ZERO, Limit::default()).await.unwrap();
    assert_eq!(read.damaged, [crate::DamagedRow { offset: Offset::new(1), device: Some(id("a")), cause: damaged }]);
    assert_eq!(read.page.rows.iter().map(|row| row.offset.get()).collect::<Vec<_>>(), [2]);
    assert_eq!(read.reached(Offset::ZERO), Offset::new(2));
    let one = Limit { rows: 1, ..Limit::default() };
    let read = store.readable_log(Partition::new(0), Offset::ZERO, Offset::ZERO, one).await.unwrap();
    assert_eq!((read.page.rows.len(), read.page.more, read.reached(Offset::ZERO).get()), (0, true, 1));
}

/// One device's rows are read on behind those that are damaged, from any place, and from the newest back.
#[tokio::test]
async fn behind_a_damaged_row_a_devices_history_goes_on() {
    let folder = Folder::new(|| key(1));
    let store = folder.open();
    write(&store, vec![Op::Device(device("a")), Op::Device(device("b"))]).await.unwrap();
    write(&store, (0..6).map(|n| reading(if n == 2 { "b" } else { "a" }, n)).collect()).await.unwrap();
    let shared = store.shared(Partition::new(0));
    [2, 5].into_iter().for_each(|offset| shared.damage_row(&id("a"), Offset::new(offset)));
    let places = |read: &crate::Readable| {
        let rows = read.page.rows.iter().map(|row| row.offset.get()).collect::<Vec<_>>();
        (rows, read.damaged.iter().map(|row| row.offset.get()).collect::<Vec<_>>(), read.page.more)
    };
    let history = async |after, rows| {
        let max = Limit { rows, ..Limit::default() };
        places(&store.readable_history(&id("a"), Offset::new(after), max).await.unwrap())
    };
    assert_eq!(history(0, 256).await, (vec![1, 4, 6], vec![2, 5], false));
    assert_eq!(history(0, 3).await, (vec![1, 4], vec![2], true), "a page of so many places");
    assert_eq!(history(4, 1).await, (vec![], vec![5], true));
    assert_eq!(history(5, 1).await, (vec![6], vec![], false));
    let newest = store.readable_newest(&id("a"), Limit::default()).await.unwrap();
    assert_eq!(places(&newest), (vec![6, 4, 1], vec![5, 2], false));
    let of_b = store.readable_newest(&id("b"), Limit::default()).await.unwrap();
    assert_eq!(places(&of_b), (vec![3], vec![], false));
    // Who does not ask for that is refused.
    assert!(matches!(store.newest(&id("a"), Limit::default()).await, Err(ReadError::Damaged { .. })));
}

#[tokio::test]
async fn what_is_durable_is_counted() {
    let folder = Folder::new(|| Keys::Plain);
    let store = folder.open();
    write(&store, vec![Op::Device(device("a")), reading("a", 0)]).await.unwrap();
    write(&store, vec![reading("nobody", 0)]).await.unwrap_err();
    let metrics = store.metrics();
    assert_eq!((metrics.records.get(), metrics.commits.get(), metrics.refused.get()), (2, 1, 1));
    assert_eq!((metrics.queued.get(), metrics.queued_bytes.get()), (0, 0));
}

#[tokio::test]
async fn a_writer_that_panics_is_not_mistaken_for_a_slow_one() {
    let folder = Folder::new(|| Keys::Plain);
    let store = folder.open();
    let (mut first, _) = batch(&store, Partition::new(0), Vec::new());
    first.done = Box::new(|_| panic!("an answer that works, and fails"));
    let mut health = store.health();
    store.submit(first).unwrap();
    health.wait_for(|health| matches!(health, Health::Failed(_))).await.unwrap();
    assert_eq!(write(&store, Vec::new()).await.unwrap_err(), CommitError::Closed);
}

#[tokio::test]
async fn a_folder_put_back_from_a_copy_says_so_until_it_is_settled_and_its_log_lives_anew() {
    let folder = Folder::new(|| key(1));
    assert!(matches!(mark_restored(&folder.path()), Err(OpenError::NoStore { .. })));
    let store = folder.open();
    let first = store.epoch();
    assert_eq!(store.restored(), None);
    store.close().await;
    drop(store);

    let epoch = mark_restored(&folder.path()).unwrap();
    let again = mark_restored(&folder.path()).unwrap();
    assert!(first != epoch && epoch != again && first != again);
    // A node that dies before it has done what follows finds the mark again.
    for _ in 0..2 {
        let store = folder.open();
        assert_eq!((store.restored(), store.epoch()), (Some(Restored::Copy), again));
    }
    let store = folder.open();
    store.settle_restored().await.unwrap();
    assert_eq!(store.restored(), None);
    drop(store);
    let store = folder.open();
    assert_eq!((store.restored(), store.epoch()), (None, again));
}

#[test]
fn a_new_folder_is_for_its_user_alone() {
    let folder = Folder::new(|| key(1));
    drop(folder.open());
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(folder.path()).unwrap());
    assert_eq!(mode & 0o777, 0o700);
}

/// Nobody else waits for the writers, or somebody does already, whose wait for the store was given up.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_handle_may_be_dropped_by_an_answer() {
    for is_closing in [false, true] {
        let folder = Folder::new(|| Keys::Plain);
        let store = Arc::new(folder.open());
        let (told, hear) = tokio::sync::oneshot::channel();
        let fence = store.fence(Partition::new(0));
        let (handle, took) = std::sync::mpsc::channel::<Arc<Embedded>>();
        let done = Box::new(move |_| {
            drop(took.recv().unwrap());
            told.send(()).unwrap();
        });
        store.submit(Batch { partition: Partition::new(0), fence, ops: Vec::new(), unit: Unit::Batch, done }).unwrap();
        let writers = Arc::clone(&store.writers);
        if is_closing {
            let mut closing = store.close();
            let polled = std::future::poll_fn(|context| std::task::Poll::Ready(closing.as_mut().poll(context))).await;
            assert!(polled.is_pending());
            while writers.try_lock().is_ok() {
                tokio::task::yield_now().await;
            }
        }
        handle.send(store).unwrap();
        let soon = std::time::Duration::from_secs(60);
        tokio::time::timeout(soon, hear).await.expect("the writer waits for itself").unwrap();
    }
}
