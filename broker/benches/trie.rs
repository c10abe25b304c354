//! What it costs to find the subscriptions a topic has, among how many:
//! `cargo bench -p unhidra-broker --bench trie`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use tree::Trie;
use unhidra_core::topic::{TopicFilter, TopicName};

#[path = "../src/router/trie.rs"]
#[allow(dead_code, unused_imports, reason = "the broker's own; a part of it is measured here")]
mod tree;

/// How long each figure is measured.
const TIME: Duration = Duration::from_millis(300);

fn main() {
    println!("{:>8}  {:<34} {:>10} {:>8}", "filters", "shape", "ns a look", "found");
    for count in [10, 1_000, 100_000] {
        report(count, "site/{n}/pump/rpm", |n| format!("site/{n}/pump/rpm"));
        report(count, "the same, one in two with + for {n}", |n| match n % 2 {
            0 => format!("site/{n}/pump/rpm"),
            _ => format!("site/+/pump/{n}"),
        });
        report(count, "+ and # anywhere in six levels", |n| plus(n, &["a", "b", "c", "d", "e", "f"]));
    }
}

/// The filter whose levels are `+` where a bit of `n` is set; the rest of `n` is one more level.
fn plus(n: usize, levels: &[&str]) -> String {
    let chosen = levels.iter().enumerate().map(|(bit, level)| if n >> bit & 1 == 1 { "+" } else { level });
    let rest = n >> levels.len();
    let tail = if rest == 0 { "#".to_owned() } else { rest.to_string() };
    chosen.map(str::to_owned).chain([tail]).collect::<Vec<_>>().join("/")
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn report(count: usize, shape: &str, filter: impl Fn(usize) -> String) {
    let mut tree = Trie::default();
    for n in 0..count {
        let text = filter(n);
        match TopicFilter::parse(&text) {
            Ok(filter) => tree.insert(filter, n, ()),
            Err(error) => panic!("{text}: {error}"),
        };
    }
    let names: Vec<String> = match shape.starts_with("site") || shape.starts_with("the same") {
        true => (0..64).map(|n| format!("site/{}/pump/rpm", n * 7919 % count)).collect(),
        false => vec!["a/b/c/d/e/f/1".to_owned()],
    };
    let names: Vec<TopicName<'_>> = names.iter().filter_map(|name| TopicName::parse(name).ok()).collect();
    let (mut looks, mut found) = (0_u64, 0_u64);
    let begun = Instant::now();
    while begun.elapsed() < TIME {
        for name in &names {
            tree.matches(*name, &mut |key, ()| {
                black_box(key);
                found += 1;
            });
        }
        looks += names.len() as u64;
    }
    let ns = begun.elapsed().as_nanos() as f64 / looks as f64;
    println!("{count:>8}  {shape:<34} {ns:>10.0} {:>8.1}", found as f64 / looks as f64);
}
