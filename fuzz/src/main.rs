//! What a stranger's bytes meet first, under a fuzzer that sees which branches they take.
//!
//! One binary, so that there is one link with the sanitizer; `FUZZ_TARGET` picks what it does.
//! `fuzz/run` builds it and runs every target.
// libFuzzer has the main function.
#![no_main]

mod frame;
mod open;
mod packet;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

/// What is run over every input.
static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| match std::env::var("FUZZ_TARGET").as_deref() {
    Ok("packet") => packet::run,
    Ok("open") => open::run,
    Ok("frame") => frame::run,
    found => panic!("FUZZ_TARGET is {found:?}; there are packet, open and frame"),
});

fuzz_target!(|data: &[u8]| TARGET(data));
