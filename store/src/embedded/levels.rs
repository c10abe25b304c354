//! The small files that say which table files make up a tree of the engine.
//!
//! ```text
//! version                   "FJL" 3
//! keyspaces/N/current       version's number 8   XXH3-128 of that version's file 16   0
//! keyspaces/N/v17           which table files, by level, each with its checksum
//! keyspaces/N/tables/4      a table file: blocks, each with a checksum, which the engine looks at
//! ```
//!
//! Integers are little-endian. The engine writes the checksum of a version's file and never looks at
//! it; a flipped bit there can hide a table file, which it would then delete as nobody's. So it is
//! looked at here, before the engine opens.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::folder::OpenError;
use super::journal::Damage;

const VERSION_MARKER: &str = "version";
const MARKER: [u8; 4] = *b"FJL\x03";
const KEYSPACES: &str = "keyspaces";
/// The tree that has the engine's list of all others.
const LIST: &str = "0";
const CURRENT: &str = "current";
const CURRENT_LEN: usize = 25;

/// A table file, and what its bytes come to.
pub(super) struct TableFile {
    pub(super) path: PathBuf,
    checksum: u128,
}

/// Whether the engine has made a partition here.
pub(super) fn is_partition(partition: &Path) -> bool {
    partition.join(VERSION_MARKER).exists()
}

/// The folders of the trees.
pub(super) fn trees(partition: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(partition.join(KEYSPACES))?;
    let mut trees: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    trees.retain(|path| path.is_dir());
    trees.sort();
    Ok(trees)
}

/// The files that say what a tree is made of: they are small, and written whole.
pub(super) fn small_files(tree: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(tree)?;
    let mut files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    files.retain(|path| path.is_file());
    files.sort();
    Ok(files)
}

/// Looks at every small file.
///
/// # Errors
///
/// [`OpenError::Damaged`] names the first that is not as it was written.
pub(super) fn check(partition: &Path) -> Result<(), OpenError> {
    match survey(partition)?.into_iter().next() {
        Some(damage) => Err(damage.into()),
        None => Ok(()),
    }
}

/// All small files that are not as they were written, or are not there: the engine makes what it misses anew, and
/// deletes what that does not name.
pub(super) fn survey(partition: &Path) -> Result<Vec<Damage>, OpenError> {
    let io = |cause| OpenError::Io { path: partition.into(), cause };
    let mut damages = Vec::new();
    let marker = partition.join(VERSION_MARKER);
    match fs::read(&marker) {
        Ok(found) if found == MARKER => {}
        Ok(_) => damages.push(damage(&marker, 0, "it does not say what the engine's marker says")),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(vec![damage(&marker, 0, "it is missing")]),
        Err(cause) => return Err(io(cause)),
    }
    let trees = trees(partition).map_err(io)?;
    if !trees.iter().any(|tree| tree.ends_with(LIST)) {
        let list = partition.join(KEYSPACES).join(LIST);
        damages.push(damage(&list, 0, "it is missing, and the engine has its list of all trees there"));
    }
    for tree in trees {
        if tree.join(CURRENT).exists() {
            damages.extend(version_of(&tree).map_err(io)?.err());
        } else if was_whole(&tree).map_err(io)? {
            damages.push(damage(&tree.join(CURRENT), 0, "it is missing, and its tree was whole"));
        }
    }
    Ok(damages)
}

/// Whether a tree without its file [`CURRENT`] had one: the list of trees, which is made with the partition, and
/// what has come further than its first, empty version. Another was never whole, and the engine makes it anew.
fn was_whole(tree: &Path) -> io::Result<bool> {
    let has_tables = match fs::read_dir(tree.join("tables")) {
        Ok(mut tables) => tables.next().is_some(),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => false,
        Err(cause) => return Err(cause),
    };
    let is_later = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.and_then(|name| name.strip_prefix('v')?.parse::<u64>().ok()).is_some_and(|version| version > 0)
    };
    Ok(tree.ends_with(LIST) || has_tables || small_files(tree)?.iter().any(is_later))
}

