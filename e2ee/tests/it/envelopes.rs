//! Bytes on the wire: each malformation has its own error, and none a panic.

use proptest::prelude::*;
use unhidra_e2ee::envelope::{Envelope, EnvelopeError, EnvelopeKind, PrekeyRequest};
use unhidra_e2ee::recent::Recent;
use unhidra_e2ee::sessions::Sessions;
use unhidra_e2ee::suite::{Suite, is_built};

use crate::pair::{Node, Pair, handshake, message};

#[test]
fn each_malformation_has_its_own_error() {
    use EnvelopeError::*;
    use EnvelopeKind::*;
    let filled = |first: &[u8], len: usize| {
        let mut bytes = vec![0; len];
        bytes[..first.len()].copy_from_slice(first);
        bytes
    };
    let inner = |first: u8, len: usize| {
        let mut bytes = filled(&[2, 1], len);
        bytes[78] = first;
        bytes
    };
    for (bytes, expected) in [
        (vec![], Empty),
        (vec![0], UnknownType { found: 0 }),
        (vec![5; 100], UnknownType { found: 5 }),
        (filled(&[1], 56), TooShort { kind: Message, found: 56, min: 57 }),
        (filled(&[1], 65_536), TooLong { kind: Message, found: 65_536, max: 65_535 }),
        (filled(&[2, 1], 134), TooShort { kind: HandshakeInit, found: 134, min: 135 }),
        (inner(1, 65_614), TooLong { kind: HandshakeInit, found: 65_614, max: 65_613 }),
        (inner(2, 200), InnerType { found: 2 }),
        (vec![3], TooShort { kind: PreKeyBundle, found: 1, min: 198 }),
        (filled(&[3, 1], 197), TooShort { kind: PreKeyBundle, found: 197, min: 198 }),
        (filled(&[3, 1], 199), TooLong { kind: PreKeyBundle, found: 199, max: 198 }),
        (filled(&[3, 1], 1382), TooLong { kind: PreKeyBundle, found: 1382, max: 198 }),
        (filled(&[3, 0], 198), UnknownSuite { found: 0 }),
        (filled(&[3, 3], 1382), UnknownSuite { found: 3 }),
        (filled(&[4, 1], 97), TooShort { kind: ResetRequest, found: 97, min: 98 }),
        (filled(&[4, 1], 99), TooLong { kind: ResetRequest, found: 99, max: 98 }),
        (filled(&[4, 6], 98), UnknownReason { found: 6 }),
        (filled(&[4, 0], 98), UnknownReason { found: 0 }),
    ] {
        assert_eq!(Envelope::parse(&bytes), Err(expected), "{:02x?}", bytes.first());
    }
    let mut unknown_suite = inner(1, 200);
    unknown_suite[1] = 3;
    assert_eq!(Envelope::parse(&unknown_suite), Err(UnknownSuite { found: 3 }));
    assert!(Envelope::parse(&filled(&[1], 57)).is_ok() && Envelope::parse(&filled(&[1], 65_535)).is_ok());
    assert!(Envelope::parse(&inner(1, 135)).is_ok() && Envelope::parse(&inner(1, 65_613)).is_ok());
}

#[test]
fn a_request_for_prekeys_has_17_bytes() {
    let request = PrekeyRequest { suite: Suite::X3dh, nonce: [9; 16] };
    let bytes = request.encode();
    assert_eq!(bytes, [1, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]);
    assert_eq!(PrekeyRequest::parse(&bytes), Ok(request));
    let kind = EnvelopeKind::PrekeyRequest;
    assert_eq!(PrekeyRequest::parse(&bytes[..16]), Err(EnvelopeError::TooShort { kind, found: 16, min: 17 }));
    assert_eq!(PrekeyRequest::parse(&[1; 18]), Err(EnvelopeError::TooLong { kind, found: 18, max: 17 }));
    assert_eq!(PrekeyRequest::parse(&[3; 17]), Err(EnvelopeError::UnknownSuite { found: 3 }));
}

#[test]
fn the_fields_stand_where_the_table_says() {
    let mut pair = Pair::enrolled(1);
    pair.begin();
    let sealed = pair.device_seals(b"body");
    assert_eq!(sealed.len(), 78 + 57 + 4);
    let init = handshake(&sealed);
    assert_eq!(init.head(), &sealed[..78]);
    assert_eq!(init.identity(), pair.device_identity.public().as_bytes());
    assert_eq!(init.ephemeral(), &sealed[34..66]);
    assert_eq!((init.spk_id(), init.opk_id(), init.counter()), (1, 1, 1));
    let inner = message(&sealed);
    assert_eq!(inner.header(), &sealed[78..119]);
    assert_eq!(inner.ratchet_key(), pair.device.present().unwrap().ratchet_key());
    assert_eq!((inner.previous_chain_len(), inner.number()), (0, 0));
    assert_eq!((inner.ciphertext(), inner.tag().as_slice()), (&sealed[119..123], &sealed[123..]));
}

#[test]
fn what_is_of_suite_2_has_its_own_lengths_or_is_left_out() {
    use EnvelopeError::*;
    use EnvelopeKind::*;
    let of_suite_2 = |kind: u8, len: usize| {
        let mut bytes = vec![0; len];
        (bytes[0], bytes[1]) = (kind, 2);
        if let Some(inner) = bytes.get_mut(1166).filter(|_| kind == 2) {
            *inner = 1;
        }
        bytes
    };
    for (kind, len, expected) in [
        (2, 2, Some(TooShort { kind: HandshakeInit, found: 2, min: 1223 })),
        (2, 200, Some(TooShort { kind: HandshakeInit, found: 200, min: 1223 })),
        (2, 1222, Some(TooShort { kind: HandshakeInit, found: 1222, min: 1223 })),
        (2, 1223, None),
        (2, 66_701, None),
        (2, 66_702, Some(TooLong { kind: HandshakeInit, found: 66_702, max: 66_701 })),
        (3, 198, Some(TooShort { kind: PreKeyBundle, found: 198, min: 1382 })),
        (3, 1381, Some(TooShort { kind: PreKeyBundle, found: 1381, min: 1382 })),
        (3, 1382, None),
        (3, 1383, Some(TooLong { kind: PreKeyBundle, found: 1383, max: 1382 })),
    ] {
        let expected = if is_built(Suite::Pqxdh) { expected } else { Some(SuiteNotBuilt { found: Suite::Pqxdh }) };
        assert_eq!(Envelope::parse(&of_suite_2(kind, len)).err(), expected, "type {kind} of {len} bytes");
    }
    let request = [2; 17];
    let expected = if is_built(Suite::Pqxdh) { None } else { Some(SuiteNotBuilt { found: Suite::Pqxdh }) };
    assert_eq!(unhidra_e2ee::envelope::PrekeyRequest::parse(&request).err(), expected);
    assert_eq!(
        SuiteNotBuilt { found: Suite::Pqxdh }.to_string(),
        "suite 2, which this build leaves out: it needs the feature pqxdh"
    );
}

proptest! {
    #[test]
    fn garbage_is_an_error(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0u8..6) {
        if let Some(first) = bytes.first_mut() {
            *first = kind;
        }
        let _ = PrekeyRequest::parse(&bytes);
        if let Ok(Envelope::Message(message)) = Envelope::parse(&bytes) {
            let mut pair = Pair::enrolled(0);
            let mut sessions = Sessions::<Node>::new(None, None, Recent::default());
            prop_assert!(sessions.open(&message, &mut [0; 300], pair.now, &mut pair.rng).is_err());
        }
    }
}
