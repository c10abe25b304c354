//! The tables of a partition, and the keys in them.
//!
//! All numbers in keys are big-endian, so that the order of the keys is the order of the numbers.
//! Keys are not encrypted: who reads the disk learns the names of devices, how many rows each has,
//! the ids of commands, the names of settings and the topics of retained messages, and no value.
//!
//! ```text
//! table          key                                             value
//! readings       number 4, Offset 8                              a row (record.rs)
//! log            Offset 8, number 4                              nothing: the key says all
//! sessions       number 4, part 1                                version 4, newest 4, state (record.rs)
//! registry       the device's id                                 a device
//! numbers        number 4                                        the device's id
//! commands       number 4, command id 16                         a command
//! open-commands  number 4, created at 8, command id 16           nothing
//! prekeys        0, id 4  or  1, number 4, id 4                  a prekey
//! broker         table 1, the broker's key                       the broker's value
//! openings       opening 4                                       a salt (sealed.rs)
//! acts           number 8                                        an act (act.rs)
//! settings       number 4, the setting's name                    a setting
//! ```

use smallvec::SmallVec;
use unhidra_core::ids::{CommandId, DeviceNumber, Offset};
use unhidra_core::setting::SettingName;
use unhidra_core::time::UnixTime;

use crate::ring::Purpose;
use crate::{BrokerTable, Lane, Slot};

/// A table of a partition.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub(crate) enum Table {
    Readings = 1,
    Log = 2,
    Sessions = 3,
    Registry = 4,
    Numbers = 5,
    Commands = 6,
    OpenCommands = 7,
    Prekeys = 8,
    Broker = 9,
    Openings = 10,
    Acts = 11,
    Settings = 12,
}

impl Table {
    pub(crate) const ALL: [Self; 12] = [
        Self::Readings,
        Self::Log,
        Self::Sessions,
        Self::Registry,
        Self::Numbers,
        Self::Commands,
        Self::OpenCommands,
        Self::Prekeys,
        Self::Broker,
        Self::Openings,
        Self::Acts,
        Self::Settings,
    ];

    /// Its name on disk and in errors.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Readings => "readings",
            Self::Log => "log",
            Self::Sessions => "sessions",
            Self::Registry => "registry",
            Self::Numbers => "numbers",
            Self::Commands => "commands",
            Self::OpenCommands => "open-commands",
            Self::Prekeys => "prekeys",
            Self::Broker => "broker",
            Self::Openings => "openings",
            Self::Acts => "acts",
            Self::Settings => "settings",
        }
    }

    /// Whether its keys say all, and its values are empty.
    pub(crate) const fn is_index(self) -> bool {
        matches!(self, Self::Log | Self::OpenCommands)
    }

    /// What the keys that seal its values are for.
    pub(crate) const fn purpose(self) -> Purpose {
        match self {
            Self::Sessions | Self::Prekeys => Purpose::Sessions,
            Self::Readings | Self::Log | Self::Commands | Self::OpenCommands | Self::Settings => Purpose::Readings,
            Self::Broker => Purpose::Broker,
            Self::Registry | Self::Numbers | Self::Openings | Self::Acts => Purpose::Registry,
        }
    }

    /// Whether its values are sealed. Those of an index are empty, and the salts are what the keys
    /// are derived with.
    pub(crate) const fn is_sealed(self) -> bool {
        !self.is_index() && !matches!(self, Self::Openings)
    }

    /// Its place in [`Table::ALL`], where the bytes count from 1.
    pub(crate) const fn index(self) -> usize {
        self as usize - 1
    }

    /// The byte that stands for it in what a record is sealed to.
    pub(crate) const fn as_byte(self) -> u8 {
        self as u8
    }
}

/// What names a record: its table and its key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RecordName {
    pub(crate) table: Table,
    pub(crate) key: Key,
}

impl RecordName {
    pub(crate) fn len(&self) -> usize {
        self.key.len()
    }
}

/// A key: in its place up to 24 bytes, which most have, so that a comparison reads no other memory.
pub(crate) type Key = SmallVec<[u8; 24]>;

/// The most bytes a key may have: the engine's bound.
pub(crate) const KEY_LEN_MAX: usize = u16::MAX as usize;

/// A record of a device's sessions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Part {
    /// The version alone, written where no other record would carry it.
    Mark,
    /// A session, whole.
    Whole(Slot),
    /// What a chain has become since.
    Chain(Slot, Lane),
    /// What outlives sessions.
    Peer,
}

impl Part {
    pub(crate) const fn as_byte(self) -> u8 {
        match self {
            Self::Mark => 0x00,
            Self::Peer => 0x01,
            Self::Whole(Slot::Present) => 0x10,
            Self::Chain(Slot::Present, Lane::Receive) => 0x11,
            Self::Chain(Slot::Present, Lane::Send) => 0x12,
            Self::Whole(Slot::Previous) => 0x20,
            Self::Chain(Slot::Previous, Lane::Receive) => 0x21,
            Self::Chain(Slot::Previous, Lane::Send) => 0x22,
        }
    }

    pub(crate) const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0x00 => Self::Mark,
            0x01 => Self::Peer,
            0x10 => Self::Whole(Slot::Present),
            0x11 => Self::Chain(Slot::Present, Lane::Receive),
            0x12 => Self::Chain(Slot::Present, Lane::Send),
            0x20 => Self::Whole(Slot::Previous),
            0x21 => Self::Chain(Slot::Previous, Lane::Receive),
            0x22 => Self::Chain(Slot::Previous, Lane::Send),
            _ => return None,
        })
    }
}

fn joined(parts: &[&[u8]]) -> Key {
    let mut joined = Key::new();
    parts.iter().for_each(|part| joined.extend_from_slice(part));
    joined
}

