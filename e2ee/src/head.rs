//! The head of a HandshakeInit, as its sender keeps it until the other side has answered
//! (PROTOCOL.md sections 4 and 9).

#[cfg(feature = "pqxdh")]
use crate::envelope::KEM_CIPHERTEXT_LEN;
use crate::envelope::{HEAD_LEN, HEAD_LEN_MAX, TYPE_HANDSHAKE, head_len};
use crate::suite::Suite;
use crate::wire::{Writer, join};

/// The head of a HandshakeInit.
#[derive(Debug)]
pub struct Head {
    /// It says how many of the bytes count.
    suite: Suite,
    bytes: [u8; HEAD_LEN_MAX],
}

impl Head {
    /// A head; that of suite 2 with zeros where its KEM ciphertext goes.
    pub(crate) fn new(
        suite: Suite,
        identity: &[u8; 32],
        ephemeral: &[u8; 32],
        spk_id: u32,
        opk_id: u32,
        counter: u32,
    ) -> Self {
        let front: [u8; HEAD_LEN] = join(&[
            &[TYPE_HANDSHAKE, suite.as_byte()],
            identity,
            ephemeral,
            &spk_id.to_be_bytes(),
            &opk_id.to_be_bytes(),
            &counter.to_be_bytes(),
        ]);
        Self::filled(suite, &front)
    }

    /// A head that was written down. `None` where its suite has another length.
    pub(crate) fn from_bytes(suite: Suite, bytes: &[u8]) -> Option<Self> {
        (bytes.len() == head_len(suite) && bytes.len() <= HEAD_LEN_MAX).then(|| Self::filled(suite, bytes))
    }

    fn filled(suite: Suite, front: &[u8]) -> Self {
        let mut head = Self { suite, bytes: [0; HEAD_LEN_MAX] };
        Writer::new(&mut head.bytes).put(front);
        head
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..head_len(self.suite)).unwrap_or(&self.bytes)
    }

    /// Where the KEM ciphertext goes.
    #[cfg(feature = "pqxdh")]
    pub(crate) const fn ciphertext_mut(&mut self) -> Option<&mut [u8; KEM_CIPHERTEXT_LEN]> {
        self.bytes.last_chunk_mut()
    }
}
