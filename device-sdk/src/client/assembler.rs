//! Bytes as the transport gives them, put together to packets.

use super::decode::DecodeError;
use super::wire::Varint;

/// What is being put together. One packet at a time, of at most `N` bytes in all.
pub(crate) struct Assembler<const N: usize> {
    stage: Stage,
    body: [u8; N],
}

enum Stage {
    Type,
    Length { first: u8, header_len: usize, varint: Varint },
    Body { first: u8, len: usize, filled: usize },
    Whole { first: u8, len: usize },
}

/// Why no packet comes of the bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum AssembleError {
    Malformed(DecodeError),
    /// The packet has `len` bytes in all.
    TooLarge {
        len: usize,
    },
}

impl<const N: usize> Assembler<N> {
    pub(crate) const fn new() -> Self {
        Self { stage: Stage::Type, body: [0; N] }
    }

    /// Forgets what came in part.
    pub(crate) fn clear(&mut self) {
        self.stage = Stage::Type;
    }

    /// Takes bytes off the front of `bytes` until a packet is whole or none are left.
    pub(crate) fn feed(&mut self, bytes: &mut &[u8]) -> Result<Option<(u8, &[u8])>, AssembleError> {
        if let Stage::Whole { .. } = self.stage {
            self.stage = Stage::Type;
        }
        while !matches!(self.stage, Stage::Whole { .. }) {
            let Some(taken) = self.step(bytes)? else { return Ok(None) };
            *bytes = bytes.get(taken..).unwrap_or_default();
        }
        Ok(self.whole())
    }

    /// The packet that is whole, until the next [`feed`](Self::feed).
    pub(crate) fn whole(&self) -> Option<(u8, &[u8])> {
        match self.stage {
            Stage::Whole { first, len } => self.body.get(..len).map(|body| (first, body)),
            _ => None,
        }
    }

    /// Takes what one stage can use; `None` where it needs more than there is.
    fn step(&mut self, bytes: &[u8]) -> Result<Option<usize>, AssembleError> {
        let Some(byte) = bytes.first().copied() else { return Ok(None) };
        match &mut self.stage {
            Stage::Type => self.stage = Stage::Length { first: byte, header_len: 1, varint: Varint::new() },
            Stage::Length { first, header_len, varint } => {
                *header_len += 1;
                if let Some(len) = varint.push(byte).map_err(AssembleError::Malformed)? {
                    let whole = *header_len + len;
                    if whole > N {
                        return Err(AssembleError::TooLarge { len: whole });
                    }
                    self.stage = match len {
                        0 => Stage::Whole { first: *first, len },
                        _ => Stage::Body { first: *first, len, filled: 0 },
                    };
                }
            }
            Stage::Body { first, len, filled } => {
                let taken = bytes.len().min(*len - *filled);
                if let (Some(to), Some(from)) = (self.body.get_mut(*filled..*filled + taken), bytes.get(..taken)) {
                    to.copy_from_slice(from);
                }
                *filled += taken;
                if *filled == *len {
                    self.stage = Stage::Whole { first: *first, len: *len };
                }
                return Ok(Some(taken));
            }
            Stage::Whole { .. } => return Ok(Some(0)),
        }
        Ok(Some(1))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn packets<const N: usize>(chunks: &[&[u8]]) -> Result<Vec<(u8, Vec<u8>)>, AssembleError> {
        let mut assembler = Assembler::<N>::new();
        let mut found = Vec::new();
        for chunk in chunks {
            let mut rest = *chunk;
            while let Some((first, body)) = assembler.feed(&mut rest)? {
                found.push((first, body.to_vec()));
            }
            assert!(rest.is_empty());
        }
        Ok(found)
    }

    #[test]
    fn a_packet_of_the_buffers_size_fits_and_one_byte_more_does_not() {
        assert_eq!(packets::<6>(&[&[0x30, 4, 1, 2, 3, 4]]), Ok(std::vec![(0x30, std::vec![1, 2, 3, 4])]));
        assert_eq!(packets::<6>(&[&[0x30, 5]]), Err(AssembleError::TooLarge { len: 7 }));
        assert_eq!(packets::<6>(&[&[0x30, 0xFF, 0xFF, 0xFF, 0x7F]]), Err(AssembleError::TooLarge { len: 268_435_460 }));
    }

    #[test]
    fn a_length_of_five_bytes_is_malformed() {
        let error = AssembleError::Malformed(DecodeError::Varint);
        assert_eq!(packets::<64>(&[&[0x30, 0xFF, 0xFF, 0xFF, 0xFF]]), Err(error));
    }

    proptest! {
        #[test]
        fn the_cuts_between_chunks_do_not_matter(bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6), size in 1..9_usize) {
            let mut bytes = Vec::new();
            for body in &bodies {
                bytes.extend([0x30, body.len() as u8]);
                bytes.extend(body);
            }
            let expected: Vec<_> = bodies.into_iter().map(|body| (0x30, body)).collect();
            let chunks: Vec<_> = bytes.chunks(size).collect();
            prop_assert_eq!(packets::<64>(&chunks), Ok(expected));
        }
    }
}
