//! The Variable Byte Integer: 7 bits a byte, least significant first, at most 4 bytes (section 1.5.5).

use bytes::{BufMut, BytesMut};

use super::error::DecodeError;

/// Whether so many bytes are more than the value needs, which 5.0 forbids [MQTT-1.5.5-1].
pub(super) fn is_padded(value: u32, len: usize) -> bool {
    len > to_bytes(value).1
}

/// The value at the front and the bytes it takes, or `None` where it is not whole yet.
///
/// # Errors
///
/// A fourth byte that announces a fifth [MQTT-1.5.5-1].
pub(super) fn read(bytes: &[u8]) -> Result<Option<(u32, usize)>, DecodeError> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((value, at + 1)));
        }
    }
    if bytes.len() >= 4 { Err(DecodeError::Varint) } else { Ok(None) }
}

/// The bytes of a value, and how many of them count.
pub(super) fn to_bytes(mut value: u32) -> ([u8; 4], usize) {
    let mut bytes = [0; 4];
    let mut len = 0;
    for slot in &mut bytes {
        len += 1;
        *slot = (value & 0x7F) as u8;
        value >>= 7;
        if value == 0 {
            break;
        }
        *slot |= 0x80;
    }
    (bytes, len)
}

/// Appends a value.
pub(super) fn write(value: u32, out: &mut BytesMut) {
    let (bytes, len) = to_bytes(value);
    out.put_slice(bytes.get(..len).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The largest value four bytes hold.
    const MAX: u32 = 268_435_455;

    #[test]
    fn the_table_of_section_1_5_5() {
        for (value, bytes) in [
            (0, &[0x00][..]),
            (127, &[0x7F]),
            (128, &[0x80, 0x01]),
            (16_383, &[0xFF, 0x7F]),
            (16_384, &[0x80, 0x80, 0x01]),
            (2_097_151, &[0xFF, 0xFF, 0x7F]),
            (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
            (MAX, &[0xFF, 0xFF, 0xFF, 0x7F]),
        ] {
            let mut out = BytesMut::new();
            write(value, &mut out);
            assert_eq!(out.as_ref(), bytes, "{value}");
            assert_eq!(read(bytes), Ok(Some((value, bytes.len()))));
            assert_eq!(read(bytes.get(..bytes.len() - 1).unwrap_or_default()), Ok(None), "{value} cut short");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in 0..=MAX) {
            let mut out = BytesMut::new();
            write(value, &mut out);
            prop_assert_eq!(read(&out), Ok(Some((value, out.len()))));
        }
    }
}
