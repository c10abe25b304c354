//! What a stranger puts on a device's topics, and what a disk may give back.
//!
//! The first byte says what the others are:
//!
//! ```text
//! 0  a script: messages of a fixed pair, each as it is or spoilt, in any order
//! 1  an envelope
//! 2  a state record
//! 3  an opened plaintext
//! ```

use std::sync::LazyLock;

use unhidra_e2ee::envelope::{Envelope, HEAD_LEN, PrekeyRequest};
use unhidra_e2ee::plaintext::Plaintext;
use unhidra_e2ee::role::{DeviceRole, Role};
use unhidra_e2ee::session::Session;

use crate::open::pair::{NONCE, Node, Pair, Side, encode};

mod pair;

/// Steps of a script that are played; each may cost two DH steps.
const STEPS_MAX: usize = 24;

static PAIR: LazyLock<Pair> = LazyLock::new(Pair::new);

pub(crate) fn run(data: &[u8]) {
    match data {
        [0, script @ ..] => play(script),
        [1, bytes @ ..] => offer(bytes),
        [2, record @ ..] => {
            read_state::<DeviceRole>(record);
            read_state::<Node>(record);
        }
        [3, plaintext @ ..] => read_plaintext(plaintext),
        _ => {}
    }
}

/// Plays a script of four bytes a step: which message, where it is spoilt (two bytes), and with
/// what; 0 leaves it as it is, and 1 cuts it off there.
///
/// A spoilt message opens nowhere and changes nothing, and so a whole one opens after it: once.
fn play(script: &[u8]) {
    let mut node = PAIR.node();
    let mut device = PAIR.device();
    let mut opened = vec![false; PAIR.messages.len()];
    for step in script.as_chunks::<4>().0.iter().take(STEPS_MAX) {
        let [which, high, low, spoil] = *step;
        let which = usize::from(which) % PAIR.messages.len();
        let message = &PAIR.messages[which];
        let at = usize::from(u16::from_be_bytes([high, low])) % message.sealed.len();
        let mut bytes = message.sealed.clone();
        match spoil {
            0 => {}
            1 => bytes.truncate(at),
            _ => bytes[at] ^= spoil,
        }
        let is_whole = bytes == message.sealed;
        let inner_at =
            if matches!(Envelope::parse(&message.sealed), Ok(Envelope::HandshakeInit(_))) { HEAD_LEN } else { 0 };
        let inner_is_whole = bytes.get(inner_at..) == message.sealed.get(inner_at..);
        let result = match message.to {
            Side::Node => {
                if let Some(plaintext) = PAIR.respond(&bytes) {
                    assert!(is_whole, "a spoilt handshake began a session");
                    assert_eq!(plaintext, message.plaintext);
                }
                pair::open(&mut node, &bytes, PAIR.now)
            }
            Side::Device => pair::open(&mut device, &bytes, PAIR.now),
        };
        match result {
            Some(plaintext) => {
                assert!(inner_is_whole, "a spoilt message opened");
                assert!(!opened[which], "message {which} opened twice");
                assert_eq!(plaintext, message.plaintext);
                opened[which] = true;
            }
            None => assert!(!is_whole || opened[which], "message {which} no longer opens"),
        }
    }
}

/// Offers bytes to everything that reads envelopes.
fn offer(bytes: &[u8]) {
    if let Ok(request) = PrekeyRequest::parse(bytes) {
        assert_eq!(request.encode(), bytes);
    }
    match Envelope::parse(bytes) {
        Ok(Envelope::Message(_) | Envelope::HandshakeInit(_)) => {
            pair::open(&mut PAIR.node(), bytes, PAIR.now);
            pair::open(&mut PAIR.device(), bytes, PAIR.now);
            PAIR.respond(bytes);
        }
        Ok(Envelope::PreKeyBundle(bundle)) => {
            let verified = bundle.verify(&PAIR.id, &PAIR.node_identity.public(), &NONCE);
            assert!(verified.is_err() || bytes == PAIR.bundle, "a forged bundle");
        }
        Ok(Envelope::ResetRequest(reset)) => {
            let verified = reset.verify(&PAIR.id, &PAIR.node_identity.public());
            assert!(verified.is_err() || bytes == PAIR.reset, "a forged reset");
        }
        Err(_) => {}
    }
}

/// A record that is read is written again so that it reads as the same; and whatever it says, a
/// message that meets it stops nothing.
fn read_state<R: Role>(record: &[u8]) {
    let Ok(session) = Session::<R>::decode(record, None, None) else { return };
    let written = encode(&session);
    let again = Session::<R>::decode(&written, None, None);
    let Ok(again) = again else { panic!("{again:?} from what was written") };
    assert_eq!(encode(&again), written);
    let mut sessions = pair::sessions_of(again);
    for message in &PAIR.messages {
        pair::open(&mut sessions, &message.sealed, PAIR.now);
    }
}

fn read_plaintext(padded: &[u8]) {
    let Ok(plaintext) = Plaintext::decode(padded) else { return };
    let mut out = vec![0; plaintext.padded_len()];
    // What is unknown is left out, so it is never longer.
    assert_eq!(plaintext.encode_padded(&mut out), Ok(out.len()));
    assert!(out.len() <= padded.len());
    assert_eq!(Plaintext::decode(&out), Ok(plaintext));
}
