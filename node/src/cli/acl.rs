//! `unhidra acl check | test`: what a file of rules says, without a node.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;
use unhidra_broker::acl::{Acl, By, Principal, PublishAsked, PublishRight, SubscribeRight};
use unhidra_broker::packet::QoS;
use unhidra_broker::{Admitted, UserName};
use unhidra_core::ids::{ClientId, DeviceId};
use unhidra_core::topic::{TopicFilter, TopicName};

use super::output::Output;
use super::{CliError, Global};
use crate::access::{AccessError, load_acl};
use crate::config::{Config, Purpose};

/// What is asked of the rules.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Reads a file of rules and says whether a node would take it.
    Check {
        /// Which; without, the one of the configuration.
        file: Option<PathBuf>,
    },
    /// Says which rule decides about a topic, and how. Exit status 0 where it is allowed, else 1.
    Test(Test),
}

/// One question.
#[derive(clap::Args, Debug)]
pub struct Test {
    /// A user's name, a device's id with --device, or - for a client that proves no name.
    who: String,
    /// A Topic Name, or with --subscribe a Topic Filter.
    topic: String,
    /// Asks about PUBLISH. Without any of the three all are asked, and all must be allowed.
    #[arg(long)]
    publish: bool,
    /// Asks about SUBSCRIBE.
    #[arg(long)]
    subscribe: bool,
    /// Asks about what a subscription brings.
    #[arg(long)]
    read: bool,
    /// With RETAIN.
    #[arg(long)]
    retain: bool,
    /// At this QoS.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// The client identifier.
    #[arg(long, default_value = "acl-test")]
    client_id: String,
    /// WHO is a device.
    #[arg(long)]
    device: bool,
    /// The file of rules; without, the one of the configuration.
    #[arg(long)]
    file: Option<PathBuf>,
}

#[derive(Serialize)]
struct Answer<'a> {
    action: &'a str,
    allowed: bool,
    by: String,
    line: Option<usize>,
}

pub(super) fn run(action: Action, global: &Global, out: &mut Output<'_>) -> Result<(), CliError> {
    let config = global.sources(Purpose::Node).load()?.config;
    match action {
        Action::Check { file } => check(&file.unwrap_or_else(|| config.acl.file.clone()), &config, out),
        Action::Test(test) => run_test(&test, &config, out),
    }
}

fn check(file: &std::path::Path, config: &Config, out: &mut Output<'_>) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct Warned<'a> {
        line: usize,
        warning: &'a str,
    }
    #[derive(Serialize)]
    struct Checked {
        rules: usize,
    }
    if file.as_os_str().is_empty() {
        return Err(CliError::Usage("no file of rules: name one, or set acl.file".to_owned()));
    }
    let rules = load_acl(file, config.broker.prefix.as_str()).map_err(AccessError::from)?;
    for line in rules.idle_publishers() {
        let prefix = config.broker.prefix.as_str();
        let warning =
            format!("{}:{line}: nobody but a device publishes below {prefix}/, whatever a rule says", file.display());
        out.say(&Warned { line, warning: &warning }, &warning)?;
    }
    let count = rules.len();
    out.say(&Checked { rules: count }, &format!("{}: {count} rules, well formed", file.display()))
}

fn run_test(test: &Test, config: &Config, out: &mut Output<'_>) -> Result<(), CliError> {
    let file = test.file.as_ref().unwrap_or(&config.acl.file);
    let acl = Acl::new(
        config.broker.prefix.as_str(),
        load_acl(file, config.broker.prefix.as_str()).map_err(AccessError::from)?,
    );
    let usage = |error: &dyn std::fmt::Display| CliError::Usage(error.to_string());
    let who = match (test.device, test.who.as_str()) {
        (true, id) => Admitted::Device(DeviceId::parse(id).map_err(|error| usage(&error))?),
        (false, "-") => Admitted::Client(None),
        (false, name) => Admitted::Client(Some(UserName::new(name))),
    };
    let who = Principal::new(who, ClientId::parse(&test.client_id).map_err(|error| usage(&error))?);
    let all = !(test.publish || test.subscribe || test.read);
    let is_name = TopicName::parse(&test.topic).is_ok();
    let (mut allowed, mut printed) = (true, Ok(()));
    let mut answer = |action: &str, is_allowed: bool, by: By| {
        allowed &= is_allowed;
        if printed.is_ok() {
            printed = say(action, is_allowed, by, file, out);
        }
    };
    if test.publish || (all && is_name) {
        let topic = TopicName::parse(&test.topic).map_err(|error| usage(&error))?;
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
        let qos = qos.into_iter().find(|qos| qos.as_bits() == test.qos).unwrap_or(QoS::AtLeastOnce);
        let (right, by) = acl.publish(&who, PublishAsked { topic, qos, retain: test.retain });
        answer("publish", right != PublishRight::Denied, by);
    }
    if test.subscribe || all {
        let filter = TopicFilter::parse(&test.topic).map_err(|error| usage(&error))?;
        let (right, by) = acl.subscribe(&who, filter);
        answer("subscribe", right != SubscribeRight::Denied, by);
    }
    if test.read || (all && is_name) {
        let topic = TopicName::parse(&test.topic).map_err(|error| usage(&error))?;
        let (right, by) = acl.read(&who, topic);
        answer("read", right, by);
    }
    // Denied is the answer, also where nobody reads which rule says so.
    if allowed { printed } else { Err(CliError::Failed("not all of it is allowed".to_owned())) }
}

fn say(action: &str, allowed: bool, by: By, file: &std::path::Path, out: &mut Output<'_>) -> Result<(), CliError> {
    let (cause, line) = match by {
        By::Rule { line } => (format!("{}:{line}", file.display()), Some(line)),
        By::OwnRow => ("it is the device's own row, which no rule moves".to_owned(), None),
        By::DevicesTree if action == "publish" => ("nobody but a device publishes there".to_owned(), None),
        By::DevicesTree => ("it is the devices' tree, which a rule must name".to_owned(), None),
        By::Reserved => ("it begins with $, and no rule names it".to_owned(), None),
        By::ClientDefault => {
            ("no rule speaks of it, and clients have what is outside the devices' tree".to_owned(), None)
        }
        By::DeviceDefault => {
            ("no rule that names the device speaks of it, and devices have their own rows".to_owned(), None)
        }
    };
    let word = if allowed { "allowed" } else { "denied" };
    let text = format!("{action:9}  {word:7}  {cause}");
    out.say(&Answer { action, allowed, by: cause, line }, &text)
}
