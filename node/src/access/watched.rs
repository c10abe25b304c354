//! The file of users while the node runs: which file was taken, and whether another stands there now.

use std::mem;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::users::{Users, UsersError};

/// What tells one file from another that took its place, and from itself after a change of any kind: a
/// `chmod` alone moves `changed_at`, and may be what makes it usable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Seen {
    device: u64,
    inode: u64,
    len: u64,
    written_at: (i64, i64),
    changed_at: (i64, i64),
}

impl Seen {
    /// The file as it is now; `None` where there is none, or nobody can tell.
    pub(super) fn now(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|file| Self {
            device: file.dev(),
            inode: file.ino(),
            len: file.len(),
            written_at: (file.mtime(), file.mtime_nsec()),
            changed_at: (file.ctime(), file.ctime_nsec()),
        })
    }
}

/// The file of users, and what is known of it.
#[derive(Debug)]
pub(super) struct Watched {
    path: PathBuf,
    /// The file whose users are in effect.
    taken: Option<Seen>,
    /// The file at the last look.
    last: Option<Seen>,
    /// Which file was refused last, and why: it is read again at each look, and spoken of once.
    said: Option<(Option<Seen>, String)>,
}

impl Watched {
    /// For users who were read from the file that was seen there.
    pub(super) fn new(path: &Path, taken: Option<Seen>) -> Self {
        Self { path: path.into(), taken, last: taken, said: None }
    }

    /// Whose file it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Looks at the file. Says whether it is to be read: it is not the one that was taken, and has been as
    /// it is since the last look. One that is being written is a part of itself, and who stands in the
    /// other part would be gone.
    pub(super) fn look(&mut self) -> bool {
        let now = Seen::now(&self.path);
        let rests = mem::replace(&mut self.last, now) == now;
        if now == self.taken {
            self.said = None;
        }
        rests && now != self.taken
    }

    /// Reads the file at a path, which is the one to follow from then on if it can be used. While there are
    /// users, a file that is gone cannot: it is on its way from one name to another, or its disk is.
    ///
    /// # Errors
    ///
    /// [`UsersError`]: then what was taken before is so still, and the next look says so again.
    pub(super) fn take(&mut self, path: &Path, has_users: bool) -> Result<Users, UsersError> {
        let before = Seen::now(path);
        let users = if has_users { Users::read_there(path)? } else { Users::read_or_none(path)? };
        if Seen::now(path) != before {
            return Err(UsersError::Moves { path: path.into() });
        }
        *self = Self::new(path, before);
        Ok(users)
    }

    /// Whether this has not been said of the file as it is.
    pub(super) fn is_news(&mut self, error: &UsersError) -> bool {
        let said = Some((self.last, error.to_string()));
        let is_news = self.said != said;
        self.said = said;
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Hashed, SALT_LEN};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    struct Scene {
        folder: tempfile::TempDir,
        path: PathBuf,
        watched: Watched,
    }

    impl Scene {
        /// A file of these users, taken.
        fn new(names: &[&str]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("users");
            users(names).write(&path).unwrap();
            let watched = Watched::new(&path, Seen::now(&path));
            Self { folder, path, watched }
        }

        /// What becomes of the file at one look, where there are users.
        fn look(&mut self) -> Option<Result<Users, UsersError>> {
            let path = self.path.clone();
            self.watched.look().then(|| self.watched.take(&path, true))
        }

        /// Users come of it at the second look, and are read no more.
        fn takes(&mut self, names: &[&str]) {
            assert!(self.look().is_none(), "it may be on its way still");
            assert_eq!(self.look().unwrap().unwrap(), users(names));
            assert!(self.look().is_none());
        }
    }

    fn users(names: &[&str]) -> Users {
        let mut users = Users::default();
        names.iter().for_each(|name| users.set(name, Hashed::of(b"a", &[7; SALT_LEN]).unwrap()));
        users
    }

    #[test]
    fn a_file_that_is_gone_takes_nobody_with_it_and_an_empty_one_everybody() {
        let mut scene = Scene::new(&["ann"]);
        assert!(scene.look().is_none());
        let away = scene.folder.path().join("users.bak");
        fs::rename(&scene.path, &away).unwrap();
        assert!(scene.look().is_none());
        for is_news in [true, false] {
            let error = scene.look().unwrap().unwrap_err();
            assert!(error.to_string().contains("an empty one has no users"), "{error}");
            assert_eq!(scene.watched.is_news(&error), is_news);
        }
        fs::rename(&away, &scene.path).unwrap();
        scene.takes(&["ann"]);
        fs::remove_file(&scene.path).unwrap();
        scene.look();
        let error = scene.look().unwrap().unwrap_err();
        assert!(scene.watched.is_news(&error), "it is gone a second time");
        assert_eq!(scene.watched.take(&scene.path, false).unwrap(), Users::default(), "who has no users needs no file");
        users(&[]).write(&scene.path).unwrap();
        scene.takes(&[]);
    }

    #[test]
    fn a_file_that_could_not_be_used_is_read_again_until_it_can() {
        let mut scene = Scene::new(&["ann", "bob"]);
        users(&["ann"]).write(&scene.path).unwrap();
        fs::set_permissions(&scene.path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(scene.look().is_none());
        for is_news in [true, false, false] {
            let error = scene.look().unwrap().unwrap_err();
            assert_eq!(scene.watched.is_news(&error), is_news, "{error}");
        }
        // Neither its length nor the time of its last write moves.
        fs::set_permissions(&scene.path, fs::Permissions::from_mode(0o600)).unwrap();
        scene.takes(&["ann"]);
    }

    #[test]
    fn of_a_file_that_is_being_written_nothing_is_taken() {
        let mut scene = Scene::new(&["ann", "bob"]);
        let whole = fs::read_to_string(&scene.path).unwrap();
        let lines: Vec<&str> = whole.lines().collect();
        // In place, line by line, with a look at each.
        for end in 0..lines.len() {
            fs::write(&scene.path, lines[..=end].join("\n")).unwrap();
            assert!(scene.look().is_none(), "{end}");
        }
        assert_eq!(scene.look().unwrap().unwrap(), users(&["ann", "bob"]));
    }

    #[test]
    fn another_file_is_followed_once_it_was_taken() {
        let mut scene = Scene::new(&["ann"]);
        let other = scene.folder.path().join("other");
        assert!(scene.watched.take(&other, true).is_err());
        assert_eq!(scene.watched.path(), scene.path);
        users(&["bob"]).write(&other).unwrap();
        assert_eq!(scene.watched.take(&other, true).unwrap(), users(&["bob"]));
        assert_eq!(scene.watched.path(), other);
    }
}
