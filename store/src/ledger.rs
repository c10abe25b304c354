//! What a partition's writer knows, and what a group of batches becomes: a plain value, without
//! a thread or a file, the same for every engine.
//!
//! ```text
//! batches --plan--> Plan { writes, answers } --the engine commits--> settle --> answers are given
//! ```
//!
//! Batches of one group see what those before them write. One that expects the wrong version, an
//! older fence or an unknown device leaves no trace; the others of its group go on.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use unhidra_core::device::Device;
use unhidra_core::durable::DurableSource;
use unhidra_core::ids::{DeviceId, DeviceNumber, Fence, Offset, Partition, Version};
use unhidra_core::message::{Command, Uplink};

use crate::partition::partition_of;
use crate::record::{self, Row};
use crate::rows::{Order, Rows, Visitor};
use crate::table::{self, KEY_LEN_MAX, Part, Table};
use crate::{
    Assigned, Batch, BrokerTable, CommitError, Committed, Done, Lane, MessageTag, Op, PrekeyChange, PrekeyKind,
    ReadError, Slot, query,
};

/// The most bytes of a chain's state, so that its record has at most 80 on disk.
pub(crate) const CHAIN_LEN_MAX: usize = 48;

/// The most bytes of one value: what the engine takes, and more than any message may have.
const VALUE_LEN_MAX: usize = 1 << 30;

/// How many devices the writer remembers. Beyond it forgets all and reads again what it needs:
/// about 25 MB, and a device costs three short reads. Few in tests, so that the contract meets a
/// writer that has forgotten.
const KNOWN_MAX: usize = if cfg!(test) { 2 } else { 128 * 1024 };

/// The writes of a group, the last of each key.
pub(crate) type Writes = BTreeMap<(Table, Vec<u8>), Option<Bytes>>;

/// A partition as its writer knows it.
pub(crate) struct Ledger {
    partition: Partition,
    partitions: u16,
    fence: Fence,
    head: Head,
    known: HashMap<DeviceId, Known>,
}

/// Where the partition's counters stand.
#[derive(Clone, Copy, Debug)]
struct Head {
    /// The newest row.
    offset: Offset,
    /// The number given last.
    number: Option<DeviceNumber>,
}

/// A device as the writer knows it.
#[derive(Clone, Copy, Debug)]
struct Known {
    number: DeviceNumber,
    version: Version,
    newest: Offset,
    /// Which chain records lie there, so that only those are deleted: a bit for each.
    chains: u8,
}

/// What a group of batches becomes.
pub(crate) struct Plan {
    pub(crate) writes: Writes,
    answers: Vec<(Done, Result<Outcome, CommitError>)>,
    /// The engine failed while the group was planned: nothing of it may be written.
    pub(crate) broken: Option<ReadError>,
    head: Head,
    known: HashMap<DeviceId, Known>,
}

/// What a batch is told once it is durable.
struct Outcome {
    records: usize,
    readings: Vec<Assigned>,
    sessions: usize,
}

impl Ledger {
    /// Reads where the partition stands.
    pub(crate) fn load(
        rows: &dyn Rows,
        partition: Partition,
        partitions: u16,
        fence: Fence,
    ) -> Result<Self, ReadError> {
        let number = rows.last_key(Table::Numbers, &[])?.and_then(|key| table::tail::<4>(&key));
        let number = number.map(|bytes| DeviceNumber::new(u32::from_be_bytes(bytes)));
        let head = Head { offset: query::log_end(rows)?, number };
        Ok(Self { partition, partitions, fence, head, known: HashMap::new() })
    }

    /// The partition's newest row.
    pub(crate) const fn newest(&self) -> Offset {
        self.head.offset
    }

    /// Turns a group of batches into writes and answers.
    pub(crate) fn plan(&self, rows: &dyn Rows, batches: Vec<Batch>) -> Plan {
        let mut plan = Plan {
            writes: Writes::new(),
            answers: Vec::with_capacity(batches.len()),
            broken: None,
            head: self.head,
            known: HashMap::new(),
        };
        for Batch { fence, ops, done, .. } in batches {
            let answer = match plan.broken {
                Some(_) => Err(CommitError::Unknown(String::new())),
                None => self.plan_batch(rows, &mut plan, fence, ops),
            };
            plan.answers.push((done, answer));
        }
        plan
    }

