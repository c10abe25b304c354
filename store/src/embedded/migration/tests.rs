use std::fs;
use std::path::Path;

use bytes::Bytes;
use unhidra_core::command::{By, Ended, Ending, Stage};
use unhidra_core::ids::{CommandId, Offset};
use unhidra_core::time::UnixTime;
use zeroize::Zeroizing;

use crate::config::{self, Config};
use crate::contract::{command, device, id, tag, uplink};
use crate::embedded::{Embedded, OpenError};
use crate::{BrokerTable, Keys, Limit, LocalMaster, PrekeyKind, Store, StoredSession};

/// A folder has the partitions it was made with.
fn config() -> Config {
    Config { partitions: 0, ..config::tests::config() }
}

fn keys(name: &str) -> Keys {
    match name {
        "plain" => Keys::Plain,
        _ => Keys::sealed(LocalMaster::new(Zeroizing::new([1; 32])), UnixTime::from_s(1_800_000_000)),
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.strip_prefix('-').unwrap_or(hex).as_bytes().chunks(2);
    digits.map(|digits| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()).collect()
}

/// Makes a folder of the fixture.
fn make(name: &str, path: &Path) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1");
    let records = fs::read_to_string(fixtures.join(format!("{name}.records"))).unwrap();
    for partition in ["p0", "p1"] {
        let database = fjall::Database::builder(path.join(partition)).open().unwrap();
        let mut batch = database.batch().durability(Some(fjall::PersistMode::SyncAll));
        for line in records.lines() {
            let [of, table, key, value] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let keyspace = database.keyspace(table, fjall::KeyspaceCreateOptions::default).unwrap();
            if of == partition {
                batch.insert(&keyspace, bytes(key), bytes(value));
            }
        }
        batch.commit().unwrap();
    }
    fs::copy(fixtures.join(format!("{name}.format")), path.join("format")).unwrap();
}

fn session(whole: &'static str, receive: Option<&'static str>, send: Option<&'static str>) -> Option<StoredSession> {
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    Some(StoredSession { whole: bytes(whole), receive: receive.map(bytes), send: send.map(bytes) })
}

/// What the program of version 1 wrote.
async fn check(store: &Embedded) {
    let all = Limit { rows: usize::MAX, bytes: usize::MAX };
    for name in ["a", "b", "pump-7", "pump-8"] {
        let rows = store.history(&id(name), Offset::ZERO, all).await.unwrap().rows;
        assert_eq!(rows.len(), if name < "c" { 4 } else { 3 });
        for (n, row) in rows.iter().enumerate() {
            assert_eq!(row.uplink, uplink(name, &format!("{name} {n}")));
            assert_eq!(row.prev, n.checked_sub(1).map_or(Offset::ZERO, |before| rows[before].offset));
        }
        let found = store.device(&id(name)).await.unwrap().unwrap();
        assert_eq!(found, crate::Device { number: found.number, ..device(name) });
        assert_eq!(store.open_commands(&id(name)).await.unwrap(), [command(name, 1, Stage::Waiting)]);
        let expired = store.command(&id(name), &CommandId::new([2; 16])).await.unwrap();
        let ended = Ended::new(Ending::Expired, By::Node, "", UnixTime::from_s(10_000));
        let mut over = command(name, 2, Stage::Over(ended));
        over.life.attempts = 1;
        assert_eq!(expired, Some(over));
        let stored = store.session(&id(name)).await.unwrap().unwrap();
        assert_eq!((stored.stale, stored.newest), (false, rows[rows.len() - 1].offset));
        assert_eq!(stored.recent, (0..rows.len()).map(|n| tag(n as u32)).collect::<Vec<_>>());
        assert_eq!(stored.peer.as_deref(), Some(&b"peer"[..]));
        let (version, present, previous) = match name {
            "b" => (6, None, None),
            "a" => (6, session("second", Some("later"), Some("sent")), session("first", Some("received"), None)),
            _ => (5, session("second", None, Some("sent")), session("first", Some("received"), None)),
        };
        assert_eq!((stored.version.get(), stored.present, stored.previous), (version, present, previous), "{name}");
    }
    let asked = store.session(&id("c")).await.unwrap().unwrap();
    assert_eq!((asked.stale, asked.peer.as_deref(), asked.present), (false, Some(&b"peer"[..]), None));
    let prekeys = store.prekeys(&id("pump-7")).await.unwrap();
    let kinds: Vec<_> = prekeys.iter().map(|prekey| (prekey.kind, &prekey.secret[..])).collect();
    assert_eq!(kinds, [(PrekeyKind::Signed, &b"signed"[..]), (PrekeyKind::OneTime(id("pump-7")), &b"one-time"[..])]);
    for table in [BrokerTable::Retained, BrokerTable::Sessions, BrokerTable::Queued] {
        let records = store.broker_records(table, None, all).await.unwrap().rows;
        assert_eq!(records, [(Bytes::from_static(b"key"), Bytes::from_static(b"value"))]);
    }
}

#[tokio::test]
async fn a_folder_of_version_1_opens_and_holds_what_it_held() {
    for name in ["plain", "sealed"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        make(name, &path);
        // Twice: the second opening finds the present version.
        for _ in 0..2 {
            let store = Embedded::open(&path, &config(), keys(name)).unwrap();
            check(&store).await;
            store.close().await;
            assert!(fs::read_to_string(path.join("format")).unwrap().starts_with("unhidra store = 2\n"));
        }
    }
}

/// A crash after the records and before the format file.
#[tokio::test]
async fn a_migration_that_was_cut_off_is_done_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    make("sealed", &path);
    let before = fs::read_to_string(path.join("format")).unwrap();
    drop(Embedded::open(&path, &config(), keys("sealed")).unwrap());
    fs::write(path.join("format"), before).unwrap();
    let store = Embedded::open(&path, &config(), keys("sealed")).unwrap();
    check(&store).await;
}

#[test]
fn a_newer_version_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    make("plain", &path);
    fs::write(path.join("format"), "unhidra store = 3\nwhat it says = unknown\n").unwrap();
    let refused = Embedded::open(&path, &config(), keys("plain")).err().unwrap();
    assert!(matches!(refused, OpenError::Version { found: 3, allowed: 2, .. }));
    assert!(refused.to_string().ends_with("start it with the program that wrote it, or a newer one"), "{refused}");
}
