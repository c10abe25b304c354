//! What goes wrong when a message is opened or sealed.

use thiserror::Error;

use crate::reset::ResetReason;
use crate::role::LONG_TRY_MAX;

/// Why a message did not open. The session is as it was.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum OpenError {
    /// It was opened before: acknowledge it, count it, and do nothing else.
    #[error("a duplicate")]
    Duplicate,
    /// Its ratchet key and number were used for another message, or its number lies beyond the
    /// end of a chain that was closed: the sender has gone back to an older state.
    #[error("message {number} contradicts what its chain has sent: the sender was rolled back")]
    RolledBack {
        /// N.
        number: u32,
    },
    /// Its key is no longer kept.
    #[error("message {number} is too old: its key is no longer kept")]
    TooOld {
        /// N.
        number: u32,
    },
    /// N jumps too far ahead.
    #[error("message {number} is {jump} ahead in a {chain:?} chain; at most {max} are taken at once")]
    TooFar {
        /// N.
        number: u32,
        /// How far ahead.
        jump: u32,
        /// How far it may be.
        max: u32,
        /// In which chain.
        chain: ChainKind,
    },
    /// The ratchet key is not known, and does not begin a new chain of the present session.
    #[error("the ratchet key is unknown")]
    UnknownKey {
        /// Whether it was tried, at the cost of a DH step.
        tried: bool,
    },
    /// The ratchet key is no key a peer would use: one's own, one that was used for sending alone,
    /// one that is no canonical encoding, or one of small order.
    #[error("a hostile ratchet key")]
    HostileKey {
        /// Whether that took a DH step to see.
        tried: bool,
    },
    /// The tag does not verify, on a chain that is known: damaged or forged.
    #[error("the tag of message {number} does not verify")]
    BadTag {
        /// N.
        number: u32,
    },
    /// The caller's buffer is too small.
    #[error("a plaintext of {needed} bytes for a buffer of {found}")]
    OutTooSmall {
        /// Bytes needed.
        needed: usize,
        /// Bytes found.
        found: usize,
    },
}

/// Whether a chain was known before the message.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ChainKind {
    /// Known.
    Known,
    /// The message would have begun it.
    New,
}

impl OpenError {
    /// Why the node should answer with a ResetRequest, if it should (PROTOCOL.md section 7). One
    /// an hour a device is the caller's to keep.
    #[must_use]
    pub const fn reset_due(self) -> Option<ResetReason> {
        match self {
            Self::RolledBack { .. } => Some(ResetReason::RolledBack),
            Self::UnknownKey { .. } | Self::TooFar { chain: ChainKind::New, .. } => Some(ResetReason::UnknownKey),
            Self::Duplicate
            | Self::TooOld { .. }
            | Self::TooFar { chain: ChainKind::Known, .. }
            | Self::HostileKey { .. }
            | Self::BadTag { .. }
            | Self::OutTooSmall { .. } => None,
        }
    }

    /// Whether [`Sessions::open_by_long_try`](crate::sessions::Sessions::open_by_long_try) may open
    /// it: it is beyond the jump, and not beyond the long try. Once in 10 minutes a device is the
    /// caller's to keep.
    #[must_use]
    pub const fn is_within_long_try(self) -> bool {
        matches!(self, Self::TooFar { jump, chain: ChainKind::Known, .. } if jump <= LONG_TRY_MAX)
    }

    /// Whether a device should begin a session because a message of the node failed so, once
    /// [`Sessions::may_restart`](crate::sessions::Sessions::may_restart) says it may: the node is
    /// out of its reach, or speaks in a session that it does not have.
    #[must_use]
    pub const fn restart_due(self) -> bool {
        matches!(self, Self::TooFar { .. } | Self::UnknownKey { .. })
    }

    /// Whether the failure cost a DH step: 10 a minute a device, then such messages are dropped
    /// unread. [`Sessions::needs_dh_step`](crate::sessions::Sessions::needs_dh_step) tells before.
    #[must_use]
    pub const fn spent_dh_step(self) -> bool {
        matches!(self, Self::UnknownKey { tried: true } | Self::HostileKey { tried: true })
    }
}

/// Why a message was not sealed. Nothing left, and no number was used.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum SealError {
    /// The plaintext is longer than a Message carries.
    #[error("a plaintext of {found} bytes; at most {max} are sealed")]
    PlaintextTooLong {
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The caller's buffer has another length than the envelope.
    #[error("an envelope of {needed} bytes for a buffer of {found}")]
    OutLength {
        /// Bytes needed.
        needed: usize,
        /// Bytes found.
        found: usize,
    },
    /// The other side has not answered for too long.
    #[error("{max} messages are sealed and not answered")]
    Unanswered {
        /// How many may be.
        max: u32,
    },
    /// The session only receives: it was restored from a backup.
    #[error("the session only receives")]
    ReceivesOnly,
    /// The sending chain has no more numbers, or does not exist.
    #[error("the sending chain has no number left")]
    ChainSpent,
    /// The lease does not cover the next number: take another one.
    #[error("the lease ends at {end}, the next number is {next}, or the lease is of another chain")]
    NotLeased {
        /// Where the lease ends.
        end: u32,
        /// The next number.
        next: u32,
    },
    /// An owed DH step is due: take a lease, which takes the step.
    #[error("a DH step is due before the next message")]
    StepDue,
}
