//! The key ring of an open folder: read by all who seal and open, changed by one at a time.
//!
//! ```text
//! change:  the next ring -> its file, durable -> memory -> what seals from now on
//! ```
//!
//! A key is in the file before anything is sealed under it. The master key is changed so that one
//! of two opens the ring whenever power fails:
//!
//! ```text
//! old alone --begin_rewrap--> old and new --end_rewrap--> new alone
//! ```
//!
//! Between the two the operator, or the node for a key file of its own, puts the new master key in
//! the place of the old. A ring with both that is opened under the new one is ended at once; opened
//! under the old one it stays as it is, and no key is added until the change is made or begun anew.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::num::NonZeroU16;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use thiserror::Error;
use unhidra_core::time::UnixTime;

use crate::master::{MasterId, MasterKey};
use crate::ring::{Decoded, FILE_LEN_MAX, KeyState, Purpose, Ring, RingError, RingId};
use crate::sealed::DataKey;

/// The file's name in the store's folder.
pub(crate) const FILE: &str = "keys";

/// The keys of an open folder.
pub struct Keyring {
    /// The folder it lies in.
    folder: PathBuf,
    ring: RwLock<Arc<Ring>>,
    /// The ring's, to be read without the lock.
    generation: AtomicU64,
    /// Held by whoever changes the ring.
    masters: Mutex<Masters>,
}

/// Who can open the ring's file.
struct Masters {
    held: Arc<dyn MasterKey>,
    next: Next,
}

/// Whether the master key is being changed.
enum Next {
    No,
    /// To this one.
    Here(Arc<dyn MasterKey>),
    /// To one that an earlier process knew.
    Elsewhere(MasterId),
}

/// Why the key ring does not open, or does not change.
#[derive(Debug, Error)]
pub enum KeyringError {
    /// The file says something else than a key ring.
    #[error("the key ring {path}: {cause}{}", hint(cause))]
    Ring {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        cause: RingError,
    },
    /// The folder has records, and the ring they are sealed under is not there.
    #[error(
        "the key ring {path} is missing, and the store is sealed under it; put the folder back from a backup, \
         or the file from its newest copy"
    )]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// An older file than this folder was last used with.
    #[error(
        "the key ring {path} is an old one, of generation {found}, and the store was used with generation {seen}; \
         put back its newest copy, or the whole folder from a backup"
    )]
    Old {
        /// Its file.
        path: PathBuf,
        /// Its generation.
        found: u64,
        /// The newest the store knows of.
        seen: u64,
    },
    /// The file cannot be read or written.
    #[error("the key ring {path}: {cause}")]
    Io {
        /// Its file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// The master key is being changed, and this process cannot write for the new one.
    #[error(
        "the master key is being changed to {next}; start the node with that one, or make another change, or none, \
         of it with `unhidra keys rewrap`"
    )]
    RewrapUnderWay {
        /// To which.
        next: MasterId,
    },
    /// Another master key is to take the present one's place, or none.
    #[error("the keys are not being wrapped under this master key ({id})")]
    NotNext {
        /// Which.
        id: MasterId,
    },
    /// The new master key is the old one.
    #[error("the keys are wrapped under this master key already ({id})")]
    SameMaster {
        /// Which.
        id: MasterId,
    },
    /// What seals could not be told of the change.
    #[error("the key ring has changed, and the store could not write that down: {0}")]
    NotMarked(String),
}

fn hint(cause: &RingError) -> &'static str {
    match cause {
        RingError::OtherMaster { .. } => {
            "; store.master_key_file, .master_key_command or .master_key_env says where the master key is"
        }
        RingError::Malformed(_) | RingError::Short(_) | RingError::Forged | RingError::OtherFolder => {
            "; put back its newest copy, or the whole folder from a backup"
        }
        RingError::Version { .. } => "; use the program that wrote it, or a newer one",
        RingError::Full | RingError::Master(_) => "",
    }
}

/// A data key, as it may be shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeyRecord {
    /// What records name it by.
    pub id: u16,
    /// What it seals.
    pub purpose: Purpose,
    /// When it was made.
    pub created_at: UnixTime,
    /// What it may do.
    pub state: KeyState,
}

/// The ring, as it may be shown.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RingRecord {
    /// How often it was written.
    pub generation: u64,
    /// The master key its keys are wrapped under.
    pub master: MasterId,
    /// The one that is to take its place.
    pub next_master: Option<MasterId>,
    /// In the order of their ids.
    pub keys: Vec<KeyRecord>,
}

