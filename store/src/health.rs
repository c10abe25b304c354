//! Whether the engine serves: the worst of its partitions.

use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;
use unhidra_core::ids::Partition;

use crate::Health;

/// The health of each partition, and the watch that shows the worst.
pub(crate) struct Board {
    partitions: Mutex<Vec<Health>>,
    shown: watch::Sender<Health>,
}

impl Board {
    pub(crate) fn new(partitions: u16) -> Self {
        let ready = vec![Health::Ready; usize::from(partitions)];
        Self { partitions: Mutex::new(ready), shown: watch::Sender::new(Health::Ready) }
    }

    pub(crate) fn set(&self, partition: Partition, health: Health) {
        let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = partitions.get_mut(usize::from(partition.get())) {
            *place = health;
        }
        let worst = partitions.iter().max_by_key(|health| match health {
            Health::Ready => 0,
            Health::Full(_) => 1,
            Health::Reopening => 2,
            Health::Failed(_) => 3,
        });
        self.shown.send_replace(worst.cloned().unwrap_or(Health::Ready));
    }

    /// Takes note that no partition takes rows, or that all do again; one that is not well for
    /// another reason stays so.
    pub(crate) fn set_full(&self, partitions: u16, why: Option<&str>) {
        for partition in (0..partitions).map(Partition::new) {
            let held = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
            let now = held.get(usize::from(partition.get())).cloned();
            drop(held);
            match (now, why) {
                (Some(Health::Ready | Health::Full(_)), Some(why)) => self.set(partition, Health::Full(why.to_owned())),
                (Some(Health::Full(_)), None) => self.set(partition, Health::Ready),
                _ => {}
            }
        }
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
}
