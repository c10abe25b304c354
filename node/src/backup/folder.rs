//! Which files of a data folder are in its backup, and how they are put back.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use super::BackupError;
use crate::folder::Layout;

/// The most bytes a file of the folder may have, beside the store's own.
const FILE_MAX: u64 = 16 * 1024 * 1024;

/// How deep folders lie in it: `pki/` and `store/`.
const DEPTH_MAX: usize = 3;

/// Every file of a folder that a backup takes as it lies, by its name from the folder on, with `/`
/// between: all but the lock, sockets, drafts, what the demo's devices keep, the store's note of its
/// boot, and its partitions, whose records are copied one by one.
pub(super) fn files(layout: &Layout) -> Result<Vec<(String, Vec<u8>)>, BackupError> {
    let mut found = Vec::new();
    gather(layout.root(), Path::new(""), 0, &mut found)?;
    found.sort();
    Ok(found)
}

fn gather(root: &Path, below: &Path, depth: usize, found: &mut Vec<(String, Vec<u8>)>) -> Result<(), BackupError> {
    let here = root.join(below);
    let failed = |path: &Path, source| BackupError::File { path: path.into(), source };
    for entry in fs::read_dir(&here).map_err(|source| failed(&here, source))? {
        let entry = entry.map_err(|source| failed(&here, source))?;
        let (path, inner) = (entry.path(), below.join(entry.file_name()));
        // What is gone again was a draft.
        let Ok(kind) = entry.file_type() else { continue };
        let Some(name) = inner.to_str() else { continue };
        if left_out(name) {
            continue;
        }
        if kind.is_dir() && depth < DEPTH_MAX {
            gather(root, &inner, depth + 1, found)?;
        } else if kind.is_file() {
            let len = entry.metadata().map_err(|source| failed(&path, source))?.len();
            if len > FILE_MAX {
                let cause = format!("{len} bytes; a file of a data folder has at most {FILE_MAX}");
                return Err(BackupError::Content { path, cause });
            }
            match fs::read(&path) {
                Ok(contents) => found.push((name.to_owned(), contents)),
                Err(source) if source.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(failed(&path, source)),
            }
        }
    }
    Ok(())
}

fn left_out(name: &str) -> bool {
    let partition = |rest: &str| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit());
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

/// Writes a file that is not there, its owner's alone, and the folders it lies in.
pub(super) fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

/// Makes durable which files a folder holds.
pub(super) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
