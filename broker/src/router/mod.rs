//! From a topic to those who subscribed to it.

pub(crate) mod look;
pub(crate) mod message;
pub(crate) mod queue;
pub(crate) mod retained;
pub(crate) mod shared;
mod trie;

use std::cell::Cell;
use std::sync::Arc;

use unhidra_core::topic::TopicName;

use crate::acl::Principal;
use crate::packet::{QoS, SubscriptionOptions};
use message::{Message, Queued};
use queue::Queue;
use shared::{Group, Interest};
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
    /// Who must be asked about before each delivery, because rules split the filter.
    checked: Option<Arc<Principal>>,
}

/// The subscriptions of all sessions.
#[derive(Debug, Default)]
pub(crate) struct Router {
    own: Trie<SubscriberId, Served>,
    /// By ShareName.
    shared: Trie<Box<str>, Arc<Group>>,
    shared_members: usize,
}

impl Router {
    /// Adds a subscription, in place of the session's own with the same filter.
    pub(crate) fn subscribe(
        &mut self,
        interest: Interest<'_>,
        subscriber: SubscriberId,
        queue: Arc<Queue>,
        subscription: Subscription,
        checked: Option<Arc<Principal>>,
    ) {
        let Interest { share_name, filter } = interest;
        let Some(name) = share_name else {
            self.own.insert(filter, subscriber, Served { queue, subscription, checked });
            return;
        };
        let group = match self.shared.get(filter, name) {
            Some(group) => group.clone(),
            None => {
                let group = Arc::new(Group::default());
                self.shared.insert(filter, name.into(), group.clone());
                group
            }
        };
        self.shared_members += usize::from(group.join(subscriber, queue, subscription, checked));
    }

    /// Takes one away.
    pub(crate) fn unsubscribe(&mut self, interest: Interest<'_>, subscriber: SubscriberId) {
        let Interest { share_name, filter } = interest;
        let Some(name) = share_name else {
            self.own.remove(filter, &subscriber);
            return;
        };
        let Some(group) = self.shared.get(filter, name) else { return };
        self.shared_members -= usize::from(group.leave(subscriber));
        if group.is_empty() {
            self.shared.remove(filter, name);
        }
    }

    /// How many there are.
    pub(crate) const fn len(&self) -> usize {
        self.own.len() + self.shared_members
    }

    /// How many of them are in groups.
    pub(crate) const fn shared_len(&self) -> usize {
        self.shared_members
    }

    /// Hands a message to every session that subscribed to its topic, once, and to one of each
    /// group that shares it, by `give`, and says to how many. `message` is only made if there is
    /// one.
    ///
    /// Where several filters of a session match, it gets the highest QoS among them and all their
    /// identifiers (section 3.3.4). `may_read` is asked where rules split the filter it comes by.
    pub(crate) fn route(
        &self,
        topic: TopicName<'_>,
        from: Option<SubscriberId>,
        may_read: impl Fn(&Principal) -> bool,
        message: impl FnOnce() -> Arc<Message>,
        mut give: impl FnMut(&Arc<Queue>, Queued),
    ) -> usize {
        let mut found = recycled(FOUND.take());
        self.own.matches(topic, &mut |subscriber, served| {
            let own = served.subscription.options.no_local && Some(*subscriber) == from;
            if !own && served.checked.as_deref().is_none_or(&may_read) {
                found.push((*subscriber, served));
            }
        });
        let mut groups = Vec::new();
        if self.shared_members > 0 {
            self.shared.matches(topic, &mut |_, group| groups.push(group));
        }
        if found.is_empty() && groups.is_empty() {
            FOUND.set(recycled(found));
            return 0;
        }
        if !found.is_sorted_by_key(|(subscriber, _)| *subscriber) {
            found.sort_unstable_by_key(|(subscriber, served)| (*subscriber, served.subscription.identifier));
        }
        let message = message();
        let mut count = 0;
        for same in found.chunk_by(|a, b| a.0 == b.0) {
            let Some((_, first)) = same.first() else { continue };
            let served = || same.iter().map(|(_, served)| served.subscription);
            let granted = served().map(|s| s.options.qos).max().unwrap_or(QoS::AtMostOnce);
            let as_published = served().any(|s| s.options.retain_as_published);
            give(
                &first.queue,
                Queued {
                    qos: message.qos().min(granted),
                    retain: as_published && message.retain(),
                    identifiers: served().filter_map(|s| s.identifier).collect(),
                    message: message.clone(),
                    group: None,
                    kept: None,
                },
            );
            count += 1;
        }
        for group in groups {
            if let Some((queue, queued)) = group.choose(&message, &may_read) {
                give(&queue, queued);
                count += 1;
            }
        }
        if found.capacity() <= FOUND_MAX {
            FOUND.set(recycled(found));
        }
        count
    }
}

/// What a look-up has found.
type Found<'r> = Vec<(SubscriberId, &'r Served)>;

/// The longest list a thread keeps for its next look-up.
const FOUND_MAX: usize = 16 * 1024;

thread_local! {
    /// The list of this thread's last look-up, empty: a look-up allocates nothing.
    static FOUND: Cell<Found<'static>> = const { Cell::new(Vec::new()) };
}

/// An empty list in the memory of another.
#[expect(clippy::unnecessary_filter_map, reason = "a filter would keep the lifetime")]
fn recycled<'r>(mut found: Found<'_>) -> Found<'r> {
    found.clear();
    // The library collects in place; a test counts that it does.
    found.into_iter().filter_map(|_| None).collect()
}

#[cfg(test)]
mod tests;
