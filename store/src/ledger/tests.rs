use tokio::sync::oneshot;

use super::stop::Stop;
use super::*;
use crate::contract::{device, id, reading};
use crate::memory::tables::Tables;
use crate::{BrokerTable, Lane, Slot, Stored};

const FENCE: Fence = Fence::new(1);
const PARTITION: Partition = Partition::new(0);
/// Few, so that they are forgotten.
const KNOWN_MAX: usize = 2;

type Answer = oneshot::Receiver<Result<Committed, CommitError>>;

fn batch(ops: Vec<Op>) -> (Batch, Answer) {
    let (answer, answered) = oneshot::channel();
    let done = Box::new(move |result| _ = answer.send(result));
    (Batch { partition: PARTITION, fence: FENCE, ops, unit: Unit::Batch, done }, answered)
}

/// Commits all of it as one group, and gives the answers.
fn group(tables: &mut Tables, batches: Vec<Vec<Op>>) -> Vec<Result<Committed, CommitError>> {
    let mut ledger = Ledger::load(tables, PARTITION, 1, FENCE, KNOWN_MAX, 50).unwrap();
    let (batches, answers): (Vec<_>, Vec<_>) = batches.into_iter().map(batch).unzip();
    let plan = ledger.plan(tables, batches);
    tables.apply(&plan.writes);
    ledger.settle(plan, &DurableSource::new_for_storage()).give();
    answers.into_iter().map(|mut answer| answer.try_recv().unwrap()).collect()
}

fn stored(tables: &Tables) -> Stored {
    query::session(tables, &id("a")).unwrap().unwrap()
}

fn session(expect: u32, whole: &'static str) -> Op {
    let (device, expect, whole) = (id("a"), Version::new(expect), Bytes::from_static(whole.as_bytes()));
    Op::Session { device, slot: Slot::Present, expect, whole }
}

fn chain(slot: Slot, lane: Lane, expect: u32, delta: &'static str) -> Op {
    let (device, expect, delta) = (id("a"), Version::new(expect), Bytes::from_static(delta.as_bytes()));
    Op::Chain { device, slot, lane, expect, delta }
}

fn rotate(expect: u32) -> Op {
    Op::Rotate { device: id("a"), expect: Version::new(expect) }
}

#[test]
fn a_batch_sees_what_those_before_it_in_its_group_write() {
    let mut tables = Tables::new();
    let answers = group(
        &mut tables,
        vec![
            vec![Op::Device(device("a"))],
            vec![session(0, "w1"), chain(Slot::Present, Lane::Send, 1, "s1"), reading("a", 0)],
            vec![rotate(2), session(3, "w2")],
            vec![reading("a", 1)],
        ],
    );
    let rows: Vec<_> = answers.into_iter().flat_map(|answer| answer.unwrap().readings).collect();
    assert_eq!((rows[1].offset.get(), rows[1].prev.get()), (2, 1));
    let stored = stored(&tables);
    let previous = stored.previous.unwrap();
    assert_eq!((&previous.whole[..], previous.send.as_deref()), (&b"w1"[..], Some(&b"s1"[..])));
    assert_eq!((stored.version.get(), &stored.present.unwrap().whole[..]), (4, &b"w2"[..]));
}

/// Whether the rows have the first plan's writes by then or not, and with a memory of no device.
#[test]
fn a_plan_sees_what_the_one_before_it_writes() {
    for is_written in [false, true] {
        let mut tables = Tables::new();
        group(&mut tables, vec![vec![Op::Device(device("a")), session(0, "w1")]]);
        let mut ledger = Ledger::load(&tables, PARTITION, 1, FENCE, 0, 50).unwrap();
        let (moves, moved) = batch(vec![rotate(1), session(2, "w2"), reading("a", 0)]);
        let first = ledger.plan(&tables, vec![moves]);
        if is_written {
            tables.apply(&first.writes);
        }
        let mut second = ledger.empty_plan(Some(&first));
        let (old, refused) = batch(vec![session(1, "late")]);
        // Moves records that the first plan writes, and those it leaves.
        let (more, moved_on) = batch(vec![rotate(3), session(4, "w3"), reading("a", 1)]);
        ledger.add(&mut second, Some(&first), &tables, vec![old, more]);
        tables.apply(&first.writes);
        tables.apply(&second.writes);
        let source = DurableSource::new_for_storage();
        ledger.settle(first, &source).give();
        ledger.settle(second, &source).give();
        let at = |mut answer: Answer| answer.try_recv().unwrap().unwrap().readings[0];
        let ((first, second), mut refused) = ((at(moved), at(moved_on)), refused);
        assert_eq!((first.offset.get(), second.offset.get(), second.prev.get()), (1, 2, 1));
        assert!(matches!(refused.try_recv().unwrap(), Err(CommitError::Version { .. })));
        let stored = stored(&tables);
        let wholes = [stored.present, stored.previous].map(|session| session.unwrap().whole);
        assert_eq!(wholes, ["w3", "w2"], "written already: {is_written}");
        assert_eq!(ledger.newest().get(), 2);
    }
}

