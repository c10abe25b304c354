use std::sync::Arc;

use bytes::Bytes;
use unhidra_core::command::{Ending, Stage};
use unhidra_core::ids::{CommandId, Offset, Version};
use unhidra_core::time::UnixTime;
use zeroize::Zeroizing;

use super::*;
use crate::LocalMaster;
use crate::config::tests::config;
use crate::contract::{self, device, id, reading, write};
use crate::table;
use crate::{Lane, Limit, Op, Readable, Restored, Slot, Store};

mod contents;
mod tables;

const ALL: Limit = Limit { rows: usize::MAX, bytes: usize::MAX };

fn key() -> Keys {
    Keys::sealed(LocalMaster::new(Zeroizing::new([1; 32])), UnixTime::from_s(1_800_000_000))
}

fn open(path: &Path) -> Arc<Embedded> {
    Arc::new(Embedded::open(path, &config(), key()).unwrap())
}

/// What is kept for others: everything but these bytes reads.
struct Texts;

const UNREADABLE: &[u8] = b"unreadable";

fn read(bytes: &[u8]) -> Result<(), String> {
    if bytes == UNREADABLE { Err("it does not read".into()) } else { Ok(()) }
}

impl Contents for Texts {
    fn broker(&self, _: BrokerTable, _: &[u8], value: &Bytes) -> Result<(), String> {
        read(value)
    }

    fn session(&self, session: &StoredSession) -> Result<(), String> {
        [Some(&session.whole), session.receive.as_ref(), session.send.as_ref()]
            .into_iter()
            .flatten()
            .try_for_each(|it| read(it))
    }

    fn peer(&self, bytes: &[u8]) -> Result<(), String> {
        read(bytes)
    }

    fn prekey(&self, prekey: &PrekeyRecord) -> Result<(), String> {
        read(&prekey.secret)
    }
}

const ACCEPTED_AT: UnixTime = UnixTime::from_s(1_800_000_777);

fn look(path: &Path, accept_loss: bool) -> Verified {
    let accepted = accept_loss.then(|| Acceptance { by: "uid 7".into(), at: ACCEPTED_AT });
    verify(path, &config(), key(), accepted.as_ref(), &Texts, &mut |_| ()).unwrap()
}

/// The acts that somebody accepted a loss.
async fn acceptances(store: &Embedded) -> Vec<Act> {
    let acts = store.acts(Partition::new(0), 0, usize::MAX).await.unwrap().rows.into_iter().map(|row| row.act);
    acts.filter(|act| act.deed == Deed::AcceptLoss).collect()
}

fn row(n: u32) -> Vec<Op> {
    let delta = Bytes::from_static(b"received");
    let (device, expect) = (id("a"), Version::new(n));
    vec![Op::Chain { device, slot: Slot::Present, lane: Lane::Receive, expect, delta }, reading("a", n)]
}

/// A closed store with a device, its session, five rows and two commands.
async fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = open(&path);
    let whole = Bytes::from_static(b"session");
    let begin = Op::Session { device: id("a"), slot: Slot::Present, expect: Version::new(0), whole };
    write(&*store, vec![Op::Device(device("a")), begin, reading("a", 0)]).await.unwrap();
    for n in 1..5 {
        write(&*store, row(n)).await.unwrap();
    }
    for (n, state) in [(1, Stage::Waiting), (2, contract::over(Ending::Expired))] {
        write(&*store, vec![Op::Command(contract::command("a", n, state))]).await.unwrap();
    }
    store.close().await;
    drop(store);
    // Once more, so that the journal is as long as what is in it.
    open(&path).close().await;
    (folder, path)
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 4;
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_whole_store_is_read_to_its_last_record() {
    let (_folder, path) = folder().await;
    let mut said = Vec::new();
    let verified = verify(&path, &config(), key(), None, &Texts, &mut |line| said.push(line.to_owned())).unwrap();
    assert_eq!((verified.found, verified.is_complete, verified.is_mended), (0, true, false), "{verified:?}");
    // 5 rows and their entries, 2 of the session, the device and its number, 2 commands and an entry, 3 openings.
    assert_eq!(verified.records, 10 + 2 + 2 + 3 + 3);
    assert!(said.iter().any(|line| line == "partition 0: readings"), "{said:?}");
    assert_eq!(open(&path).restored(), None);
}

