//! Who may publish and subscribe where (e2ee/PROTOCOL.md section 2).
//!
//! A device has its own rows and nothing else; a plain client has everything but the devices'
//! tree and `$`. Device rows are never routed to subscribers, so a filter like `#` shows a plain
//! client none of them.

use unhidra_core::delivery::{DownlinkRow, UplinkRow};
use unhidra_core::ids::DeviceId;
use unhidra_core::topic::{TopicFilter, TopicName};

use crate::doors::Admitted;
use crate::packet::QoS;

/// The rules, for one topic prefix `{p}`.
#[derive(Clone, Debug)]
pub(crate) struct Acl {
    prefix: String,
}

/// What may become of a PUBLISH.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum PublishRight {
    /// It goes inward.
    Deliver(UplinkRow),
    /// It goes to subscribers.
    Route,
    /// Nothing.
    Denied,
}

/// What may become of a Topic Filter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SubscribeRight {
    /// The node speaks to the device there.
    Listen(DownlinkRow),
    /// It goes into the router.
    Route,
    /// Nothing.
    Denied,
}

impl Acl {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// Whether `who` may publish so.
    pub(crate) fn publish(&self, who: &Admitted, topic: TopicName<'_>, qos: QoS, retain: bool) -> PublishRight {
        match who {
            Admitted::Client(_) if self.is_open(topic.as_str()) => PublishRight::Route,
            Admitted::Client(_) => PublishRight::Denied,
            Admitted::Device(_) if retain => PublishRight::Denied,
            Admitted::Device(device) => match (self.row(device, topic.as_str()), qos) {
                (Some("messages"), QoS::AtMostOnce | QoS::AtLeastOnce) => PublishRight::Deliver(UplinkRow::Messages),
                (Some("prekeys/get"), QoS::AtLeastOnce) => PublishRight::Deliver(UplinkRow::PrekeysGet),
                _ => PublishRight::Denied,
            },
        }
    }

    /// Whether `who` may leave a Will there. A device may nowhere.
    pub(crate) fn will(&self, who: &Admitted, topic: TopicName<'_>) -> bool {
        match who {
            Admitted::Client(_) => self.is_open(topic.as_str()),
            Admitted::Device(_) => false,
        }
    }

    /// Whether `who` may subscribe so. A device names its rows exactly.
    pub(crate) fn subscribe(&self, who: &Admitted, filter: TopicFilter<'_>) -> SubscribeRight {
        match who {
            Admitted::Client(_) if self.is_open(filter.as_str()) => SubscribeRight::Route,
            Admitted::Client(_) => SubscribeRight::Denied,
            Admitted::Device(device) => match self.row(device, filter.as_str()) {
                Some("commands") => SubscribeRight::Listen(DownlinkRow::Commands),
                Some("prekeys") => SubscribeRight::Listen(DownlinkRow::Prekeys),
                _ => SubscribeRight::Denied,
            },
        }
    }

    /// The topic of a row to a device.
    pub(crate) fn downlink_topic(&self, device: &DeviceId, row: DownlinkRow) -> String {
        let row = match row {
            DownlinkRow::Commands => "commands",
            DownlinkRow::Prekeys => "prekeys",
        };
        format!("{}/devices/{device}/{row}", self.prefix)
    }

