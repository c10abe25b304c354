//! Retained messages that new subscriptions are still to be sent: as many at a time as their
//! queue has room for.
//!
//! Were they put into the queue at once, a client would wait for room in its own queue, and nobody
//! would read the acknowledgements that make it.

use std::collections::VecDeque;

use unhidra_core::time::Timestamp;

use crate::Broker;
use crate::packet::Text;
use crate::persist::Storing;
use crate::router::Subscription;
use crate::router::message::Queued;
use crate::router::shared::Interest;
use crate::routing::Place;

/// How many are looked up at once.
const BATCH: usize = 32;

/// What one connection's subscriptions are still to be sent: one entry a filter, so no more than
/// the session may have subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Arrears(VecDeque<Entry>);

#[derive(Debug)]
struct Entry {
    filter: Text,
    subscription: Subscription,
    /// Whether the rules are asked about every topic.
    checked: bool,
    /// The last topic that was looked at.
    after: Option<Box<str>>,
}

impl Arrears {
    /// A subscription is to be sent what is retained, from the beginning.
    pub(crate) fn add(&mut self, filter: &Text, subscription: Subscription, checked: bool) {
        self.forget(filter);
        self.0.push_back(Entry { filter: filter.detach(), subscription, checked, after: None });
    }

    /// There is no such subscription any more.
    pub(crate) fn forget(&mut self, filter: &Text) {
        self.0.retain(|entry| entry.filter != *filter);
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
                Some(0) => drop(arrears.0.pop_front()),
                Some(_) => {}
                None => return,
            }
        }
    }

    /// Looks up the next few. Says how many there were, or `None` where there was no room.
    fn pay_one(&self, entry: &mut Entry, place: Place<'_>, now: Timestamp) -> Option<usize> {
        let Ok(interest) = Interest::parse(entry.filter.as_str()) else { return Some(0) };
        let found = if interest.filter.as_str().starts_with("$SYS") {
            self.sys().matches(interest.filter, entry.after.as_deref(), BATCH, now).0
        } else {
            let mut store = self.retained();
            let (live, expired) = store.matches(interest.filter, entry.after.as_deref(), BATCH, now);
            expired.iter().for_each(|message| self.store_retained(message, false, &mut Storing::default()));
            live
        };
        let count = found.len();
        for message in found {
            if place.queue.is_half_full() {
                return None;
            }
            let topic = message.topic().into();
            // A filter such as `#` is granted without a look at what is below the devices' prefix, where
            // readings in the clear may be retained: those are for whom a rule lets read them.
            let is_open = !entry.checked && !self.rules.acl.is_inside(message.topic());
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
}
