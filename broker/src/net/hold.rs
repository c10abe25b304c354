//! What a connection could not hand on: while anything is here, it reads nothing more, and so the
//! peer waits instead of the node's memory.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use unhidra_core::time::Timestamp;

use super::mailbox::Mailbox;
use crate::Broker;
use crate::doors::{BoxFuture, BrokerEvent};
use crate::metrics::DropCause;
use crate::router::message::Queued;
use crate::router::queue::{Pushed, Queue};

/// What waits for room elsewhere. One packet's worth, for what is not read cannot add to it. What a
/// device sends goes inward alone, what a plain client sends to subscribers alone.
#[derive(Default)]
pub(super) struct Hold {
    /// Events the node had no room for, in their order.
    inward: Vec<BrokerEvent>,
    /// Messages whose subscribers had no room.
    subscribers: Option<Subscribers>,
}

struct Subscribers {
    waiting: Vec<(Arc<Queue>, Queued)>,
    since: Timestamp,
}

impl Hold {
    pub(super) const fn is_empty(&self) -> bool {
        self.inward.is_empty() && self.subscribers.is_none()
    }

    /// Keeps messages for subscribers that are full.
    pub(super) fn keep_for_subscribers(&mut self, full: Vec<(Arc<Queue>, Queued)>, now: Timestamp) {
        if full.is_empty() {
            return;
        }
        let subscribers = self.subscribers.get_or_insert_with(|| Subscribers { waiting: Vec::new(), since: now });
        subscribers.waiting.extend(full);
    }

    /// Offers events to the node, behind those it had no room for.
    pub(super) fn offer(&mut self, events: &mut Vec<BrokerEvent>, broker: &Broker) {
        if !self.inward.is_empty() {
            self.inward.append(events);
        } else if !events.is_empty()
            && let Err(back) = broker.inlet().offer(mem::take(events))
        {
            broker.metrics().inlet_full.inc();
            self.inward = back;
        }
    }

    /// What completes when it is worth trying again; `None` when nothing is held.
    pub(super) fn room<'b>(&self, broker: &'b Broker) -> Option<BoxFuture<'b, ()>> {
        let queue = self.subscribers.as_ref().and_then(|subscribers| subscribers.waiting.first());
        match (self.inward.first(), queue) {
            (Some(event), _) => Some(broker.inlet().room(event.device())),
            (None, Some((queue, _))) => Some(Box::pin(queue.room().clone().notified_owned())),
            (None, None) => None,
        }
    }

    /// Tries again. Says whether it was all taken.
    pub(super) fn retry(&mut self, broker: &Broker) -> bool {
        if !self.inward.is_empty()
            && let Err(back) = broker.inlet().offer(mem::take(&mut self.inward))
        {
            self.inward = back;
        }
        if let Some(Subscribers { waiting, since }) = self.subscribers.take() {
            let mut full = Vec::new();
            for (queue, queued) in waiting {
                match queue.push(queued) {
                    Pushed::Taken => {}
                    Pushed::Dropped => broker.metrics().drop_message(DropCause::Away),
                    Pushed::Full(queued) => full.push((queue, queued)),
                }
            }
            if !full.is_empty() {
                self.subscribers = Some(Subscribers { waiting: full, since });
            }
        }
        self.is_empty()
    }

    /// When the subscribers have had `patience` to make room.
    pub(super) fn deadline(&self, patience: Duration) -> Option<Timestamp> {
        self.subscribers.as_ref().map(|subscribers| subscribers.since.saturating_add(patience))
    }

    /// Drops what subscribers have not taken for longer than `patience`, and names their
    /// connections, which are too slow.
    pub(super) fn give_up(&mut self, now: Timestamp, patience: Duration, broker: &Broker) -> Vec<Arc<Mailbox>> {
        if self.deadline(patience).is_none_or(|deadline| now < deadline) {
            return Vec::new();
        }
        // One that has made room meanwhile is not too slow.
        self.retry(broker);
        let dropped = self.subscribers.take().map(|subscribers| subscribers.waiting).unwrap_or_default();
        let readers = dropped.into_iter().filter_map(|(queue, _)| {
            broker.metrics().drop_message(DropCause::Slow);
            queue.reader()
        });
        readers.collect()
    }

    /// The events that the node must still have, and `events` behind them.
    pub(super) fn into_inward(self, mut events: Vec<BrokerEvent>) -> Vec<BrokerEvent> {
        let mut inward = self.inward;
        inward.append(&mut events);
        inward
    }
}
