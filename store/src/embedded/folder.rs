//! The store's folder: its format file, how it is made, and how its journals are written anew.
//!
//! ```text
//! store/format     text, one "key = value" a line:
//!                    unhidra store = 2        the format's version
//!                    sealing = plain          or: sealed
//!                    key ring = hex           sealed only: the id of the ring in store/keys; in
//!                                             version 1, which had one key, instead of it
//!                    data key = 1             \ the key's id,
//!                    data key check = hex     / and what tells a wrong one
//!                    partitions = 1
//!                    epoch = hex
//!                    restored = yes           put back from a copy, and not acted on yet; or
//!                    cause = power cut        with this line: a power cut may have taken its end
//!                    check = hex              SHA-256 of the lines above, its first 8 bytes; not in version 1
//! store/keys       the key ring (ring.rs), where it is sealed
//! store/boot       while it is open without a sync for each commit: in which boot (boot.rs)
//! store/p0 ...     one database for each partition
//! ```
//!
//! A folder is made under another name and renamed when it is whole, so a crash leaves no half.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::num::NonZeroU16;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use thiserror::Error;
use unhidra_core::ids::{Epoch, Partition};
use unhidra_core::time::UnixTime;

use crate::Restored;
use crate::config::{Config, ConfigError};
use crate::keyring::{Keyring, KeyringError};
use crate::master::MasterKey;
use crate::partition::partitions_for;
use crate::ring::RingId;
use crate::sealed::{DataKey, Keys};

use super::database::Database;
use super::levels;

/// The version of the folder's format.
pub(super) const VERSION: u32 = 2;

/// The version before it: its format file has no check, its records no tag, and those of sessions
/// do not say what their newest row is. It is read, and made a folder of this version.
const VERSION_1: u32 = 1;

/// The format file's name.
const FORMAT: &str = "format";

/// Left in a partition's folder while its journals may not be on the disk as they are in memory.
const UNSYNCED: &str = "unsynced";

/// Why a folder does not open.
#[derive(Debug, Error)]
pub enum OpenError {
    /// It is of another version.
    #[error(
        "the store {path} is of format version {found}; this program reads versions 1 to {allowed}: \
         start it with the program that wrote it, or a newer one"
    )]
    Version {
        /// Which folder.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest that is read.
        allowed: u32,
    },
    /// It holds other files, and no format file.
    #[error("{path} holds files and no store; choose an empty or a new folder")]
    NoStore {
        /// Which folder.
        path: PathBuf,
    },
    /// Its format file does not say what one says.
    #[error("the format file of the store {path}: {cause}")]
    Format {
        /// Which folder.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// Its records are plain, and were to be sealed.
    #[error("the store {path} is plain, as the demo makes it, and a node's is sealed; choose another data folder")]
    Plain {
        /// Which folder.
        path: PathBuf,
    },
    /// Its records are sealed, and were to be plain.
    #[error("the store {path} is sealed, as a node makes it, and the demo's is plain; choose another data folder")]
    Sealed {
        /// Which folder.
        path: PathBuf,
    },
    /// Its records are sealed under another key.
    #[error(
        "the store {path} is sealed under another key than the one given; store.master_key_file, \
         .master_key_command or .master_key_env says where the master key is"
    )]
    OtherKey {
        /// Which folder.
        path: PathBuf,
    },
    /// Its key ring.
    #[error(transparent)]
    Keys(#[from] KeyringError),
    /// It was made with another number of partitions.
    #[error("the store {path} was made with {found} partitions and keeps them; store.partitions is {configured}")]
    Partitions {
        /// Which folder.
        path: PathBuf,
        /// As many as it has.
        found: u16,
        /// As many as were asked for.
        configured: u16,
    },
    /// Another process has it open.
    #[error("the store {path} is open in another process")]
    InUse {
        /// Which folder.
        path: PathBuf,
    },
    /// A file is not as it was written.
    #[error(
        "{file} is damaged at byte {offset}: {found}; nothing was changed: `unhidra store verify` lists all that is \
         damaged, and `unhidra store verify --accept-loss` goes on without it"
    )]
    Damaged {
        /// Which file.
        file: PathBuf,
        /// Where, in bytes from its beginning.
        offset: u64,
        /// What is there.
        found: String,
    },
    /// A setting is out of its bounds.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file cannot be read or written.
    #[error("{path}: {cause}")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// The engine refuses.
    #[error("the store {path} does not open: {cause}")]
    Engine {
        /// Which folder.
        path: PathBuf,
        /// What the engine says.
        cause: String,
    },
}

