//! HMAC-SHA-256 of one byte (RFC 2104), which is all a chain step asks for.
//!
//! Two of them are most of what a short message costs, so they are made of the hash's own block
//! function: two blocks for the key schedule, which both share, and two more for each.

use sha2::block_api::compress256;
use zeroize::ZeroizeOnDrop;

use crate::keys::wipe;

type State = [u32; 8];
type Block = [u8; 64];

/// Where SHA-256 begins (FIPS 180-4 section 5.3.3).
const BEGIN: State =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

const INNER_PAD: u8 = 0x36;
const OUTER_PAD: u8 = 0x5c;

/// What follows a block of key and 32 bytes of digest: 0x80, and 768 bits in all.
const AFTER_DIGEST: [u8; 32] = {
    let mut rest = [0; 32];
    let [end, .., high, low] = &mut rest;
    *end = 0x80;
    [*high, *low] = 768_u16.to_be_bytes();
    rest
};

/// A message of one byte as the hash takes it after a block of key: 0x80 behind it, and 520 bits in
/// all.
#[derive(Debug)]
pub(crate) struct Byte(Block);

impl Byte {
    pub(crate) const fn new(byte: u8) -> Self {
        let mut block = [0; 64];
        let [first, end, .., high, low] = &mut block;
        *first = byte;
        *end = 0x80;
        [*high, *low] = 520_u16.to_be_bytes();
        Self(block)
    }
}

/// The hash's two states after a key of 32 bytes: what all HMAC under that key share. Wiped on drop.
pub(crate) struct KeySchedule {
    inner: State,
    outer: State,
}

impl KeySchedule {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self { inner: after_key(key, INNER_PAD), outer: after_key(key, OUTER_PAD) }
    }

    /// HMAC-SHA-256 of one byte.
    pub(crate) fn of(&self, byte: &Byte) -> [u8; 32] {
        let mut inner = self.inner;
        compress256(&mut inner, &[byte.0]);
        let mut block = join_halves(&to_bytes(&inner), &AFTER_DIGEST);
        let mut outer = self.outer;
        compress256(&mut outer, &[block]);
        let mac = to_bytes(&outer);
        wipe(&mut inner);
        wipe(&mut outer);
        wipe(&mut block);
        mac
    }
}

impl Drop for KeySchedule {
    fn drop(&mut self) {
        wipe(&mut self.inner);
        wipe(&mut self.outer);
    }
}

impl ZeroizeOnDrop for KeySchedule {}

/// The hash after the block of a key: the key, filled up with zeros, under a pad.
fn after_key(key: &[u8; 32], pad: u8) -> State {
    let mut block = join_halves(&key.map(|byte| byte ^ pad), &[pad; 32]);
    let mut state = BEGIN;
    compress256(&mut state, &[block]);
    wipe(&mut block);
    state
}

fn join_halves(front: &[u8; 32], rest: &[u8; 32]) -> Block {
    let mut block = [0; 64];
    if let ([first, second], _) = block.as_chunks_mut() {
        *first = *front;
        *second = *rest;
    }
    block
}

fn to_bytes(state: &State) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (place, word) in bytes.as_chunks_mut().0.iter_mut().zip(state) {
        *place = word.to_be_bytes();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use hmac::{Hmac, KeyInit, Mac};
    use proptest::prelude::*;
    use sha2::Sha256;

    proptest! {
        #[test]
        fn it_is_the_hmac_of_another_crate(key: [u8; 32], byte: u8) {
            let theirs = Hmac::<Sha256>::new_from_slice(&key).unwrap().chain_update([byte]).finalize();
            let theirs: [u8; 32] = theirs.into_bytes().into();
            prop_assert_eq!(KeySchedule::new(&key).of(&Byte::new(byte)), theirs);
        }
    }
}
