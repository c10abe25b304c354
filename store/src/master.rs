//! The master key: what wraps the key of a key ring, and never seals a record.
//!
//! [`MasterKey`] is all the ring asks of it, so that it may stay inside a device that does not give
//! it out. [`LocalMaster`] is the one this process holds itself: 32 bytes out of a file, or from a
//! secrets manager.
//!
//! ```text
//! wrapped   salt 32   AES-256-GCM of the key 32   tag 16
//! ```
//!
//! The key of the cipher is HKDF-SHA-256 of the master key under that salt, which is drawn anew for
//! each wrapping: the nonce is 0 always, and no pair of key and nonce comes twice.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;
use zeroize::Zeroizing;

/// A key's bytes.
pub type KeyBytes = Zeroizing<[u8; 32]>;

const SALT_LEN: usize = 32;
const TAG_LEN: usize = 16;

/// What the ring asks of a master key.
pub trait MasterKey: Send + Sync {
    /// Which it is: the same bytes whenever it is asked, and nothing of the key itself.
    fn id(&self) -> MasterId;

    /// Wraps a key, so that it opens in this `context` alone.
    ///
    /// # Errors
    ///
    /// [`MasterError`] where the key does not serve now.
    fn wrap(&self, context: &[u8], key: &KeyBytes) -> Result<Vec<u8>, MasterError>;

    /// Opens what [`wrap`](Self::wrap) made.
    ///
    /// # Errors
    ///
    /// [`MasterError::Forged`] where it was wrapped under another key, in another context, or was
    /// changed since.
    fn unwrap(&self, context: &[u8], wrapped: &[u8]) -> Result<KeyBytes, MasterError>;

    /// The data key of a folder of version 1, which was this key itself. `None` where the key never
    /// leaves its place: such a folder was never made under it.
    fn first_data_key(&self) -> Option<KeyBytes> {
        None
    }
}

/// What tells one master key from another. It may be shown.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MasterId([u8; 16]);

impl MasterId {
    /// Takes the bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for MasterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why a master key does not do what is asked.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum MasterError {
    /// What was to be opened was not wrapped under this key, or not here, or was changed.
    #[error("it does not open under this master key")]
    Forged,
    /// The key's place does not answer.
    #[error("the master key does not serve: {0}")]
    Unavailable(String),
}

/// A master key in this process's memory. Wiped when dropped.
pub struct LocalMaster {
    key: KeyBytes,
}

impl LocalMaster {
    /// Takes a key.
    #[must_use]
    pub const fn new(key: KeyBytes) -> Self {
        Self { key }
    }

    /// Draws one.
    ///
    /// # Errors
    ///
    /// [`MasterError::Unavailable`] where there are no random bytes.
    pub fn draw() -> Result<Self, MasterError> {
        draw().map(Self::new)
    }

    /// Reads a key as a person or a secrets manager writes it: 32 bytes as they are, or on one line
    /// 64 hexadecimal digits or base64. `None` for anything else.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if let Ok(bytes) = <[u8; 32]>::try_from(text) {
            return Some(Self::new(Zeroizing::new(bytes)));
        }
        let line = text.strip_suffix(b"\n").unwrap_or(text);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let key = if line.len() == 64 { from_hex(line) } else { from_base64(line) };
        key.map(Self::new)
    }

    /// The bytes, for the file they are kept in.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.key
    }

    fn cipher(&self, salt: &[u8; SALT_LEN]) -> Result<LessSafeKey, MasterError> {
        let key = derive(&*self.key, salt, &[b"unhidra master key wrap"]);
        let failed = |_| MasterError::Unavailable("the cipher takes no key".into());
        UnboundKey::new(&AES_256_GCM, &*key).map(LessSafeKey::new).map_err(failed)
    }
}

impl fmt::Debug for LocalMaster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalMaster([secret])")
    }
}

impl MasterKey for LocalMaster {
    fn id(&self) -> MasterId {
        let mut id = [0; 16];
        fill(&*self.key, &[], &[b"unhidra master key id"], &mut id);
        MasterId(id)
    }

    fn wrap(&self, context: &[u8], key: &KeyBytes) -> Result<Vec<u8>, MasterError> {
        let mut salt = [0; SALT_LEN];
        rand::fill(&mut salt).map_err(|_| no_random())?;
        let mut wrapped = Vec::with_capacity(SALT_LEN + key.len() + TAG_LEN);
        wrapped.extend_from_slice(&salt);
        wrapped.extend_from_slice(&**key);
        let (_, body) = wrapped.split_at_mut(SALT_LEN);
        let tag = self.cipher(&salt)?.seal_in_place_separate_tag(zero_nonce(), Aad::from(context), body);
        let tag = tag.map_err(|_| MasterError::Unavailable("the cipher failed".into()))?;
        wrapped.extend_from_slice(tag.as_ref());
        Ok(wrapped)
    }