impl Keyring {
    /// A new folder's ring, written to `folder`, where no ring is.
    pub(crate) fn make(folder: &Path, master: Arc<dyn MasterKey>, now: UnixTime) -> Result<Self, KeyringError> {
        let ring = Ring::draw(now).map_err(|cause| wrong(folder, cause))?;
        write(folder, &ring, &[&*master])?;
        Ok(Self::new(folder, ring, Masters { held: master, next: Next::No }))
    }

    /// The ring of a folder of version 1, which had one key: what it has sealed opens still. One
    /// that was made before a crash is taken as it is.
    pub(crate) fn adopt(
        folder: &Path,
        master: Arc<dyn MasterKey>,
        first: DataKey,
        now: UnixTime,
    ) -> Result<Self, KeyringError> {
        let made_before = read(folder, &*master).ok().filter(|decoded| decoded.other.is_none());
        let made_before = made_before.map(|decoded| decoded.ring).filter(|ring| ring.is_around(&first));
        let ring = match made_before {
            Some(ring) => ring,
            None => {
                let ring = Ring::of_first_key(first, now).map_err(|cause| wrong(folder, cause))?;
                write(folder, &ring, &[&*master])?;
                ring
            }
        };
        Ok(Self::new(folder, ring, Masters { held: master, next: Next::No }))
    }

    /// The ring in `folder`, which must be the one with this id.
    pub(crate) fn open(folder: &Path, id: RingId, master: Arc<dyn MasterKey>) -> Result<Self, KeyringError> {
        let Decoded { ring, other } = read(folder, &*master)?;
        if ring.id != id {
            return Err(wrong(folder, RingError::OtherFolder));
        }
        let next = other.map_or(Next::No, Next::Elsewhere);
        Ok(Self::new(folder, ring, Masters { held: master, next }))
    }

    /// The ring of a copy that came from `path`, to open records with.
    pub(crate) fn of_copy(
        path: &Path,
        bytes: &[u8],
        id: RingId,
        master: Arc<dyn MasterKey>,
    ) -> Result<Self, KeyringError> {
        let Decoded { ring, .. } = Ring::decode(bytes, &*master).map_err(|cause| wrong(path, cause))?;
        if ring.id != id {
            return Err(wrong(path, RingError::OtherFolder));
        }
        Ok(Self::new(path, ring, Masters { held: master, next: Next::No }))
    }

    fn new(folder: &Path, ring: Ring, masters: Masters) -> Self {
        let generation = AtomicU64::new(ring.generation);
        Self { folder: folder.into(), ring: RwLock::new(Arc::new(ring)), generation, masters: Mutex::new(masters) }
    }

    /// Where it will lie once its folder has been renamed.
    pub(crate) fn moved_to(self, folder: &Path) -> Self {
        Self { folder: folder.into(), ..self }
    }

    pub(crate) fn id(&self) -> RingId {
        self.ring().id
    }

