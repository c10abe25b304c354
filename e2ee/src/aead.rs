//! ChaCha20-Poly1305 under a message key, with a nonce of zeros: right because, and only as long
//! as, no message key is used twice (PROTOCOL.md sections 5 and 8).

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};

use crate::envelope::{HEADER_LEN, TAG_LEN};
use crate::keys::MessageKey;
use crate::wire::join;

const AD_LEN: usize = 32 + HEADER_LEN;

/// What ties a message to its session and header: SAD || header.
pub(crate) fn associated_data(sad: &[u8; 32], header: &[u8; HEADER_LEN]) -> [u8; AD_LEN] {
    join(&[sad, header])
}

/// Encrypts in place. `None` only beyond 256 GiB, which no buffer here reaches.
pub(crate) fn encrypt(key: &MessageKey, ad: &[u8; AD_LEN], in_place: &mut [u8]) -> Option<[u8; TAG_LEN]> {
    let cipher = ChaCha20Poly1305::new((&key.0).into());
    cipher.encrypt_inout_detached(&Default::default(), ad, in_place.into()).ok().map(Into::into)
}

/// Decrypts in place, if the tag verifies.
pub(crate) fn decrypt(key: &MessageKey, ad: &[u8; AD_LEN], in_place: &mut [u8], tag: &[u8; TAG_LEN]) -> bool {
    let cipher = ChaCha20Poly1305::new((&key.0).into());
    cipher.decrypt_inout_detached(&Default::default(), ad, in_place.into(), tag.into()).is_ok()
}

#[cfg(test)]
mod published;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_on_the_way_does_not_open() {
        let key = MessageKey([1; 32]);
        let ad = associated_data(&[2; 32], &[3; HEADER_LEN]);
        let mut text = *b"twenty-one and a half";
        let tag = encrypt(&key, &ad, &mut text).unwrap();
        let sealed = text;
        assert!(decrypt(&key, &ad, &mut text, &tag));
        assert_eq!(&text, b"twenty-one and a half");

        for bit in 0..8 {
            let mut other = sealed;
            other[5] ^= 1 << bit;
            assert!(!decrypt(&key, &ad, &mut other, &tag));
        }
        let other_ad = associated_data(&[2; 32], &[4; HEADER_LEN]);
        assert!(!decrypt(&key, &other_ad, &mut sealed.clone(), &tag));
        assert!(!decrypt(&MessageKey([9; 32]), &ad, &mut sealed.clone(), &tag));
    }
}