    fn unwrap(&self, context: &[u8], wrapped: &[u8]) -> Result<KeyBytes, MasterError> {
        let (salt, sealed) = wrapped.split_first_chunk::<SALT_LEN>().ok_or(MasterError::Forged)?;
        let len = sealed.len().checked_sub(TAG_LEN).filter(|len| *len == 32).ok_or(MasterError::Forged)?;
        let (ciphertext, tag) = sealed.split_at(len);
        let mut key = Zeroizing::new([0; 32]);
        let opened =
            self.cipher(salt)?.open_separate_gather(zero_nonce(), Aad::from(context), ciphertext, tag, &mut *key);
        opened.map_err(|_| MasterError::Forged)?;
        Ok(key)
    }

    fn first_data_key(&self) -> Option<KeyBytes> {
        Some(self.key.clone())
    }
}

/// 32 random bytes.
pub(crate) fn draw() -> Result<KeyBytes, MasterError> {
    let mut key = Zeroizing::new([0; 32]);
    rand::fill(&mut *key).map_err(|_| no_random())?;
    Ok(key)
}

fn no_random() -> MasterError {
    MasterError::Unavailable("there are no random bytes".into())
}

/// For keys that are used once.
pub(crate) fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// HKDF-SHA-256 to a key.
pub(crate) fn derive(key: &[u8], salt: &[u8], info: &[&[u8]]) -> KeyBytes {
    let mut derived = Zeroizing::new([0; 32]);
    fill(key, salt, info, &mut *derived);
    derived
}

/// HKDF-SHA-256. `out` is always short enough for it, so nothing fails.
pub(crate) fn fill(key: &[u8], salt: &[u8], info: &[&[u8]], out: &mut [u8]) {
    struct Len(usize);
    impl hkdf::KeyType for Len {
        fn len(&self) -> usize {
            self.0
        }
    }
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(key);
    let expanded = prk.expand(info, Len(out.len())).and_then(|okm| okm.fill(out));
    assert!(expanded.is_ok(), "HKDF gives at least 8 160 bytes");
}

fn from_hex(line: &[u8]) -> Option<KeyBytes> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, _) = line.as_chunks::<2>();
    let mut key = Zeroizing::new([0; 32]);
    for (byte, [high, low]) in key.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(key)
}

fn from_base64(line: &[u8]) -> Option<KeyBytes> {
    // 44 digits, of which the last may stand for nothing.
    let mut decoded = Zeroizing::new([0; 36]);
    if line.len() != 44 || STANDARD.decode_slice(line, &mut *decoded).ok()? != 32 {
        return None;
    }
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(decoded.get(..32)?);
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master(byte: u8) -> LocalMaster {
        LocalMaster::new(Zeroizing::new([byte; 32]))
    }

    #[test]
    fn a_wrapped_key_opens_under_its_master_and_in_its_context_alone() {
        let key = Zeroizing::new([7; 32]);
        let wrapped = master(1).wrap(b"here", &key).unwrap();
        assert_eq!(master(1).unwrap(b"here", &wrapped), Ok(key.clone()));
        assert_eq!(master(1).unwrap(b"there", &wrapped), Err(MasterError::Forged));
        assert_eq!(master(2).unwrap(b"here", &wrapped), Err(MasterError::Forged));
        for at in 0..wrapped.len() {
            let mut changed = wrapped.clone();
            changed[at] ^= 1;
            assert_eq!(master(1).unwrap(b"here", &changed), Err(MasterError::Forged), "byte {at}");
            assert_eq!(master(1).unwrap(b"here", &wrapped[..at]), Err(MasterError::Forged), "cut at {at}");
        }
        assert_ne!(master(1).wrap(b"here", &key).unwrap(), wrapped, "each wrapping has a key of its own");
    }

    #[test]
    fn master_keys_are_told_apart_by_what_may_be_shown() {
        assert_eq!(master(1).id(), master(1).id());
        assert_ne!(master(1).id(), master(2).id());
        assert_eq!(master(1).id().to_string().len(), 32);
        assert_eq!(format!("{:?}", master(0xab)), "LocalMaster([secret])");
    }

    #[test]
    fn a_key_is_read_as_bytes_as_digits_and_as_base64() {
        let key = [0xab; 32];
        let base64 = STANDARD.encode(key);
        for text in [
            key.to_vec(),
            "ab".repeat(32).into_bytes(),
            format!("{}\n", "AB".repeat(32)).into_bytes(),
            format!("{}\r\n", "ab".repeat(32)).into_bytes(),
            base64.clone().into_bytes(),
            format!("{base64}\n").into_bytes(),
        ] {
            assert_eq!(LocalMaster::parse(&text).map(|master| *master.as_bytes()), Some(key), "{text:?}");
        }
        let short = STANDARD.encode([1; 31]);
        let long = STANDARD.encode([1; 33]);
        for text in
            [&b""[..], b"hunter2", &[1; 31], &[1; 33], &[b'g'; 64], &[b'a'; 63], short.as_bytes(), long.as_bytes()]
        {
            assert!(LocalMaster::parse(text).is_none(), "{text:?}");
        }
    }
}