    fn plan_batch(&self, rows: &dyn Rows, plan: &mut Plan, fence: Fence, ops: Vec<Op>) -> Result<Outcome, CommitError> {
        if fence != self.fence {
            return Err(CommitError::Fenced { found: fence, held: self.fence });
        }
        let mut draft = Draft {
            ledger: self,
            rows,
            group: plan,
            writes: Writes::new(),
            head: plan.head,
            known: HashMap::new(),
            outcome: Outcome { records: ops.len(), readings: Vec::new(), sessions: 0 },
        };
        for op in ops {
            match draft.apply(op) {
                Ok(()) => {}
                Err(Stop::Refused(cause)) => return Err(cause),
                // A damaged record is this batch's misfortune; an engine that fails is everyone's.
                Err(Stop::Read(cause @ ReadError::Damaged { .. })) => {
                    return Err(CommitError::Unknown(cause.to_string()));
                }
                Err(Stop::Read(cause)) => {
                    plan.broken = Some(cause);
                    return Err(CommitError::Unknown(String::new()));
                }
            }
        }
        let Draft { writes, head, known, outcome, .. } = draft;
        plan.writes.extend(writes);
        plan.known.extend(known);
        plan.head = head;
        Ok(outcome)
    }

    /// Takes over what a durable plan moved, and gives its answers, in the order of the batches.
    pub(crate) fn settle(&mut self, plan: Plan, source: &DurableSource) -> Answers {
        if self.known.len().saturating_add(plan.known.len()) > KNOWN_MAX {
            self.known.clear();
        }
        self.known.extend(plan.known);
        self.head = plan.head;
        let committed = |outcome: Outcome| Committed {
            readings: outcome.readings,
            durable: (0..outcome.sessions).map(|_| source.durable()).collect(),
        };
        Answers(plan.answers.into_iter().map(|(done, outcome)| (done, outcome.map(committed))).collect())
    }
}

impl Plan {
    /// How many batches leave something to write.
    pub(crate) fn accepted(&self) -> usize {
        self.answers.iter().filter(|(_, answer)| answer.is_ok()).count()
    }

    /// How many records the accepted batches have.
    pub(crate) fn records(&self) -> u64 {
        self.answers.iter().filter_map(|(_, answer)| answer.as_ref().ok()).map(|outcome| outcome.records as u64).sum()
    }

    /// The answers where the outcome of the commit is not known.
    ///
    /// A batch refused for its own sake keeps its cause: nothing of it was written.
    pub(crate) fn unknown(self, cause: &str) -> Answers {
        let unknown = || Err(CommitError::Unknown(cause.to_owned()));
        let answer = |answer: Result<Outcome, CommitError>| match answer {
            Ok(_) | Err(CommitError::Unknown(_)) => unknown(),
            Err(refused) => Err(refused),
        };
        Answers(self.answers.into_iter().map(|(done, outcome)| (done, answer(outcome))).collect())
    }
}

/// Answers that wait to be given.
#[must_use]
pub(crate) struct Answers(Vec<(Done, Result<Committed, CommitError>)>);

impl Answers {
    /// The same error for all.
    pub(crate) fn all_unknown(batches: Vec<Batch>, cause: &str) -> Self {
        Self(batches.into_iter().map(|batch| (batch.done, Err(CommitError::Unknown(cause.to_owned())))).collect())
    }

    /// Gives them, in order.
    pub(crate) fn give(self) {
        for (done, answer) in self.0 {
            done(answer);
        }
    }
}

/// Why a batch goes no further.
enum Stop {
    Refused(CommitError),
    Read(ReadError),
}

impl From<ReadError> for Stop {
    fn from(cause: ReadError) -> Self {
        Self::Read(cause)
    }
}

