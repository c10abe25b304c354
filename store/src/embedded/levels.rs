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

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_128;

use super::folder::OpenError;
use super::journal::Damage;

const VERSION_MARKER: &str = "version";
const MARKER: [u8; 4] = *b"FJL\x03";
const KEYSPACES: &str = "keyspaces";
const CURRENT: &str = "current";
const CURRENT_LEN: usize = 25;

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

/// All small files that are not as they were written.
pub(super) fn survey(partition: &Path) -> Result<Vec<Damage>, OpenError> {
    let io = |cause| OpenError::Io { path: partition.into(), cause };
    let mut damages = Vec::new();
    let marker = partition.join(VERSION_MARKER);
    if fs::read(&marker).map_err(io)? != MARKER {
        damages.push(damage(&marker, 0, "it does not say what the engine's marker says"));
    }
    for tree in trees(partition).map_err(io)? {
        // A tree without it was never whole; the engine makes it anew.
        if tree.join(CURRENT).exists() {
            damages.extend(version_of(&tree).map_err(io)?.err());
        }
    }
    Ok(damages)
}

/// Looks at the file of a tree's present version.
fn version_of(tree: &Path) -> io::Result<Result<(), Damage>> {
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
    Ok(Ok(()))
}

fn damage(file: &Path, offset: u64, found: &str) -> Damage {
    Damage { file: file.to_owned(), offset, found: found.to_owned() }
}
