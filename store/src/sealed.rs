//! Values encrypted at rest.
//!
//! ```text
//! plain    format version 1 = 2   tag 1   key id 2 = 0   the value
//! sealed   format version 1 = 2   tag 1   key id 2       opening 3   counter 6   AES-256-GCM of the value   tag 16
//! ```
//!
//! The tag in the header says what kind of record it is (`tag.rs`). Version 1 had none: its header
//! is version and key id. Such records are read still, but for those of sessions, which are written
//! anew when a folder of version 1 is opened (`embedded/migration.rs`).
//!
//! The nonce is opening (4 bytes) || counter (8 bytes), of which the leading zeros stay off the
//! disk. The associated data is table || key || header, so that a record moved to another place, or
//! taken for another version's, does not open.
//!
//! A record names its key by the id, which is one key's in the ring for ever (`ring.rs`), and each
//! table's records are sealed by the active key of its purpose. A record of a key of another purpose
//! does not open.
//!
//! Every opening of a folder has a key of its own for each of them: HKDF-SHA-256 over the data key,
//! salted with 32 random bytes that are durable before the first use, with the opening's number in
//! the info. The counter starts at 0 with each opening and counts for all keys of it. So:
//!
//! - within an opening no counter comes twice, whichever keys it has meanwhile;
//! - a crash, which loses the counter, and a backup, which repeats the opening's number, both begin
//!   with another salt, hence with other keys;
//! - a new data key makes another key of the same salt and number.
//!
//! No pair of key and nonce is ever used twice.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bytes::Bytes;
use smallvec::SmallVec;
use thiserror::Error;
use unhidra_core::time::UnixTime;
use zeroize::Zeroizing;

use crate::keyring::Keyring;
use crate::master::{LocalMaster, MasterKey, derive, fill};
use crate::ring::Purpose;
use crate::table::Table;
use crate::tag::Tag;

/// The version of a record's format.
const VERSION: u8 = 2;
/// The version before it, which has no tag.
pub(crate) const VERSION_1: u8 = 1;
const HEADER_LEN: usize = 4;
const NONCE_LEN: usize = 9;
const TAG_LEN: usize = 16;

/// The most openings a folder may have: as many as 3 bytes can say.
pub(crate) const OPENING_MAX: u32 = (1 << 24) - 1;

/// The most records of one opening: as many as 6 bytes can say.
const COUNTER_MAX: u64 = (1 << 48) - 1;

/// How a folder's values lie on the disk.
pub enum Keys {
    /// As they are. For the demo's folder, which says so of itself.
    Plain,
    /// Encrypted under the keys of a ring.
    Sealed {
        /// What opens the ring.
        master: Arc<dyn MasterKey>,
        /// The time, for keys that are made.
        now: UnixTime,
    },
}

impl Keys {
    /// Sealed, under a master key that this process holds.
    #[must_use]
    pub fn sealed(master: LocalMaster, now: UnixTime) -> Self {
        Self::Sealed { master: Arc::new(master), now }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain => f.write_str("Plain"),
            Self::Sealed { master, .. } => write!(f, "Sealed({})", master.id()),
        }
    }
}

/// A data key and its id. Wiped when dropped.
pub(crate) struct DataKey {
    id: NonZeroU16,
    key: Zeroizing<[u8; 32]>,
}

impl DataKey {
    pub(crate) const fn new(id: NonZeroU16, key: Zeroizing<[u8; 32]>) -> Self {
        Self { id, key }
    }

    /// Its id, which every record sealed under it names.
    pub(crate) const fn id(&self) -> NonZeroU16 {
        self.id
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.key
    }

    /// What a folder of version 1 remembers of its data key, to know the wrong one: 16 bytes that
    /// tell nothing of the key.
    pub(crate) fn check(&self) -> [u8; 16] {
        let mut check = [0; 16];
        fill(&*self.key, &[], &[b"unhidra store data key check"], &mut check);
        check
    }

    /// The key of one opening.
    fn of_opening(&self, opening: u32, salt: &[u8; 32]) -> Option<LessSafeKey> {
        let key = derive(&*self.key, salt, &[b"unhidra store records", &opening.to_be_bytes()]);
        UnboundKey::new(&AES_256_GCM, &*key).ok().map(LessSafeKey::new)
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKey({}, [secret])", self.id)
    }
}