/// What the format file says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Format {
    pub(super) version: u32,
    pub(super) partitions: u16,
    pub(super) epoch: Epoch,
    /// It is at an earlier moment than it was, and nobody has acted on it.
    pub(super) restored: Option<Restored>,
    sealing: FormatSealing,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum FormatSealing {
    Plain,
    /// Under the keys of this ring.
    Sealed(RingId),
    /// Under one key, which was the master key itself.
    OneKey {
        id: NonZeroU16,
        check: String,
    },
}

/// Whether a store is there, of whatever version.
pub(crate) fn is_folder(path: &Path) -> bool {
    path.join(FORMAT).exists()
}

/// Makes the folder where it is missing, and says what it is and what seals it.
pub(super) fn prepare(path: &Path, config: &Config, keys: Keys) -> Result<(Format, Option<Arc<Keyring>>), OpenError> {
    config.check()?;
    let io = |cause| OpenError::Io { path: path.into(), cause };
    let Some(format) = read_format(path)? else {
        if path.exists() && fs::read_dir(path).map_err(io)?.next().is_some() {
            return Err(OpenError::NoStore { path: path.into() });
        }
        return make(path, config, keys);
    };
    if config.partitions != 0 && config.partitions != format.partitions {
        let (found, configured) = (format.partitions, config.partitions);
        return Err(OpenError::Partitions { path: path.into(), found, configured });
    }
    let ring = match (&format.sealing, keys) {
        (FormatSealing::Plain, Keys::Plain) => None,
        (FormatSealing::Plain, Keys::Sealed { .. }) => return Err(OpenError::Plain { path: path.into() }),
        (_, Keys::Plain) => return Err(OpenError::Sealed { path: path.into() }),
        (FormatSealing::Sealed(id), Keys::Sealed { master, .. }) => {
            let ring = Keyring::open(path, *id, master)?;
            if ring.is_opened_by_the_new()? {
                ring.settle_rewrap()?;
            }
            Some(ring)
        }
        (FormatSealing::OneKey { id, check }, Keys::Sealed { master, now }) => {
            let ring = adopt(path, (*id, check), master, now)?;
            let format = Format { sealing: FormatSealing::Sealed(ring.id()), ..format };
            replace_format(path, &format)?;
            return Ok((format, Some(Arc::new(ring))));
        }
    };
    Ok((format, ring.map(Arc::new)))
}

/// Makes a ring around the one key that sealed a folder of version 1, before anything is sealed
/// under its other keys.
fn adopt(
    path: &Path,
    (id, check): (NonZeroU16, &str),
    master: Arc<dyn MasterKey>,
    now: UnixTime,
) -> Result<Keyring, OpenError> {
    let first = master.first_data_key().map(|key| DataKey::new(id, key));
    let first = first.filter(|first| hex(&first.check()) == check);
    let first = first.ok_or_else(|| OpenError::OtherKey { path: path.into() })?;
    let ring = Keyring::adopt(path, master, first, now)?;
    tracing::info!(folder = %path.display(), "the store's one key is in a key ring now, and new keys seal");
    Ok(ring)
}

