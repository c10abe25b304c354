//! The table, the JSON lines, and the goals.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::drive::Stretch;
use crate::process;
use crate::report::number;

/// What a run brought.
pub(super) struct Report {
    lines: File,
    goals: Vec<(String, bool)>,
    /// The rates of the rows, by case and disk.
    rates: Vec<(String, &'static str, f64)>,
}

/// One row of the table.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) case: String,
    pub(super) disk: &'static str,
    pub(super) rate: Option<f64>,
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    pub(super) max_ms: Option<f64>,
    pub(super) node_us: Option<f64>,
    pub(super) generator_us: Option<f64>,
    /// What else there is to say.
    pub(super) notes: String,
}

impl Row {
    /// What a stretch of load brought.
    pub(super) fn of(case: &str, disk: &'static str, stretch: &Stretch, notes: String) -> Self {
        Self {
            case: case.to_owned(),
            disk,
            rate: Some(stretch.rate()),
            p50_ms: stretch.times.quantile_ms(0.5),
            p99_ms: stretch.times.quantile_ms(0.99),
            max_ms: Some(stretch.max_ms),
            node_us: Some(stretch.each_us(stretch.node_cpu)),
            generator_us: Some(stretch.each_us(stretch.generator_cpu)),
            notes,
        }
    }
}

impl Report {
    /// Begins, with what is said of the whole run.
    pub(super) fn new(path: &Path, header: &Value) -> io::Result<Self> {
        let mut lines = File::create(path)?;
        writeln!(lines, "{header}")?;
        println!("| case | disk | a second | p50 ms | p99 ms | max ms | node CPU us | generator | |");
        println!("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |");
        Ok(Self { lines, goals: Vec::new(), rates: Vec::new() })
    }

    /// Takes and prints a row.
    pub(super) fn row(&mut self, row: &Row) -> io::Result<()> {
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            row.case,
            row.disk,
            number(row.rate, 0),
            number(row.p50_ms, 2),
            number(row.p99_ms, 2),
            number(row.max_ms, 1),
            number(row.node_us, 1),
            number(row.generator_us, 1),
            row.notes
        );
        if let Some(rate) = row.rate {
            self.rates.push((row.case.clone(), row.disk, rate));
        }
        let line = json!({
            "case": row.case, "disk": row.disk, "rate": row.rate, "p50_ms": row.p50_ms, "p99_ms": row.p99_ms,
            "max_ms": row.max_ms, "node_us": row.node_us, "generator_us": row.generator_us, "notes": row.notes,
            "load": process::load(),
        });
        writeln!(self.lines, "{line}")
    }

    /// A case that could not be run.
    pub(super) fn failed(&mut self, case: &str, error: &str) -> io::Result<()> {
        println!("| {case} | | | | | | | | failed: {error} |");
        self.goals.push((format!("{case}: it runs"), false));
        writeln!(self.lines, "{}", json!({ "case": case, "error": error }))
    }

    /// A goal: at least so much.
    pub(super) fn at_least(&mut self, what: &str, found: f64, least: f64) {
        self.goals.push((format!("{what}: {}, at least {}", text(found), text(least)), found >= least));
    }

    /// A goal: at most so much.
    pub(super) fn at_most(&mut self, what: &str, found: f64, most: f64) {
        self.goals.push((format!("{what}: {}, at most {}", text(found), text(most)), found <= most));
    }

    /// Ours beside mosquitto, where both have run: twice what it does with persistence is the goal, and
    /// what it does without is only said.
    fn beside(&mut self) {
        let rate = |rates: &[(String, &str, f64)], case: String| {
            rates.iter().find(|(of, disk, _)| *of == case && *disk == "bare").map(|(.., rate)| *rate)
        };
        for window in [1, 8] {
            let Some(ours) = rate(&self.rates, format!("durable-{window}")) else { continue };
            if let Some(its) = rate(&self.rates, format!("mosquitto-persist-{window}")) {
                self.at_least(&format!("durable-{window}, bare disk, 2 x mosquitto that persists"), ours, 2.0 * its);
            }
            if let Some(its) = rate(&self.rates, format!("mosquitto-{window}")) {
                println!("durable-{window} on the bare disk does {:.2} x what mosquitto does as it comes", ours / its);
            }
        }
    }

    /// Prints the goals. Gives whether all are met.
    pub(super) fn judge(&mut self) -> io::Result<bool> {
        println!();
        self.beside();
        for (goal, met) in &self.goals {
            println!("{} {goal}", if *met { "met   " } else { "MISSED" });
            writeln!(self.lines, "{}", json!({ "goal": goal, "met": met }))?;
        }
        Ok(self.goals.iter().all(|(_, met)| *met))
    }
}

fn text(value: f64) -> String {
    number(Some(value), if value < 1000.0 { 2 } else { 0 })
}
