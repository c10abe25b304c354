//! The key schedule (PROTOCOL.md section 5): HKDF-SHA-256 and the two key derivation functions of
//! the ratchet.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use x25519_dalek::SharedSecret;
use zeroize::{Zeroize, Zeroizing};

use crate::hmac::{Byte, KeySchedule};
use crate::keys::{ChainKey, MessageKey, RootKey};

const ROOT_LABEL: &[u8] = b"unhidra/root/v1";
const MESSAGE_STEP: Byte = Byte::new(0x01);
const CHAIN_STEP: Byte = Byte::new(0x02);

/// HMAC under a key of 32 bytes. A shorter key than the block is filled up with zeros, so the
/// block can be handed in as the key, and no length can be wrong.
fn hmac(key: &[u8; 32]) -> Hmac<Sha256> {
    let mut block = Zeroizing::new([0; 64]);
    if let Some((front, _)) = block.split_first_chunk_mut() {
        *front = *key;
    }
    Hmac::new((&*block).into())
}

fn finish(mac: Hmac<Sha256>) -> [u8; 32] {
    mac.finalize().into_bytes().into()
}

/// HKDF-Extract with a salt of 32 bytes (RFC 5869 section 2.2).
fn extract(salt: &[u8; 32], ikm: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(finish(ikm.iter().fold(hmac(salt), |mac, part| mac.chain_update(part))))
}

/// The first two blocks of HKDF-Expand (RFC 5869 section 2.3).
fn expand(prk: &[u8; 32], info: &[u8]) -> ([u8; 32], [u8; 32]) {
    let first = finish(hmac(prk).chain_update(info).chain_update([1]));
    let second = finish(hmac(prk).chain_update(first).chain_update(info).chain_update([2]));
    (first, second)
}

/// SK: what both sides agreed on, with the label of its suite.
pub(crate) fn session_key(ikm: &[&[u8]], label: &[u8]) -> RootKey {
    let (first, mut unused) = expand(&extract(&[0; 32], ikm), label);
    unused.zeroize();
    RootKey(first)
}

/// KDF_RK: one DH output makes one root step and one chain key.
pub(crate) fn root_step(root: &RootKey, agreed: &SharedSecret) -> (RootKey, ChainKey) {
    let (root, chain) = expand(&extract(&root.0, &[agreed.as_bytes()]), ROOT_LABEL);
    (RootKey(root), ChainKey(chain))
}

/// KDF_CK: the key of this message and the chain key of the next. The key schedule of the HMAC is
/// shared by the two.
pub(crate) fn chain_step(chain: &ChainKey) -> (MessageKey, ChainKey) {
    let keyed = KeySchedule::new(&chain.0);
    (MessageKey(keyed.of(&MESSAGE_STEP)), ChainKey(keyed.of(&CHAIN_STEP)))
}

/// KDF_CK without the message key, for messages that are skipped.
pub(crate) fn chain_step_over(chain: &ChainKey) -> ChainKey {
    ChainKey(KeySchedule::new(&chain.0).of(&CHAIN_STEP))
}

#[cfg(test)]
mod published;

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    fn bytes(text: &str) -> std::vec::Vec<u8> {
        hex::decode(text).unwrap()
    }

    // RFC 5869 A.1 and A.3: salts that are shorter than 32 bytes are filled up with zeros, which
    // is what HMAC does to them.
    #[test]
    fn hkdf_is_that_of_rfc_5869() {
        let mut salt = [0; 32];
        salt[..13].copy_from_slice(&bytes("000102030405060708090a0b0c"));
        let prk = extract(&salt, &[&[0x0b; 10], &[0x0b; 12]]);
        assert_eq!(*prk, *bytes("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"));
        let (first, second) = expand(&prk, &bytes("f0f1f2f3f4f5f6f7f8f9"));
        assert_eq!(first, *bytes("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"));
        assert_eq!(second[..10], *bytes("34007208d5b887185865"));

        let prk = extract(&[0; 32], &[&[0x0b; 22]]);
        assert_eq!(*prk, *bytes("19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04"));
        let (first, second) = expand(&prk, &[]);
        assert_eq!(first, *bytes("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"));
        assert_eq!(second[..10], *bytes("9d201395faa4b61a96c8"));
    }

    #[test]
    fn stepping_over_is_stepping_without_the_message_key() {
        let chain = ChainKey([3; 32]);
        let (message, next) = chain_step(&chain);
        assert_eq!(next.0, chain_step_over(&chain).0);
        assert_ne!(message.0, next.0);
    }
}
