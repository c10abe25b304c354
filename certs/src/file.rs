//! Files that hold certificates and keys: written whole or not at all, private ones for their
//! owner alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::FileError;

/// The most bytes such a file may have; a bundle of 32 certificates has less than half of it.
const LEN_MAX: u64 = 256 * 1024;

/// Writes a file that its owner alone may read (0600), in place of any that is there.
///
/// # Errors
///
/// [`FileError::Write`].
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write(path, bytes, 0o600).map_err(|source| FileError::Write { path: path.into(), source })
}

/// Writes a file that everybody may read (0644), in place of any that is there.
///
/// # Errors
///
/// [`FileError::Write`].
pub fn write_public(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write(path, bytes, 0o644).map_err(|source| FileError::Write { path: path.into(), source })
}

/// Reads a file that nobody but its owner may read.
///
/// # Errors
///
/// [`FileError::Exposed`] where group or others have any right to it, [`FileError::Read`] else.
pub fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let file = open(path)?;
    let mode = file.metadata().map_err(|source| FileError::Read { path: path.into(), source })?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(FileError::Exposed { path: path.into(), mode });
    }
    read(file, path)
}

/// Reads a file whoever may read it.
///
/// # Errors
///
/// [`FileError::Read`].
pub fn read_public(path: &Path) -> Result<Vec<u8>, FileError> {
    // Taken out of its wrapper: nothing here is secret.
    read(open(path)?, path).map(|mut bytes| std::mem::take(&mut *bytes))
}

fn open(path: &Path) -> Result<File, FileError> {
    File::open(path).map_err(|source| FileError::Read { path: path.into(), source })
}

fn read(file: File, path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let failed = |source| FileError::Read { path: path.into(), source };
    let len = file.metadata().map_err(failed)?.len();
    if len > LEN_MAX {
        return Err(FileError::TooLarge { path: path.into(), len, max: LEN_MAX });
    }
    // Room for all of it at once, so that growing leaves no copy of a key behind.
    let capacity = usize::try_from(len).unwrap_or(0).saturating_add(1);
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    file.take(LEN_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// A name beside the file, the bytes, a sync, the rename, and a sync of the folder: after a crash
/// either the old file is there or the new one.
fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let beside = beside(path)?;
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&beside, path));
    if let Err(error) = written {
        // The half-written file is no use to anybody; if it cannot go either, the cause is told.
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn beside(path: &Path) -> io::Result<PathBuf> {
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"));
    };
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".new");
    Ok(path.with_file_name(hidden))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_private_file_is_the_owners_alone_also_where_another_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.key");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        write_private(&path, b"secret").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(read_private(&path).unwrap().as_slice(), b"secret");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_file_others_may_read_is_refused_with_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.key");
        for mode in [0o644, 0o640, 0o604, 0o620] {
            fs::write(&path, "secret").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let refused = read_private(&path).unwrap_err();
            assert!(matches!(refused, FileError::Exposed { mode: found, .. } if found == mode));
            assert!(refused.to_string().contains(&format!("{mode:04o}")), "{refused}");
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_crash_before_the_rename_leaves_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.key");
        fs::write(folder.path().join(".a.key.new"), "half").unwrap();
        write_private(&path, b"whole").unwrap();
        assert_eq!(read_private(&path).unwrap().as_slice(), b"whole");
    }

    #[test]
    fn what_cannot_be_read_or_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("no-such-folder").join("a.pem");
        let text = write_public(&missing, b"x").unwrap_err().to_string();
        assert!(text.contains("no-such-folder"), "{text}");
        assert!(read_public(folder.path()).is_err(), "a folder is no file");
        let large = folder.path().join("large");
        fs::write(&large, vec![0; 300_000]).unwrap();
        assert!(matches!(read_public(&large), Err(FileError::TooLarge { len: 300_000, .. })));
    }
}
