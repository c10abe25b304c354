//! One batch on its way into a group: its ops, one after another, become writes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use unhidra_core::command::Command;
use unhidra_core::device::Device;
use unhidra_core::ids::{CommandId, DeviceId, DeviceNumber, Offset, Version};
use unhidra_core::message::{ReceiptStatus, Uplink};
use unhidra_core::setting::Setting;
use unhidra_core::time::UnixTime;

use super::stop::{Stop, Stopped, collect};
use super::{Devices, Head, Known, Ledger, Outcome, Plan, Writes};
use crate::partition::partition_of;
use crate::record::{self, Row};
use crate::rows::{KeyVisitor, Order, Rows, Visitor, damaged, hex};
use crate::table::{self, KEY_LEN_MAX, Key, Part, RecordName, Table};
use crate::tag::Tag;
use crate::{
    Act, Assigned, BrokerTable, CommitError, Lane, MessageTag, Op, PrekeyChange, PrekeyKind, ReadError, Slot, Trim,
    query,
};

/// The most bytes of a chain's state, so that its record has at most 85 on disk.
pub(crate) const CHAIN_LEN_MAX: usize = 48;

/// The most bytes of one value: what the engine takes, and more than any message may have.
const VALUE_LEN_MAX: usize = 1 << 30;

/// How many acts one new one may push out.
const ACTS_DELETED_MAX: usize = 16;

/// One batch while it is planned: dropped without a trace, or merged into its group.
pub(super) struct Draft<'a> {
    ledger: &'a Ledger,
    rows: &'a dyn Rows,
    group: &'a Plan,
    /// What is being committed.
    before: Option<&'a Plan>,
    ops: &'a [Op],
    /// Of these devices nothing is written.
    left_out: &'a BTreeMap<DeviceId, CommitError>,
    moved: Moved,
    /// The devices of its rows, and the newest of each: the session records of this batch hold it,
    /// also those that stand before the row among the ops.
    newest: Devices<Newest>,
}

/// A device's newest row in a batch.
struct Newest {
    offset: Offset,
    /// A record of the batch's says it.
    is_said: bool,
}

/// What a batch moves.
pub(super) struct Moved {
    pub(super) writes: Writes,
    pub(super) head: Head,
    pub(super) known: Devices<Known>,
    pub(super) outcome: Outcome,
}

impl<'a> Draft<'a> {
    /// A batch of `ops`, without those of the devices `left_out`, behind what its group holds already, and
    /// behind what is being committed.
    pub(super) fn new(
        ledger: &'a Ledger,
        rows: &'a dyn Rows,
        (group, before): (&'a Plan, Option<&'a Plan>),
        ops: &'a [Op],
        left_out: &'a BTreeMap<DeviceId, CommitError>,
    ) -> Self {
        let outcome = Outcome { records: ops.len(), readings: Vec::new(), sessions: Vec::new(), left_out: Vec::new() };
        let moved = Moved { writes: Writes::new(), head: group.head, known: Devices::default(), outcome };
        let mut newest = Devices::default();
        let devices = ops.iter().filter_map(|op| match op {
            Op::Reading { uplink, .. } => Some(uplink.device),
            _ => None,
        });
        for (device, nth) in devices.filter(|device| !left_out.contains_key(device)).zip(1..) {
            let offset = Offset::new(group.head.offset.get().saturating_add(nth));
            newest.insert(device, Newest { offset, is_said: false });
        }
        Self { ledger, rows, group, before, ops, left_out, moved, newest }
    }

