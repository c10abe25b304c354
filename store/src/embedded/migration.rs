//! Makes a partition of format version 1 one of version 2.
//!
//! The records of sessions are written anew with their device's newest row in them. All others are
//! read as version 1 wrote them, and get their tag when they are written next. Nobody is served
//! meanwhile. A crash in between leaves the format file at version 1, and all of it is done again:
//! what was written anew already is so again, and says the same.

use bytes::Bytes;
use unhidra_core::ids::{DeviceNumber, Offset, Version};

use crate::ledger::Writes;
use crate::record;
use crate::rows::damaged;
use crate::sealed::{VERSION_1, record_version};
use crate::table::{self, Key, Part, Table};
use crate::{Lane, ReadError, query};

use super::database::{Database, Opening, View};

/// Records written in one commit.
const COMMIT_RECORDS: usize = 4096;

/// Writes the session records anew. Says how many they are.
///
/// # Errors
///
/// What does not read or write, in words.
pub(super) fn migrate(database: &Database, opening: &Opening) -> Result<u64, String> {
    let mut count = 0;
    let mut writes = Writes::new();
    let mut device: Option<Seen> = None;
    let view = database.view(&opening.sealing);
    for entry in view.records(Table::Sessions) {
        let (key, value) = entry.map_err(|e| e.to_string())?;
        let read = read(&view, &key, &value).map_err(|e| e.to_string())?;
        if device.as_ref().is_none_or(|seen| seen.number != read.number) {
            if let Some(seen) = device.take() {
                seen.finish(&mut writes);
            }
            if writes.len() >= COMMIT_RECORDS {
                database.commit(&opening.sealing, &std::mem::take(&mut writes), true)?;
            }
            let newest = query::newest_offset(&view, read.number).map_err(|e| e.to_string())?;
            device = Some(Seen { number: read.number, newest, version: Version::default(), says: false });
        }
        if let Some(seen) = &mut device {
            seen.version = seen.version.max(read.version);
            seen.says |= matches!(read.part, Part::Mark | Part::Whole(_) | Part::Chain(_, Lane::Receive));
            let value = record::encode_session(read.version, seen.newest, &read.state);
            writes.insert((Table::Sessions, Key::from_slice(&key)), Some(value.into()));
            count += 1;
        }
    }
    if let Some(seen) = device {
        seen.finish(&mut writes);
    }
    if !writes.is_empty() {
        database.commit(&opening.sealing, &writes, true)?;
    }
    Ok(count)
}

/// The device whose records are being read.
struct Seen {
    number: DeviceNumber,
    newest: Offset,
    version: Version,
    /// Whether one of them is of those that say what the newest row is.
    says: bool,
}

impl Seen {
    fn finish(self, writes: &mut Writes) {
        if !self.says {
            let value = record::encode_session(self.version, self.newest, &[]);
            writes.insert((Table::Sessions, table::session(self.number, Part::Mark)), Some(value.into()));
        }
    }
}

/// A record of either version.
struct Read {
    number: DeviceNumber,
    part: Part,
    version: Version,
    state: Bytes,
}

fn read(view: &View<'_>, key: &[u8], value: &[u8]) -> Result<Read, ReadError> {
    let no_part = || damaged(Table::Sessions, key, "no such part");
    let (number, part) = key.split_first_chunk::<4>().ok_or_else(no_part)?;
    let part = match part {
        [byte] => Part::from_byte(*byte).ok_or_else(no_part)?,
        _ => return Err(no_part()),
    };
    let opened = view.open_any(Table::Sessions, key, value)?;
    let decoded = match record_version(value) {
        Some(VERSION_1) => record::decode_session_1(opened),
        _ => record::decode_session(opened).map(|(version, _, state)| (version, state)),
    };
    let (version, state) = decoded.map_err(|e| damaged(Table::Sessions, key, e))?;
    Ok(Read { number: DeviceNumber::new(u32::from_be_bytes(*number)), part, version, state })
}

#[cfg(test)]
mod tests;
