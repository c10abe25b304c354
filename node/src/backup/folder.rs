//! Which files of a data folder are in its backup, and how they are put back.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use super::BackupError;
use crate::folder::Layout;

/// The most bytes a file of the folder may have, beside the store's own.
const FILE_MAX: u64 = 16 * 1024 * 1024;

/// How deep folders lie in it: `pki/` and `store/`.
const DEPTH_MAX: usize = 3;

/// Files without which a folder is no node's.
const NEEDED: [&str; 3] = ["format", "identity.key", "store/format"];

/// Every file of a folder that a backup takes as it lies, by its name from the folder on, with `/`
/// between: all but the lock, sockets, drafts, what the demo's devices keep, the store's note of its
/// boot, its partitions, whose records are copied one by one, and the files `apart`.
///
/// A link to a file is taken for the file. What can be neither taken nor left out is an error: a backup
/// that is called whole has all there is.
pub(super) fn files(layout: &Layout, apart: &[PathBuf]) -> Result<Vec<(String, Vec<u8>)>, BackupError> {
    let apart: Vec<(u64, u64)> =
        apart.iter().filter_map(|path| fs::metadata(path).ok()).map(|at| place_of(&at)).collect();
    let mut found = Vec::new();
    gather(layout.root(), Path::new(""), 0, &apart, &mut found)?;
    found.sort();
    let has = |needed: &&str| found.iter().any(|(name, _)| name == needed);
    match NEEDED.iter().find(|needed| !has(needed)) {
        None => Ok(found),
        Some(missing) => {
            Err(BackupError::Content { path: layout.root().into(), cause: format!("it has no file {missing}") })
        }
    }
}

/// What tells one file from another, whatever its names.
fn place_of(found: &fs::Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

fn gather(
    root: &Path,
    below: &Path,
    depth: usize,
    apart: &[(u64, u64)],
    found: &mut Vec<(String, Vec<u8>)>,
) -> Result<(), BackupError> {
    let here = root.join(below);
    let failed = |path: &Path, source| BackupError::File { path: path.into(), source };
    for entry in fs::read_dir(&here).map_err(|source| failed(&here, source))? {
        let entry = entry.map_err(|source| failed(&here, source))?;
        let (path, inner) = (entry.path(), below.join(entry.file_name()));
        let unknown = |cause: &str| BackupError::Content { path: path.clone(), cause: cause.to_owned() };
        let name = inner.to_str().ok_or_else(|| unknown("its name is no UTF-8; a data folder has no such file"))?;
        if left_out(name) {
            continue;
        }
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        let kind = match fs::metadata(&path) {
            Ok(kind) => kind,
            // What is gone again was a draft.
            Err(source) if source.kind() == io::ErrorKind::NotFound && !is_link => continue,
            Err(source) => return Err(failed(&path, source)),
        };
        if kind.is_dir() && !is_link && depth < DEPTH_MAX {
            gather(root, &inner, depth + 1, apart, found)?;
        } else if kind.is_file() {
            if apart.contains(&place_of(&kind)) {
                continue;
            }
            let len = kind.len();
            if len > FILE_MAX {
                return Err(unknown(&format!("{len} bytes; a file of a data folder has at most {FILE_MAX}")));
            }
            match fs::read(&path) {
                Ok(contents) => found.push((name.to_owned(), contents)),
                Err(source) if source.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(failed(&path, source)),
            }
        } else if !kind.file_type().is_socket() {
            return Err(unknown("it is no file, and no folder of a data folder: nobody could put it back"));
        }
    }
    Ok(())
}

fn left_out(name: &str) -> bool {
    // And what `store verify --accept-loss` leaves of one for a while: `p0.anew`, `p0.lost`.
    let partition = |rest: &str| rest.starts_with(|first: char| first.is_ascii_digit());
    name == "lock"
        || name == "control.sock"
        || name == "devices"
        || name.ends_with(".new")
        // Which boot the store is open in is nothing that a copy of it goes on with.
        || name == "store/boot"
        || name.strip_prefix("store/p").is_some_and(partition)
}

/// Where a file of a backup goes in the folder it is put back into.
pub(super) fn place(root: &Path, name: &str) -> Option<PathBuf> {
    let inner = Path::new(name);
    let plain = inner.components().all(|part| matches!(part, Component::Normal(_)));
    (plain && !name.is_empty() && !left_out(name)).then(|| root.join(inner))
}

/// Writes a file below `root` that is not there, its owner's alone, and the folders it lies in, and makes all of
/// it durable.
pub(super) fn write(root: &Path, path: &Path, contents: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(contents)?;
    file.sync_all()?;
    path.ancestors().skip(1).take_while(|folder| folder.starts_with(root)).try_for_each(sync)
}

/// Makes durable which files a folder holds.
pub(super) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
