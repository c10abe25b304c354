//! The file of users: a line each, `NAME:HASH`, its owner's alone.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use unhidra_certs::FileError;
use zeroize::Zeroizing;

use super::file::{read_private, write_private};
use super::password::{Hashed, HashedError};

/// The longest name in bytes.
pub(super) const NAME_LEN_MAX: usize = 128;

/// Users by name, each with its hashed password.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Users(BTreeMap<String, Hashed>);

/// The right to change the file of users, until it is dropped.
#[derive(Debug)]
pub struct Edit {
    _folder: File,
}

/// A text that is no user's name.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("the name {found:?}; it has 1 to {NAME_LEN_MAX} bytes, no space, no control character and none of : / + #")]
pub struct NameError {
    /// What was found, cut.
    pub found: String,
}

/// Why users cannot be had.
#[derive(Debug, Error)]
pub enum UsersError {
    /// The file cannot be read or written, or others may read it.
    #[error(transparent)]
    File(#[from] FileError),
    /// There are users, and no file any more.
    #[error("{}: there is no such file any more; an empty one has no users", path.display())]
    Gone {
        /// Which file.
        path: PathBuf,
    },
    /// It was written while it was read.
    #[error("{}: it is another file than a moment ago", path.display())]
    Moves {
        /// Which file.
        path: PathBuf,
    },
    /// It is no text.
    #[error("{}: not UTF-8", path.display())]
    NoText {
        /// Which file.
        path: PathBuf,
    },
    /// A line without a colon.
    #[error("{}:{line}: a line has the form NAME:HASH; `unhidra user add NAME` writes one", path.display())]
    NoColon {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
    /// A name that is none.
    #[error("{}:{line}: {cause}", path.display())]
    Name {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        cause: NameError,
    },
    /// A hash that is none.
    #[error("{}:{line}: {cause}", path.display())]
    Hash {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        cause: HashedError,
    },
    /// Two lines of one name.
    #[error("{}:{line}: the user {name} stands here a second time", path.display())]
    Twice {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// Who.
        name: String,
    },
}

/// Holds a name to its rule: what could pass for topic syntax would be of no use in rules.
///
/// # Errors
///
/// [`NameError`].
pub fn check_name(name: &str) -> Result<(), NameError> {
    let forbidden = |c: char| c.is_control() || c.is_whitespace() || matches!(c, ':' | '/' | '+' | '#');
    if name.is_empty() || name.len() > NAME_LEN_MAX || name.contains(forbidden) {
        return Err(NameError { found: name.chars().take(NAME_LEN_MAX).collect() });
    }
    Ok(())
}

impl Users {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// [`UsersError`] names the line.
    pub fn read(path: &Path) -> Result<Self, UsersError> {
        let bytes = read_private(path)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| UsersError::NoText { path: path.into() })?;
        let mut users = BTreeMap::new();
        for (index, text) in text.lines().enumerate() {
            let (path, line) = (path.to_path_buf(), index + 1);
            if text.trim().is_empty() || text.starts_with('#') {
                continue;
            }
            let Some((name, hash)) = text.split_once(':') else { return Err(UsersError::NoColon { path, line }) };
            if let Err(cause) = check_name(name) {
                return Err(UsersError::Name { path, line, cause });
            }
            let hashed = match Hashed::parse(hash.trim_end()) {
                Ok(hashed) => hashed,
                Err(cause) => return Err(UsersError::Hash { path, line, cause }),
            };
            if users.insert(name.to_owned(), hashed).is_some() {
                return Err(UsersError::Twice { path, line, name: name.to_owned() });
            }
        }
        Ok(Self(users))
    }

    /// Reads the file, or nobody where there is none.
    ///
    /// # Errors
    ///
    /// As [`Users::read`].
    pub fn read_or_none(path: &Path) -> Result<Self, UsersError> {
        match Self::read_there(path) {
            Err(UsersError::Gone { .. }) => Ok(Self::default()),
            read => read,
        }
    }

    /// Reads the file, where there was one.
    ///
    /// # Errors
    ///
    /// As [`Users::read`]; [`UsersError::Gone`] where there is none.
    pub(super) fn read_there(path: &Path) -> Result<Self, UsersError> {
        match Self::read(path) {
            Err(UsersError::File(FileError::Read { source, .. })) if source.kind() == io::ErrorKind::NotFound => {
                Err(UsersError::Gone { path: path.into() })
            }
            read => read,
        }
    }

    /// Reads the file for a change, and keeps others from changing it until the `Edit` is gone: waits
    /// for whoever changes it now. Nobody where there is no file.
    ///
    /// # Errors
    ///
    /// As [`Users::read`], and where its folder cannot be locked.
    pub fn edit(path: &Path) -> Result<(Self, Edit), UsersError> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // The folder's lock: the file is another one after each change.
        let locked = File::open(folder).and_then(|folder| folder.lock().map(|()| folder));
        let locked = locked.map_err(|source| FileError::Read { path: folder.into(), source })?;
        Ok((Self::read_or_none(path)?, Edit { _folder: locked }))
    }

