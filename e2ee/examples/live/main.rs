//! A live random schedule against a Double Ratchet that others wrote, and exits with 1 at the first
//! difference: both directions, late, lost, repeated and damaged messages, and the DH steps a
//! device owes for a while.
//!
//! ```sh
//! PYTHONPATH=target/oracle cargo run -p unhidra-e2ee --example live -- 7 400 \
//!     python3 e2ee/oracle/ratchet_oracle.py serve
//! ```
//!
//! The schedule follows from the seed; the peer draws its own keys.

use std::process::ExitCode;

mod peer;
mod schedule;
mod sides;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (seed, events) = (number(args.next()), number(args.next()));
    let command: Vec<String> = args.collect();
    let (Some(seed), Some(events), false) = (seed, events, command.is_empty()) else {
        eprintln!("usage: live SEED EVENTS COMMAND...");
        return ExitCode::from(2);
    };
    for (at, pairing) in schedule::PAIRINGS.iter().enumerate() {
        let seed = seed.wrapping_add(at as u64);
        match schedule::play(*pairing, seed, events, &command) {
            Ok(played) => println!("seed {seed}: {pairing:?}: {played}"),
            Err(difference) => {
                eprintln!("seed {seed}: {pairing:?}: {difference}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn number(arg: Option<String>) -> Option<u64> {
    arg?.parse().ok()
}
