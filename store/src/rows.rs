//! What every engine gives to read: one consistent view of a partition's tables.

use std::ops::{Bound, ControlFlow};

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

/// What a look at keys alone shows them to.
pub(crate) type KeyVisitor<'a> = dyn FnMut(&[u8]) -> ControlFlow<()> + 'a;

/// One consistent view of a partition.
pub(crate) trait Rows {
    /// One value.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, ReadError>;

    /// Shows `visit` the rows whose keys begin with `prefix` and, where it is given, come after
    /// `after` in this order, until it breaks.
    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        order: Order,
        visit: &mut Visitor<'_>,
    ) -> Result<(), ReadError>;

    /// The same of keys alone. What their records say is not looked at: a damaged one stands in its place
    /// still.
    fn keys(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        order: Order,
        visit: &mut KeyVisitor<'_>,
    ) -> Result<(), ReadError> {
        self.scan(table, prefix, after, order, &mut |key, _| Ok(visit(key)))
    }

    /// The key that comes first, in this order, among those that begin with `prefix`.
    fn end_key(&self, table: Table, prefix: &[u8], order: Order) -> Result<Option<Vec<u8>>, ReadError> {
        let mut end = None;
        self.keys(table, prefix, None, order, &mut |key| {
            end = Some(key.to_vec());
            ControlFlow::Break(())
        })?;
        Ok(end)
    }
}

/// Says which record is damaged, and how.
pub(crate) fn damaged(table: Table, key: &[u8], cause: impl ToString) -> ReadError {
    ReadError::Damaged { record: format!("{}/{}", table.name(), hex(key)), cause: cause.to_string() }
}

/// A key's first 80 bytes in hexadecimal.
pub(crate) fn hex(key: &[u8]) -> String {
    key.iter().take(80).map(|byte| format!("{byte:02x}")).collect()
}

/// Where a scan goes: through the keys that begin with `prefix`, before `end` ([`prefix_end`]), and come after
/// `after` in its order.
pub(crate) fn bounds<'a>(
    prefix: &'a [u8],
    end: Option<&'a [u8]>,
    after: Option<&'a [u8]>,
    order: Order,
) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    let (from, to) = (Bound::Included(prefix), end.map_or(Bound::Unbounded, Bound::Excluded));
    match (order, after) {
        (_, None) => (from, to),
        (Order::Ascending, Some(after)) => (Bound::Excluded(after), to),
        (Order::Descending, Some(after)) => (from, Bound::Excluded(after)),
    }
}

/// The first key after all that begin with `prefix`, if there is one.
pub(crate) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_comes_after_all_that_begin_with_it() {
        assert_eq!(prefix_end(&[1, 2]), Some(vec![1, 3]));
        assert_eq!(prefix_end(&[1, 0xff]), Some(vec![2]));
        assert_eq!(prefix_end(&[0xff, 0xff]), None);
        assert_eq!(prefix_end(&[]), None);
    }
}
