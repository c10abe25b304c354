//! The table for people, the same as JSON lines, and whether the goals are met.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

use crate::cases::{Case, Load, Outcome, Way};
use crate::peers::Peer;

/// What a run brought, by case and peer.
#[derive(Debug)]
pub(crate) struct Report {
    lines: File,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    case: &'static str,
    peer: Peer,
    outcomes: Vec<Outcome>,
}

/// The medians of a row.
#[derive(Clone, Copy, Debug, Default)]
struct Medians {
    rate: Option<f64>,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    cpu_us: Option<f64>,
    generator_us: Option<f64>,
    bytes: Option<f64>,
    syscalls: Option<f64>,
}

impl Report {
    /// Begins, with what is said of the whole run.
    pub(crate) fn new(path: &Path, header: &Value) -> io::Result<Self> {
        let mut lines = File::create(path)?;
        writeln!(lines, "{header}")?;
        Ok(Self { lines, rows: Vec::new() })
    }

    /// Takes what a run brought.
    pub(crate) fn take(&mut self, case: &Case, peer: Peer, round: usize, outcome: Outcome) -> io::Result<()> {
        let line = json!({
            "case": case.name, "peer": peer.name(), "round": round, "rate": outcome.rate,
            "p50_ms": outcome.p50_ms, "p99_ms": outcome.p99_ms, "cpu_us": outcome.cpu_us,
            "generator_us": outcome.generator_us, "lost": outcome.lost, "repeated": outcome.repeated,
            "bytes": outcome.bytes, "syscalls": outcome.syscalls, "error": outcome.error, "load": crate::process::load(),
        });
        writeln!(self.lines, "{line}")?;
        match self.rows.iter_mut().find(|row| row.case == case.name && row.peer == peer) {
            Some(row) => row.outcomes.push(outcome),
            None => self.rows.push(Row { case: case.name, peer, outcomes: vec![outcome] }),
        }
        Ok(())
    }

    /// Prints the rows of a case.
    pub(crate) fn print(&self, case: &Case) {
        for row in self.rows.iter().filter(|row| row.case == case.name) {
            let medians = row.medians();
            let lost: u64 = row.outcomes.iter().map(|outcome| outcome.lost).sum();
            println!(
                "| {} | {} | {} | {} | {} | {} | {} | {lost} | {} | {} |",
                case.name,
                row.peer,
                number(medians.rate, 0),
                number(medians.p50_ms, 2),
                number(medians.p99_ms, 2),
                number(medians.cpu_us, 2),
                number(medians.generator_us, 2),
                number(medians.bytes, 0),
                number(medians.syscalls, 3),
            );
            for error in row.outcomes.iter().filter_map(|outcome| outcome.error.as_ref()) {
                println!("| | | {error} | | | | | | | |");
            }
        }
    }

    /// Prints the goals of the cases that ran. Gives whether all are met.
    pub(crate) fn judge(&self, cases: &[Case]) -> bool {
        let mut all = true;
        for case in cases {
            for (goal, met) in self.goals(case) {
                println!("{} {}: {goal}", if met { "met   " } else { "MISSED" }, case.name);
                all &= met;
            }
        }
        all
    }

    fn goals(&self, case: &Case) -> Vec<(String, bool)> {
        let mut goals = Vec::new();
        let Some(ours) = self.row(case, Peer::Unhidra) else { return goals };
        let lost: u64 = ours.outcomes.iter().map(|outcome| outcome.lost).sum();
        let failed = ours.outcomes.iter().filter(|outcome| outcome.error.is_some()).count();
        goals.push((format!("nothing lost ({lost} lost, {failed} runs failed)"), lost == 0 && failed == 0));
        let mine = ours.medians();
        if matches!(case.load, Load::Idle(_)) && case.way == Way::Plain {
            goals.push(at_most("bytes a connection", mine.bytes, "the goal", Some(4096.0)));
        }
        for peer in [Peer::Mosquitto, Peer::Rumqttd] {
            let Some(row) = self.row(case, peer) else { continue };
            let its = row.medians();
            let times = if peer == Peer::Mosquitto && case.name == "fanin-q1" { 1.5 } else { 1.0 };
            match case.load {
                Load::Messages(messages) if messages.paced => {
                    goals.push(at_most("p99 ms", mine.p99_ms, peer.name(), its.p99_ms));
                }
                Load::Messages(_) => {
                    goals.push(at_least("messages a second", mine.rate, peer.name(), times, its.rate));
                    if case.name == "pairs" {
                        goals.push(at_most("p99 ms", mine.p99_ms, peer.name(), its.p99_ms));
                    }
                }
                Load::Idle(_) => {
                    // The plain goal is a number, the other is the peer.
                    if case.way == Way::Mutual {
                        goals.push(at_most("bytes a connection", mine.bytes, peer.name(), its.bytes));
                    }
                    continue;
                }
                Load::Connects { .. } => {
                    goals.push(at_least("connects a second", mine.rate, peer.name(), 1.0, its.rate));
                }
            }
            if peer == Peer::Mosquitto {
                goals.push(at_most("CPU us each", mine.cpu_us, peer.name(), its.cpu_us));
            }
        }
        goals
    }

    fn row(&self, case: &Case, peer: Peer) -> Option<&Row> {
        self.rows.iter().find(|row| row.case == case.name && row.peer == peer)
    }
}

impl Row {
    fn medians(&self) -> Medians {
        let median = |of: fn(&Outcome) -> Option<f64>| {
            let mut all: Vec<f64> = self.outcomes.iter().filter_map(of).collect();
            all.sort_by(f64::total_cmp);
            all.get(all.len() / 2).copied()
        };
        Medians {
            rate: median(|outcome| outcome.rate),
            p50_ms: median(|outcome| outcome.p50_ms),
            p99_ms: median(|outcome| outcome.p99_ms),
            cpu_us: median(|outcome| outcome.cpu_us),
            generator_us: median(|outcome| outcome.generator_us),
            bytes: median(|outcome| outcome.bytes),
            syscalls: median(|outcome| outcome.syscalls),
        }
    }
}

fn at_least(what: &str, mine: Option<f64>, peer: &str, times: f64, its: Option<f64>) -> (String, bool) {
    let ratio = mine.zip(its).map(|(mine, its)| mine / its);
    let said =
        format!("{what} {} at least {times} x {peer}'s {}: {} x", number(mine, 0), number(its, 0), number(ratio, 2));
    (said, ratio.is_some_and(|ratio| ratio >= times))
}

fn at_most(what: &str, mine: Option<f64>, whose: &str, most: Option<f64>) -> (String, bool) {
    let met = mine.zip(most).is_some_and(|(mine, most)| mine <= most);
    (format!("{what} {} at most {whose}'s {}", number(mine, 2), number(most, 2)), met)
}

pub(crate) fn number(value: Option<f64>, digits: usize) -> String {
    let Some(value) = value else { return "-".into() };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut out = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            out.push(' ');
        }
        out.push(digit);
    }
    out + rest
}