    /// What of a topic stands after `{p}/devices/{id}/`.
    fn row<'t>(&self, device: &DeviceId, topic: &'t str) -> Option<&'t str> {
        let below = topic.strip_prefix(self.prefix.as_str())?.strip_prefix("/devices/")?;
        below.strip_prefix(device.as_str())?.strip_prefix('/')
    }

    /// Whether a topic or a filter is outside `{p}` and `$`, literally: what a wildcard covers
    /// besides does no harm, since nothing is routed there.
    fn is_open(&self, topic: &str) -> bool {
        let below = topic.strip_prefix(self.prefix.as_str());
        !topic.starts_with('$') && !below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl() -> Acl {
        Acl::new("unhidra")
    }

    fn pump() -> Admitted {
        Admitted::Device(DeviceId::parse("pump-7").expect("an id"))
    }

    fn publish(who: &Admitted, topic: &str, qos: QoS, retain: bool) -> PublishRight {
        acl().publish(who, TopicName::parse(topic).expect("a topic"), qos, retain)
    }

    fn subscribe(who: &Admitted, filter: &str) -> SubscribeRight {
        acl().subscribe(who, TopicFilter::parse(filter).expect("a filter"))
    }

    #[test]
    fn a_device_publishes_to_its_own_rows_alone() {
        use PublishRight::{Deliver, Denied};
        use QoS::{AtLeastOnce, AtMostOnce};
        for (topic, qos, retain, expected) in [
            ("unhidra/devices/pump-7/messages", AtMostOnce, false, Deliver(UplinkRow::Messages)),
            ("unhidra/devices/pump-7/messages", AtLeastOnce, false, Deliver(UplinkRow::Messages)),
            ("unhidra/devices/pump-7/messages", AtLeastOnce, true, Denied),
            ("unhidra/devices/pump-7/prekeys/get", AtLeastOnce, false, Deliver(UplinkRow::PrekeysGet)),
            ("unhidra/devices/pump-7/prekeys/get", AtMostOnce, false, Denied),
            ("unhidra/devices/pump-7/prekeys", AtLeastOnce, false, Denied),
            ("unhidra/devices/pump-7/commands", AtLeastOnce, false, Denied),
            ("unhidra/devices/pump-70/messages", AtLeastOnce, false, Denied),
            ("unhidra/devices/pump-8/messages", AtLeastOnce, false, Denied),
            ("unhidra/devices/pump-7/messages/x", AtLeastOnce, false, Denied),
            ("weather", AtLeastOnce, false, Denied),
            ("$SYS/x", AtLeastOnce, false, Denied),
        ] {
            assert_eq!(publish(&pump(), topic, qos, retain), expected, "{topic} {qos:?} {retain}");
        }
    }

    #[test]
    fn a_device_subscribes_by_exact_topic_alone() {
        use SubscribeRight::{Denied, Listen};
        for (filter, expected) in [
            ("unhidra/devices/pump-7/commands", Listen(DownlinkRow::Commands)),
            ("unhidra/devices/pump-7/prekeys", Listen(DownlinkRow::Prekeys)),
            ("unhidra/devices/pump-7/+", Denied),
            ("unhidra/devices/pump-7/#", Denied),
            ("unhidra/devices/+/commands", Denied),
            ("unhidra/devices/pump-8/commands", Denied),
            ("unhidra/devices/pump-7/messages", Denied),
            ("#", Denied),
        ] {
            assert_eq!(subscribe(&pump(), filter), expected, "{filter}");
        }
    }

    #[test]
    fn a_device_leaves_no_will() {
        let own = TopicName::parse("unhidra/devices/pump-7/messages").expect("a topic");
        let open = TopicName::parse("weather").expect("a topic");
        assert!(!acl().will(&pump(), own) && !acl().will(&pump(), open) && acl().will(&Admitted::Client(None), open));
    }

    #[test]
    fn a_plain_client_stays_outside_the_devices_tree() {
        for (topic, right) in [
            ("weather/oslo", PublishRight::Route),
            ("unhidrated", PublishRight::Route),
            ("/unhidra/x", PublishRight::Route),
            ("unhidra", PublishRight::Denied),
            ("unhidra/devices/pump-7/commands", PublishRight::Denied),
            ("$SYS/x", PublishRight::Denied),
        ] {
            assert_eq!(publish(&Admitted::Client(None), topic, QoS::AtLeastOnce, false), right, "{topic}");
        }
        for (filter, right) in [
            ("#", SubscribeRight::Route),
            ("+/x", SubscribeRight::Route),
            ("unhidra/#", SubscribeRight::Denied),
            ("unhidra/+/x", SubscribeRight::Denied),
            ("$SYS/#", SubscribeRight::Denied),
        ] {
            assert_eq!(subscribe(&Admitted::Client(None), filter), right, "{filter}");
        }
    }
}
