//! An operator's rules, in order: the first that speaks of a client, an action and a topic decides.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::pattern::{Effect, Pattern};
use super::{Principal, PublishAsked};
use crate::doors::Admitted;

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Whether it lets or refuses.
    pub effect: Effect,
    /// What it speaks of.
    pub actions: Actions,
    /// Of whom.
    pub who: Who,
    /// Of these client identifiers alone, if it says so. A client chooses its own: this keeps
    /// tidy, and is no proof.
    pub client_ids: Option<BTreeSet<String>>,
    /// Of which topics.
    pub topics: Vec<Pattern>,
    /// Of messages with or without RETAIN alone, if it says so.
    pub retain: Option<bool>,
    /// Of messages of these QoS alone, if it says so.
    pub qos: Option<Vec<u8>>,
    /// Where it stands in its file, from 1.
    pub line: usize,
}

/// What a rule speaks of.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Actions {
    /// PUBLISH and Wills.
    pub publish: bool,
    /// SUBSCRIBE, and what its subscriptions bring.
    pub subscribe: bool,
    /// What subscriptions bring, alone.
    pub read: bool,
}

/// Of whom a rule speaks. Of devices it does by [`Who::Devices`] alone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Who {
    /// Everybody who is no device.
    Clients,
    /// Those who have not said who they are.
    Anonymous,
    /// Every user.
    AnyUser,
    /// These users.
    Users(BTreeSet<String>),
    /// Every device.
    AnyDevice,
    /// These devices.
    Devices(BTreeSet<String>),
}

/// The rules of a file, ready to be asked. Without any, what is said in [`super`] holds.
#[derive(Debug, Default)]
pub struct RuleSet {
    rules: Vec<Arc<Rule>>,
    /// Which rules speak of whom, by index, in order: so a check meets no rule of somebody else.
    anonymous: Box<[usize]>,
    users: HashMap<Box<str>, Box<[usize]>>,
    other_users: Box<[usize]>,
    devices: HashMap<Box<str>, Box<[usize]>>,
    other_devices: Box<[usize]>,
}

impl RuleSet {
    /// Sorts rules by whom they speak of.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        let rules: Vec<Arc<Rule>> = rules.into_iter().map(Arc::new).collect();
        let of = |wanted: &dyn Fn(&Who) -> bool| -> Box<[usize]> {
            rules.iter().enumerate().filter(|(_, rule)| wanted(&rule.who)).map(|(index, _)| index).collect()
        };
        let named = |pick: fn(&Who) -> Option<&BTreeSet<String>>| -> BTreeSet<&String> {
            rules.iter().filter_map(|rule| pick(&rule.who)).flatten().collect()
        };
        let users = named(|who| if let Who::Users(names) = who { Some(names) } else { None });
        let devices = named(|who| if let Who::Devices(names) = who { Some(names) } else { None });
        let users = users.into_iter().map(|name| {
            let mine = of(&|who| match who {
                Who::Clients | Who::AnyUser => true,
                Who::Users(names) => names.contains(name),
                Who::Anonymous | Who::AnyDevice | Who::Devices(_) => false,
            });
            (name.as_str().into(), mine)
        });
        let devices = devices.into_iter().map(|name| {
            let mine = of(&|who| match who {
                Who::AnyDevice => true,
                Who::Devices(names) => names.contains(name),
                Who::Clients | Who::AnyUser | Who::Users(_) | Who::Anonymous => false,
            });
            (name.as_str().into(), mine)
        });
        Self {
            anonymous: of(&|who| matches!(who, Who::Clients | Who::Anonymous)),
            users: users.collect(),
            other_users: of(&|who| matches!(who, Who::Clients | Who::AnyUser)),
            devices: devices.collect(),
            other_devices: of(&|who| matches!(who, Who::AnyDevice)),
            rules,
        }
    }

    /// How many rules there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The lines of rules that let somebody publish below `{p}` alone, where nobody but a device
    /// does: they mean nothing.
    pub fn idle_publishers(&self) -> impl Iterator<Item = usize> {
        let idle = |rule: &&Arc<Rule>| {
            rule.effect == Effect::Allow
                && rule.actions == Actions { publish: true, ..Actions::default() }
                && rule.topics.iter().all(Pattern::spells_prefix)
        };
        self.rules.iter().filter(idle).map(|rule| rule.line)
    }

    /// The rules that speak of a client, in order.
    pub(super) fn of<'a>(&'a self, who: &'a Principal) -> impl Iterator<Item = &'a Arc<Rule>> {
        let mine = match who.admitted() {
            Admitted::Client(None) => &self.anonymous,
            // No hash where no rule names anybody.
            Admitted::Client(Some(_)) if self.users.is_empty() => &self.other_users,
            Admitted::Client(Some(user)) => self.users.get(user.as_str()).unwrap_or(&self.other_users),
            Admitted::Device(_) if self.devices.is_empty() => &self.other_devices,
            Admitted::Device(device) => self.devices.get(device.as_str()).unwrap_or(&self.other_devices),
        };
        mine.iter().filter_map(|index| self.rules.get(*index)).filter(|rule| rule.is_for_client_id(who))
    }
}

impl Rule {
    fn is_for_client_id(&self, who: &Principal) -> bool {
        self.client_ids.as_ref().is_none_or(|ids| ids.contains(who.client_id().as_str()))
    }

    /// Whether it decides about a PUBLISH.
    pub(super) fn decides_publish(&self, who: &Principal, asked: PublishAsked<'_>) -> bool {
        self.actions.publish
            && self.retain.is_none_or(|retain| retain == asked.retain)
            && self.qos.as_ref().is_none_or(|qos| qos.contains(&asked.qos.as_bits()))
            && self.topics.iter().any(|topic| topic.matches(asked.topic.as_str(), false, who, self.effect))
    }

    /// Whether it decides about what a subscription brings.
    pub(super) fn decides_read(&self, who: &Principal, topic: &str, inside: bool) -> bool {
        (self.actions.subscribe || self.actions.read)
            && self.topics.iter().any(|pattern| pattern.matches(topic, inside, who, self.effect))
    }

    /// What it means for a filter.
    pub(super) fn meaning(&self, who: &Principal, filter: &str, inside: bool) -> Meaning {
        if !(self.actions.subscribe || self.actions.read) {
            return Meaning::None;
        }
        let patterns = || self.topics.iter().filter(|pattern| pattern.spells_prefix() == inside);
        let decides = self.actions.subscribe && patterns().any(|p| p.covers(filter, inside, who, self.effect));
        match self.effect {
            _ if decides => Meaning::Decides,
            Effect::Deny if patterns().any(|p| p.meets(filter, who, Effect::Deny)) => Meaning::Splits,
            Effect::Allow | Effect::Deny => Meaning::None,
        }
    }

    /// Whether it lets something of the devices' tree be seen through a filter.
    pub(super) fn opens_devices(&self, who: &Principal, filter: &str) -> bool {
        self.effect == Effect::Allow
            && (self.actions.subscribe || self.actions.read)
            && self.topics.iter().any(|p| p.spells_prefix() && p.meets(filter, who, Effect::Allow))
    }
}

/// What a rule means for a filter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Meaning {
    /// Nothing.
    None,
    /// All the filter stands for is its.
    Decides,
    /// It refuses some of what the filter stands for.
    Splits,
}

impl Actions {
    /// All there are.
    pub const ALL: Self = Self { publish: true, subscribe: true, read: true };
}
