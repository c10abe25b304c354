//! What is inside a message: deterministic CBOR, and padding that tells no length.

use proptest::prelude::*;
use unhidra_core::ids::CommandId;
use unhidra_core::time::UnixTime;
use unhidra_e2ee::envelope::PLAINTEXT_LEN_MAX;
use unhidra_e2ee::plaintext::{Kind, Plaintext, PlaintextError, PlaintextTooLong, Status, padded_len};

fn encode(plaintext: &Plaintext<'_>) -> Vec<u8> {
    let mut out = vec![0xee; plaintext.padded_len() + 7];
    let len = plaintext.encode_padded(&mut out).unwrap();
    out.truncate(len);
    out
}

/// A map, padded.
fn padded(hex: &str) -> Vec<u8> {
    let mut bytes = hex::decode(hex).unwrap();
    let len = padded_len(bytes.len());
    bytes.push(0x80);
    bytes.resize(len, 0);
    bytes
}

#[test]
fn a_plaintext_has_these_bytes() {
    let reading = Plaintext {
        name: Some("temperature"),
        device_time: Some(UnixTime::from_ms(1_900_000_000_123)),
        body: Some(b"21.5"),
        reading_id: Some(300),
        ..Plaintext::new(Kind::Reading)
    };
    let map = "a50000016b74656d7065726174757265021b000001ba60d3387b034432312e350a19012c";
    assert_eq!(encode(&reading), padded(map));
    assert_eq!(encode(&reading).len(), 64);

    let command = Plaintext {
        name: Some("reboot"),
        body: Some(&[]),
        command_id: Some(CommandId::new([7; 16])),
        expires_at: Some(UnixTime::from_ms(1)),
        ..Plaintext::new(Kind::Command)
    };
    let map = "a500100166726562 6f6f740340045007070707070707070707070707070707 0601".replace(' ', "");
    assert_eq!(encode(&command), padded(&map));

    let receipt = Plaintext {
        command_id: Some(CommandId::new([7; 16])),
        status: Some(Status::Unknown),
        ..Plaintext::new(Kind::Receipt)
    };
    assert_eq!(encode(&receipt), padded("a30001045007070707070707070707070707070707 0504".replace(' ', "").as_str()));

    let chunk = Plaintext {
        body: Some(&[1]),
        transfer: Some(24),
        chunk_offset: Some(65_536),
        total: Some(1 << 32),
        ..Plaintext::new(Kind::FirmwareChunk)
    };
    assert_eq!(encode(&chunk), padded("a500140341010718 18081a00010000091b0000000100000000".replace(' ', "").as_str()));
    assert_eq!(encode(&Plaintext::new(Kind::Setting)), padded("a10011"));
}

#[test]
fn padding_fills_a_bucket() {
    for (map, bucket) in [
        (0, 64),
        (63, 64),
        (64, 128),
        (127, 128),
        (128, 256),
        (255, 256),
        (511, 512),
        (512, 1024),
        (1023, 1024),
        (1024, 2048),
        (2047, 2048),
        (2048, 3072),
        (64_511, 64_512),
    ] {
        assert_eq!(padded_len(map), bucket, "{map}");
    }
}

#[test]
fn what_is_not_padded_to_its_bucket_is_refused() {
    let good = padded("a10000");
    assert!(Plaintext::decode(&good).is_ok());
    let bad = |found: Vec<u8>| {
        let expected = PlaintextError::Padding { map_len: 3, found: found.len() };
        assert_eq!(Plaintext::decode(&found), Err(expected), "{found:02x?}");
    };
    bad(good[..3].to_vec());
    bad(good[..63].to_vec());
    bad([good.clone(), vec![0]].concat());
    bad([good.clone(), vec![0; 64]].concat());
    bad(vec![0xa1, 0, 0, 0x80]);
    for (at, byte) in [(3, 0x00), (3, 0x81), (4, 0x80), (63, 0x01)] {
        let mut found = good.clone();
        found[at] = byte;
        bad(found);
    }
}

#[test]
fn a_map_is_deterministic_and_has_a_kind() {
    use PlaintextError::*;
    for (map, expected) in [
        ("a0", NoKind),
        ("a10100", Value { key: 1 }),
        ("a1014161", Value { key: 1 }),
        ("a1016161", NoKind),
        ("a20000 0000", Cbor),
        ("a20161610000", Cbor),
        ("a1001800", Cbor),
        ("a1180000", Cbor),
        ("b80100 00", Cbor),
        ("bf0000ff", Cbor),
        ("8100", Cbor),
        ("", Cbor),
        ("a20000 0161ff", Cbor),
        ("a10020", Value { key: 0 }),
        ("a20000 0220", Value { key: 2 }),
        ("a20000 036161", Value { key: 3 }),
        ("a20000 044107", Value { key: 4 }),
        ("a20000 0505", Value { key: 5 }),
        ("a20000 06f6", Value { key: 6 }),
        ("a20000 0a3800", Cbor),
        ("a20000 0a20", Value { key: 10 }),
    ] {
        let bytes = padded(&map.replace(' ', ""));
        assert_eq!(Plaintext::decode(&bytes), Err(expected), "{map}");
    }
    assert_eq!(Plaintext::decode(&[]), Err(Cbor));
    assert_eq!(Plaintext::decode(&[0x80; 64]), Err(Cbor));
}

