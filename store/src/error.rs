//! What goes wrong here.

use thiserror::Error;
use unhidra_core::ids::{DeviceId, Fence, Partition, Version};

use crate::Batch;

/// The writer's queue is full. Holds the batch, unharmed.
#[derive(Debug)]
pub struct Full(pub Box<Batch>);

/// Why a batch is not durable, or not known to be.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum CommitError {
    /// The batch expected another version of a device's session: it alone failed, nothing of it
    /// was written. Read the device again.
    #[error("the session of {device} is at version {found}, the batch expected {expected}")]
    Version {
        /// Whose session.
        device: DeviceId,
        /// What the batch expected.
        expected: Version,
        /// What the store has.
        found: Version,
    },
    /// Another owner has taken the partition.
    #[error("fence {found} is older than {held}, under which the partition is held")]
    Fenced {
        /// The batch's fence.
        found: Fence,
        /// The partition's.
        held: Fence,
    },
    /// A command, a device or a session of a device the registry does not hold.
    #[error("no device {0} is enrolled")]
    NoDevice(DeviceId),
    /// The batch's partition is not the one that holds the device: it alone failed.
    #[error("partition {found} does not hold {device}, partition {holds} does")]
    OtherPartition {
        /// Whose record.
        device: DeviceId,
        /// The batch's partition.
        found: Partition,
        /// The device's.
        holds: Partition,
    },
    /// The batch holds something larger than a record may be: it alone failed.
    #[error("{what}: {found}, at most {max} allowed")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size, or the number that would come next.
        found: u64,
        /// The largest allowed.
        max: u64,
    },
    /// The batch holds a record whose kind has no tag (`tag.rs`), so that nothing could tell it from another:
    /// it alone failed.
    #[error("no kind of record in the table {table} has the key {key}; this program must not write it")]
    NoKind {
        /// In which table.
        table: &'static str,
        /// Under which key, in hexadecimal, its first 80 bytes.
        key: String,
    },
    /// A record of a device's that the batch rests on does not read: nothing of the batch was written, or
    /// nothing of the device ([`Unit`](crate::Unit)). The others of its group go on.
    #[error("of {device} nothing was written: {found}; `unhidra store verify` of the stopped node says what to do")]
    Damaged {
        /// Whose.
        device: DeviceId,
        /// Which record, by its table and its key, and what is wrong with it: [`ReadError::Damaged`].
        found: Box<ReadError>,
    },
    /// The write failed, here or in a batch before this one. Whether it is on disk is not known.
    #[error("the commit failed and its outcome is unknown: {0}")]
    Unknown(String),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

/// Why a read failed.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum ReadError {
    /// A record does not say what a record says: damage, or another key.
    #[error("the record {record} is damaged: {cause}")]
    Damaged {
        /// Which record.
        record: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The engine failed.
    #[error("the store failed to read: {0}")]
    Engine(String),
    /// The store is closed or reopening.
    #[error("the store does not serve now")]
    Unavailable,
}

/// Why the mark of a store that was put back from a copy could not be taken away.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("the mark that the store was put back from a copy stays: {0}")]
pub struct RestoredError(pub String);
