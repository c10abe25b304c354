//! Who may publish and subscribe where (e2ee/PROTOCOL.md section 2).
//!
//! Without rules a client that is no device has everything but the devices' tree `{p}` and `$`,
//! and reads `$SYS`; a device has its own rows and nothing else. Rules of an operator come before
//! that, and the first that speaks of a client, an action and a topic decides. What no rule moves:
//!
//! - a device speaks and listens on its own rows, and nobody but it speaks below `{p}`: what stands
//!   there is what a device said, or the node said to it;
//! - `$SYS` is the broker's, and `$share` no topic;
//! - a rule speaks of a device only by naming devices, and of the devices' tree only by spelling
//!   `{p}`.
//!
//! A filter is granted where one allow covers all of it, or no rule does and the default lets it.
//! A deny that covers a part of it does not refuse it: that part is held back at each delivery.

mod pattern;
mod rules;
#[cfg(test)]
mod tests;

use arc_swap::ArcSwap;
use unhidra_core::delivery::{DownlinkRow, UplinkRow};
use unhidra_core::ids::{ClientId, DeviceId};
use unhidra_core::topic::{TopicFilter, TopicName};

use crate::doors::Admitted;
use crate::packet::QoS;
pub use pattern::{Effect, Pattern, PatternError};
use rules::Meaning;
pub use rules::{Actions, Rule, RuleSet, Who};

/// The rules, for one topic prefix `{p}`. They can be replaced while they are asked.
#[derive(Debug)]
pub struct Acl {
    prefix: String,
    rules: ArcSwap<RuleSet>,
}

/// Who asks: an identity, and the client identifier it goes by.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Principal {
    who: Admitted,
    client_id: ClientId,
}

/// A PUBLISH, as far as a rule looks at it.
#[derive(Clone, Copy, Debug)]
pub struct PublishAsked<'a> {
    /// Where it goes.
    pub topic: TopicName<'a>,
    /// How.
    pub qos: QoS,
    /// Whether it is to be retained.
    pub retain: bool,
}

/// What may become of a PUBLISH.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PublishRight {
    /// It goes inward.
    Deliver(UplinkRow),
    /// It goes to subscribers.
    Route,
    /// Nothing.
    Denied,
}

/// What may become of a Topic Filter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SubscribeRight {
    /// The node speaks to the device there.
    Listen(DownlinkRow),
    /// It goes into the router.
    Route,
    /// Nothing.
    Denied,
}

/// What decided.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum By {
    /// The rule at this line of the file.
    Rule {
        /// From 1.
        line: usize,
    },
    /// It is the device's own row.
    OwnRow,
    /// It is the devices' tree.
    DevicesTree,
    /// It begins with `$`.
    Reserved,
    /// Nothing speaks of it, and this is a client.
    ClientDefault,
    /// Nothing speaks of it, and this is a device.
    DeviceDefault,
}

/// What of a granted filter must be looked at later.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Reach {
    /// Rules split the filter: [`Acl::may_read`] is asked before each delivery.
    pub(crate) checked: bool,
    /// It may show what devices say.
    pub(crate) devices: bool,
}

impl Principal {
    /// An identity under a client identifier.
    #[must_use]
    pub const fn new(who: Admitted, client_id: ClientId) -> Self {
        Self { who, client_id }
    }

    /// The identity.
    #[must_use]
    pub const fn admitted(&self) -> &Admitted {
        &self.who
    }

    /// The client identifier.
    #[must_use]
    pub const fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    /// The device, if it is one.
    #[must_use]
    pub const fn device(&self) -> Option<&DeviceId> {
        match &self.who {
            Admitted::Device(device) => Some(device),
            Admitted::Client(_) => None,
        }
    }

    /// The user's name, if it has one.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match &self.who {
            Admitted::Client(Some(user)) => Some(user.as_str()),
            Admitted::Client(None) | Admitted::Device(_) => None,
        }
    }
}

