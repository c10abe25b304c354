//! How a webhook's requests are signed, so that who gets one knows that this node made it, and when.
//!
//! `Unhidra-Signature: t=SECONDS,v1=HEX`: HMAC-SHA-256 under the secret, over the decimal digits of
//! `t`, a dot, and the body. One `v1` for each secret, so that a secret can be replaced without a
//! request that its receiver cannot check.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use thiserror::Error;
use unhidra_certs::{FileError, read_private};
use unhidra_core::time::UnixTime;

/// The fewest bytes of a secret: half a digest.
const SECRET_LEN_MIN: usize = 16;

/// The most secrets in a file: the one that is going and the one that is coming, and some more.
const SECRETS_MAX: usize = 4;

/// The secrets of one webhook.
pub(crate) struct Signer(Vec<hmac::Key>);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Why requests cannot be signed.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The file cannot be read, or others may read it.
    #[error(transparent)]
    File(#[from] FileError),
    /// It holds too little, or too much.
    #[error("{} holds no secret: it has 1 to {SECRETS_MAX} lines of at least {SECRET_LEN_MIN} bytes each", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

impl Signer {
    /// Reads the file of secrets, one a line.
    pub(crate) fn load(path: &Path) -> Result<Self, SecretError> {
        let text = read_private(path)?;
        let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end).collect();
        let secrets: Vec<&[u8]> = lines.into_iter().filter(|line| !line.is_empty()).collect();
        let fits = (1..=SECRETS_MAX).contains(&secrets.len());
        if !fits || secrets.iter().any(|secret| secret.len() < SECRET_LEN_MIN) {
            return Err(SecretError::Malformed { path: path.into() });
        }
        Ok(Self(secrets.into_iter().map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret)).collect()))
    }

    /// The header's value for a body that is sent now.
    pub(crate) fn sign(&self, now: UnixTime, body: &[u8]) -> String {
        let seconds = now.as_s().to_string();
        let mut value = format!("t={seconds}");
        for key in &self.0 {
            let mut context = hmac::Context::with_key(key);
            [seconds.as_bytes(), b".", body].into_iter().for_each(|part| context.update(part));
            value.push_str(",v1=");
            for byte in context.sign().as_ref() {
                // Writing to a text does not fail.
                let _ = write!(value, "{byte:02x}");
            }
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use unhidra_certs::write_private;

    fn signer(text: &str) -> Result<Signer, SecretError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        write_private(&path, text.as_bytes()).unwrap();
        Signer::load(&path)
    }

    #[test]
    fn a_signature_is_over_the_time_and_the_body() {
        let signer = signer("0123456789abcdef\n").unwrap();
        let at = UnixTime::from_ms(1_800_000_000_999);
        // printf '1800000000.[]' | openssl dgst -sha256 -hmac 0123456789abcdef
        let expected = "t=1800000000,v1=e1c9c86fcb91d1f4b63d753230e7a8f5031a1cc678711efe3616ad2437383e5d";
        assert_eq!(signer.sign(at, b"[]"), expected);
        assert_ne!(signer.sign(at, b"[ ]"), expected);
        assert_ne!(signer.sign(UnixTime::from_s(1_800_000_001), b"[]")[13..], expected[13..]);
        assert_eq!(format!("{signer:?}"), "[secret]");
    }

    #[test]
    fn each_secret_signs_so_that_one_can_be_replaced() {
        let both = signer("0123456789abcdef\nfedcba9876543210\r\n").unwrap().sign(UnixTime::EPOCH, b"x");
        for secret in ["0123456789abcdef", "fedcba9876543210"] {
            let one = signer(secret).unwrap().sign(UnixTime::EPOCH, b"x");
            assert!(both.contains(one.strip_prefix("t=0,").unwrap()), "{both}");
        }
    }

    #[test]
    fn a_file_that_is_short_long_or_open_to_others_is_refused() {
        let line = "0123456789abcdef\n";
        for text in ["", "\n", "short", &line.repeat(5), &format!("{line}short")] {
            assert!(matches!(signer(text), Err(SecretError::Malformed { .. })), "{text:?}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, line).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Signer::load(&path), Err(SecretError::File(_))));
    }
}
