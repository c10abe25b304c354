//! The last few of something, one record each: a new one takes the place of the oldest.
//!
//! ```text
//! at  bytes
//!  0   8     sequence, from 1; its place is sequence mod the number of places
//!  8   LEN   what is remembered
//! ```

use heapless::Vec;

/// The bytes of a record that remembers `LEN`.
pub(crate) const fn record_len(len: usize) -> usize {
    8 + len
}

/// What came of a place: its sequence, and what it remembers.
pub(crate) struct Remembered<const LEN: usize> {
    pub(crate) sequence: u64,
    pub(crate) bytes: [u8; LEN],
}

impl<const LEN: usize> Remembered<LEN> {
    /// Reads a record; `None` where it is none.
    pub(crate) fn decode(record: &[u8]) -> Option<Self> {
        let (sequence, bytes) = record.split_first_chunk()?;
        Some(Self { sequence: u64::from_be_bytes(*sequence), bytes: bytes.try_into().ok()? })
    }

    /// The record.
    pub(crate) fn encode(&self) -> Vec<u8, 64> {
        let mut record = Vec::new();
        // LEN is 12 or 16: both fit.
        let _ = record.extend_from_slice(&self.sequence.to_be_bytes());
        let _ = record.extend_from_slice(&self.bytes);
        record
    }
}

/// The place of a sequence among `places`.
pub(crate) fn place(sequence: u64, places: u8) -> u8 {
    u8::try_from(sequence % u64::from(places.max(1))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_its_sequence_and_its_bytes() {
        let record = Remembered { sequence: 0x0102, bytes: [7; 12] }.encode();
        assert_eq!(record, [0, 0, 0, 0, 0, 0, 1, 2, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7]);
        let read = Remembered::<12>::decode(&record).map(|read| (read.sequence, read.bytes));
        assert_eq!(read, Some((0x0102, [7; 12])));
        assert!(Remembered::<16>::decode(&record).is_none());
    }

    #[test]
    fn a_new_one_takes_the_place_of_the_oldest() {
        assert_eq!((place(1, 32), place(33, 32), place(u64::MAX, 64)), (1, 1, 63));
    }
}
