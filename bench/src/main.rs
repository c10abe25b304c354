//! The product beside its peers and beside its floor, in one build and one run. `bench/run --help`.

use std::fs::File;
use std::io::{Error, ErrorKind, Write};
use std::process::ExitCode;

use unhidra_core::time::UnixTime;

mod aead;
mod compare;
mod machine;
mod measure;
mod ratchet;
mod report;

const USAGE: &str = "usage: unhidra-bench time FILE | list | alone CONTESTANT ROW | once | compare LABEL=PROGRAM...";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["time", file] => time(file),
        ["list"] => {
            ratchet::entries().iter().filter(|entry| !entry.is_attack()).for_each(|entry| println!("{}", entry.name));
            Ok(true)
        }
        ["alone", contestant, row] => alone(contestant, row),
        ["once"] => {
            compare::once();
            Ok(true)
        }
        ["compare", programs @ ..] => compare::programs(programs).map(|()| true),
        _ => Err(Error::new(ErrorKind::InvalidInput, USAGE)),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::from(2)
        }
    }
}

/// Times everything into a table and a file of JSON lines; whether every goal is met.
fn time(file: &str) -> std::io::Result<bool> {
    let mut lines = File::create(file)?;
    let machine = machine::describe(now());
    println!("{machine:#}");
    writeln!(lines, "{machine}")?;
    let mut rows: Vec<report::Row> = ratchet::entries().into_iter().map(report::Entry::run).collect();
    rows.extend(ratchet::sizes());
    report::print(&rows);
    for row in &rows {
        writeln!(lines, "{}", row.json("ratchet"))?;
    }
    Ok(rows.iter().all(|row| row.is_met() != Some(false)))
}

/// Runs one contestant of one row, and prints how many operations that was.
fn alone(contestant: &str, row: &str) -> std::io::Result<bool> {
    let entry = ratchet::entries().into_iter().find(|entry| entry.name == row);
    let operations = entry.and_then(|entry| entry.run_alone(contestant));
    if let Some(operations) = operations {
        println!("{operations}");
    }
    Ok(operations.is_some())
}

fn now() -> UnixTime {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    UnixTime::from_s(since.as_secs())
}
