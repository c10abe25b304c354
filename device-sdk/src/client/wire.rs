//! The data types of MQTT 5 (section 1.5): read from a packet, written into a buffer.

use super::decode::DecodeError;

/// The largest value of a Variable Byte Integer: four bytes of seven bits (section 1.5.5).
pub(crate) const VARINT_MAX: usize = 268_435_455;

/// Takes the fields of a packet off its front.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All that is left.
    pub(crate) const fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        let (byte, rest) = self.rest.split_first().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*bytes))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    /// A Variable Byte Integer, in as few bytes as it can be [MQTT-1.5.5-1].
    pub(crate) fn varint(&mut self) -> Result<usize, DecodeError> {
        let mut varint = Varint::new();
        loop {
            if let Some(value) = varint.push(self.u8()?)? {
                return Ok(value);
            }
        }
    }

    pub(crate) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// A UTF-8 Encoded String without U+0000 [MQTT-1.5.4-1] [MQTT-1.5.4-2].
    pub(crate) fn string(&mut self) -> Result<&'a str, DecodeError> {
        let text = core::str::from_utf8(self.binary()?).map_err(|_| DecodeError::Text)?;
        if text.contains('\0') { Err(DecodeError::Text) } else { Ok(text) }
    }
}

/// A Variable Byte Integer that arrives byte by byte.
pub(crate) struct Varint {
    value: usize,
    len: u32,
}

impl Varint {
    pub(crate) const fn new() -> Self {
        Self { value: 0, len: 0 }
    }

    /// Takes one byte more; gives the value with its last one.
    pub(crate) fn push(&mut self, byte: u8) -> Result<Option<usize>, DecodeError> {
        self.value |= usize::from(byte & 0x7F) << (7 * self.len);
        self.len += 1;
        match byte & 0x80 {
            0 if byte == 0 && self.len > 1 => Err(DecodeError::Varint),
            0 => Ok(Some(self.value)),
            _ if self.len == 4 => Err(DecodeError::Varint),
            _ => Ok(None),
        }
    }
}

/// The bytes `value` takes as a Variable Byte Integer.
pub(crate) const fn varint_len(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

/// The buffer is too short for what was to be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct NoRoom;

/// Writes fields one after another.
pub(crate) struct Writer<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl<'a> Writer<'a> {
    pub(crate) const fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, len: 0 }
    }

    /// The bytes written.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        let end = self.len.checked_add(bytes.len()).ok_or(NoRoom)?;
        self.buffer.get_mut(self.len..end).ok_or(NoRoom)?.copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }

    pub(crate) fn u8(&mut self, value: u8) -> Result<(), NoRoom> {
        self.bytes(&[value])
    }

    pub(crate) fn u16(&mut self, value: u16) -> Result<(), NoRoom> {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn u32(&mut self, value: u32) -> Result<(), NoRoom> {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn varint(&mut self, value: usize) -> Result<(), NoRoom> {
        if value > VARINT_MAX {
            return Err(NoRoom);
        }
        let mut rest = value;
        loop {
            let low = (rest & 0x7F) as u8;
            rest >>= 7;
            if rest == 0 {
                return self.u8(low);
            }
            self.u8(low | 0x80)?;
        }
    }

    /// A UTF-8 Encoded String: its length in two bytes, then its bytes (section 1.5.4).
    pub(crate) fn string(&mut self, text: &str) -> Result<(), NoRoom> {
        self.u16(u16::try_from(text.len()).map_err(|_| NoRoom)?)?;
        self.bytes(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_varint_is_as_section_1_5_5_shows_it() {
        for (value, bytes) in [
            (0, &[0x00][..]),
            (127, &[0x7F]),
            (128, &[0x80, 0x01]),
            (16_383, &[0xFF, 0x7F]),
            (16_384, &[0x80, 0x80, 0x01]),
            (2_097_151, &[0xFF, 0xFF, 0x7F]),
            (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
            (VARINT_MAX, &[0xFF, 0xFF, 0xFF, 0x7F]),
        ] {
            let mut buffer = [0; 4];
            let mut writer = Writer::new(&mut buffer);
            assert_eq!(writer.varint(value), Ok(()));
            let len = writer.len();
            assert_eq!((&buffer[..len], varint_len(value)), (bytes, bytes.len()));
            assert_eq!(Reader::new(bytes).varint(), Ok(value));
        }
        assert_eq!(Writer::new(&mut [0; 8]).varint(VARINT_MAX + 1), Err(NoRoom));
    }

    #[test]
    fn a_varint_of_five_bytes_or_with_idle_bytes_is_malformed() {
        assert_eq!(Reader::new(&[0xFF, 0xFF, 0xFF, 0xFF, 0x01]).varint(), Err(DecodeError::Varint));
        assert_eq!(Reader::new(&[0x80, 0x00]).varint(), Err(DecodeError::Varint));
        assert_eq!(Reader::new(&[0x80]).varint(), Err(DecodeError::Truncated));
    }

    #[test]
    fn a_string_holds_no_zero_and_is_utf_8() {
        assert_eq!(Reader::new(&[0, 2, b'o', b'k']).string(), Ok("ok"));
        assert_eq!(Reader::new(&[0, 1, 0]).string(), Err(DecodeError::Text));
        assert_eq!(Reader::new(&[0, 1, 0xFF]).string(), Err(DecodeError::Text));
        assert_eq!(Reader::new(&[0, 3, b'o', b'k']).string(), Err(DecodeError::Truncated));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(a in any::<u8>(), b in any::<u16>(), c in any::<u32>(), d in 0..=VARINT_MAX, e in "[^\0]{0,40}") {
            let mut buffer = [0; 256];
            let mut writer = Writer::new(&mut buffer);
            prop_assert!(writer.u8(a).and(writer.u16(b)).and(writer.u32(c)).and(writer.varint(d)).and(writer.string(&e)).is_ok());
            let len = writer.len();
            let mut reader = Reader::new(&buffer[..len]);
            prop_assert_eq!((reader.u8(), reader.u16(), reader.u32()), (Ok(a), Ok(b), Ok(c)));
            prop_assert_eq!((reader.varint(), reader.string()), (Ok(d), Ok(e.as_str())));
            prop_assert!(reader.is_empty());
        }
    }
}
