//! Where the broker's sessions and messages are kept: in the store, all in partition 0, so that
//! what belongs together is one commit and one order holds over all.

use std::sync::Arc;

use bytes::Bytes;
use unhidra_broker::{BoxFuture, Change, NoRoom, Persist, PersistError, PersistTable, Persisted, Records};
use unhidra_core::ids::Partition;
use unhidra_store::{Batch, BrokerTable, CommitError, Limit, Op, Store, Unit};

/// The partition that holds all of it.
pub(crate) const PARTITION: Partition = Partition::new(0);

/// What a page of records may hold.
const PAGE: Limit = Limit { rows: 4096, bytes: 1024 * 1024 };

/// What the broker keeps, in the store.
pub(crate) struct Kept {
    store: Arc<dyn Store>,
}

impl Kept {
    pub(crate) fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { store })
    }
}

/// The store's name for a table of the broker's.
const fn table_of(table: PersistTable) -> BrokerTable {
    match table {
        PersistTable::Retained => BrokerTable::Retained,
        PersistTable::Sessions => BrokerTable::Sessions,
        PersistTable::Subscriptions => BrokerTable::Subscriptions,
        PersistTable::Messages => BrokerTable::Messages,
        PersistTable::Queued => BrokerTable::Queued,
        PersistTable::Exchanges => BrokerTable::Exchanges,
    }
}

impl Persist for Kept {
    fn write(&self, changes: &[Change], done: Persisted) -> Result<(), NoRoom> {
        let op = |change: &Change| Op::Broker {
            table: table_of(change.table),
            key: change.key.clone(),
            value: change.value.clone(),
        };
        let ops = changes.iter().map(op).collect();
        let done = Box::new(move |outcome: Result<_, CommitError>| done(outcome.map(|_| ()).map_err(persist_error)));
        let batch = Batch { partition: PARTITION, fence: self.store.fence(PARTITION), ops, unit: Unit::Batch, done };
        self.store.submit(batch).map_err(|_| NoRoom)
    }

    fn room(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.store.room(PARTITION).notified_owned())
    }

    fn read(&self, table: PersistTable, after: Option<Bytes>) -> BoxFuture<'_, Result<Records, PersistError>> {
        Box::pin(async move {
            let page = self.store.broker_records(table_of(table), after.as_deref(), PAGE).await;
            let page = page.map_err(|error| PersistError::Closed(error.to_string()))?;
            Ok(Records { rows: page.rows, more: page.more })
        })
    }
}

fn persist_error(error: CommitError) -> PersistError {
    match error {
        CommitError::Unknown(cause) => PersistError::Unknown(cause),
        CommitError::Closed | CommitError::Fenced { .. } => PersistError::Closed(error.to_string()),
        CommitError::Version { .. }
        | CommitError::NoDevice(_)
        | CommitError::OtherPartition { .. }
        | CommitError::TooLarge { .. }
        | CommitError::NoKind { .. }
        | CommitError::Damaged { .. } => PersistError::Refused(error.to_string()),
    }
}
