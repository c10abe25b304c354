//! What is kept by name: devices, prekeys, the broker's records.

use super::*;
use crate::{DeviceRecords, Stored};

pub(super) async fn numbers_are_given_once(bench: &mut impl Bench) {
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

pub(super) async fn devices_are_listed_in_order(bench: &mut impl Bench) {
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

pub(super) async fn prekeys_come_and_go(bench: &mut impl Bench) {
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

pub(super) async fn all_of_a_device_is_what_its_parts_are(bench: &mut impl Bench) {
    let store = bench.open(2).await;
    let of = |name: &str| {
        let (signed, own) = (PrekeyKind::Signed, PrekeyKind::OneTime(id(name)));
        let prekey = |kind, id| {
            let (created_at, secret) = (UnixTime::from_s(1), Bytes::from_static(b"secret"));
            Op::Prekey(PrekeyChange::Put(PrekeyRecord { kind, id, created_at, secret }))
        };
        let mut ops = vec![Op::Device(device(name)), session(name, 0, name), prekey(own, 7), prekey(signed, 1)];
        ops.extend((0..4).map(|n| reading(name, n)));
        ops.extend(
            [Stage::Waiting, over(Ending::Done)].into_iter().zip(1..).map(|(s, n)| Op::Command(command(name, n, s))),
        );
        ops.push(Op::Setting(super::told::setting(name, "interval", 1)));
        ops
    };
    // So many that both partitions have some.
    let names: Vec<String> = (0..8).map(|n| format!("device-{n}")).collect();
    for name in &names {
        write(&*store, of(name)).await.unwrap();
    }
    for partition in 0..2 {
        let prekey = PrekeyRecord {
            kind: PrekeyKind::Signed,
            id: 10 + u32::from(partition),
            created_at: UnixTime::from_s(2),
            secret: Bytes::from_static(b"signed"),
        };
        write_to(&*store, Partition::new(partition), vec![Op::Prekey(PrekeyChange::Put(prekey))]).await.unwrap();
    }
    for name in &names {
        let id = id(name);
        let found = store.records(&id, 3).await.unwrap();
        assert_eq!((found.reading_ids.len(), found.commands.len(), found.settings.len()), (3, 1, 1));
        assert!(found.stored.present.is_some());
        let parts = DeviceRecords {
            stored: store.session(&id).await.unwrap().unwrap(),
            prekeys: store.prekeys(&id).await.unwrap(),
            commands: store.open_commands(&id).await.unwrap(),
            settings: store.settings(&id).await.unwrap(),
            reading_ids: store.reading_ids(&id, 3).await.unwrap(),
        };
        assert!(
            parts.prekeys.iter().any(|prekey| prekey.id == 10) && parts.prekeys.iter().any(|prekey| prekey.id == 11)
        );
        assert_eq!(found, parts);
    }
    assert_eq!(store.records(&id("nobody"), 3).await.unwrap().stored, Stored::default());
}

pub(super) async fn broker_records_are_read_in_pages(bench: &mut impl Bench) {
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
        put(BrokerTable::Outlets, b"hook/0", Some(b"8")),
        put(BrokerTable::Calendar, b"seen", Some(b"9")),
        put(BrokerTable::Unsettled, b"pump-7", Some(b"10")),
    ];
    write(&*store, ops).await.unwrap();
    write_to(&*store, Partition::new(1), vec![put(BrokerTable::Retained, b"a/aa", Some(b"6"))]).await.unwrap();
    let page = async |table, after: Option<&[u8]>, max| {
        let page = store.broker_records(table, after, max).await.unwrap();
        let rows = page.rows.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec()));
        (rows.collect::<Vec<_>>(), page.more)
    };
    let found = async |table| page(table, None, ALL).await.0;
    let row = |key: &[u8], value: &[u8]| (key.to_vec(), value.to_vec());
    let all = [row(b"a/a", b"2"), row(b"a/aa", b"6"), row(b"a/b", b"1"), row(b"b", b""), row(b"\xff\xff", b"4")];
    assert_eq!(found(BrokerTable::Retained).await, all);
    let two = Limit { rows: 2, bytes: usize::MAX };
    assert_eq!(page(BrokerTable::Retained, None, two).await, (all[..2].to_vec(), true));
    assert_eq!(page(BrokerTable::Retained, Some(b"a/aa"), two).await, (all[2..4].to_vec(), true));
    assert_eq!(page(BrokerTable::Retained, Some(b"b"), two).await, (all[4..].to_vec(), false));
    let bytes = Limit { rows: usize::MAX, bytes: 9 };
    assert_eq!(page(BrokerTable::Retained, Some(b"a"), bytes).await, (all[..2].to_vec(), true));
    assert_eq!(found(BrokerTable::Queued).await, [row(b"a/c", b"5")]);
    assert_eq!(found(BrokerTable::Outlets).await, [row(b"hook/0", b"8")]);
    assert_eq!(found(BrokerTable::Calendar).await, [row(b"seen", b"9")]);
    assert_eq!(found(BrokerTable::Unsettled).await, [row(b"pump-7", b"10")]);
    assert_eq!(found(BrokerTable::Sessions).await, []);
    write(&*store, vec![put(BrokerTable::Retained, b"a/a", None), put(BrokerTable::Retained, b"b", Some(b"7"))])
        .await
        .unwrap();
    let all = [row(b"a/aa", b"6"), row(b"a/b", b"1"), row(b"b", b"7"), row(b"\xff\xff", b"4")];
    assert_eq!(found(BrokerTable::Retained).await, all);
}
