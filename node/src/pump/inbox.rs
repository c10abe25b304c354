//! One shard's queue of events: bounded, and at the bound it gives back.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// A bounded queue with many senders and one receiver.
///
/// A sender that finds it full keeps what it has, stops reading its socket, and waits for room: so
/// back-pressure reaches the peer and nothing is dropped on the way.
pub(super) struct Inbox<T> {
    waiting: Mutex<VecDeque<T>>,
    capacity: usize,
    arrived: Notify,
    room: Notify,
}

impl<T> Inbox<T> {
    /// A queue for at most `capacity` events, at least 1.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            waiting: Mutex::new(VecDeque::new()),
            capacity: capacity.max(1),
            arrived: Notify::new(),
            room: Notify::new(),
        }
    }

    /// Takes events in order, as many as fit.
    ///
    /// # Errors
    ///
    /// Gives back the ones that did not, in order.
    pub(super) fn offer(&self, events: Vec<T>) -> Result<(), Vec<T>> {
        let mut waiting = self.lock();
        let was_empty = waiting.is_empty();
        let fits = self.capacity.saturating_sub(waiting.len());
        let mut events = events.into_iter();
        waiting.extend(events.by_ref().take(fits));
        let wake = was_empty && !waiting.is_empty();
        drop(waiting);
        if wake {
            self.arrived.notify_one();
        }
        let left: Vec<T> = events.collect();
        if left.is_empty() { Ok(()) } else { Err(left) }
    }

    /// Completes when there may be room.
    pub(super) async fn room(&self) {
        loop {
            let mut freed = std::pin::pin!(self.room.notified());
            // Registered before the look, so that a take between look and wait is not missed.
            freed.as_mut().enable();
            if self.lock().len() < self.capacity {
                return;
            }
            freed.await;
        }
    }

    /// Completes when something waits. For the one receiver; cancel-safe.
    pub(super) async fn arrived(&self) {
        loop {
            let mut arrived = std::pin::pin!(self.arrived.notified());
            arrived.as_mut().enable();
            if !self.lock().is_empty() {
                return;
            }
            arrived.await;
        }
    }

    /// Takes at most `max` events, oldest first.
    pub(super) fn take(&self, max: usize) -> Vec<T> {
        let mut waiting = self.lock();
        let was_full = waiting.len() >= self.capacity;
        let count = waiting.len().min(max);
        let taken = waiting.drain(..count).collect();
        drop(waiting);
        if was_full {
            self.room.notify_waiters();
        }
        taken
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        // Nothing here panics while it holds the lock, so a poisoned one holds whole values.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn what_does_not_fit_is_given_back_in_order_and_room_is_signalled() {
        let inbox = Arc::new(Inbox::new(2));
        assert_eq!(inbox.offer(vec![1, 2, 3, 4]), Err(vec![3, 4]));
        let waiting = tokio::spawn({
            let inbox = inbox.clone();
            async move { inbox.room().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        assert_eq!(inbox.take(1), [1]);
        assert!(waiting.await.is_ok());
        assert_eq!(inbox.offer(vec![3, 4]), Err(vec![4]));
        assert_eq!((inbox.take(9), inbox.len()), (vec![2, 3], 0));
    }

    #[tokio::test]
    async fn the_receiver_is_woken_by_the_first_event() {
        let inbox = Arc::new(Inbox::new(2));
        let receiver = tokio::spawn({
            let inbox = inbox.clone();
            async move {
                inbox.arrived().await;
                inbox.take(2)
            }
        });
        tokio::task::yield_now().await;
        assert_eq!(inbox.offer(vec![7]), Ok(()));
        assert_eq!(receiver.await.ok(), Some(vec![7]));
    }
}
