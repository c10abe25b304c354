//! A damaged record of every kind.

use unhidra_core::ids::DeviceNumber;

use super::*;
use crate::contract::told;
use crate::ledger::Writes;
use crate::record;
use crate::table::{Key, Part};
use crate::{PrekeyChange, PrekeyKind};

/// One record of every kind, beside those of [`folder`].
async fn full() -> (tempfile::TempDir, PathBuf) {
    let (kept, path) = folder().await;
    let store = open(&path);
    let prekey = |kind, id| {
        let secret = Bytes::from_static(b"secret");
        Op::Prekey(PrekeyChange::Put(PrekeyRecord { kind, id, created_at: ACCEPTED_AT, secret }))
    };
    let kept_for = |table| Op::Broker { table, key: Bytes::from_static(b"k"), value: Some(Bytes::from_static(b"v")) };
    let ops = vec![
        prekey(PrekeyKind::Signed, 1),
        prekey(PrekeyKind::OneTime(id("a")), 2),
        Op::Peer { device: id("a"), bytes: Bytes::from_static(b"peer") },
        Op::Setting(told::setting("a", "interval", 1)),
        Op::Act(Act::new(ACCEPTED_AT, "uid 1", Deed::AddUser, "ann")),
        Op::Act(Act::new(ACCEPTED_AT, "uid 1", Deed::RemoveUser, "ann")),
    ];
    write(&*store, ops.into_iter().chain(BrokerTable::ALL.map(kept_for)).collect()).await.unwrap();
    store.close().await;
    drop(store);
    assert_eq!(look(&path, false).found, 0);
    (kept, path)
}

/// Where a record of every kind stands, and a value that opens and does not read.
fn unreadable() -> Vec<(Table, Key, Vec<u8>)> {
    let number = DeviceNumber::new(1);
    let prekey = |kind, id| {
        let secret = Bytes::from_static(UNREADABLE);
        record::encode_prekey(&PrekeyRecord { kind, id, created_at: ACCEPTED_AT, secret })
    };
    let session = |part| {
        let value = record::encode_session(Version::new(5), Offset::new(5), UNREADABLE);
        (Table::Sessions, table::session(number, part), value)
    };
    let nothing_of = |table, key| (table, key, vec![0xff]);
    let mut all = vec![
        nothing_of(Table::Readings, table::reading(number, Offset::new(2))),
        session(Part::Whole(Slot::Present)),
        session(Part::Chain(Slot::Present, Lane::Receive)),
        session(Part::Peer),
        nothing_of(Table::Registry, Key::from_slice(b"a")),
        nothing_of(Table::Numbers, table::number_prefix(number)),
        nothing_of(Table::Commands, table::command(number, &CommandId::new([1; 16]))),
        (Table::Prekeys, table::signed_prekey(1), prekey(PrekeyKind::Signed, 1)),
        (Table::Prekeys, table::one_time_prekey(number, 2), prekey(PrekeyKind::OneTime(id("a")), 2)),
        nothing_of(Table::Settings, table::setting(number, &"interval".parse().unwrap())),
        nothing_of(Table::Acts, table::act(1)),
        nothing_of(Table::Acts, table::act(2)),
    ];
    all.extend(BrokerTable::ALL.map(|kept| (Table::Broker, table::broker(kept, b"k"), UNREADABLE.to_vec())));
    all
}

/// The record as it lies.
fn raw(store: &Embedded, table: Table, key: &[u8]) -> Vec<u8> {
    store.shared(Partition::new(0)).read(|view| Ok(view.raw(table, key))).unwrap()
}

fn put_raw(store: &Embedded, table: Table, key: &[u8], record: &[u8]) {
    let put = |view: &database::View<'_>| {
        view.put_raw(table, key, record);
        Ok(())
    };
    store.shared(Partition::new(0)).read(put).unwrap();
}

/// Whether a look over a closed store names this record.
fn names(path: &Path, table: Table, key: &[u8]) -> bool {
    let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let place = Place::Record { partition: Partition::new(0), table: table.name(), key };
    let verified = look(path, false);
    assert!(verified.is_complete, "{verified:?}");
    verified.findings.iter().any(|finding| finding.place == place)
}

#[tokio::test]
async fn a_damaged_record_of_every_kind_is_named() {
    let (_folder, path) = full().await;
    for (table, key, _) in unreadable() {
        let store = open(&path);
        let whole = raw(&store, table, &key);
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        put_raw(&store, table, &key, &flipped);
        store.close().await;
        drop(store);
        assert!(names(&path, table, &key), "{}", table.name());
        let store = open(&path);
        put_raw(&store, table, &key, &whole);
        store.close().await;
    }
    assert_eq!(look(&path, false).found, 0, "all is as it was");
}

#[tokio::test]
async fn a_record_of_every_kind_that_opens_and_does_not_read_is_named_and_dropped() {
    let (_folder, path) = full().await;
    for (table, key, value) in unreadable() {
        let store = open(&path);
        let whole = raw(&store, table, &key);
        let writes = Writes::from([((table, key.clone()), Some(value.into()))]);
        store.shared(Partition::new(0)).commit(&writes, true).unwrap();
        store.close().await;
        drop(store);
        let is_chain = table == Table::Sessions && key[4] == Part::Chain(Slot::Present, Lane::Receive).as_byte();
        // A session is told at its whole.
        let told =
            if is_chain { table::session(DeviceNumber::new(1), Part::Whole(Slot::Present)) } else { key.clone() };
        assert!(names(&path, table, &told), "{} {key:?}", table.name());
        let store = open(&path);
        put_raw(&store, table, &key, &whole);
        store.close().await;
    }
    let store = open(&path);
    let writes = unreadable().into_iter().map(|(table, key, value)| ((table, key), Some(value.into())));
    store.shared(Partition::new(0)).commit(&writes.collect(), true).unwrap();
    store.close().await;
    drop(store);
    assert!(look(&path, true).is_mended);
    assert_eq!(look(&path, false).found, 0);
    let store = open(&path);
    assert_eq!(store.restored(), Some(Restored::Copy));
    let acts = store.acts(Partition::new(0), 0, usize::MAX).await.unwrap().rows;
    let acts: Vec<_> = acts.iter().map(|row| (row.number, row.act.deed)).collect();
    assert_eq!(acts, [(3, Deed::AcceptLoss)], "no number is given twice");
}

/// Without its salt nothing of an opening opens: it is told, and stays.
#[tokio::test]
async fn an_opening_without_a_salt_is_named() {
    let (_folder, path) = full().await;
    let store = open(&path);
    put_raw(&store, Table::Openings, &[0; 4], b"no salt");
    store.close().await;
    drop(store);
    assert!(names(&path, Table::Openings, &[0; 4]));
}
