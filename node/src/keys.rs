//! Key files: 32 random bytes each, as one line of hexadecimal digits, for their owner alone.

use std::fmt;
use std::path::{Path, PathBuf};

use rand_core::CryptoRng;
use thiserror::Error;
use unhidra_certs::{FileError, read_private, write_private};
use zeroize::{Zeroize, Zeroizing};

/// 32 secret bytes, wiped when dropped.
pub struct Secret(Zeroizing<[u8; 32]>);

impl Secret {
    /// Draws new ones.
    pub fn draw(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *bytes);
        Self(bytes)
    }

    /// The bytes, for whoever makes a key of them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Why a key cannot be had.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// It cannot be read or written, or others may read it.
    #[error(transparent)]
    File(#[from] FileError),
    /// It does not hold a key.
    #[error("{} holds {len} bytes that are no key; a key is 64 hexadecimal digits on one line", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Bytes in it.
        len: usize,
    },
}

/// Reads a key file.
///
/// # Errors
///
/// [`KeyFileError`].
pub fn load(path: &Path) -> Result<Secret, KeyFileError> {
    let text = read_private(path)?;
    let malformed = || KeyFileError::Malformed { path: path.into(), len: text.len() };
    let line = text.strip_suffix(b"\n").unwrap_or(&text);
    let (pairs, rest) = line.as_chunks::<2>();
    if pairs.len() != 32 || !rest.is_empty() {
        return Err(malformed());
    }
    let mut bytes = Zeroizing::new([0; 32]);
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        let (Some(high), Some(low)) = (digit(*high), digit(*low)) else {
            return Err(malformed());
        };
        *byte = high << 4 | low;
    }
    Ok(Secret(bytes))
}

/// Writes a key file, whole or not at all.
///
/// # Errors
///
/// [`KeyFileError::File`].
pub fn save(path: &Path, secret: &Secret) -> Result<(), KeyFileError> {
    let mut line = Zeroizing::new([b'\n'; 65]);
    for (pair, byte) in line.chunks_exact_mut(2).zip(secret.as_bytes()) {
        pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0x0f)]]);
    }
    let written = write_private(path, &*line);
    line.zeroize();
    Ok(written?)
}

/// Reads a key file, or makes it where there is none. The caller holds the folder's lock.
///
/// # Errors
///
/// [`KeyFileError`].
pub fn load_or_make(path: &Path, rng: &mut impl CryptoRng) -> Result<Secret, KeyFileError> {
    if exists(path)? {
        return load(path);
    }
    let secret = Secret::draw(rng);
    save(path, &secret)?;
    Ok(secret)
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn exists(path: &Path) -> Result<bool, FileError> {
    path.try_exists().map_err(|source| FileError::Read { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn rng() -> StdRng {
        StdRng::seed_from_u64(7)
    }

    #[test]
    fn a_key_is_made_once_and_read_after() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.key");
        let mut rng = rng();
        let made = load_or_make(&path, &mut rng).unwrap();
        let read = load_or_make(&path, &mut rng).unwrap();
        assert_eq!(made.as_bytes(), read.as_bytes());
        assert_ne!(Secret::draw(&mut rng).as_bytes(), made.as_bytes());
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!((text.len(), text.trim().len()), (65, 64));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    }

    #[test]
    fn a_key_file_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.key");
        save(&path, &Secret::draw(&mut rng())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let refused = load_or_make(&path, &mut rng()).unwrap_err().to_string();
        assert!(refused.contains("mode 0644") && refused.contains("chmod 600"), "{refused}");
    }

    #[test]
    fn what_is_no_key_is_refused_and_never_shown_or_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.key");
        let all_but_one = "a".repeat(63);
        for text in
            ["", "\n", "hunter2", &all_but_one, &"g".repeat(64), &"a".repeat(65), &"a".repeat(66), &"é".repeat(32)]
        {
            write_private(&path, text.as_bytes()).unwrap();
            let refused = load_or_make(&path, &mut rng()).unwrap_err().to_string();
            assert!(refused.contains("64 hexadecimal digits") && !refused.contains("hunter2"), "{refused}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        write_private(&path, "AB".repeat(32).as_bytes()).unwrap();
        assert_eq!(load(&path).unwrap().as_bytes(), &[0xab; 32]);
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", Secret::draw(&mut rng())), "[secret]");
    }
}
