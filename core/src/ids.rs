//! Identifiers: a type each, built by parsing, printed in one way.

use core::fmt;
use core::hash::{Hash, Hasher};
use core::str::FromStr;

use thiserror::Error;

/// The most bytes a [`DeviceId`] may have (e2ee/PROTOCOL.md section 1).
pub const DEVICE_ID_LEN_MAX: usize = 64;

/// A device's name: 1 to 64 bytes of `[A-Za-z0-9._-]` (e2ee/PROTOCOL.md section 1).
///
/// Held inline, so that firmware without an allocator has it too.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
pub struct DeviceId {
    // The bytes come first and the unused ones are zero, so that the derived order is the text's.
    bytes: [u8; DEVICE_ID_LEN_MAX],
    len: u8,
}

/// Why a text is no [`DeviceId`].
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum DeviceIdError {
    /// It is empty.
    #[error("a device id is empty; it has 1 to 64 characters of A-Z a-z 0-9 . _ -")]
    Empty,
    /// It is too long.
    #[error("a device id of {len} bytes; at most 64 are allowed")]
    TooLong {
        /// Bytes found.
        len: usize,
    },
    /// It holds a byte that is not allowed.
    #[error("byte 0x{byte:02x} at {at} in a device id; allowed are A-Z a-z 0-9 . _ -")]
    Forbidden {
        /// The byte found.
        byte: u8,
        /// Its index.
        at: usize,
    },
}

impl DeviceId {
    /// Parses a device id.
    ///
    /// # Errors
    ///
    /// [`DeviceIdError`] says which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, DeviceIdError> {
        let found = text.as_bytes();
        if found.is_empty() {
            return Err(DeviceIdError::Empty);
        }
        let too_long = DeviceIdError::TooLong { len: found.len() };
        let len = u8::try_from(found.len()).map_err(|_| too_long)?;
        let mut bytes = [0; DEVICE_ID_LEN_MAX];
        bytes.get_mut(..found.len()).ok_or(too_long)?.copy_from_slice(found);
        let allowed = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        match found.iter().position(|b| !allowed(b)) {
            Some(at) => Err(DeviceIdError::Forbidden { byte: found[at], at }),
            None => Ok(Self { bytes, len }),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Parsing admits ASCII alone, so the fallback is never taken.
        core::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The text's bytes, 1 to 64 of them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        // `len` is that of a slice of `bytes`, so the fallback is never taken.
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// Of the text alone: what lies behind it is the same in all, and is most of the bytes.
impl Hash for DeviceId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl FromStr for DeviceId {
    type Err = DeviceIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name($inner);

        impl $name {
            /// Wraps the number.
            #[must_use]
            pub const fn new(value: $inner) -> Self {
                Self(value)
            }
            /// The number.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }
            /// The number after it, or `None` at the end.
            #[must_use]
            pub const fn next(self) -> Option<Self> {
                match self.0.checked_add(1) {
                    Some(value) => Some(Self(value)),
                    None => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number!(
    /// A part of the store with a writer and a log of its own. A device never moves between them.
    Partition, u16);
number!(
    /// The commit sequence of a partition. The first record is 1; 0 stands before all.
    Offset, u64);
number!(
    /// One life of a partition's log: new when the folder is made and after a restore. A cursor of
    /// another epoch cannot be resumed, and says so.
    Epoch, u64);
number!(
    /// Ownership of a partition: a writer with an older fence is refused.
    Fence, u64);
number!(
    /// How often a device's session records have been written; the expectation of the next write.
    Version, u32);
number!(
    /// The registry's own number for a device, given once and never reused.
    DeviceNumber, u32);

impl Offset {
    /// Before the first record.
    pub const ZERO: Self = Self(0);
}

/// One command's identity: 16 random bytes, printed as 32 hexadecimal digits.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CommandId([u8; 16]);

/// A text that is no [`CommandId`].
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("a command id is 32 hexadecimal digits")]
pub struct CommandIdError;

impl CommandId {
    /// Wraps the bytes.
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

impl FromStr for CommandId {
    type Err = CommandIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.as_bytes();
        if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(CommandIdError);
        }
        u128::from_str_radix(text, 16).map(|n| Self(n.to_be_bytes())).map_err(|_| CommandIdError)
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(feature = "alloc")]
pub use with_alloc::{ClientId, ClientIdError};

#[cfg(feature = "alloc")]
mod with_alloc {
    use alloc::sync::Arc;
    use core::fmt;

    use thiserror::Error;

    /// An MQTT Client Identifier (section 3.1.3.1): 1 to 256 bytes of UTF-8 without U+0000.
    ///
    /// The standard allows 65 535 bytes and promises 23; this node takes 256.
    #[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
    pub struct ClientId(Arc<str>);

    /// Why a text is no [`ClientId`].
    #[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
    pub enum ClientIdError {
        /// It is empty; the caller decides whether to assign one.
        #[error("the client identifier is empty")]
        Empty,
        /// It is too long.
        #[error("a client identifier of {len} bytes; at most 256 are allowed")]
        TooLong {
            /// Bytes found.
            len: usize,
        },
        /// It holds U+0000 [MQTT-1.5.4-2].
        #[error("a client identifier with the character U+0000")]
        Nul,
    }

    impl ClientId {
        /// The most bytes one may have.
        pub const LEN_MAX: usize = 256;

        /// Parses a client identifier.
        ///
        /// # Errors
        ///
        /// [`ClientIdError`] says which rule the text breaks.
        pub fn parse(text: &str) -> Result<Self, ClientIdError> {
            match text.len() {
                0 => Err(ClientIdError::Empty),
                len if len > Self::LEN_MAX => Err(ClientIdError::TooLong { len }),
                _ if text.contains('\0') => Err(ClientIdError::Nul),
                _ => Ok(Self(Arc::from(text))),
            }
        }

        /// The text.
        #[must_use]
        pub fn as_str(&self) -> &str {
            &self.0
        }
    }

    impl fmt::Display for ClientId {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.pad(&self.0)
        }
    }

    impl fmt::Debug for ClientId {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            fmt::Debug::fmt(&*self.0, f)
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn device_id_has_1_to_64_plain_characters() {
        let longest = "a".repeat(64);
        for text in ["a", "pump-7", "A.b_c-9", &longest] {
            assert_eq!(DeviceId::parse(text).map(|id| id.to_string()), Ok(text.to_string()));
        }
        assert_eq!(DeviceId::parse(""), Err(DeviceIdError::Empty));
        assert_eq!(DeviceId::parse(&"a".repeat(65)), Err(DeviceIdError::TooLong { len: 65 }));
        assert_eq!(DeviceId::parse(&"a".repeat(300)), Err(DeviceIdError::TooLong { len: 300 }));
        for text in ["a/b", "a+b", "#", "a b", "ä", "a\0"] {
            assert!(matches!(DeviceId::parse(text), Err(DeviceIdError::Forbidden { .. })), "{text}");
        }
    }

    #[test]
    fn device_ids_order_as_their_texts() {
        let id = |text| DeviceId::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert!(id("a") < id("b") && id("ab") < id("b") && id("a") < id("aa"));
    }

    #[test]
    fn command_id_is_32_hexadecimal_digits() {
        let id = CommandId::new([7; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("+0".repeat(16).parse::<CommandId>(), Err(CommandIdError));
        assert_eq!("".parse::<CommandId>(), Err(CommandIdError));
    }
}