/// Why a value cannot be sealed.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(crate) enum SealError {
    #[error("this opening of the folder has sealed all the records it may; restart the node")]
    Exhausted,
    #[error("the cipher failed")]
    Cipher,
    #[error("the key ring has no active key for {}", .0.as_str())]
    NoKey(Purpose),
    #[error("no record has such a key")]
    NoKind,
}

/// Why a record does not open.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(crate) enum UnsealError {
    #[error("a record of {found} bytes, at least {min} needed")]
    Short { found: usize, min: usize },
    #[error("a record of format version {found}, versions 1 and {VERSION} are understood")]
    Version { found: u8 },
    #[error("a record of version 1 where all were written anew in version {VERSION}")]
    Old,
    #[error("a record of kind 0x{found:02x} in the place of one of kind 0x{expected:02x}")]
    Tag { found: u8, expected: u8 },
    #[error("no record has such a key")]
    NoKind,
    #[error("a record of key {0}, which the key ring does not hold")]
    Key(u16),
    #[error("a record of key {id}, which is for {}, in a table of {}", .found.as_str(), .expected.as_str())]
    Purpose { id: u16, found: Purpose, expected: Purpose },
    #[error("a sealed record, of key {0}, in a plain folder")]
    Sealed(u16),
    #[error("a plain record in a sealed folder")]
    Plain,
    #[error("a record of opening {0}, of which the folder knows nothing")]
    Opening(u32),
    #[error("it does not authenticate")]
    Forged,
}

/// What seals and opens the records of one partition.
pub(crate) enum Sealing {
    Plain,
    Data(Box<DataSealing>),
}

/// The sealing under the keys of a ring.
pub(crate) struct DataSealing {
    ring: Arc<Keyring>,
    opening: u32,
    salt: [u8; 32],
    next: AtomicU64,
    /// What seals, as of a generation of the ring.
    present: RwLock<Arc<Present>>,
    /// What opens beside it, by key and opening, as their records are read. One for each start of
    /// the node and each key under which a record is left, at most.
    others: RwLock<HashMap<(u16, u32), Arc<LessSafeKey>>>,
}

/// The keys of this opening that seal.
struct Present {
    generation: u64,
    /// In the order of [`Purpose::SEALING`].
    keys: [Option<(u16, LessSafeKey)>; 4],
}

impl Sealing {
    /// The sealing of a new opening. Its salt must be durable before anything is sealed.
    pub(crate) fn data(ring: Arc<Keyring>, opening: u32, salt: [u8; 32]) -> Self {
        let present = RwLock::new(Arc::new(Present::of(&ring, opening, &salt)));
        let next = AtomicU64::new(0);
        Self::Data(Box::new(DataSealing { ring, opening, salt, next, present, others: RwLock::default() }))
    }

    /// What the opening's own record is to say: its salt, and how new a ring it was used with.
    pub(crate) fn opening_record(&self) -> Option<([u8; 32], u64)> {
        match self {
            Self::Plain => None,
            Self::Data(sealing) => Some((sealing.salt, sealing.ring.generation())),
        }
    }

    /// Seals a value, in the place of whatever `record` held.
    pub(crate) fn seal_into(
        &self,
        record: &mut Vec<u8>,
        table: Table,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), SealError> {
        let tag = Tag::of(table, key).ok_or(SealError::NoKind)?;
        record.clear();
        match self {
            Self::Plain => {
                record.extend_from_slice(&header(tag, 0));
                record.extend_from_slice(value);
                Ok(())
            }
            Self::Data(sealing) => sealing.seal_into(record, table, key, tag, value),
        }
    }

    /// Opens a record. `salt_of` finds the salt of an earlier opening.
    pub(crate) fn open<E: From<UnsealError>>(
        &self,
        table: Table,
        key: &[u8],
        record: &[u8],
        salt_of: impl FnOnce(u32) -> Result<Option<[u8; 32]>, E>,
    ) -> Result<Bytes, E> {
        if table == Table::Sessions && record.first() == Some(&VERSION_1) {
            return Err(UnsealError::Old.into());
        }
        self.open_any(table, key, record, salt_of)
    }

