//! A UTF-8 Encoded String (section 1.5.4).

use std::fmt;

use bytes::Bytes;

use super::error::DecodeError;

/// UTF-8 without U+0000, a slice of the bytes it came in.
#[derive(Clone, Default, Eq, Hash, PartialEq)]
pub struct Text(Bytes);

impl Text {
    /// Takes bytes that are such a string.
    ///
    /// # Errors
    ///
    /// Ill-formed UTF-8, surrogates among it [MQTT-1.5.4-1], and U+0000 [MQTT-1.5.4-2].
    pub fn from_bytes(bytes: Bytes) -> Result<Self, DecodeError> {
        let text = std::str::from_utf8(&bytes).map_err(|_| DecodeError::NotUtf8)?;
        if text.as_bytes().contains(&0) { Err(DecodeError::Nul) } else { Ok(Self(bytes)) }
    }

    /// Takes a text that was parsed as something narrower before, a topic or a client identifier.
    pub(crate) fn from_checked(text: String) -> Self {
        debug_assert!(!text.as_bytes().contains(&0), "U+0000 in a text that was parsed");
        Self(Bytes::from(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Checked when it was made. `unsafe` would save the second look, and is forbidden here.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same text in memory of its own, so that what is kept long does not hold on to the
    /// whole read it came in.
    #[must_use]
    pub fn detach(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }
}

impl From<&'static str> for Text {
    /// # Panics
    ///
    /// On U+0000, which no literal of ours has.
    fn from(literal: &'static str) -> Self {
        assert!(!literal.as_bytes().contains(&0), "U+0000 in a literal");
        Self(Bytes::from_static(literal.as_bytes()))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_utf_8_without_nul_and_without_surrogates() {
        for good in [&b""[..], "grün".as_bytes(), &[0xEF, 0xBB, 0xBF], "\u{1}\u{FFFF}".as_bytes()] {
            assert!(Text::from_bytes(Bytes::copy_from_slice(good)).is_ok(), "{good:?}");
        }
        for (bad, error) in [
            (&[0xFF][..], DecodeError::NotUtf8),
            (&[0xED, 0xA0, 0x80], DecodeError::NotUtf8),
            (&[0xC0, 0x80], DecodeError::NotUtf8),
            (&[b'a', 0], DecodeError::Nul),
        ] {
            assert_eq!(Text::from_bytes(Bytes::copy_from_slice(bad)), Err(error), "{bad:?}");
        }
    }
}
