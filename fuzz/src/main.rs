//! What a stranger's bytes meet first, and what a disk may give back, under a fuzzer that sees which
//! branches they take.
//!
//! One binary, so that there is one link with the sanitizer; `FUZZ_TARGET` picks what it does.
//! `fuzz/run` builds it and runs every target.
// libFuzzer has the main function.
#![no_main]

mod bundle;
mod envelope;
mod error;
mod fixed;
mod frame;
mod handshake;
mod open;
mod packet;
#[path = "../../e2ee/tests/it/pair.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "the two sides of the tests; each target needs a part of them")]
mod pair;
mod plaintext;
mod registered;
mod script;
mod seeds;
mod session;
mod state;
mod told;
mod trie;
mod websocket;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

/// Every target by its name, as `fuzz/run` lists them; and what writes their seeds.
const TARGETS: [(&str, fn(&[u8])); 13] = [
    ("packet", packet::run),
    ("frame", frame::run),
    ("envelope", envelope::run),
    ("bundle", bundle::run),
    ("handshake", handshake::run),
    ("open", open::run),
    ("plaintext", plaintext::run),
    ("state", state::run),
    ("script", script::run),
    ("session", session::run),
    ("trie", trie::run),
    ("websocket", websocket::run),
    ("seeds", seeds::run),
];

/// What is run over every input.
static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(target, _)| *target == name);
    let Some((_, run)) = found else {
        panic!("FUZZ_TARGET is {name:?}; there are {:?}", TARGETS.map(|(target, _)| target));
    };
    *run
});

fuzz_target!(|data: &[u8]| TARGET(data));
