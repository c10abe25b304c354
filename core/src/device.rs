//! A device as the registry knows it.

use alloc::collections::BTreeSet;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use thiserror::Error;

use crate::ids::{DeviceId, DeviceNumber};
use crate::suite::Suite;
use crate::time::UnixTime;

/// Whether a device may come in.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Standing {
    /// It may.
    Enrolled,
    /// It may not, since then.
    Revoked {
        /// When it was revoked.
        at: UnixTime,
    },
}

/// SHA-256 over a certificate's DER.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A label an operator puts on a device: 1 to 64 bytes of `[A-Za-z0-9._:=-]`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Tag(String);

/// A text that is no [`Tag`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("the tag {found:?}; a tag has 1 to 64 characters of A-Z a-z 0-9 . _ : = -")]
pub struct TagError {
    /// The text found.
    pub found: String,
}

impl Tag {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = TagError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'=' | b'-');
        if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(TagError { found: text.chars().take(80).collect() })
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A device as it was enrolled.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Device {
    /// Its name.
    pub id: DeviceId,
    /// The registry's number for it. What a caller puts here in a new device is ignored: the store
    /// gives the number with the first write.
    pub number: DeviceNumber,
    /// Its long-term Ed25519 public key (IK).
    pub identity_key: [u8; 32],
    /// The certificate it comes in with.
    pub certificate: Fingerprint,
    /// When that certificate ends.
    pub certificate_expires: UnixTime,
    /// Its key agreement.
    pub suite: Suite,
    /// Labels.
    pub tags: BTreeSet<Tag>,
    /// Its hardware class, for firmware campaigns; empty where it has none.
    pub class: String,
    /// When it was enrolled.
    pub enrolled_at: UnixTime,
    /// Whether it may come in.
    pub standing: Standing,
}

impl Device {
    /// Whether it may come in.
    #[must_use]
    pub const fn is_enrolled(&self) -> bool {
        matches!(self.standing, Standing::Enrolled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_has_no_spaces_and_is_never_empty() {
        assert!("site=north".parse::<Tag>().is_ok());
        assert!("".parse::<Tag>().is_err() && "a b".parse::<Tag>().is_err() && "ä".parse::<Tag>().is_err());
    }
}
