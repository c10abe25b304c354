//! A simulated device's flash: one append-only file of its own.
//!
//! ```text
//! file    "unhidra flash 1\n", then groups
//! group   len(4) sha256(8) entries          len and sha256 are over the entries
//! entry   record(1) len(2) bytes
//! ```
//!
//! A group is there whole or not at all: the one that was being written when power failed does
//! not match its sum and is cut away. Past [`COMPACT_AT`] the records as they stand are written to
//! a new file, which takes the place of the old one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use unhidra_device_sdk::storage::{Record, Storage, Write};
use zeroize::Zeroizing;

const MAGIC: &[u8] = b"unhidra flash 1\n";

/// The size at which a file is written anew.
const COMPACT_AT: u64 = 1024 * 1024;

/// The records, and the file they lie in.
pub(super) struct Flash {
    path: PathBuf,
    file: File,
    len: u64,
    /// Whether a write returns only when the disk has it.
    sync: bool,
    records: Vec<Option<Zeroizing<Vec<u8>>>>,
}

impl Flash {
    /// Opens a device's flash, or makes an empty one.
    pub(super) fn open(path: &Path, sync: bool) -> io::Result<Self> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Zeroizing::default(),
            Err(error) => return Err(error),
        };
        let mut records = vec![None; usize::from(Record::COUNT)];
        let whole = replay(&bytes, &mut records)?;
        let file = private(OpenOptions::new().create(true).append(true)).open(path)?;
        let mut flash = Self { path: path.to_owned(), file, len: whole, sync, records };
        flash.file.set_len(whole)?;
        if whole == 0 {
            flash.file.write_all(MAGIC)?;
            flash.len = MAGIC.len() as u64;
        }
        Ok(flash)
    }

    fn append(&mut self, entries: &[u8]) -> io::Result<()> {
        let group = group(entries)?;
        self.file.write_all(&group)?;
        if self.sync {
            self.file.sync_data()?;
        }
        self.len += group.len() as u64;
        Ok(())
    }

    /// Writes the records as they stand to a new file, and puts it in the place of the old one.
    fn compact(&mut self) -> io::Result<()> {
        let next = self.path.with_extension("next");
        let mut entries = Zeroizing::new(Vec::new());
        for (index, record) in self.records.iter().enumerate() {
            if let Some(bytes) = record {
                entry(&mut entries, index as u8, bytes)?;
            }
        }
        let group = group(&entries)?;
        let mut file = private(OpenOptions::new().create(true).truncate(true).write(true)).open(&next)?;
        file.write_all(MAGIC)?;
        file.write_all(&group)?;
        file.sync_all()?;
        std::fs::rename(&next, &self.path)?;
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        self.file = OpenOptions::new().append(true).open(&self.path)?;
        self.len = (MAGIC.len() + group.len()) as u64;
        Ok(())
    }
}

impl Storage for Flash {
    type Error = io::Error;

    fn read(&mut self, record: Record, out: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(bytes) = self.records.get(usize::from(record.index())).and_then(Option::as_ref) else {
            return Ok(None);
        };
        let place = out.get_mut(..bytes.len()).ok_or_else(|| damaged("a record is longer than the device reads"))?;
        place.copy_from_slice(bytes);
        Ok(Some(bytes.len()))
    }

    fn write(&mut self, writes: &[Write<'_>]) -> io::Result<()> {
        let mut entries = Zeroizing::new(Vec::new());
        for write in writes {
            entry(&mut entries, write.record.index(), write.bytes)?;
        }
        self.append(&entries)?;
        for write in writes {
            if let Some(place) = self.records.get_mut(usize::from(write.record.index())) {
                *place = Some(Zeroizing::new(write.bytes.to_vec()));
            }
        }
        if self.len > COMPACT_AT { self.compact() } else { Ok(()) }
    }
}

impl std::fmt::Debug for Flash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flash").field("path", &self.path).field("len", &self.len).finish_non_exhaustive()
    }
}

fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600)
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn sum(entries: &[u8]) -> [u8; 8] {
    let mut sum = [0; 8];
    sum.iter_mut().zip(digest::digest(&digest::SHA256, entries).as_ref()).for_each(|(to, from)| *to = *from);
    sum
}

fn entry(out: &mut Vec<u8>, record: u8, bytes: &[u8]) -> io::Result<()> {
    let len = u16::try_from(bytes.len()).map_err(|_| damaged("a record of more than 65535 bytes"))?;
    out.push(record);
    out.extend(len.to_be_bytes());
    out.extend(bytes);
    Ok(())
}

