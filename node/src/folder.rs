//! The data folder: one node's, locked, and of one format.
//!
//! ```text
//! DATA/                0700
//!   format             what this folder is: version and kind
//!   lock               held by whoever uses the folder: its pid and role
//!   control.sock       how the command line reaches a running node
//!   identity.key       the node's identity key (IK), a seed
//!   cursor.key         what authenticates clients' cursors
//!   pki/               ca.pem and ca.key of a development authority
//!   store/             the store
//!   devices/ID.device/ what the demo's devices keep
//! DATA.key             what encrypts the store: beside the folder, so that a copy of the folder
//!                      is not a copy of the readings
//! ```

mod format;
mod lock;

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{self, Path, PathBuf};

use thiserror::Error;
use unhidra_certs::FileError;
use unhidra_core::ids::DeviceId;

pub use format::Kind;
pub use lock::{Holder, Role};

use format::Format;
use lock::Lock;

/// Where everything of a data folder lies. Knows paths alone: the folder need not be there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Layout {
    root: PathBuf,
    name: std::ffi::OsString,
}

impl Layout {
    /// The layout of a folder.
    ///
    /// # Errors
    ///
    /// [`FolderError::Unnamed`] where the path has no name of its own, so that no key could lie
    /// beside it.
    pub fn at(root: &Path) -> Result<Self, FolderError> {
        let unnamed = || FolderError::Unnamed { path: root.into() };
        // A folder that is there is known by one path whatever it was called by.
        let root = fs::canonicalize(root).or_else(|_| path::absolute(root)).map_err(|_| unnamed())?;
        let name = root.file_name().ok_or_else(unnamed)?.to_owned();
        Ok(Self { root, name })
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// How the command line reaches a running node.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.root.join("control.sock")
    }

    /// The seed of the node's identity key.
    #[must_use]
    pub fn identity_key(&self) -> PathBuf {
        self.root.join("identity.key")
    }

    /// What authenticates clients' cursors.
    #[must_use]
    pub fn cursor_key(&self) -> PathBuf {
        self.root.join("cursor.key")
    }

    /// The development authority's folder.
    #[must_use]
    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// The store's folder.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// What encrypts the store, unless the configuration names another file.
    #[must_use]
    pub fn store_key(&self) -> PathBuf {
        let mut name = self.name.clone();
        name.push(".key");
        self.root.with_file_name(name)
    }

    /// The users of MQTT, unless the configuration names another file.
    #[must_use]
    pub fn users(&self) -> PathBuf {
        let mut name = self.name.clone();
        name.push(".users");
        self.root.with_file_name(name)
    }

    /// What one of the demo's devices keeps.
    #[must_use]
    pub fn device(&self, device: &DeviceId) -> PathBuf {
        // An id may be "..", and a folder's name may not.
        self.root.join("devices").join(format!("{device}.device"))
    }

    fn format(&self) -> PathBuf {
        self.root.join(FORMAT)
    }

    fn lock(&self) -> PathBuf {
        self.root.join(LOCK)
    }
}

/// A data folder in the hands of this process. Dropped, the lock is free.
#[derive(Debug)]
pub struct Folder {
    layout: Layout,
    kind: Kind,
    _lock: Lock,
}

impl Folder {
    /// Takes the folder at `root` for a node or a demo, and makes it where there is none.
    ///
    /// # Errors
    ///
    /// [`FolderError`] says what stands in the way, and what to do.
    pub fn open(root: &Path, kind: Kind, role: Role) -> Result<Self, FolderError> {
        Self::take(root, kind, role, |found| found == kind)
    }

    /// Takes the folder at `root`, whichever kind it is, and makes an encrypted one where there is
    /// none.
    ///
    /// # Errors
    ///
    /// [`FolderError`].
    pub fn open_any(root: &Path, role: Role) -> Result<Self, FolderError> {
        Self::take(root, Kind::Sealed, role, |_| true)
    }

    /// Takes the folder at `root`, whichever kind it is, and makes none.
    ///
    /// # Errors
    ///
    /// [`FolderError::Missing`] where there is none; [`FolderError`] else.
    pub fn open_existing(root: &Path, role: Role) -> Result<Self, FolderError> {
        let layout = Layout::at(root)?;
        match layout.format().try_exists() {
            Ok(true) => Self::open_any(root, role),
            Ok(false) => Err(FolderError::Missing { path: layout.root }),
            Err(source) => Err(FolderError::Unusable { path: layout.root, source }),
        }
    }

