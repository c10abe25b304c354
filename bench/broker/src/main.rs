//! Our broker under load: beside its peers (`bench/run broker --help`), while it is attacked
//! (`bench/run hostile --help`), and under devices whose readings are durable (`bench/run fleet --help`).

#![expect(clippy::disallowed_methods, reason = "a generator of load lives by the clock of its machine")]

mod attacks;
mod cases;
mod compare;
mod connects;
mod engine;
mod fleet;
mod histogram;
mod hostile;
mod link;
mod memory;
mod peers;
mod pki;
mod process;
mod puppet;
mod report;
mod wire;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// One generator of MQTT load, for our broker and its peers.
#[derive(Debug, Parser)]
#[command(name = "bench/run")]
struct Args {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Our broker beside mosquitto and rumqttd: 64-byte messages, one broker at a time, in turn
    Broker(compare::Compare),
    /// Honest clients of our broker while others attack it
    Hostile(hostile::Hostile),
    /// Devices whose readings are durable: what a node takes, in which time, and what that costs
    Fleet(fleet::Fleet),
    /// One attack, as a process of its own
    #[command(hide = true)]
    Attack(attacks::Attack),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let folder = std::env::temp_dir().join(format!("unhidra-bench-{}", std::process::id()));
    let met = match args.part {
        Part::Broker(compare) => compare.run(&folder),
        Part::Hostile(hostile) => hostile.run(&folder),
        Part::Fleet(fleet) => fleet.run(),
        Part::Attack(attack) => attack.run().map(|()| true),
    };
    let _ = std::fs::remove_dir_all(&folder);
    match met {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::from(2)
        }
    }
}
