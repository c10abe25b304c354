//! Whether a record reads, for whoever looks over a store without serving from it.

use bytes::Bytes;

use super::fields::RecordError;
use super::message::MessageRecord;
use super::queued::{Exchange, QueuedRecord, decode_number_key, decode_queued_key};
use super::session::{SessionRecord, decode_interest};
use crate::doors::PersistTable;

/// Reads a record to its last byte, and its key where that says more than a topic.
///
/// # Errors
///
/// What is wrong with it, in words.
pub fn check_record(table: PersistTable, key: &[u8], value: &Bytes) -> Result<(), String> {
    read(table, &Bytes::copy_from_slice(key), value.clone()).map_err(|cause| cause.to_string())
}

fn read(table: PersistTable, key: &Bytes, value: Bytes) -> Result<(), RecordError> {
    match table {
        PersistTable::Retained => MessageRecord::decode(value).map(|_| ()),
        PersistTable::Sessions => {
            decode_number_key(key)?;
            SessionRecord::decode(value).map(|_| ())
        }
        PersistTable::Subscriptions => decode_interest(key, value).map(|_| ()),
        PersistTable::Messages => {
            decode_number_key(key)?;
            MessageRecord::decode(value).map(|_| ())
        }
        PersistTable::Queued => {
            decode_queued_key(key)?;
            QueuedRecord::decode(value).map(|_| ())
        }
        PersistTable::Exchanges => Exchange::decode(key, value).map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::PacketId;
    use crate::router::SubscriberId;

    #[test]
    fn a_record_that_does_not_read_is_told_and_one_that_does_is_not() {
        let packet_id = PacketId::new(7).unwrap();
        let whole = Exchange::Sent(9).put(SubscriberId(1), packet_id);
        let value = whole.value.unwrap();
        assert_eq!(check_record(PersistTable::Exchanges, &whole.key, &value), Ok(()));
        let tables = [
            PersistTable::Retained,
            PersistTable::Sessions,
            PersistTable::Subscriptions,
            PersistTable::Messages,
            PersistTable::Queued,
            PersistTable::Exchanges,
        ];
        for table in tables {
            assert!(check_record(table, &whole.key, &Bytes::from_static(b"\x09")).is_err(), "{table:?}");
        }
        assert!(check_record(PersistTable::Exchanges, &whole.key[1..], &value).is_err());
        assert!(check_record(PersistTable::Exchanges, &whole.key, &value.slice(..8)).is_err());
    }
}
