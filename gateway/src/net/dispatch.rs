//! The dispatcher: one task that carries what is committed to who watches.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;
use unhidra_core::ids::{Offset, Partition};
use unhidra_store::{Health, Limit};

use crate::Shared;
use crate::gap;
use crate::intake::{CHUNK_BYTES, CHUNK_ROWS, Intake, Work};

/// Between two attempts to read a log that does not serve, or does not yet hold what was offered.
const RETRY: Duration = Duration::from_millis(200);

pub(crate) async fn run(shared: Arc<Shared>) {
    let mut health = shared.doors.store.health();
    loop {
        let mut idle = true;
        for n in (0u16..).take(shared.intakes.len()) {
            idle &= !step(&shared, Partition::new(n)).await;
        }
        if !idle {
            continue;
        }
        tokio::select! {
            () = shared.bell.notified() => {}
            // A commit of unknown outcome may have turned out to be there: no one offers its rows. A store that
            // takes no more rows has those all the same.
            changed = health.changed() => match changed {
                Ok(()) if matches!(*health.borrow_and_update(), Health::Ready | Health::Full(_)) => distrust(&shared),
                Ok(()) => {}
                // The store is gone, and with it all there is to dispatch.
                Err(_) => return,
            },
        }
    }
}

/// Does one partition's next work. Returns whether there was any.
async fn step(shared: &Shared, partition: Partition) -> bool {
    let Some(intake) = shared.intakes.get(usize::from(partition.get())) else { return false };
    let work = intake.lock().unwrap_or_else(PoisonError::into_inner).take();
    match work {
        Work::Idle => false,
        Work::Readings(readings) => {
            shared.hub.dispatch(partition, &readings);
            true
        }
        Work::ReadLog => {
            let from = shared.hub.dispatched(partition);
            let limit = Limit { rows: CHUNK_ROWS, bytes: CHUNK_BYTES };
            // Of any row that is not there: those who watch find out what they were given.
            match shared.doors.store.readable_log(partition, Offset::ZERO, from, limit).await {
                Ok(read) => {
                    let to = read.reached(from);
                    let (more, is_damaged) = (read.page.more, !read.damaged.is_empty());
                    let (rows, gaps) = gap::part(partition, read, from, &[]);
                    if gaps.is_empty() && !is_damaged {
                        let rows: Vec<_> = rows.into_iter().map(Arc::new).collect();
                        shared.hub.dispatch(partition, &rows);
                    } else {
                        shared.hub.skip(partition, to);
                    }
                    let closed = closes_gap(intake, to, !more);
                    if to == from && !closed {
                        sleep(RETRY).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, %partition, "the dispatcher cannot read the log and tries again");
                    sleep(RETRY).await;
                }
            }
            true
        }
    }
}

fn closes_gap(intake: &Mutex<Intake>, to: Offset, end: bool) -> bool {
    let mut intake = intake.lock().unwrap_or_else(PoisonError::into_inner);
    intake.read(to, end);
    !intake.has_gap()
}

fn distrust(shared: &Shared) {
    for intake in &shared.intakes {
        intake.lock().unwrap_or_else(PoisonError::into_inner).distrust();
    }
}
