//! One shard's queues of events, one for each door: bounded, and at the bound they give back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use unhidra_bridge::upstream::UpstreamId;

/// By which way an event comes: an outside broker, or none, which is the node's own broker, its
/// clients and the node itself. There are as many as outside brokers are configured, and one.
pub(super) type Door = Option<UpstreamId>;

/// A bounded queue for each door, with many senders and one receiver, who gives each its turn.
///
/// A sender that finds its own full keeps what it has, stops reading its socket, and waits for room: so
/// back-pressure reaches the peer and nothing is dropped on the way. No door fills another's.
pub(super) struct Inbox<T> {
    waiting: Mutex<BTreeMap<Door, VecDeque<T>>>,
    capacity: usize,
    arrived: Notify,
    room: Notify,
}

impl<T> Inbox<T> {
    /// Queues for at most `capacity` events each, at least 1.
    pub(super) fn new(capacity: usize) -> Self {
        Self { waiting: Mutex::default(), capacity: capacity.max(1), arrived: Notify::new(), room: Notify::new() }
    }

    /// Takes events in order, as many as fit.
    ///
    /// # Errors
    ///
    /// Gives back the ones that did not, in order.
    pub(super) fn offer(&self, door: Door, events: Vec<T>) -> Result<(), Vec<T>> {
        let mut waiting = self.lock();
        let queue = waiting.entry(door).or_default();
        let was_empty = queue.is_empty();
        let fits = self.capacity.saturating_sub(queue.len());
        let mut events = events.into_iter();
        queue.extend(events.by_ref().take(fits));
        let wake = was_empty && !queue.is_empty();
        drop(waiting);
        if wake {
            self.arrived.notify_one();
        }
        let left: Vec<T> = events.collect();
        if left.is_empty() { Ok(()) } else { Err(left) }
    }

    /// Completes when there may be room for what comes by a door.
    pub(super) async fn room(&self, door: Door) {
        loop {
            let mut freed = std::pin::pin!(self.room.notified());
            // Registered before the look, so that a take between look and wait is not missed.
            freed.as_mut().enable();
            if self.lock().get(&door).is_none_or(|queue| queue.len() < self.capacity) {
                return;
            }
            freed.await;
        }
    }

    /// Completes when something waits at a door that is open. For the one receiver; cancel-safe.
    pub(super) async fn arrived(&self, is_open: impl Fn(Door) -> bool) {
        loop {
            let mut arrived = std::pin::pin!(self.arrived.notified());
            arrived.as_mut().enable();
            if self.lock().iter().any(|(door, queue)| !queue.is_empty() && is_open(*door)) {
                return;
            }
            arrived.await;
        }
    }

    /// Takes at most `max` events, and of each door at most as many as it has room for, oldest first.
    /// Where more wait, each door has an equal part, and what one leaves of its own is the others'.
    pub(super) fn take(&self, max: usize, room: impl Fn(Door) -> usize) -> Vec<T> {
        let mut waiting = self.lock();
        let wants = waiting.iter_mut().map(|(door, queue)| (queue.len().min(room(*door)), queue));
        let mut wants: Vec<(usize, &mut VecDeque<T>)> = wants.filter(|(wanted, _)| *wanted > 0).collect();
        wants.sort_by_key(|(wanted, _)| *wanted);
        let (mut taken, mut doors, mut was_full) = (Vec::new(), wants.len(), false);
        for (wanted, queue) in wants {
            let share = max.saturating_sub(taken.len()).div_ceil(doors);
            was_full |= queue.len() >= self.capacity;
            taken.extend(queue.drain(..wanted.min(share)));
            doors -= 1;
        }
        drop(waiting);
        if was_full {
            self.room.notify_waiters();
        }
        taken
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.lock().values().map(VecDeque::len).sum()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Door, VecDeque<T>>> {
        // Nothing here panics while it holds the lock, so a poisoned one holds whole values.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt as _;

    use super::*;

    const FACTORY: Door = Some(UpstreamId(0));
    const HARBOUR: Door = Some(UpstreamId(1));

    const fn all(_: Door) -> usize {
        usize::MAX
    }

    #[tokio::test]
    async fn what_does_not_fit_is_given_back_in_order_and_room_is_signalled() {
        let inbox = Arc::new(Inbox::new(2));
        assert_eq!(inbox.offer(None, vec![1, 2, 3, 4]), Err(vec![3, 4]));
        let waiting = tokio::spawn({
            let inbox = inbox.clone();
            async move { inbox.room(None).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        assert_eq!(inbox.take(1, all), [1]);
        assert!(waiting.await.is_ok());
        assert_eq!(inbox.offer(None, vec![3, 4]), Err(vec![4]));
        assert_eq!((inbox.take(9, all), inbox.len()), (vec![2, 3], 0));
    }

    #[tokio::test]
    async fn the_receiver_is_woken_by_the_first_event() {
        let inbox = Arc::new(Inbox::new(2));
        let receiver = tokio::spawn({
            let inbox = inbox.clone();
            async move {
                inbox.arrived(|_| true).await;
                inbox.take(2, all)
            }
        });
        tokio::task::yield_now().await;
        assert_eq!(inbox.offer(None, vec![7]), Ok(()));
        assert_eq!(receiver.await.ok(), Some(vec![7]));
    }

    /// Else an outside broker that floods would have every connection at the front door wait.
    #[test]
    fn what_waits_at_one_door_takes_no_room_of_another() {
        let inbox = Inbox::new(2);
        assert_eq!(inbox.offer(FACTORY, vec![1, 2, 3]), Err(vec![3]));
        assert_eq!(inbox.offer(None, vec![10, 11]), Ok(()));
        assert_eq!(inbox.offer(HARBOUR, vec![20]), Ok(()));
        assert_eq!(inbox.len(), 5);
    }

    #[test]
    fn each_door_has_an_equal_part_and_what_one_leaves_is_the_others() {
        let inbox = Inbox::new(100);
        assert_eq!(inbox.offer(FACTORY, (100..200).collect()), Ok(()));
        assert_eq!(inbox.offer(HARBOUR, vec![200]), Ok(()));
        assert_eq!(inbox.offer(None, (0..100).collect()), Ok(()));
        let taken = inbox.take(9, all);
        assert_eq!(taken, [200, 0, 1, 2, 3, 100, 101, 102, 103]);
        assert_eq!(inbox.take(4, |door| if door == FACTORY { 1 } else { usize::MAX }), [104, 4, 5, 6]);
    }

    #[tokio::test]
    async fn nothing_is_taken_at_a_door_that_is_closed_and_nobody_is_woken_for_it() {
        let inbox = Inbox::new(4);
        assert_eq!(inbox.offer(FACTORY, vec![1]), Ok(()));
        let is_open = |door: Door| door != FACTORY;
        let arrived = inbox.arrived(is_open);
        tokio::pin!(arrived);
        assert!(arrived.as_mut().now_or_never().is_none());
        assert!(inbox.take(9, |door| if is_open(door) { 9 } else { 0 }).is_empty());
        assert_eq!(inbox.offer(None, vec![2]), Ok(()));
        arrived.await;
        assert_eq!(inbox.take(9, all), [2, 1]);
    }
}
