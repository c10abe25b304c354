//! What the device tells the application, and what it asks of it.

use thiserror::Error;
use unhidra_core::ids::CommandId;
use unhidra_core::time::{Timestamp, UnixTime};

use crate::client::{Delivery, Ended, ReasonCode};
use crate::outbox::{QueueError, ReadingId};

/// What happened.
#[derive(Debug, Eq, PartialEq)]
pub enum Event<'a> {
    /// The node took the connection.
    Connected {
        /// Whether its broker kept the MQTT session.
        session_present: bool,
    },
    /// A session of the ratchet began.
    NewSession {
        /// Its handshake counter.
        counter: u32,
    },
    /// The connection is over.
    Disconnected {
        /// Why.
        why: Ended,
        /// When to dial again.
        dial_at: Timestamp,
    },
    /// Whoever the device is connected to has the reading: the node, durably; behind an outside broker, that
    /// broker, for the node, as safely as it keeps what it acknowledges.
    Acknowledged(ReadingId),
    /// Nobody takes a reading: the node does not, or an outside broker has no node to give it to (reason 0x10). It
    /// is kept, and sealed anew in the next session or after ten minutes.
    Refused {
        /// Which.
        reading: ReadingId,
        /// Why.
        reason: ReasonCode,
    },
    /// A command to act on, once. Answer it with [`Device::answer`](super::Device::answer).
    Command {
        /// What to answer with.
        ticket: CommandTicket,
        /// Its name.
        name: &'a str,
        /// Its body.
        body: &'a [u8],
        /// When it stops being wanted.
        expires_at: Option<UnixTime>,
    },
    /// A setting to take over, perhaps not for the first time. Say so with
    /// [`Device::applied`](super::Device::applied) once it is kept; until then the node tells it
    /// again whenever the device comes back.
    Setting {
        /// What to say that with.
        ticket: SettingTicket,
        /// Its name.
        name: &'a str,
        /// The value; without one the device forgets the name.
        value: Option<&'a [u8]>,
        /// Of two values of a name the one with the higher version stands, whichever comes first: one
        /// that is not above the kept one's is said to be applied, and changes nothing.
        version: u64,
    },
}

/// The right, and the duty, to say that a setting was taken. Not `Clone`.
#[derive(Debug, Eq, PartialEq)]
#[must_use = "until it is said, the node tells the setting again and the server waits for PUBACK"]
pub struct SettingTicket(pub(super) Option<Delivery>);

/// The right, and the duty, to answer one command. Not `Clone`.
#[derive(Debug, Eq, PartialEq)]
#[must_use = "whoever sent the command waits for its receipt"]
pub struct CommandTicket(pub(super) CommandId);

impl CommandTicket {
    /// The command's id.
    #[must_use]
    pub const fn id(&self) -> CommandId {
        self.0
    }
}

/// A receipt that was not taken, with the ticket to try again.
#[derive(Debug, Eq, Error, PartialEq)]
#[error("the receipt was not taken: {cause}")]
pub struct NotAnswered {
    /// Why.
    pub cause: QueueError,
    /// The ticket.
    pub ticket: CommandTicket,
}

/// A reading that was taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Queued {
    /// Its id.
    pub reading: ReadingId,
    /// The one that made room for it and is gone.
    pub dropped: Option<ReadingId>,
}

/// Why the device has stopped. Open it again, as after a reset.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum Fault<E> {
    /// The storage failed, and nobody knows what it holds.
    #[error("the storage failed")]
    Storage(E),
    /// It had failed before.
    #[error("the storage had failed before")]
    Stopped,
}

/// What the device has counted since it was opened.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// Messages sealed.
    pub sealed: u64,
    /// Messages the node refused.
    pub refused: u64,
    /// Messages of the node that had been opened before.
    pub duplicates: u64,
    /// Messages of the node that did not open.
    pub not_opened: u64,
    /// Messages of the node, or of somebody else, that mean nothing to this version.
    pub ignored: u64,
    /// Commands that had been seen before.
    pub commands_repeated: u64,
    /// Commands past their expiry.
    pub commands_expired: u64,
    /// Readings that were acknowledged, which the application did not ask about before 32 others were.
    pub untold: u64,
    /// Bundles that answered nothing, or were not the node's.
    pub bundles_refused: u64,
    /// ResetRequests that were obeyed.
    pub resets_obeyed: u64,
    /// ResetRequests that were not.
    pub resets_ignored: u64,
}