/// Marks a store that no process has open as put back from a copy: its log begins another life, so
/// that cursors of before are refused, and whoever opens it next is told
/// ([`Store::restored`](crate::Store::restored)). Gives the new life.
///
/// Done twice, it begins yet another life, and nothing else.
///
/// # Errors
///
/// [`OpenError`] where there is no store, or its format file cannot be read or written.
pub fn mark_restored(path: &Path) -> Result<Epoch, OpenError> {
    let format = read_format(path)?.ok_or_else(|| OpenError::NoStore { path: path.into() })?;
    let epoch = new_epoch(path)?;
    replace_format(path, &Format { epoch, restored: Some(Restored::Copy), ..format })?;
    Ok(epoch)
}

/// Marks a store that is about to be opened as one whose end a power cut may have taken. What was to
/// be done about it before stays to be done. Gives what the format file says now.
pub(super) fn mark_power_cut(path: &Path) -> Result<Format, OpenError> {
    let format = read_format(path)?.ok_or_else(|| OpenError::NoStore { path: path.into() })?;
    let restored = format.restored.or(Some(Restored::PowerCut));
    let format = Format { epoch: new_epoch(path)?, restored, ..format };
    replace_format(path, &format)?;
    Ok(format)
}

/// Says that what follows from the mark is done.
pub(super) fn settle_restored(path: &Path) -> Result<(), OpenError> {
    let format = read_format(path)?.ok_or_else(|| OpenError::NoStore { path: path.into() })?;
    replace_format(path, &Format { restored: None, ..format })
}

/// How many partitions the store has.
///
/// # Errors
///
/// [`OpenError`] where there is no store, or its format file cannot be read.
pub(super) fn partitions(path: &Path) -> Result<u16, OpenError> {
    read_format(path)?.map(|format| format.partitions).ok_or_else(|| OpenError::NoStore { path: path.into() })
}

fn read_format(path: &Path) -> Result<Option<Format>, OpenError> {
    match fs::read(path.join(FORMAT)) {
        Ok(bytes) => {
            let text = String::from_utf8(bytes);
            let text = text.map_err(|_| OpenError::Format { path: path.into(), cause: "it is no text".into() })?;
            Format::parse(path, &text).map(Some)
        }
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(OpenError::Io { path: path.into(), cause }),
    }
}

