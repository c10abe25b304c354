//! The reads of the store, over any engine's view.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use bytes::Bytes;
use unhidra_core::command::Command;
use unhidra_core::device::Device;
use unhidra_core::ids::{CommandId, DeviceId, DeviceNumber, Offset, Partition, Version};
use unhidra_core::message::{Reading, UplinkKind};
use unhidra_core::setting::Setting;
use unhidra_core::time::UnixTime;

use crate::record::{self, NewestRow, Row};
use crate::rows::{Order, Rows, damaged};
use crate::table::{self, Part, Table};
use crate::{
    Act, ActRow, BrokerTable, DamagedRow, DeviceRecords, Lane, Limit, Page, PrekeyKind, PrekeyRecord, RECENT_TAGS,
    ReadError, Readable, Slot, Stored, StoredSession, Waits,
};

/// How many rows [`newest`] looks at, at most: a device that sends what nobody is shown must not
/// make a reader walk its whole history.
pub(crate) const NEWEST_SCAN_MAX: usize = 4096;

/// A device's number.
pub(crate) fn number(rows: &dyn Rows, device: &DeviceId) -> Result<Option<DeviceNumber>, ReadError> {
    let key = device.as_bytes();
    let Some(value) = rows.get(Table::Registry, key)? else { return Ok(None) };
    record::decode_device_number(value).map(Some).map_err(|e| damaged(Table::Registry, key, e))
}

/// A device's newest row.
pub(crate) fn newest_offset(rows: &dyn Rows, number: DeviceNumber) -> Result<Offset, ReadError> {
    let newest = rows.end_key(Table::Readings, &table::number_prefix(number), Order::Descending)?;
    let Some(key) = newest else { return Ok(Offset::ZERO) };
    table::parse_reading(&key).ok_or_else(|| damaged(Table::Readings, &key, "its key has another length"))
}

/// A partition's newest row.
pub(crate) fn log_end(rows: &dyn Rows) -> Result<Offset, ReadError> {
    let Some(key) = rows.end_key(Table::Log, &[], Order::Descending)? else { return Ok(Offset::ZERO) };
    let (offset, _) = table::parse_log(&key).ok_or_else(|| damaged(Table::Log, &key, "its key has another length"))?;
    Ok(offset)
}

/// Shows each record of a device's sessions: which it is, its version, its newest row, its state.
pub(crate) fn session_parts(
    rows: &dyn Rows,
    number: DeviceNumber,
    mut visit: impl FnMut(Part, Version, NewestRow, Bytes),
) -> Result<(), ReadError> {
    let prefix = table::number_prefix(number);
    rows.scan(Table::Sessions, &prefix, None, Order::Ascending, &mut |key, value| {
        let part = table::tail::<1>(key).and_then(|[byte]| Part::from_byte(byte));
        let part = part.ok_or_else(|| damaged(Table::Sessions, key, "no such part"))?;
        let (version, newest, state) = record::decode_session(value).map_err(|e| damaged(Table::Sessions, key, e))?;
        visit(part, version, newest, state);
        Ok(ControlFlow::Continue(()))
    })
}

/// Whether a device's session records are of the same moment as its rows.
///
/// Every commit that appends a row writes one of the records that say what was received, with that
/// row's Offset in it: a session, a receiving chain, or the mark. So the Offset that was written last is
/// the newest row's, and another one means that one side of it was lost or went back. What was sent
/// last and what outlives sessions is written without a row too, and proves nothing.
///
/// Which was written last their versions say, which never go back. The 4 bytes of an Offset that a record holds
/// do so alone while fewer than 2^31 rows lie between, and a mark may lie for years.
#[derive(Default)]
pub(crate) struct Moment {
    newest: Option<(Version, NewestRow)>,
    anything: bool,
}

impl Moment {
    pub(crate) fn add(&mut self, part: Part, version: Version, newest: NewestRow) {
        self.anything = true;
        let is_later =
            |(before, row): (Version, NewestRow)| version > before || (version == before && newest.is_after(row));
        if matches!(part, Part::Mark | Part::Whole(_) | Part::Chain(_, Lane::Receive))
            && self.newest.is_none_or(is_later)
        {
            self.newest = Some((version, newest));
        }
    }