impl Acl {
    /// Rules for the devices' prefix.
    #[must_use]
    pub fn new(prefix: &str, rules: RuleSet) -> Self {
        Self { prefix: prefix.to_owned(), rules: ArcSwap::from_pointee(rules) }
    }

    pub(crate) fn replace(&self, rules: RuleSet) {
        self.rules.store(rules.into());
    }

    /// Whether `who` may publish so.
    #[must_use]
    pub fn publish(&self, who: &Principal, asked: PublishAsked<'_>) -> (PublishRight, By) {
        let topic = asked.topic.as_str();
        if let Some((right, by)) = self.publish_as_device(who, asked) {
            return (right, by);
        }
        if self.is_inside(topic) {
            return (PublishRight::Denied, By::DevicesTree);
        }
        if is_broker_tree(topic) {
            return (PublishRight::Denied, By::Reserved);
        }
        let rules = self.rules.load();
        match rules.of(who).find(|rule| rule.decides_publish(who, asked)) {
            Some(rule) if rule.effect == Effect::Allow => (PublishRight::Route, By::Rule { line: rule.line }),
            Some(rule) => (PublishRight::Denied, By::Rule { line: rule.line }),
            None if topic.starts_with('$') => (PublishRight::Denied, By::Reserved),
            None => match who.admitted() {
                Admitted::Client(_) => (PublishRight::Route, By::ClientDefault),
                Admitted::Device(_) => (PublishRight::Denied, By::DeviceDefault),
            },
        }
    }

    /// A device on its own rows: no rule takes them from it.
    fn publish_as_device(&self, who: &Principal, asked: PublishAsked<'_>) -> Option<(PublishRight, By)> {
        let row = self.row(who.device()?, asked.topic.as_str())?;
        let right = match (row, asked.qos) {
            _ if asked.retain => PublishRight::Denied,
            ("messages", QoS::AtMostOnce | QoS::AtLeastOnce) => PublishRight::Deliver(UplinkRow::Messages),
            ("prekeys/get", QoS::AtLeastOnce) => PublishRight::Deliver(UplinkRow::PrekeysGet),
            _ => PublishRight::Denied,
        };
        Some((right, By::OwnRow))
    }

    /// Whether `who` may leave a Will so. A device may not on its own rows: a Will is no message
    /// it has sealed.
    #[must_use]
    pub fn will(&self, who: &Principal, asked: PublishAsked<'_>) -> bool {
        self.publish(who, asked).0 == PublishRight::Route
    }

    /// Whether `who` may subscribe so; to a shared subscription as to its filter. A device names
    /// its rows exactly.
    #[must_use]
    pub fn subscribe(&self, who: &Principal, filter: TopicFilter<'_>) -> (SubscribeRight, By) {
        if let Some(row) = self.own_row(who, filter) {
            return (SubscribeRight::Listen(row), By::OwnRow);
        }
        let filter = unshared(filter.as_str());
        let inside = self.is_inside(filter);
        let rules = self.rules.load();
        match rules.of(who).find(|rule| rule.meaning(who, filter, inside) == Meaning::Decides) {
            Some(rule) if rule.effect == Effect::Allow => (SubscribeRight::Route, By::Rule { line: rule.line }),
            Some(rule) => (SubscribeRight::Denied, By::Rule { line: rule.line }),
            None => match by_default(who, filter, inside) {
                Ok(by) => (SubscribeRight::Route, by),
                Err(by) => (SubscribeRight::Denied, by),
            },
        }
    }

    /// The row a device listens on by a filter, if it is one of its own.
    pub(crate) fn own_row(&self, who: &Principal, filter: TopicFilter<'_>) -> Option<DownlinkRow> {
        match self.row(who.device()?, filter.as_str())? {
            "commands" => Some(DownlinkRow::Commands),
            "prekeys" => Some(DownlinkRow::Prekeys),
            _ => None,
        }
    }