/// The old file or the new one stands there, whenever power fails.
fn replace_format(path: &Path, format: &Format) -> Result<(), OpenError> {
    let io = |cause| OpenError::Io { path: path.into(), cause };
    let draft = path.join("format.new");
    let mut file = File::create(&draft).map_err(io)?;
    file.write_all(format.print().as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
    fs::rename(&draft, path.join(FORMAT)).map_err(io)?;
    sync_folder(path).map_err(io)
}

fn new_epoch(path: &Path) -> Result<Epoch, OpenError> {
    let mut epoch = [0; 8];
    let random = |_| OpenError::Engine { path: path.into(), cause: "no random bytes for the epoch".into() };
    rand::fill(&mut epoch).map_err(random)?;
    Ok(Epoch::new(u64::from_be_bytes(epoch)))
}

fn make(path: &Path, config: &Config, keys: Keys) -> Result<(Format, Option<Arc<Keyring>>), OpenError> {
    let epoch = new_epoch(path)?;
    let partitions = match config.partitions {
        0 => partitions_for(std::thread::available_parallelism().map_or(1, usize::from)),
        partitions => partitions,
    };
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    let io = |cause| OpenError::Io { path: draft.clone(), cause };
    match fs::remove_dir_all(&draft) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(io(cause)),
        _ => {}
    }
    // The names of devices and topics are in the keys, and keys are not sealed.
    DirBuilder::new().recursive(true).mode(0o700).create(&draft).map_err(io)?;
    for partition in 0..partitions {
        drop(Database::open(&partition_path(&draft, Partition::new(partition)), config, partitions)?);
    }
    let (sealing, ring) = match keys {
        Keys::Plain => (FormatSealing::Plain, None),
        Keys::Sealed { master, now } => {
            let ring = Keyring::make(&draft, master, now)?;
            (FormatSealing::Sealed(ring.id()), Some(Arc::new(ring.moved_to(path))))
        }
    };
    let format = Format { version: VERSION, partitions, epoch, restored: None, sealing };
    let mut file = File::create_new(draft.join(FORMAT)).map_err(io)?;
    file.write_all(format.print().as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
    sync_folder(&draft).map_err(io)?;
    let io = |cause| OpenError::Io { path: path.into(), cause };
    fs::rename(&draft, path).map_err(io)?;
    sync_parent(path).map_err(io)?;
    Ok((format, ring))
}

pub(super) fn partition_path(path: &Path, partition: Partition) -> PathBuf {
    path.join(format!("p{partition}"))
}

/// Which ring seals a store with this format file, which came from `path`; none where it is plain.
pub(super) fn ring_of(path: &Path, text: &str) -> Result<Option<RingId>, OpenError> {
    match Format::parse(path, text)?.sealing {
        FormatSealing::Plain => Ok(None),
        FormatSealing::Sealed(id) => Ok(Some(id)),
        FormatSealing::OneKey { .. } => {
            let cause = "it is of version 1, whose records are opened once it is put back".to_owned();
            Err(OpenError::Format { path: path.into(), cause })
        }
    }
}

impl Format {
    fn print(&self) -> String {
        let sealing = match &self.sealing {
            FormatSealing::Plain => "sealing = plain\n".to_owned(),
            FormatSealing::Sealed(id) => format!("sealing = sealed\nkey ring = {id}\n"),
            FormatSealing::OneKey { id, check } => {
                format!("sealing = sealed\ndata key = {id}\ndata key check = {check}\n")
            }
        };
        let Self { version, partitions, epoch, .. } = self;
        let restored = match self.restored {
            None => "",
            Some(Restored::Copy) => "restored = yes\n",
            // A program that does not know the second line does what the first one says.
            Some(Restored::PowerCut) => "restored = yes\ncause = power cut\n",
        };
        let lines = format!(
            "unhidra store = {version}\n{sealing}partitions = {partitions}\nepoch = {:016x}\n{restored}",
            epoch.get()
        );
        match *version {
            VERSION_1 => lines,
            _ => format!("{lines}{CHECK}{}\n", check(&lines)),
        }
    }

    fn parse(path: &Path, text: &str) -> Result<Self, OpenError> {
        let wrong = |cause: String| OpenError::Format { path: path.into(), cause };
        let lines: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once(" = ")).collect();
        let line = |key: &str| lines.get(key).copied().ok_or_else(|| wrong(format!("it has no line {key:?}")));
        let bad = |key: &str, found: &str| wrong(format!("{key} = {found:?}"));
        let version = line("unhidra store")?;
        let found = version.parse().map_err(|_| bad("unhidra store", version))?;
        match found {
            VERSION_1 => {}
            VERSION => {
                let (lines, found) = text.rsplit_once(CHECK).ok_or_else(|| wrong("it has no line \"check\"".into()))?;
                if found.strip_suffix('\n') != Some(&check(lines)) {
                    return Err(wrong("its lines are not those that its check was made of".into()));
                }
            }
            found => return Err(OpenError::Version { path: path.into(), found, allowed: VERSION }),
        }
        let sealing = match line("sealing")? {
            "plain" => FormatSealing::Plain,
            "sealed" if lines.contains_key("key ring") => {
                let id = line("key ring")?;
                FormatSealing::Sealed(RingId::parse(id).ok_or_else(|| bad("key ring", id))?)
            }
            "sealed" => {
                let id = line("data key")?;
                let id = id.parse().map_err(|_| bad("data key", id))?;
                FormatSealing::OneKey { id, check: line("data key check")?.to_owned() }
            }
            found => return Err(bad("sealing", found)),
        };
        let partitions = line("partitions")?;
        let parsed = partitions.parse().ok().filter(|count| *count > 0);
        let partitions = parsed.ok_or_else(|| bad("partitions", partitions))?;
        let epoch = line("epoch")?;
        let epoch = u64::from_str_radix(epoch, 16).map(Epoch::new).map_err(|_| bad("epoch", epoch))?;
        let restored = match (lines.get("restored").copied(), lines.get("cause").copied()) {
            (None, None) => None,
            (Some("yes"), None) => Some(Restored::Copy),
            (Some("yes"), Some("power cut")) => Some(Restored::PowerCut),
            (Some("yes") | None, Some(found)) => return Err(bad("cause", found)),
            (Some(found), _) => return Err(bad("restored", found)),
        };
        Ok(Self { version: found, partitions, epoch, restored, sealing })
    }
}