fn group(entries: &[u8]) -> io::Result<Zeroizing<Vec<u8>>> {
    let len = u32::try_from(entries.len()).map_err(|_| damaged("a group of more than 4 GiB"))?;
    let mut group = Zeroizing::new(Vec::with_capacity(12 + entries.len()));
    group.extend(len.to_be_bytes());
    group.extend(sum(entries));
    group.extend(entries);
    Ok(group)
}

/// Reads groups until one is not whole; gives the length of what is.
fn replay(bytes: &[u8], records: &mut [Option<Zeroizing<Vec<u8>>>]) -> io::Result<u64> {
    // Empty, or cut off before anything was written.
    if MAGIC.starts_with(bytes) {
        return Ok(if bytes.len() == MAGIC.len() { bytes.len() as u64 } else { 0 });
    }
    let mut rest = bytes.strip_prefix(MAGIC).ok_or_else(|| damaged("no flash of a simulated device"))?;
    while let Some((entries, after)) = whole_group(rest) {
        rest = after;
        let mut entries = entries;
        while let Some((record, content, after)) = next_entry(entries) {
            let place = records.get_mut(usize::from(record)).ok_or_else(|| damaged("a record of another version"))?;
            *place = Some(Zeroizing::new(content.to_vec()));
            entries = after;
        }
        if !entries.is_empty() {
            return Err(damaged("a group that ends within a record"));
        }
    }
    Ok((bytes.len() - rest.len()) as u64)
}

fn whole_group(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let (found, rest) = rest.split_first_chunk::<8>()?;
    let (entries, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*len)).ok()?)?;
    (sum(entries) == *found).then_some((entries, rest))
}

fn next_entry(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (record, rest) = bytes.split_first()?;
    let (len, rest) = rest.split_first_chunk::<2>()?;
    let (content, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    Some((*record, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use unhidra_device_sdk::storage::Half;

    const SESSION: Record = Record::Session(Half::A);
    const COMMAND: Record = Record::Command(3);

    fn read(flash: &mut Flash, record: Record) -> Option<Vec<u8>> {
        let mut out = [0; 64];
        let len = flash.read(record, &mut out).expect("reads")?;
        Some(out[..len].to_vec())
    }

    fn write(flash: &mut Flash, session: &[u8], command: &[u8]) {
        let writes = [Write { record: SESSION, bytes: session }, Write { record: COMMAND, bytes: command }];
        flash.write(&writes).expect("writes");
    }

    #[test]
    fn records_are_read_again_as_they_were_written_last() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("flash");
        let mut flash = Flash::open(&path, true).expect("opens");
        assert_eq!(read(&mut flash, SESSION), None);
        write(&mut flash, b"one", b"1");
        write(&mut flash, b"two", b"2");
        drop(flash);
        let mut flash = Flash::open(&path, true).expect("opens");
        assert_eq!((read(&mut flash, SESSION), read(&mut flash, COMMAND)), (Some(b"two".into()), Some(b"2".into())));
    }

    #[test]
    fn a_group_that_was_cut_anywhere_is_not_there_and_the_next_one_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("flash");
        let mut flash = Flash::open(&path, false).expect("opens");
        write(&mut flash, b"one", b"1");
        let before = std::fs::metadata(&path).expect("is there").len() as usize;
        write(&mut flash, b"two", b"2");
        drop(flash);
        let bytes = std::fs::read(&path).expect("reads");
        for cut in before..bytes.len() {
            std::fs::write(&path, &bytes[..cut]).expect("writes");
            let mut flash = Flash::open(&path, false).expect("opens");
            assert_eq!(read(&mut flash, SESSION), Some(b"one".into()), "cut at {cut}");
            write(&mut flash, b"three", b"3");
            drop(flash);
            let mut flash = Flash::open(&path, false).expect("opens");
            assert_eq!(read(&mut flash, COMMAND), Some(b"3".into()), "cut at {cut}");
        }
    }

    #[test]
    fn a_full_file_is_written_anew_and_holds_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("flash");
        let mut flash = Flash::open(&path, false).expect("opens");
        write(&mut flash, b"one", b"1");
        flash.len = COMPACT_AT;
        write(&mut flash, b"two", b"2");
        assert!(flash.len < 200, "{} bytes", flash.len);
        write(&mut flash, b"three", b"2");
        drop(flash);
        let mut flash = Flash::open(&path, false).expect("opens");
        assert_eq!((read(&mut flash, SESSION), read(&mut flash, COMMAND)), (Some(b"three".into()), Some(b"2".into())));
    }

    #[test]
    fn a_file_of_something_else_is_not_touched() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("flash");
        std::fs::write(&path, "precious").expect("writes");
        assert_eq!(Flash::open(&path, false).map(|_| ()).map_err(|e| e.kind()), Err(io::ErrorKind::InvalidData));
        assert_eq!(std::fs::read(&path).expect("reads"), b"precious");
    }
}
