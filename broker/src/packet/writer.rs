//! Appending the pieces packets are made of.

use bytes::{BufMut, BytesMut};

use super::varint;

/// Appends what `body` writes, with its length before it as a Variable Byte Integer.
pub(super) fn with_length(out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    // One byte is what nearly every control packet needs.
    out.put_u8(0);
    body(out);
    let len = out.len() - start - 1;
    let (bytes, digits) = varint::to_bytes(u32::try_from(len).unwrap_or(u32::MAX));
    if digits > 1 {
        out.put_bytes(0, digits - 1);
        let end = out.len();
        out.as_mut().copy_within(start + 1..end - (digits - 1), start + digits);
    }
    for (slot, byte) in out.iter_mut().skip(start).zip(bytes.iter().take(digits)) {
        *slot = *byte;
    }
}

/// Appends a UTF-8 string or binary data with its two-byte length (sections 1.5.4 and 1.5.6).
///
/// What is longer than 65 535 bytes is cut: nothing this broker makes is, and what came in by the
/// decoder cannot be.
pub(super) fn put_prefixed(out: &mut BytesMut, bytes: &[u8]) {
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.put_u16(len);
    out.put_slice(bytes.get(..usize::from(len)).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_put_before_the_body_however_many_bytes_it_takes() {
        for len in [0, 1, 127, 128, 16_383, 16_384, 2_097_152] {
            let mut out = BytesMut::from(&b"x"[..]);
            with_length(&mut out, |out| out.put_bytes(7, len));
            let (found, digits) = varint::read(&out[1..]).ok().flatten().unwrap_or_default();
            assert_eq!((found as usize, out.len()), (len, 1 + digits + len));
            assert!(out[1 + digits..].iter().all(|b| *b == 7));
        }
    }
}