    /// Where things lie in it.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Whether what it stores is encrypted.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    fn take(root: &Path, new: Kind, role: Role, accept: impl Fn(Kind) -> bool) -> Result<Self, FolderError> {
        make(root)?;
        let layout = Layout::at(root)?;
        refuse_foreign(&layout)?;
        let lock = Lock::take(&layout, role)?;
        let format = match Format::read(&layout.format())? {
            Some(format) => format,
            None => Format::write(&layout.format(), new)?,
        };
        if !accept(format.kind) {
            return Err(FolderError::OtherKind { path: layout.root, found: format.kind });
        }
        make_inside(&layout.pki())?;
        Ok(Self { layout, kind: format.kind, _lock: lock })
    }
}

/// Why a data folder cannot be used.
#[derive(Debug, Error)]
pub enum FolderError {
    /// Its path has no last part.
    #[error("{} cannot be a data folder: it has no name of its own; give one such as data/node", path.display())]
    Unnamed {
        /// The path.
        path: PathBuf,
    },
    /// There is none.
    #[error("there is no data folder at {}; `unhidra run` and `unhidra demo` make one, --data DIR names another", path.display())]
    Missing {
        /// Where.
        path: PathBuf,
    },
    /// It cannot be made.
    #[error("cannot make the data folder {}: {source}", path.display())]
    Make {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something else is there.
    #[error("{} is a file and no data folder; --data DIR names another", path.display())]
    NoFolder {
        /// Where.
        path: PathBuf,
    },
    /// It cannot be read or written.
    #[error("the data folder {} cannot be used: {source}; it must be readable and writable for this user", path.display())]
    Unusable {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It holds other things.
    #[error("{} holds {found:?} and no format file: it is no data folder; give an empty one", path.display())]
    Foreign {
        /// Where.
        path: PathBuf,
        /// One name in it.
        found: String,
    },
    /// It is of another version.
    #[error(
        "the data folder {} is of format version {found}, and this program knows version {known}; \
         use the program that made it, or another folder",
        path.display()
    )]
    Version {
        /// Its format file.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The version known.
        known: u32,
    },
    /// Its format file is damaged.
    #[error("{}: line {line} of a format file is {expected}, and found is {found:?}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Which line.
        line: usize,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// It is of the other kind.
    #[error("{}", other_kind(path, *found))]
    OtherKind {
        /// Where.
        path: PathBuf,
        /// The kind found.
        found: Kind,
    },
    /// Another process uses it.
    #[error("{}", held(path, holder.as_ref()))]
    Held {
        /// Where.
        path: PathBuf,
        /// Which process, if its lock file says so.
        holder: Option<Holder>,
    },
    /// A file in it.
    #[error(transparent)]
    File(#[from] FileError),
}

fn other_kind(path: &Path, found: Kind) -> String {
    let path = path.display();
    match found {
        Kind::Plain => format!(
            "{path} is a demo's data folder: its format file says plain, so what it stores is not encrypted; \
             start it with `unhidra demo --data {path}`, or give `unhidra run` another folder with --data DIR"
        ),
        Kind::Sealed => format!(
            "{path} is a node's data folder: its format file says sealed; \
             start it with `unhidra run --data {path}`, or give `unhidra demo` another folder with --data DIR"
        ),
    }
}

fn held(path: &Path, holder: Option<&Holder>) -> String {
    let path = path.display();
    match holder {
        Some(Holder { pid, role }) => format!("{role} with pid {pid} uses the data folder {path}"),
        None => format!("another process uses the data folder {path}"),
    }
}

const FORMAT: &str = "format";
const LOCK: &str = "lock";

/// Makes the folder and what is above it. A folder that is empty becomes ours: 0700.
fn make(root: &Path) -> Result<(), FolderError> {
    let failed = |source| FolderError::Make { path: root.into(), source };
    match fs::metadata(root) {
        Ok(found) if !found.is_dir() => return Err(FolderError::NoFolder { path: root.into() }),
        Ok(_) => {
            let unusable = |source| FolderError::Unusable { path: root.into(), source };
            if fs::read_dir(root).map_err(unusable)?.next().is_none() {
                fs::set_permissions(root, Permissions::from_mode(0o700)).map_err(unusable)?;
            }
            return Ok(());
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // A file where a folder above should be.
        Err(error) => return Err(failed(error)),
    }
    make_durably(root).map_err(failed)
}

/// Makes a folder, its owner's alone, and those above it that are missing: durably, for what is in a folder is lost
/// with its name.
pub(crate) fn make_durably(path: &Path) -> io::Result<()> {
    let above = match path.parent() {
        Some(above) if above.as_os_str().is_empty() => Path::new("."),
        Some(above) => above,
        None => return Ok(()),
    };
    let create = || DirBuilder::new().mode(0o700).create(path);
    let made = match create() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_durably(above).and_then(|()| create()),
        made => made,
    };
    match made {
        Ok(()) => File::open(above)?.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

fn make_inside(path: &Path) -> Result<(), FolderError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(FolderError::Make { path: path.into(), source: error })
        }
        _ => Ok(()),
    }
}

