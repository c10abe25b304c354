//! Retained messages that new subscriptions are still to be sent: as many at a time as their
//! queue has room for.
//!
//! Were they put into the queue at once, a client would wait for room in its own queue, and nobody
//! would read the acknowledgements that make it. What a connection that is lost still owes its
//! session owes the next one; where sessions are stored, a subscription says that something is owed,
//! and after a crash all of it is sent anew.

use std::collections::VecDeque;

use unhidra_core::time::Timestamp;
use unhidra_core::topic::TopicFilter;

use crate::Broker;
use crate::acl::SubscribeRight;
use crate::persist::Storing;
use crate::router::Subscription;
use crate::router::message::Queued;
use crate::router::retained::Found;
use crate::router::shared::Interest;
use crate::routing::Place;
use crate::session::Interest as Step;

/// How many are looked up at once.
const BATCH: usize = 32;

/// How many topics are looked at for them: nobody else finds or keeps a retained message meanwhile.
const LOOKS: usize = 512;

/// How many looks a connection has before others have their turn.
const LOOKS_A_TURN: usize = 8;

/// How many topics are looked at to find that a new subscription is owed nothing.
const FIRST_LOOKS: usize = 64;

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

/// How far a subscription has come.
enum Paid {
    /// To the end.
    All,
    /// A look further.
    Some,
    /// As far as its queue has room.
    NoRoom,
}

impl Broker {
    /// Fills a queue up to its half with what its subscriptions are still to be sent. Says whether it is to come
    /// again at once: there is room, and others have their turn before more is looked up.
    pub(crate) fn pay(&self, arrears: &mut Arrears, place: Place<'_>, now: Timestamp) -> bool {
        for _ in 0..LOOKS_A_TURN {
            let Some(entry) = arrears.0.front_mut() else { return false };
            match self.pay_one(entry, place, now) {
                Paid::All => {
                    if let Some(Entry { filter, subscription, .. }) = arrears.0.pop_front() {
                        self.store_paid(place.queue, Step::Begun(filter, subscription));
                    }
                }
                Paid::Some => {}
                Paid::NoRoom => return false,
            }
        }
        !arrears.is_empty()
    }

    /// Looks up the next few.
    fn pay_one(&self, entry: &mut Entry, place: Place<'_>, now: Timestamp) -> Paid {
        let Ok(Interest { filter, .. }) = Interest::parse(&entry.filter) else { return Paid::All };
        // The rules of this moment: they may have changed since it subscribed.
        if self.rules.acl.subscribe(place.who, filter).0 != SubscribeRight::Route {
            return Paid::All;
        }
        if place.queue.is_half_full() {
            return Paid::NoRoom;
        }
        let checked = self.rules.acl.reach(place.who, filter.as_str()).checked;
        let found = self.retained_for(filter, entry.after.as_deref(), (BATCH, LOOKS), now);
        for message in found.live {
            if place.queue.is_half_full() {
                return Paid::NoRoom;
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
        if !found.has_more {
            return Paid::All;
        }
        entry.after = found.last;
        Paid::Some
    }

    /// Whether a new subscription may be owed something.
    pub(crate) fn may_owe(&self, filter: TopicFilter<'_>, now: Timestamp) -> bool {
        let found = self.retained_for(filter, None, (1, FIRST_LOOKS), now);
        found.has_more || !found.live.is_empty()
    }

    /// At most so many of the retained messages a filter stands for, behind the topic `after`, and so many topics
    /// looked at.
    fn retained_for(
        &self,
        filter: TopicFilter<'_>,
        after: Option<&str>,
        at_most: (usize, usize),
        now: Timestamp,
    ) -> Found {
        if filter.as_str().starts_with("$SYS") {
            return self.sys().matches(filter, after, at_most, now);
        }
        let mut store = self.retained();
        let found = store.matches(filter, after, at_most, now);
        found.dead.iter().for_each(|message| self.store_retained(message, false, &mut Storing::default()));
        found
    }
}
