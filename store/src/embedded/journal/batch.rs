//! One batch of a journal, as fjall 3.1 writes it.
//!
//! ```text
//! start   1   items 4   sequence number 8
//! item    2   kind 1   compression 1   keyspace 8   key length 2   value length 4   length on disk 4   key   value
//! clear   4   keyspace 8
//! end     3   XXH3-64 of items and clears 8   "FJL" 3
//! ```
//!
//! Integers are little-endian. A batch is one start, as many items and clears as it says, one end.
//! The start is not under the checksum.

use xxhash_rust::xxh3::xxh3_64;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: [u8; 4] = *b"FJL\x03";

/// What fjall calls a value, a deletion and a weak deletion. Values kept elsewhere are not in use.
const KIND_MAX: u8 = 2;

/// A whole batch whose checksum is right.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Batch {
    /// Where it begins, in bytes from the beginning of the file.
    pub(super) start: usize,
    /// The first byte behind it.
    pub(super) end: usize,
    /// Its sequence number.
    pub(super) seqno: u64,
}

/// Why there is no whole batch at a place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Broken {
    /// The file ends within it.
    Short,
    /// A byte that begins nothing which may stand there.
    Byte { at: usize, found: u8 },
    /// Its end does not say what an end says.
    Trailer { at: usize },
    /// Its bytes are others than those that were written.
    Checksum { written: u64, found: u64 },
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Short => write!(f, "a batch that goes on beyond the end of the file"),
            Self::Byte { at, found } => {
                write!(f, "a batch with the byte 0x{found:02x} at {at}, which may not stand there")
            }
            Self::Trailer { at } => write!(f, "a batch whose end, at {at}, is none"),
            Self::Checksum { written, found } => {
                write!(f, "a batch with the checksum {written:016x}, and its bytes have {found:016x}")
            }
        }
    }
}

/// Reads the batch at `start`.
pub(super) fn batch(bytes: &[u8], start: usize) -> Result<Batch, Broken> {
    let mut input = Input { bytes, at: start };
    input.expect(START)?;
    let items = u32::from_le_bytes(input.array()?);
    let seqno = u64::from_le_bytes(input.array()?);
    let first = input.at;
    for _ in 0..items {
        input.entry()?;
    }
    let body = bytes.get(first..input.at).unwrap_or_default();
    input.expect(END)?;
    let written = u64::from_le_bytes(input.array()?);
    let at = input.at;
    if input.array::<4>()? != TRAILER {
        return Err(Broken::Trailer { at });
    }
    let found = xxh3_64(body);
    if found != written {
        return Err(Broken::Checksum { written, found });
    }
    Ok(Batch { start, end: input.at, seqno })
}

/// The first whole batch at or behind `from` whose sequence number is above `above` and under
/// `under`.
pub(super) fn next_whole(bytes: &[u8], from: usize, above: Option<u64>, under: u64) -> Option<Batch> {
    let rest = bytes.get(from..)?;
    let starts = rest.iter().enumerate().filter(|(_, byte)| **byte == START).map(|(at, _)| from + at);
    starts
        .filter(|at| matches!(bytes.get(at + 13), Some(&(ITEM | CLEAR))))
        .filter_map(|at| batch(bytes, at).ok())
        .find(|batch| batch.seqno < under && above.is_none_or(|above| batch.seqno > above))
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Input<'_> {
    fn byte(&mut self) -> Result<u8, Broken> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        let array = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<N>()).ok_or(Broken::Short)?;
        self.at += N;
        Ok(*array)
    }

    fn expect(&mut self, expected: u8) -> Result<(), Broken> {
        let at = self.at;
        let found = self.byte()?;
        if found == expected { Ok(()) } else { Err(Broken::Byte { at, found }) }
    }

    fn skip(&mut self, len: usize) -> Result<(), Broken> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len()).ok_or(Broken::Short)?;
        self.at = end;
        Ok(())
    }

    fn entry(&mut self) -> Result<(), Broken> {
        let at = self.at;
        match self.byte()? {
            CLEAR => self.skip(8),
            ITEM => {
                let at = self.at;
                let [kind, compression] = self.array()?;
                if kind > KIND_MAX {
                    return Err(Broken::Byte { at, found: kind });
                }
                if compression != 0 {
                    return Err(Broken::Byte { at: at + 1, found: compression });
                }
                self.skip(8)?;
                let key_len = usize::from(u16::from_le_bytes(self.array()?));
                let value_len = u32::from_le_bytes(self.array()?);
                let at = self.at;
                let on_disk = u32::from_le_bytes(self.array()?);
                if on_disk != value_len {
                    return Err(Broken::Byte { at, found: on_disk.to_le_bytes()[0] });
                }
                self.skip(key_len)?;
                self.skip(usize::try_from(on_disk).map_err(|_| Broken::Short)?)
            }
            found => Err(Broken::Byte { at, found }),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A batch as the engine writes it.
    pub(in crate::embedded::journal) fn written(seqno: u64, items: &[(&[u8], &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (key, value) in items {
            body.extend([ITEM, 0, 0]);
            body.extend(7_u64.to_le_bytes());
            body.extend((key.len() as u16).to_le_bytes());
            body.extend((value.len() as u32).to_le_bytes());
            body.extend((value.len() as u32).to_le_bytes());
            body.extend(*key);
            body.extend(*value);
        }
        let mut out = vec![START];
        out.extend((items.len() as u32).to_le_bytes());
        out.extend(seqno.to_le_bytes());
        out.extend(&body);
        out.push(END);
        out.extend(xxh3_64(&body).to_le_bytes());
        out.extend(TRAILER);
        out
    }

    #[test]
    fn a_batch_reads_back_where_it_stands() {
        let bytes = [b"xx".to_vec(), written(9, &[(b"k", b"value"), (b"", b"")])].concat();
        assert_eq!(batch(&bytes, 2), Ok(Batch { start: 2, end: bytes.len(), seqno: 9 }));
        assert_eq!(batch(&bytes, 0), Err(Broken::Byte { at: 0, found: b'x' }));
        assert_eq!(batch(&bytes, bytes.len()), Err(Broken::Short));
    }

    #[test]
    fn no_cut_batch_is_whole_and_no_flipped_one_but_for_its_sequence_number() {
        let bytes = written(9, &[(b"key", b"value"), (b"other", b"")]);
        for len in 0..bytes.len() {
            assert!(batch(&bytes[..len], 0).is_err(), "cut at {len}");
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                // Bytes 5 to 12 are what no checksum holds.
                assert_eq!(batch(&flipped, 0).is_ok(), (5..13).contains(&at), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn the_next_whole_batch_is_found_behind_anything() {
        let (old, new) = (written(5, &[(b"k", b"v")]), written(6, &[(b"k", b"w")]));
        let bytes = [&[1, 0, 0, 1, 2, 3][..], &old, &[0; 40], &new].concat();
        assert_eq!(next_whole(&bytes, 0, None, 100).map(|batch| batch.seqno), Some(5));
        assert_eq!(next_whole(&bytes, 0, Some(5), 100).map(|batch| batch.start), Some(bytes.len() - new.len()));
        assert_eq!(next_whole(&bytes, 0, Some(6), 100), None);
        assert_eq!(next_whole(&bytes, bytes.len() + 9, None, 100), None);
    }

    proptest::proptest! {
        /// Whatever the disk gives: an answer or an error.
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(0..8_u8, 0..300), at in 0..310_usize) {
            _ = batch(&bytes, at);
            _ = next_whole(&bytes, at, None, 100);
        }
    }
}
