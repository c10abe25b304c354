//! What devices say they published, against what the node says it stores.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};
use unhidra_node::cli::simulate::journal::{self, Entry};

/// A reading: its device, the number in its body, the SHA-256 of its body.
type Key = (String, u64, String);

/// How often each reading is stored.
pub(super) fn stored(rows: &[Value]) -> BTreeMap<Key, usize> {
    let mut stored = BTreeMap::new();
    for row in rows.iter().filter(|row| row["kind"] == "reading") {
        let (device, body) = (row["device"].as_str().expect("a device"), row["text"].as_str().expect("a text"));
        let n = serde_json::from_str::<Value>(body).ok().and_then(|body| body["n"].as_u64());
        let key = (device.to_owned(), n.unwrap_or_else(|| panic!("a number in {body}")), sha256(body.as_bytes()));
        *stored.entry(key).or_default() += 1;
    }
    stored
}

/// What one device's journal says.
pub(super) fn journal(folder: &Path) -> Vec<Entry> {
    journal::read(&folder.join(journal::FILE)).expect("the journal is read").into_values().collect()
}

/// Holds that everything acknowledged is stored, and nothing is stored twice; gives how many
/// readings were acknowledged.
pub(super) fn nothing_is_lost_or_doubled(journals: &[Vec<Entry>], rows: &[Value]) -> usize {
    let stored = stored(rows);
    let doubled: Vec<_> = stored.iter().filter(|(_, count)| **count > 1).collect();
    assert!(doubled.is_empty(), "stored more than once: {doubled:?}");
    let mut acknowledged = 0;
    for entry in journals.iter().flatten().filter(|entry| entry.acknowledged_at.is_some()) {
        let key = (entry.device.clone(), entry.n, entry.sha256.clone());
        assert!(stored.contains_key(&key), "acknowledged and not stored: {entry:?}");
        acknowledged += 1;
    }
    acknowledged
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
