//! A partition's journals, read before the engine opens them.
//!
//! The engine takes a record it cannot read for the torn end of a journal and cuts everything behind
//! it away, in silence: readings that were acknowledged long before. So every batch is read here
//! first.
//!
//! ```text
//! 3.jnl  [batch][batch][batch]000   sealed: synced whole before the next was made
//! 4.jnl  [batch][batch][bat         the newest: its last batch may be torn, and is cut away
//! ```
//!
//! What is no whole batch and has one behind it, in its journal or in a later one, was whole once:
//! it is damage. The numbers of batches are under no checksum, and rise.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::folder::{OpenError, sync_folder};

use self::walk::{Walk, walk};

mod batch;
mod walk;

/// A journal and what a walk over it has found.
pub(super) struct Walked {
    pub(super) path: PathBuf,
    walk: Walk,
    /// Whether another one was made after it.
    is_sealed: bool,
}

/// Something in a file that was not written so.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Damage {
    pub(super) file: PathBuf,
    /// Where, in bytes from the beginning of the file.
    pub(super) offset: u64,
    pub(super) found: String,
}

impl From<Damage> for OpenError {
    fn from(Damage { file, offset, found }: Damage) -> Self {
        Self::Damaged { file, offset, found }
    }
}

impl Walked {
    /// The first damage, if there is any.
    pub(super) fn damage(&self) -> Option<Damage> {
        self.damages().next()
    }

    /// All that is damaged in it.
    pub(super) fn damages(&self) -> impl Iterator<Item = Damage> {
        let faults = self.walk.faults.iter().filter(|fault| self.is_sealed || !fault.may_be_torn());
        faults.map(|fault| Damage {
            file: self.path.clone(),
            offset: fault.at as u64,
            found: match fault.next {
                Some(next) => format!("{}; a whole batch follows at {next}", fault.found),
                None => fault.found.to_string(),
            },
        })
    }

    /// Where its torn end begins, if it has one.
    pub(super) fn torn_at(&self) -> Option<u64> {
        let torn = self.walk.faults.last().filter(|fault| !self.is_sealed && fault.may_be_torn())?;
        Some(torn.at as u64)
    }

    /// How many whole batches it has.
    pub(super) fn batches(&self) -> u64 {
        self.walk.batches.len() as u64
    }

    /// The first byte behind its last whole batch.
    pub(super) fn end(&self) -> u64 {
        self.walk.end() as u64
    }

    /// The numbers of its batches, for a checksum over them.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u64> {
        self.walk.batches.iter().map(|batch| batch.seqno)
    }

    /// Writes it anew with nothing but its whole batches in it.
    pub(super) fn keep_whole(&self) -> io::Result<()> {
        let bytes = fs::read(&self.path)?;
        let whole: Vec<&[u8]> =
            self.walk.batches.iter().filter_map(|batch| bytes.get(batch.start..batch.end)).collect();
        let copy = self.path.with_extension("anew");
        let mut file = fs::File::create(&copy)?;
        io::Write::write_all(&mut file, &whole.concat())?;
        file.sync_all()?;
        fs::rename(&copy, &self.path)?;
        self.path.parent().map_or(Ok(()), sync_folder)
    }

    /// Cuts a torn end away.
    fn cut(&self) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(&self.path)?;
        file.set_len(self.end())?;
        file.sync_all()
    }
}

/// The journals of a partition, oldest first.
fn journals(partition: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut journals = Vec::new();
    for entry in fs::read_dir(partition)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
            let number = number.ok_or_else(|| io::Error::other("a journal's name is no number"))?;
            journals.push((number, path));
        }
    }
    journals.sort();
    Ok(journals)
}

