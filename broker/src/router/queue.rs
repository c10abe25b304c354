//! What waits for one subscriber: written by publishers, emptied by its connection.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::message::Queued;
use crate::net::mailbox::Mailbox;
use crate::packet::QoS;

/// A session's queue. It outlives connections.
#[derive(Debug)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    room: Arc<Notify>,
    messages_max: usize,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: VecDeque<Queued>,
    bytes: usize,
    /// Whose connection empties it, if there is one.
    reader: Option<Arc<Mailbox>>,
}

/// What became of a message.
#[derive(Debug)]
pub(crate) enum Pushed {
    /// It waits.
    Taken,
    /// Nobody is there, and it is of QoS 0 or there is no room: it is gone.
    Dropped,
    /// There is no room and somebody is there: offer it again once [`Queue::room`] says so.
    Full(Queued),
}

impl Queue {
    pub(crate) fn new(messages_max: usize, bytes_max: usize) -> Self {
        Self { inner: Mutex::default(), room: Arc::default(), messages_max, bytes_max }
    }

    /// Adds a message, or says why not.
    pub(crate) fn push(&self, queued: Queued) -> Pushed {
        let mut inner = self.lock();
        let size = queued.message.size();
        // One message always fits, however large.
        let full = inner.waiting.len() >= self.messages_max
            || (inner.bytes.saturating_add(size) > self.bytes_max && !inner.waiting.is_empty());
        match (&inner.reader, full) {
            (Some(_), true) => return Pushed::Full(queued),
            (None, true) => return Pushed::Dropped,
            (None, false) if queued.qos == QoS::AtMostOnce => return Pushed::Dropped,
            (Some(reader), false) if inner.waiting.is_empty() => reader.wake(),
            (Some(_) | None, false) => {}
        }
        inner.bytes += size;
        inner.waiting.push_back(queued);
        Pushed::Taken
    }

    /// Takes the oldest message.
    pub(crate) fn pop(&self) -> Option<Queued> {
        let mut inner = self.lock();
        let was_full = inner.waiting.len() >= self.messages_max || inner.bytes.saturating_mul(2) > self.bytes_max;
        let queued = inner.waiting.pop_front()?;
        inner.bytes -= queued.message.size();
        drop(inner);
        if was_full {
            self.room.notify_waiters();
        }
        Some(queued)
    }

    /// How many messages wait, and how many bytes of memory they take.
    pub(crate) fn depth(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.waiting.len(), inner.bytes)
    }

    /// A connection empties the queue from now on.
    pub(crate) fn attach(&self, reader: Arc<Mailbox>) {
        self.lock().reader = Some(reader);
    }

    /// Nobody empties it any more. Publishers that wait for room find out.
    pub(crate) fn detach(&self) {
        let mut inner = self.lock();
        inner.reader = None;
        inner.waiting.retain(|queued| queued.qos != QoS::AtMostOnce);
        inner.bytes = inner.waiting.iter().map(|queued| queued.message.size()).sum();
        drop(inner);
        self.room.notify_waiters();
    }

    /// Whose connection empties it.
    pub(crate) fn reader(&self) -> Option<Arc<Mailbox>> {
        self.lock().reader.clone()
    }

    /// Notified whenever something was taken from a queue near its bound.
    pub(crate) const fn room(&self) -> &Arc<Notify> {
        &self.room
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doors::ConnectionId;
    use crate::packet::{Properties, Text};
    use crate::router::message::{Incoming, Message};
    use bytes::Bytes;
    use tokio::time::timeout;
    use unhidra_core::time::Timestamp;

    fn message(qos: QoS, payload_len: usize) -> Queued {
        let (topic, properties) = (&Text::from("t"), &Properties::default());
        let payload = &Bytes::from(vec![0; payload_len]);
        let message = Message::new(Incoming { topic, payload, qos, retain: false, properties }, Timestamp::ZERO);
        Queued { message: Arc::new(message), qos, retain: false, identifiers: vec![] }
    }

    fn reader() -> Arc<Mailbox> {
        Arc::new(Mailbox::new(ConnectionId(1), 1))
    }

    #[test]
    fn a_full_queue_gives_back_while_its_client_is_there_and_drops_the_newest_while_not() {
        let queue = Queue::new(2, 1_000_000);
        queue.attach(reader());
        assert!(matches!(queue.push(message(QoS::AtMostOnce, 1)), Pushed::Taken));
        assert!(matches!(queue.push(message(QoS::AtLeastOnce, 1)), Pushed::Taken));
        assert!(matches!(queue.push(message(QoS::AtLeastOnce, 1)), Pushed::Full(_)));
        queue.detach();
        assert!(matches!(queue.push(message(QoS::AtMostOnce, 1)), Pushed::Dropped), "QoS 0 waits for nobody");
        assert!(matches!(queue.push(message(QoS::AtLeastOnce, 1)), Pushed::Taken), "what was of QoS 0 is gone");
        assert!(matches!(queue.push(message(QoS::AtLeastOnce, 1)), Pushed::Dropped));
        assert_eq!(std::iter::from_fn(|| queue.pop()).count(), 2);
    }

    #[test]
    fn bytes_are_bounded_and_one_message_always_fits() {
        let queue = Queue::new(100, 5_000);
        queue.attach(reader());
        assert!(matches!(queue.push(message(QoS::AtLeastOnce, 10_000)), Pushed::Taken));
        assert!(matches!(queue.push(message(QoS::AtLeastOnce, 1)), Pushed::Full(_)));
        assert!(queue.pop().is_some());
        assert!(matches!(queue.push(message(QoS::AtLeastOnce, 1)), Pushed::Taken));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_is_woken_by_the_first_message_and_a_writer_by_room() {
        let (queue, reader) = (Queue::new(1, 1_000_000), reader());
        queue.attach(reader.clone());
        assert!(matches!(queue.push(message(QoS::AtLeastOnce, 1)), Pushed::Taken));
        let patience = std::time::Duration::from_secs(1);
        timeout(patience, reader.arrived()).await.expect("woken");
        let room = queue.room().clone().notified_owned();
        assert!(queue.pop().is_some());
        timeout(patience, room).await.expect("room");
    }
}
