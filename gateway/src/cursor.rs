//! A place in the logs that a client can keep and come back to.
//!
//! Opaque to the client and authenticated, so that what comes back is what was given:
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | version, 1 |
//! | 8 | epoch of the logs |
//! | 2 | number of partitions, n |
//! | 10 n | partition (2) and offset (8), ascending from partition 0 |
//! | 16 | the first half of HMAC-SHA-256 over `unhidra/cursor/v1` and all before it |
//!
//! Integers are big-endian; the text is base64url without padding.

use std::sync::Arc;

use aws_lc_rs::{constant_time, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use unhidra_core::ids::{Epoch, Offset, Partition};

use crate::error::CursorError;

const VERSION: u8 = 1;
const LABEL: &[u8] = b"unhidra/cursor/v1";
const TAG_LEN: usize = 16;
const HEAD_LEN: usize = 11;
const ENTRY_LEN: usize = 10;

/// A place in every partition's log: for each, the last row before it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Position(Arc<[Offset]>);

impl Position {
    /// Before the first row of every one of `partitions` logs.
    pub(crate) fn beginning(partitions: u16) -> Self {
        Self(std::iter::repeat_n(Offset::ZERO, usize::from(partitions)).collect())
    }

    /// The place in one log; before its first row where there is no such partition.
    pub(crate) fn at(&self, partition: Partition) -> Offset {
        self.0.get(usize::from(partition.get())).copied().unwrap_or(Offset::ZERO)
    }

    /// The same place, but for one log.
    pub(crate) fn with(&self, partition: Partition, offset: Offset) -> Self {
        let mut offsets = self.0.to_vec();
        if let Some(place) = offsets.get_mut(usize::from(partition.get())) {
            *place = offset;
        }
        Self(offsets.into())
    }

    /// Each log and the place in it.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Partition, Offset)> {
        (0u16..).map(Partition::new).zip(self.0.iter().copied())
    }

    /// The first log in which this place lies beyond `other`.
    pub(crate) fn beyond(&self, other: &Self) -> Option<Partition> {
        self.iter().find(|(partition, offset)| *offset > other.at(*partition)).map(|(partition, _)| partition)
    }
}

impl FromIterator<Offset> for Position {
    fn from_iter<I: IntoIterator<Item = Offset>>(offsets: I) -> Self {
        Self(offsets.into_iter().collect())
    }
}

/// Writes and reads cursors of one life of the logs.
pub(crate) struct Cursors {
    key: hmac::Key,
    epoch: Epoch,
    partitions: u16,
}

