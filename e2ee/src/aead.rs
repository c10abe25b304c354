//! ChaCha20-Poly1305 under a message key, with a nonce of zeros: right because, and only as long
//! as, no message key is used twice (PROTOCOL.md sections 5 and 8).

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};

use crate::envelope::{HEADER_LEN, TAG_LEN};
use crate::keys::MessageKey;
use crate::wire::join;

const AD_LEN: usize = 32 + HEADER_LEN;

/// What ties a message to its session and header: SAD || header.
pub(crate) fn associated_data(sad: &[u8; 32], header: &[u8; HEADER_LEN]) -> [u8; AD_LEN] {
    join(&[sad, header])
}

/// Encrypts into `out`, and gives the tag. `None` where `out` has another length than the text;
/// 256 GiB, the most the cipher takes, no buffer here reaches.
pub(crate) fn encrypt(key: &MessageKey, ad: &[u8; AD_LEN], text: &[u8], out: &mut [u8]) -> Option<[u8; TAG_LEN]> {
    let cipher = ChaCha20Poly1305::new((&key.0).into());
    let buffers = InOutBuf::new(text, out).ok()?;
    cipher.encrypt_inout_detached(&Default::default(), ad, buffers).ok().map(Into::into)
}

/// Decrypts into `out`, if the tag verifies; `None` where it does not, or where `out` has another
/// length than the ciphertext. Then nothing is written.
pub(crate) fn decrypt(
    key: &MessageKey,
    ad: &[u8; AD_LEN],
    ciphertext: &[u8],
    out: &mut [u8],
    tag: &[u8; TAG_LEN],
) -> Option<()> {
    let cipher = ChaCha20Poly1305::new((&key.0).into());
    let buffers = InOutBuf::new(ciphertext, out).ok()?;
    cipher.decrypt_inout_detached(&Default::default(), ad, buffers, tag.into()).ok()
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
        let text = b"twenty-one and a half";
        let mut sealed = [0; 21];
        let tag = encrypt(&key, &ad, text, &mut sealed).unwrap();
        let mut opened = [0; 21];
        assert_eq!(decrypt(&key, &ad, &sealed, &mut opened, &tag), Some(()));
        assert_eq!(&opened, text);

        let mut out = [0; 21];
        for bit in 0..8 {
            let mut other = sealed;
            other[5] ^= 1 << bit;
            assert_eq!(decrypt(&key, &ad, &other, &mut out, &tag), None);
        }
        let other_ad = associated_data(&[2; 32], &[4; HEADER_LEN]);
        assert_eq!(decrypt(&key, &other_ad, &sealed, &mut out, &tag), None);
        assert_eq!(decrypt(&MessageKey([9; 32]), &ad, &sealed, &mut out, &tag), None);
        assert_eq!(out, [0; 21], "what does not open is not written");
        assert_eq!(decrypt(&key, &ad, &sealed, &mut out[..20], &tag), None);
        assert_eq!(encrypt(&key, &ad, text, &mut out[..20]), None);
    }
}
