//! What the broker does with subscriptions and messages: into the router, out to queues.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use unhidra_core::delivery::DownlinkRow;
use unhidra_core::ids::DeviceId;
use unhidra_core::time::Timestamp;
use unhidra_core::topic::{TopicFilter, TopicName};

use crate::acl::{Principal, SubscribeRight};
use crate::arrears::Arrears;
use crate::metrics::DropCause;
use crate::net::mailbox::Mailbox;
use crate::packet::{Properties, QoS, RetainHandling, Text, Will};
use crate::persist::Storing;
use crate::persist::receipt::Receipt;
use crate::router::message::{Incoming, Message, Queued};
use crate::router::queue::{Pushed, Queue};
use crate::router::retained::Kept;
use crate::router::shared::Interest;
use crate::router::{Router, SubscriberId, Subscription};
use crate::{Broker, gauge};

/// How many retained readings are forgotten under one lock.
const FORGOTTEN_AT_ONCE: usize = 256;

/// What found no room, and may soon: whoever sent it holds it until then.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) queue: Arc<Queue>,
    pub(crate) queued: Queued,
    pub(crate) retry_at: Timestamp,
    /// Its sender's answer waits until it is kept.
    pub(crate) receipt: Option<Arc<Receipt>>,
}

/// A reading in the clear, on its way to the broker's clients.
#[derive(Debug)]
pub struct Shown<'a> {
    /// Whose.
    pub device: &'a DeviceId,
    /// The last level of its topic: a name in which nothing could pass for topic syntax.
    pub name: &'a str,
    /// What its messages hold.
    pub payload: Bytes,
    /// Whether it is its topic's retained message from now on.
    pub retain: bool,
    /// What is said beside the payload.
    pub properties: Properties,
}

/// On whose behalf messages go into queues.
#[derive(Clone, Copy)]
pub(crate) struct Sender<'a> {
    /// Its own subscriptions, for No Local.
    pub(crate) subscriber: SubscriberId,
    /// Woken when there is room for what it holds.
    pub(crate) mailbox: &'a Arc<Mailbox>,
}

/// Whose a subscription is, and where its messages go.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) who: &'a Arc<Principal>,
    pub(crate) subscriber: SubscriberId,
    pub(crate) queue: &'a Arc<Queue>,
}

/// Those who see what devices say: a rule lets them, and their filter covers it. Apart from the
/// others, so that a message of a device costs nothing while there is nobody.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    router: RwLock<Router>,
    count: AtomicUsize,
}

impl Watchers {
    fn change(&self, change: impl FnOnce(&mut Router)) {
        let mut router = self.router.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut router);
        self.count.store(router.len(), Ordering::Relaxed);
    }

    pub(crate) const fn router(&self) -> &RwLock<Router> {
        &self.router
    }

    fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) != 0
    }
}

impl Broker {
    /// Puts a subscription into the router, as far as the rules of this moment let it see.
    pub(crate) fn place(&self, filter: &str, place: Place<'_>, subscription: Subscription) {
        let Ok(interest) = Interest::parse(filter) else { return };
        if self.rules.acl.subscribe(place.who, interest.filter).0 != SubscribeRight::Route {
            // The rules have changed since it was granted.
            return;
        }
        let reach = self.rules.acl.reach(place.who, interest.filter.as_str());
        let Place { who, subscriber, queue } = place;
        let subscriptions = {
            let mut router = self.router.write().unwrap_or_else(PoisonError::into_inner);
            let checked = reach.checked.then(|| who.clone());
            router.subscribe(interest, subscriber, queue.clone(), subscription, checked);
            router.len()
        };
        self.metrics.subscriptions.set(gauge(subscriptions));
        if reach.devices {
            let checked = Some(who.clone());
            self.watchers.change(|router| router.subscribe(interest, subscriber, queue.clone(), subscription, checked));
        } else if self.watchers.any() {
            self.watchers.change(|router| router.unsubscribe(interest, subscriber));
        }
    }

