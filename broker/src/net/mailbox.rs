//! What others have for one connection: answers, messages of the node, orders.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use unhidra_core::delivery::{AckToken, Acknowledge, Answer, DownlinkRow};
use unhidra_core::time::Timestamp;

use super::facts::Facts;
use crate::doors::{ConnectionId, NotPublished, Ticket};
use crate::packet::ReasonCode;

/// One connection's mail. Each lock is short, and the task is woken where there was nothing.
#[derive(Debug)]
pub(crate) struct Mailbox {
    id: ConnectionId,
    inner: Mutex<Inner>,
    arrived: Notify,
    ended: Notify,
    /// Once the client is in.
    facts: OnceLock<Box<Facts>>,
    downlinks_max: usize,
}

#[derive(Debug, Default)]
struct Inner {
    /// Bounded by the messages that wait for an answer.
    answers: Vec<(AckToken, Answer)>,
    downlinks: VecDeque<Downlink>,
    /// Messages of the node whose outcome is not known yet, those in `downlinks` among them.
    outstanding: usize,
    rows: Vec<DownlinkRow>,
    order: Option<Order>,
    /// The rules are others now.
    review: bool,
    life: Life,
    /// The last step of the session that is kept over a restart.
    kept: u64,
    /// A message was answered with [`Answer::Retry`].
    is_given_up: bool,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Life {
    #[default]
    Open,
    /// It takes no more mail.
    Closed,
    /// Its `Disconnected` has been taken and its session released.
    Ended,
}

/// A message of the node.
#[derive(Debug)]
pub(crate) struct Downlink {
    pub(crate) row: DownlinkRow,
    pub(crate) payload: Bytes,
    pub(crate) ticket: Ticket,
}

/// What a connection is told to do. The first to close stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Order {
    /// Stop reading; close when every message is answered, at the latest then.
    Drain { until: Timestamp },
    /// Close with this reason. The session stays.
    Close(ReasonCode),
    /// Close with this reason, and let nothing of the session stay.
    Revoke(ReasonCode),
}

/// What a connection finds in its mailbox.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    pub(crate) answers: Vec<(AckToken, Answer)>,
    pub(crate) downlinks: VecDeque<Downlink>,
    pub(crate) order: Option<Order>,
    pub(crate) review: bool,
    /// The last step of the session that is kept over a restart.
    pub(crate) kept: u64,
}

impl Mailbox {
    pub(crate) fn new(id: ConnectionId, downlinks_max: usize) -> Self {
        Self {
            id,
            inner: Mutex::default(),
            arrived: Notify::new(),
            ended: Notify::new(),
            facts: OnceLock::new(),
            downlinks_max,
        }
    }

    pub(crate) const fn id(&self) -> ConnectionId {
        self.id
    }

    /// The client is in.
    pub(crate) fn introduce(&self, facts: Facts) {
        // A connection is let in once.
        let _ = self.facts.set(Box::new(facts));
    }

    /// What others may know of the connection, once its client is in.
    pub(crate) fn facts(&self) -> Option<&Facts> {
        self.facts.get().map(Box::as_ref)
    }