#[test]
fn no_more_devices_are_remembered_than_may_be() {
    let mut tables = Tables::new();
    let mut ledger = Ledger::load(&tables, PARTITION, 1, FENCE, KNOWN_MAX, 50).unwrap();
    for n in 0..10 {
        let (enrols, mut enrolled) = batch(vec![Op::Device(device(&format!("device-{n}")))]);
        let plan = ledger.plan(&tables, vec![enrols]);
        tables.apply(&plan.writes);
        ledger.settle(plan, &DurableSource::new_for_storage()).give();
        assert!(enrolled.try_recv().unwrap().is_ok());
        assert!(ledger.known.len() <= KNOWN_MAX, "{} after {n}", ledger.known.len());
    }
}

#[test]
fn a_refused_batch_leaves_nothing_for_those_behind_it() {
    let mut tables = Tables::new();
    let answers = group(
        &mut tables,
        vec![
            vec![Op::Device(device("a")), session(0, "w1")],
            vec![rotate(1), session(2, "w2"), reading("a", 0), session(77, "wrong")],
            vec![chain(Slot::Present, Lane::Receive, 1, "r1"), reading("a", 1)],
        ],
    );
    assert!(matches!(&answers[1], Err(CommitError::Version { .. })));
    assert_eq!(answers[2].as_ref().unwrap().readings[0].offset.get(), 1);
    let stored = stored(&tables);
    assert_eq!((stored.version.get(), stored.previous), (2, None));
    assert_eq!(stored.present.unwrap().receive.as_deref(), Some(&b"r1"[..]));
}

/// The commit could not seal it, and a commit that fails reopens the store.
#[test]
fn a_record_whose_kind_has_no_tag_is_refused_before_the_commit() {
    let tables = Tables::new();
    let ledger = Ledger::load(&tables, PARTITION, 1, FENCE, KNOWN_MAX, 50).unwrap();
    let plan = ledger.plan(&tables, Vec::new());
    let none = BTreeMap::new();
    let mut draft = Draft::new(&ledger, &tables, (&plan, None), &[], &none);
    for (table, key) in [(Table::Broker, &[99, 1][..]), (Table::Sessions, &[0, 0, 0, 1, 9]), (Table::Prekeys, &[])] {
        let Err(Stop::Refused(refused)) = draft.put(table, Key::from_slice(key), Vec::new()) else {
            panic!("{table:?}")
        };
        assert!(matches!(refused, CommitError::NoKind { .. }) && refused.to_string().contains(table.name()));
    }
    assert!(
        draft.put(Table::Log, Key::from_slice(&[0; 12]), Vec::new()).is_ok(),
        "where the key says all there is no tag"
    );
}

#[test]
fn what_has_no_kind_is_not_sealed_anew() {
    let mut tables = Tables::new();
    let place = (Table::Broker, Key::from_slice(&[99, 1]));
    tables.apply(&Writes::from([(place.clone(), Some(Bytes::from_static(b"old")))]));
    let names = vec![crate::RecordName { table: place.0, key: place.1 }];
    let answers = group(&mut tables, vec![vec![Op::Reseal(names)]]);
    assert!(answers[0].is_ok(), "{answers:?}");
}

#[test]
fn a_rotation_leaves_nothing_of_what_was_the_previous_session() {
    let mut tables = Tables::new();
    let ops = vec![
        Op::Device(device("a")),
        session(0, "w1"),
        chain(Slot::Present, Lane::Receive, 1, "r1"),
        chain(Slot::Present, Lane::Send, 2, "s1"),
        rotate(3),
    ];
    group(&mut tables, vec![ops]).remove(0).unwrap();
    assert!(stored(&tables).previous.is_some());
    // There is no present session now, so the next rotation has none to move.
    group(&mut tables, vec![vec![rotate(4)]]).remove(0).unwrap();
    assert_eq!((stored(&tables).present, stored(&tables).previous, stored(&tables).version.get()), (None, None, 5));
    // And no chain of the old session comes back with a new one.
    group(&mut tables, vec![vec![session(5, "w2"), rotate(6)]]).remove(0).unwrap();
    let previous = stored(&tables).previous.unwrap();
    assert_eq!((&previous.whole[..], previous.receive, previous.send), (&b"w2"[..], None, None));
}