    /// Applies all ops, and writes the newest row of the devices of which they write nothing else that
    /// says it.
    pub(super) fn apply_all(&mut self) -> Result<(), Box<Stopped>> {
        let mut damaged = BTreeMap::new();
        for op in self.ops {
            let is_left_out = |device| self.left_out.contains_key(device) || damaged.contains_key(device);
            match op.device() {
                Some(device) if is_left_out(device) => self.pass_over(op),
                device => collect(&mut damaged, device, self.apply(op))?,
            }
        }
        let unsaid = self.newest.iter().filter(|(_, newest)| !newest.is_said).map(|(device, _)| *device);
        // In an order that does not hang on the map's.
        for device in unsaid.filter(|device| !damaged.contains_key(device)).collect::<BTreeSet<_>>() {
            let marked = self.known(&device).and_then(|known| self.mark(device, known));
            collect(&mut damaged, Some(&device), marked)?;
        }
        match damaged.is_empty() {
            true => Ok(()),
            false => Err(Box::new(Stopped::Devices(damaged))),
        }
    }

    fn pass_over(&mut self, op: &Op) {
        self.moved.outcome.records -= 1;
        if matches!(op, Op::Session { .. } | Op::Chain { .. }) {
            self.moved.outcome.sessions.push(false);
        }
    }

    pub(super) fn into_moved(self) -> Moved {
        self.moved
    }

    fn apply(&mut self, op: &Op) -> Result<(), Stop> {
        match op {
            Op::Session { device, slot, expect, whole } => self.session(*device, *slot, *expect, whole),
            Op::Chain { device, slot, lane, expect, delta } => self.chain(*device, *slot, *lane, *expect, delta),
            Op::Rotate { device, expect } => self.rotate(*device, *expect),
            Op::EndSessions { device, expect, present } => self.end_sessions(*device, *expect, *present),
            Op::Peer { device, bytes } => self.peer(*device, bytes),
            Op::Reading { tag, uplink } => self.reading(tag, uplink),
            Op::Trim { device, trim } => self.trim(device, trim),
            Op::Forget { device, commands } => self.forget(device, commands),
            Op::Command(command) => self.command(command),
            Op::LateReceipt { device, command, status, at } => self.late_receipt(device, command, *status, *at),
            Op::Setting(setting) => self.setting(setting),
            Op::ForgetSetting { device, name } => {
                if let Some(known) = self.find(device)? {
                    self.delete(Table::Settings, table::setting(known.number, name));
                }
                Ok(())
            }
            Op::Device(device) => self.device(device),
            Op::Prekey(change) => self.prekey(change),
            Op::Broker { table, key, value } => self.broker(*table, key, value.as_ref()),
            Op::Act(act) => self.act(act),
            Op::Reseal(names) => self.reseal(names),
        }
    }

    fn session(&mut self, device: DeviceId, slot: Slot, expect: Version, whole: &[u8]) -> Result<(), Stop> {
        let mut known = self.step(&device, expect)?;
        self.delete_chains(&mut known, slot);
        self.put_part(&device, &known, Part::Whole(slot), known.version, whole)?;
        self.moved.known.insert(device, known);
        self.moved.outcome.sessions.push(true);
        Ok(())
    }

    fn peer(&mut self, device: DeviceId, bytes: &[u8]) -> Result<(), Stop> {
        let known = self.fresh(&device)?;
        self.put_part(&device, &known, Part::Peer, Version::default(), bytes)?;
        self.moved.known.insert(device, known);
        Ok(())
    }

    fn chain(&mut self, device: DeviceId, slot: Slot, lane: Lane, expect: Version, delta: &[u8]) -> Result<(), Stop> {
        if delta.len() > CHAIN_LEN_MAX {
            return Err(too_large("a chain's bytes", delta.len(), CHAIN_LEN_MAX).into());
        }
        let mut known = self.step(&device, expect)?;
        self.put_part(&device, &known, Part::Chain(slot, lane), known.version, delta)?;
        known.chains |= chain_bit(slot, lane);
        self.moved.known.insert(device, known);
        self.moved.outcome.sessions.push(true);
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
        let mut known = self.fresh(&uplink.device)?;
        let offset = self.moved.head.offset.next().ok_or(exhausted("a partition's rows", u64::MAX))?;
        let prev = known.newest;
        self.put(Table::Readings, table::reading(known.number, offset), Row::encode(offset, prev, tag, uplink))?;
        self.put(Table::Log, table::log(offset, known.number), Vec::new())?;
        self.moved.head.offset = offset;
        known.newest = offset;
        self.moved.known.insert(uplink.device, known);
        self.moved.outcome.readings.push(Assigned { offset, prev });
        Ok(())
    }

