//! CBOR in deterministic encoding (RFC 8949 section 4.2.1), as much of it as a plaintext has.
//!
//! Reading is strict: what a deterministic encoder would have written otherwise is refused, also
//! inside values nobody looks at.

use crate::wire::Writer;

/// How deep values may nest that are skipped.
const DEPTH_MAX: u8 = 8;

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const SIMPLE: u8 = 7;

/// Bytes that are no CBOR in deterministic encoding, or not of the type expected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Malformed;

/// Reads values off the front of bytes.
#[derive(Clone, Copy)]
pub(crate) struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// A head whose argument is a number, in its shortest form.
    fn head(&mut self) -> Result<(u8, u64), Malformed> {
        let [initial] = self.take_array()?;
        let (major, info) = (initial >> 5, initial & 0x1f);
        let (argument, least) = match info {
            0..=23 => (u64::from(info), 0),
            24 => (u64::from(u8::from_be_bytes(self.take_array()?)), 24),
            25 => (u64::from(u16::from_be_bytes(self.take_array()?)), 0x100),
            26 => (u64::from(u32::from_be_bytes(self.take_array()?)), 0x1_0000),
            27 => (u64::from_be_bytes(self.take_array()?), 0x1_0000_0000),
            _ => return Err(Malformed),
        };
        if major != SIMPLE && argument < least { Err(Malformed) } else { Ok((major, argument)) }
    }

    fn expect(&mut self, expected: u8) -> Result<u64, Malformed> {
        match self.head()? {
            (major, argument) if major == expected => Ok(argument),
            _ => Err(Malformed),
        }
    }

    fn string(&mut self, expected: u8) -> Result<&'a [u8], Malformed> {
        let len = self.expect(expected)?;
        self.take(usize::try_from(len).map_err(|_| Malformed)?)
    }

    pub(crate) fn unsigned(&mut self) -> Result<u64, Malformed> {
        self.expect(UNSIGNED)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        self.string(BYTES)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        core::str::from_utf8(self.string(TEXT)?).map_err(|_| Malformed)
    }

    /// The entries of a map; their keys follow in order.
    pub(crate) fn map(&mut self) -> Result<u64, Malformed> {
        self.expect(MAP)
    }

    /// Skips one value, and gives its bytes.
    pub(crate) fn skip(&mut self) -> Result<&'a [u8], Malformed> {
        let before = self.rest;
        self.skip_within(DEPTH_MAX)?;
        let len = before.len().saturating_sub(self.rest.len());
        before.get(..len).ok_or(Malformed)
    }

    fn skip_within(&mut self, depth: u8) -> Result<(), Malformed> {
        let deeper = depth.checked_sub(1).ok_or(Malformed)?;
        let initial = *self.rest.first().ok_or(Malformed)?;
        let (major, argument) = self.head()?;
        match major {
            UNSIGNED | NEGATIVE => Ok(()),
            BYTES => self.take(usize::try_from(argument).map_err(|_| Malformed)?).map(drop),
            TEXT => {
                let text = self.take(usize::try_from(argument).map_err(|_| Malformed)?)?;
                core::str::from_utf8(text).map(drop).map_err(|_| Malformed)
            }
            ARRAY => (0..argument).try_for_each(|_| self.skip_within(deeper)),
            MAP => {
                let mut order = KeyOrder::default();
                (0..argument).try_for_each(|_| {
                    let before = self.rest;
                    self.skip_within(deeper)?;
                    let len = before.len().saturating_sub(self.rest.len());
                    order.next(before.get(..len).ok_or(Malformed)?)?;
                    self.skip_within(deeper)
                })
            }
            TAG => self.skip_within(deeper),
            _ => simple_or_float(initial & 0x1f, argument),
        }
    }
}

/// Simple values below 32 stand in one byte, floats in the shortest form that keeps their value.
fn simple_or_float(info: u8, argument: u64) -> Result<(), Malformed> {
    let shortest = match info {
        0..=23 | 25 => true,
        24 => argument >= 32,
        26 => !fits_half(argument),
        _ => !fits_single(argument),
    };
    if shortest { Ok(()) } else { Err(Malformed) }
}

/// Whether a float of 32 bits has a half with the same value (RFC 8949 section 4.2.1; any NaN has).
fn fits_half(bits: u64) -> bool {
    let exponent = (bits >> 23) & 0xff;
    let fraction = bits & 0x7f_ffff;
    match exponent {
        0 => fraction == 0,
        0xff => true,
        113..=142 => fraction.trailing_zeros() >= 13,
        // Halves below the normal ones: each step down costs a bit.
        103..=112 => (fraction | 0x80_0000).trailing_zeros() as u64 >= 126u64.saturating_sub(exponent),
        _ => false,
    }
}

/// Whether a float of 64 bits has a single with the same value.
fn fits_single(bits: u64) -> bool {
    let exponent = (bits >> 52) & 0x7ff;
    let fraction = bits & 0xf_ffff_ffff_ffff;
    match exponent {
        0 => fraction == 0,
        0x7ff => true,
        897..=1150 => fraction.trailing_zeros() >= 29,
        874..=896 => (fraction | 0x10_0000_0000_0000).trailing_zeros() as u64 >= 926u64.saturating_sub(exponent),
        _ => false,
    }
}

