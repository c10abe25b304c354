//! The key ring as a plain value, and its file.
//!
//! ```text
//! master key --wraps--> ring key --wraps--> data keys --HKDF--> a key for each opening of a folder
//! ```
//!
//! ```text
//! magic "UNHKEYS" 7, version 1 = 1
//! ring id 16          drawn with the ring; the folder's format file names it too
//! generation 8        one more with each write
//! next key id 2       no id is given twice
//! slots 1             1, or 2 while the master key is changed; each:
//!   master id 16, length 2, the ring key as that master key wraps it
//! keys 2              each:
//!   key id 2, purpose 1, state 1, created at 8, rotated at 8 (0: never)
//!   AES-256-GCM of the data key 32, tag 16
//! HMAC-SHA-256 of all before it 32
//! ```
//!
//! The ring key is drawn anew for each write, so the keys derived of it for the data keys and for
//! the HMAC serve one file alone, and the nonce of a data key is its place in it. The associated
//! data of a data key is the ring's id and generation and all that the file says of the key. So no
//! entry of another file, of another folder or of another time opens here, and the HMAC says of the
//! whole that it is one. An old file put back whole is known by its generation: each partition
//! remembers the newest it has seen (`embedded/database.rs`).

use std::fmt;
use std::num::NonZeroU16;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{hmac, rand};
use thiserror::Error;
use unhidra_core::time::UnixTime;
use zeroize::Zeroizing;

use crate::master::{KeyBytes, MasterError, MasterId, MasterKey, derive, draw};
use crate::sealed::DataKey;

const MAGIC: &[u8; 7] = b"UNHKEYS";
const VERSION: u8 = 1;

/// The most keys a ring holds. Each rotation adds one for each purpose, and each that expires goes.
pub(crate) const KEYS_MAX: usize = 1024;

/// The most bytes a ring's file may have.
pub(crate) const FILE_LEN_MAX: u64 = 256 * 1024;

/// The most bytes a wrapped ring key may have, so that a token's own format fits.
const WRAPPED_LEN_MAX: usize = 4096;

const MAC_LEN: usize = 32;
const TAG_LEN: usize = 16;

/// What a data key seals.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Purpose {
    /// Everything: the one key of a folder of version 1. It only opens.
    All = 0,
    /// Sessions and prekeys.
    Sessions = 1,
    /// Readings and commands.
    Readings = 2,
    /// What the broker keeps.
    Broker = 3,
    /// The registry, the log of acts and the node's own records.
    Registry = 4,
}

impl Purpose {
    /// Those a ring has an active key for.
    pub const SEALING: [Self; 4] = [Self::Sessions, Self::Readings, Self::Broker, Self::Registry];

    /// Its name, for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Sessions => "sessions",
            Self::Readings => "readings",
            Self::Broker => "broker",
            Self::Registry => "registry",
        }
    }

    /// Its place in [`Purpose::SEALING`]; [`Purpose::All`] seals nothing and has none.
    pub(crate) const fn place(self) -> Option<usize> {
        (self as usize).checked_sub(1)
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::All,
            1 => Self::Sessions,
            2 => Self::Readings,
            3 => Self::Broker,
            4 => Self::Registry,
            _ => return None,
        })
    }
}

/// What a data key may do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyState {
    /// It seals and opens.
    Active,
    /// It opens what it has sealed, and seals nothing.
    Rotated {
        /// Since when.
        at: UnixTime,
    },
}

/// A data key in the ring.
#[derive(Clone, Debug)]
pub(crate) struct RingEntry {
    pub(crate) purpose: Purpose,
    pub(crate) created_at: UnixTime,
    pub(crate) state: KeyState,
    pub(crate) key: Arc<DataKey>,
}

impl RingEntry {
    pub(crate) fn id(&self) -> NonZeroU16 {
        self.key.id()
    }
}

/// What names a ring, and the folder it is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct RingId(pub(crate) [u8; 16]);

impl RingId {
    /// Reads what it prints.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != 16 || !rest.is_empty() {
            return None;
        }
        let mut id = [0; 16];
        for (byte, pair) in id.iter_mut().zip(pairs) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(id))
    }
}

