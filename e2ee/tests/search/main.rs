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

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rule::Rule;
use script::{Directed, Script, directed};
use world::Broken;

/// How many random scripts run where nobody says.
const SCRIPTS: u64 = 3000;

/// The source of the crate, and what takes its rules out of it.
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
const MUTATIONS: &str = include_str!("../rules/mutations.txt");

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

fn seeds() -> Range<u64> {
    match number("WEDGE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("WEDGE_SCRIPTS").unwrap_or(SCRIPTS),
    }
}

/// The first of the random scripts that fails, looked for on every core.
fn first_failure() -> Option<(Script, Broken)> {
    let seeds = seeds();
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let next = AtomicU64::new(seeds.start);
    let found = Mutex::new(None);
    let search = || {
        while found.lock().unwrap().is_none() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let script = Script::random(seed);
            if let Err(broken) = script.run(None) {
                found.lock().unwrap().get_or_insert((script, broken));
            }
        }
    };
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(search))));
    found.into_inner().unwrap()
}

#[test]
fn whatever_happened_the_two_find_back() {
    if let Some((script, broken)) = first_failure() {
        let long = script.to_string();
        let (short, why) = script.shrunk(None, broken.clone());
        panic!("WEDGE_SEED={}: {broken}\n{long}\nshrunk, {why}:\nWEDGE_SCRIPT=\"{short}\"", short.seed);
    }
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

/// What the script of a rule says where the model leaves that rule out.
fn without(rule: Rule, scripts: &[Directed]) -> Result<Broken, String> {
    let own = scripts.iter().find(|directed| directed.name == rule.name());
    match own.map(|directed| directed.script.run(Some(rule))) {
        Some(Err(broken)) => Ok(broken),
        Some(Ok(_)) => Err(format!("{} passes without its rule", rule.name())),
        None => Err(format!("{} has no script", rule.name())),
    }
}

/// With any one rule of the model taken out, the script of that name fails.
#[test]
fn without_a_rule_its_script_fails() {
    let scripts = directed();
    let passed: Vec<String> = Rule::ALL.iter().filter_map(|rule| without(*rule, &scripts).err()).collect();
    assert!(passed.is_empty(), "{}", passed.join("\n"));
}

#[test]
fn a_script_is_read_back_from_its_text() {
    for script in (0..200).map(Script::random).chain(directed().into_iter().map(|directed| directed.script)) {
        assert_eq!(Script::parse(&script.to_string()), Ok(script));
    }
}

#[test]
fn a_script_from_outside_runs() {
    if let Ok(text) = std::env::var("WEDGE_SCRIPT") {
        let script = Script::parse(&text).unwrap();
        println!("{script}\n{} minutes until it worked", script.play().unwrap());
    }
}

/// The list of mutations does not rot: each has its script, and what it replaces stands in the
/// source exactly once.
#[test]
fn every_mutation_finds_its_place() {
    let scripts = directed();
    for block in MUTATIONS.split("\n== ").skip(1) {
        let mut parts = block.splitn(3, '\n');
        let (name, file, body) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        let (before, after) = body.split_once("\n--\n").unwrap_or_else(|| panic!("{name} has no --"));
        let source = std::fs::read_to_string(format!("{SOURCE}/{file}")).unwrap();
        assert_eq!(source.matches(before).count(), 1, "{name}: in {file} stands once:\n{before}");
        assert_ne!(before, after.trim_end(), "{name} changes nothing");
        assert!(scripts.iter().any(|directed| directed.name == name), "{name} has no script");
    }
}

/// For `tests/rules/run`.
#[test]
#[ignore = "prints what the table of tests/rules is made of"]
fn switches_are_caught() {
    let scripts = directed();
    for rule in Rule::ALL {
        println!("CAUGHT {} by {}", rule.name(), without(*rule, &scripts).unwrap());
    }
}

/// For `tests/rules/run`.
#[test]
#[ignore = "prints what the table of tests/rules is made of"]
fn all_scripts_are_tried() {
    for Directed { name, script } in directed() {
        if let Err(broken) = script.run(None) {
            println!("CAUGHT {name} by {broken}");
        }
    }
    if let Some((script, broken)) = first_failure() {
        println!("CAUGHT seed-{} by {broken}", script.seed);
    }
}