/// Holds the keys of a map to their order: ascending by their bytes, none twice.
#[derive(Default)]
pub(crate) struct KeyOrder<'a> {
    last: Option<&'a [u8]>,
}

impl<'a> KeyOrder<'a> {
    pub(crate) fn next(&mut self, key: &'a [u8]) -> Result<(), Malformed> {
        if self.last.is_some_and(|last| last >= key) {
            return Err(Malformed);
        }
        self.last = Some(key);
        Ok(())
    }
}

fn put_head(out: &mut Writer<'_>, major: u8, argument: u64) {
    let major = major << 5;
    let bytes = argument.to_be_bytes();
    let [.., b, c, d, e] = bytes;
    match argument {
        0..=23 => out.put(&[major | e]),
        24..=0xff => out.put(&[major | 24, e]),
        0x100..=0xffff => out.put(&[major | 25, d, e]),
        0x1_0000..=0xffff_ffff => out.put(&[major | 26, b, c, d, e]),
        _ => {
            out.put(&[major | 27]);
            out.put(&bytes);
        }
    }
}

pub(crate) fn put_unsigned(out: &mut Writer<'_>, value: u64) {
    put_head(out, UNSIGNED, value);
}

pub(crate) fn put_bytes(out: &mut Writer<'_>, value: &[u8]) {
    put_head(out, BYTES, value.len() as u64);
    out.put(value);
}

pub(crate) fn put_text(out: &mut Writer<'_>, value: &str) {
    put_head(out, TEXT, value.len() as u64);
    out.put(value.as_bytes());
}

pub(crate) fn put_map(out: &mut Writer<'_>, entries: u64) {
    put_head(out, MAP, entries);
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::vec::Vec;

    fn skips(text: &str) -> bool {
        let bytes = hex::decode(text).unwrap();
        let mut decoder = Decoder::new(&bytes);
        decoder.skip() == Ok(&bytes) && decoder.rest().is_empty()
    }

    // RFC 8949 appendix A; the first column of each is deterministic.
    #[test]
    fn deterministic_values_are_read() {
        for text in [
            "00",
            "17",
            "1818",
            "1903e8",
            "1a000f4240",
            "1b000000e8d4a51000",
            "1bffffffffffffffff",
            "20",
            "3903e7",
            "3bffffffffffffffff",
            "f4",
            "f5",
            "f6",
            "f7",
            "f0",
            "f8ff",
            "40",
            "4401020304",
            "60",
            "6449455446",
            "62c3bc",
            "80",
            "83010203",
            "8301820203820405",
            "a0",
            "a201020304",
            "a26161016162820203",
            "c11a514b67b0",
            "d74401020304",
            "f90000",
            "f98000",
            "f93c00",
            "f97bff",
            "f90001",
            "f90400",
            "f9c400",
            "f97c00",
            "f97e00",
            "f9fc00",
            "fa47c35000",
            "fa7f7fffff",
            "fb3ff199999999999a",
            "fb7e37e43c8800759c",
            "fbc010666666666666",
            "fb3ff0000000000001",
            "fa33000001",
            "fb36a0000000000001",
        ] {
            assert!(skips(text), "{text}");
        }
    }

    #[test]
    fn what_a_deterministic_encoder_does_not_write_is_refused() {
        for text in [
            "1800",
            "1817",
            "190018",
            "1900ff",
            "1a0000ffff",
            "1b00000000ffffffff",
            "3817",
            "5800",
            "7800",
            "9800",
            "b800",
            "d817f6",
            "5f42010243030405ff",
            "7f61618000ff",
            "9f01ff",
            "bf01ff",
            "f800",
            "f81f",
            "fa3f800000",
            "fb3ff0000000000000",
            "fa7f800000",
            "fa7fc00000",
            "fb7ff0000000000000",
            "fb7ff8000000000000",
            "fa00000000",
            "fa33800000",
            "fa38800000",
            "fb36a0000000000000",
            "fb47efffffe0000000",
            "fb0000000000000000",
            "a203040102",
            "a201020102",
            "a2616202616101",
            "61ff",
            "44010203",
            "1c",
            "ff",
            "8201",
            "",
        ] {
            assert!(!skips(text), "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        assert!(skips("8181818181818100"));
        assert!(!skips("818181818181818100"));
        let deep: Vec<u8> = core::iter::repeat_n(0x81, 100_000).collect();
        assert_eq!(Decoder::new(&deep).skip(), Err(Malformed));
        let wide = hex::decode("9bffffffffffffffff").unwrap();
        assert_eq!(Decoder::new(&wide).skip(), Err(Malformed));
    }

    #[test]
    fn heads_are_as_short_as_they_can_be() {
        for (value, expected) in [
            (0, "00"),
            (23, "17"),
            (24, "1818"),
            (255, "18ff"),
            (256, "190100"),
            (65_535, "19ffff"),
            (65_536, "1a00010000"),
            (0xffff_ffff, "1affffffff"),
            (0x1_0000_0000, "1b0000000100000000"),
            (u64::MAX, "1bffffffffffffffff"),
        ] {
            let mut buffer = [0; 9];
            let mut writer = Writer::new(&mut buffer);
            put_unsigned(&mut writer, value);
            let len = writer.finish().unwrap();
            assert_eq!(hex::encode(&buffer[..len]), expected);
            assert_eq!(Decoder::new(&buffer[..len]).unsigned(), Ok(value));
        }
    }
}