    pub(crate) fn ring(&self) -> Arc<Ring> {
        Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How often it was written.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Refuses a ring that is older than one this folder was used with.
    pub(crate) fn check_seen(&self, seen: u64) -> Result<(), KeyringError> {
        let found = self.generation();
        if found < seen {
            return Err(KeyringError::Old { path: self.folder.join(FILE), found, seen });
        }
        Ok(())
    }

    /// What may be shown of it.
    #[must_use]
    pub fn record(&self) -> RingRecord {
        let masters = self.masters.lock().unwrap_or_else(PoisonError::into_inner);
        let ring = self.ring();
        let mut keys: Vec<KeyRecord> = ring
            .keys
            .iter()
            .map(|entry| KeyRecord {
                id: entry.id().get(),
                purpose: entry.purpose,
                created_at: entry.created_at,
                state: entry.state,
            })
            .collect();
        keys.sort_by_key(|key| key.id);
        RingRecord {
            generation: ring.generation,
            master: masters.held.id(),
            next_master: match &masters.next {
                Next::No => None,
                Next::Here(next) => Some(next.id()),
                Next::Elsewhere(next) => Some(*next),
            },
            keys,
        }
    }

    /// Makes a new active key for each of `purposes`: from here on those before them only open.
    ///
    /// # Errors
    ///
    /// [`KeyringError`]; then nothing has changed.
    pub fn rotate(&self, purposes: &[Purpose], now: UnixTime) -> Result<(), KeyringError> {
        self.change(|ring| ring.rotated(purposes, now))
    }

    /// Destroys keys: whoever calls knows that no record is left under them. Active ones stay.
    pub(crate) fn destroy(&self, ids: &[NonZeroU16]) -> Result<(), KeyringError> {
        self.change(|ring| Ok(ring.without(ids)))
    }

    /// Wraps all keys anew, for the present master key and for `next`: either opens the ring now.
    ///
    /// # Errors
    ///
    /// [`KeyringError`]; then the present one alone opens it, as before.
    pub fn begin_rewrap(&self, next: Arc<dyn MasterKey>) -> Result<(), KeyringError> {
        let mut masters = self.masters.lock().unwrap_or_else(PoisonError::into_inner);
        if masters.held.id() == next.id() {
            return Err(KeyringError::SameMaster { id: next.id() });
        }
        self.write_and_use(self.ring().again(), &[&*masters.held, &*next])?;
        masters.next = Next::Here(next);
        Ok(())
    }

    /// Wraps all keys anew for the new master key alone, which is `new`.
    ///
    /// # Errors
    ///
    /// [`KeyringError::NotNext`] where it is another, or none; then nothing changes. With other causes both open
    /// the ring still.
    pub fn end_rewrap(&self, new: MasterId) -> Result<(), KeyringError> {
        let mut masters = self.masters.lock().unwrap_or_else(PoisonError::into_inner);
        let next = match &masters.next {
            Next::Here(next) if next.id() == new => Arc::clone(next),
            _ => return Err(KeyringError::NotNext { id: new }),
        };
        self.write_and_use(self.ring().again(), &[&*next])?;
        *masters = Masters { held: next, next: Next::No };
        Ok(())
    }

    /// Wraps all keys anew for the present master key alone: gives up a change that was begun, or
    /// ends one where the present key is the new one.
    ///
    /// # Errors
    ///
    /// [`KeyringError`].
    pub fn settle_rewrap(&self) -> Result<(), KeyringError> {
        let mut masters = self.masters.lock().unwrap_or_else(PoisonError::into_inner);
        self.write_and_use(self.ring().again(), &[&*masters.held])?;
        masters.next = Next::No;
        Ok(())
    }

    /// Whether it was opened under the key that is to take the other's place, which comes second.
    pub(crate) fn is_opened_by_the_new(&self) -> Result<bool, KeyringError> {
        let masters = self.masters.lock().unwrap_or_else(PoisonError::into_inner);
        let Next::Elsewhere(_) = masters.next else { return Ok(false) };
        let file = read_file(&self.folder)?;
        let second = Ring::masters(&file).map_err(|cause| wrong(&self.folder, cause))?.get(1).copied();
        Ok(second == Some(masters.held.id()))
    }

    fn change(&self, change: impl FnOnce(&Ring) -> Result<Ring, RingError>) -> Result<(), KeyringError> {
        let masters = self.masters.lock().unwrap_or_else(PoisonError::into_inner);
        let held = &*masters.held;
        let next = change(&self.ring()).map_err(|cause| wrong(&self.folder, cause))?;
        match &masters.next {
            Next::No => self.write_and_use(next, &[held]),
            Next::Here(second) => self.write_and_use(next, &[held, &**second]),
            Next::Elsewhere(id) => Err(KeyringError::RewrapUnderWay { next: *id }),
        }
    }

    /// First the file, then the memory: no key seals that a crash could lose.
    fn write_and_use(&self, next: Ring, masters: &[&dyn MasterKey]) -> Result<(), KeyringError> {
        write(&self.folder, &next, masters)?;
        let generation = next.generation;
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        self.generation.store(generation, Ordering::Release);
        Ok(())
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring").field("generation", &self.generation()).finish_non_exhaustive()
    }
}

fn wrong(folder: &Path, cause: RingError) -> KeyringError {
    KeyringError::Ring { path: folder.join(FILE), cause }
}

fn read(folder: &Path, master: &dyn MasterKey) -> Result<Decoded, KeyringError> {
    Ring::decode(&read_file(folder)?, master).map_err(|cause| wrong(folder, cause))
}

fn read_file(folder: &Path) -> Result<Vec<u8>, KeyringError> {
    let path = folder.join(FILE);
    let mut bytes = Vec::new();
    match File::open(&path).and_then(|file| file.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes)) {
        Ok(_) if bytes.len() as u64 > FILE_LEN_MAX => Err(wrong(folder, RingError::Malformed("it is too long"))),
        Ok(_) => Ok(bytes),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Err(KeyringError::Missing { path }),
        Err(cause) => Err(KeyringError::Io { path, cause }),
    }
}

/// The old file or the new one stands there, whenever power fails.
fn write(folder: &Path, ring: &Ring, masters: &[&dyn MasterKey]) -> Result<(), KeyringError> {
    let bytes = ring.encode(masters).map_err(|cause| wrong(folder, cause))?;
    let path = folder.join(FILE);
    let io = |cause| KeyringError::Io { path: path.clone(), cause };
    replace(&path, &bytes).map_err(io)
}

/// Puts a file of its owner's alone in the place of another, durably: the old or the new, whole.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    match fs::remove_file(&draft) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    crate::embedded::sync_parent(path)
}

#[cfg(test)]
mod tests;
