//! What is to be written to a peer: bytes of this connection, and payloads that several write.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

use crate::router::message::Sink;

/// The most pieces that go out in one call.
pub(super) const PIECES_MAX: usize = 64;

/// What waits, in order: the pieces first, then what is being appended to.
#[derive(Debug, Default)]
pub(super) struct Output {
    pieces: VecDeque<Bytes>,
    /// Bytes in `pieces`.
    len: usize,
    own: BytesMut,
}

impl Output {
    pub(super) fn len(&self) -> usize {
        self.len + self.own.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The buffer that is appended to, to be changed for another where all is empty.
    pub(super) const fn own(&mut self) -> &mut BytesMut {
        &mut self.own
    }

    /// All of it, where it is one piece.
    pub(super) fn only(&self) -> Option<&[u8]> {
        self.pieces.is_empty().then_some(&self.own)
    }

    /// The next pieces, as many as one call takes. None where nothing waits.
    pub(super) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; PIECES_MAX]) -> usize {
        let own = Some(&self.own[..]).filter(|own| !own.is_empty());
        let pieces = self.pieces.iter().map(|piece| &piece[..]).chain(own);
        slices.iter_mut().zip(pieces).map(|(slice, piece)| *slice = IoSlice::new(piece)).count()
    }

    /// So many bytes are out.
    pub(super) fn advance(&mut self, mut count: usize) {
        while let Some(piece) = self.pieces.front_mut() {
            let taken = piece.len().min(count);
            piece.advance(taken);
            self.len -= taken;
            count -= taken;
            if !piece.is_empty() {
                return;
            }
            self.pieces.pop_front();
        }
        self.own.advance(count.min(self.own.len()));
    }

    /// Gives back the memory of what is empty, but for the buffer that is appended to.
    pub(super) fn rest(&mut self) {
        if self.pieces.is_empty() {
            self.pieces = VecDeque::new();
        }
    }
}

impl Sink for Output {
    fn bytes(&mut self) -> &mut BytesMut {
        &mut self.own
    }

    fn put_shared(&mut self, payload: &Bytes) {
        for piece in [self.own.split().freeze(), payload.clone()] {
            if !piece.is_empty() {
                self.len += piece.len();
                self.pieces.push_back(piece);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(output: &mut Output, most: usize) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); PIECES_MAX];
        let used = output.slices(&mut slices);
        let all: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.iter().copied()).collect();
        let count = all.len().min(most);
        output.advance(count);
        all[..count].to_vec()
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order(
            parts in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..200),
            most in 1_usize..100,
        ) {
            let (mut output, mut expected) = (Output::default(), Vec::new());
            for (is_shared, part) in parts {
                expected.extend_from_slice(&part);
                match is_shared {
                    true => output.put_shared(&part.into()),
                    false => output.bytes().extend_from_slice(&part),
                }
            }
            prop_assert_eq!(output.len(), expected.len());
            let mut found = Vec::new();
            while !output.is_empty() {
                let piece = written(&mut output, most);
                prop_assert!(!piece.is_empty());
                found.extend(piece);
            }
            prop_assert_eq!(found, expected);
            output.rest();
            prop_assert_eq!(output.pieces.capacity(), 0);
        }
    }
}
