//! What was ever on the wire: one plaintext for each message key.

use std::collections::HashMap;

use unhidra_e2ee::envelope::{Envelope, Message};

/// Every (ratchet key, N) that was seen, with the ciphertext and tag under it. A ratchet key and a
/// number name one message key, and the nonce is always zero.
#[derive(Default)]
pub(crate) struct Wire(HashMap<([u8; 32], u32), Vec<u8>>);

impl Wire {
    /// Records an envelope of the device.
    ///
    /// # Panics
    ///
    /// Where a message key was used for something else.
    pub(crate) fn record(&mut self, envelope: &[u8]) {
        let message: Message<'_> = match Envelope::parse(envelope) {
            Ok(Envelope::Message(message)) => message,
            Ok(Envelope::HandshakeInit(init)) => init.message(),
            other => panic!("a device sent {other:?}"),
        };
        let sealed = [message.ciphertext(), &message.tag()[..]].concat();
        let pair = (*message.ratchet_key(), message.number());
        let before = self.0.entry(pair).or_insert_with(|| sealed.clone());
        assert_eq!(*before, sealed, "the message key of number {} was used twice", message.number());
    }

    /// How many message keys were used.
    pub(crate) fn keys_used(&self) -> usize {
        self.0.len()
    }
}
