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
//! Every opening of a folder has a key of its own: HKDF-SHA-256 over the data key, salted with 32
//! random bytes that are durable before the first use, with the opening's number in the info. The
//! counter starts at 0 with each. So a crash, which loses the counter, and a backup, which repeats
//! the opening's number, both get another key, and no pair of key and nonce is ever used twice.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use bytes::Bytes;
use thiserror::Error;
use zeroize::Zeroizing;

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
    /// Encrypted under a data key.
    Data(DataKey),
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain => f.write_str("Plain"),
            Self::Data(key) => f.debug_tuple("Data").field(key).finish(),
        }
    }
}

/// A data key and its id. Wiped when dropped.
pub struct DataKey {
    id: NonZeroU16,
    key: Zeroizing<[u8; 32]>,
}

impl DataKey {
    /// Takes a key.
    #[must_use]
    pub const fn new(id: NonZeroU16, key: Zeroizing<[u8; 32]>) -> Self {
        Self { id, key }
    }

    /// Its id, which every record sealed under it names.
    #[must_use]
    pub const fn id(&self) -> NonZeroU16 {
        self.id
    }

    /// What the folder remembers of its data key, to know the wrong one: 16 bytes that tell
    /// nothing of the key.
    pub(crate) fn check(&self) -> [u8; 16] {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&*self.key);
        let mut check = [0; 16];
        fill(&prk, &[b"unhidra store data key check"], &mut check);
        check
    }

    /// The key of one opening.
    fn of_opening(&self, opening: u32, salt: &[u8; 32]) -> Option<LessSafeKey> {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(&*self.key);
        let mut key = Zeroizing::new([0; 32]);
        fill(&prk, &[b"unhidra store records", &opening.to_be_bytes()], &mut *key);
        UnboundKey::new(&AES_256_GCM, &*key).ok().map(LessSafeKey::new)
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKey({}, [secret])", self.id)
    }
}

/// Expands `out.len()` bytes. That many are always few enough for HKDF, so nothing fails.
fn fill(prk: &hkdf::Prk, info: &[&[u8]], out: &mut [u8]) {
    struct Len(usize);
    impl hkdf::KeyType for Len {
        fn len(&self) -> usize {
            self.0
        }
    }
    let expanded = prk.expand(info, Len(out.len())).and_then(|okm| okm.fill(out));
    assert!(expanded.is_ok(), "HKDF gives at least 8 160 bytes");
}

/// Why a value cannot be sealed.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(crate) enum SealError {
    #[error("this opening of the folder has sealed all the records it may; restart the node")]
    Exhausted,
    #[error("the cipher failed")]
    Cipher,
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
    #[error("a record of key {found}, this folder's is {expected}")]
    Key { found: u16, expected: u16 },
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

/// The sealing under a data key.
pub(crate) struct DataSealing {
    data: Arc<DataKey>,
    opening: u32,
    key: LessSafeKey,
    next: AtomicU64,
    /// Keys of openings before this one, as records of theirs are read. One for each start of the
    /// node since the folder was made, at most.
    older: RwLock<HashMap<u32, Arc<LessSafeKey>>>,
}

impl Sealing {
    /// The sealing of a new opening. Its salt must be durable before anything is sealed.
    pub(crate) fn data(data: Arc<DataKey>, opening: u32, salt: &[u8; 32]) -> Option<Self> {
        let key = data.of_opening(opening, salt)?;
        let sealing = DataSealing { data, opening, key, next: AtomicU64::new(0), older: RwLock::default() };
        Some(Self::Data(Box::new(sealing)))
    }

