//! Who would get a message, for those who look after the node.

use std::sync::PoisonError;

use unhidra_core::delivery::DownlinkRow;
use unhidra_core::ids::DeviceId;
use unhidra_core::topic::{TopicFilter, TopicName};

use crate::Broker;
use crate::clients::SessionName;
use crate::packet::QoS;
use crate::router::look::Subscribed;

/// A subscription by which a message would come.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct SubscriberRecord {
    /// Whose.
    pub name: SessionName,
    /// Its Topic Filter, without `$share` and the ShareName.
    pub filter: Box<str>,
    /// Where one of a group gets the message, the group.
    pub share_name: Option<Box<str>>,
    /// The highest QoS it comes with.
    pub qos: QoS,
    /// Whether its client is here.
    pub connected: bool,
}

/// Who would get a message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SubscribersFound {
    /// In the order of their names and filters.
    pub subscribers: Vec<SubscriberRecord>,
    /// Whether there may be more.
    pub more: bool,
}

impl Broker {
    /// Subscriptions by which a message on `wanted` would come, which is a topic, or a filter that
    /// stands for many: at most `max`. Of a topic, those only that rules let it through to.
    ///
    /// Below the devices' prefix these are the subscriptions that show ciphertext, and a device
    /// that listens on its own row.
    #[must_use]
    pub fn subscribers(&self, wanted: TopicFilter<'_>, max: usize) -> SubscribersFound {
        let mut found = Vec::new();
        let router = if self.rules.acl.is_inside(wanted.as_str()) { self.watchers.router() } else { &self.router };
        router.read().unwrap_or_else(PoisonError::into_inner).overlapping(wanted, max, &mut found);
        let more = found.len() >= max;
        let mut subscribers = self.listeners(wanted.as_str());
        subscribers.extend(found.into_iter().filter_map(|subscribed| self.subscriber(wanted, &subscribed)));
        subscribers.sort();
        SubscribersFound { subscribers, more }
    }

    fn subscriber(&self, wanted: TopicFilter<'_>, subscribed: &Subscribed) -> Option<SubscriberRecord> {
        let Subscribed { filter, share_name, queue, subscription, checked } = subscribed;
        if let (Ok(topic), Some(who)) = (TopicName::parse(wanted.as_str()), checked)
            && !self.rules.acl.may_read(who, topic)
        {
            return None;
        }
        Some(SubscriberRecord {
            name: SessionName::from(queue.whose()),
            filter: filter.clone(),
            share_name: share_name.clone(),
            qos: subscription.options.qos,
            connected: queue.is_read(),
        })
    }

    /// A device that listens on its own row has no place in the router.
    fn listeners(&self, topic: &str) -> Vec<SubscriberRecord> {
        let Some((device, row)) = self.downlink(topic) else { return Vec::new() };
        let connections = self.live.of_device(&device);
        let listening = connections.iter().filter(|mailbox| mailbox.listens(row)).filter_map(|mailbox| {
            let name = SessionName::from(mailbox.facts()?.queue.whose());
            let (filter, share_name) = (topic.into(), None);
            Some(SubscriberRecord { name, filter, share_name, qos: QoS::AtLeastOnce, connected: true })
        });
        listening.collect()
    }

    /// The device and the row that a topic names, if it names one.
    fn downlink(&self, topic: &str) -> Option<(DeviceId, DownlinkRow)> {
        let device = DeviceId::parse(topic.split('/').rev().nth(1)?).ok()?;
        let rows = [DownlinkRow::Commands, DownlinkRow::Prekeys];
        let row = rows.into_iter().find(|row| self.rules.acl.downlink_topic(&device, *row) == topic)?;
        Some((device, row))
    }
}
