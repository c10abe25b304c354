//! The file of rules: who may publish and subscribe where, in TOML.
//!
//! ```toml
//! [groups]
//! operators = ["ann", "bob"]
//!
//! [[rule]]
//! allow = "subscribe"
//! group = "operators"
//! topics = ["site/#"]
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;
use toml::Spanned;
use unhidra_broker::acl::{Actions, Effect, Pattern, Rule, RuleSet, Who};
use unhidra_certs::FileError;

use super::file::read;

/// The most rules a file may have, and the most topics in all.
const RULES_MAX: usize = 10_000;

/// Why a file of rules is none. Its text says where.
#[derive(Debug, Error)]
pub enum AclError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is no text.
    #[error("{}: not UTF-8", path.display())]
    NoText {
        /// Which file.
        path: PathBuf,
    },
    /// It breaks a rule.
    #[error("{}:{line}:{column}: {cause}", path.display())]
    At {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What is wrong, and what is allowed.
        cause: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    groups: BTreeMap<String, BTreeSet<String>>,
    #[serde(default)]
    rule: Vec<Spanned<Entry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    allow: Option<OneOrMore>,
    deny: Option<OneOrMore>,
    user: Option<OneOrMore>,
    group: Option<OneOrMore>,
    device: Option<OneOrMore>,
    client_id: Option<OneOrMore>,
    #[serde(default)]
    anonymous: bool,
    topics: Vec<Spanned<String>>,
    retain: Option<bool>,
    qos: Option<Vec<u8>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    fn names(&self) -> BTreeSet<String> {
        match self {
            Self::One(name) => [name.clone()].into(),
            Self::More(names) => names.iter().cloned().collect(),
        }
    }
}

/// Reads a file of rules. An empty path is a file without rules.
///
/// # Errors
///
/// [`AclError`] names line and column.
pub fn load(path: &Path, prefix: &str) -> Result<RuleSet, AclError> {
    if path.as_os_str().is_empty() {
        return Ok(RuleSet::default());
    }
    let bytes = read(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| AclError::NoText { path: path.into() })?;
    parse(text, prefix).map_err(|fault| {
        let before = text.get(..fault.at).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        AclError::At { path: path.into(), line, column, cause: fault.cause }
    })
}

/// What is wrong, and at which byte.
#[derive(Debug)]
struct Fault {
    at: usize,
    cause: String,
}

fn parse(text: &str, prefix: &str) -> Result<RuleSet, Fault> {
    let document: Document = toml::from_str(text)
        .map_err(|error| Fault { at: error.span().map_or(0, |span| span.start), cause: error.message().to_owned() })?;
    let topics: usize = document.rule.iter().map(|entry| entry.as_ref().topics.len().max(1)).sum();
    if topics > RULES_MAX {
        return Err(Fault { at: 0, cause: format!("{topics} topics in all; at most {RULES_MAX} are allowed") });
    }
    let rule = |entry: &Spanned<Entry>| {
        let at = entry.span().start;
        let line = text.get(..at).unwrap_or(text).matches('\n').count() + 1;
        entry.as_ref().rule(&document.groups, prefix, line).map_err(|mut fault| {
            if fault.at == 0 {
                fault.at = at;
            }
            fault
        })
    };
    Ok(RuleSet::new(document.rule.iter().map(rule).collect::<Result<_, _>>()?))
}

impl Entry {
    fn rule(&self, groups: &BTreeMap<String, BTreeSet<String>>, prefix: &str, line: usize) -> Result<Rule, Fault> {
        let (effect, actions) = match (&self.allow, &self.deny) {
            (Some(actions), None) => (Effect::Allow, actions),
            (None, Some(actions)) => (Effect::Deny, actions),
            _ => return Err(here("a rule has either `allow` or `deny`: publish, subscribe, read, all, or a list")),
        };
        let actions = actions_of(actions)?;
        if (self.retain.is_some() || self.qos.is_some()) && actions != (Actions { publish: true, ..Actions::default() })
        {
            return Err(here("`retain` and `qos` are of rules about publish alone"));
        }
        if self.qos.as_ref().is_some_and(|qos| qos.iter().any(|qos| *qos > 2)) {
            return Err(here("`qos` is a list of 0, 1 and 2"));
        }
        if self.topics.is_empty() {
            return Err(here("`topics` is empty; \"#\" stands for all"));
        }
        let pattern = |topic: &Spanned<String>| {
            let pattern = Pattern::parse(topic.as_ref(), prefix);
            pattern.map_err(|error| Fault { at: topic.span().start, cause: error.to_string() })
        };
        Ok(Rule {
            effect,
            actions,
            who: self.who(groups)?,
            client_ids: self.client_id.as_ref().map(OneOrMore::names),
            topics: self.topics.iter().map(pattern).collect::<Result<_, _>>()?,
            retain: self.retain,
            qos: self.qos.clone(),
            line,
        })
    }

