//! The key agreement of a device (e2ee/PROTOCOL.md section 3).

use core::fmt;
use core::str::FromStr;

use thiserror::Error;

/// The key agreement a device uses, set at enrolment on both sides and never negotiated.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum Suite {
    /// X3DH over X25519.
    X3dh = 1,
    /// X3DH over X25519, and ML-KEM-768.
    Pqxdh = 2,
}

/// A text that names no suite.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("no suite; there are x3dh (1) and pqxdh (2)")]
pub struct UnknownSuite;

impl Suite {
    /// Every suite there is.
    pub const ALL: [Self; 2] = [Self::X3dh, Self::Pqxdh];

    /// The byte on the wire and in records.
    #[must_use]
    pub const fn as_byte(self) -> u8 {
        self as u8
    }

    /// The suite of a byte, if there is one.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::X3dh),
            2 => Some(Self::Pqxdh),
            _ => None,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::X3dh => "x3dh",
            Self::Pqxdh => "pqxdh",
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Suite {
    type Err = UnknownSuite;

    /// Its name, or its number.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "x3dh" | "1" => Ok(Self::X3dh),
            "pqxdh" | "2" => Ok(Self::Pqxdh),
            _ => Err(UnknownSuite),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_has_a_byte_a_name_and_a_number() {
        for (suite, byte, name, number) in [(Suite::X3dh, 1, "x3dh", "1"), (Suite::Pqxdh, 2, "pqxdh", "2")] {
            assert_eq!((suite.as_byte(), suite.name()), (byte, name));
            assert_eq!(Suite::from_byte(byte), Some(suite));
            assert_eq!((name.parse(), number.parse()), (Ok(suite), Ok(suite)));
        }
        assert_eq!((Suite::from_byte(0), Suite::from_byte(3)), (None, None));
        for text in ["", "0", "3", "X3DH", " 1"] {
            assert_eq!(text.parse::<Suite>(), Err(UnknownSuite), "{text:?}");
        }
    }
}