/// Refuses a folder with something in it and no format file: somebody's home, say. Only what a
/// crash in the middle of making a data folder leaves is ours.
fn refuse_foreign(layout: &Layout) -> Result<(), FolderError> {
    let unusable = |source| FolderError::Unusable { path: layout.root.clone(), source };
    if layout.format().try_exists().map_err(unusable)? {
        return Ok(());
    }
    for entry in fs::read_dir(&layout.root).map_err(unusable)? {
        let found = entry.map_err(unusable)?.file_name();
        if found != LOCK && found != format::UNFINISHED {
            return Err(FolderError::Foreign {
                path: layout.root.clone(),
                found: found.to_string_lossy().into_owned(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Child, Command, Stdio};

    fn open(root: &Path) -> Result<Folder, FolderError> {
        Folder::open(root, Kind::Sealed, Role::Node)
    }

    fn refusal(root: &Path) -> String {
        open(root).expect_err("refused").to_string()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_folder_is_made_for_its_owner_alone_and_opened_again() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("a").join("node");
        drop(open(&root).unwrap());
        assert_eq!((mode(&root), mode(&root.join("pki")), mode(&root.join("lock"))), (0o700, 0o700, 0o600));
        let folder = open(&root).unwrap();
        assert_eq!(folder.kind(), Kind::Sealed);
        let root = fs::canonicalize(&root).unwrap();
        assert_eq!(folder.layout().store(), root.join("store"));
        assert_eq!(folder.layout().store_key(), root.with_file_name("node.key"));
    }

    #[test]
    fn one_folder_has_one_layout_whatever_it_is_called() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("node");
        fs::create_dir(&root).unwrap();
        let plain = Layout::at(&root).unwrap();
        for other in ["node/", "node/.", "node/../node", "./node"] {
            assert_eq!(Layout::at(&outer.path().join(other)).unwrap(), plain, "{other}");
        }
        assert!(matches!(Layout::at(Path::new("/")), Err(FolderError::Unnamed { .. })));
    }

    #[test]
    fn an_empty_folder_is_taken_and_closed_to_others() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("node");
        fs::create_dir(&root).unwrap();
        fs::set_permissions(&root, Permissions::from_mode(0o755)).unwrap();
        drop(open(&root).unwrap());
        assert_eq!(mode(&root), 0o700);
    }

    #[test]
    fn a_demos_folder_is_refused_by_run_and_a_nodes_by_demo() {
        let outer = tempfile::tempdir().unwrap();
        let (plain, sealed) = (outer.path().join("demo"), outer.path().join("node"));
        drop(Folder::open(&plain, Kind::Plain, Role::Demo).unwrap());
        drop(open(&sealed).unwrap());
        let text = refusal(&plain);
        assert!(text.contains("says plain") && text.contains("unhidra demo --data"), "{text}");
        let text = Folder::open(&sealed, Kind::Plain, Role::Demo).unwrap_err().to_string();
        assert!(text.contains("says sealed") && text.contains("unhidra run --data"), "{text}");
        let any = |root| Folder::open_any(root, Role::Command).unwrap().kind();
        assert_eq!((any(&plain), any(&sealed)), (Kind::Plain, Kind::Sealed));
    }

    #[test]
    fn another_version_is_refused_by_number() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("node");
        drop(open(&root).unwrap());
        let path = root.join("format");
        let text = fs::read_to_string(&path).unwrap().replace("version 1", "version 2");
        fs::write(&path, text).unwrap();
        let text = refusal(&root);
        assert!(text.contains("format version 2") && text.contains("knows version 1"), "{text}");
    }

    #[test]
    fn a_damaged_format_file_is_refused_by_line_and_not_replaced() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("node");
        drop(open(&root).unwrap());
        let whole = fs::read_to_string(root.join("format")).unwrap();
        let damaged = [
            (String::new(), "line 1"),
            (whole[..10].to_owned(), "line 1"),
            (whole.replace("version 1", "version one"), "line 2"),
            (whole.replace("version 1", "version 99999999999"), "line 2"),
            (whole.replace("kind sealed", "kind maybe"), "line 3"),
            (whole.lines().take(2).collect::<Vec<_>>().join("\n"), "line 3"),
        ];
        for (text, line) in damaged {
            fs::write(root.join("format"), &text).unwrap();
            let refused = refusal(&root);
            assert!(refused.contains(line), "{refused}");
            assert_eq!(fs::read_to_string(root.join("format")).unwrap(), text);
        }
    }

    #[test]
    fn somebody_elses_folder_is_left_alone() {
        let outer = tempfile::tempdir().unwrap();
        fs::write(outer.path().join("letters.txt"), "dear").unwrap();
        let text = refusal(outer.path());
        assert!(text.contains("letters.txt") && text.contains("no data folder"), "{text}");
        assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_crash_while_making_a_folder_leaves_is_no_obstacle() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("node");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("lock"), "999999999 node\n").unwrap();
        fs::write(root.join(format::UNFINISHED), "unhi").unwrap();
        assert!(open(&root).is_ok());
    }

    #[test]
    fn a_folder_that_cannot_be_is_refused_by_its_path() {
        let outer = tempfile::tempdir().unwrap();
        let file = outer.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(refusal(&file).contains("is a file and no data folder"));
        let text = refusal(&file.join("node"));
        assert!(text.contains("cannot make the data folder"), "{text}");
        // Nobody makes a folder there, root neither.
        let text = refusal(Path::new("/proc/unhidra"));
        assert!(text.contains("cannot make the data folder /proc/unhidra"), "{text}");
        // It is there, is empty of ours, and takes nothing.
        let text = refusal(Path::new("/proc/self/net"));
        assert!(text.contains("/proc/"), "{text}");
    }

    #[test]
    fn a_folder_is_opened_where_it_is_and_not_made_by_a_question() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("node");
        let refused = Folder::open_existing(&root, Role::Command).unwrap_err();
        assert!(matches!(refused, FolderError::Missing { .. }) && !root.exists());
        drop(open(&root).unwrap());
        assert!(Folder::open_existing(&root, Role::Command).is_ok());
    }

    #[test]
    fn a_lock_is_held_once_in_a_process_too() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("node");
        let folder = open(&root).unwrap();
        let pid = std::process::id();
        assert!(refusal(&root).contains(&format!("a node with pid {pid} uses the data folder")));
        drop(folder);
        assert!(open(&root).is_ok());
    }

    /// Another process, in another language, that takes the lock as any node would.
    fn stranger(root: &Path) -> (Child, u32) {
        let program = "import fcntl, os, sys\n\
            lock = open(sys.argv[1], 'r+')\n\
            fcntl.flock(lock, fcntl.LOCK_EX)\n\
            lock.truncate(0); lock.write(f'{os.getpid()} demo\\n'); lock.flush()\n\
            print(os.getpid(), flush=True)\n\
            sys.stdin.read()\n";
        let mut child = Command::new("python3")
            .args(["-c", program])
            .arg(root.join("lock"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (child, line.trim().parse().unwrap())
    }

    #[test]
    fn a_running_process_is_named_and_a_dead_ones_lock_is_taken_over() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("node");
        drop(open(&root).unwrap());
        let (mut child, pid) = stranger(&root);
        let refused = open(&root).unwrap_err();
        assert!(refused.to_string().contains(&format!("a demo with pid {pid} uses the data folder")), "{refused}");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(fs::read_to_string(root.join("lock")).unwrap().contains(&pid.to_string()), "what it wrote is stale");
        assert!(open(&root).is_ok());
    }

    #[test]
    fn a_lock_that_says_nothing_yet_is_held_all_the_same() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("node");
        drop(open(&root).unwrap());
        let (mut child, _) = stranger(&root);
        fs::File::create(root.join("lock")).unwrap().write_all(b"gibber").unwrap();
        assert!(refusal(&root).contains("another process uses the data folder"));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_devices_folder_stays_inside_whatever_the_device_is_called() {
        let layout = Layout::at(Path::new("/data/demo")).unwrap();
        let of = |id: &str| layout.device(&DeviceId::parse(id).unwrap());
        assert_eq!(of("pump-7"), Path::new("/data/demo/devices/pump-7.device"));
        assert!(of("..").components().all(|part| part != path::Component::ParentDir));
    }
}