    /// Whether what was added disagrees with a device's newest row.
    pub(crate) fn is_stale(&self, newest: Offset) -> bool {
        match self.newest {
            Some((_, found)) => found != NewestRow::new(newest),
            // A peer record may be all there is before the first row; a row brings more.
            None => self.anything && newest != Offset::ZERO,
        }
    }
}

/// All a shard needs to go on with a device.
pub(crate) fn session(rows: &dyn Rows, device: &DeviceId) -> Result<Option<Stored>, ReadError> {
    let Some(number) = number(rows, device)? else { return Ok(None) };
    let mut stored = Stored { newest: newest_offset(rows, number)?, ..Stored::default() };
    let mut anything = stored.newest != Offset::ZERO;
    let mut present = Parts::default();
    let mut previous = Parts::default();
    let mut moment = Moment::default();
    session_parts(rows, number, |part, version, newest, state| {
        anything = true;
        moment.add(part, version, newest);
        stored.version = stored.version.max(version);
        match part {
            Part::Mark => {}
            Part::Peer => stored.peer = Some(state),
            Part::Whole(slot) | Part::Chain(slot, _) => slot.of(&mut present, &mut previous).take(part, state),
        }
    })?;
    stored.stale = moment.is_stale(stored.newest);
    if !stored.stale {
        stored.present = present.into_session();
        stored.previous = previous.into_session();
    }
    stored.recent = recent_tags(rows, number)?;
    Ok(anything.then_some(stored))
}

/// One session's records while they are gathered.
#[derive(Default)]
pub(crate) struct Parts {
    whole: Option<Bytes>,
    receive: Option<Bytes>,
    send: Option<Bytes>,
}

impl Parts {
    /// Takes the state of one of them; of what is of no session, nothing.
    pub(crate) fn take(&mut self, part: Part, state: Bytes) {
        match part {
            Part::Whole(_) => self.whole = Some(state),
            Part::Chain(_, Lane::Receive) => self.receive = Some(state),
            Part::Chain(_, Lane::Send) => self.send = Some(state),
            Part::Mark | Part::Peer => {}
        }
    }

    /// The session, where its whole is there.
    pub(crate) fn into_session(self) -> Option<StoredSession> {
        let whole = self.whole?;
        Some(StoredSession { whole, receive: self.receive, send: self.send })
    }
}

impl Slot {
    /// The one of the two that is in this slot.
    pub(crate) const fn of<'a, T>(self, present: &'a mut T, previous: &'a mut T) -> &'a mut T {
        match self {
            Self::Present => present,
            Self::Previous => previous,
        }
    }
}

