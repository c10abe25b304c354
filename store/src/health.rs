//! Whether the engine serves: the worst of its partitions.

use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;
use unhidra_core::ids::Partition;

use crate::Health;

/// The health of each partition, and the watch that shows the worst.
pub(crate) struct Board {
    known: Mutex<Known>,
    shown: watch::Sender<Health>,
}

struct Known {
    /// Ready, reopening or failed.
    partitions: Vec<Health>,
    /// Why no partition takes rows, where none does.
    full: Option<String>,
}

impl Board {
    pub(crate) fn new(partitions: u16) -> Self {
        let known = Known { partitions: vec![Health::Ready; usize::from(partitions)], full: None };
        Self { known: Mutex::new(known), shown: watch::Sender::new(Health::Ready) }
    }

    pub(crate) fn set(&self, partition: Partition, health: Health) {
        self.change(|known| {
            if let Some(place) = known.partitions.get_mut(usize::from(partition.get())) {
                *place = health;
            }
        });
    }

    /// Takes note that no partition takes rows, or that all do again. One that is not well for another
    /// reason is worse, and once it is ready again the store is full still.
    pub(crate) fn set_full(&self, why: Option<String>) {
        self.change(|known| known.full = why);
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut known);
        let worst = known.partitions.iter().max_by_key(|health| match health {
            Health::Ready | Health::Full(_) => 0,
            Health::Reopening => 1,
            Health::Failed(_) => 2,
        });
        let shown = match (worst, &known.full) {
            (None | Some(Health::Ready | Health::Full(_)), Some(why)) => Health::Full(why.clone()),
            (worst, _) => worst.cloned().unwrap_or(Health::Ready),
        };
        // Under the lock, so that the last change is the one that is shown.
        self.shown.send_replace(shown);
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Health> {
        self.shown.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_partition_is_shown() {
        let board = Board::new(2);
        let shown = board.subscribe();
        let show = |partition, health| {
            board.set(Partition::new(partition), health);
            shown.borrow().clone()
        };
        assert_eq!(show(0, Health::Reopening), Health::Reopening);
        assert_eq!(show(1, Health::Reopening), Health::Reopening);
        assert_eq!(show(0, Health::Ready), Health::Reopening);
        assert_eq!(show(1, Health::Ready), Health::Ready);
        assert_eq!(show(1, Health::Failed("disk".into())), Health::Failed("disk".into()));
        assert_eq!(show(0, Health::Reopening), Health::Failed("disk".into()));
    }

    #[test]
    fn a_store_that_is_full_is_so_until_it_is_not_whatever_its_partitions_go_through() {
        let board = Board::new(2);
        let shown = board.subscribe();
        let full = || Health::Full("disk".into());
        board.set_full(Some("disk".into()));
        assert_eq!(*shown.borrow(), full());
        board.set(Partition::new(1), Health::Reopening);
        assert_eq!(*shown.borrow(), Health::Reopening);
        board.set(Partition::new(1), Health::Ready);
        assert_eq!(*shown.borrow(), full(), "reopened, and it takes no rows still");
        board.set(Partition::new(0), Health::Reopening);
        board.set_full(None);
        assert_eq!(*shown.borrow(), Health::Reopening);
        board.set_full(Some("disk".into()));
        board.set(Partition::new(0), Health::Ready);
        assert_eq!(*shown.borrow(), full(), "held while it was reopened");
        board.set(Partition::new(1), Health::Failed("engine".into()));
        board.set_full(None);
        assert_eq!(*shown.borrow(), Health::Failed("engine".into()));
    }
}