    fn trim(&mut self, device: &DeviceId, trim: &Trim) -> Result<(), Stop> {
        let known = self.known(device)?;
        for offset in trim.delete.iter().filter(|offset| **offset != known.newest) {
            self.delete(Table::Readings, table::reading(known.number, *offset));
            self.delete(Table::Log, table::log(*offset, known.number));
        }
        // The newest row is where the log ends: were it gone, its place would be given again.
        let newest = trim.delete.iter().filter(|offset| **offset == known.newest);
        for offset in newest.chain(&trim.stub) {
            let key = table::reading(known.number, *offset);
            let Some(value) = self.get(Table::Readings, &key)? else { continue };
            let wrong = |e| damaged(Table::Readings, &key, e);
            let Row { prev, tag, uplink } = Row::decode(*device, *offset, value).map_err(wrong)?.into_trimmed();
            let stub = Row::encode(*offset, prev, &tag, &uplink);
            self.put(Table::Readings, key, stub)?;
        }
        Ok(())
    }

    fn forget(&mut self, device: &DeviceId, commands: &[CommandId]) -> Result<(), Stop> {
        let number = self.known(device)?.number;
        for id in commands {
            let command = query::command_of(&*self, number, device, id)?;
            if command.is_some_and(|command| command.is_final()) {
                self.delete(Table::Commands, table::command(number, id));
            }
        }
        Ok(())
    }

    fn command(&mut self, command: &Command) -> Result<(), Stop> {
        let number = self.known(&command.device)?.number;
        // The record before this one says where its entry in the index is.
        if let Some(before) = query::command_of(&*self, number, &command.device, &command.id)? {
            // An end is an end: whoever wrote this has not heard of it.
            if before.is_final() {
                return Ok(());
            }
            self.delete(Table::OpenCommands, table::open_command(number, before.created_at, &command.id));
        }
        if !command.is_final() {
            let key = table::open_command(number, command.created_at, &command.id);
            self.put(Table::OpenCommands, key, Vec::new())?;
        }
        self.put(Table::Commands, table::command(number, &command.id), record::encode_command(command))
    }

    fn late_receipt(
        &mut self,
        device: &DeviceId,
        id: &CommandId,
        status: ReceiptStatus,
        at: UnixTime,
    ) -> Result<(), Stop> {
        let number = self.known(device)?.number;
        // A device may name what it likes, also a command whose record is damaged: nothing is noted of
        // that, and what others have in this batch is written.
        let found = match query::command_of(&*self, number, device, id) {
            Err(ReadError::Damaged { .. }) => None,
            found => found?,
        };
        let Some(mut command) = found else { return Ok(()) };
        if !command.note(status, at) {
            return Ok(());
        }
        self.put(Table::Commands, table::command(number, id), record::encode_command(&command))
    }

    fn setting(&mut self, setting: &Setting) -> Result<(), Stop> {
        let number = self.known(&setting.device)?.number;
        self.put(Table::Settings, table::setting(number, &setting.name), record::encode_setting(setting))
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
        self.put(Table::Registry, Key::from_slice(device.id.as_bytes()), value)
    }

    /// Gives a new device the next number. Partitions take turns, so that a number is one device's
    /// in the whole store.
    fn enrol(&mut self, device: &DeviceId) -> Result<Known, Stop> {
        let next = match self.moved.head.number {
            Some(last) => last.get().checked_add(u32::from(self.ledger.partitions)),
            None => Some(u32::from(self.ledger.partition.get()) + 1),
        };
        let number = DeviceNumber::new(next.ok_or(exhausted("the numbers of devices", u64::from(u32::MAX)))?);
        let known = Known { number, version: Version::default(), newest: Offset::ZERO, chains: 0, stale: false };
        self.moved.head.number = Some(number);
        self.put(Table::Numbers, table::number_prefix(number), device.as_bytes().to_vec())?;
        self.moved.known.insert(*device, known);
        Ok(known)
    }

