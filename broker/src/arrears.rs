//! Retained messages that new subscriptions are still to be sent: as many at a time as their
//! queue has room for.
//!
//! Were they put into the queue at once, a client would wait for room in its own queue, and nobody
//! would read the acknowledgements that make it. What a connection that is lost still owes its
//! session owes the next one; where sessions are stored, a subscription says that something is owed,
//! and after a crash all of it is sent anew.

use std::collections::VecDeque;
use std::sync::Arc;

use unhidra_core::time::Timestamp;
use unhidra_core::topic::TopicFilter;

use crate::Broker;
use crate::acl::SubscribeRight;
use crate::persist::Storing;
use crate::router::Subscription;
use crate::router::message::{Message, Queued};
use crate::router::shared::Interest;
use crate::routing::Place;
use crate::session::Interest as Step;

/// How many are looked up at once.
const BATCH: usize = 32;

/// What one connection's subscriptions are still to be sent: one entry a filter, so no more than
/// the session may have subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Arrears(VecDeque<Entry>);

#[derive(Debug)]
struct Entry {
    filter: Box<str>,
    subscription: Subscription,
    /// The last topic that was looked at.
    after: Option<Box<str>>,
}

impl Arrears {
    /// A subscription is to be sent what is retained, from the beginning.
    pub(crate) fn add(&mut self, filter: &str, subscription: Subscription) {
        self.forget(filter);
        self.0.push_back(Entry { filter: filter.into(), subscription, after: None });
    }

    /// It is another subscription now, to be sent what it is owed and no more.
    pub(crate) fn renew(&mut self, filter: &str, subscription: Subscription) {
        if let Some(entry) = self.0.iter_mut().find(|entry| *entry.filter == *filter) {
            entry.subscription = subscription;
        }
    }

    /// There is no such subscription any more.
    pub(crate) fn forget(&mut self, filter: &str) {
        self.0.retain(|entry| *entry.filter != *filter);
    }

    /// Whether a subscription is still to be sent something.
    pub(crate) fn owes(&self, filter: &str) -> bool {
        self.0.iter().any(|entry| *entry.filter == *filter)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Broker {
    /// Fills a queue up to its half with what its subscriptions are still to be sent.
    pub(crate) fn pay(&self, arrears: &mut Arrears, place: Place<'_>, now: Timestamp) {
        while let Some(entry) = arrears.0.front_mut() {
            match self.pay_one(entry, place, now) {
                Some(0) => {
                    if let Some(Entry { filter, subscription, .. }) = arrears.0.pop_front() {
                        self.store_paid(place.queue, Step::Begun(filter, subscription));
                    }
                }
                Some(_) => {}
                None => return,
            }
        }
    }

    /// Looks up the next few. Says how many there were, or `None` where there was no room.
    fn pay_one(&self, entry: &mut Entry, place: Place<'_>, now: Timestamp) -> Option<usize> {
        let Ok(Interest { filter, .. }) = Interest::parse(&entry.filter) else { return Some(0) };
        // The rules of this moment: they may have changed since it subscribed.
        if self.rules.acl.subscribe(place.who, filter).0 != SubscribeRight::Route {
            return Some(0);
        }
        let checked = self.rules.acl.reach(place.who, filter.as_str()).checked;
        let found = self.retained_for(filter, entry.after.as_deref(), BATCH, now);
        let count = found.len();
        for message in found {
            if place.queue.is_half_full() {
                return None;
            }
            let topic = message.topic().into();
            // A filter such as `#` is granted without a look at what is below the devices' prefix, where
            // readings in the clear may be retained: those are for whom a rule lets read them.
            let is_open = !checked && !self.rules.acl.is_inside(message.topic());
            if is_open || self.may_read(place.who, message.topic()) {
                let qos = message.qos().min(entry.subscription.options.qos);
                let identifiers = entry.subscription.identifier.into_iter().collect();
                let queued = Queued { message, qos, retain: true, identifiers, group: None, kept: None };
                // There is room; and if others were faster, the policy says what becomes of it.
                let mut storing = Storing::default();
                self.push(place.queue, queued, None, now, &mut storing);
                self.store_queued(&mut storing);
            }
            entry.after = Some(topic);
        }
        Some(count)
    }

    /// At most `max` of the retained messages a filter stands for, behind the topic `after`.
    pub(crate) fn retained_for(
        &self,
        filter: TopicFilter<'_>,
        after: Option<&str>,
        max: usize,
        now: Timestamp,
    ) -> Vec<Arc<Message>> {
        if filter.as_str().starts_with("$SYS") {
            return self.sys().matches(filter, after, max, now).0;
        }
        let mut store = self.retained();
        let (live, expired) = store.matches(filter, after, max, now);
        expired.iter().for_each(|message| self.store_retained(message, false, &mut Storing::default()));
        live
    }
}
