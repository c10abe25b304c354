//! Where what outlives the process is kept. The broker knows no store: it writes small records
//! under keys, and reads all of them back at its start.

use bytes::Bytes;
use thiserror::Error;

use super::BoxFuture;

/// A table of records.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum PersistTable {
    /// Retained messages by Topic Name.
    Retained,
    /// Sessions by number.
    Sessions,
    /// What sessions subscribed to.
    Subscriptions,
    /// Messages that wait for more than one session, by number.
    Messages,
    /// What waits for each session, in order.
    Queued,
    /// Packet Identifiers in use.
    Exchanges,
}

impl PersistTable {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Retained, Self::Sessions, Self::Subscriptions, Self::Messages, Self::Queued, Self::Exchanges];

    /// Its name in errors.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Retained => "retained",
            Self::Sessions => "sessions",
            Self::Subscriptions => "subscriptions",
            Self::Messages => "messages",
            Self::Queued => "queued",
            Self::Exchanges => "exchanges",
        }
    }
}

/// One record, written or deleted. Deleting what is not there is no error, and writing the same
/// twice is the same as writing it once.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// In which table.
    pub table: PersistTable,
    /// Under which key.
    pub key: Bytes,
    /// What, or nothing to delete it.
    pub value: Option<Bytes>,
}

/// Some records of a table, in the order of their keys.
#[derive(Clone, Debug)]
pub struct Records {
    /// Keys and values.
    pub rows: Vec<(Bytes, Bytes)>,
    /// Whether there are more behind the last one.
    pub more: bool,
}

/// Why a write is not known to be durable.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum PersistError {
    /// It failed, or one before it did; whether it is written is not known. It is to be written
    /// again, and all behind it.
    #[error("the write failed and its outcome is unknown: {0}")]
    Unknown(String),
    /// It alone was refused, and nothing of it is written: it would be refused again.
    #[error("the write was refused: {0}")]
    Refused(String),
    /// Nothing is written any more.
    #[error("nothing is written any more: {0}")]
    Closed(String),
}

/// A write finds no room now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NoRoom;

/// What is called when a write is durable or has failed.
pub type Persisted = Box<dyn FnOnce(Result<(), PersistError>) + Send>;

/// Where what outlives the process is kept.
pub trait Persist: Send + Sync + 'static {
    /// Writes all of the changes or none, and never waits. `done` is called in the order of the
    /// calls, from any thread and perhaps before this returns, once they are durable or have
    /// failed; where one fails as [`PersistError::Unknown`], so do all that are under way behind it.
    ///
    /// # Errors
    ///
    /// There is no room, and `done` is not called: the same changes are offered again once
    /// [`Persist::room`] completes.
    fn write(&self, changes: &[Change], done: Persisted) -> Result<(), NoRoom>;

    /// Completes when a write is worth offering again. What there is room for between this call
    /// and the first look at what it gives counts too.
    fn room(&self) -> BoxFuture<'_, ()>;

    /// The records of a table after a key, a page of them.
    fn read(&self, table: PersistTable, after: Option<Bytes>) -> BoxFuture<'_, Result<Records, PersistError>>;
}