#[tokio::test]
async fn a_damaged_journal_is_named_and_what_is_whole_in_it_is_kept() {
    let (_folder, path) = folder().await;
    let journal = path.join("p0").join("0.jnl");
    // In the third row's batch or near it: a whole one follows.
    let middle = fs::metadata(&journal).unwrap().len() as usize / 2;
    flip(&journal, middle);
    let before = fs::read(&journal).unwrap();
    let refused = Embedded::open(&path, &config(), key()).err().unwrap();
    let OpenError::Damaged { file, offset, .. } = &refused else { panic!("{refused}") };
    assert_eq!(*file, journal);
    assert!((*offset as usize) <= middle && refused.to_string().contains("--accept-loss"), "{refused}");
    let verified = look(&path, false);
    assert_eq!((verified.found, verified.is_complete), (1, false), "{verified:?}");
    assert_eq!(verified.findings[0].place, Place::File { path: journal.clone(), offset: *offset });
    assert_eq!(fs::read(&journal).unwrap(), before, "nothing was changed");

    let verified = look(&path, true);
    assert!(verified.is_mended && verified.is_complete, "{verified:?}");
    let store = open(&path);
    assert_eq!(store.restored(), Some(Restored::Copy), "every device resets");
    let rows = store.history(&id("a"), Offset::ZERO, ALL).await.unwrap().rows;
    assert_eq!(rows.len(), 4, "one batch is lost");
    assert!(rows.windows(2).all(|pair| pair[1].prev == pair[0].offset));
    let [act] = &acceptances(&store).await[..] else { panic!("one act") };
    assert_eq!((&*act.by, act.at), ("uid 7", ACCEPTED_AT));
    let first = format!("damaged, and dropped; the first: {} at byte {offset}", journal.display());
    assert!(act.detail.ends_with(&first), "{}", act.detail);
    let logged = store.log(Partition::new(0), Offset::ZERO, ALL).await.unwrap().rows;
    assert_eq!(logged, rows);
    store.close().await;
    drop(store);
    assert_eq!(look(&path, false).found, 0);
}

#[tokio::test]
async fn damage_at_the_end_of_a_closed_store_is_no_torn_end() {
    let (_folder, path) = folder().await;
    let journal = path.join("p0").join("0.jnl");
    flip(&journal, fs::metadata(&journal).unwrap().len() as usize - 20);
    assert!(matches!(Embedded::open(&path, &config(), key()), Err(OpenError::Damaged { .. })));
    assert_eq!(look(&path, false).found, 1);
    // A number that still rises is under no checksum.
    let (_folder, path) = folder().await;
    let journal = path.join("p0").join("0.jnl");
    flip(&journal, 5);
    assert!(matches!(Embedded::open(&path, &config(), key()), Err(OpenError::Damaged { .. })));
    // After a crash the note is not there, and the end is torn.
    let (_folder, path) = folder().await;
    let journal = path.join("p0").join("0.jnl");
    flip(&journal, fs::metadata(&journal).unwrap().len() as usize - 20);
    fs::remove_file(path.join("p0").join("closed")).unwrap();
    assert_eq!(open(&path).history(&id("a"), Offset::ZERO, ALL).await.unwrap().rows.len(), 5);
}

/// At each step at which a walk that drops what is damaged may be stopped.
#[tokio::test]
async fn a_walk_that_was_stopped_is_ended_by_the_next() {
    let (_place, path) = folder().await;
    let at = |name: &str| path.join(name);
    // Between the two renames.
    fs::rename(at("p0"), at("p0.anew")).unwrap();
    fs::create_dir(at("p0.lost")).unwrap();
    let Err(refused) = Embedded::open(&path, &config(), key()) else { panic!("a partition is missing") };
    assert!(refused.to_string().contains("run it again"), "{refused}");
    assert_eq!((look(&path, false).found, at("p0.lost").exists()), (0, false));
    // Before them, and behind them.
    for left in ["p0.anew", "p0.lost"] {
        fs::create_dir(at(left)).unwrap();
        assert_eq!((look(&path, false).found, at(left).exists()), (0, false));
    }
}

#[tokio::test]
async fn the_lists_of_tables_and_the_format_file_are_looked_at() {
    let (_folder, path) = folder().await;
    let tree = path.join("p0").join("keyspaces").join("1");
    let accepted = Acceptance { by: "uid 7".into(), at: ACCEPTED_AT };
    for (name, at) in [("current", 3), ("current", 12), ("current", 24), ("v0", 40)] {
        let file = tree.join(name);
        flip(&file, at);
        let refused = Embedded::open(&path, &config(), key()).err().unwrap();
        assert!(matches!(refused, OpenError::Damaged { .. }), "{name} {at}: {refused}");
        assert_eq!(look(&path, false).found, 1);
        let refused = verify(&path, &config(), key(), Some(&accepted), &Texts, &mut |_| ()).unwrap_err();
        assert!(refused.to_string().contains("put a backup back"), "{refused}");
        flip(&file, at);
    }
    flip(&path.join("format"), 30);
    assert!(matches!(Embedded::open(&path, &config(), key()), Err(OpenError::Format { .. })));
    flip(&path.join("format"), 30);
    assert_eq!(look(&path, false).found, 0);
}