impl fmt::Display for RingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why a ring's file is none, or not this folder's.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum RingError {
    /// It is of another version.
    #[error("it is of version {found}; this program reads version {VERSION}")]
    Version {
        /// Its version.
        found: u8,
    },
    /// It is no ring, or not all of it.
    #[error("it is no key ring, or not all of one: {0}")]
    Malformed(&'static str),
    /// It is cut off.
    #[error("it ends within {0}")]
    Short(&'static str),
    /// It is wrapped under another master key.
    #[error("its keys are wrapped under the master key {held}, and the one given is {given}")]
    OtherMaster {
        /// Under which.
        held: MasterId,
        /// Which was given.
        given: MasterId,
    },
    /// It was changed, or put together of parts.
    #[error("it does not authenticate: it was changed, or put together of parts of others")]
    Forged,
    /// It is another folder's.
    #[error("it belongs to another folder")]
    OtherFolder,
    /// It holds as many keys as it may.
    #[error("it holds {KEYS_MAX} keys, as many as it may; some must expire before another is made")]
    Full,
    /// The master key does not serve.
    #[error(transparent)]
    Master(#[from] MasterError),
}

/// A folder's data keys.
#[derive(Clone)]
pub(crate) struct Ring {
    pub(crate) id: RingId,
    pub(crate) generation: u64,
    next: u16,
    pub(crate) keys: Vec<RingEntry>,
}

/// A ring out of its file.
pub(crate) struct Decoded {
    pub(crate) ring: Ring,
    /// The other master key it is wrapped under, while the master key is changed.
    pub(crate) other: Option<MasterId>,
}

impl Ring {
    /// A new folder's: an active key for each purpose.
    pub(crate) fn draw(now: UnixTime) -> Result<Self, RingError> {
        let mut id = [0; 16];
        rand::fill(&mut id).map_err(|_| MasterError::Unavailable("there are no random bytes".into()))?;
        Self { id: RingId(id), generation: 0, next: 1, keys: Vec::new() }.rotated(&Purpose::SEALING, now)
    }

    /// The ring of a folder of version 1: its one key, which seals no more, and new ones.
    pub(crate) fn of_first_key(first: DataKey, now: UnixTime) -> Result<Self, RingError> {
        let mut ring = Self::draw(now)?;
        // What it has sealed names it by its id, so the new ones begin behind it.
        ring.keys.clear();
        ring.next = first.id().get().saturating_add(1);
        let state = KeyState::Rotated { at: now };
        ring.keys.push(RingEntry { purpose: Purpose::All, created_at: now, state, key: Arc::new(first) });
        ring.rotated(&Purpose::SEALING, now)
    }

    /// Whether it was made around this first key.
    pub(crate) fn is_around(&self, first: &DataKey) -> bool {
        let found = self.key(first.id().get());
        found.is_some_and(|entry| entry.purpose == Purpose::All && entry.key.as_bytes() == first.as_bytes())
    }

    /// The ring with a new active key for each of `purposes`; those before them only open.
    pub(crate) fn rotated(&self, purposes: &[Purpose], now: UnixTime) -> Result<Self, RingError> {
        let mut next = self.clone();
        for purpose in purposes {
            if next.keys.len() >= KEYS_MAX {
                return Err(RingError::Full);
            }
            let id = NonZeroU16::new(next.next).ok_or(RingError::Full)?;
            // 0 says that no id is left.
            next.next = next.next.checked_add(1).unwrap_or(0);
            for entry in next.keys.iter_mut().filter(|entry| entry.purpose == *purpose) {
                if entry.state == KeyState::Active {
                    entry.state = KeyState::Rotated { at: now };
                }
            }
            let key = Arc::new(DataKey::new(id, draw()?));
            next.keys.push(RingEntry { purpose: *purpose, created_at: now, state: KeyState::Active, key });
        }
        next.generation = next.generation.saturating_add(1);
        Ok(next)
    }

    /// The ring without these keys, of which none may be active.
    pub(crate) fn without(&self, ids: &[NonZeroU16]) -> Self {
        let mut next = self.clone();
        next.keys.retain(|entry| entry.state == KeyState::Active || !ids.contains(&entry.id()));
        next.generation = next.generation.saturating_add(1);
        next
    }

    /// The same keys, to be written anew.
    pub(crate) fn again(&self) -> Self {
        Self { generation: self.generation.saturating_add(1), ..self.clone() }
    }

    /// A key by its id.
    pub(crate) fn key(&self, id: u16) -> Option<&RingEntry> {
        self.keys.iter().find(|entry| entry.id().get() == id)
    }

    /// The key that seals for a purpose.
    pub(crate) fn active(&self, purpose: Purpose) -> Option<&RingEntry> {
        self.keys.iter().find(|entry| entry.purpose == purpose && entry.state == KeyState::Active)
    }

    /// Its file, for whoever holds one of `masters`.
    pub(crate) fn encode(&self, masters: &[&dyn MasterKey]) -> Result<Vec<u8>, RingError> {
        let ring_key = draw()?;
        let mut file = Vec::with_capacity(256 + self.keys.len() * 72);
        file.extend_from_slice(MAGIC);
        file.push(VERSION);
        file.extend_from_slice(&self.id.0);
        file.extend_from_slice(&self.generation.to_be_bytes());
        file.extend_from_slice(&self.next.to_be_bytes());
        file.push(u8::try_from(masters.len()).map_err(|_| RingError::Full)?);
        for master in masters {
            let wrapped = master.wrap(&self.slot_context(master.id()), &ring_key)?;
            let len = u16::try_from(wrapped.len()).ok().filter(|len| usize::from(*len) <= WRAPPED_LEN_MAX);
            let len = len.ok_or(RingError::Malformed("the wrapped ring key is too long"))?;
            file.extend_from_slice(master.id().as_bytes());
            file.extend_from_slice(&len.to_be_bytes());
            file.extend_from_slice(&wrapped);
        }
        file.extend_from_slice(&u16::try_from(self.keys.len()).map_err(|_| RingError::Full)?.to_be_bytes());
        let cipher = cipher(&ring_key)?;
        for (place, entry) in self.keys.iter().enumerate() {
            let head = head(entry);
            let mut sealed = Zeroizing::new(*entry.key.as_bytes());
            let ad = Aad::from(self.entry_context(&head));
            let tag = cipher.seal_in_place_separate_tag(nonce(place), ad, &mut *sealed);
            file.extend_from_slice(&head);
            file.extend_from_slice(&*sealed);
            file.extend_from_slice(tag.map_err(|_| RingError::Forged)?.as_ref());
        }
        let mac = hmac::sign(&mac_key(&ring_key), &file);
        file.extend_from_slice(mac.as_ref());
        Ok(file)
    }

    /// Reads a file.
    pub(crate) fn decode(file: &[u8], master: &dyn MasterKey) -> Result<Decoded, RingError> {
        let mut input = Input(file);
        if input.take::<7>("the magic")? != MAGIC {
            return Err(RingError::Malformed("it begins with something else"));
        }
        match input.take::<1>("the version")? {
            [VERSION] => {}
            [found] => return Err(RingError::Version { found: *found }),
        }
        let id = RingId(*input.take("the ring's id")?);
        let generation = u64::from_be_bytes(*input.take("the generation")?);
        let next = u16::from_be_bytes(*input.take("the next key's id")?);
        let mut ring = Self { id, generation, next, keys: Vec::new() };
        let [slots] = *input.take("the slots")?;
        let (mut wrapped, mut other) = (None, None);
        for _ in 0..slots {
            let held = MasterId::new(*input.take("a master key's id")?);
            let len = u16::from_be_bytes(*input.take("a wrapped key's length")?);
            let bytes = input.bytes(usize::from(len), "a wrapped key")?;
            if held == master.id() && wrapped.is_none() {
                wrapped = Some(bytes);
            } else {
                other = Some(held);
            }
        }
        let Some(wrapped) = wrapped else {
            let held = other.ok_or(RingError::Malformed("it is wrapped under no master key"))?;
            return Err(RingError::OtherMaster { held, given: master.id() });
        };
        let ring_key = master.unwrap(&ring.slot_context(master.id()), wrapped).map_err(|error| match error {
            MasterError::Forged => RingError::Forged,
            other => RingError::Master(other),
        })?;
        let (signed, mac) = file.split_last_chunk::<MAC_LEN>().ok_or(RingError::Short("the end"))?;
        hmac::verify(&mac_key(&ring_key), signed, mac).map_err(|_| RingError::Forged)?;
        let cipher = cipher(&ring_key)?;
        let count = u16::from_be_bytes(*input.take("the keys")?);
        for place in 0..usize::from(count) {
            let entry = ring.entry(&mut input, &cipher, place)?;
            ring.keys.push(entry);
        }
        if input.0.len() != MAC_LEN {
            return Err(RingError::Malformed("something follows its keys"));
        }
        Ok(Decoded { ring, other })
    }

    /// The master keys a file is for, in their order. Says nothing of whether it is whole.
    pub(crate) fn masters(file: &[u8]) -> Result<Vec<MasterId>, RingError> {
        let mut input = Input(file);
        input.bytes(HEADER_LEN, "the header")?;
        let [slots] = *input.take("the slots")?;
        let mut masters = Vec::new();
        for _ in 0..slots {
            masters.push(MasterId::new(*input.take("a master key's id")?));
            let len = u16::from_be_bytes(*input.take("a wrapped key's length")?);
            input.bytes(usize::from(len), "a wrapped key")?;
        }
        Ok(masters)
    }

    fn entry(&self, input: &mut Input<'_>, cipher: &LessSafeKey, place: usize) -> Result<RingEntry, RingError> {
        let head = *input.take::<HEAD_LEN>("a key")?;
        let sealed: &[u8; 32] = input.take("a wrapped data key")?;
        let tag: &[u8; TAG_LEN] = input.take("a data key's tag")?;
        let mut key = Zeroizing::new([0; 32]);
        let ad = Aad::from(self.entry_context(&head));
        cipher.open_separate_gather(nonce(place), ad, sealed, tag, &mut *key).map_err(|_| RingError::Forged)?;
        let mut head = Input(&head);
        let id = u16::from_be_bytes(*head.take("a key's id")?);
        let id = NonZeroU16::new(id).ok_or(RingError::Malformed("a key with the id 0"))?;
        let [purpose, state] = *head.take("a key's purpose")?;
        let purpose = Purpose::from_byte(purpose).ok_or(RingError::Malformed("a key of no known purpose"))?;
        let created_at = UnixTime::from_ms(u64::from_be_bytes(*head.take("created at")?));
        let at = UnixTime::from_ms(u64::from_be_bytes(*head.take("rotated at")?));
        let state = match state {
            0 => KeyState::Active,
            1 => KeyState::Rotated { at },
            _ => return Err(RingError::Malformed("a key in no known state")),
        };
        Ok(RingEntry { purpose, created_at, state, key: Arc::new(DataKey::new(id, key)) })
    }

    /// What a wrapped ring key is bound to.
    fn slot_context(&self, master: MasterId) -> Vec<u8> {
        [&b"unhidra keys slot"[..], &[VERSION], &self.id.0, &self.generation.to_be_bytes(), master.as_bytes()].concat()
    }

    /// What a wrapped data key is bound to.
    fn entry_context(&self, head: &[u8; HEAD_LEN]) -> Vec<u8> {
        [&b"unhidra keys entry"[..], &[VERSION], &self.id.0, &self.generation.to_be_bytes(), head].concat()
    }
}

/// What stands before the slots.
const HEADER_LEN: usize = 7 + 1 + 16 + 8 + 2;

/// What the file says of a key.
const HEAD_LEN: usize = 20;

fn head(entry: &RingEntry) -> [u8; HEAD_LEN] {
    let (state, rotated_at) = match entry.state {
        KeyState::Active => (0, 0),
        KeyState::Rotated { at } => (1, at.as_ms()),
    };
    let [high, low] = entry.id().get().to_be_bytes();
    let mut head = [0; HEAD_LEN];
    let (first, rest) = head.split_at_mut(4);
    let (created, rotated) = rest.split_at_mut(8);
    first.copy_from_slice(&[high, low, entry.purpose as u8, state]);
    created.copy_from_slice(&entry.created_at.as_ms().to_be_bytes());
    rotated.copy_from_slice(&rotated_at.to_be_bytes());
    head
}

fn cipher(ring_key: &KeyBytes) -> Result<LessSafeKey, RingError> {
    let key = derive(&**ring_key, &[], &[b"unhidra keys data"]);
    UnboundKey::new(&AES_256_GCM, &*key).map(LessSafeKey::new).map_err(|_| RingError::Forged)
}

fn mac_key(ring_key: &KeyBytes) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &*derive(&**ring_key, &[], &[b"unhidra keys whole"]))
}

/// The place of a data key in its file, under a key that serves that file alone.
fn nonce(place: usize) -> Nonce {
    let mut bytes = [0; 12];
    let (_, last) = bytes.split_at_mut(4);
    last.copy_from_slice(&(place as u64).to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// What is left of a file.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take<const N: usize>(&mut self, what: &'static str) -> Result<&'a [u8; N], RingError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(RingError::Short(what))?;
        self.0 = rest;
        Ok(taken)
    }

    fn bytes(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], RingError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(RingError::Short(what))?;
        self.0 = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests;