    /// Opens a record of whatever version. [`record_version`] says which it is, and the value is
    /// that version's.
    pub(crate) fn open_any<E: From<UnsealError>>(
        &self,
        table: Table,
        key: &[u8],
        record: &[u8],
        salt_of: impl FnOnce(u32) -> Result<Option<[u8; 32]>, E>,
    ) -> Result<Bytes, E> {
        let (header, found, body) = split_header(table, key, record)?;
        match (self, found) {
            (Self::Plain, 0) => Ok(Bytes::copy_from_slice(body)),
            (Self::Plain, found) => Err(UnsealError::Sealed(found).into()),
            (Self::Data(_), 0) => Err(UnsealError::Plain.into()),
            (Self::Data(sealing), found) => sealing.open((table, key), header, found, body, salt_of),
        }
    }
}

/// The key that a record names, 0 for none. `None` where it is no record.
pub(crate) fn key_of(record: &[u8]) -> Option<u16> {
    match *record {
        [VERSION_1, high, low, ..] | [VERSION, _, high, low, ..] => Some(u16::from_be_bytes([high, low])),
        _ => None,
    }
}

/// The version of a record's format, as its header says.
pub(crate) fn record_version(record: &[u8]) -> Option<u8> {
    record.first().copied()
}

/// A record's header, the key id in it, and what follows.
fn split_header<'a>(table: Table, key: &[u8], record: &'a [u8]) -> Result<(&'a [u8], u16, &'a [u8]), UnsealError> {
    let short = |min| UnsealError::Short { found: record.len(), min };
    match *record {
        [VERSION_1, id_high, id_low, ..] => {
            let (header, body) = record.split_at(HEADER_LEN - 1);
            Ok((header, u16::from_be_bytes([id_high, id_low]), body))
        }
        [VERSION, found, id_high, id_low, ..] => {
            let expected = Tag::of(table, key).ok_or(UnsealError::NoKind)?.as_byte();
            if found != expected {
                return Err(UnsealError::Tag { found, expected });
            }
            let (header, body) = record.split_at(HEADER_LEN);
            Ok((header, u16::from_be_bytes([id_high, id_low]), body))
        }
        [VERSION_1, ..] => Err(short(HEADER_LEN - 1)),
        [VERSION, ..] | [] => Err(short(HEADER_LEN)),
        [found, ..] => Err(UnsealError::Version { found }),
    }
}

impl Present {
    fn of(ring: &Keyring, opening: u32, salt: &[u8; 32]) -> Self {
        let ring = ring.ring();
        let keys = Purpose::SEALING.map(|purpose| {
            let entry = ring.active(purpose)?;
            Some((entry.id().get(), entry.key.of_opening(opening, salt)?))
        });
        Self { generation: ring.generation, keys }
    }

    fn sealing(&self, purpose: Purpose) -> Option<&(u16, LessSafeKey)> {
        self.keys.get(purpose.place()?)?.as_ref()
    }
}

impl DataSealing {
    fn seal_into(
        &self,
        record: &mut Vec<u8>,
        table: Table,
        key: &[u8],
        tag: Tag,
        value: &[u8],
    ) -> Result<(), SealError> {
        let present = self.present();
        let purpose = table.purpose();
        let (id, cipher) = present.sealing(purpose).ok_or(SealError::NoKey(purpose))?;
        let counter = self.next.fetch_add(1, Ordering::Relaxed);
        if counter > COUNTER_MAX {
            return Err(SealError::Exhausted);
        }
        let header = header(tag, *id);
        record.reserve(HEADER_LEN + NONCE_LEN + value.len() + TAG_LEN);
        record.extend_from_slice(&header);
        record.extend_from_slice(&self.opening.to_be_bytes()[1..]);
        record.extend_from_slice(&counter.to_be_bytes()[2..]);
        record.extend_from_slice(value);
        let nonce = nonce(self.opening, counter);
        let ad = Aad::from(associated_data(table, key, &header));
        let tag = cipher.seal_in_place_separate_tag(nonce, ad, &mut record[HEADER_LEN + NONCE_LEN..]);
        record.extend_from_slice(tag.map_err(|_| SealError::Cipher)?.as_ref());
        Ok(())
    }

