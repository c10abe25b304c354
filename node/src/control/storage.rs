//! What the store holds, as shown.

use serde::{Deserialize, Serialize};
use unhidra_core::ids::Partition;
use unhidra_core::time::UnixTime;
use unhidra_store::{Health, Store};

use super::ControlError;

/// What the store holds.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Storage {
    /// Whether it serves: `ready`, `full`, `reopening` or `failed`.
    pub health: String,
    /// Why not, where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Bytes it takes of the disk, journals and what waits to be compacted too.
    pub disk_bytes: u64,
    /// How many it may take; 0 without a bound.
    pub disk_bytes_max: u64,
    /// Each partition.
    pub partitions: Vec<PartitionRecord>,
}

/// What a partition holds.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PartitionRecord {
    /// Which.
    pub partition: u16,
    /// Bytes it takes of the disk.
    pub disk_bytes: u64,
    /// The place of its newest row.
    pub newest_offset: u64,
    /// When its oldest row was received that is kept, in ms since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_received_at: Option<u64>,
}

/// Looks at all partitions.
pub(super) async fn look(store: &dyn Store, disk_bytes_max: u64) -> Result<Storage, ControlError> {
    let mut partitions = Vec::new();
    for partition in 0..store.partitions() {
        let usage = store.usage(Partition::new(partition)).await?;
        partitions.push(PartitionRecord {
            partition,
            disk_bytes: usage.disk_bytes,
            newest_offset: usage.newest.get(),
            oldest_received_at: usage.oldest.map(UnixTime::as_ms),
        });
    }
    let health = store.health().borrow().clone();
    let (health, cause) = match health {
        Health::Ready => ("ready", None),
        Health::Full(cause) => ("full", Some(cause)),
        Health::Reopening => ("reopening", None),
        Health::Failed(cause) => ("failed", Some(cause)),
    };
    let disk_bytes = partitions.iter().map(|partition| partition.disk_bytes).sum();
    Ok(Storage { health: health.to_owned(), cause, disk_bytes, disk_bytes_max, partitions })
}