/// What an honest bridge writes, in whatever order, grouping and batching: its records are always of
/// the moment of its rows.
#[test]
fn no_honest_history_makes_a_session_stale() {
    let ops = proptest::collection::vec(0..8_u8, 0..6);
    let groups = proptest::collection::vec(proptest::collection::vec(ops, 1..4), 1..12);
    proptest::proptest!(|(groups in groups)| {
        let mut tables = Tables::new();
        group(&mut tables, vec![vec![Op::Device(device("a"))]]).remove(0).unwrap();
        let mut version = 0;
        for batches in groups {
            let batches = batches.iter().map(|ops| ops.iter().map(|op| honest(*op, &mut version)).collect());
            for answer in group(&mut tables, batches.collect()) {
                answer.unwrap();
            }
            let stored = query::session(&tables, &id("a")).unwrap().unwrap_or_default();
            proptest::prop_assert!(!stored.stale);
            proptest::prop_assert_eq!(stored.version.get(), version);
        }
    });
}

fn honest(op: u8, version: &mut u32) -> Op {
    let expect = *version;
    *version += u32::from(op < 6);
    match op {
        0 => session(expect, "w"),
        1 => chain(Slot::Present, Lane::Receive, expect, "r"),
        2 => chain(Slot::Present, Lane::Send, expect, "s"),
        3 => chain(Slot::Previous, Lane::Receive, expect, "r"),
        4 => rotate(expect),
        5 => Op::EndSessions { device: id("a"), expect: Version::new(expect), present: expect.is_multiple_of(2) },
        6 => Op::Peer { device: id("a"), bytes: Bytes::from_static(b"p") },
        _ => reading("a", expect),
    }
}

/// The receiving chain went back, and what was sent and written besides did not.
#[test]
fn a_receiving_chain_that_went_back_is_stale_and_stays_so_beside_later_records() {
    let mut tables = Tables::new();
    let row = |n| vec![chain(Slot::Present, Lane::Receive, n, "r"), reading("a", n)];
    group(&mut tables, vec![vec![Op::Device(device("a")), session(0, "w")], row(1)]);
    let key = table::session(DeviceNumber::new(1), table::Part::Chain(Slot::Present, Lane::Receive));
    let before = tables.get(Table::Sessions, &key).unwrap();
    group(&mut tables, vec![row(2), vec![chain(Slot::Present, Lane::Send, 3, "s")]]);
    assert!(!stored(&tables).stale);
    tables.write(Table::Sessions, key, before);
    let stored = stored(&tables);
    assert_eq!((stored.stale, stored.present, stored.version.get()), (true, None, 4));
}

#[test]
fn an_engine_that_fails_fails_the_whole_group() {
    struct Broken;
    impl Rows for Broken {
        fn get(&self, _: Table, _: &[u8]) -> Result<Option<Bytes>, ReadError> {
            Err(ReadError::Engine("no disk".into()))
        }
        fn scan(
            &self,
            _: Table,
            _: &[u8],
            _: Option<&[u8]>,
            _: crate::rows::Order,
            _: &mut crate::rows::Visitor<'_>,
        ) -> Result<(), ReadError> {
            Err(ReadError::Engine("no disk".into()))
        }
    }
    let ledger = Ledger::load(&Tables::new(), PARTITION, 1, FENCE, KNOWN_MAX, 50).unwrap();
    let (reads, read) = batch(vec![reading("a", 0)]);
    let (behind, waited) = batch(Vec::new());
    let (stale, fenced) = batch(Vec::new());
    let plan = ledger.plan(&Broken, vec![Batch { fence: Fence::new(0), ..stale }, reads, behind]);
    assert!(plan.broken.is_some() && plan.refused() == 3);
    plan.unknown("no disk").give();
    for mut answer in [read, waited] {
        assert_eq!(answer.try_recv().unwrap().unwrap_err(), CommitError::Unknown("no disk".into()));
    }
    let mut fenced = fenced;
    assert!(matches!(fenced.try_recv().unwrap(), Err(CommitError::Fenced { .. })), "refused for its own sake");
}

/// A device repeats its receipt until it is acknowledged: a batch that failed for it would fail again.
#[test]
fn a_late_receipt_of_a_damaged_command_leaves_its_batch_whole() {
    let mut tables = Tables::new();
    let number = DeviceNumber::new(1);
    let command = crate::contract::command("a", 1, crate::contract::over(unhidra_core::command::Ending::Expired));
    let late = || Op::LateReceipt {
        device: id("a"),
        command: command.id,
        status: unhidra_core::message::ReceiptStatus::Done,
        at: unhidra_core::time::UnixTime::EPOCH,
    };
    group(&mut tables, vec![vec![Op::Device(device("a")), Op::Command(command.clone())]]);
    let place = (Table::Commands, table::command(number, &command.id));
    tables.apply(&Writes::from([(place.clone(), Some(Bytes::from_static(b"?")))]));
    let answers = group(&mut tables, vec![vec![late(), reading("a", 0)]]);
    assert_eq!(answers[0].as_ref().unwrap().readings.len(), 1);
    assert_eq!(Rows::get(&tables, place.0, &place.1).unwrap().as_deref(), Some(&b"?"[..]), "and it stays for `verify`");
}

