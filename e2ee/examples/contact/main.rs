//! The node of this crate against a device that was written from the text of PROTOCOL.md alone, in
//! another language: first contact, commands and readings over a bad network, power cuts, lost
//! sessions, resets. Exits with 1 at the first difference.
//!
//! ```sh
//! PYTHONPATH=target/oracle cargo run -p unhidra-e2ee --features pqxdh --example contact -- 7 400 \
//!     python3 e2ee/oracle/device.py
//! ```
//!
//! The schedule follows from the seed; the device draws its own keys.

use std::process::ExitCode;

use unhidra_e2ee::suite::{Suite, is_built};

mod device;
mod node;
mod schedule;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (seed, events) = (number(args.next()), number(args.next()));
    let command: Vec<String> = args.collect();
    let (Some(seed), Some(events), false) = (seed, events, command.is_empty()) else {
        eprintln!("usage: contact SEED EVENTS COMMAND...");
        return ExitCode::from(2);
    };
    for suite in [Suite::X3dh, Suite::Pqxdh].into_iter().filter(|suite| is_built(*suite)) {
        match schedule::play(suite, seed, events, &command) {
            Ok(played) => println!("seed {seed}: suite {suite}: {played}"),
            Err(difference) => {
                eprintln!("seed {seed}: suite {suite}: {difference}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn number(arg: Option<String>) -> Option<u64> {
    arg?.parse().ok()
}
