//! A partition's tables in memory.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::ReadError;
use crate::ledger::Writes;
use crate::rows::{Order, Rows, Visitor, bounds, prefix_end};
use crate::table::{Key, Table};

/// In the order of [`Table::ALL`].
#[derive(Clone)]
pub(crate) struct Tables(Vec<BTreeMap<Key, Bytes>>);

impl Tables {
    pub(crate) fn new() -> Self {
        Self(Table::ALL.map(|_| BTreeMap::new()).into())
    }

    fn table(&self, table: Table) -> &BTreeMap<Key, Bytes> {
        &self.0[table.index()]
    }

    /// Says whether there was a value before.
    pub(crate) fn write(&mut self, table: Table, key: Key, value: Option<Bytes>) -> bool {
        let table = &mut self.0[table.index()];
        match value {
            Some(value) => table.insert(key, value).is_some(),
            None => table.remove(&key).is_some(),
        }
    }

    pub(crate) fn apply(&mut self, writes: &Writes) {
        for ((table, key), value) in writes {
            self.write(*table, key.clone(), value.clone());
        }
    }
}

impl Rows for Tables {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        Ok(self.table(table).get(key).cloned())
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        order: Order,
        visit: &mut Visitor<'_>,
    ) -> Result<(), ReadError> {
        let end = prefix_end(prefix);
        let mut rows = self.table(table).range::<[u8], _>(bounds(prefix, end.as_deref(), after, order));
        while let Some((key, value)) = match order {
            Order::Ascending => rows.next(),
            Order::Descending => rows.next_back(),
        } {
            if visit(key, value.clone())? == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }
}