#[tokio::test]
async fn records_that_disagree_are_named_and_made_to_agree() {
    let (_folder, path) = folder().await;
    let store = open(&path);
    let shared = store.shared(Partition::new(0));
    let number = unhidra_core::ids::DeviceNumber::new(1);
    let row = |n| table::reading(number, Offset::new(n));
    // The second row does not open; the third is gone, and the fourth's entry, and that of the open
    // command; an entry names nothing; the device's number is nobody's.
    let mut damaged = shared.read(|view| Ok(view.raw(Table::Readings, &row(2)))).unwrap();
    damaged[20] ^= 1;
    shared
        .read(|view| {
            view.put_raw(Table::Readings, &row(2), &damaged);
            Ok(())
        })
        .unwrap();
    let command = CommandId::new([1; 16]);
    let created_at = contract::command("a", 1, Stage::Waiting).created_at;
    let gone = [
        (Table::Readings, row(3)),
        (Table::Log, table::log(Offset::new(4), number)),
        (Table::OpenCommands, table::open_command(number, created_at, &command)),
        (Table::Numbers, table::number_prefix(number)),
    ];
    let mut writes: crate::ledger::Writes = gone.into_iter().map(|key| (key, None)).collect();
    writes.insert((Table::Log, table::log(Offset::new(3), number)), Some(Bytes::new()));
    writes.insert((Table::Log, table::log(Offset::new(9), number)), Some(Bytes::new()));
    shared.commit(&writes, true).unwrap();
    store.close().await;
    drop(store);

    let verified = look(&path, false);
    assert!(verified.is_complete && !verified.is_mended);
    let found =
        |table: &str| verified.findings.iter().filter(|finding| finding.place.to_string().contains(table)).count();
    assert_eq!((found("registry/"), found("log/"), found("commands/")), (1, 2, 1), "{verified:#?}");
    assert_eq!(found("readings/"), 2, "{verified:#?}");
    assert_eq!(look(&path, false).found, verified.found, "a look changes nothing");

    assert!(look(&path, true).is_mended);
    let store = open(&path);
    let rows = store.history(&id("a"), Offset::ZERO, ALL).await.unwrap().rows;
    assert_eq!(rows.iter().map(|row| (row.offset.get(), row.prev.get())).collect::<Vec<_>>(), [(1, 0), (4, 1), (5, 4)]);
    assert_eq!(store.log(Partition::new(0), Offset::ZERO, ALL).await.unwrap().rows, rows);
    assert_eq!(store.open_commands(&id("a")).await.unwrap().len(), 1);
    assert_eq!(store.restored(), Some(Restored::Copy));
    let acts = acceptances(&store).await;
    let detail = format!("{} damaged, and dropped; the first: registry/61", verified.found);
    assert_eq!(acts.iter().map(|act| &*act.detail).collect::<Vec<_>>(), [detail]);
    store.close().await;
    drop(store);
    assert_eq!(look(&path, false).found, 0);
}

#[tokio::test]
async fn an_opening_without_its_salt_goes_with_its_records_and_once() {
    let (_folder, path) = folder().await;
    let store = open(&path);
    write(&*store, vec![Op::Device(device("b")), reading("b", 0)]).await.unwrap();
    let first = 1_u32.to_be_bytes();
    let damage = |view: &super::super::database::View<'_>| {
        let mut damaged = view.raw(Table::Openings, &first);
        damaged.truncate(20);
        view.put_raw(Table::Openings, &first, &damaged);
        Ok(())
    };
    store.shared(Partition::new(0)).read(damage).unwrap();
    store.close().await;
    drop(store);
    let told = |verified: &Verified| {
        let openings = |finding: &&Finding| finding.place.to_string().contains("openings/");
        verified.findings.iter().filter(openings).count()
    };
    assert_eq!(told(&look(&path, false)), 1);
    let verified = look(&path, true);
    assert_eq!((verified.is_mended, told(&verified)), (true, 1), "{verified:#?}");
    // Nothing is left to be accepted, and no second act says so.
    let again = look(&path, true);
    assert_eq!((again.found, again.is_mended), (0, false), "{again:#?}");
    let store = open(&path);
    assert_eq!(acceptances(&store).await.len(), 1);
    assert!(store.device(&id("a")).await.unwrap().is_none(), "it was sealed in that opening");
    assert_eq!(store.history(&id("b"), Offset::ZERO, ALL).await.unwrap().rows.len(), 1, "this was not");
}

#[tokio::test]
async fn sessions_of_another_moment_are_named_and_go() {
    let (_folder, path) = folder().await;
    let store = open(&path);
    assert_eq!(store.delete_row(&id("a"), Offset::new(5)), Ok(true));
    store.close().await;
    drop(store);
    let verified = look(&path, false);
    assert_eq!(verified.found, 1);
    assert!(verified.findings[0].place.to_string().contains("sessions/"), "{verified:?}");
    look(&path, true);
    let stored = open(&path).session(&id("a")).await.unwrap().unwrap();
    assert_eq!((stored.stale, stored.present, stored.version.get()), (false, None, 5));
    assert_eq!(look(&path, false).found, 0);
}