    /// Writes the file anew, whole or not at all.
    ///
    /// # Errors
    ///
    /// [`UsersError::File`].
    pub fn write(&self, path: &Path) -> Result<(), UsersError> {
        let mut text = Zeroizing::new(String::from("# Users of MQTT, written by `unhidra user`. NAME:HASH\n"));
        for (name, hashed) in &self.0 {
            let _ = writeln!(text, "{name}:{}", hashed.as_str());
        }
        Ok(write_private(path, text.as_bytes())?)
    }

    /// One user's password.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Hashed> {
        self.0.get(name)
    }

    /// Every user.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Hashed)> {
        self.0.iter().map(|(name, hashed)| (name.as_str(), hashed))
    }

    /// Adds a user, or gives it another password.
    pub fn set(&mut self, name: &str, hashed: Hashed) {
        self.0.insert(name.to_owned(), hashed);
    }

    /// Removes a user. Says whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn hashed(password: &str) -> Hashed {
        Hashed::of(password.as_bytes(), &[7; 16]).unwrap()
    }

    #[test]
    fn of_changes_at_once_none_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let (path, hash) = (folder.path().join("users"), hashed("a"));
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let (path, hash) = (&path, &hash);
                scope.spawn(move || {
                    for number in 0..5 {
                        let (mut users, _edit) = Users::edit(path).unwrap();
                        users.set(&format!("user-{writer}-{number}"), hash.clone());
                        users.write(path).unwrap();
                    }
                });
            }
        });
        assert_eq!(Users::read(&path).unwrap().iter().count(), 20);
    }

    #[test]
    fn users_come_back_from_their_file_which_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        assert_eq!(Users::read_or_none(&path).unwrap(), Users::default());
        let mut users = Users::default();
        users.set("ann", hashed("a"));
        users.set("bob", hashed("b"));
        users.write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Users::read(&path).unwrap(), users);
        assert!(users.remove("ann") && !users.remove("ann"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Users::read(&path), Err(UsersError::File(FileError::Exposed { .. }))));
    }

    #[test]
    fn a_bad_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let good = format!("ann:{}\n", hashed("a").as_str());
        for (text, expected) in [
            (format!("{good}bob\n"), ":2: a line has the form"),
            (format!("\n{good}b/b:x\n"), ":3: the name \"b/b\""),
            (format!("{good}bob:plain\n"), ":2: no argon2id hash"),
            (format!("{good}# x\n{good}"), ":3: the user ann stands here a second time"),
        ] {
            write_private(&path, text.as_bytes()).unwrap();
            let error = Users::read(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_name_cannot_pass_for_a_topic() {
        for good in ["ann", "ann@example.org", "ä", "a.b_c-d"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a/b", "+", "#", "a:b", "a b", "a\n", &"a".repeat(129)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