/// Whichever of the two holds more, the group or the batch that joins it.
#[test]
fn the_last_batch_of_a_group_has_the_last_word_of_each_key() {
    let put = |key: &'static str, value: &'static str| Op::Broker {
        table: BrokerTable::Retained,
        key: Bytes::from_static(key.as_bytes()),
        value: Some(Bytes::from_static(value.as_bytes())),
    };
    let many = |value| vec![put("a", value), put("b", value), put("c", value)];
    for (batches, expected) in [
        (vec![many("old"), vec![put("b", "new")]], ["old", "new", "old"]),
        (vec![vec![put("b", "old")], many("new")], ["new", "new", "new"]),
        (vec![vec![put("b", "old")], many("new"), vec![put("a", "newest")]], ["newest", "new", "new"]),
    ] {
        let mut tables = Tables::new();
        assert!(group(&mut tables, batches).iter().all(Result::is_ok));
        let read = |key: &str| tables.get(Table::Broker, &table::broker(BrokerTable::Retained, key.as_bytes()));
        assert_eq!(["a", "b", "c"].map(|key| read(key).unwrap().unwrap()), expected);
    }
}

/// A mark may lie for years, and a record holds 4 bytes of an Offset.
#[test]
fn a_session_is_of_its_moment_however_many_rows_lie_behind_its_mark() {
    use crate::record::NewestRow;
    use crate::table::Part;
    let (early, late) = (Offset::new(1), Offset::new((1 << 31) + 5));
    let mut moment = query::Moment::default();
    moment.add(Part::Mark, Version::new(3), NewestRow::new(early));
    moment.add(Part::Whole(Slot::Present), Version::new(4), NewestRow::new(late));
    moment.add(Part::Chain(Slot::Present, Lane::Receive), Version::new(9), NewestRow::new(late));
    assert!(!moment.is_stale(late) && moment.is_stale(early));
    // A chain that went back behind the mark is found still, and where both are of one version the later row says.
    let mut moment = query::Moment::default();
    moment.add(Part::Chain(Slot::Present, Lane::Receive), Version::new(4), NewestRow::new(early));
    moment.add(Part::Mark, Version::new(4), NewestRow::new(Offset::new(2)));
    assert!(!moment.is_stale(Offset::new(2)) && moment.is_stale(early));
}

/// Else a fleet whose records are damaged would cost the length of the batch for each of its devices.
#[test]
fn a_batch_is_planned_twice_however_many_of_its_devices_are_damaged() {
    /// Counts what is read.
    struct Counted<'a>(&'a Tables, std::cell::Cell<usize>);
    impl Rows for Counted<'_> {
        fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
            self.1.set(self.1.get() + 1);
            self.0.get(table, key)
        }
        fn scan(
            &self,
            table: Table,
            prefix: &[u8],
            after: Option<&[u8]>,
            order: Order,
            visit: &mut crate::rows::Visitor<'_>,
        ) -> Result<(), ReadError> {
            self.1.set(self.1.get() + 1);
            self.0.scan(table, prefix, after, order, visit)
        }
    }
    const DEVICES: usize = 100;
    let names: Vec<String> = (0..DEVICES).map(|n| format!("d-{n:03}")).collect();
    let mut tables = Tables::new();
    group(&mut tables, vec![names.iter().map(|name| Op::Device(device(name))).collect()]);
    let reads = |damaged: usize| {
        let mut tables = tables.clone();
        for name in names.iter().rev().take(damaged) {
            tables.apply(&Writes::from([(
                (Table::Registry, Key::from_slice(name.as_bytes())),
                Some(Bytes::from_static(b"?")),
            )]));
        }
        let rows = Counted(&tables, std::cell::Cell::default());
        let ledger = Ledger::load(&rows, PARTITION, 1, FENCE, KNOWN_MAX, 50).unwrap();
        rows.1.set(0);
        let (batch, mut answer) = batch(names.iter().map(|name| reading(name, 0)).collect());
        let plan = ledger.plan(&rows, vec![Batch { unit: Unit::Device, ..batch }]);
        let read = rows.1.get();
        Ledger::load(&tables, PARTITION, 1, FENCE, KNOWN_MAX, 50)
            .unwrap()
            .settle(plan, &DurableSource::new_for_storage())
            .give();
        let committed = answer.try_recv().unwrap().unwrap();
        assert_eq!((committed.left_out.len(), committed.readings.len()), (damaged, DEVICES - damaged));
        read
    };
    let (none, many) = (reads(0), reads(DEVICES / 2));
    assert!(many <= 2 * none, "{many} reads, and {none} where none is damaged");
}