/// Marks that what is read of a partition's journals may be in memory alone: the mark outlives the
/// process, and a power cut takes it away together with what it warns of, or leaves both.
pub(super) fn mark_unsynced(partition: &Path) -> io::Result<()> {
    File::create(partition.join(UNSYNCED)).map(drop)
}

/// Writes the journals anew, and the small files that say which tables there are, where they are
/// marked as [`mark_unsynced`] does.
///
/// After a failed sync the system may hold pages of them that it will never try to write again,
/// and still show them to readers. A copy has pages of its own, and its sync tells the truth. Table
/// files are named by a small file once they are synced, and never written again.
pub(super) fn write_anew(partition: &Path) -> io::Result<()> {
    if !partition.join(UNSYNCED).exists() {
        return Ok(());
    }
    let files = fs::read_dir(partition)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    let is_journal = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "jnl");
    for journal in without_copies(files)?.iter().filter(|path| is_journal(path)) {
        copy_over(journal)?;
    }
    for tree in levels::trees(partition)? {
        for path in without_copies(levels::small_files(&tree)?)? {
            copy_over(&path)?;
        }
        sync_folder(&tree.join("tables"))?;
        sync_folder(&tree)?;
    }
    sync_folder(partition)?;
    fs::remove_file(partition.join(UNSYNCED))?;
    sync_folder(partition)
}

const ANEW: &str = "anew";

/// Removes the copies among these files that were never put in a file's place, and gives the others.
///
/// All of them go before the first file is copied: a copy takes the name of one that was left, and away with it.
fn without_copies(files: Vec<PathBuf>) -> io::Result<Vec<PathBuf>> {
    let is_copy = |path: &PathBuf| path.extension().is_some_and(|extension| extension == ANEW);
    let (copies, files) = files.into_iter().partition::<Vec<_>, _>(is_copy);
    copies.iter().try_for_each(fs::remove_file)?;
    Ok(files)
}

/// Puts a copy in a file's place. The zeros behind what is written in it need no room.
///
/// It reads and writes: the system's own copying may share the very pages that are in doubt.
fn copy_over(path: &Path) -> io::Result<()> {
    let bytes = fs::read(path)?;
    let is_journal = path.extension().is_some_and(|extension| extension == "jnl");
    let len = match is_journal {
        true => bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1),
        false => bytes.len(),
    };
    let copy = path.with_extension(ANEW);
    let written = File::create(&copy).and_then(|mut to| {
        to.write_all(bytes.get(..len).unwrap_or_default())?;
        to.sync_all()
    });
    if let Err(cause) = written {
        // On a full disk half a copy would keep what room there is.
        _ = fs::remove_file(&copy);
        return Err(cause);
    }
    fs::rename(&copy, path)
}

pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes durable that a file of this name is in its folder.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if parent != Path::new("") => sync_folder(parent),
        _ => sync_folder(Path::new(".")),
    }
}

/// What begins the last line of a format file.
const CHECK: &str = "check = ";

/// What the check of a format file's lines is.
fn check(lines: &str) -> String {
    let digest = digest(&SHA256, lines.as_bytes());
    hex(digest.as_ref().get(..8).unwrap_or_default())
}

/// Says that every record is of the present version.
pub(super) fn settle_version(path: &Path) -> Result<(), OpenError> {
    let format = read_format(path)?.ok_or_else(|| OpenError::NoStore { path: path.into() })?;
    replace_format(path, &Format { version: VERSION, ..format })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
