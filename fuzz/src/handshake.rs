//! What begins a session on the node.
//!
//! ```text
//! 0   bytes                            a HandshakeInit as it comes, of either suite
//! 1   changes(78) plaintext            one of suite 1 whose head was changed before it was sealed, by a device
//!                                      that knows all keys and computes SAD over the changed head
//! ```
//!
//! The second kind is computed here, from PROTOCOL.md sections 4 and 5 over a stock ratchet, so that
//! it holds what the crate does to a second opinion.

use std::sync::LazyLock;

use sha2::{Digest, Sha256};
use unhidra_e2ee::envelope::Envelope;
use unhidra_e2ee::prekey::OneTimePrekeySecret;
use unhidra_e2ee::role::StockRole;
use unhidra_e2ee::session::Session;
use unhidra_e2ee::stock::initiator_key;
use unhidra_e2ee::suite::Suite;

use crate::fixed::{Fixed, rng};
use crate::pair::durable;

const HEAD: usize = 78;
/// Where the head holds EK, and the counter behind the ids.
const EPHEMERAL: std::ops::Range<usize> = 34..66;
const COUNTER: std::ops::Range<usize> = 74..78;
const EPHEMERAL_SECRET: [u8; 32] = [0x42; 32];
const PLAINTEXT_LEN_MAX: usize = 4096;

pub(crate) fn run(data: &[u8]) {
    match data {
        [0, bytes @ ..] => as_it_comes(bytes),
        [1, rest @ ..] => {
            let Some((changes, plaintext)) = rest.split_first_chunk() else { return };
            if plaintext.len() <= PLAINTEXT_LEN_MAX {
                resealed(changes, plaintext);
            }
        }
        _ => {}
    }
}

/// Nobody but the device makes one that opens, and those the device made are known.
fn as_it_comes(bytes: &[u8]) {
    let Ok(Envelope::HandshakeInit(init)) = Envelope::parse(bytes) else { return };
    for suite in Suite::ALL {
        let fixed = Fixed::of(suite);
        if let Ok(plaintext) = fixed.respond(&init, &fixed.spk, &fixed.opk) {
            assert_eq!(init.suite(), suite, "a handshake of another suite began a session");
            let sent = fixed.messages.iter().map(|message| (&message.sealed[..], &message.plaintext[..]));
            let mut sent = sent.chain([(&fixed.first_sealed[..], &b"first"[..])]);
            assert!(sent.any(|sent| sent == (bytes, &plaintext[..])), "a spoilt handshake began a session");
        }
    }
}

/// The counter is the device's to choose; whatever else of the head was changed is refused.
fn resealed(changes: &[u8; HEAD], plaintext: &[u8]) {
    let fixed = Fixed::of(Suite::X3dh);
    let public = fixed.node_identity.public();
    let (spk, opk) = (fixed.spk.public(), fixed.opk.public());
    let key = initiator_key(&fixed.device_identity, &EPHEMERAL_SECRET, &public, spk, opk).expect("honest keys");
    let mut head = head(fixed);
    head.iter_mut().zip(changes).for_each(|(byte, change)| *byte ^= change);
    let id = fixed.id.as_bytes();
    let sad = Sha256::new()
        .chain_update(b"unhidra/sad/v1")
        .chain_update([u8::try_from(id.len()).expect("at most 64")])
        .chain_update(id)
        .chain_update(public.as_bytes())
        .chain_update(spk)
        .chain_update(opk)
        .chain_update(head)
        .finalize();
    let mut session = Session::<StockRole>::sending_first(&key, sad.into(), *spk, &mut rng()).expect("an honest key");
    let (_, pending) = session.seal(plaintext, vec![0; session.sealed_len(plaintext.len())]).expect("a seal");
    let bytes = [&head[..], &pending.release(durable())].concat();

    let changed = |range: std::ops::Range<usize>| changes[range].iter().any(|change| *change != 0);
    let opened = match Envelope::parse(&bytes) {
        Ok(Envelope::HandshakeInit(init)) => {
            assert_eq!(init.counter().to_be_bytes(), head[COUNTER]);
            fixed.respond(&init, &fixed.spk, &fixed.opk).ok()
        }
        _ => None,
    };
    if changed(0..EPHEMERAL.start) || changed(EPHEMERAL.end..COUNTER.start) {
        assert_eq!(opened, None, "a changed head began a session");
    } else if !changed(EPHEMERAL) {
        assert_eq!(opened.as_deref(), Some(plaintext), "an honest handshake began no session");
    }
}

/// The head of an honest handshake with a fixed EK.
fn head(fixed: &Fixed) -> [u8; HEAD] {
    let Ok(Envelope::HandshakeInit(init)) = Envelope::parse(&fixed.first_sealed) else { panic!("no handshake") };
    let mut head: [u8; HEAD] = init.head().try_into().expect("suite 1");
    head[EPHEMERAL].copy_from_slice(ephemeral());
    head
}

/// The public half of the fixed EK, as a prekey's: both are X25519.
fn ephemeral() -> &'static [u8; 32] {
    static PUBLIC: LazyLock<[u8; 32]> =
        LazyLock::new(|| *OneTimePrekeySecret::from_bytes(1, &EPHEMERAL_SECRET).public());
    &PUBLIC
}