impl Cursors {
    pub(crate) fn new(key: &[u8; 32], epoch: Epoch, partitions: u16) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key), epoch, partitions }
    }

    /// The cursor of a place.
    pub(crate) fn encode(&self, position: &Position) -> String {
        let mut bytes = Vec::with_capacity(HEAD_LEN + position.0.len() * ENTRY_LEN + TAG_LEN);
        bytes.push(VERSION);
        bytes.extend(self.epoch.get().to_be_bytes());
        bytes.extend(self.partitions.to_be_bytes());
        for (partition, offset) in position.iter() {
            bytes.extend(partition.get().to_be_bytes());
            bytes.extend(offset.get().to_be_bytes());
        }
        let tag = self.tag(&bytes);
        bytes.extend(tag);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The place of a cursor.
    ///
    /// # Errors
    ///
    /// [`CursorError::Invalid`] where this node never wrote it, [`CursorError::OtherEpoch`] where
    /// it did, for logs that are no more.
    pub(crate) fn decode(&self, text: &str) -> Result<Position, CursorError> {
        // 65 535 partitions would be the longest; no decoding of more than that.
        if text.len() > (HEAD_LEN + ENTRY_LEN * usize::from(self.partitions) + TAG_LEN).div_ceil(3) * 4 {
            return Err(CursorError::Invalid);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorError::Invalid)?;
        let (signed, tag) = bytes.split_last_chunk::<TAG_LEN>().ok_or(CursorError::Invalid)?;
        constant_time::verify_slices_are_equal(&self.tag(signed), tag).map_err(|_| CursorError::Invalid)?;
        let (&[VERSION], rest) = signed.split_first_chunk().ok_or(CursorError::Invalid)? else {
            return Err(CursorError::Invalid);
        };
        let (epoch, rest) = rest.split_first_chunk().ok_or(CursorError::Invalid)?;
        if u64::from_be_bytes(*epoch) != self.epoch.get() {
            return Err(CursorError::OtherEpoch);
        }
        let (count, entries) = rest.split_first_chunk().ok_or(CursorError::Invalid)?;
        let (entries, left) = entries.as_chunks::<ENTRY_LEN>();
        if u16::from_be_bytes(*count) != self.partitions
            || entries.len() != usize::from(self.partitions)
            || !left.is_empty()
        {
            return Err(CursorError::Invalid);
        }
        // The tag has verified, so the entries stand in the order `encode` writes them.
        Ok(entries
            .iter()
            .map(|&[_, _, a, b, c, d, e, f, g, h]| Offset::new(u64::from_be_bytes([a, b, c, d, e, f, g, h])))
            .collect())
    }

    fn tag(&self, bytes: &[u8]) -> [u8; TAG_LEN] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(LABEL);
        context.update(bytes);
        let whole = context.sign();
        let mut tag = [0; TAG_LEN];
        tag.iter_mut().zip(whole.as_ref()).for_each(|(to, from)| *to = *from);
        tag
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cursors() -> Cursors {
        Cursors::new(&[7; 32], Epoch::new(9), 3)
    }

    fn position(offsets: [u64; 3]) -> Position {
        offsets.into_iter().map(Offset::new).collect()
    }

    #[test]
    fn a_cursor_of_another_key_is_forged_and_one_of_another_epoch_has_expired() {
        let cursor = cursors().encode(&position([1, 2, 3]));
        assert_eq!(cursors().decode(&cursor), Ok(position([1, 2, 3])));
        assert_eq!(Cursors::new(&[8; 32], Epoch::new(9), 3).decode(&cursor), Err(CursorError::Invalid));
        assert_eq!(Cursors::new(&[7; 32], Epoch::new(10), 3).decode(&cursor), Err(CursorError::OtherEpoch));
        assert_eq!(Cursors::new(&[7; 32], Epoch::new(9), 4).decode(&cursor), Err(CursorError::Invalid));
    }

    #[test]
    fn no_single_changed_character_passes() {
        let cursor = cursors().encode(&position([5, 0, u64::MAX]));
        for at in 0..cursor.len() {
            for other in ['A', 'B', '-', '.', '='] {
                let mut forged: Vec<char> = cursor.chars().collect();
                if forged[at] == other {
                    continue;
                }
                forged[at] = other;
                let forged: String = forged.into_iter().collect();
                assert_eq!(cursors().decode(&forged), Err(CursorError::Invalid), "{forged}");
            }
        }
    }

    #[test]
    fn a_place_lies_beyond_another_where_any_log_does() {
        assert_eq!(position([1, 2, 3]).beyond(&position([1, 2, 3])), None);
        assert_eq!(position([0, 3, 3]).beyond(&position([1, 2, 3])), Some(Partition::new(1)));
        assert_eq!(position([1, 2, 3]).with(Partition::new(2), Offset::new(9)), position([1, 2, 9]));
    }

    proptest! {
        #[test]
        fn every_place_comes_back(a: u64, b: u64, c: u64) {
            prop_assert_eq!(cursors().decode(&cursors().encode(&position([a, b, c]))), Ok(position([a, b, c])));
        }

        #[test]
        fn nothing_else_is_a_cursor(text in ".{0,120}") {
            prop_assert_eq!(cursors().decode(&text), Err(CursorError::Invalid));
        }
    }
}
