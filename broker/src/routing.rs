//! What the broker does with subscriptions and messages: into the router, out to queues.

use std::sync::{Arc, PoisonError};

use unhidra_core::topic::{TopicFilter, TopicName};

use crate::metrics::DropCause;
use crate::packet::{RetainHandling, Will};
use crate::router::message::{Incoming, Message, Queued};
use crate::router::queue::{Pushed, Queue};
use crate::router::retained::Kept;
use crate::router::{SubscriberId, Subscription};
use crate::{Broker, gauge};

impl Broker {
    pub(crate) fn subscribe(
        &self,
        filter: &str,
        subscriber: SubscriberId,
        queue: &Arc<Queue>,
        subscription: Subscription,
        is_new: bool,
        full: &mut Vec<(Arc<Queue>, Queued)>,
    ) {
        let Ok(filter) = TopicFilter::parse(filter) else { return };
        let subscriptions = {
            let mut router = self.router.write().unwrap_or_else(PoisonError::into_inner);
            router.subscribe(filter, subscriber, queue.clone(), subscription);
            router.len()
        };
        self.metrics.subscriptions.set(gauge(subscriptions));
        let wanted = match subscription.options.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => is_new,
            RetainHandling::DoNotSend => false,
        };
        if !wanted {
            return;
        }
        let retained = self.retained().matches(filter, self.doors.clock.now());
        for message in retained {
            let qos = message.qos().min(subscription.options.qos);
            let identifiers = subscription.identifier.into_iter().collect();
            self.push(queue, Queued { message, qos, retain: true, identifiers }, full);
        }
    }

    pub(crate) fn unsubscribe(&self, filter: &str, subscriber: SubscriberId) {
        let Ok(filter) = TopicFilter::parse(filter) else { return };
        let mut router = self.router.write().unwrap_or_else(PoisonError::into_inner);
        router.unsubscribe(filter, subscriber);
        self.metrics.subscriptions.set(gauge(router.len()));
    }

    /// Routes a message to whom it matters, and says to how many. Those without room are added to
    /// `full`.
    pub(crate) fn route(
        &self,
        incoming: Incoming<'_>,
        from: Option<SubscriberId>,
        full: &mut Vec<(Arc<Queue>, Queued)>,
    ) -> usize {
        let Ok(topic) = TopicName::parse(incoming.topic.as_str()) else { return 0 };
        self.metrics.routed.inc();
        let now = self.doors.clock.now();
        let make = || Arc::new(Message::new(incoming, now));
        let retained = incoming.retain.then(make);
        if let Some(message) = &retained {
            let (kept, count) = {
                let mut store = self.retained();
                (store.put(message), store.len())
            };
            self.metrics.retained.set(gauge(count));
            if kept == Kept::NoRoom {
                self.metrics.drop_message(DropCause::NotRetained);
            }
        }
        let router = self.router.read().unwrap_or_else(PoisonError::into_inner);
        router.route(topic, from, || retained.unwrap_or_else(make), |queue, queued| self.push(queue, queued, full))
    }

    fn push(&self, queue: &Arc<Queue>, queued: Queued, full: &mut Vec<(Arc<Queue>, Queued)>) {
        match queue.push(queued) {
            Pushed::Taken => {}
            Pushed::Dropped => self.metrics.drop_message(DropCause::Away),
            Pushed::Full(queued) => full.push((queue.clone(), queued)),
        }
    }

    pub(crate) fn publish_will(&self, will: &Will) {
        let mut full = Vec::new();
        self.route(will.into(), None, &mut full);
        // Nobody is there to wait for a subscriber without room.
        full.iter().for_each(|_| self.metrics.drop_message(DropCause::Slow));
    }
}