    pub(crate) fn subscribe(
        &self,
        filter: &Text,
        place: Place<'_>,
        subscription: Subscription,
        is_new: bool,
        arrears: &mut Arrears,
    ) {
        let Ok(interest) = Interest::parse(filter.as_str()) else { return };
        self.place(filter.as_str(), place, subscription);
        if interest.share_name.is_some() {
            // A group gets no retained messages (section 4.8.2).
            return;
        }
        let wanted = match subscription.options.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => is_new,
            RetainHandling::DoNotSend => false,
        };
        // Looked up behind the router: what comes from now on is routed.
        let now = self.doors.clock.now();
        if wanted && self.may_owe(interest.filter, now) {
            arrears.add(filter.as_str(), subscription);
        } else {
            arrears.renew(filter.as_str(), subscription);
        }
    }

    pub(crate) fn unsubscribe(&self, filter: &str, subscriber: SubscriberId) {
        let Ok(interest) = Interest::parse(filter) else { return };
        let mut router = self.router.write().unwrap_or_else(PoisonError::into_inner);
        router.unsubscribe(interest, subscriber);
        if self.watchers.any() {
            self.watchers.change(|router| router.unsubscribe(interest, subscriber));
        }
        self.metrics.subscriptions.set(gauge(router.len()));
    }

    /// Routes a message to whom it matters, and says to how many. Those without room are added to
    /// `held`; without a sender they are dropped.
    pub(crate) fn route(
        &self,
        incoming: Incoming<'_>,
        sender: Option<Sender<'_>>,
        storing: &mut Storing,
        held: &mut Vec<Held>,
    ) -> usize {
        let Ok(topic) = TopicName::parse(incoming.topic.as_str()) else { return 0 };
        let now = self.doors.clock.now();
        let make = || Arc::new(Message::new(incoming, now));
        let retained = incoming.retain.then(make);
        if let Some(message) = &retained {
            self.retain(message, storing);
        }
        let (from, mailbox) = (sender.map(|sender| sender.subscriber), sender.map(|sender| sender.mailbox));
        let router = self.router.read().unwrap_or_else(PoisonError::into_inner);
        let found = router.route(
            topic,
            from,
            |who| self.rules.acl.may_read(who, topic),
            || retained.unwrap_or_else(make),
            |queue, queued| held.extend(self.push(queue, queued, mailbox, now, storing)),
        );
        self.store_queued(storing);
        found
    }

    /// Keeps a message with RETAIN as the last of its topic, where there is room.
    fn retain(&self, message: &Arc<Message>, storing: &mut Storing) {
        let mut store = self.retained();
        for expired in store.expire(self.doors.clock.now()) {
            self.store_retained(&expired, false, &mut Storing::default());
        }
        let (kept, had) = store.put(message);
        if kept == Kept::Yes || had {
            self.store_retained(message, kept == Kept::Yes, storing);
        }
        drop(store);
        if kept == Kept::NoRoom {
            self.metrics.drop_message(DropCause::NotRetained);
        }
    }

    /// Shows a reading in the clear to those whom a rule lets read it and nobody else. Says to how many
    /// sessions, and what of it has to wait until `mailbox` is woken.
    pub(crate) fn show_reading(&self, reading: Shown<'_>, mailbox: &Arc<Mailbox>) -> (usize, Vec<Held>) {
        let Shown { device, name, payload, retain, properties } = reading;
        let text = &Text::from_checked(self.rules.acl.reading_topic(device, name));
        if TopicName::parse(text.as_str()).is_err() {
            return (0, Vec::new());
        }
        let incoming =
            Incoming { topic: text, payload: &payload, qos: QoS::AtLeastOnce, retain, properties: &properties };
        if retain {
            let mut storing = Storing::default();
            self.retain(&Arc::new(Message::new(incoming, self.doors.clock.now())), &mut storing);
            storing.finish();
        }
        let mut held = Vec::new();
        (self.show_to(incoming, Some(mailbox), &mut held), held)
    }

    /// Forgets every retained reading in the clear: nobody keeps them up to date any more, and none but
    /// the node could take them away.
    pub fn forget_readings(&self) {
        let topics = self.rules.acl.readings_topics();
        let Ok(filter) = TopicFilter::parse(&topics) else { return };
        let (payload, properties, now) = (Bytes::new(), Properties::default(), self.doors.clock.now());
        loop {
            let found = self.retained().matches(filter, None, (FORGOTTEN_AT_ONCE, usize::MAX), now).live;
            for message in &found {
                let (topic, qos) = (message.topic_text(), QoS::AtLeastOnce);
                let empty = Incoming { topic, payload: &payload, qos, retain: true, properties: &properties };
                self.retain(&Arc::new(Message::new(empty, now)), &mut Storing::default());
            }
            if found.is_empty() {
                return;
            }
        }
    }

    /// Shows those who may see it what a device has published on a row of its own, or the node to
    /// it. Nothing waits for them: one without room does not get it.
    pub(crate) fn show(&self, incoming: Incoming<'_>) {
        self.show_to(incoming, None, &mut Vec::new());
    }

    /// The same for who waits: those without room are added to `held`. Says to how many sessions it goes.
    fn show_to(&self, incoming: Incoming<'_>, mailbox: Option<&Arc<Mailbox>>, held: &mut Vec<Held>) -> usize {
        if !self.watchers.any() {
            return 0;
        }
        let Ok(topic) = TopicName::parse(incoming.topic.as_str()) else { return 0 };
        let now = self.doors.clock.now();
        let make = || Arc::new(Message::new(incoming, now));
        let may_read = |who: &Principal| self.rules.acl.may_read(who, topic);
        let router = self.watchers.router.read().unwrap_or_else(PoisonError::into_inner);
        let mut storing = Storing::default();
        let found = router.route(topic, None, may_read, make, |queue, queued| {
            held.extend(self.push(queue, queued, mailbox, now, &mut storing));
        });
        self.store_queued(&mut storing);
        found
    }

    pub(crate) fn show_downlink(&self, device: &DeviceId, row: DownlinkRow, payload: &Bytes) {
        if self.watchers.any() {
            let topic = &Text::from_checked(self.rules.acl.downlink_topic(device, row));
            let (qos, properties) = (QoS::AtLeastOnce, &Properties::default());
            self.show(Incoming { topic, payload, qos, retain: false, properties });
        }
    }

    pub(crate) fn may_read(&self, who: &Principal, topic: &str) -> bool {
        TopicName::parse(topic).is_ok_and(|topic| self.rules.acl.may_read(who, topic))
    }

    /// Puts a message into a queue, and counts what is dropped for it. What has to wait is given
    /// back.
    pub(crate) fn push(
        &self,
        queue: &Arc<Queue>,
        queued: Queued,
        sender: Option<&Arc<Mailbox>>,
        now: Timestamp,
        storing: &mut Storing,
    ) -> Option<Held> {
        match queue.push(queued, sender, now) {
            Pushed::Taken { kept, evicted } => {
                if let Some(kept) = kept {
                    storing.queued(queue, kept);
                }
                if !evicted.is_empty() {
                    for gone in &evicted {
                        let is_expired = gone.message.is_expired(now);
                        self.metrics.drop_message(if is_expired { DropCause::Expired } else { DropCause::Evicted });
                    }
                    if let Some(session) = queue.keeper() {
                        self.forget_queued(session, evicted);
                    }
                }
                None
            }
            Pushed::Dropped(cause) => {
                self.metrics.drop_message(cause);
                None
            }
            Pushed::Full(queued, retry_at) => {
                let receipt = if queue.keeps(queued.qos) { storing.receipt() } else { None };
                Some(Held { queue: queue.clone(), queued, retry_at, receipt })
            }
        }
    }

    /// Offers again what had to wait: what is a group's to whichever of its members has room by now.
    pub(crate) fn push_again(&self, held: Held, sender: &Arc<Mailbox>, now: Timestamp) -> Option<Held> {
        let Held { queue, queued, receipt, .. } = held;
        let may_read = |who: &Principal| self.may_read(who, queued.message.topic());
        let chosen = queued.group.as_ref().and_then(|group| group.choose(&queued.message, may_read));
        let (queue, queued) = chosen.unwrap_or((queue, queued));
        let mut storing = Storing::of_receipt(receipt);
        let again = self.push(&queue, queued, Some(sender), now, &mut storing);
        self.store_queued(&mut storing);
        storing.finish();
        again
    }

    /// What a member of groups had unsent, or unacknowledged at QoS 1, goes to other members
    /// (section 4.8.2).
    pub(crate) fn pass_on(&self, left: impl IntoIterator<Item = Queued>) {
        let now = self.doors.clock.now();
        for queued in left {
            let may_read = |who: &Principal| self.may_read(who, queued.message.topic());
            if let Some(group) = &queued.group
                && let Some((queue, queued)) = group.choose(&queued.message, may_read)
            {
                let mut storing = Storing::default();
                self.push(&queue, queued, None, now, &mut storing);
                self.store_queued(&mut storing);
            }
        }
    }

    pub(crate) fn publish_will(&self, will: &Will) {
        // Nobody is there to wait for a subscriber without room.
        self.route(will.into(), None, &mut Storing::default(), &mut Vec::new());
    }
}