/// The file of a tree's present version, and its bytes.
fn version_of(tree: &Path) -> io::Result<Result<(PathBuf, Vec<u8>), Damage>> {
    let current = tree.join(CURRENT);
    let bytes = fs::read(&current)?;
    let parsed = bytes.split_first_chunk::<8>().and_then(|(number, rest)| {
        let (checksum, rest) = rest.split_first_chunk::<16>()?;
        (rest == [0] && bytes.len() == CURRENT_LEN).then_some((u64::from_le_bytes(*number), *checksum))
    });
    let Some((number, checksum)) = parsed else {
        return Ok(Err(damage(&current, 0, "it does not have the form of such a file")));
    };
    let path = tree.join(format!("v{number}"));
    let version = match fs::read(&path) {
        Ok(version) => version,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            return Ok(Err(damage(&current, 0, &format!("it names v{number}, and there is no such file"))));
        }
        Err(cause) => return Err(cause),
    };
    let found = xxh3_128(&version);
    let written = u128::from_le_bytes(checksum);
    if found != written {
        let found = format!("the checksum of its bytes is {found:032x}, and {} says {written:032x}", current.display());
        return Ok(Err(damage(&path, 0, &found)));
    }
    Ok(Ok((path, version)))
}

/// The table files of every tree whose version is whole.
pub(super) fn tables(partition: &Path) -> io::Result<Vec<TableFile>> {
    let mut files = Vec::new();
    for tree in trees(partition)? {
        if let Ok(Ok((path, version))) = version_of(&tree) {
            let archive = sfa::Reader::new(&path).map_err(io::Error::other)?;
            let section = archive.toc().section(b"tables").ok_or_else(|| io::Error::other("no list of tables"))?;
            let at = usize::try_from(section.pos()).unwrap_or(usize::MAX);
            let list = version.get(at..).ok_or_else(|| io::Error::other("the list of tables ends early"))?;
            read_tables(list, |number, checksum| {
                files.push(TableFile { path: tree.join("tables").join(number.to_string()), checksum });
            })
            .ok_or_else(|| io::Error::other("the list of tables ends early"))?;
        }
    }
    Ok(files)
}

/// Reads levels 1, then for each runs 1, for each tables 4, and for each of these its number 8, 0,
/// its checksum 16 and a sequence number 8.
fn read_tables(mut list: &[u8], mut visit: impl FnMut(u64, u128)) -> Option<()> {
    let mut take = |len: usize| {
        let (taken, rest) = list.split_at_checked(len)?;
        list = rest;
        Some(taken)
    };
    let [levels] = *take(1)?.first_chunk()?;
    for _ in 0..levels {
        let [runs] = *take(1)?.first_chunk()?;
        for _ in 0..runs {
            let tables = u32::from_le_bytes(*take(4)?.first_chunk()?);
            for _ in 0..tables {
                let number = u64::from_le_bytes(*take(8)?.first_chunk()?);
                take(1)?;
                let checksum = u128::from_le_bytes(*take(16)?.first_chunk()?);
                take(8)?;
                visit(number, checksum);
            }
        }
    }
    Some(())
}

impl TableFile {
    /// Reads it whole, and says where it is not as it was written.
    pub(super) fn damage(&self) -> io::Result<Option<Damage>> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                return Ok(Some(damage(&self.path, 0, "no such file, and its tree names it")));
            }
            Err(cause) => return Err(cause),
        };
        let mut hasher = Xxh3::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                read => hasher.update(buffer.get(..read).unwrap_or_default()),
            }
        }
        if hasher.digest128() == self.checksum {
            return Ok(None);
        }
        let at = first_bad_block(&self.path)?;
        Ok(Some(damage(&self.path, at, "its bytes are others than those that were written")))
    }
}

/// Where the first block begins that is not as it was written; 0 where all are.
///
/// A block is "LSM" 3, its kind 1, XXH3-128 of its bytes 16, their length 4, their length before
/// compression 4, the low 4 bytes of XXH3-128 of the header so far 4, and its bytes.
fn first_bad_block(path: &Path) -> io::Result<u64> {
    const HEADER_LEN: usize = 33;
    let bytes = fs::read(path)?;
    let mut at = 0_usize;
    while let Some(header) = bytes.get(at..).and_then(|rest| rest.first_chunk::<HEADER_LEN>()) {
        let (said, check) = header.split_at(HEADER_LEN - 4);
        if xxh3_128(said).to_le_bytes().get(..4) != Some(check) {
            // Behind the last block stands the archive's own list of what is in it.
            return Ok(at as u64);
        }
        let checksum = said.get(5..21).and_then(|bytes| bytes.first_chunk()).map_or(0, |b| u128::from_le_bytes(*b));
        let len = said.get(21..25).and_then(|bytes| bytes.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b));
        let end = at.saturating_add(HEADER_LEN).saturating_add(usize::try_from(len).unwrap_or(usize::MAX));
        match bytes.get(at + HEADER_LEN..end) {
            Some(block) if xxh3_128(block) == checksum => at = end,
            _ => return Ok(at as u64),
        }
    }
    Ok(at as u64)
}

fn damage(file: &Path, offset: u64, found: &str) -> Damage {
    Damage { file: file.to_owned(), offset, found: found.to_owned() }
}