    /// Leaves a message of the node.
    pub(crate) fn downlink(&self, downlink: Downlink) -> Result<(), NotPublished> {
        let mut inner = self.lock();
        match inner.life {
            Life::Closed | Life::Ended => return Err(NotPublished::NotConnected),
            Life::Open if !inner.rows.contains(&downlink.row) => return Err(NotPublished::NotListening),
            Life::Open if inner.outstanding >= self.downlinks_max => return Err(NotPublished::Full),
            Life::Open => {}
        }
        inner.outstanding += 1;
        inner.downlinks.push_back(downlink);
        let is_first = inner.downlinks.len() == 1;
        drop(inner);
        if is_first {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// The outcome of a message of the node is known.
    pub(crate) fn settled(&self) {
        let mut inner = self.lock();
        inner.outstanding = inner.outstanding.saturating_sub(1);
    }

    /// Whether the device listens on a row.
    pub(crate) fn listens(&self, row: DownlinkRow) -> bool {
        self.lock().rows.contains(&row)
    }

    /// The device listens on a row, or no more.
    pub(crate) fn listen(&self, row: DownlinkRow, listens: bool) {
        let mut inner = self.lock();
        inner.rows.retain(|known| *known != row);
        if listens {
            inner.rows.push(row);
        }
    }

    /// Leaves an order.
    pub(crate) fn order(&self, order: Order) {
        let mut inner = self.lock();
        match (inner.order, order) {
            // A session that may not stay must not stay because another close came first.
            (None | Some(Order::Drain { .. }), _) | (Some(Order::Close(_)), Order::Revoke(_)) => {
                inner.order = Some(order);
            }
            (Some(Order::Close(_) | Order::Revoke(_)), _) => {}
        }
        drop(inner);
        self.arrived.notify_one();
    }

    /// Asks the connection to look at its subscriptions again: the rules are others now.
    pub(crate) fn review(&self) {
        self.lock().review = true;
        self.arrived.notify_one();
    }

    /// What the session did up to this step is kept.
    pub(crate) fn kept(&self, number: u64) {
        let mut inner = self.lock();
        inner.kept = inner.kept.max(number);
        drop(inner);
        self.arrived.notify_one();
    }

    /// Wakes the connection: its queue was empty and is not any more.
    pub(crate) fn wake(&self) {
        self.arrived.notify_one();
    }

    /// Completes when mail arrives, or has arrived since the last time.
    pub(crate) fn arrived(&self) -> Notified<'_> {
        self.arrived.notified()
    }

    /// Empties the mailbox. An order stays until a later one overrules it.
    pub(crate) fn take(&self) -> Mail {
        let mut inner = self.lock();
        Mail {
            answers: std::mem::take(&mut inner.answers),
            downlinks: std::mem::take(&mut inner.downlinks),
            order: inner.order,
            review: std::mem::take(&mut inner.review),
            kept: inner.kept,
        }
    }

    /// Takes no more mail, and gives what nobody will send any more.
    pub(crate) fn close(&self) -> VecDeque<Downlink> {
        let mut inner = self.lock();
        inner.life = Life::Closed;
        std::mem::take(&mut inner.downlinks)
    }

    /// Nothing more will be heard of the connection.
    pub(crate) fn end(&self) {
        self.lock().life = Life::Ended;
        self.ended.notify_waiters();
    }

    /// Completes when nothing more will be heard of the connection.
    pub(crate) async fn ended(&self) {
        // Made before the look, so that an end between the two is not missed.
        let ended = self.ended.notified();
        if self.lock().life != Life::Ended {
            ended.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Acknowledge for Mailbox {
    fn acknowledge(&self, token: AckToken, answer: Answer) {
        let mut inner = self.lock();
        // Of one that is closed already, too: what came by it may wait to be taken.
        inner.is_given_up |= answer == Answer::Retry;
        if inner.life != Life::Open {
            return;
        }
        inner.answers.push((token, answer));
        let is_first = inner.answers.len() == 1;
        // Whoever is woken wants the lock at once.
        drop(inner);
        if is_first {
            self.arrived.notify_one();
        }
    }

    /// One device has the connection, so it is all that came by it.
    fn is_given_up(&self, _: AckToken) -> bool {
        self.lock().is_given_up
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use unhidra_core::delivery::Ack;

    use super::*;

    #[test]
    fn once_a_message_is_to_come_again_so_is_what_came_behind_it_also_where_the_connection_is_closed() {
        for is_closed in [false, true] {
            let mailbox = Arc::new(Mailbox::new(ConnectionId(1), 1));
            let [taken, first, second] = [1, 2, 3].map(|token| Ack::new(mailbox.clone(), AckToken(token)));
            if is_closed {
                mailbox.close();
            }
            taken.answer(Answer::Accepted);
            assert!(!second.is_given_up());
            drop(first);
            assert!(second.is_given_up());
        }
    }
}
