//! Puts a backup back into a new folder.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use unhidra_store::{Config, Restoring, mark_restored};

use super::frame::Frame;
use super::{BackupError, Verified, folder, verify};
use crate::folder::{Layout, make_durably};

/// The folder's own format file: without it nobody takes the folder for one.
const FORMAT: &str = "format";

/// Puts a backup back: all of it is checked first, then written, and the folder marked as put back
/// from a copy, so that the node that starts on it asks every device for a new session
/// (e2ee/PROTOCOL.md section 8). Blocks. A folder that was not put back to the end is none.
///
/// # Errors
///
/// [`BackupError`]; [`BackupError::NotEmpty`] where something lies in the folder.
pub fn restore(
    path: &Path,
    layout: &Layout,
    config: &Config,
    mut progress: impl FnMut(u64),
) -> Result<Verified, BackupError> {
    let root = layout.root();
    refuse_used(root)?;
    let checked = verify::verify(path, None, &mut progress)?;
    let failed = |path: &Path, source| BackupError::File { path: path.into(), source };
    let store = layout.store();
    make_durably(root).map_err(|source| failed(root, source))?;
    // It was empty, and is a node's from now on.
    fs::set_permissions(root, Permissions::from_mode(0o700)).map_err(|source| failed(root, source))?;
    make_durably(&store).map_err(|source| failed(&store, source))?;
    let mut restoring = Restoring::begin(&store, config, checked.head.partitions)?;
    let mut format = None;
    let again = verify::read(path, progress, |frame| {
        match frame {
            Frame::File { name, contents } if name == FORMAT => format = Some(contents),
            Frame::File { name, contents } => {
                let content = || BackupError::Content { path: path.into(), cause: format!("it has a file {name:?}") };
                let place = folder::place(root, &name).ok_or_else(content)?;
                folder::write(root, &place, &contents).map_err(|source| failed(&place, source))?;
            }
            Frame::Records(piece) => restoring.put(piece)?,
            Frame::Head(_) | Frame::End(_) => {}
        }
        Ok(())
    })?;
    restoring.finish()?;
    mark_restored(&store)?;
    let format = format.ok_or_else(|| BackupError::Content {
        path: path.into(),
        cause: "it has no format file: it is of no data folder".to_owned(),
    })?;
    for folder in [&store, root] {
        folder::sync(folder).map_err(|source| failed(folder, source))?;
    }
    // Last: from here on it is a data folder.
    let place = root.join(FORMAT);
    folder::write(root, &place, &format).map_err(|source| failed(&place, source))?;
    Ok(again)
}

fn refuse_used(root: &Path) -> Result<(), BackupError> {
    match fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(BackupError::File { path: root.into(), source }),
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(found) => {
                let found = found.map(|entry| entry.file_name().to_string_lossy().into_owned()).unwrap_or_default();
                Err(BackupError::NotEmpty { path: root.into(), found })
            }
        },
    }
}
