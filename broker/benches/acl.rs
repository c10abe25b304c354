//! What a check of the rules costs: `cargo bench -p unhidra-broker --bench acl`.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "it reads the clock, and fails where its ground does"
)]

use std::collections::BTreeSet;
use std::hint::black_box;
use std::time::{Duration, Instant};

use unhidra_broker::acl::{Acl, Actions, Effect, Pattern, Principal, PublishAsked, Rule, RuleSet, Who};
use unhidra_broker::packet::QoS;
use unhidra_broker::{Admitted, UserName};
use unhidra_core::ids::{ClientId, DeviceId};
use unhidra_core::topic::TopicName;

/// How long each figure is measured.
const TIME: Duration = Duration::from_millis(300);

fn rule(effect: Effect, who: Who, topic: &str) -> Rule {
    let topics = vec![Pattern::parse(topic, "unhidra").expect("a pattern")];
    Rule { effect, actions: Actions::ALL, who, client_ids: None, topics, retain: None, qos: None, line: 1 }
}

/// A thousand users with a rule each, and `common` rules for all of them.
fn file(common: usize) -> Acl {
    let own = |n| rule(Effect::Allow, Who::Users(BTreeSet::from([format!("u{n}")])), &format!("home/u{n}/#"));
    let shared = |n| rule(Effect::Allow, Who::AnyUser, &format!("site/{n}/+/temperature"));
    let last = rule(Effect::Deny, Who::Clients, "#");
    Acl::new("unhidra", RuleSet::new((0..1_000).map(own).chain((0..common).map(shared)).chain([last]).collect()))
}

fn main() {
    let id = || ClientId::parse("c").expect("an id");
    let user = Principal::new(Admitted::Client(Some(UserName::new("u500"))), id());
    let nobody = Principal::new(Admitted::Client(None), id());
    let pump = Principal::new(Admitted::Device(DeviceId::parse("pump-7").expect("an id")), id());
    println!("{:<58} {:>10}", "check", "ns");
    let none = Acl::new("unhidra", RuleSet::default());
    report("no rules, a client publishes", &none, &nobody, "site/north/pump-7/temperature");
    report("no rules, a device on its row", &none, &pump, "unhidra/devices/pump-7/messages");
    for common in [0, 10, 100] {
        let acl = file(common);
        report(&format!("1 001 rules and {common}, the user's own decides"), &acl, &user, "home/u500/x");
        report(&format!("1 001 rules and {common}, the last one decides"), &acl, &user, "site/no/pump-7/humidity");
    }
}

fn report(what: &str, acl: &Acl, who: &Principal, topic: &str) {
    let topic = TopicName::parse(topic).expect("a name");
    let mut checks = 0_u32;
    let begun = Instant::now();
    while begun.elapsed() < TIME {
        for _ in 0..1_000 {
            black_box(acl.publish(black_box(who), PublishAsked { topic, qos: QoS::AtLeastOnce, retain: false }));
        }
        checks += 1_000;
    }
    println!("{what:<58} {:>10.1}", begun.elapsed().as_nanos() as f64 / f64::from(checks));
}