impl From<CommitError> for Stop {
    fn from(cause: CommitError) -> Self {
        Self::Refused(cause)
    }
}

/// One batch while it is planned: dropped without a trace, or merged into its group.
struct Draft<'a> {
    ledger: &'a Ledger,
    rows: &'a dyn Rows,
    group: &'a Plan,
    writes: Writes,
    head: Head,
    known: HashMap<DeviceId, Known>,
    outcome: Outcome,
}

impl Draft<'_> {
    fn apply(&mut self, op: Op) -> Result<(), Stop> {
        match op {
            Op::Session { device, slot, expect, whole } => self.session(device, slot, expect, &whole),
            Op::Chain { device, slot, lane, expect, delta } => self.chain(device, slot, lane, expect, &delta),
            Op::Rotate { device, expect } => self.rotate(device, expect),
            Op::EndSessions { device, expect, present } => self.end_sessions(device, expect, present),
            Op::Peer { device, bytes } => {
                let number = self.known(&device)?.number;
                self.put(
                    Table::Sessions,
                    table::session(number, Part::Peer),
                    record::encode_session(Version::default(), &bytes),
                )
            }
            Op::Reading { tag, uplink } => self.reading(&tag, &uplink),
            Op::Command(command) => self.command(&command),
            Op::Device(device) => self.device(&device),
            Op::Prekey(change) => self.prekey(change),
            Op::Broker { table, key, value } => self.broker(table, &key, value),
        }
    }

    fn session(&mut self, device: DeviceId, slot: Slot, expect: Version, whole: &[u8]) -> Result<(), Stop> {
        let mut known = self.step(&device, expect)?;
        self.delete_chains(&mut known, slot);
        let value = record::encode_session(known.version, whole);
        self.put(Table::Sessions, table::session(known.number, Part::Whole(slot)), value)?;
        self.known.insert(device, known);
        self.outcome.sessions += 1;
        Ok(())
    }

    fn chain(&mut self, device: DeviceId, slot: Slot, lane: Lane, expect: Version, delta: &[u8]) -> Result<(), Stop> {
        if delta.len() > CHAIN_LEN_MAX {
            return Err(too_large("a chain's bytes", delta.len(), CHAIN_LEN_MAX).into());
        }
        let mut known = self.step(&device, expect)?;
        let value = record::encode_session(known.version, delta);
        self.put(Table::Sessions, table::session(known.number, Part::Chain(slot, lane)), value)?;
        known.chains |= chain_bit(slot, lane);
        self.known.insert(device, known);
        self.outcome.sessions += 1;
        Ok(())
    }

    fn rotate(&mut self, device: DeviceId, expect: Version) -> Result<(), Stop> {
        let mut known = self.step(&device, expect)?;
        self.delete_slot(&mut known, Slot::Previous);
        self.move_part(known.number, Part::Whole(Slot::Present), Part::Whole(Slot::Previous))?;
        for lane in [Lane::Receive, Lane::Send] {
            let bit = chain_bit(Slot::Present, lane);
            if known.chains & bit != 0 {
                self.move_part(known.number, Part::Chain(Slot::Present, lane), Part::Chain(Slot::Previous, lane))?;
                known.chains = (known.chains & !bit) | chain_bit(Slot::Previous, lane);
            }
        }
        self.mark(device, known)
    }

    fn end_sessions(&mut self, device: DeviceId, expect: Version, present: bool) -> Result<(), Stop> {
        let mut known = self.step(&device, expect)?;
        self.delete_slot(&mut known, Slot::Previous);
        if present {
            self.delete_slot(&mut known, Slot::Present);
        }
        self.mark(device, known)
    }

    fn reading(&mut self, tag: &MessageTag, uplink: &Uplink) -> Result<(), Stop> {
        let mut known = self.known(&uplink.device)?;
        let offset = self.head.offset.next().ok_or(exhausted("a partition's rows", u64::MAX))?;
        let prev = known.newest;
        self.put(Table::Readings, table::reading(known.number, offset), Row::encode(offset, prev, tag, uplink))?;
        self.put(Table::Log, table::log(offset, known.number), Vec::new())?;
        self.head.offset = offset;
        known.newest = offset;
        self.known.insert(uplink.device, known);
        self.outcome.readings.push(Assigned { offset, prev });
        Ok(())
    }

    fn command(&mut self, command: &Command) -> Result<(), Stop> {
        let number = self.known(&command.device)?.number;
        // The record before this one says where its entry in the index is.
        if let Some(before) = query::command_of(&*self, number, &command.device, &command.id)? {
            self.delete(Table::OpenCommands, table::open_command(number, before.created_at, &command.id));
        }
        if !command.state.is_final() {
            let key = table::open_command(number, command.created_at, &command.id);
            self.put(Table::OpenCommands, key, Vec::new())?;
        }
        self.put(Table::Commands, table::command(number, &command.id), record::encode_command(command))
    }

    fn device(&mut self, device: &Device) -> Result<(), Stop> {
        let holds = partition_of(&device.id, self.ledger.partitions);
        if holds != self.ledger.partition {
            return Err(CommitError::OtherPartition { device: device.id, found: self.ledger.partition, holds }.into());
        }
        let known = match self.find(&device.id)? {
            Some(known) => known,
            None => self.enrol(&device.id)?,
        };
        let value = record::encode_device(device, known.number);
        self.put(Table::Registry, device.id.as_bytes().to_vec(), value)
    }

    /// Gives a new device the next number. Partitions take turns, so that a number is one device's
    /// in the whole store.
    fn enrol(&mut self, device: &DeviceId) -> Result<Known, Stop> {
        let next = match self.head.number {
            Some(last) => last.get().checked_add(u32::from(self.ledger.partitions)),
            None => Some(u32::from(self.ledger.partition.get()) + 1),
        };
        let number = DeviceNumber::new(next.ok_or(exhausted("the numbers of devices", u64::from(u32::MAX)))?);
        let known = Known { number, version: Version::default(), newest: Offset::ZERO, chains: 0 };
        self.head.number = Some(number);
        self.put(Table::Numbers, table::number_prefix(number), device.as_bytes().to_vec())?;
        self.known.insert(*device, known);
        Ok(known)
    }

    fn prekey(&mut self, change: PrekeyChange) -> Result<(), Stop> {
        match change {
            PrekeyChange::Put(prekey) => {
                let key = match &prekey.kind {
                    PrekeyKind::Signed => table::signed_prekey(prekey.id),
                    PrekeyKind::OneTime(device) => table::one_time_prekey(self.known(device)?.number, prekey.id),
                };
                self.put(Table::Prekeys, key, record::encode_prekey(&prekey))
            }
            PrekeyChange::Delete { kind: PrekeyKind::Signed, id } => {
                self.delete(Table::Prekeys, table::signed_prekey(id));
                Ok(())
            }
            PrekeyChange::Delete { kind: PrekeyKind::OneTime(device), id } => {
                if let Some(known) = self.find(&device)? {
                    self.delete(Table::Prekeys, table::one_time_prekey(known.number, id));
                }
                Ok(())
            }
        }
    }

    fn broker(&mut self, table: BrokerTable, key: &[u8], value: Option<Bytes>) -> Result<(), Stop> {
        let key = table::broker(table, key);
        if key.len() > KEY_LEN_MAX {
            return Err(too_large("a key of the broker's", key.len() - 1, KEY_LEN_MAX - 1).into());
        }
        match value {
            Some(value) => self.put(Table::Broker, key, value),
            None => {
                self.delete(Table::Broker, key);
                Ok(())
            }
        }
    }

    /// The device, which must be enrolled.
    fn known(&self, device: &DeviceId) -> Result<Known, Stop> {
        self.find(device)?.ok_or_else(|| CommitError::NoDevice(*device).into())
    }

    /// The device as this batch, its group, the writer's memory or the disk has it.
    fn find(&self, device: &DeviceId) -> Result<Option<Known>, ReadError> {
        let places = [&self.known, &self.group.known, &self.ledger.known];
        if let Some(known) = places.into_iter().find_map(|place| place.get(device)) {
            return Ok(Some(*known));
        }
        // Nothing of this group has touched the device, so the disk alone knows it.
        let Some(number) = query::number(self.rows, device)? else { return Ok(None) };
        let mut known =
            Known { number, version: Version::default(), newest: query::newest_offset(self.rows, number)?, chains: 0 };
        query::session_parts(self.rows, number, |part, version, _| {
            known.version = known.version.max(version);
            if let Part::Chain(slot, lane) = part {
                known.chains |= chain_bit(slot, lane);
            }
        })?;
        Ok(Some(known))
    }

    /// The device with its version moved on, where it is the expected one.
    fn step(&self, device: &DeviceId, expect: Version) -> Result<Known, Stop> {
        let known = self.known(device)?;
        if known.version != expect {
            let refused = CommitError::Version { device: *device, expected: expect, found: known.version };
            return Err(refused.into());
        }
        let version = known.version.next().ok_or(exhausted("a device's versions", u64::from(u32::MAX)))?;
        Ok(Known { version, ..known })
    }

    /// Writes the version where no record of a session carries it.
    fn mark(&mut self, device: DeviceId, known: Known) -> Result<(), Stop> {
        let value = record::encode_session(known.version, &[]);
        self.put(Table::Sessions, table::session(known.number, Part::Mark), value)?;
        self.known.insert(device, known);
        Ok(())
    }

    fn delete_slot(&mut self, known: &mut Known, slot: Slot) {
        self.delete(Table::Sessions, table::session(known.number, Part::Whole(slot)));
        self.delete_chains(known, slot);
    }

    fn delete_chains(&mut self, known: &mut Known, slot: Slot) {
        for lane in [Lane::Receive, Lane::Send] {
            let bit = chain_bit(slot, lane);
            if known.chains & bit != 0 {
                self.delete(Table::Sessions, table::session(known.number, Part::Chain(slot, lane)));
                known.chains &= !bit;
            }
        }
    }

    fn move_part(&mut self, number: DeviceNumber, from: Part, to: Part) -> Result<(), Stop> {
        let from = table::session(number, from);
        if let Some(value) = self.get(Table::Sessions, &from)? {
            self.put(Table::Sessions, table::session(number, to), value)?;
            self.delete(Table::Sessions, from);
        }
        Ok(())
    }

    fn put(&mut self, table: Table, key: Vec<u8>, value: impl Into<Bytes>) -> Result<(), Stop> {
        let value = value.into();
        if value.len() > VALUE_LEN_MAX {
            return Err(too_large("a value's bytes", value.len(), VALUE_LEN_MAX).into());
        }
        self.writes.insert((table, key), Some(value));
        Ok(())
    }

    fn delete(&mut self, table: Table, key: Vec<u8>) {
        self.writes.insert((table, key), None);
    }
}

/// What a batch sees of single records: its own writes, its group's, the disk's.
impl Rows for Draft<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        let place = (table, key.to_vec());
        match self.writes.get(&place).or_else(|| self.group.writes.get(&place)) {
            Some(written) => Ok(written.clone()),
            None => self.rows.get(table, key),
        }
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        order: Order,
        visit: &mut Visitor<'_>,
    ) -> Result<(), ReadError> {
        self.rows.scan(table, prefix, after, order, visit)
    }
}

const fn chain_bit(slot: Slot, lane: Lane) -> u8 {
    match (slot, lane) {
        (Slot::Present, Lane::Receive) => 1,
        (Slot::Present, Lane::Send) => 2,
        (Slot::Previous, Lane::Receive) => 4,
        (Slot::Previous, Lane::Send) => 8,
    }
}

const fn too_large(what: &'static str, found: usize, max: usize) -> CommitError {
    CommitError::TooLarge { what, found: found as u64, max: max as u64 }
}

/// A counter stands at its end.
const fn exhausted(what: &'static str, max: u64) -> CommitError {
    CommitError::TooLarge { what, found: max, max }
}
