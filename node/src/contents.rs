//! What the store keeps for the other rooms, read for whoever looks over a store.

use bytes::Bytes;
use unhidra_bridge::{check_peer, check_prekey, check_session};
use unhidra_broker::{PersistTable, check_record};
use unhidra_store::{BrokerTable, Contents, PrekeyRecord, StoredSession};

use crate::{calendar, outlets, unsettled};

/// Reads each record as the room that wrote it does.
pub(crate) struct Rooms;

impl Contents for Rooms {
    fn broker(&self, table: BrokerTable, key: &[u8], value: &Bytes) -> Result<(), String> {
        let table = match table {
            BrokerTable::Retained => PersistTable::Retained,
            BrokerTable::Sessions => PersistTable::Sessions,
            BrokerTable::Subscriptions => PersistTable::Subscriptions,
            BrokerTable::Messages => PersistTable::Messages,
            BrokerTable::Queued => PersistTable::Queued,
            BrokerTable::Exchanges => PersistTable::Exchanges,
            BrokerTable::Calendar => return calendar::check(value),
            BrokerTable::Unsettled => return unsettled::check(key, value),
            BrokerTable::Outlets => return outlets::check_cursor(key, value).map_err(|cause| cause.to_string()),
        };
        check_record(table, key, value)
    }

    fn session(&self, session: &StoredSession) -> Result<(), String> {
        check_session(session)
    }

    fn peer(&self, bytes: &[u8]) -> Result<(), String> {
        check_peer(bytes)
    }

    fn prekey(&self, prekey: &PrekeyRecord) -> Result<(), String> {
        check_prekey(prekey)
    }
}
