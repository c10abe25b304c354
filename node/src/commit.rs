//! One batch, handed to the store and waited for, by those who have nothing else to do meanwhile.
//!
//! The pump never uses this: a shard does not wait for a commit.

use std::pin::pin;

use tokio::sync::oneshot;
use unhidra_core::ids::Partition;
use unhidra_store::{Batch, CommitError, Committed, Op, Store, Unit};

/// Submits one batch, again while the writer's queue is full, and waits until it is durable.
///
/// # Errors
///
/// What the writer answers, and [`CommitError::Unknown`] where it ends without an answer.
pub(crate) async fn commit(store: &dyn Store, partition: Partition, ops: Vec<Op>) -> Result<Committed, CommitError> {
    commit_as(Unit::Batch, store, partition, ops).await
}

/// The same for what each of several devices stands for itself in: one that does not take its part is left
/// out ([`Committed::left_out`]).
///
/// # Errors
///
/// As of [`commit`].
pub(crate) async fn commit_each(
    store: &dyn Store,
    partition: Partition,
    ops: Vec<Op>,
) -> Result<Committed, CommitError> {
    commit_as(Unit::Device, store, partition, ops).await
}

async fn commit_as(
    unit: Unit,
    store: &dyn Store,
    partition: Partition,
    ops: Vec<Op>,
) -> Result<Committed, CommitError> {
    let (answer, outcome) = oneshot::channel();
    let done = Box::new(move |result| {
        // Nobody waits any more where the caller has gone; the write stands all the same.
        let _ = answer.send(result);
    });
    let room = store.room(partition);
    let mut batch = Batch { partition, fence: store.fence(partition), ops, unit, done };
    loop {
        // Enabled before `submit`: a signal between the two would otherwise be missed.
        let mut notified = pin!(room.notified());
        notified.as_mut().enable();
        match store.submit(batch) {
            Ok(()) => break,
            Err(full) => batch = *full.0,
        }
        notified.await;
    }
    outcome.await.unwrap_or_else(|_| Err(CommitError::Unknown("the writer ended without an answer".to_owned())))
}