    pub(crate) fn seal(&self, table: Table, key: &[u8], value: &[u8]) -> Result<Vec<u8>, SealError> {
        let tag = Tag::of(table, key).ok_or(SealError::NoKind)?;
        match self {
            Self::Plain => Ok([&header(tag, 0)[..], value].concat()),
            Self::Data(sealing) => sealing.seal(table, key, tag, value),
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
        let expected = match self {
            Self::Plain => 0,
            Self::Data(sealing) => sealing.data.id.get(),
        };
        if found != expected {
            return Err(UnsealError::Key { found, expected }.into());
        }
        match self {
            Self::Plain => Ok(Bytes::copy_from_slice(body)),
            Self::Data(sealing) => sealing.open(table, key, header, body, salt_of),
        }
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

impl DataSealing {
    fn seal(&self, table: Table, key: &[u8], tag: Tag, value: &[u8]) -> Result<Vec<u8>, SealError> {
        let counter = self.next.fetch_add(1, Ordering::Relaxed);
        if counter > COUNTER_MAX {
            return Err(SealError::Exhausted);
        }
        let header = header(tag, self.data.id.get());
        let mut record = Vec::with_capacity(HEADER_LEN + NONCE_LEN + value.len() + TAG_LEN);
        record.extend_from_slice(&header);
        record.extend_from_slice(&self.opening.to_be_bytes()[1..]);
        record.extend_from_slice(&counter.to_be_bytes()[2..]);
        record.extend_from_slice(value);
        let nonce = nonce(self.opening, counter);
        let ad = Aad::from(associated_data(table, key, &header));
        let tag = self.key.seal_in_place_separate_tag(nonce, ad, &mut record[HEADER_LEN + NONCE_LEN..]);
        record.extend_from_slice(tag.map_err(|_| SealError::Cipher)?.as_ref());
        Ok(record)
    }

    fn open<E: From<UnsealError>>(
        &self,
        table: Table,
        key: &[u8],
        header: &[u8],
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
        let opened = if opening == self.opening {
            self.key.open_separate_gather(nonce, ad, ciphertext, tag, &mut value)
        } else {
            self.older(opening, salt_of)?.open_separate_gather(nonce, ad, ciphertext, tag, &mut value)
        };
        opened.map_err(|_| UnsealError::Forged)?;
        Ok(Bytes::from(value))
    }

    /// The key of an opening before this one.
    fn older<E: From<UnsealError>>(
        &self,
        opening: u32,
        salt_of: impl FnOnce(u32) -> Result<Option<[u8; 32]>, E>,
    ) -> Result<Arc<LessSafeKey>, E> {
        let known = self.older.read().unwrap_or_else(PoisonError::into_inner).get(&opening).cloned();
        if let Some(key) = known {
            return Ok(key);
        }
        let salt = salt_of(opening)?.ok_or(UnsealError::Opening(opening))?;
        let key = Arc::new(self.data.of_opening(opening, &salt).ok_or(UnsealError::Opening(opening))?);
        self.older.write().unwrap_or_else(PoisonError::into_inner).insert(opening, Arc::clone(&key));
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

fn associated_data(table: Table, key: &[u8], header: &[u8]) -> Vec<u8> {
    [&[table.as_byte()][..], key, header].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealing(opening: u32) -> Sealing {
        let data = DataKey::new(NonZeroU16::new(7).unwrap(), Zeroizing::new([3; 32]));
        Sealing::data(Arc::new(data), opening, &[opening as u8; 32]).unwrap()
    }

    fn open(sealing: &Sealing, table: Table, key: &[u8], record: &[u8]) -> Result<Bytes, UnsealError> {
        sealing.open(table, key, record, |opening| Ok((opening < 9).then_some([opening as u8; 32])))
    }

    #[test]
    fn a_record_opens_in_its_place_alone() {
        let sealing = sealing(1);
        let record = sealing.seal(Table::Readings, b"key", b"value").unwrap();
        assert_eq!(open(&sealing, Table::Readings, b"key", &record), Ok(Bytes::from("value")));
        let refused = UnsealError::Tag { found: 0x01, expected: 0x08 };
        assert_eq!(open(&sealing, Table::Commands, b"key", &record), Err(refused));
        assert_eq!(open(&sealing, Table::Readings, b"kez", &record), Err(UnsealError::Forged));
    }

    /// A record of version 1, sealed as that version did.
    fn version_1(table: Table, key: &[u8], value: &[u8]) -> Vec<u8> {
        let Sealing::Data(data) = sealing(1) else { panic!("sealed") };
        let header = [VERSION_1, 0, 7];
        let mut sealed = value.to_vec();
        let ad = Aad::from(associated_data(table, key, &header));
        let tag = data.key.seal_in_place_separate_tag(nonce(1, 5), ad, &mut sealed).unwrap();
        [&header[..], &[0, 0, 1, 0, 0, 0, 0, 0, 5], &sealed, tag.as_ref()].concat()
    }

    #[test]
    fn records_of_version_1_open_but_for_those_of_sessions() {
        let record = version_1(Table::Readings, b"key", b"value");
        assert_eq!(open(&sealing(1), Table::Readings, b"key", &record), Ok(Bytes::from("value")));
        let key = [0, 0, 0, 1, 0x10];
        let record = version_1(Table::Sessions, &key, b"value");
        assert_eq!(open(&sealing(1), Table::Sessions, &key, &record), Err(UnsealError::Old));
        let opened: Result<_, UnsealError> = sealing(1).open_any(Table::Sessions, &key, &record, |_| Ok(None));
        assert_eq!(opened, Ok(Bytes::from("value")));
    }

    #[test]
    fn a_record_in_the_place_of_another_kind_is_known() {
        let key = [0, 0, 0, 1, 0x10];
        let mut record = Sealing::Plain.seal(Table::Sessions, &key, b"value").unwrap();
        record[1] = Tag::Peer.as_byte();
        let refused = UnsealError::Tag { found: 0x05, expected: 0x03 };
        assert_eq!(open(&Sealing::Plain, Table::Sessions, &key, &record), Err(refused));
        assert_eq!(Sealing::Plain.seal(Table::Sessions, b"none", b"value"), Err(SealError::NoKind));
        record[0] = 3;
        let refused = UnsealError::Version { found: 3 };
        assert_eq!(open(&Sealing::Plain, Table::Sessions, &key, &record), Err(refused));
    }

    #[test]
    fn a_changed_byte_never_opens() {
        let sealing = sealing(1);
        let record = sealing.seal(Table::Readings, b"key", b"value").unwrap();
        for at in 0..record.len() {
            let mut changed = record.clone();
            changed[at] ^= 1;
            assert!(open(&sealing, Table::Readings, b"key", &changed).is_err(), "byte {at}");
            assert!(open(&sealing, Table::Readings, b"key", &record[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn records_of_earlier_openings_open_and_those_of_unknown_ones_do_not() {
        let record = sealing(1).seal(Table::Readings, b"key", b"value").unwrap();
        assert_eq!(open(&sealing(2), Table::Readings, b"key", &record), Ok(Bytes::from("value")));
        let unknown = sealing(9).seal(Table::Readings, b"key", b"value").unwrap();
        assert_eq!(open(&sealing(2), Table::Readings, b"key", &unknown), Err(UnsealError::Opening(9)));
    }

    /// Two openings with the same number, as a restored backup makes them, differ by their salts.
    #[test]
    fn a_restored_opening_has_another_key() {
        let data = || Arc::new(DataKey::new(NonZeroU16::MIN, Zeroizing::new([3; 32])));
        let seal = |salt: u8| {
            let sealing = Sealing::data(data(), 5, &[salt; 32]).unwrap();
            sealing.seal(Table::Readings, b"key", &[0; 64]).unwrap()
        };
        let (once, again) = (seal(1), seal(2));
        assert_eq!(once[..13], again[..13], "header and nonce are the same");
        assert_ne!(once[13..], again[13..]);
    }

    #[test]
    fn plain_records_are_for_plain_folders_alone() {
        let plain = Sealing::Plain.seal(Table::Readings, b"key", b"value").unwrap();
        assert_eq!(plain, b"\x02\x01\x00\x00value");
        assert_eq!(open(&Sealing::Plain, Table::Readings, b"key", &plain), Ok(Bytes::from("value")));
        let refused = UnsealError::Key { found: 0, expected: 7 };
        assert_eq!(open(&sealing(1), Table::Readings, b"key", &plain), Err(refused));
        let sealed = sealing(1).seal(Table::Readings, b"key", b"value").unwrap();
        let refused = UnsealError::Key { found: 7, expected: 0 };
        assert_eq!(open(&Sealing::Plain, Table::Readings, b"key", &sealed), Err(refused));
    }

    #[test]
    fn a_full_chain_record_has_85_bytes() {
        let longest = crate::record::encode_session(
            Default::default(),
            Default::default(),
            &[0; crate::ledger::draft::CHAIN_LEN_MAX],
        );
        let key = [0, 0, 0, 1, 0x11];
        assert_eq!(sealing(1).seal(Table::Sessions, &key, &longest).unwrap().len(), 85);
        let usual = crate::record::encode_session(Default::default(), Default::default(), &[0; 41]);
        assert_eq!(sealing(1).seal(Table::Sessions, &key, &usual).unwrap().len(), 78);
    }

    #[test]
    fn no_nonce_is_used_twice_and_the_last_one_ends_it() {
        let sealing = sealing(OPENING_MAX);
        let first = sealing.seal(Table::Broker, b"\x01", b"").unwrap();
        let second = sealing.seal(Table::Broker, b"\x01", b"").unwrap();
        assert_ne!(first[..13], second[..13]);
        let Sealing::Data(data) = &sealing else { panic!("sealed") };
        data.next.store(COUNTER_MAX, Ordering::Relaxed);
        let last = sealing.seal(Table::Broker, b"\x01", b"last").unwrap();
        assert_eq!(open(&sealing, Table::Broker, b"\x01", &last), Ok(Bytes::from("last")));
        assert_eq!(sealing.seal(Table::Broker, b"\x01", b""), Err(SealError::Exhausted));
    }

    #[test]
    fn a_key_shows_nothing_of_itself() {
        let shown = format!("{:?}", Keys::Data(DataKey::new(NonZeroU16::MIN, Zeroizing::new([0xab; 32]))));
        assert_eq!(shown, "Data(DataKey(1, [secret]))");
    }
}
