//! What travels: ciphertext, what a device said, and what it answered.

use alloc::sync::Arc;
use core::fmt;
use core::str::FromStr;

use bytes::Bytes;
use thiserror::Error;

use crate::ids::{CommandId, DeviceId, Offset, Partition};
use crate::time::UnixTime;

/// Ciphertext as it travelled. The broker knows no more of a message than this.
#[derive(Clone, Eq, PartialEq)]
pub struct Sealed(pub Bytes);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

/// What a device's message is (e2ee/PROTOCOL.md section 6, key 0).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum UplinkKind {
    /// A measured value.
    Reading,
    /// The answer to a command.
    Receipt {
        /// The command it answers.
        command: CommandId,
        /// What became of it.
        status: ReceiptStatus,
    },
    /// Something that happened.
    Event,
    /// It opened, and is none of the kinds this node knows or no valid plaintext: kept as a row,
    /// so that a repeat is known, and shown to nobody.
    Ignored,
    /// What is left of a row whose time was over: its place, and what a repeat is known by. What it
    /// was is forgotten, and it is shown to nobody.
    Trimmed,
}

/// What a device says became of a command (e2ee/PROTOCOL.md section 6, key 5).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum ReceiptStatus {
    /// It will act.
    Accepted = 0,
    /// It acted.
    Done = 1,
    /// It tried and could not.
    Failed = 2,
    /// The command came after its expiry.
    Expired = 3,
    /// It knows no command of that name.
    Unknown = 4,
}

impl ReceiptStatus {
    /// The status of a byte, if there is one.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Accepted,
            1 => Self::Done,
            2 => Self::Failed,
            3 => Self::Expired,
            4 => Self::Unknown,
            _ => return None,
        })
    }

    /// Its word in JSON and on screens.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
        }
    }
}

/// A device's message, opened, before the store has it.
#[derive(Clone, Eq, PartialEq)]
pub struct Uplink {
    /// Who sent it.
    pub device: DeviceId,
    /// What it is.
    pub kind: UplinkKind,
    /// The message type, `temperature` for instance; empty where the device gave none.
    pub name: Arc<str>,
    /// The device's clock when it was taken, if it has one.
    pub device_time: Option<UnixTime>,
    /// The node's clock when it arrived.
    pub received_at: UnixTime,
    /// The device's own id for it, kept over repeats.
    pub reading_id: Option<u64>,
    /// The body.
    pub body: Bytes,
}

impl fmt::Debug for Uplink {
    // Plaintext has no place in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uplink")
            .field("device", &self.device)
            .field("kind", &self.kind)
            .field("body_len", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// An uplink with its place in the log. `Reading` is the store's and the gateway's word for every
/// row a device has added, receipts and events too.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reading {
    /// The partition whose log holds it.
    pub partition: Partition,
    /// Its place there.
    pub offset: Offset,
    /// The place of this device's row before it, [`Offset::ZERO`] for the first: what lets a
    /// client prove by itself that nothing is missing.
    pub prev: Offset,
    /// What was said.
    pub uplink: Uplink,
}

/// A command's name, or a reading's: 1 to 64 bytes of UTF-8 without control characters.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MessageName(Arc<str>);

/// A text that is no [`MessageName`].
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("a name of {len} bytes; a name has 1 to 64 bytes of UTF-8 without control characters")]
pub struct MessageNameError {
    /// Bytes found.
    pub len: usize,
}

impl MessageName {
    /// The most bytes one may have.
    pub const LEN_MAX: usize = 64;

    /// The text, shared.
    #[must_use]
    pub fn into_inner(self) -> Arc<str> {
        self.0
    }
}

impl FromStr for MessageName {
    type Err = MessageNameError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if (1..=Self::LEN_MAX).contains(&text.len()) && !text.chars().any(char::is_control) {
            Ok(Self(Arc::from(text)))
        } else {
            Err(MessageNameError { len: text.len() })
        }
    }
}
