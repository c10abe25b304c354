//! Every record of a partition, and whether those that must agree do.
//!
//! ```text
//! readings <-> log                 each row has its entry, each entry its row
//! readings: prev                   names the device's row before it
//! readings, sessions, commands --> numbers --> registry --> numbers
//! commands <-> open-commands       those that are not final, and when they were made
//! sessions <-> readings            of one moment
//! ```
//!
//! What a value says is read to its last byte, by the store where it knows the format, else by
//! whoever wrote it ([`Contents`]).
//!
//! The oldest row of a device names one that was trimmed, or none. A number whose device the registry
//! has lost is kept: its rows are whole.

use std::collections::HashMap;

use bytes::Bytes;
use unhidra_core::ids::{CommandId, DeviceId, DeviceNumber, Offset, Version};
use unhidra_core::time::UnixTime;

use crate::ledger::Writes;
use crate::record::{self, Row};
use crate::rows::{Rows, hex};
use crate::table::{self, Key, Part, Table};
use crate::{Act, BrokerTable, Lane, PrekeyKind, ReadError, Slot, query};

use super::super::database::{self, View};
use super::super::shared::Shared;
use super::{Contents, Mending, Verified};

/// After how many records of a table it is said how far it is.
const PROGRESS: u64 = 1_000_000;

/// How many changes are written in one commit.
const COMMIT_RECORDS: usize = 4096;

/// How often a mended store is looked over again, at most: what is mended shows what leaned on it.
const ROUNDS_MAX: usize = 8;

/// Looks at every record of a partition; with `mending` drops those that are damaged, makes the
/// others agree, and writes down who said so. Says whether nothing damaged is left.
pub(super) fn look(
    shared: &Shared,
    mut mending: Option<&mut Mending<'_>>,
    contents: &dyn Contents,
    verified: &mut Verified,
    progress: &mut dyn FnMut(&str),
) -> Result<bool, String> {
    for round in 0..ROUNDS_MAX {
        let look = shared.read(|view| {
            let mut look = Look {
                shared,
                view,
                contents,
                verified: &mut *verified,
                found: Found::default(),
                fixes: Writes::new(),
                devices: HashMap::new(),
                newest_act: 0,
            };
            // First whose the numbers are: what has a number is judged by it.
            let owners = [Table::Numbers, Table::Registry];
            let others = Table::ALL.into_iter().filter(|table| !owners.contains(table));
            for table in owners.into_iter().chain(others) {
                look.table(table, round == 0, progress);
            }
            Ok((look.fixes, look.found, look.newest_act))
        });
        let (fixes, found, newest_act) = look.map_err(|e: ReadError| e.to_string())?;
        let is_whole = found.count == 0;
        let Some(mending) = mending.as_deref_mut() else { return Ok(is_whole) };
        let mut part = Writes::new();
        if round == 0 {
            let act = act(mending, shared, &found);
            part.extend(act.map(|act| ((Table::Acts, table::act(newest_act + 1)), Some(act.encode().into()))));
        }
        if part.is_empty() && fixes.is_empty() {
            return Ok(is_whole);
        }
        mending.mark().map_err(|e| e.to_string())?;
        progress(&format!("partition {}: {} records are mended", shared.partition, fixes.len()));
        if fixes.is_empty() {
            return shared.commit(&part, true).map(|()| is_whole);
        }
        for (key, value) in fixes {
            part.insert(key, value);
            if part.len() >= COMMIT_RECORDS {
                shared.commit(&std::mem::take(&mut part), true)?;
            }
        }
        shared.commit(&part, true)?;
    }
    Err("its records do not come to agree".to_owned())
}

/// What a partition has lost, if it has: in its files, and of its records.
fn act(mending: &Mending<'_>, shared: &Shared, records: &Found) -> Option<Act> {
    let files = mending.in_files.get(usize::from(shared.partition.get())).map_or(&[][..], Vec::as_slice);
    let first = files.first().map(|damage| format!("{} at byte {}", damage.file.display(), damage.offset));
    let first = first.or_else(|| records.first.clone())?;
    Some(mending.act(records.count + files.len() as u64, &first))
}

/// What is damaged among a partition's records.
#[derive(Default)]
struct Found {
    count: u64,
    first: Option<String>,
}

struct Look<'a> {
    shared: &'a Shared,
    view: &'a View<'a>,
    contents: &'a dyn Contents,
    verified: &'a mut Verified,
    found: Found,
    fixes: Writes,
    /// The number of the newest act, whether or not it reads.
    newest_act: u64,
    /// Numbers seen, and whose they are.
    devices: HashMap<DeviceNumber, Option<DeviceId>>,
}

/// What is wrong with a record, and what mends it.
struct Wrong {
    found: String,
    fix: Fix,
}

/// Records to be written, or to be deleted.
type Fix = Vec<((Table, Key), Option<Bytes>)>;

