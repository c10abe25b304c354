//! The data key's file: 32 bytes that only the node's user may read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::num::NonZeroU16;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::sealed::DataKey;

/// The id of the one data key there is.
const KEY_ID: NonZeroU16 = NonZeroU16::MIN;

/// Why there is no data key.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// The folder has records, and the key they are sealed under is not there.
    #[error(
        "the data key {path} is missing, and the records in {folder} are sealed under it; \
         put it back from your backup, or set store.key_file to where it is"
    )]
    Missing {
        /// Where it should be.
        path: PathBuf,
        /// The folder that needs it.
        folder: PathBuf,
    },
    /// It has another length.
    #[error("the data key {path} has {found} bytes; a data key has 32")]
    Length {
        /// Where it is.
        path: PathBuf,
        /// Its bytes.
        found: u64,
    },
    /// Others may read or change it.
    #[error("the data key {path} has mode {found:04o}, so others can read or change it; run: chmod 600 {path}")]
    Mode {
        /// Where it is.
        path: PathBuf,
        /// Its permission bits.
        found: u32,
    },
    /// It cannot be read or made.
    #[error("the data key {path}: {cause}")]
    Io {
        /// Where it is, or should be.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// The random generator failed.
    #[error("no random bytes for a data key")]
    Random,
}

/// Reads the data key at `path`, or makes it where neither it nor the folder it is for exists.
///
/// # Errors
///
/// [`KeyFileError`] says what is wrong with the file, and what to do. A missing key of a folder
/// that exists is an error: a new one could open nothing of it.
pub fn load_or_create(path: &Path, folder: &Path) -> Result<DataKey, KeyFileError> {
    match File::open(path) {
        Ok(file) => load(path, file),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            if crate::embedded::is_folder(folder) {
                return Err(KeyFileError::Missing { path: path.into(), folder: folder.into() });
            }
            create(path)
        }
        Err(cause) => Err(KeyFileError::Io { path: path.into(), cause }),
    }
}

fn load(path: &Path, mut file: File) -> Result<DataKey, KeyFileError> {
    let io = |cause| KeyFileError::Io { path: path.into(), cause };
    let metadata = file.metadata().map_err(io)?;
    let found = metadata.mode() & 0o7777;
    if found & 0o077 != 0 {
        return Err(KeyFileError::Mode { path: path.into(), found });
    }
    if metadata.len() != 32 {
        return Err(KeyFileError::Length { path: path.into(), found: metadata.len() });
    }
    let mut key = Zeroizing::new([0; 32]);
    file.read_exact(&mut *key).map_err(io)?;
    Ok(DataKey::new(KEY_ID, key))
}

fn create(path: &Path) -> Result<DataKey, KeyFileError> {
    let mut key = Zeroizing::new([0; 32]);
    rand::fill(&mut *key).map_err(|_| KeyFileError::Random)?;
    write(path, &key).map_err(|cause| KeyFileError::Io { path: path.into(), cause })?;
    Ok(DataKey::new(KEY_ID, key))
}

/// Writes the key whole or not at all: a crash leaves no short file under the name.
fn write(path: &Path, key: &[u8; 32]) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    match fs::remove_file(&draft) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(key)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    crate::embedded::sync_parent(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_and_for_its_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.key");
        let made = load_or_create(&path, &folder.path().join("store")).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.len(), metadata.mode() & 0o7777), (32, 0o600));
        let read = load_or_create(&path, &folder.path().join("store")).unwrap();
        assert_eq!(made.check(), read.check());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn two_keys_differ() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name| load_or_create(&folder.path().join(name), &folder.path().join("store")).unwrap();
        assert_ne!(make("a").check(), make("b").check());
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
    fn a_key_of_another_length_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.key");
        for len in [0, 31, 33] {
            fs::write(&path, vec![7; len]).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let refused = load_or_create(&path, &folder.path().join("store")).unwrap_err();
            assert!(matches!(refused, KeyFileError::Length { found, .. } if found == len as u64), "{refused}");
        }
    }

    #[test]
    fn a_place_that_cannot_be_written_names_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing").join("store.key");
        let refused = load_or_create(&path, &folder.path().join("store")).unwrap_err();
        assert!(refused.to_string().contains(&path.display().to_string()), "{refused}");
    }
}
