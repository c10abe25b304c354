//! What every engine gives to read: one consistent view of a partition's tables.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::ReadError;
use crate::table::Table;

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Order {
    Ascending,
    Descending,
}

/// What a scan shows its rows to.
pub(crate) type Visitor<'a> = dyn FnMut(&[u8], Bytes) -> Result<ControlFlow<()>, ReadError> + 'a;

/// One consistent view of a partition.
pub(crate) trait Rows {
    /// One value.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, ReadError>;

    /// Shows `visit` the rows whose keys begin with `prefix` and, where it is given, come after
    /// `after`, until it breaks.
    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        order: Order,
        visit: &mut Visitor<'_>,
    ) -> Result<(), ReadError>;

    /// The key that comes last among those that begin with `prefix`.
    fn last_key(&self, table: Table, prefix: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let mut last = None;
        self.scan(table, prefix, None, Order::Descending, &mut |key, _| {
            last = Some(key.to_vec());
            Ok(ControlFlow::Break(()))
        })?;
        Ok(last)
    }
}

/// Says which record is damaged, and how.
pub(crate) fn damaged(table: Table, key: &[u8], cause: impl ToString) -> ReadError {
    let key: String = key.iter().take(80).map(|byte| format!("{byte:02x}")).collect();
    ReadError::Damaged { record: format!("{}/{key}", table.name()), cause: cause.to_string() }
}
