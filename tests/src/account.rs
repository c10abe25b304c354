//! What devices say was acknowledged, against what a node says it stores.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};
use unhidra_node::cli::simulate::Report;
use unhidra_node::cli::simulate::journal::Entry;
use unhidra_node::cli::simulate::report::{self, Line};

/// What the devices' report says.
#[derive(Debug, Default)]
pub struct Said {
    /// Every reading that was acknowledged, by device and the device's own number.
    pub acknowledged: BTreeMap<(String, u64), Entry>,
    /// Every reading that was published.
    pub published: usize,
    /// The sessions each device began, by their counters.
    pub sessions: BTreeMap<String, Vec<u32>>,
    /// Times a reading was refused.
    pub refused: usize,
    /// What the last run came to, if it came to its end.
    pub ended: Option<Report>,
}

impl Said {
    /// Reads a report; one that is not there says nothing.
    ///
    /// # Panics
    ///
    /// Where it holds a line that is none.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        if !path.exists() {
            return Self::default();
        }
        let mut said = Self::default();
        report::read(path).expect("a report").into_iter().for_each(|line| said.add(line));
        said
    }

    /// Takes one line.
    pub fn add(&mut self, line: Line) {
        match line {
            Line::Published(_) => self.published += 1,
            Line::Acknowledged(entry) => _ = self.acknowledged.insert((entry.device.clone(), entry.n), entry),
            Line::Session { device, counter } => self.sessions.entry(device).or_default().push(counter),
            Line::Refused { .. } => self.refused += 1,
            Line::Ended(report) => self.ended = Some(report),
        }
    }

    /// The devices that began more than one session.
    #[must_use]
    pub fn resets(&self) -> Vec<(&String, &Vec<u32>)> {
        self.sessions.iter().filter(|(_, counters)| counters.len() > 1).collect()
    }
}

/// Every acknowledged reading is stored, with its body and its id; no reading is stored twice; and
/// each device's readings are stored in the order in which it published them.
///
/// # Errors
///
/// What does not agree, one line each.
pub fn agree(acknowledged: &BTreeMap<(String, u64), Entry>, rows: &[Value]) -> Result<(), String> {
    let mut wrong = String::new();
    let mut stored: BTreeMap<(String, u64), (String, String)> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for row in rows.iter().filter(|row| row["kind"] == "reading") {
        let text = |key: &str| row[key].as_str().unwrap_or_default();
        let (device, body, id) = (text("device"), text("text"), text("reading_id"));
        let Some(n) = serde_json::from_str::<Value>(body).ok().and_then(|body| body["n"].as_u64()) else {
            let _ = writeln!(wrong, "no number in {row}");
            continue;
        };
        if !ids.insert((device, id)) {
            let _ = writeln!(wrong, "{device} {n}: the reading {id} is stored twice");
        }
        if stored.insert((device.to_owned(), n), (id.to_owned(), sha256(body))).is_some() {
            let _ = writeln!(wrong, "{device} {n}: stored twice");
        }
        if let Some(before) = last.insert(device, n).filter(|before| *before >= n) {
            let _ = writeln!(wrong, "{device} {n}: stored after {before}");
        }
    }
    for ((device, n), entry) in acknowledged {
        match stored.get(&(device.clone(), *n)) {
            None => _ = writeln!(wrong, "{device} {n}: acknowledged and not stored"),
            Some((id, sum)) if (id, sum) != (&entry.reading.to_string(), &entry.sha256) => {
                let _ = writeln!(wrong, "{device} {n}: stored is {id} {sum}, acknowledged was {entry:?}");
            }
            Some(_) => {}
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

fn sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(n: u64, id: u64) -> Value {
        json!({ "kind": "reading", "device": "d", "text": format!("{{\"n\":{n}}}"), "reading_id": id.to_string() })
    }

    fn acknowledged(n: u64) -> BTreeMap<(String, u64), Entry> {
        let sha256 = sha256(&format!("{{\"n\":{n}}}"));
        let entry = Entry { device: "d".into(), n, reading: n, sha256, published_at: 1, acknowledged_at: Some(2) };
        [(("d".to_owned(), n), entry)].into()
    }

    #[test]
    fn what_is_lost_doubled_changed_or_out_of_order_is_found() {
        assert_eq!(agree(&acknowledged(2), &[row(1, 1), row(2, 2), row(3, 3)]), Ok(()));
        for (rows, word) in [
            (vec![row(1, 1)], "not stored"),
            (vec![row(2, 2), row(2, 2)], "twice"),
            (vec![row(2, 2), row(3, 2)], "the reading 2 is stored twice"),
            (vec![row(2, 2), row(1, 1)], "after 2"),
            (vec![row(2, 9)], "stored is 9"),
        ] {
            let wrong = agree(&acknowledged(2), &rows).expect_err(word);
            assert!(wrong.contains(word), "{wrong}");
        }
    }
}
