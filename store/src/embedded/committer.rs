//! The thread beside a partition's writer that commits one group while the writer plans the next.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use crate::ledger::Writes;

use super::database::caught;
use super::shared::Shared;
use super::writer::commit;

/// Commits what is handed over, one group at a time, until the writer has ended. A panic is a commit
/// that failed: the writer always hears of an end.
pub(super) fn run(shared: &Shared, groups: &Receiver<Arc<Writes>>) {
    for writes in groups {
        let outcome = caught(|| commit(shared, &writes)).and_then(|outcome| outcome);
        drop(writes);
        shared.ended(outcome);
    }
}
