//! The same work built in several ways, each its own program, run in turn: so that what the machine
//! does meanwhile happens to all of them.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::process::Command;

use crate::measure::median;
use crate::{aead, ratchet};

/// How often each program runs.
const ROUNDS: usize = 7;

/// Prints the fastest batch of each row, one a line, for [`programs`] to read.
pub(crate) fn once() {
    let mut entries = aead::entries();
    entries.extend(ratchet::entries().into_iter().filter(|entry| !entry.is_attack()));
    for entry in entries {
        let name = entry.name.clone();
        println!("{:.1}\t{name}", entry.run_briefly());
    }
}

/// Runs programs in turn, each `LABEL=PATH`, and prints a table: the median of each row's fastest
/// batches, in nanoseconds.
pub(crate) fn programs(programs: &[&str]) -> Result<()> {
    let programs: Vec<(&str, &str)> = programs.iter().filter_map(|program| program.split_once('=')).collect();
    let mut names: Vec<String> = Vec::new();
    let mut found: BTreeMap<(String, usize), Vec<f64>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        for (column, (label, path)) in programs.iter().enumerate() {
            let out = Command::new(path).arg("once").output()?;
            let text = String::from_utf8(out.stdout).map_err(|_| Error::new(ErrorKind::InvalidData, *label))?;
            for (ns, name) in text.lines().filter_map(|line| line.split_once('\t')) {
                if !names.iter().any(|known| known == name) {
                    names.push(name.to_owned());
                }
                found.entry((name.to_owned(), column)).or_default().extend(ns.parse::<f64>());
            }
        }
    }
    let columns: String = programs.iter().map(|(label, _)| format!(" {label:>10} |")).collect();
    println!("| {:<46} |{columns}", "ns");
    println!("| {:-<46} |{}", "", " ---------: |".repeat(programs.len()));
    for name in names {
        let mut cell = |column| median(found.remove(&(name.clone(), column)).unwrap_or_default());
        let cells: Vec<Option<f64>> = (0..programs.len()).map(&mut cell).collect();
        let cells: String = cells.into_iter().map(|ns| format!(" {:>10.0} |", ns.unwrap_or(f64::NAN))).collect();
        println!("| {name:<46} |{cells}");
    }
    Ok(())
}
