//! A failed open changes nothing, byte for byte: every error there is, on both sides, over the
//! present session and the previous one.

use std::collections::BTreeSet;
use std::time::Duration;

use unhidra_e2ee::envelope::Envelope;
use unhidra_e2ee::error::{ChainKind, OpenError};
use unhidra_e2ee::role::Role;
use unhidra_e2ee::sessions::Sessions;

use crate::pair::{Pair, message, state, suites};

const TEXT: &[u8] = b"21.5 degrees, and nobody else's business";

fn with_number(sealed: &[u8], number: u32) -> Vec<u8> {
    let mut forged = sealed.to_vec();
    forged[37..41].copy_from_slice(&number.to_be_bytes());
    forged
}

fn with_key(sealed: &[u8], key: [u8; 32]) -> Vec<u8> {
    let mut forged = sealed.to_vec();
    forged[1..33].copy_from_slice(&key);
    forged
}

/// With another first byte of the tag, which is what tells one message from another.
fn with_tag(sealed: &[u8]) -> Vec<u8> {
    let mut forged = sealed.to_vec();
    let tag = forged.len() - 16;
    forged[tag] ^= 1;
    forged
}

/// The bare Message, where a head is still repeated.
fn bare(sealed: Vec<u8>) -> Vec<u8> {
    match Envelope::parse(&sealed) {
        Ok(Envelope::HandshakeInit(init)) => sealed[init.head().len()..].to_vec(),
        _ => sealed,
    }
}

/// What each side is handed: three chains of the other side, oldest first, some of it opened.
struct Heard {
    /// Of each chain: messages that opened, ones whose key is kept, and the number after the last.
    chains: Vec<Chain>,
    /// A message of the present chain that is next, and one of the session before.
    next: Vec<u8>,
    previous: Vec<u8>,
}

struct Chain {
    opened: Vec<u8>,
    late: Vec<u8>,
}

/// Tries what must not open. Returns the name of each error.
fn refused<R: Role>(
    sessions: &mut Sessions<R>,
    pair: &mut Pair,
    heard: &Heard,
    jump_max: u32,
) -> BTreeSet<&'static str> {
    let mut one = [0; 32];
    one[0] = 1;
    let [oldest, old, present] = heard.chains.as_slice() else { panic!("three chains") };
    let next = message(&heard.next).number();
    let previous = message(&heard.previous).number();
    let own = *sessions.present().unwrap().ratchet_key();
    let mut names = BTreeSet::new();
    for (what, sealed, expected) in [
        ("opened before", present.opened.clone(), OpenError::Duplicate),
        ("its number used again", with_tag(&present.opened), {
            OpenError::RolledBack { number: message(&present.opened).number() }
        }),
        ("beyond the end of the old chain", with_number(&old.opened, 9999), OpenError::RolledBack { number: 9999 }),
        ("of the old chain, long ago", old.opened.clone(), {
            OpenError::TooOld { number: message(&old.opened).number() }
        }),
        ("of a chain of which only other keys are kept", oldest.opened.clone(), {
            OpenError::TooOld { number: message(&oldest.opened).number() }
        }),
        ("ahead, its tag damaged", with_tag(&heard.next), OpenError::BadTag { number: next }),
        ("further ahead than it is", with_number(&heard.next, next + 5), OpenError::BadTag { number: next + 5 }),
        ("as far ahead as is taken", with_number(&heard.next, next + jump_max), {
            OpenError::BadTag { number: next + jump_max }
        }),
        ("late, its tag damaged", with_tag(&present.late), {
            OpenError::BadTag { number: message(&present.late).number() }
        }),
        ("of the oldest chain, its tag damaged", with_tag(&oldest.late), {
            OpenError::BadTag { number: message(&oldest.late).number() }
        }),
        (
            "too far ahead",
            with_number(&heard.next, next + jump_max + 1),
            OpenError::TooFar {
                number: next + jump_max + 1,
                jump: jump_max + 1,
                max: jump_max,
                chain: ChainKind::Known,
            },
        ),
        (
            "too far ahead for any",
            with_number(&heard.next, u32::MAX),
            OpenError::TooFar { number: u32::MAX, jump: u32::MAX - next, max: jump_max, chain: ChainKind::Known },
        ),
        ("too far ahead in a new chain", with_number(&with_key(&heard.next, [9; 32]), jump_max + 1), {
            OpenError::TooFar { number: jump_max + 1, jump: jump_max + 1, max: jump_max, chain: ChainKind::New }
        }),
        ("under an unknown key", with_key(&heard.next, [9; 32]), OpenError::UnknownKey { tried: true }),
        ("under one's own key", with_key(&heard.next, own), OpenError::HostileKey { tried: false }),
        ("under a key of small order", with_key(&heard.next, one), OpenError::HostileKey { tried: true }),
        ("of the previous session, damaged", with_tag(&heard.previous), OpenError::BadTag { number: previous }),
        (
            "of the previous session, too far",
            with_number(&heard.previous, u32::MAX),
            OpenError::TooFar { number: u32::MAX, jump: u32::MAX - previous, max: jump_max, chain: ChainKind::Known },
        ),
    ] {
        let before = state(sessions);
        let mut out = vec![0; sealed.len()];
        let found = sessions.open(&message(&sealed), &mut out, pair.now, &mut pair.rng).map(drop);
        assert_eq!(found, Err(expected), "{what}");
        assert_eq!(state(sessions), before, "{what}");
        assert!(
            !out.windows(8).any(|seen| TEXT.windows(8).any(|text| text == seen)),
            "{what}: plaintext in the buffer"
        );
        names.insert(name(&expected));
    }
    let before = state(sessions);
    for sealed in [&heard.next, &present.late, &heard.previous] {
        let small = message(sealed).ciphertext().len() - 1;
        let found = sessions.open(&message(sealed), &mut vec![0; small], pair.now, &mut pair.rng).map(drop);
        let expected = OpenError::OutTooSmall { needed: small + 1, found: small };
        assert_eq!(found, Err(expected));
        assert_eq!(state(sessions), before);
        names.insert(name(&expected));
    }
    names
}

