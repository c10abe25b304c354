//! What the broker does with subscriptions and messages: into the router, out to queues.

use std::sync::{Arc, PoisonError};

use unhidra_core::time::Timestamp;
use unhidra_core::topic::TopicName;

use crate::metrics::DropCause;
use crate::net::mailbox::Mailbox;
use crate::packet::{RetainHandling, Will};
use crate::router::message::{Incoming, Message, Queued};
use crate::router::queue::{Pushed, Queue};
use crate::router::retained::Kept;
use crate::router::shared::Interest;
use crate::router::{SubscriberId, Subscription};
use crate::{Broker, gauge};

/// What found no room, and may soon: whoever sent it holds it until then.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) queue: Arc<Queue>,
    pub(crate) queued: Queued,
    pub(crate) retry_at: Timestamp,
}

/// On whose behalf messages go into queues.
#[derive(Clone, Copy)]
pub(crate) struct Sender<'a> {
    /// Its own subscriptions, for No Local.
    pub(crate) subscriber: SubscriberId,
    /// Woken when there is room for what it holds.
    pub(crate) mailbox: &'a Arc<Mailbox>,
}

impl Broker {
    pub(crate) fn subscribe(
        &self,
        filter: &str,
        sender: Sender<'_>,
        queue: &Arc<Queue>,
        subscription: Subscription,
        is_new: bool,
        held: &mut Vec<Held>,
    ) {
        let Ok(interest) = Interest::parse(filter) else { return };
        let subscriptions = {
            let mut router = self.router.write().unwrap_or_else(PoisonError::into_inner);
            router.subscribe(interest, sender.subscriber, queue.clone(), subscription);
            router.len()
        };
        self.metrics.subscriptions.set(gauge(subscriptions));
        if interest.share_name.is_some() {
            // A group gets no retained messages (section 4.8.2).
            return;
        }
        let wanted = match subscription.options.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => is_new,
            RetainHandling::DoNotSend => false,
        };
        if !wanted {
            return;
        }
        let now = self.doors.clock.now();
        let retained = self.retained().matches(interest.filter, now);
        for message in retained {
            let qos = message.qos().min(subscription.options.qos);
            let identifiers = subscription.identifier.into_iter().collect();
            let queued = Queued { message, qos, retain: true, identifiers, group: None };
            held.extend(self.push(queue, queued, Some(sender.mailbox), now));
        }
    }

    pub(crate) fn unsubscribe(&self, filter: &str, subscriber: SubscriberId) {
        let Ok(interest) = Interest::parse(filter) else { return };
        let mut router = self.router.write().unwrap_or_else(PoisonError::into_inner);
        router.unsubscribe(interest, subscriber);
        self.metrics.subscriptions.set(gauge(router.len()));
    }

    /// Routes a message to whom it matters, and says to how many. Those without room are added to
    /// `held`; without a sender they are dropped.
    pub(crate) fn route(&self, incoming: Incoming<'_>, sender: Option<Sender<'_>>, held: &mut Vec<Held>) -> usize {
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
        let (from, mailbox) = (sender.map(|sender| sender.subscriber), sender.map(|sender| sender.mailbox));
        let router = self.router.read().unwrap_or_else(PoisonError::into_inner);
        router.route(
            topic,
            from,
            || retained.unwrap_or_else(make),
            |queue, queued| held.extend(self.push(queue, queued, mailbox, now)),
        )
    }

    /// Puts a message into a queue, and counts what is dropped for it. What has to wait is given
    /// back.
    pub(crate) fn push(
        &self,
        queue: &Arc<Queue>,
        queued: Queued,
        sender: Option<&Arc<Mailbox>>,
        now: Timestamp,
    ) -> Option<Held> {
        match queue.push(queued, sender, now) {
            Pushed::Taken { evicted: 0 } => None,
            Pushed::Taken { evicted } => {
                (0..evicted).for_each(|_| self.metrics.drop_message(DropCause::Evicted));
                None
            }
            Pushed::Dropped(cause) => {
                self.metrics.drop_message(cause);
                None
            }
            Pushed::Full(queued, retry_at) => Some(Held { queue: queue.clone(), queued, retry_at }),
        }
    }

    /// What a member of groups had unsent, or unacknowledged at QoS 1, goes to other members
    /// (section 4.8.2).
    pub(crate) fn pass_on(&self, left: impl IntoIterator<Item = Queued>) {
        let now = self.doors.clock.now();
        for queued in left {
            if let Some(group) = &queued.group
                && let Some((queue, queued)) = group.choose(&queued.message)
            {
                self.push(&queue, queued, None, now);
            }
        }
    }

    pub(crate) fn publish_will(&self, will: &Will) {
        // Nobody is there to wait for a subscriber without room.
        self.route(will.into(), None, &mut Vec::new());
    }
}
