//! What kind of record a value is: the byte after the version in every header.
//!
//! A tag is part of the format: it is never given another meaning, and a new kind of record takes
//! the next free one. It is written down although table and key say as much, so that a record that
//! was put in another's place is known for what it is before anything is read from it.
//!
//! ```text
//! 0x01 row                0x06 device               0x11 retained message      0x14 subscription
//! 0x02 session's version  0x07 device's id          0x12 broker's session      0x15 broker's message
//! 0x03 session            0x08 command              0x13 queued message        0x16 packet identifier
//! 0x04 chain              0x09 signed prekey
//! 0x05 peer               0x0a one-time prekey      0x0b opening
//! 0x0d setting            0x0e outlet's cursor      0x0f time of day        0x0c act
//! 0x10 device left out
//! ```

use crate::BrokerTable;
use crate::table::{Part, Table, tail};

/// A kind of record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Tag {
    Row = 0x01,
    Mark = 0x02,
    Session = 0x03,
    Chain = 0x04,
    Peer = 0x05,
    Device = 0x06,
    Number = 0x07,
    Command = 0x08,
    SignedPrekey = 0x09,
    OneTimePrekey = 0x0a,
    Opening = 0x0b,
    Act = 0x0c,
    Setting = 0x0d,
    OutletCursor = 0x0e,
    Calendar = 0x0f,
    Unsettled = 0x10,
    Retained = 0x11,
    BrokerSession = 0x12,
    Queued = 0x13,
    Subscription = 0x14,
    BrokerMessage = 0x15,
    Exchange = 0x16,
}

impl Tag {
    /// The kind of the record under a key of a table. `None` for a key that no record has, and for
    /// the tables whose keys say all.
    pub(crate) fn of(table: Table, key: &[u8]) -> Option<Self> {
        Some(match table {
            Table::Readings => Self::Row,
            Table::Log | Table::OpenCommands => return None,
            Table::Sessions => match tail::<1>(key).and_then(|[byte]| Part::from_byte(byte))? {
                Part::Mark => Self::Mark,
                Part::Whole(_) => Self::Session,
                Part::Chain(..) => Self::Chain,
                Part::Peer => Self::Peer,
            },
            Table::Registry => Self::Device,
            Table::Numbers => Self::Number,
            Table::Commands => Self::Command,
            Table::Prekeys => match key.first()? {
                0 => Self::SignedPrekey,
                1 => Self::OneTimePrekey,
                _ => return None,
            },
            Table::Broker => Self::of_broker(BrokerTable::from_byte(*key.first()?)?),
            Table::Openings => Self::Opening,
            Table::Acts => Self::Act,
            Table::Settings => Self::Setting,
        })
    }

    /// The kind of the broker's records in a table: a new table has one, or this does not compile.
    const fn of_broker(table: BrokerTable) -> Self {
        match table {
            BrokerTable::Retained => Self::Retained,
            BrokerTable::Sessions => Self::BrokerSession,
            BrokerTable::Queued => Self::Queued,
            BrokerTable::Subscriptions => Self::Subscription,
            BrokerTable::Messages => Self::BrokerMessage,
            BrokerTable::Exchanges => Self::Exchange,
            BrokerTable::Outlets => Self::OutletCursor,
            BrokerTable::Calendar => Self::Calendar,
            BrokerTable::Unsettled => Self::Unsettled,
        }
    }

    /// Its byte in a header.
    pub(crate) const fn as_byte(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Lane, Slot};

    #[test]
    fn every_kind_of_record_has_the_tag_it_was_given() {
        let part = |part: Part| [0, 0, 0, 1, part.as_byte()];
        for (table, key, tag) in [
            (Table::Readings, &[0; 12][..], 0x01),
            (Table::Sessions, &part(Part::Mark), 0x02),
            (Table::Sessions, &part(Part::Whole(Slot::Previous)), 0x03),
            (Table::Sessions, &part(Part::Chain(Slot::Present, Lane::Send)), 0x04),
            (Table::Sessions, &part(Part::Peer), 0x05),
            (Table::Registry, b"pump-7", 0x06),
            (Table::Numbers, &[0; 4], 0x07),
            (Table::Commands, &[0; 20], 0x08),
            (Table::Prekeys, &[0, 0, 0, 0, 1], 0x09),
            (Table::Prekeys, &[1, 0, 0, 0, 1, 0, 0, 0, 1], 0x0a),
            (Table::Openings, &[0; 4], 0x0b),
            (Table::Acts, &[0; 8], 0x0c),
            (Table::Settings, &[0, 0, 0, 1, b'a'], 0x0d),
            (Table::Broker, &[1], 0x11),
            (Table::Broker, &[6, 7], 0x16),
            (Table::Broker, b"\x07hook/0", 0x0e),
            (Table::Broker, b"\x08seen", 0x0f),
            (Table::Broker, b"\x09pump-7", 0x10),
        ] {
            assert_eq!(Tag::of(table, key).map(Tag::as_byte), Some(tag), "{table:?} {key:?}");
        }
    }

    #[test]
    fn no_two_tables_of_the_broker_have_one_tag() {
        let tags: Vec<Option<Tag>> =
            BrokerTable::ALL.iter().map(|table| Tag::of(Table::Broker, &[*table as u8])).collect();
        assert!(tags.iter().all(Option::is_some), "{tags:?}");
        assert!((0..tags.len()).all(|at| !tags[..at].contains(&tags[at])), "{tags:?}");
    }

    #[test]
    fn a_key_that_no_record_has_has_no_tag() {
        for (table, key) in [
            (Table::Sessions, &[0, 0, 0, 1, 9][..]),
            (Table::Sessions, &[]),
            (Table::Prekeys, &[2, 0]),
            (Table::Broker, &[]),
            (Table::Broker, &[0]),
            (Table::Broker, &[10]),
            (Table::Log, &[0; 12]),
            (Table::OpenCommands, &[0; 28]),
        ] {
            assert_eq!(Tag::of(table, key), None, "{table:?} {key:?}");
        }
    }
}