    fn who(&self, groups: &BTreeMap<String, BTreeSet<String>>) -> Result<Who, Fault> {
        let any = |names: &BTreeSet<String>| names.contains("*");
        match (&self.user, &self.group, &self.device, self.anonymous) {
            (None, None, None, false) => Ok(Who::Clients),
            (None, None, None, true) => Ok(Who::Anonymous),
            (Some(users), None, None, false) => {
                let names = users.names();
                Ok(if any(&names) { Who::AnyUser } else { Who::Users(names) })
            }
            (None, Some(wanted), None, false) => {
                let mut names = BTreeSet::new();
                for group in wanted.names() {
                    let members = groups.get(&group);
                    names.extend(
                        members.ok_or_else(|| here(&format!("no group {group} is in [groups]")))?.iter().cloned(),
                    );
                }
                Ok(Who::Users(names))
            }
            (None, None, Some(devices), false) => {
                let names = devices.names();
                Ok(if any(&names) { Who::AnyDevice } else { Who::Devices(names) })
            }
            _ => Err(here("a rule names at most one of `user`, `group`, `device` and `anonymous`")),
        }
    }
}

fn actions_of(wanted: &OneOrMore) -> Result<Actions, Fault> {
    let mut actions = Actions::default();
    for name in wanted.names() {
        match name.as_str() {
            "publish" => actions.publish = true,
            "subscribe" => actions.subscribe = true,
            "read" => actions.read = true,
            "all" => actions = Actions::ALL,
            _ => return Err(here(&format!("the action {name:?}; allowed are publish, subscribe, read and all"))),
        }
    }
    if actions == Actions::default() {
        return Err(here("a rule without an action"));
    }
    Ok(actions)
}

/// At the rule's own place.
fn here(cause: &str) -> Fault {
    Fault { at: 0, cause: cause.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unhidra_broker::acl::{Acl, By, Principal, PublishAsked, PublishRight};
    use unhidra_broker::packet::QoS;
    use unhidra_broker::{Admitted, UserName};
    use unhidra_core::ids::ClientId;
    use unhidra_core::topic::TopicName;

    const FILE: &str = r##"# Rules.
[groups]
operators = ["ann", "bob"]

[[rule]]
deny = "publish"
group = "operators"
topics = ["site/locked"]
retain = true

[[rule]]
allow = ["publish", "subscribe"]
group = "operators"
topics = [
  "site/#",
  "{p}/devices/+/messages",
]

[[rule]]
deny = "all"
topics = ["#"]
"##;

    fn publishes(acl: &Acl, user: &str, topic: &str, retain: bool) -> (PublishRight, By) {
        let who = Principal::new(Admitted::Client(Some(UserName::new(user))), ClientId::parse("c").unwrap());
        let topic = TopicName::parse(topic).unwrap();
        acl.publish(&who, PublishAsked { topic, qos: QoS::AtMostOnce, retain })
    }

    #[test]
    fn a_file_is_its_rules_in_order_each_with_its_line() {
        let acl = Acl::new("unhidra", parse(FILE, "unhidra").unwrap());
        assert_eq!(publishes(&acl, "ann", "site/x", false), (PublishRight::Route, By::Rule { line: 11 }));
        assert_eq!(publishes(&acl, "ann", "site/locked", true), (PublishRight::Denied, By::Rule { line: 5 }));
        assert_eq!(publishes(&acl, "ann", "site/locked", false).0, PublishRight::Route);
        assert_eq!(publishes(&acl, "eve", "site/x", false), (PublishRight::Denied, By::Rule { line: 19 }));
    }

    #[test]
    fn a_fault_is_told_with_line_and_column() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("acl.toml");
        for (text, place, cause) in [
            ("[[rule]]\nallow = \"all\"\ntopics = [\"a/#/b\"]\n", ":3:11:", "wildcard"),
            ("\n[[rule]]\nallow = \"all\"\ndeny = \"all\"\ntopics = [\"a\"]\n", ":2:1:", "either"),
            ("[[rule]]\nallow = \"write\"\ntopics = [\"a\"]\n", ":1:1:", "allowed are publish"),
            ("[[rule]]\nallow = \"all\"\ntopic = \"a\"\n", ":3:1:", "unknown field"),
            ("[[rule]]\nallow = \"all\"\ngroup = \"x\"\ntopics = [\"a\"]\n", ":1:1:", "no group x"),
            ("[[rule]]\nallow = \"all\"\nuser = \"a\"\ndevice = \"b\"\ntopics = [\"a\"]\n", ":1:1:", "at most one"),
            ("[[rule]]\nallow = \"all\"\ntopics = [\"{usr}\"]\n", ":3:11:", "{user}"),
            ("[[rule]\n", ":1:", ""),
            ("[[rule]]\nallow = \"all\"\nqos = [1]\ntopics = [\"a\"]\n", ":1:1:", "publish alone"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = load(&path, "unhidra").unwrap_err().to_string();
            assert!(error.contains(place) && error.contains(cause), "{text}: {error}");
        }
    }
}
