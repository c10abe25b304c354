//! No wedge: for every state of the two sides that losses, crashes, rollbacks, restores and a
//! hostile broker can produce, the pair finds back to a working session without a person.
//!
//! A model world around the real crate on both sides runs scripts, random and directed; each ends
//! with an honest network and time, and then readings must go up and commands down again, soon and
//! cheaply. What must hold at every moment is in [`ledger`]. With any one rule of sections 7 to 9
//! of PROTOCOL.md taken out a script fails: the rules that live in what a bridge and a device do
//! are switches of the model ([`rule`]), those of the crate are mutations of its source
//! (`tests/rules`).
//!
//! ```text
//! WEDGE_SEED=n                the nth random script alone
//! WEDGE_SCRIPTS=60000         so many random scripts
//! WEDGE_SCRIPT="read 1; flow" this script alone
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod commands;
mod device;
mod flash;
mod forger;
mod ledger;
mod node;
mod op;
mod outbox;
mod quiet;
mod rule;
mod said;
mod script;
mod shelf;
mod store;
mod wire;
mod world;

use rule::Rule;
use script::{Directed, Script, directed};

/// How many random scripts run where nobody says.
const SCRIPTS: u64 = 1000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// Every rule has its script, and each passes.
#[test]
fn directed_scripts_pass() {
    let mut failed = Vec::new();
    for Directed { name, script } in directed() {
        if let Err(broken) = script.run(None) {
            failed.push(format!("{name}: {broken}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// With any one rule of the model taken out, the script of that name fails.
#[test]
fn without_a_rule_its_script_fails() {
    let scripts = directed();
    let mut passed = Vec::new();
    for rule in Rule::ALL {
        let own = scripts.iter().find(|directed| directed.name == rule.name());
        match own.map(|directed| directed.script.run(Some(*rule))) {
            Some(Err(broken)) => println!("{}: {broken}", rule.name()),
            Some(Ok(_)) => passed.push(format!("{} passes without its rule", rule.name())),
            None => passed.push(format!("{} has no script", rule.name())),
        }
    }
    assert!(passed.is_empty(), "{}", passed.join("\n"));
}

#[test]
fn a_script_from_outside_runs() {
    if let Ok(text) = std::env::var("WEDGE_SCRIPT") {
        let script = Script::parse(&text).unwrap();
        println!("{script}\n{} minutes until it worked", script.play().unwrap());
    }
}

#[test]
fn whatever_happened_the_two_find_back() {
    let seeds = match number("WEDGE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("WEDGE_SCRIPTS").unwrap_or(SCRIPTS),
    };
    let mut histogram = std::collections::BTreeMap::<u64, u32>::new();
    for seed in seeds {
        let script = Script::random(seed);
        match script.run(None) {
            Ok(minutes) => *histogram.entry(minutes / 10).or_default() += 1,
            Err(broken) => {
                let long = script.to_string();
                let (short, why) = script.shrunk(None, broken.clone());
                panic!("WEDGE_SEED={seed}: {broken}\n{long}\nshrunk, {why}:\nWEDGE_SCRIPT=\"{short}\"");
            }
        }
    }
    println!("tens of minutes until it worked: {histogram:?}");
}
