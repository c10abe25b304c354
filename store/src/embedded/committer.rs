//! The thread beside a partition's writer that commits one group while the writer plans the next.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use crate::ledger::Writes;

use super::database::caught;
use super::shared::Shared;
use super::writer::commit;

/// Commits what is handed over, one group at a time, until the writer has ended. With what is planned
/// behind a group it goes on by itself: on a busy machine the writer hears of the end a millisecond
/// later. A panic is a commit that failed: the writer always hears of an end.
pub(super) fn run(shared: &Shared, groups: &Receiver<Arc<Writes>>) {
    for handed_over in groups {
        let mut next = Some(handed_over);
        while let Some(writes) = next {
            let outcome = caught(|| commit(shared, &writes)).and_then(|outcome| outcome);
            drop(writes);
            next = shared.ended(outcome);
        }
    }
}
