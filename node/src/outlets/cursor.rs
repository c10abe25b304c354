//! How far an outlet has come, kept in the store: one record for each partition, in that partition.
//!
//! ```text
//! key    NAME/PARTITION, the number in decimal digits
//! value  version 1 (1), Offset of the last row that is done (8)
//! ```

use bytes::Bytes;
use thiserror::Error;
use unhidra_core::ids::{Offset, Partition};
use unhidra_store::{BrokerTable, CommitError, Limit, Op, ReadError, Store};

use crate::commit::commit;

const VERSION: u8 = 1;

/// Records read at once: more than there are outlets.
const PAGE: Limit = Limit { rows: 1024, bytes: 1024 * 1024 };

/// Why it is not known how far an outlet has come.
#[derive(Debug, Error)]
pub(crate) enum CursorError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the cursor {key} has {len} bytes, or is of a version this node does not know")]
    Malformed { key: String, len: usize },
}

fn key(name: &str, partition: Partition) -> Bytes {
    Bytes::from(format!("{name}/{partition}"))
}

fn encode(offset: Offset) -> Bytes {
    Bytes::from([&[VERSION][..], &offset.get().to_be_bytes()].concat())
}

fn decode(value: &[u8]) -> Option<Offset> {
    let (VERSION, offset) = value.split_first().map(|(version, rest)| (*version, rest))? else { return None };
    Some(Offset::new(u64::from_be_bytes(offset.try_into().ok()?)))
}

/// Whose a cursor is, of which partition, and where it stands.
fn read(key: &[u8], value: &[u8]) -> Result<(String, Partition, Offset), CursorError> {
    let text = String::from_utf8_lossy(key).into_owned();
    let place = text.rsplit_once('/').and_then(|(name, number)| Some((name.to_owned(), number.parse().ok()?)));
    let cursor = place.zip(decode(value)).map(|((name, number), at)| (name, Partition::new(number), at));
    cursor.ok_or(CursorError::Malformed { key: text, len: value.len() })
}

/// Whether a cursor reads, for whoever looks over a store.
pub(crate) fn check(key: &[u8], value: &[u8]) -> Result<(), CursorError> {
    read(key, value).map(|_| ())
}

/// Every cursor there is: whose, of which partition, where.
pub(crate) async fn load_all(store: &dyn Store) -> Result<Vec<(String, Partition, Offset)>, CursorError> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.broker_records(BrokerTable::Outlets, after.as_deref(), PAGE).await?;
        for (key, value) in &page.rows {
            found.push(read(key, value)?);
        }
        after = page.rows.into_iter().last().map(|(key, _)| key);
        if !page.more || after.is_none() {
            return Ok(found);
        }
    }
}

/// The cursors of one outlet, in the order of the partitions; `None` where it has none.
pub(crate) async fn load(store: &dyn Store, name: &str) -> Result<Vec<Option<Offset>>, CursorError> {
    let mut cursors = vec![None; usize::from(store.partitions())];
    for (whose, partition, offset) in load_all(store).await? {
        if whose == name
            && let Some(cursor) = cursors.get_mut(usize::from(partition.get()))
        {
            *cursor = Some(offset);
        }
    }
    Ok(cursors)
}

/// Writes one cursor down.
pub(crate) async fn save(
    store: &dyn Store,
    name: &str,
    partition: Partition,
    offset: Offset,
) -> Result<(), CommitError> {
    let op = Op::Broker { table: BrokerTable::Outlets, key: key(name, partition), value: Some(encode(offset)) };
    commit(store, partition, vec![op]).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Ground;

    #[tokio::test]
    async fn a_cursor_is_there_again_in_the_next_process() {
        let mut ground = Ground::new();
        let (first, second) = (Partition::new(0), Partition::new(1));
        save(&*ground.store, "hook", second, Offset::new(7)).await.unwrap();
        save(&*ground.store, "hook", second, Offset::new(9)).await.unwrap();
        save(&*ground.store, "hook-2", first, Offset::new(3)).await.unwrap();
        ground.reopen().await;
        assert_eq!(load(&*ground.store, "hook").await.unwrap(), [None, Some(Offset::new(9))]);
        assert_eq!(load(&*ground.store, "hook-2").await.unwrap(), [Some(Offset::new(3)), None]);
        assert_eq!(load(&*ground.store, "hook-").await.unwrap(), [None, None]);
        assert_eq!(load_all(&*ground.store).await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_damaged_cursor_is_told_and_not_taken_for_the_beginning() {
        let ground = Ground::new();
        for value in [&b""[..], b"\x01\0\0\0\0\0\0\0", b"\x02\0\0\0\0\0\0\0\0", b"\x01\0\0\0\0\0\0\0\0\0"] {
            let op = Op::Broker {
                table: BrokerTable::Outlets,
                key: key("hook", Partition::new(0)),
                value: Some(Bytes::from_static(value)),
            };
            commit(&*ground.store, Partition::new(0), vec![op]).await.unwrap();
            assert!(matches!(load(&*ground.store, "hook").await, Err(CursorError::Malformed { .. })));
        }
    }
}
