//! Safety numbers as another program computes them from the text of PROTOCOL.md
//! (e2ee/oracle/fingerprint_vector.py), and what a scanned one says.

use proptest::prelude::*;
use serde::Deserialize;
use unhidra_core::ids::DeviceId;
use unhidra_e2ee::fingerprint::{CODE_LEN, CodeError, Comparison, Fingerprint, TEXT_LEN};
use unhidra_e2ee::identity::{IdentityKey, IdentitySecret};

#[derive(Deserialize)]
struct Vector {
    device_id: String,
    device: String,
    node: String,
    text: String,
    code: String,
}

fn vectors() -> Vec<Vector> {
    serde_json::from_str(include_str!("../vectors/fingerprint.json")).unwrap()
}

fn key(hex_digits: &str) -> IdentityKey {
    let mut bytes = [0; 32];
    hex::decode_to_slice(hex_digits, &mut bytes).unwrap();
    IdentityKey::from_bytes(&bytes).unwrap()
}

fn made(seed: u8) -> IdentityKey {
    IdentitySecret::from_seed(&[seed; 32]).public()
}

fn fingerprint(device: &str, device_seed: u8, node_seed: u8) -> Fingerprint {
    Fingerprint::of(&DeviceId::parse(device).unwrap(), &made(device_seed), &made(node_seed))
}

fn ours() -> Fingerprint {
    fingerprint("pump-7", 1, 2)
}

#[test]
fn a_fingerprint_is_what_the_specification_says() {
    for vector in vectors() {
        let id = DeviceId::parse(&vector.device_id).unwrap();
        let fingerprint = Fingerprint::of(&id, &key(&vector.device), &key(&vector.node));
        assert_eq!(fingerprint.text(), vector.text.as_bytes());
        assert_eq!(fingerprint.to_string(), vector.text);
        assert_eq!(fingerprint.code(), vector.code.as_bytes());
        let groups: Vec<_> = fingerprint.groups().iter().map(|group| group.to_vec()).collect();
        let expected: Vec<_> = vector.text.split_whitespace().map(|group| group.as_bytes().to_vec()).collect();
        assert_eq!(groups, expected);
    }
    assert_eq!((TEXT_LEN, CODE_LEN), (71, 139));
}

#[test]
fn a_scanned_code_says_which_key_differs() {
    for (other, expected) in [
        (ours(), Comparison::Same),
        (fingerprint("pump-7", 3, 2), Comparison::DifferentDevice),
        (fingerprint("pump-8", 1, 2), Comparison::DifferentDevice),
        (fingerprint("pump-7", 1, 3), Comparison::DifferentNode),
        (fingerprint("pump-8", 1, 3), Comparison::DifferentBoth),
        // The two keys in each other's place are another pair.
        (fingerprint("pump-7", 2, 1), Comparison::DifferentBoth),
    ] {
        assert_eq!(ours().compare(&other.code()), Ok(expected));
        assert_eq!(other.compare(&ours().code()), Ok(expected), "both sides say the same");
    }
}

#[test]
fn a_code_of_another_version_is_told_from_what_is_none() {
    let code = String::from_utf8(ours().code().to_vec()).unwrap();
    let rest = code.strip_prefix("UNHIDRA:1:").unwrap();
    let of_version = |version: &str| format!("UNHIDRA:{version}:{rest}");
    for (version, found) in [("0", 0), ("2", 2), ("10", 10), ("999", 999)] {
        assert_eq!(ours().compare(of_version(version).as_bytes()), Err(CodeError::OtherVersion { found }));
        // Of another version nothing is known, its length least of all.
        let short = format!("UNHIDRA:{version}:");
        assert_eq!(ours().compare(short.as_bytes()), Err(CodeError::OtherVersion { found }));
    }
    let others = ["01", "00", "", "+1", "-1", " 1", "1000", "1x"].map(of_version);
    let cut = code.get(..code.len() - 1).unwrap().to_owned();
    let split = code.replace(':', ";");
    let halves = code.replacen(':', ";", 3).replacen(';', ":", 2);
    let damaged = [
        String::new(),
        "UNHIDRA:1".to_owned(),
        "UNHIDRA:1:".to_owned(),
        "UNHIDRA:12345".to_owned(),
        code.to_lowercase(),
        format!("{code} "),
        format!(" {code}"),
        format!("{code}0"),
        code.replace("UNHIDRA", "UNHYDRA"),
        code.replacen("UNHIDRA:1:", "UNHIDRA:1:G", 1).get(..CODE_LEN).unwrap().to_owned(),
        rest.to_owned(),
        ours().to_string(),
        cut,
        split,
        halves,
    ];
    for text in others.iter().chain(&damaged) {
        assert_eq!(ours().compare(text.as_bytes()), Err(CodeError::NotACode), "{text:?}");
    }
}

#[test]
fn every_character_of_a_code_counts() {
    let code = ours().code();
    for at in 0..CODE_LEN {
        for other in *b"0123456789ABCDEF:x" {
            let mut changed = code;
            changed[at] = other;
            let says = ours().compare(&changed);
            assert_eq!(says == Ok(Comparison::Same), changed == code, "{at}");
        }
    }
}

proptest! {
    #[test]
    fn a_code_is_the_same_as_itself_and_fits_a_qr_code_of_capitals(id in "[A-Za-z0-9._-]{1,64}", a: [u8; 32], b: [u8; 32]) {
        let id = DeviceId::parse(&id).unwrap();
        let of = |seed| IdentitySecret::from_seed(seed).public();
        let fingerprint = Fingerprint::of(&id, &of(&a), &of(&b));
        prop_assert_eq!(fingerprint.compare(&fingerprint.code()), Ok(Comparison::Same));
        prop_assert!(fingerprint.code().iter().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'Z' | b':')));
        let in_place = |(at, byte): (usize, &u8)| match at {
            23 | 47 => *byte == b'\n',
            _ if at % 6 == 5 => *byte == b' ',
            _ => byte.is_ascii_digit(),
        };
        prop_assert!(fingerprint.text().iter().enumerate().all(in_place));
    }

    #[test]
    fn no_bytes_stop_a_comparison(bytes: Vec<u8>) {
        prop_assert!(ours().compare(&bytes).is_err());
    }
}
