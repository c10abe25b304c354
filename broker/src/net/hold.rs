//! What a connection could not hand on: while anything is here, it reads nothing more, and so the
//! peer waits instead of the node's memory.

use std::mem;
use std::sync::Arc;

use unhidra_core::time::Timestamp;

use super::mailbox::Mailbox;
use crate::Broker;
use crate::doors::{BoxFuture, BrokerEvent};
use crate::routing::Held;

/// What waits for room elsewhere. One packet's worth, for what is not read cannot add to it. What a
/// device sends goes inward alone, what a plain client sends to subscribers alone.
#[derive(Default)]
pub(super) struct Hold {
    /// Events the node had no room for, in their order.
    inward: Vec<BrokerEvent>,
    /// Messages whose subscribers had no room.
    subscribers: Vec<Held>,
}

impl Hold {
    pub(super) const fn is_empty(&self) -> bool {
        self.inward.is_empty() && self.subscribers.is_empty()
    }

    /// Keeps messages for subscribers that are full.
    pub(super) fn keep_for_subscribers(&mut self, mut held: Vec<Held>) {
        self.subscribers.append(&mut held);
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

    /// What completes when it is worth offering to the node again; `None` when nothing is held for
    /// it. For subscribers the mailbox is woken.
    pub(super) fn room<'b>(&self, broker: &'b Broker) -> Option<BoxFuture<'b, ()>> {
        self.inward.first().map(|event| broker.inlet().room(event.device()))
    }

    /// Offers to the node again. Says whether it took it all.
    pub(super) fn retry(&mut self, broker: &Broker) -> bool {
        if !self.inward.is_empty()
            && let Err(back) = broker.inlet().offer(mem::take(&mut self.inward))
        {
            self.inward = back;
        }
        self.inward.is_empty()
    }

    /// Tries again to give subscribers what is theirs. Says whether nothing is left.
    pub(super) fn retry_subscribers(&mut self, mailbox: &Arc<Mailbox>, broker: &Broker, now: Timestamp) -> bool {
        if !self.subscribers.is_empty() {
            let held = mem::take(&mut self.subscribers).into_iter();
            self.subscribers = held.filter_map(|held| broker.push_again(held, mailbox, now)).collect();
        }
        self.subscribers.is_empty()
    }

    /// When to try again at the latest.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.subscribers.iter().map(|held| held.retry_at).min()
    }

    /// The events that the node must still have, and `events` behind them.
    pub(super) fn into_inward(self, mut events: Vec<BrokerEvent>) -> Vec<BrokerEvent> {
        let mut inward = self.inward;
        inward.append(&mut events);
        inward
    }
}
