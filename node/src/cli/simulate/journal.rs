//! What a simulated device says it has done: one JSON line when it publishes, one when the node
//! has acknowledged. Of lines with the same number the last one counts.
//!
//! ```text
//! {"device":"pump-7","n":17,"reading":"9041","sha256":"ab..","published_at":1750000000000}
//! {"device":"pump-7","n":17,"reading":"9041","sha256":"ab..","published_at":1750000000000,"acknowledged_at":1750000000021}
//! ```

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::control::text;

/// A journal's name in its device's folder.
pub const FILE: &str = "journal.jsonl";

/// One reading in a journal.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Entry {
    /// Who published it.
    pub device: String,
    /// The device's own number for it, which its body carries.
    pub n: u64,
    /// The SDK's id of it, which its row shows as well; a string, as there.
    #[serde(with = "text")]
    pub reading: u64,
    /// SHA-256 of the body, in hexadecimal.
    pub sha256: String,
    /// When it was handed to the SDK, in ms since the Unix epoch.
    pub published_at: u64,
    /// When its PUBACK arrived, if it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_at: Option<u64>,
}

/// Reads a journal: by number, what is known of each reading last. A journal that is not there is
/// empty; a last line that was cut off is ignored.
///
/// # Errors
///
/// The file cannot be read, or holds a line that is no entry.
pub fn read(path: &Path) -> io::Result<BTreeMap<u64, Entry>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    let mut entries = BTreeMap::new();
    let mut reader = BufReader::new(file);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 {
        match serde_json::from_str::<Entry>(&line) {
            Ok(entry) => _ = entries.insert(entry.n, entry),
            // Power failed, or the process was killed, in the middle of the last line.
            Err(_) if !line.ends_with('\n') => break,
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
        line.clear();
    }
    Ok(entries)
}

/// A journal that is being written.
#[derive(Debug)]
pub(super) struct Journal {
    file: BufWriter<File>,
    /// The number of the next reading.
    next: u64,
    open: BTreeMap<u64, Entry>,
}

impl Journal {
    /// Opens a journal, to go on after its last number.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let next = read(path)?.last_key_value().map_or(1, |(n, _)| n + 1);
        let mut file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
        end_last_line(path, &mut file)?;
        Ok(Self { file: BufWriter::new(file), next, open: BTreeMap::new() })
    }

    /// The number of the next reading.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// A reading is on its way.
    pub(super) fn published(&mut self, entry: Entry) -> io::Result<()> {
        self.write(&entry)?;
        self.next = entry.n + 1;
        self.open.insert(entry.n, entry);
        Ok(())
    }

    /// The node has acknowledged it. Gives the entry, or nothing for a number it does not hold.
    pub(super) fn acknowledged(&mut self, n: u64, at_ms: u64) -> io::Result<Option<Entry>> {
        let Some(mut entry) = self.open.remove(&n) else { return Ok(None) };
        entry.acknowledged_at = Some(at_ms);
        self.write(&entry)?;
        Ok(Some(entry))
    }

    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        serde_json::to_writer(&mut self.file, entry)?;
        self.file.write_all(b"\n")
    }

    /// Hands what was written to the system.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Ends a line that was cut off, so that the next one begins on its own, and makes it no line by
/// cutting it away.
pub(super) fn end_last_line(path: &Path, file: &mut File) -> io::Result<()> {
    let bytes = std::fs::read(path)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if whole < bytes.len() { file.set_len(whole as u64) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u64) -> Entry {
        Entry { device: "d".into(), n, reading: 9, sha256: "ab".into(), published_at: 5, acknowledged_at: None }
    }

    #[test]
    fn numbers_go_on_after_a_restart_and_acknowledgements_are_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(FILE);
        let mut journal = Journal::open(&path).expect("opens");
        assert_eq!(journal.next(), 1);
        journal.published(entry(1)).expect("writes");
        journal.published(entry(2)).expect("writes");
        assert_eq!(journal.acknowledged(1, 9).expect("writes").map(|e| e.n), Some(1));
        assert_eq!(journal.acknowledged(1, 9).expect("writes"), None);
        journal.flush().expect("flushes");

        assert_eq!(Journal::open(&path).expect("opens").next(), 3);
        let entries = read(&path).expect("reads");
        assert_eq!(entries.values().map(|e| e.acknowledged_at).collect::<Vec<_>>(), [Some(9), None]);
    }

    #[test]
    fn a_line_that_was_cut_off_is_no_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(FILE);
        let mut journal = Journal::open(&path).expect("opens");
        journal.published(entry(1)).expect("writes");
        journal.flush().expect("flushes");
        let whole = std::fs::read(&path).expect("reads");
        std::fs::write(&path, [&whole[..], br#"{"device":"d","n":2,"#].concat()).expect("writes");

        let mut journal = Journal::open(&path).expect("opens");
        assert_eq!(journal.next(), 2);
        journal.published(entry(2)).expect("writes");
        journal.flush().expect("flushes");
        assert_eq!(read(&path).expect("reads").len(), 2);
    }

    #[test]
    fn a_line_that_is_no_entry_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(FILE);
        std::fs::write(&path, "nonsense\n").expect("writes");
        assert_eq!(read(&path).map_err(|error| error.kind()), Err(io::ErrorKind::InvalidData));
    }
}
