//! From a topic to those who subscribed to it.

pub(crate) mod message;
pub(crate) mod queue;
pub(crate) mod retained;
mod trie;

use std::sync::Arc;

use unhidra_core::topic::{TopicFilter, TopicName};

use crate::packet::{QoS, SubscriptionOptions};
use message::{Message, Queued};
use queue::Queue;
use trie::Trie;

/// One session in the router's eyes, never given twice in a process.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct SubscriberId(pub(crate) u64);

/// How one filter of one session is served.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Subscription {
    pub(crate) options: SubscriptionOptions,
    /// The Subscription Identifier, in 5.0.
    pub(crate) identifier: Option<u32>,
}

#[derive(Debug)]
struct Served {
    queue: Arc<Queue>,
    subscription: Subscription,
}

/// The subscriptions of all sessions.
#[derive(Debug, Default)]
pub(crate) struct Router {
    trie: Trie<SubscriberId, Served>,
}

impl Router {
    /// Adds a subscription, in place of the session's own with the same filter.
    pub(crate) fn subscribe(
        &mut self,
        filter: TopicFilter<'_>,
        subscriber: SubscriberId,
        queue: Arc<Queue>,
        subscription: Subscription,
    ) {
        self.trie.insert(filter, subscriber, Served { queue, subscription });
    }

    /// Takes one away.
    pub(crate) fn unsubscribe(&mut self, filter: TopicFilter<'_>, subscriber: SubscriberId) {
        self.trie.remove(filter, subscriber);
    }

    /// How many there are.
    pub(crate) const fn len(&self) -> usize {
        self.trie.len()
    }

    /// Hands a message to every session that subscribed to its topic, once, by `give`, and says
    /// to how many. `message` is only made if there is one.
    ///
    /// Where several filters of a session match, it gets the highest QoS among them and all their
    /// identifiers (section 3.3.4).
    pub(crate) fn route(
        &self,
        topic: TopicName<'_>,
        from: Option<SubscriberId>,
        message: impl FnOnce() -> Arc<Message>,
        mut give: impl FnMut(&Arc<Queue>, Queued),
    ) -> usize {
        let mut found = Vec::new();
        self.trie.matches(topic, &mut found);
        found.retain(|(subscriber, served)| !(served.subscription.options.no_local && Some(*subscriber) == from));
        if found.is_empty() {
            return 0;
        }
        found.sort_by_key(|(subscriber, _)| *subscriber);
        let message = message();
        let mut count = 0;
        for group in found.chunk_by(|a, b| a.0 == b.0) {
            let Some((_, first)) = group.first() else { continue };
            let served = || group.iter().map(|(_, served)| served.subscription);
            let granted = served().map(|s| s.options.qos).max().unwrap_or(QoS::AtMostOnce);
            let as_published = served().any(|s| s.options.retain_as_published);
            give(
                &first.queue,
                Queued {
                    qos: message.qos().min(granted),
                    retain: as_published && message.retain(),
                    identifiers: served().filter_map(|s| s.identifier).collect(),
                    message: message.clone(),
                },
            );
            count += 1;
        }
        count
    }
}

#[cfg(test)]
mod tests;
