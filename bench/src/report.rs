//! The table for a person, and the same rows as JSON lines for a program.

use serde_json::{Value, json};

use crate::measure::{Contest, Outcome};

/// What a row must reach. Ratios are of medians of one run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Goal {
    /// At most so many times the floor.
    pub(crate) over_floor: Option<f64>,
    /// At least so many times as fast as the peer.
    pub(crate) faster_than_peer: Option<f64>,
    /// At most so many bytes.
    pub(crate) bytes: Option<usize>,
}

impl Goal {
    /// A goal of times.
    pub(crate) fn ratios(over_floor: Option<f64>, faster_than_peer: Option<f64>) -> Self {
        Self { over_floor, faster_than_peer, bytes: None }
    }
}

/// Something to be timed, and what it must reach.
pub(crate) struct Entry {
    /// What the line of the table is called.
    pub(crate) name: String,
    contest: Contest,
    goal: Goal,
}

impl Entry {
    pub(crate) fn new(name: impl Into<String>, contest: Contest, goal: Goal) -> Self {
        Self { name: name.into(), contest, goal }
    }

    /// Whether it is what an attacker sends: measured for what it costs, and compared with nothing.
    pub(crate) fn is_attack(&self) -> bool {
        self.name.starts_with("attack")
    }

    /// Times it.
    pub(crate) fn run(self) -> Row {
        Row::time(self.name, self.contest.run(), self.goal)
    }

    /// Times ours alone: the fastest of a few batches, in nanoseconds.
    pub(crate) fn run_briefly(self) -> f64 {
        self.contest.run_briefly()
    }

    /// See [`Contest::run_alone`].
    pub(crate) fn run_alone(self, contestant: &str) -> Option<usize> {
        self.contest.run_alone(contestant)
    }
}

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Row {
    name: String,
    unit: &'static str,
    ours: f64,
    ours_min: Option<f64>,
    peer: Option<f64>,
    floor: Option<f64>,
    over_floor: Option<f64>,
    faster_than_peer: Option<f64>,
    goal: Goal,
}

impl Row {
    /// A row of times.
    fn time(name: String, outcome: Outcome, goal: Goal) -> Self {
        Self {
            name,
            unit: "ns",
            ours: outcome.ours,
            ours_min: Some(outcome.ours_min),
            peer: outcome.peer,
            floor: outcome.floor,
            over_floor: outcome.over_floor,
            faster_than_peer: outcome.faster_than_peer,
            goal,
        }
    }

    /// A row of sizes.
    pub(crate) fn size(name: impl Into<String>, ours: usize, peer: usize, max: Option<usize>) -> Self {
        Self {
            name: name.into(),
            unit: "B",
            ours: ours as f64,
            ours_min: None,
            peer: Some(peer as f64),
            floor: None,
            over_floor: None,
            faster_than_peer: None,
            goal: Goal { bytes: max, ..Goal::default() },
        }
    }

    /// Whether every goal of the row is met; `None` where it has none.
    pub(crate) fn is_met(&self) -> Option<bool> {
        let below = |goal: Option<f64>, found: Option<f64>| Some(found? <= goal?);
        let above = |goal: Option<f64>, found: Option<f64>| Some(found? >= goal?);
        let parts = [
            below(self.goal.over_floor, self.over_floor),
            above(self.goal.faster_than_peer, self.faster_than_peer),
            below(self.goal.bytes.map(|max| max as f64), Some(self.ours)),
        ];
        parts.into_iter().flatten().reduce(|all, met| all && met)
    }

    fn goal_text(&self) -> String {
        let parts = [
            self.goal.over_floor.map(|max| format!("<= {max} floor")),
            self.goal.faster_than_peer.map(|min| format!(">= {min} peer")),
            self.goal.bytes.map(|max| format!("<= {max} B")),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// The row as one JSON object.
    pub(crate) fn json(&self, part: &str) -> Value {
        json!({
            "part": part,
            "row": self.name,
            "unit": self.unit,
            "ours": rounded(Some(self.ours), 1.0),
            "ours_min": rounded(self.ours_min, 1.0),
            "peer": rounded(self.peer, 1.0),
            "floor": rounded(self.floor, 1.0),
            "over_floor": rounded(self.over_floor, 1000.0),
            "faster_than_peer": rounded(self.faster_than_peer, 1000.0),
            "goal": self.goal_text(),
            "met": self.is_met(),
        })
    }
}

fn rounded(value: Option<f64>, to: f64) -> Option<f64> {
    value.map(|value| (value * to).round() / to)
}

/// Prints rows as a table.
pub(crate) fn print(rows: &[Row]) {
    println!(
        "{:<50} {:>4} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8}  {:<25} met",
        "row", "unit", "ours", "fastest", "peer", "floor", "x floor", "x peer", "goal"
    );
    for row in rows {
        let whole = |value: Option<f64>| value.map_or_else(|| "-".into(), |value| format!("{value:.0}"));
        let ratio = |value: Option<f64>| value.map_or_else(|| "-".into(), |value| format!("{value:.2}"));
        println!(
            "{:<50} {:>4} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8}  {:<25} {}",
            row.name,
            row.unit,
            whole(Some(row.ours)),
            whole(row.ours_min),
            whole(row.peer),
            whole(row.floor),
            ratio(row.over_floor),
            ratio(row.faster_than_peer),
            row.goal_text(),
            row.is_met().map_or("", |met| if met { "yes" } else { "NO" }),
        );
    }
}
