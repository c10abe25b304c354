//! The master key's file: for the node's user alone.
//!
//! The node writes 32 bytes as they are; a file with 64 hexadecimal digits or base64 on one line is
//! read too. It lies beside the data folder and not in it, so that a copy of the folder is not a
//! copy of what is in it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use crate::master::{LocalMaster, MasterError};

/// The most bytes of a file that may hold a key.
const LEN_MAX: u64 = 128;

/// Why there is no master key.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// The folder has records, and the key that opens them is not there.
    #[error(
        "the master key {path} is missing, and the records in {folder} open with it alone; \
         put it back from your backup, or set store.master_key_file to where it is"
    )]
    Missing {
        /// Where it should be.
        path: PathBuf,
        /// The folder that needs it.
        folder: PathBuf,
    },
    /// It does not hold a key.
    #[error(
        "the master key {path} has {found} bytes that are no key; \
         a key is 32 bytes, or 64 hexadecimal digits or base64 of 32 bytes on one line"
    )]
    Malformed {
        /// Where it is.
        path: PathBuf,
        /// Its bytes.
        found: u64,
    },
    /// Others may read or change it.
    #[error("the master key {path} has mode {found:04o}, so others can read or change it; run: chmod 600 {path}")]
    Mode {
        /// Where it is.
        path: PathBuf,
        /// Its permission bits.
        found: u32,
    },
    /// It cannot be read or made.
    #[error("the master key {path}: {cause}")]
    Io {
        /// Where it is, or should be.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// None can be made.
    #[error("the master key: {0}")]
    Master(#[from] MasterError),
}

/// Reads the master key at `path`, or makes it where neither it nor the folder it is for exists.
///
/// # Errors
///
/// [`KeyFileError`] says what is wrong with the file, and what to do. A missing key of a folder
/// that exists is an error: a new one could open nothing of it.
pub fn load_or_create(path: &Path, folder: &Path) -> Result<LocalMaster, KeyFileError> {
    match load(path) {
        Err(KeyFileError::Io { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
            if crate::embedded::is_folder(folder) {
                return Err(KeyFileError::Missing { path: path.into(), folder: folder.into() });
            }
            let key = LocalMaster::draw()?;
            save(path, &key)?;
            Ok(key)
        }
        loaded => loaded,
    }
}

/// Reads the master key at `path`.
///
/// # Errors
///
/// [`KeyFileError`] says what is wrong with the file, and what to do.
pub fn load(path: &Path) -> Result<LocalMaster, KeyFileError> {
    let io = |cause| KeyFileError::Io { path: path.into(), cause };
    let file = File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Mode { path: path.into(), found: mode });
    }
    // Room for the longest at once, so that growing leaves no copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(256));
    let found = metadata.len();
    if found <= LEN_MAX {
        file.take(LEN_MAX).read_to_end(&mut bytes).map_err(io)?;
    }
    LocalMaster::parse(&bytes).ok_or_else(|| KeyFileError::Malformed { path: path.into(), found })
}

/// Writes the master key whole or not at all, in the place of whatever is there: a crash leaves no
/// short file under the name.
///
/// # Errors
///
/// [`KeyFileError::Io`].
pub fn save(path: &Path, key: &LocalMaster) -> Result<(), KeyFileError> {
    let io = |cause| KeyFileError::Io { path: path.into(), cause };
    crate::keyring::replace(path, key.as_bytes()).map_err(io)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::master::MasterKey;

    #[test]
    fn a_key_is_made_once_and_for_its_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.key");
        let made = load_or_create(&path, &folder.path().join("store")).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.len(), metadata.mode() & 0o7777), (32, 0o600));
        let read = load_or_create(&path, &folder.path().join("store")).unwrap();
        assert_eq!(made.id(), read.id());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn two_keys_differ() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name| load_or_create(&folder.path().join(name), &folder.path().join("store")).unwrap();
        assert_ne!(make("a").id(), make("b").id());
    }

    #[test]
    fn a_saved_key_takes_the_place_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.key");
        let first = load_or_create(&path, &folder.path().join("store")).unwrap();
        let second = LocalMaster::draw().unwrap();
        save(&path, &second).unwrap();
        let read = load(&path).unwrap();
        assert!(read.id() == second.id() && read.id() != first.id());
    }

    #[test]
    fn a_key_others_may_read_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.key");
        fs::write(&path, [7; 32]).unwrap();
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let refused = load_or_create(&path, &folder.path().join("store")).unwrap_err().to_string();
            assert!(refused.contains(&format!("{mode:04o}")) && refused.contains("chmod 600"), "{refused}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(load_or_create(&path, &folder.path().join("store")).is_ok());
    }

    #[test]
    fn what_is_no_key_is_refused_and_never_shown_or_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.key");
        for text in ["", "hunter2", &"a".repeat(31), &"a".repeat(33), &"g".repeat(64), &"a".repeat(4096)] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let refused = load_or_create(&path, &folder.path().join("store")).unwrap_err();
            let found = text.len() as u64;
            assert!(matches!(refused, KeyFileError::Malformed { found: f, .. } if f == found), "{refused}");
            assert!(!refused.to_string().contains("hunter2"), "{refused}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        fs::write(&path, format!("{}\n", "07".repeat(32))).unwrap();
        assert_eq!(load(&path).unwrap().as_bytes(), &[7; 32]);
    }

    #[test]
    fn a_missing_key_of_a_folder_that_exists_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("store")).unwrap();
        fs::write(folder.path().join("store").join("format"), "").unwrap();
        let path = folder.path().join("store.key");
        let refused = load_or_create(&path, &folder.path().join("store")).unwrap_err();
        assert!(matches!(refused, KeyFileError::Missing { .. }) && !path.exists());
    }

    #[test]
    fn a_place_that_cannot_be_written_names_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing").join("store.key");
        let refused = load_or_create(&path, &folder.path().join("store")).unwrap_err();
        assert!(refused.to_string().contains(&path.display().to_string()), "{refused}");
    }
}