pub(crate) fn number_prefix(number: DeviceNumber) -> Key {
    Key::from_slice(&number.get().to_be_bytes())
}

pub(crate) fn reading(number: DeviceNumber, offset: Offset) -> Key {
    joined(&[&number.get().to_be_bytes(), &offset.get().to_be_bytes()])
}

pub(crate) fn log(offset: Offset, number: DeviceNumber) -> Key {
    joined(&[&offset.get().to_be_bytes(), &number.get().to_be_bytes()])
}

pub(crate) fn session(number: DeviceNumber, part: Part) -> Key {
    joined(&[&number.get().to_be_bytes(), &[part.as_byte()]])
}

pub(crate) fn command(number: DeviceNumber, id: &CommandId) -> Key {
    joined(&[&number.get().to_be_bytes(), id.as_bytes()])
}

pub(crate) fn open_command(number: DeviceNumber, created_at: UnixTime, id: &CommandId) -> Key {
    joined(&[&number.get().to_be_bytes(), &created_at.as_ms().to_be_bytes(), id.as_bytes()])
}

/// What comes behind every key of a device's open commands.
pub(crate) fn open_commands_end(number: DeviceNumber) -> Key {
    joined(&[&number.get().to_be_bytes(), &[0xff; 24]])
}

/// The device's number in a key of the open commands.
pub(crate) fn parse_open_command(key: &[u8]) -> Option<DeviceNumber> {
    let number = key.first_chunk::<4>().filter(|_| key.len() == 28)?;
    Some(DeviceNumber::new(u32::from_be_bytes(*number)))
}

pub(crate) fn setting(number: DeviceNumber, name: &SettingName) -> Key {
    joined(&[&number.get().to_be_bytes(), name.as_str().as_bytes()])
}

/// The name in a key of the settings.
pub(crate) fn parse_setting(key: &[u8]) -> Option<SettingName> {
    std::str::from_utf8(key.get(4..)?).ok()?.parse().ok()
}

pub(crate) fn signed_prekeys() -> Key {
    Key::from_slice(&[0])
}

pub(crate) fn signed_prekey(id: u32) -> Key {
    joined(&[&[0], &id.to_be_bytes()])
}

pub(crate) fn one_time_prekeys(number: DeviceNumber) -> Key {
    joined(&[&[1], &number.get().to_be_bytes()])
}

pub(crate) fn one_time_prekey(number: DeviceNumber, id: u32) -> Key {
    joined(&[&[1], &number.get().to_be_bytes(), &id.to_be_bytes()])
}

pub(crate) fn broker(table: BrokerTable, key: &[u8]) -> Key {
    joined(&[&[table as u8], key])
}

pub(crate) fn act(number: u64) -> Key {
    Key::from_slice(&number.to_be_bytes())
}

/// The number of a key of the acts.
pub(crate) fn parse_act(key: &[u8]) -> Option<u64> {
    key.try_into().ok().map(u64::from_be_bytes)
}

/// The last `N` bytes of a key, where it has as many.
pub(crate) fn tail<const N: usize>(key: &[u8]) -> Option<[u8; N]> {
    key.last_chunk::<N>().copied()
}

/// The offset and the number of a key of the log.
pub(crate) fn parse_log(key: &[u8]) -> Option<(Offset, DeviceNumber)> {
    let (offset, number) = key.split_first_chunk::<8>()?;
    let number: [u8; 4] = number.try_into().ok()?;
    Some((Offset::new(u64::from_be_bytes(*offset)), DeviceNumber::new(u32::from_be_bytes(number))))
}

/// The offset of a key of the readings.
pub(crate) fn parse_reading(key: &[u8]) -> Option<Offset> {
    (key.len() == 12).then(|| tail::<8>(key)).flatten().map(|bytes| Offset::new(u64::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_order_as_their_numbers() {
        let number = DeviceNumber::new;
        assert!(reading(number(1), Offset::new(u64::MAX)) < reading(number(2), Offset::new(0)));
        assert!(reading(number(1), Offset::new(255)) < reading(number(1), Offset::new(256)));
        assert!(log(Offset::new(1), number(u32::MAX)) < log(Offset::new(2), number(0)));
    }

    #[test]
    fn every_table_stands_at_its_place() {
        assert!(Table::ALL.iter().enumerate().all(|(at, table)| table.index() == at));
    }

    #[test]
    fn parts_are_told_apart_and_read_back() {
        let parts: Vec<Part> = (0..=u8::MAX).filter_map(Part::from_byte).collect();
        assert_eq!(parts.len(), 8);
        assert!(parts.iter().all(|part| Part::from_byte(part.as_byte()) == Some(*part)));
    }

    #[test]
    fn a_key_of_the_log_reads_back() {
        let key = log(Offset::new(7), DeviceNumber::new(9));
        assert_eq!(parse_log(&key), Some((Offset::new(7), DeviceNumber::new(9))));
        assert_eq!(parse_log(&key[1..]), None);
        assert_eq!(parse_reading(&reading(DeviceNumber::new(9), Offset::new(7))), Some(Offset::new(7)));
        assert_eq!(parse_reading(&key[1..]), None);
        let key = open_command(DeviceNumber::new(9), UnixTime::from_ms(u64::MAX), &CommandId::new([0xff; 16]));
        assert_eq!(parse_open_command(&key), Some(DeviceNumber::new(9)));
        assert!(key <= open_commands_end(DeviceNumber::new(9)) && parse_open_command(&key[1..]).is_none());
        let name: SettingName = "interval".parse().unwrap();
        assert_eq!(parse_setting(&setting(DeviceNumber::new(9), &name)), Some(name));
    }
}