#[test]
fn unknown_keys_and_kinds_are_read_over() {
    let with_unknown = padded("a500000343aabbcc0b82f6fb3ff199999999999a181861782004").to_vec();
    let read = Plaintext::decode(&with_unknown).unwrap();
    assert_eq!((read.kind, read.body), (Kind::Reading, Some(&[0xaa, 0xbb, 0xcc][..])));
    let text_key = padded("a2000061610a");
    assert_eq!(Plaintext::decode(&text_key).unwrap(), Plaintext::new(Kind::Reading));
    assert_eq!(Plaintext::decode(&padded("a1001863")).unwrap().kind, Kind::Unknown(99));
    for number in 0..30 {
        assert_eq!(Kind::from_number(number).number(), number);
    }
}

#[test]
fn a_plaintext_wants_its_room() {
    let small = Plaintext::new(Kind::Event);
    assert_eq!(small.encode_padded(&mut [0; 63]), Err(PlaintextTooLong { needed: 64, max: 63 }));
    let body = vec![0; PLAINTEXT_LEN_MAX];
    let large = Plaintext { body: Some(&body), ..small };
    let too_long = PlaintextTooLong { needed: PLAINTEXT_LEN_MAX + 1024, max: PLAINTEXT_LEN_MAX };
    assert_eq!(large.encode_padded(&mut vec![0; 100_000]), Err(too_long));
    assert!(!format!("{:?}", Plaintext { body: Some(b"\x2a"), ..small }).contains("42"), "no plaintext in a log");
}

prop_compose! {
    fn parts()(
        kind in prop_oneof![0u64..25, any::<u64>()],
        name in prop::option::of("[a-zA-Zäß0-9 ]{0,40}"),
        body in prop::option::of(prop::collection::vec(any::<u8>(), 0..1500)),
        id in prop::option::of(any::<[u8; 16]>()),
        status in prop::option::of(prop::sample::select(vec![Status::Accepted, Status::Failed, Status::Unknown])),
        times in any::<[Option<u64>; 2]>(),
        numbers in any::<[Option<u64>; 4]>(),
    ) -> (u64, Option<String>, Option<Vec<u8>>, Option<[u8; 16]>, Option<Status>, [Option<u64>; 2], [Option<u64>; 4]) {
        (kind, name, body, id, status, times, numbers)
    }
}

proptest! {
    #[test]
    fn what_was_encoded_is_decoded((kind, name, body, id, status, times, numbers) in parts()) {
        let [device_time, expires_at] = times.map(|time| time.map(UnixTime::from_ms));
        let [transfer, chunk_offset, total, reading_id] = numbers;
        let plaintext = Plaintext {
            kind: Kind::from_number(kind),
            name: name.as_deref(),
            device_time,
            body: body.as_deref(),
            command_id: id.map(CommandId::new),
            status,
            expires_at,
            transfer,
            chunk_offset,
            total,
            reading_id,
        };
        let bytes = encode(&plaintext);
        prop_assert_eq!(bytes.len(), plaintext.padded_len());
        prop_assert_eq!(Plaintext::decode(&bytes), Ok(plaintext));
    }

    #[test]
    fn garbage_is_an_error_or_a_plaintext(mut bytes in prop::collection::vec(any::<u8>(), 0..200), entries in 0u8..6) {
        if let Some(first) = bytes.first_mut() {
            *first = 0xa0 | entries;
        }
        let _ = Plaintext::decode(&bytes);
    }

    #[test]
    fn a_damaged_plaintext_is_an_error_or_another(at in 0usize..64, byte: u8) {
        // The last key, damaged, is an unknown one, which is read over.
        prop_assume!(at != 32);
        let mut bytes = padded("a50000016b74656d7065726174757265021b000001ba60d3387b034432312e350a19012c");
        let before = bytes.clone();
        bytes[at] = byte;
        if let Ok(read) = Plaintext::decode(&bytes) {
            prop_assert_eq!(encode(&read), bytes, "one plaintext has one encoding, from {:02x?}", before);
        }
    }
}
