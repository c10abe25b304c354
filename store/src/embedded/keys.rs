//! The life of a folder's keys: what is still sealed under one, and how it is destroyed.
//!
//! A key is destroyed only after all of this, in this order:
//!
//! 1. it is rotated, so that nothing new is sealed under it;
//! 2. every writer has committed a batch since, so that nothing is under way under it either;
//! 3. a walk over every table of every partition finds no record that names it.
//!
//! What a walk finds is written again, as it is, through the writer ([`Op::Reseal`](crate::Op)),
//! and the next walk looks anew. So no clock that is wrong takes a key away from a record.

use std::num::NonZeroU16;
use std::ops::ControlFlow;
use std::sync::Arc;

use unhidra_core::ids::Partition;

use super::Embedded;
use super::shared::Shared;
use crate::keyring::{Keyring, KeyringError};
use crate::sealed::key_of;
use crate::table::{Key, RecordName, Table};
use crate::{BoxFuture, ReadError};

/// How many records one step of a walk looks at.
const STEP_RECORDS: usize = 8192;

/// How many records, and bytes of them, one step gives to be sealed anew.
const STEP_FOUND: usize = 256;
const STEP_FOUND_BYTES: usize = 256 * 1024;

/// A step of a walk over a partition's records.
#[derive(Debug)]
pub struct Resealable {
    /// What is sealed under the keys that were asked for.
    pub names: Vec<RecordName>,
    /// Behind which record the next step begins; `None` at the end.
    pub next: Option<RecordName>,
}

impl Embedded {
    /// The key ring; `None` in a plain folder.
    #[must_use]
    pub const fn keyring(&self) -> Option<&Arc<Keyring>> {
        self.ring.as_ref()
    }

    /// Changes the key ring, and writes down in every partition how new it is, so that an older one
    /// in its place is noticed. `None` in a plain folder.
    pub fn change_keys<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Keyring) -> Result<T, KeyringError> + Send + 'static,
    ) -> BoxFuture<'_, Option<Result<T, KeyringError>>> {
        let Some(ring) = self.ring.clone() else { return Box::pin(async { None }) };
        let partitions = self.partitions.clone();
        Box::pin(async move {
            let changing = tokio::task::spawn_blocking(move || {
                let changed = change(&ring)?;
                let mark = |shared: &Arc<Shared>| shared.mark_ring().map_err(KeyringError::NotMarked);
                partitions.iter().try_for_each(mark)?;
                Ok(changed)
            });
            Some(changing.await.unwrap_or_else(|error| Err(KeyringError::NotMarked(error.to_string()))))
        })
    }

    /// Destroys keys of the ring. Whoever calls has walked over everything, as this module says.
    pub fn destroy_keys(&self, ids: Vec<NonZeroU16>) -> BoxFuture<'_, Option<Result<(), KeyringError>>> {
        self.change_keys(move |ring| ring.destroy(&ids))
    }

    /// One step of a walk: what is sealed under any of `ids` among the records after `after`.
    pub fn sealed_under(
        &self,
        partition: Partition,
        ids: Vec<NonZeroU16>,
        after: Option<RecordName>,
    ) -> BoxFuture<'_, Result<Resealable, ReadError>> {
        self.read(partition, move |view, _| {
            let mut found = Resealable { names: Vec::new(), next: after };
            let (mut looked_at, mut bytes) = (0_usize, 0_usize);
            let first = found.next.as_ref().map_or(0, |name| name.table.index());
            for table in Table::ALL.into_iter().skip(first).filter(|table| table.is_sealed()) {
                let after = found.next.take().filter(|name| name.table == table).map(|name| name.key);
                let mut end = None;
                view.records_after(table, after.as_deref(), |key, record| {
                    looked_at += 1;
                    if key_of(record).is_some_and(|id| ids.iter().any(|wanted| wanted.get() == id)) {
                        bytes = bytes.saturating_add(record.len());
                        found.names.push(RecordName { table, key: Key::from_slice(key) });
                    }
                    if looked_at < STEP_RECORDS && found.names.len() < STEP_FOUND && bytes < STEP_FOUND_BYTES {
                        return ControlFlow::Continue(());
                    }
                    end = Some(RecordName { table, key: Key::from_slice(key) });
                    ControlFlow::Break(())
                })?;
                if end.is_some() {
                    found.next = end;
                    break;
                }
            }
            Ok(found)
        })
    }
}