    /// Which of its filters a client may not have any more.
    pub(crate) fn lost<'f>(&self, who: &Principal, filters: impl Iterator<Item = &'f str>) -> Vec<Box<str>> {
        let denied = |text: &&str| {
            let right = TopicFilter::parse(text).map(|filter| self.subscribe(who, filter).0);
            right.is_ok_and(|right| right == SubscribeRight::Denied)
        };
        filters.filter(denied).map(Into::into).collect()
    }

    /// What must be looked at later, of a filter that is granted.
    pub(crate) fn reach(&self, who: &Principal, filter: &str) -> Reach {
        let filter = unshared(filter);
        let inside = self.is_inside(filter);
        let rules = self.rules.load();
        let mut reach = Reach::default();
        let mut decided = false;
        for rule in rules.of(who) {
            reach.devices |= rule.opens_devices(who, filter);
            match rule.meaning(who, filter, inside) {
                Meaning::Decides => decided = true,
                Meaning::Splits if !decided => reach.checked = true,
                Meaning::Splits | Meaning::None => {}
            }
        }
        reach
    }

    /// Whether a message on `topic` may be shown to `who`.
    #[must_use]
    pub fn read(&self, who: &Principal, topic: TopicName<'_>) -> (bool, By) {
        let topic = topic.as_str();
        let inside = self.is_inside(topic);
        let rules = self.rules.load();
        match rules.of(who).find(|rule| rule.decides_read(who, topic, inside)) {
            Some(rule) => (rule.effect == Effect::Allow, By::Rule { line: rule.line }),
            None => match by_default(who, topic, inside) {
                Ok(by) => (true, by),
                Err(by) => (false, by),
            },
        }
    }

    pub(crate) fn may_read(&self, who: &Principal, topic: TopicName<'_>) -> bool {
        self.read(who, topic).0
    }

    /// The topic of a row to a device.
    pub(crate) fn downlink_topic(&self, device: &DeviceId, row: DownlinkRow) -> String {
        let row = match row {
            DownlinkRow::Commands => "commands",
            DownlinkRow::Prekeys => "prekeys",
        };
        format!("{}/devices/{device}/{row}", self.prefix)
    }

    /// The topic of a device's readings of one name, in the clear.
    pub(crate) fn reading_topic(&self, device: &DeviceId, name: &str) -> String {
        format!("{}/readings/{device}/{name}", self.prefix)
    }

    /// Every such topic.
    pub(crate) fn readings_topics(&self) -> String {
        format!("{}/readings/#", self.prefix)
    }

    /// What of a topic stands after `{p}/devices/{id}/`.
    fn row<'t>(&self, device: &DeviceId, topic: &'t str) -> Option<&'t str> {
        let below = topic.strip_prefix(self.prefix.as_str())?.strip_prefix("/devices/")?;
        below.strip_prefix(device.as_str())?.strip_prefix('/')
    }

    /// Whether a topic or a filter is in the devices' tree, by its own letters.
    pub(crate) fn is_inside(&self, topic: &str) -> bool {
        let below = topic.strip_prefix(self.prefix.as_str());
        below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// What holds where no rule speaks of what a client would see.
fn by_default(who: &Principal, topic: &str, inside: bool) -> Result<By, By> {
    match who.admitted() {
        _ if inside => Err(By::DevicesTree),
        Admitted::Device(_) => Err(By::DeviceDefault),
        Admitted::Client(_) if topic == "$SYS" || topic.starts_with("$SYS/") => Ok(By::ClientDefault),
        Admitted::Client(_) if topic.starts_with('$') => Err(By::Reserved),
        Admitted::Client(_) => Ok(By::ClientDefault),
    }
}

/// Whether a topic is the broker's own.
fn is_broker_tree(topic: &str) -> bool {
    ["$SYS", "$share"].iter().any(|tree| {
        let below = topic.strip_prefix(tree);
        below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// The filter of a shared subscription; another as it is (section 4.8.2).
fn unshared(filter: &str) -> &str {
    let shared = filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/'));
    shared.map_or(filter, |(_, filter)| filter)
}