    /// What seals now. The ring may have changed since it was made.
    fn present(&self) -> Arc<Present> {
        let present = Arc::clone(&self.present.read().unwrap_or_else(PoisonError::into_inner));
        if present.generation == self.ring.generation() {
            return present;
        }
        let present = Arc::new(Present::of(&self.ring, self.opening, &self.salt));
        *self.present.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&present);
        // What is destroyed in the ring opens nothing from here on, and what is not is found again.
        self.others.write().unwrap_or_else(PoisonError::into_inner).clear();
        present
    }

    fn open<E: From<UnsealError>>(
        &self,
        (table, key): (Table, &[u8]),
        header: &[u8],
        id: u16,
        body: &[u8],
        salt_of: impl FnOnce(u32) -> Result<Option<[u8; 32]>, E>,
    ) -> Result<Bytes, E> {
        let found = header.len() + body.len();
        let short = UnsealError::Short { found, min: header.len() + NONCE_LEN + TAG_LEN };
        let (&[o1, o2, o3, c1, c2, c3, c4, c5, c6], sealed) =
            body.split_first_chunk::<NONCE_LEN>().ok_or_else(|| short.clone())?;
        let len = sealed.len().checked_sub(TAG_LEN).ok_or(short)?;
        let opening = u32::from_be_bytes([0, o1, o2, o3]);
        let nonce = nonce(opening, u64::from_be_bytes([0, 0, c1, c2, c3, c4, c5, c6]));
        let ad = Aad::from(associated_data(table, key, header));
        let mut value = vec![0; len];
        let (ciphertext, tag) = sealed.split_at(len);
        let present = self.present();
        let own = present.sealing(table.purpose()).filter(|(own, _)| opening == self.opening && *own == id);
        let opened = match own {
            Some((_, cipher)) => cipher.open_separate_gather(nonce, ad, ciphertext, tag, &mut value),
            None => {
                let cipher = self.other(table, id, opening, salt_of)?;
                cipher.open_separate_gather(nonce, ad, ciphertext, tag, &mut value)
            }
        };
        opened.map_err(|_| UnsealError::Forged)?;
        Ok(Bytes::from(value))
    }

    /// A key that is not one of those that seal, or of an opening before this one.
    fn other<E: From<UnsealError>>(
        &self,
        table: Table,
        id: u16,
        opening: u32,
        salt_of: impl FnOnce(u32) -> Result<Option<[u8; 32]>, E>,
    ) -> Result<Arc<LessSafeKey>, E> {
        let ring = self.ring.ring();
        let entry = ring.key(id).ok_or(UnsealError::Key(id))?;
        let (found, expected) = (entry.purpose, table.purpose());
        if found != expected && found != Purpose::All {
            return Err(UnsealError::Purpose { id, found, expected }.into());
        }
        let known = self.others.read().unwrap_or_else(PoisonError::into_inner).get(&(id, opening)).cloned();
        if let Some(key) = known {
            return Ok(key);
        }
        let salt =
            if opening == self.opening { self.salt } else { salt_of(opening)?.ok_or(UnsealError::Opening(opening))? };
        let key = Arc::new(entry.key.of_opening(opening, &salt).ok_or(UnsealError::Opening(opening))?);
        self.others.write().unwrap_or_else(PoisonError::into_inner).insert((id, opening), Arc::clone(&key));
        Ok(key)
    }
}

const fn header(tag: Tag, key_id: u16) -> [u8; HEADER_LEN] {
    let [high, low] = key_id.to_be_bytes();
    [VERSION, tag.as_byte(), high, low]
}

fn nonce(opening: u32, counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    let (first, last) = bytes.split_at_mut(4);
    first.copy_from_slice(&opening.to_be_bytes());
    last.copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// In its place where the key is: up to 24 bytes.
fn associated_data(table: Table, key: &[u8], header: &[u8]) -> SmallVec<[u8; 32]> {
    let mut data = SmallVec::new();
    data.push(table.as_byte());
    data.extend_from_slice(key);
    data.extend_from_slice(header);
    data
}

#[cfg(test)]
mod tests;