    fn prekey(&mut self, change: &PrekeyChange) -> Result<(), Stop> {
        match change {
            PrekeyChange::Put(prekey) => {
                let key = match &prekey.kind {
                    PrekeyKind::Signed => table::signed_prekey(prekey.id),
                    PrekeyKind::OneTime(device) => table::one_time_prekey(self.known(device)?.number, prekey.id),
                };
                self.put(Table::Prekeys, key, record::encode_prekey(prekey))
            }
            PrekeyChange::Delete { kind: PrekeyKind::Signed, id } => {
                self.delete(Table::Prekeys, table::signed_prekey(*id));
                Ok(())
            }
            PrekeyChange::Delete { kind: PrekeyKind::OneTime(device), id } => {
                if let Some(known) = self.find(device)? {
                    self.delete(Table::Prekeys, table::one_time_prekey(known.number, *id));
                }
                Ok(())
            }
        }
    }

    fn broker(&mut self, table: BrokerTable, key: &[u8], value: Option<&Bytes>) -> Result<(), Stop> {
        let key = table::broker(table, key);
        if key.len() > KEY_LEN_MAX {
            return Err(too_large("a key of the broker's", key.len() - 1, KEY_LEN_MAX - 1).into());
        }
        match value {
            Some(value) => self.put(Table::Broker, key, value.clone()),
            None => {
                self.delete(Table::Broker, key);
                Ok(())
            }
        }
    }

    fn act(&mut self, act: &Act) -> Result<(), Stop> {
        let (mut oldest, number) = self.moved.head.acts;
        let next = number.checked_add(1).ok_or(exhausted("a partition's acts", u64::MAX))?;
        self.put(Table::Acts, table::act(number), act.encode())?;
        // Some at a time, where the bound was set lower.
        for _ in 0..ACTS_DELETED_MAX {
            if next.saturating_sub(oldest) <= self.ledger.acts_max {
                break;
            }
            self.delete(Table::Acts, table::act(oldest));
            oldest = oldest.saturating_add(1);
        }
        self.moved.head.acts = (oldest, next);
        Ok(())
    }

    /// Puts what is there in its own place: the commit seals it. What this group has written is
    /// sealed with it anyway, and newer.
    fn reseal(&mut self, names: &[RecordName]) -> Result<(), Stop> {
        for RecordName { table, key } in names {
            let place = (*table, key.clone());
            if self.moved.writes.contains_key(&place) || self.group.writes.contains_key(&place) {
                continue;
            }
            // What is being committed may have been sealed before the keys changed.
            match self.get(place.0, &place.1) {
                Ok(None) | Err(ReadError::Damaged { .. }) => {}
                // Of version 1, which had no tags, under a key that no record has: it stays as it is.
                Ok(Some(_)) if Tag::of(place.0, &place.1).is_none() => {}
                Ok(Some(value)) => self.put(place.0, place.1, value)?,
                Err(cause) => return Err(cause.into()),
            }
        }
        Ok(())
    }

    /// The device, which must be enrolled.
    fn known(&self, device: &DeviceId) -> Result<Known, Stop> {
        self.find(device)?.ok_or_else(|| CommitError::NoDevice(*device).into())
    }