fn recent_tags(rows: &dyn Rows, number: DeviceNumber) -> Result<Vec<crate::MessageTag>, ReadError> {
    let mut tags = Vec::with_capacity(RECENT_TAGS);
    let prefix = table::number_prefix(number);
    rows.scan(Table::Readings, &prefix, None, Order::Descending, &mut |key, value| {
        tags.push(Row::decode_tag(value).map_err(|e| damaged(Table::Readings, key, e))?);
        Ok(if tags.len() < RECENT_TAGS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    tags.reverse();
    Ok(tags)
}

/// A page that fills up to its limit.
pub(crate) struct Filling<T> {
    pub(crate) page: Page<T>,
    limit: Limit,
    bytes: usize,
}

impl<T> Filling<T> {
    pub(crate) const fn new(limit: Limit) -> Self {
        Self { page: Page { rows: Vec::new(), more: false }, limit, bytes: 0 }
    }

    /// Takes a row of `bytes`, or marks that there is more and breaks.
    pub(crate) fn push(&mut self, row: T, bytes: usize) -> ControlFlow<()> {
        let first = self.page.rows.is_empty();
        let fits = self.page.rows.len() < self.limit.rows && self.bytes.saturating_add(bytes) <= self.limit.bytes;
        if !first && !fits {
            self.page.more = true;
            return ControlFlow::Break(());
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.page.rows.push(row);
        ControlFlow::Continue(())
    }
}

/// A device's rows after `after`, in order.
pub(crate) fn history(
    rows: &dyn Rows,
    partition: Partition,
    device: &DeviceId,
    after: Offset,
    max: Limit,
) -> Result<Page<Reading>, ReadError> {
    let mut filling = Filling::new(max);
    let Some(number) = number(rows, device)? else { return Ok(filling.page) };
    let after = table::reading(number, after);
    rows.scan(Table::Readings, &table::number_prefix(number), Some(&after), Order::Ascending, &mut |key, value| {
        let reading = decode_row(partition, *device, key, value)?;
        let bytes = reading.uplink.body.len();
        Ok(filling.push(reading, bytes))
    })?;
    Ok(filling.page)
}

/// A device's newest rows, newest first, without those nobody is shown.
pub(crate) fn newest(
    rows: &dyn Rows,
    partition: Partition,
    device: &DeviceId,
    max: Limit,
) -> Result<Page<Reading>, ReadError> {
    let mut filling = Filling::new(max);
    let Some(number) = number(rows, device)? else { return Ok(filling.page) };
    let mut looked_at = 0;
    rows.scan(Table::Readings, &table::number_prefix(number), None, Order::Descending, &mut |key, value| {
        looked_at += 1;
        if looked_at > NEWEST_SCAN_MAX {
            filling.page.more = true;
            return Ok(ControlFlow::Break(()));
        }
        let reading = decode_row(partition, *device, key, value)?;
        if !is_shown(&reading) {
            return Ok(ControlFlow::Continue(()));
        }
        let bytes = reading.uplink.body.len();
        Ok(filling.push(reading, bytes))
    })?;
    Ok(filling.page)
}

/// Whether it is of a kind that [`newest`] gives.
pub(crate) const fn is_shown(reading: &Reading) -> bool {
    !matches!(reading.uplink.kind, UplinkKind::Ignored | UplinkKind::Trimmed)
}

/// A partition's rows after `after`, in order.
pub(crate) fn log(
    rows: &dyn Rows,
    partition: Partition,
    after: Offset,
    max: Limit,
) -> Result<Page<Reading>, ReadError> {
    let (found, _, scanned) = walk_log(rows, partition, after, max);
    if let Some(first) = found.damaged.into_iter().next() {
        return Err(first.cause);
    }
    scanned.map(|()| found.page)
}

/// The first row of a device that a page of the log has, and the place it names as the one before.
pub(crate) struct First {
    pub(crate) number: DeviceNumber,
    pub(crate) device: DeviceId,
    pub(crate) prev: Offset,
}

/// Reads the log until a page is full, it ends, or it cannot be read itself.
pub(crate) fn walk_log(
    rows: &dyn Rows,
    partition: Partition,
    after: Offset,
    max: Limit,
) -> (Readable, Vec<First>, Result<(), ReadError>) {
    let mut filling = Filling::new(max);
    let mut damaged_rows: Vec<DamagedRow> = Vec::new();
    let mut devices: HashMap<DeviceNumber, Result<DeviceId, ReadError>> = HashMap::new();
    let mut firsts: HashMap<DeviceNumber, First> = HashMap::new();
    let after = table::log(after, DeviceNumber::new(u32::MAX));
    let scanned = rows.scan(Table::Log, &[], Some(&after), Order::Ascending, &mut |key, _| {
        if damaged_rows.len() >= max.rows {
            filling.page.more = true;
            return Ok(ControlFlow::Break(()));
        }
        let wrong = || damaged(Table::Log, key, "its key has another length");
        let (offset, number) = table::parse_log(key).ok_or_else(wrong)?;
        let device = devices.entry(number).or_insert_with(|| device_of(rows, number));
        match device.clone().and_then(|device| logged_row(rows, partition, device, number, offset)) {
            Ok(reading) => {
                let (device, prev) = (reading.uplink.device, reading.prev);
                firsts.entry(number).or_insert(First { number, device, prev });
                let bytes = reading.uplink.body.len();
                Ok(filling.push(reading, bytes))
            }
            Err(cause @ ReadError::Damaged { .. }) => {
                damaged_rows.push(DamagedRow { offset, device: device.as_ref().ok().copied(), cause });
                Ok(ControlFlow::Continue(()))
            }
            Err(cause) => Err(cause),
        }
    });
    let found = Readable { page: filling.page, damaged: damaged_rows, gone: Vec::new() };
    (found, firsts.into_values().collect(), scanned)
}

fn logged_row(
    rows: &dyn Rows,
    partition: Partition,
    device: DeviceId,
    number: DeviceNumber,
    offset: Offset,
) -> Result<Reading, ReadError> {
    let key = table::reading(number, offset);
    let value = rows.get(Table::Readings, &key)?;
    let value = value.ok_or_else(|| damaged(Table::Readings, &key, "the log names it and it is missing"))?;
    decode_row(partition, device, &key, value)
}

pub(crate) fn device_of(rows: &dyn Rows, number: DeviceNumber) -> Result<DeviceId, ReadError> {
    let key = table::number_prefix(number);
    let value = rows.get(Table::Numbers, &key)?;
    let value = value.ok_or_else(|| damaged(Table::Numbers, &key, "a row has this number and no device does"))?;
    record::decode_device_id(&value).map_err(|e| damaged(Table::Numbers, &key, e))
}

pub(crate) fn decode_row(
    partition: Partition,
    device: DeviceId,
    key: &[u8],
    value: Bytes,
) -> Result<Reading, ReadError> {
    let offset =
        table::parse_reading(key).ok_or_else(|| damaged(Table::Readings, key, "its key has another length"))?;
    let row = Row::decode(device, offset, value).map_err(|e| damaged(Table::Readings, key, e))?;
    Ok(row.into_reading(partition, offset))
}

/// A device of the registry.
pub(crate) fn device(rows: &dyn Rows, device: &DeviceId) -> Result<Option<Device>, ReadError> {
    let key = device.as_bytes();
    let Some(value) = rows.get(Table::Registry, key)? else { return Ok(None) };
    record::decode_device(*device, value).map(Some).map_err(|e| damaged(Table::Registry, key, e))
}

/// Devices in the order of their ids, after `after`.
pub(crate) fn devices(rows: &dyn Rows, after: Option<&DeviceId>, max: usize) -> Result<Page<Device>, ReadError> {
    let mut filling = Filling::new(Limit { rows: max, bytes: usize::MAX });
    let after = after.map(DeviceId::as_bytes);
    rows.scan(Table::Registry, &[], after, Order::Ascending, &mut |key, value| {
        let wrong = |e| damaged(Table::Registry, key, e);
        let device = record::decode_device(record::decode_device_id(key).map_err(wrong)?, value).map_err(wrong)?;
        Ok(filling.push(device, 0))
    })?;
    Ok(filling.page)
}

/// One command.
pub(crate) fn command(rows: &dyn Rows, device: &DeviceId, id: &CommandId) -> Result<Option<Command>, ReadError> {
    let Some(number) = number(rows, device)? else { return Ok(None) };
    command_of(rows, number, device, id)
}

pub(crate) fn command_of(
    rows: &dyn Rows,
    number: DeviceNumber,
    device: &DeviceId,
    id: &CommandId,
) -> Result<Option<Command>, ReadError> {
    let key = table::command(number, id);
    let Some(value) = rows.get(Table::Commands, &key)? else { return Ok(None) };
    record::decode_command(*device, *id, value).map(Some).map_err(|e| damaged(Table::Commands, &key, e))
}

/// A device's commands that are not final, oldest first.
pub(crate) fn open_commands(rows: &dyn Rows, device: &DeviceId) -> Result<Vec<Command>, ReadError> {
    let mut open = Vec::new();
    let Some(number) = number(rows, device)? else { return Ok(open) };
    rows.scan(Table::OpenCommands, &table::number_prefix(number), None, Order::Ascending, &mut |key, _| {
        let id = table::tail::<16>(key).ok_or_else(|| damaged(Table::OpenCommands, key, "its key is too short"))?;
        let command = command_of(rows, number, device, &CommandId::new(id))?;
        open.push(command.ok_or_else(|| damaged(Table::OpenCommands, key, "it names no command"))?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(open)
}

/// A device's commands that are final and ended before `before`, at most `max`.
pub(crate) fn ended_commands(
    rows: &dyn Rows,
    device: &DeviceId,
    before: UnixTime,
    max: usize,
) -> Result<Vec<CommandId>, ReadError> {
    let mut ended = Vec::new();
    let Some(number) = number(rows, device)? else { return Ok(ended) };
    rows.scan(Table::Commands, &table::number_prefix(number), None, Order::Ascending, &mut |key, value| {
        let id = table::tail::<16>(key).ok_or_else(|| damaged(Table::Commands, key, "its key is too short"))?;
        let id = CommandId::new(id);
        let command = record::decode_command(*device, id, value).map_err(|e| damaged(Table::Commands, key, e))?;
        if command.ended().is_some_and(|end| end.at < before) {
            ended.push(id);
        }
        Ok(if ended.len() < max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(ended)
}

/// A device's newest commands, at most `max`, oldest first.
pub(crate) fn commands(rows: &dyn Rows, device: &DeviceId, max: usize) -> Result<Vec<Command>, ReadError> {
    // By age, and by id where two are as old.
    let mut newest = BTreeMap::new();
    let Some(number) = number(rows, device)? else { return Ok(Vec::new()) };
    rows.scan(Table::Commands, &table::number_prefix(number), None, Order::Ascending, &mut |key, value| {
        let id = table::tail::<16>(key).ok_or_else(|| damaged(Table::Commands, key, "its key is too short"))?;
        let command = record::decode_command(*device, CommandId::new(id), value);
        let command = command.map_err(|e| damaged(Table::Commands, key, e))?;
        newest.insert((command.created_at, command.id), command);
        if newest.len() > max {
            newest.pop_first();
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(newest.into_values().collect())
}

/// The devices with commands that are not final, after a number.
pub(crate) fn waits(rows: &dyn Rows, after: DeviceNumber, max: usize) -> Result<Page<Waits>, ReadError> {
    let mut filling: Page<Waits> = Page { rows: Vec::new(), more: false };
    let after = table::open_commands_end(after);
    rows.scan(Table::OpenCommands, &[], Some(&after), Order::Ascending, &mut |key, _| {
        let wrong = || damaged(Table::OpenCommands, key, "its key has another length");
        let number = table::parse_open_command(key).ok_or_else(wrong)?;
        let id = CommandId::new(table::tail::<16>(key).ok_or_else(wrong)?);
        let known = match filling.rows.last() {
            Some(last) if last.number == number => Some(last.device),
            Some(_) if filling.rows.len() >= max.max(1) => {
                filling.more = true;
                return Ok(ControlFlow::Break(()));
            }
            _ => None,
        };
        let read = || {
            let device = known.map_or_else(|| device_of(rows, number), Ok)?;
            let command = command_of(rows, number, &device, &id)?;
            let command = command.ok_or_else(|| damaged(Table::OpenCommands, key, "it names no command"))?;
            Ok((device, command))
        };
        let (device, command) = match read() {
            Ok(read) => read,
            // Told when its device's records are read; the commands of others end all the same.
            Err(ReadError::Damaged { .. }) => return Ok(ControlFlow::Continue(())),
            Err(error) => return Err(error),
        };
        match filling.rows.last_mut().filter(|last| last.number == number) {
            Some(last) => last.expires_at = last.expires_at.min(command.expires_at),
            None => filling.rows.push(Waits { number, device, expires_at: command.expires_at }),
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(filling)
}

/// A device's settings in the order of their names.
pub(crate) fn settings(rows: &dyn Rows, device: &DeviceId) -> Result<Vec<Setting>, ReadError> {
    let mut settings = Vec::new();
    let Some(number) = number(rows, device)? else { return Ok(settings) };
    rows.scan(Table::Settings, &table::number_prefix(number), None, Order::Ascending, &mut |key, value| {
        let name = table::parse_setting(key).ok_or_else(|| damaged(Table::Settings, key, "its key holds no name"))?;
        let setting = record::decode_setting(*device, name, value);
        settings.push(setting.map_err(|e| damaged(Table::Settings, key, e))?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(settings)
}

/// The signed prekeys a partition holds.
pub(crate) fn signed_prekeys(rows: &dyn Rows) -> Result<Vec<PrekeyRecord>, ReadError> {
    prekeys_under(rows, PrekeyKind::Signed, &table::signed_prekeys())
}

/// The one-time prekeys that wait for a device.
pub(crate) fn one_time_prekeys(rows: &dyn Rows, device: &DeviceId) -> Result<Vec<PrekeyRecord>, ReadError> {
    let Some(number) = number(rows, device)? else { return Ok(Vec::new()) };
    prekeys_under(rows, PrekeyKind::OneTime(*device), &table::one_time_prekeys(number))
}

fn prekeys_under(rows: &dyn Rows, kind: PrekeyKind, prefix: &[u8]) -> Result<Vec<PrekeyRecord>, ReadError> {
    let mut prekeys = Vec::new();
    rows.scan(Table::Prekeys, prefix, None, Order::Ascending, &mut |key, value| {
        let id = table::tail::<4>(key).ok_or_else(|| damaged(Table::Prekeys, key, "its key is too short"))?;
        let prekey = record::decode_prekey(kind, u32::from_be_bytes(id), value);
        prekeys.push(prekey.map_err(|e| damaged(Table::Prekeys, key, e))?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(prekeys)
}

/// The broker's records of a table after `after`, in order.
pub(crate) fn broker_records(
    rows: &dyn Rows,
    table: BrokerTable,
    after: Option<&[u8]>,
    max: Limit,
) -> Result<Page<(Bytes, Bytes)>, ReadError> {
    let mut filling = Filling::new(max);
    let after = after.map(|key| table::broker(table, key));
    rows.scan(Table::Broker, &table::broker(table, &[]), after.as_deref(), Order::Ascending, &mut |key, value| {
        let key = key.get(1..).unwrap_or_default();
        let bytes = key.len() + value.len();
        Ok(filling.push((Bytes::copy_from_slice(key), value), bytes))
    })?;
    Ok(filling.page)
}

/// The numbers of the oldest act there is and of the one after the newest.
pub(crate) fn acts_kept(rows: &dyn Rows) -> Result<(u64, u64), ReadError> {
    let number =
        |key: &[u8]| table::parse_act(key).ok_or_else(|| damaged(Table::Acts, key, "its key has another length"));
    let end = |order| rows.end_key(Table::Acts, &[], order)?.map(|key| number(&key)).transpose();
    let (oldest, newest) = (end(Order::Ascending)?, end(Order::Descending)?);
    Ok((oldest.unwrap_or(1), newest.map_or(1, |newest| newest.saturating_add(1))))
}

/// A partition's acts after the number `after`, in order.
pub(crate) fn acts(rows: &dyn Rows, partition: Partition, after: u64, max: usize) -> Result<Page<ActRow>, ReadError> {
    let mut filling = Filling::new(Limit { rows: max, bytes: usize::MAX });
    rows.scan(Table::Acts, &[], Some(&table::act(after)), Order::Ascending, &mut |key, value| {
        let number = table::parse_act(key).ok_or_else(|| damaged(Table::Acts, key, "its key has another length"))?;
        let act = Act::decode(&value).map_err(|e| damaged(Table::Acts, key, e))?;
        Ok(filling.push(ActRow { partition, number, act }, 0))
    })?;
    Ok(filling.page)
}

/// One page of the pages of all partitions, each in order.
pub(crate) fn merge_devices(pages: Vec<Page<Device>>, max: usize) -> Page<Device> {
    let mut more = pages.iter().any(|page| page.more);
    let mut rows: Vec<Device> = pages.into_iter().flat_map(|page| page.rows).collect();
    rows.sort_by_key(|device| device.id);
    more |= rows.len() > max;
    rows.truncate(max.max(1));
    Page { rows, more }
}

/// All that one partition keeps of a device, of the prekeys its own alone.
pub(crate) fn records(
    view: &dyn Rows,
    partition: Partition,
    device: &DeviceId,
    rows: usize,
) -> Result<DeviceRecords, ReadError> {
    Ok(DeviceRecords {
        reading_ids: crate::reading_ids::of(view, partition, device, rows)?,
        stored: session(view, device)?.unwrap_or_default(),
        prekeys: one_time_prekeys(view, device)?,
        commands: open_commands(view, device)?,
        settings: settings(view, device)?,
    })
}

/// The signed prekeys of all partitions, and a device's own.
pub(crate) fn merge_prekeys(signed: Vec<Vec<PrekeyRecord>>, own: Vec<PrekeyRecord>) -> Vec<PrekeyRecord> {
    let mut prekeys = signed.concat();
    prekeys.sort_by_key(|prekey| prekey.id);
    prekeys.extend(own);
    prekeys
}

/// One page of the broker's records of all partitions, each in order.
pub(crate) fn merge_broker_records(pages: Vec<Page<(Bytes, Bytes)>>, max: Limit) -> Page<(Bytes, Bytes)> {
    // What a partition has behind its page comes after all others' that lie before its end.
    let ends = pages.iter().filter(|page| page.more).filter_map(|page| page.rows.last());
    let end = ends.map(|(key, _)| key.clone()).min();
    let mut rows: Vec<(Bytes, Bytes)> = pages.into_iter().flat_map(|page| page.rows).collect();
    rows.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut filling = Filling::new(max);
    filling.page.more = end.is_some();
    for (key, value) in rows {
        if end.as_ref().is_some_and(|end| key > *end) {
            break;
        }
        let bytes = key.len() + value.len();
        if filling.push((key, value), bytes).is_break() {
            break;
        }
    }
    filling.page
}
