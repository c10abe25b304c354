//! One batch in the making: what is to be written, and what only its success sets free.

use bytes::{Bytes, BytesMut};
use thiserror::Error;
use unhidra_core::command::{Command, CommandState};
use unhidra_core::delivery::{Ack, Answer, DownlinkRow};
use unhidra_core::ids::DeviceId;
use unhidra_core::message::Uplink;
use unhidra_core::setting::Setting;
use unhidra_e2ee::session::Pending;
use unhidra_store::{MessageTag, Op};

use crate::settings::SettingRefused;
use crate::upstream::UpstreamId;

/// Names a publish until the broker says what became of it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ticket(pub u64);

/// Names a request of somebody's until it is answered.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Asked(pub u64);

/// By which way a device is reached.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Connection {
    /// One life of one connection to this node's own broker, as that numbers them.
    Local(u64),
    /// An outside broker, which the device was heard behind.
    Outside(UpstreamId),
}

/// What the commit of a draft lets out.
///
/// The bridge opens ahead of the store; nothing of what it concludes may leave before the store
/// has it. So every answer rides in a draft, also one that writes nothing: a repeat may be the
/// repeat of a message whose own commit is still on its way. Only that a message is to come again
/// ([`Answer::Retry`]) is said at once.
#[derive(Default)]
pub struct Draft {
    /// What is written, in order.
    pub ops: Vec<Op>,
    /// The rows among `ops`, in their order, for those who watch.
    pub rows: Vec<Uplink>,
    /// Who waits, and what they hear; of which device.
    pub answers: Vec<(DeviceId, Ack, Answer)>,
    /// What leaves, in order.
    pub effects: Vec<Effect>,
    session_writes: usize,
}

/// What leaves once a draft is durable.
#[derive(Debug)]
pub enum Effect {
    /// Bytes for a device.
    Publish(Publish),
    /// A command has moved on; its watchers are told.
    CommandChanged(Command),
    /// Whoever sent a command, or called one back, is told how it stands.
    CommandAnswered(Asked, Result<Command, CommandRefused>),
    /// A setting is wanted, or known to the device; its watchers are told.
    SettingChanged(Setting),
    /// Whoever set something is told how it stands.
    SettingAnswered(Asked, Result<Setting, SettingRefused>),
}

impl Effect {
    /// Of which device it tells, where the store has a part in that.
    #[must_use]
    pub const fn device(&self) -> Option<&DeviceId> {
        match self {
            Self::Publish(publish) => Some(&publish.device),
            Self::CommandChanged(command) | Self::CommandAnswered(_, Ok(command)) => Some(&command.device),
            Self::SettingChanged(setting) | Self::SettingAnswered(_, Ok(setting)) => Some(&setting.device),
            Self::CommandAnswered(_, Err(_)) | Self::SettingAnswered(_, Err(_)) => None,
        }
    }
}

/// Why a command was not taken, or not called back.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum CommandRefused {
    /// As many commands of the device are open as may be.
    #[error("{open} commands of this device are open; at most {max} may be")]
    TooMany {
        /// How many are open.
        open: usize,
        /// How many may be.
        max: usize,
    },
    /// Another command of the device has this id.
    #[error("another command of this device has this id; a repeat asks for the same again")]
    IdTaken,
    /// It is under way, or over.
    #[error("the command is {}: it cannot be called back", .state.as_str())]
    TooLate {
        /// How it stands.
        state: CommandState,
    },
    /// No such command of the device is open.
    #[error("no such command of this device is open")]
    NotOpen,
    /// No such device is enrolled.
    #[error("no such device is enrolled")]
    NoDevice,
    /// The device's records could not be read, or the commit failed: try again.
    #[error("the store does not serve now; try again")]
    Unavailable,
}

/// Bytes for a device.
#[derive(Debug)]
pub struct Publish {
    /// To whom.
    pub device: DeviceId,
    /// By which way.
    pub connection: Connection,
    /// On which row.
    pub row: DownlinkRow,
    /// What names it in the broker's answer.
    pub ticket: Ticket,
    /// What.
    pub payload: Payload,
}

/// What is published.
pub enum Payload {
    /// Bytes that use no message key: a bundle, a ResetRequest.
    Plain(Bytes),
    /// Ciphertext, locked until its commit is proven. Boxed: rare beside uplinks.
    Sealed {
        /// Which of the draft's session writes must be durable, counted from 0.
        write: usize,
        /// The ciphertext.
        pending: Pending<BytesMut>,
    },
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain(bytes) => write!(f, "Plain({} bytes)", bytes.len()),
            Self::Sealed { write, .. } => write!(f, "Sealed(write {write})"),
        }
    }
}

impl Draft {
    /// Whether there is nothing to commit and nobody to answer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.answers.is_empty() && self.effects.is_empty()
    }

    /// Appends a write of session records, and says which of them it is.
    pub(crate) fn push_session(&mut self, op: Op) -> usize {
        let write = self.session_writes;
        self.session_writes += 1;
        self.ops.push(op);
        write
    }

    /// Appends a row.
    pub(crate) fn push_row(&mut self, tag: MessageTag, uplink: Uplink) {
        self.rows.push(uplink.clone());
        self.ops.push(Op::Reading { tag, uplink });
    }

    /// Writes a command and tells its watchers.
    pub(crate) fn push_command(&mut self, command: Command) {
        self.ops.push(Op::Command(command.clone()));
        self.effects.push(Effect::CommandChanged(command));
    }

    /// Writes a setting and tells its watchers.
    pub(crate) fn push_setting(&mut self, setting: Setting) {
        self.ops.push(Op::Setting(setting.clone()));
        self.effects.push(Effect::SettingChanged(setting));
    }
}
