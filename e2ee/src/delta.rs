//! What of a session must be written down after it moved (PROTOCOL.md section 12).

use core::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::wire::Writer;

/// The most bytes a chain record has.
pub const CHAIN_RECORD_LEN_MAX: usize = 48;

/// Which chain of a session.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Lane {
    /// What arrives.
    Receive,
    /// What is sent.
    Send,
}

/// What must be written, in the write that answers for the move.
#[derive(Debug)]
#[must_use = "a session that moved and is not written repeats itself after a crash"]
pub enum StateDelta {
    /// One chain moved: its record takes the place of that chain's last one, beside the whole.
    Chain {
        /// Which.
        lane: Lane,
        /// The record.
        bytes: ChainRecord,
    },
    /// More moved: [`Session::encode`](crate::session::Session::encode) the whole, which takes the
    /// place of everything before, both chains' records too.
    Whole,
}

/// A chain's record. It holds a chain key: wiped on drop, prints as `[secret]`.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct ChainRecord {
    bytes: [u8; CHAIN_RECORD_LEN_MAX],
    len: usize,
}

impl ChainRecord {
    pub(crate) fn new(parts: &[&[u8]]) -> Self {
        let mut bytes = [0; CHAIN_RECORD_LEN_MAX];
        let mut writer = Writer::new(&mut bytes);
        for part in parts {
            writer.put(part);
        }
        let len = writer.finish().unwrap_or_default();
        Self { bytes, len }
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl AsRef<[u8]> for ChainRecord {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl fmt::Debug for ChainRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}
