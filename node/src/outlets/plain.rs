//! JSON that every reader takes.
//!
//! A body is a device's own words, and stands among those of other devices: what one reader cannot take of
//! it, it would not take of them either. RFC 8259 leaves to readers how deep values nest (section 9), which
//! numbers they hold (section 6), and what they make of half a surrogate pair (section 8.2).

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// How deep its values may nest. Readers are known to stop at 64.
const DEPTH_MAX: u8 = 32;

/// Whether it is one value, of at most [`DEPTH_MAX`] in each other, whose numbers a double can hold and whose
/// texts are Unicode.
pub(super) fn is_plain(text: &str) -> bool {
    let mut reader = serde_json::Deserializer::from_str(text);
    Plain { depth_left: DEPTH_MAX }.deserialize(&mut reader).is_ok() && reader.end().is_ok()
}

/// Reads a value and keeps nothing of it.
#[derive(Clone, Copy)]
struct Plain {
    depth_left: u8,
}

impl Plain {
    fn inner<E: Error>(self) -> Result<Self, E> {
        let depth_left = self.depth_left.checked_sub(1).ok_or_else(|| E::custom("it nests too deep"))?;
        Ok(Self { depth_left })
    }
}

impl<'de> DeserializeSeed<'de> for Plain {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Plain {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        while values.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        while values.next_entry_seed(inner, inner)?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_every_reader_takes_is_plain() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let maps = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        for text in
            ["1", "-2.5e3", "null", "true", " {\"a\": [1, {\"b\": \"\\ud83d\\ude00\"}]} ", "18446744073709551616"]
        {
            assert!(is_plain(text), "{text}");
        }
        assert!(is_plain(&nested(32)) && is_plain(&maps(32)));
        assert!(!is_plain(&nested(33)) && !is_plain(&maps(33)) && !is_plain(&nested(30_000)));
        for text in
            ["", "1 2", "1e999", "[1e999999]", "\"\\ud800\"", "{\"\\udc00\": 1}", "{1: 2}", "NaN", "[1,]", "\"\u{1}\""]
        {
            assert!(!is_plain(text), "{text}");
        }
    }
}
