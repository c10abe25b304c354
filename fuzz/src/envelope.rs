//! What a stranger puts on a device's topics: bytes become an envelope, or say why not; an envelope
//! is the bytes it came from, and opens nowhere it should not.

use unhidra_e2ee::envelope::{Envelope, HandshakeInit, MESSAGE_LEN_MAX, Message, PrekeyRequest, head_len};
use unhidra_e2ee::fingerprint::Fingerprint;
use unhidra_e2ee::suite::Suite;

use crate::fixed::{self, Fixed, LATER};
use crate::pair::NONCE;

pub(crate) fn run(bytes: &[u8]) {
    if let Ok(request) = PrekeyRequest::parse(bytes) {
        assert_eq!(request.encode(), bytes);
    }
    for suite in Suite::ALL {
        offer_to(Fixed::of(suite), bytes);
    }
}

fn offer_to(fixed: &Fixed, bytes: &[u8]) {
    let node = fixed.node_identity.public();
    let own = Fingerprint::of(&fixed.id, &fixed.device_identity.public(), &node);
    assert!(own.compare(bytes).is_err() || bytes.starts_with(b"UNHIDRA:1:"), "a code of what is none");
    match Envelope::parse(bytes) {
        Ok(Envelope::Message(message)) => {
            is_its_bytes(&message, bytes);
            open(fixed, bytes);
        }
        Ok(Envelope::HandshakeInit(init)) => {
            handshake_is_its_bytes(&init, bytes);
            open(fixed, bytes);
        }
        Ok(Envelope::PreKeyBundle(bundle)) => {
            let verified = bundle.verify(&fixed.id, &node, &NONCE);
            assert!(verified.is_err() || is_one_of(bytes, |fixed| &fixed.bundle), "a forged bundle");
        }
        Ok(Envelope::ResetRequest(reset)) => {
            let verified = reset.verify(&fixed.id, &node);
            assert!(verified.is_err() || is_one_of(bytes, |fixed| &fixed.reset), "a forged reset");
        }
        Err(_) => {}
    }
}

/// The node is the same in both suites, and so is what it signs.
fn is_one_of(bytes: &[u8], signed: impl Fn(&Fixed) -> &Vec<u8>) -> bool {
    Suite::ALL.into_iter().any(|suite| signed(Fixed::of(suite)) == bytes)
}

fn open(fixed: &Fixed, bytes: &[u8]) {
    fixed::open(&mut fixed.node(), bytes, LATER);
    fixed::open(&mut fixed.device(), bytes, LATER);
}

fn is_its_bytes(message: &Message<'_>, bytes: &[u8]) {
    assert!(bytes.len() <= MESSAGE_LEN_MAX);
    assert_eq!([&message.header()[..], message.ciphertext(), message.tag()].concat(), bytes);
    let numbers = [message.previous_chain_len().to_be_bytes(), message.number().to_be_bytes()].concat();
    assert_eq!([&[1][..], message.ratchet_key(), &numbers].concat(), message.header());
}

fn handshake_is_its_bytes(init: &HandshakeInit<'_>, bytes: &[u8]) {
    let (head, inner) = bytes.split_at(init.head().len());
    assert_eq!(init.head()[..], *head);
    is_its_bytes(&init.message(), inner);
    let numbers = [init.spk_id(), init.opk_id(), init.counter()].map(u32::to_be_bytes).concat();
    let front = [&[2, init.suite().as_byte()][..], init.identity(), init.ephemeral(), &numbers].concat();
    assert!(head.starts_with(&front));
    assert_eq!(head.len(), head_len(init.suite()));
}
