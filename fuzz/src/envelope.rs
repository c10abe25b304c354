//! What a stranger puts on a device's topics: bytes become an envelope, or say why not; an envelope
//! is the bytes it came from, and opens nowhere it should not.

use std::sync::LazyLock;

use unhidra_e2ee::envelope::{Envelope, HandshakeInit, MESSAGE_LEN_MAX, Message, PrekeyRequest};
use unhidra_e2ee::fingerprint::Fingerprint;

use crate::fixed::{self, Fixed};
use crate::pair::NONCE;

static FIXED: LazyLock<Fixed> = LazyLock::new(Fixed::new);

pub(crate) fn run(bytes: &[u8]) {
    if let Ok(request) = PrekeyRequest::parse(bytes) {
        assert_eq!(request.encode(), bytes);
    }
    let node = FIXED.node_identity.public();
    let own = Fingerprint::of(&FIXED.id, &FIXED.device_identity.public(), &node);
    assert!(own.compare(bytes).is_err() || bytes.starts_with(b"UNHIDRA:1:"), "a code of what is none");
    match Envelope::parse(bytes) {
        Ok(Envelope::Message(message)) => {
            is_its_bytes(&message, bytes);
            offer(bytes);
        }
        Ok(Envelope::HandshakeInit(init)) => {
            handshake_is_its_bytes(&init, bytes);
            offer(bytes);
        }
        Ok(Envelope::PreKeyBundle(bundle)) => {
            let verified = bundle.verify(&FIXED.id, &node, &NONCE);
            assert!(verified.is_err() || FIXED.is_a_bundle(bytes), "a forged bundle");
        }
        Ok(Envelope::ResetRequest(reset)) => {
            let verified = reset.verify(&FIXED.id, &node);
            assert!(verified.is_err() || bytes == FIXED.reset, "a forged reset");
        }
        Err(_) => {}
    }
}

fn offer(bytes: &[u8]) {
    fixed::open(&mut FIXED.node(), bytes, FIXED.now);
    fixed::open(&mut FIXED.device(), bytes, FIXED.now);
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
}