    /// The device as this batch, its group, the one before, the writer's memory or the disk has it.
    fn find(&self, device: &DeviceId) -> Result<Option<Known>, ReadError> {
        let before = self.before.map(|before| &before.known);
        let places = [Some(&self.moved.known), Some(&self.group.known), before, Some(&self.ledger.known)];
        if let Some(known) = places.into_iter().flatten().find_map(|place| place.get(device)) {
            return Ok(Some(*known));
        }
        // Nothing of this group or the one before has touched the device, so the disk alone knows it.
        let Some(number) = query::number(self.rows, device)? else { return Ok(None) };
        let newest = query::newest_offset(self.rows, number)?;
        let mut known = Known { number, version: Version::default(), newest, chains: 0, stale: false };
        let mut moment = query::Moment::default();
        query::session_parts(self.rows, number, |part, version, newest, _| {
            known.version = known.version.max(version);
            moment.add(part, version, newest);
            if let Part::Chain(slot, lane) = part {
                known.chains |= chain_bit(slot, lane);
            }
        })?;
        known.stale = moment.is_stale(newest);
        Ok(Some(known))
    }

    /// The device, without the session records it may not be served any more: a write behind them
    /// would make them look as if they were of this moment.
    fn fresh(&mut self, device: &DeviceId) -> Result<Known, Stop> {
        let mut known = self.known(device)?;
        if known.stale {
            known.stale = false;
            self.delete_slot(&mut known, Slot::Present);
            self.delete_slot(&mut known, Slot::Previous);
            // The mark is what was wrong, or may come to be; and the version must not go back.
            self.mark(*device, known)?;
        }
        Ok(known)
    }

    /// The device with its version moved on, where it is the expected one.
    fn step(&mut self, device: &DeviceId, expect: Version) -> Result<Known, Stop> {
        let known = self.fresh(device)?;
        if known.version != expect {
            let refused = CommitError::Version { device: *device, expected: expect, found: known.version };
            return Err(refused.into());
        }
        let version = known.version.next().ok_or(exhausted("a device's versions", u64::from(u32::MAX)))?;
        Ok(Known { version, ..known })
    }

    /// Writes the version where no record of a session carries it.
    fn mark(&mut self, device: DeviceId, known: Known) -> Result<(), Stop> {
        self.put_part(&device, &known, Part::Mark, known.version, &[])?;
        self.moved.known.insert(device, known);
        Ok(())
    }

    /// Writes a record of a device's sessions, with the newest row this batch gives it.
    fn put_part(
        &mut self,
        device: &DeviceId,
        known: &Known,
        part: Part,
        version: Version,
        state: &[u8],
    ) -> Result<(), Stop> {
        let newest = self.newest.get_mut(device).map_or(known.newest, |newest| {
            newest.is_said |= matches!(part, Part::Mark | Part::Whole(_) | Part::Chain(_, Lane::Receive));
            newest.offset
        });
        self.put(Table::Sessions, table::session(known.number, part), record::encode_session(version, newest, state))
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

    pub(super) fn put(&mut self, table: Table, key: Key, value: impl Into<Bytes>) -> Result<(), Stop> {
        let value = value.into();
        if value.len() > VALUE_LEN_MAX {
            return Err(too_large("a value's bytes", value.len(), VALUE_LEN_MAX).into());
        }
        // The commit could not seal it, and would fail for every batch of its group.
        if !table.is_index() && Tag::of(table, &key).is_none() {
            return Err(CommitError::NoKind { table: table.name(), key: hex(&key) }.into());
        }
        self.moved.writes.insert((table, key), Some(value));
        Ok(())
    }

    fn delete(&mut self, table: Table, key: Key) {
        self.moved.writes.insert((table, key), None);
    }

    /// What this batch, its group or the one before writes there; the inner `None` deletes.
    fn written(&self, place: &(Table, Key)) -> Option<&Option<Bytes>> {
        let before = self.before.map(|before| &*before.writes);
        let places = [Some(&self.moved.writes), Some(&*self.group.writes), before];
        places.into_iter().flatten().find_map(|writes| writes.get(place))
    }
}

/// What a batch sees of single records: its own writes, its group's, those being committed, the disk's.
impl Rows for Draft<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        match self.written(&(table, Key::from_slice(key))) {
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

    fn keys(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        order: Order,
        visit: &mut KeyVisitor<'_>,
    ) -> Result<(), ReadError> {
        self.rows.keys(table, prefix, after, order, visit)
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