/// Walks every journal of a partition, oldest first, and changes nothing. One of them is in memory
/// at a time.
///
/// # Errors
///
/// [`OpenError::Damaged`] where a journal is missing, and what cannot be read.
pub(super) fn survey(partition: &Path) -> Result<Vec<Walked>, OpenError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |cause| OpenError::Io { path, cause }
    };
    let journals = journals(partition).map_err(io(partition))?;
    let mut walked = Vec::with_capacity(journals.len());
    let mut after = None;
    let newest = journals.last().map(|(number, _)| *number);
    let Some(newest) = newest else {
        return Err(missing(partition, "0.jnl"));
    };
    let mut expected = journals.first().map_or(0, |(number, _)| *number);
    for (number, path) in journals {
        if number != expected {
            return Err(missing(partition, &format!("{expected}.jnl")));
        }
        expected = number.saturating_add(1);
        let bytes = fs::read(&path).map_err(io(&path))?;
        let walk = walk(&bytes, after);
        after = walk.seqno().or(after);
        walked.push(Walked { path, walk, is_sealed: number != newest });
    }
    Ok(walked)
}

fn missing(partition: &Path, journal: &str) -> OpenError {
    OpenError::Damaged { file: partition.join(journal), offset: 0, found: "no such file, and there was one".into() }
}

/// Walks every journal, and cuts a torn end away: the engine opens no journal whose torn end happens
/// to look like one that is not.
///
/// # Errors
///
/// [`OpenError::Damaged`], with nothing changed.
pub(super) fn check(partition: &Path) -> Result<Vec<Walked>, OpenError> {
    let walked = survey(partition)?;
    if let Some(damage) = walked.iter().find_map(Walked::damage) {
        return Err(damage.into());
    }
    for journal in &walked {
        if let Some(at) = journal.torn_at() {
            journal.cut().map_err(|cause| OpenError::Io { path: journal.path.clone(), cause })?;
            tracing::warn!(journal = %journal.path.display(), at, "a batch that was never whole is cut away");
        }
    }
    Ok(walked)
}

#[cfg(test)]
mod tests {
    use super::batch::tests::written;
    use super::*;

    fn partition(journals: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in journals {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    fn batches(numbers: &[u64]) -> Vec<u8> {
        numbers.iter().flat_map(|number| written(*number, &[(b"key", b"value")])).collect()
    }

    fn refused(journals: &[(&str, Vec<u8>)]) -> (String, u64) {
        let folder = partition(journals);
        match check(folder.path()).err() {
            Some(OpenError::Damaged { file, offset, .. }) => {
                (file.file_name().unwrap().to_str().unwrap().to_owned(), offset)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_torn_end_is_cut_from_the_newest_journal_alone() {
        let mut torn = batches(&[3, 4]);
        let whole = torn.len() as u64 / 2;
        torn.truncate(torn.len() - 3);
        let folder = partition(&[("0.jnl", batches(&[1, 2])), ("1.jnl", torn.clone())]);
        check(folder.path()).unwrap();
        assert_eq!(fs::metadata(folder.path().join("1.jnl")).unwrap().len(), whole);
        check(folder.path()).unwrap();
        assert_eq!(refused(&[("0.jnl", torn), ("1.jnl", batches(&[7]))]), ("0.jnl".into(), whole));
    }

    #[test]
    fn a_missing_journal_is_damage() {
        assert_eq!(refused(&[("2.jnl", batches(&[1])), ("4.jnl", batches(&[2]))]).0, "3.jnl");
        assert_eq!(refused(&[]).0, "0.jnl");
        assert!(check(partition(&[("7.jnl", batches(&[1]))]).path()).is_ok(), "older ones have been written out");
    }

    #[test]
    fn numbers_rise_from_one_journal_to_the_next() {
        assert_eq!(refused(&[("0.jnl", batches(&[5])), ("1.jnl", batches(&[4, 6]))]), ("1.jnl".into(), 0));
    }

    #[test]
    fn what_is_whole_can_be_kept() {
        let mut bytes = batches(&[1, 2, 3]);
        let len = bytes.len() / 3;
        bytes[len + 40] ^= 1;
        let folder = partition(&[("0.jnl", bytes.clone())]);
        let walked = survey(folder.path()).unwrap();
        assert_eq!(walked[0].damages().count(), 1);
        walked[0].keep_whole().unwrap();
        assert_eq!(fs::read(folder.path().join("0.jnl")).unwrap(), [&bytes[..len], &bytes[2 * len..]].concat());
        assert!(check(folder.path()).is_ok());
    }
}