impl Wrong {
    /// The record is dropped.
    fn drop(table: Table, key: &[u8], found: impl ToString) -> Self {
        Self { found: found.to_string(), fix: vec![((table, Key::from_slice(key)), None)] }
    }
}

impl From<ReadError> for Wrong {
    /// Another record that this one leans on does not read: told where it stands itself.
    fn from(cause: ReadError) -> Self {
        Self { found: cause.to_string(), fix: Vec::new() }
    }
}

impl Look<'_> {
    fn table(&mut self, table: Table, is_first: bool, progress: &mut dyn FnMut(&str)) {
        let partition = self.shared.partition;
        progress(&format!("partition {partition}: {}", table.name()));
        let mut count = 0_u64;
        // The row before, and the device whose sessions were looked at last.
        let mut before = None;
        for record in self.view.records(table) {
            let (key, value) = match record {
                Ok(record) => record,
                Err(cause) => {
                    self.tell(table, &[], cause.to_string());
                    break;
                }
            };
            count += 1;
            if count.is_multiple_of(PROGRESS) {
                progress(&format!("partition {partition}: {}, {count} records", table.name()));
            }
            if let Err(Wrong { found, fix }) = self.record(table, &key, &value, &mut before) {
                self.tell(table, &key, found);
                self.fixes.extend(fix);
            }
        }
        if is_first {
            self.verified.records += count;
        }
    }

    fn tell(&mut self, table: Table, key: &[u8], found: String) {
        self.found.count += 1;
        self.found.first.get_or_insert_with(|| format!("{}/{}", table.name(), hex(key)));
        self.verified.record(self.shared.partition, table, key, found);
    }

    fn record(
        &mut self,
        table: Table,
        key: &[u8],
        raw: &[u8],
        before: &mut Option<(DeviceNumber, Offset)>,
    ) -> Result<(), Wrong> {
        let drop = |found: &dyn ToString| Wrong::drop(table, key, found.to_string());
        if table == Table::Openings {
            // Without its salt no record of its opening opens: they go in this look, and it with them. No
            // number comes back for it: that of this opening of the folder is higher.
            return database::salt_in(raw).map(|_| ()).ok_or_else(|| drop(&"it holds no salt"));
        }
        if table == Table::Acts {
            // Also of one that does not read: no number is given twice.
            self.newest_act = self.newest_act.max(table::parse_act(key).unwrap_or_default());
        }
        let value = match self.view.open(table, key, raw) {
            Ok(value) => value,
            Err(ReadError::Damaged { cause, .. }) => return Err(drop(&cause)),
            Err(cause) => return Err(cause.into()),
        };
        match table {
            Table::Readings => self.row(key, value, before),
            Table::Log => {
                let (offset, number) = table::parse_log(key).ok_or_else(|| drop(&"its key has another length"))?;
                match self.view.has(Table::Readings, &table::reading(number, offset))? {
                    true => Ok(()),
                    false => Err(drop(&"it names no row")),
                }
            }
            Table::Sessions => self.session(key, value, before),
            Table::Registry => self.device(key, value),
            Table::Numbers => match key.len() {
                4 => record::decode_device_id(&value).map(|_| ()).map_err(|e| drop(&e)),
                _ => Err(drop(&"its key has another length")),
            },
            Table::Commands => self.command(key, value),
            Table::OpenCommands => {
                let command = self.open_command(key)?;
                command.ok_or_else(|| drop(&"it names no open command"))
            }
            Table::Prekeys => self.prekey(key, value),
            Table::Settings => self.setting(key, value),
            Table::Acts => self.act(key, &value),
            Table::Broker => {
                let (table, key) = key.split_first().ok_or_else(|| drop(&"its key is empty"))?;
                let table = BrokerTable::from_byte(*table).ok_or_else(|| drop(&"no such table of the broker's"))?;
                self.contents.broker(table, key, &value).map_err(|e| drop(&e))
            }
            // Told above: it is not opened.
            Table::Openings => Ok(()),
        }
    }

    fn prekey(&mut self, key: &[u8], value: Bytes) -> Result<(), Wrong> {
        let drop = |found: &dyn ToString| Wrong::drop(Table::Prekeys, key, found.to_string());
        let kind = match (key.split_first(), key.len()) {
            (Some((0, _)), 5) => PrekeyKind::Signed,
            (Some((1, rest)), 9) => {
                let number = number_of(rest).ok_or_else(|| drop(&"its key has another length"))?;
                PrekeyKind::OneTime(self.owner(number)?.ok_or_else(|| drop(&"no device has its number"))?)
            }
            _ => return Err(drop(&"its key has another length")),
        };
        let id = table::tail::<4>(key).map(u32::from_be_bytes).ok_or_else(|| drop(&"its key is too short"))?;
        let prekey = record::decode_prekey(kind, id, value).map_err(|e| drop(&e))?;
        self.contents.prekey(&prekey).map_err(|e| drop(&e))
    }

    fn setting(&mut self, key: &[u8], value: Bytes) -> Result<(), Wrong> {
        let drop = |found: &dyn ToString| Wrong::drop(Table::Settings, key, found.to_string());
        let number = number_of(key).ok_or_else(|| drop(&"its key is too short"))?;
        let name = table::parse_setting(key).ok_or_else(|| drop(&"its key names no setting"))?;
        let device = self.owner(number)?.ok_or_else(|| drop(&"no device has its number"))?;
        record::decode_setting(device, name, value).map(|_| ()).map_err(|e| drop(&e))
    }

    fn act(&mut self, key: &[u8], value: &Bytes) -> Result<(), Wrong> {
        let drop = |found: &dyn ToString| Wrong::drop(Table::Acts, key, found.to_string());
        table::parse_act(key).ok_or_else(|| drop(&"its key has another length"))?;
        Act::decode(value).map(|_| ()).map_err(|e| drop(&e))
    }

    fn row(&mut self, key: &[u8], value: Bytes, before: &mut Option<(DeviceNumber, Offset)>) -> Result<(), Wrong> {
        let drop = |found: &dyn ToString| Wrong::drop(Table::Readings, key, found.to_string());
        let offset = table::parse_reading(key).ok_or_else(|| drop(&"its key has another length"))?;
        let number = number_of(key).ok_or_else(|| drop(&"its key has another length"))?;
        let device = self.owner(number)?.ok_or_else(|| drop(&"no device has its number"))?;
        let row = Row::decode(device, offset, value).map_err(|e| drop(&e))?;
        let last = before.replace((number, offset)).filter(|(of, _)| *of == number).map(|(_, offset)| offset);
        let entry = table::log(offset, number);
        if !self.view.has(Table::Log, &entry)? {
            let fix = vec![((Table::Log, entry), Some(Bytes::new()))];
            return Err(Wrong { found: "the log does not name it".into(), fix });
        }
        match last {
            Some(last) if last != row.prev => {
                let mended = Row::encode(offset, last, &row.tag, &row.uplink);
                let found = format!("the row before it is {last}, and it names {}", row.prev);
                Err(Wrong { found, fix: vec![((Table::Readings, Key::from_slice(key)), Some(mended.into()))] })
            }
            _ => Ok(()),
        }
    }

    fn session(&mut self, key: &[u8], value: Bytes, before: &mut Option<(DeviceNumber, Offset)>) -> Result<(), Wrong> {
        let drop = |found: &dyn ToString| Wrong::drop(Table::Sessions, key, found.to_string());
        let number = number_of(key).ok_or_else(|| drop(&"its key is too short"))?;
        let part = table::tail::<1>(key).and_then(|[byte]| Part::from_byte(byte));
        let part = part.ok_or_else(|| drop(&"no such part"))?;
        let (_, _, state) = record::decode_session(value).map_err(|e| drop(&e))?;
        self.owner(number)?.ok_or_else(|| drop(&"no device has its number"))?;
        match part {
            Part::Peer => self.contents.peer(&state).map_err(|e| drop(&e))?,
            Part::Whole(slot) => {
                if let Some(cause) = self.unreadable(number, slot, state)? {
                    return Err(Wrong { found: cause, fix: self.begin_anew(number)?.1 });
                }
            }
            Part::Mark | Part::Chain(..) => {}
        }
        // The rest is looked at once for all records of a device.
        if before.replace((number, Offset::ZERO)).is_some_and(|(of, _)| of == number) {
            return Ok(());
        }
        match self.begin_anew(number)? {
            (Some(newest), fix) => {
                let found = format!("the device's newest row is {newest}, and its sessions name another");
                Err(Wrong { found, fix })
            }
            (None, _) => Ok(()),
        }
    }

    /// What is wrong with a session, together with what its chains have become since.
    fn unreadable(&self, number: DeviceNumber, slot: Slot, whole: Bytes) -> Result<Option<String>, Wrong> {
        let mut parts = query::Parts::default();
        parts.take(Part::Whole(slot), whole);
        for part in [Lane::Receive, Lane::Send].map(|lane| Part::Chain(slot, lane)) {
            let read = match self.view.get(Table::Sessions, &table::session(number, part)) {
                Ok(None) => continue,
                Ok(Some(value)) => record::decode_session(value).ok(),
                Err(ReadError::Damaged { .. }) => None,
                Err(cause) => return Err(cause.into()),
            };
            match read {
                Some((_, _, state)) => parts.take(part, state),
                // Told where it stands; the session is looked at without it when it is dropped.
                None => return Ok(None),
            }
        }
        Ok(parts.into_session().and_then(|session| self.contents.session(&session).err()))
    }

    /// What ends a device's sessions so that it begins anew and its version does not go back; and the
    /// device's newest row, where they are not of its moment.
    fn begin_anew(&self, number: DeviceNumber) -> Result<(Option<Offset>, Fix), Wrong> {
        let newest = query::newest_offset(self.view, number)?;
        let mut moment = query::Moment::default();
        let (mut fix, mut last) = (Vec::new(), Version::default());
        let read = query::session_parts(self.view, number, |part, version, newest, _| {
            moment.add(part, version, newest);
            last = last.max(version);
            if matches!(part, Part::Whole(_) | Part::Chain(..)) {
                fix.push(((Table::Sessions, table::session(number, part)), None));
            }
        });
        match read {
            // The record that does not read is told, and dropped, where it stands; then this is done anew.
            Err(ReadError::Damaged { .. }) => return Ok((None, Vec::new())),
            Err(cause) => return Err(cause.into()),
            Ok(()) => {}
        }
        let mark = record::encode_session(last, newest, &[]);
        fix.push(((Table::Sessions, table::session(number, Part::Mark)), Some(mark.into())));
        Ok((moment.is_stale(newest).then_some(newest), fix))
    }

    fn device(&mut self, key: &[u8], value: Bytes) -> Result<(), Wrong> {
        let drop = |found: &dyn ToString| Wrong::drop(Table::Registry, key, found.to_string());
        let id = record::decode_device_id(key).map_err(|e| drop(&e))?;
        let number = record::decode_device_number(value.clone()).map_err(|e| drop(&e))?;
        record::decode_device(id, value).map_err(|e| drop(&e))?;
        match self.owner(number)? {
            Some(owner) if owner == id => Ok(()),
            Some(owner) => Err(drop(&format!("its number {number} is {owner}'s"))),
            None => {
                let entry = (Table::Numbers, table::number_prefix(number));
                let fix = vec![(entry, Some(Bytes::copy_from_slice(id.as_bytes())))];
                self.devices.insert(number, Some(id));
                Err(Wrong { found: format!("its number {number} is nobody's"), fix })
            }
        }
    }

    fn command(&mut self, key: &[u8], value: Bytes) -> Result<(), Wrong> {
        let drop = |found: &dyn ToString| Wrong::drop(Table::Commands, key, found.to_string());
        let number = number_of(key).ok_or_else(|| drop(&"its key is too short"))?;
        let id = table::tail::<16>(key).map(CommandId::new).ok_or_else(|| drop(&"its key is too short"))?;
        let device = self.owner(number)?.ok_or_else(|| drop(&"no device has its number"))?;
        let command = record::decode_command(device, id, value).map_err(|e| drop(&e))?;
        let entry = table::open_command(number, command.created_at, &id);
        if command.is_final() || self.view.has(Table::OpenCommands, &entry)? {
            return Ok(());
        }
        Err(Wrong {
            found: "it is open, and not among the open ones".into(),
            fix: vec![((Table::OpenCommands, entry), Some(Bytes::new()))],
        })
    }

    /// Whether an entry of the open commands names one, of that time, that is not final.
    fn open_command(&mut self, key: &[u8]) -> Result<Option<()>, Wrong> {
        let parsed =
            number_of(key).zip(key.get(4..12).and_then(|ms| ms.first_chunk::<8>())).zip(table::tail::<16>(key));
        let Some(((number, ms), id)) = parsed.filter(|_| key.len() == 28) else { return Ok(None) };
        let (created_at, id) = (UnixTime::from_ms(u64::from_be_bytes(*ms)), CommandId::new(id));
        let Some(device) = self.owner(number)? else { return Ok(None) };
        match query::command_of(self.view, number, &device, &id) {
            Ok(command) => {
                let is_open = command.is_some_and(|it| !it.is_final() && it.created_at == created_at);
                Ok(is_open.then_some(()))
            }
            // Dropped with the command it names.
            Err(ReadError::Damaged { .. }) => Ok(None),
            Err(cause) => Err(cause.into()),
        }
    }

    fn owner(&mut self, number: DeviceNumber) -> Result<Option<DeviceId>, ReadError> {
        if let Some(known) = self.devices.get(&number) {
            return Ok(*known);
        }
        let value = match self.view.get(Table::Numbers, &table::number_prefix(number)) {
            Ok(value) => value,
            Err(ReadError::Damaged { .. }) => None,
            Err(cause) => return Err(cause),
        };
        let owner = value.and_then(|value| record::decode_device_id(&value).ok());
        self.devices.insert(number, owner);
        Ok(owner)
    }
}

fn number_of(key: &[u8]) -> Option<DeviceNumber> {
    key.first_chunk::<4>().map(|bytes| DeviceNumber::new(u32::from_be_bytes(*bytes)))
}