fn name(error: &OpenError) -> &'static str {
    match error {
        OpenError::Duplicate => "Duplicate",
        OpenError::RolledBack { .. } => "RolledBack",
        OpenError::TooOld { .. } => "TooOld",
        OpenError::TooFar { chain: ChainKind::Known, .. } => "TooFar, known",
        OpenError::TooFar { chain: ChainKind::New, .. } => "TooFar, new",
        OpenError::UnknownKey { tried: true } => "UnknownKey, tried",
        OpenError::UnknownKey { tried: false } => "UnknownKey",
        OpenError::HostileKey { tried: true } => "HostileKey, tried",
        OpenError::HostileKey { tried: false } => "HostileKey",
        OpenError::BadTag { .. } => "BadTag",
        OpenError::OutTooSmall { .. } => "OutTooSmall",
    }
}

/// All but the one that takes a side without a session.
const NAMES: [&str; 10] = [
    "BadTag",
    "Duplicate",
    "HostileKey",
    "HostileKey, tried",
    "OutTooSmall",
    "RolledBack",
    "TooFar, known",
    "TooFar, new",
    "TooOld",
    "UnknownKey, tried",
];

/// Both sides through three chains each, with messages late in every one. Opening 33 more in the
/// last makes the memory of what was opened forget those before.
fn heard_by_both(pair: &mut Pair) -> (Heard, Heard) {
    pair.lease_len = 4;
    let previous_up = [pair.device_seals(TEXT), pair.device_seals(TEXT)];
    let previous_down = [pair.node_seals(TEXT), pair.node_seals(TEXT)];
    pair.node_opens(&previous_up[0]).unwrap();
    pair.device_opens(&previous_down[0]).unwrap();
    pair.begin();
    let (mut ups, mut downs) = (Vec::new(), Vec::new());
    for round in 0..3 {
        pair.later(Duration::from_secs(600));
        let up = [0; 3].map(|_| pair.device_seals(TEXT));
        pair.node_opens(&up[0]).unwrap();
        pair.node_opens(&up[2]).unwrap();
        let down = [0; 3].map(|_| pair.node_seals(TEXT));
        pair.device_opens(&down[0]).unwrap();
        pair.device_opens(&down[2]).unwrap();
        let (mut last_up, mut last_down) = (bare(up[0].clone()), down[0].clone());
        if round == 2 {
            for _ in 0..33 {
                last_up = pair.device_seals(TEXT);
                pair.node_opens(&last_up).unwrap();
                last_down = pair.node_seals(TEXT);
                pair.device_opens(&last_down).unwrap();
            }
        }
        ups.push(Chain { opened: last_up, late: bare(up[1].clone()) });
        downs.push(Chain { opened: last_down, late: down[1].clone() });
    }
    let [_, previous_up] = previous_up;
    let [_, previous_down] = previous_down;
    let up = Heard { chains: ups, next: pair.device_seals(TEXT), previous: previous_up };
    let down = Heard { chains: downs, next: pair.node_seals(TEXT), previous: previous_down };
    (up, down)
}

#[test]
fn no_failed_open_changes_the_node() {
    for suite in suites() {
        let mut pair = Pair::confirmed_with(suite, 1);
        let (up, _) = heard_by_both(&mut pair);
        let mut node = std::mem::take(&mut pair.node);
        assert_eq!(refused(&mut node, &mut pair, &up, 2048), BTreeSet::from(NAMES));
        pair.node = node;
        // And everything honest among it still opens.
        for sealed in [&up.next, &up.previous, &up.chains[0].late, &up.chains[1].late, &up.chains[2].late] {
            assert_eq!(pair.node_open(sealed).unwrap().0, TEXT);
        }
    }
}

#[test]
fn no_failed_open_changes_the_device() {
    for suite in suites() {
        let mut pair = Pair::confirmed_with(suite, 2);
        let (_, down) = heard_by_both(&mut pair);
        let mut device = std::mem::take(&mut pair.device);
        assert_eq!(refused(&mut device, &mut pair, &down, 128), BTreeSet::from(NAMES));
        pair.device = device;
        for sealed in [&down.next, &down.previous, &down.chains[0].late, &down.chains[1].late, &down.chains[2].late] {
            assert_eq!(pair.device_open(sealed).unwrap().0, TEXT);
        }
    }
}

#[test]
fn without_a_session_there_is_nothing_to_change() {
    let mut pair = Pair::confirmed(3);
    let (up, down) = (pair.device_seals(TEXT), pair.node_seals(TEXT));
    (pair.node, pair.device) = Default::default();
    let unknown = OpenError::UnknownKey { tried: false };
    assert_eq!(pair.node_open(&up).map(drop), Err(unknown));
    assert_eq!(pair.device_open(&down).map(drop), Err(unknown));
    assert!(state(&pair.node).is_empty() && state(&pair.device).is_empty());
}
