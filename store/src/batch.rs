//! One batch: what becomes durable together, or not at all.

use std::fmt;

use bytes::Bytes;
use unhidra_core::command::Command;
use unhidra_core::device::Device;
use unhidra_core::durable::Durable;
use unhidra_core::ids::{CommandId, DeviceId, Fence, Offset, Partition, Version};
use unhidra_core::message::{ReceiptStatus, Uplink};
use unhidra_core::setting::{Setting, SettingName};
use unhidra_core::time::UnixTime;

use crate::table::RecordName;
use crate::{Act, CommitError, Trim};

/// What the writer calls when a batch is durable or has failed.
pub type Done = Box<dyn FnOnce(Result<Committed, CommitError>) + Send>;

/// One partition, one atomic commit.
pub struct Batch {
    /// Whose log.
    pub partition: Partition,
    /// Under whose ownership.
    pub fence: Fence,
    /// What is written, in order.
    pub ops: Vec<Op>,
    /// What of it is written together or not at all.
    pub unit: Unit,
    /// Called once, from the writer's thread: it hands over, and does not work. A closed store calls
    /// it at once, from [`Store::submit`](crate::Store::submit).
    pub done: Done,
}

impl Batch {
    /// Whether it appends a row.
    #[must_use]
    pub fn appends(&self) -> bool {
        self.ops.iter().any(|op| matches!(op, Op::Reading { .. }))
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("partition", &self.partition)
            .field("ops", &self.ops.len())
            .finish_non_exhaustive()
    }
}

/// What of a batch is written together or not at all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unit {
    /// All of it: what stops one op refuses the batch.
    Batch,
    /// What it holds of one device: what stops an op of a device leaves all of that device out, and the
    /// others are written. For batches that bring together what devices do each for itself.
    Device,
}

/// What a successful commit tells.
#[derive(Debug)]
pub struct Committed {
    /// The place of each [`Op::Reading`] of the batch that was written, in their order.
    pub readings: Vec<Assigned>,
    /// Proof for what waited for this commit to be released; one for each [`Op::Session`] and
    /// [`Op::Chain`] of the batch, in their order. `None` of a device that was left out.
    pub durable: Vec<Option<Durable>>,
    /// The devices of which nothing was written, in a batch whose unit is the device.
    pub left_out: Vec<LeftOut>,
}

/// A device of which nothing in a batch was written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LeftOut {
    /// Which.
    pub device: DeviceId,
    /// Why: what the batch would have been refused for.
    pub cause: CommitError,
}

/// The place a row was given.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Assigned {
    /// Its place in the partition's log.
    pub offset: Offset,
    /// The place of its device's row before it.
    pub prev: Offset,
}

/// Which of a device's two sessions.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Slot {
    /// The one both sides send in.
    Present,
    /// The one before it, which only receives.
    Previous,
}

/// Which chain of a session.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Lane {
    /// What arrives.
    Receive,
    /// What is sent.
    Send,
}

/// What names one opened message among a device's newest: enough to know a repeat
/// (e2ee/PROTOCOL.md section 7).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct MessageTag {
    /// The first 4 bytes of its ratchet key.
    pub key: [u8; 4],
    /// Its message number N.
    pub number: u32,
    /// The first 4 bytes of its authentication tag.
    pub tag: [u8; 4],
}

/// One write. A wrong `expect` fails the batch it is in, alone, or its device there ([`Unit`]).
///
/// Each of [`Op::Session`], [`Op::Chain`] and [`Op::Rotate`] moves the device's version on by one;
/// further ones of the same batch expect the moved version.
pub enum Op {
    /// Writes a session whole, and deletes its chain records.
    Session {
        /// Whose.
        device: DeviceId,
        /// Which of the two.
        slot: Slot,
        /// The version before this write.
        expect: Version,
        /// The state.
        whole: Bytes,
    },
    /// Writes what a plain message moved; the whole beneath it stays.
    Chain {
        /// Whose.
        device: DeviceId,
        /// Which of the two.
        slot: Slot,
        /// Which chain.
        lane: Lane,
        /// The version before this write.
        expect: Version,
        /// The chain, at most 48 bytes: with header, version, newest row, nonce and tag at most 85 on disk.
        delta: Bytes,
    },
    /// Makes the present session the previous one, chain records and all; what was the previous
    /// one is deleted. Followed by the [`Op::Session`] of the new one in the same batch.
    Rotate {
        /// Whose.
        device: DeviceId,
        /// The version before this write.
        expect: Version,
    },
    /// Deletes the previous session, once its day is over, or both, when an identity changes.
    EndSessions {
        /// Whose.
        device: DeviceId,
        /// The version before this write.
        expect: Version,
        /// Whether the present one goes too.
        present: bool,
    },
    /// Writes what outlives sessions: the last handshake counter, the hour of the last
    /// ResetRequest, whether the node was restored. Opaque here.
    Peer {
        /// Whose.
        device: DeviceId,
        /// The record.
        bytes: Bytes,
    },
    /// Appends a row. The writer gives its offset.
    Reading {
        /// What names it among the newest.
        tag: MessageTag,
        /// What was said, and by whom.
        uplink: Uplink,
    },
    /// Deletes rows of a device, and leaves stubs of others: what [`Store::overdue`] and
    /// [`Store::oldest`] have found. A row that is not there is no error, and of the device's newest
    /// row a stub stays whatever is said.
    ///
    /// [`Store::overdue`]: crate::Store::overdue
    /// [`Store::oldest`]: crate::Store::oldest
    Trim {
        /// Whose.
        device: DeviceId,
        /// Which.
        trim: Trim,
    },
    /// Deletes commands of a device that are final; one that is not stays.
    Forget {
        /// Whose.
        device: DeviceId,
        /// Which.
        commands: Vec<CommandId>,
    },
    /// Writes a command, new or moved on. A command that [is final] stays readable by its id.
    ///
    /// [is final]: unhidra_core::command::Command::is_final
    Command(Command),
    /// Notes what a device says of a command after its end. Nothing where there is no such command,
    /// or it has not ended.
    LateReceipt {
        /// Who says it.
        device: DeviceId,
        /// Of which command.
        command: CommandId,
        /// What.
        status: ReceiptStatus,
        /// When.
        at: UnixTime,
    },
    /// Writes a setting of a device.
    Setting(Setting),
    /// Deletes a setting of a device; a missing one is no error.
    ForgetSetting {
        /// Whose.
        device: DeviceId,
        /// Which.
        name: SettingName,
    },
    /// Writes a device of the registry. A new id is given the next number; a known one keeps its
    /// number whatever the record says.
    Device(Device),
    /// Writes or deletes a prekey. Signed ones lie in the partition whose batch wrote them: write
    /// and delete one through the same partition always.
    Prekey(PrekeyChange),
    /// Writes or deletes a record of the broker's. It lies in the partition whose batch wrote it:
    /// write and delete one key through the same partition always. A key has at most 65 534 bytes.
    Broker {
        /// In which table.
        table: BrokerTable,
        /// Under which key.
        key: Bytes,
        /// What, or nothing to delete it.
        value: Option<Bytes>,
    },
    /// Appends an act to the partition's log of acts, which gives it a number; over
    /// `store.acts_max` the oldest goes. It stands in the batch of what was done.
    Act(Act),
    /// Writes these records again as they are, so that the keys that seal now seal them: one that
    /// is gone, or does not open, is left as it is.
    Reseal(Vec<RecordName>),
}

impl Op {
    /// Whose it is, where it is one device's.
    #[must_use]
    pub const fn device(&self) -> Option<&DeviceId> {
        match self {
            Self::Session { device, .. }
            | Self::Chain { device, .. }
            | Self::Rotate { device, .. }
            | Self::EndSessions { device, .. }
            | Self::Peer { device, .. }
            | Self::Trim { device, .. }
            | Self::Forget { device, .. }
            | Self::LateReceipt { device, .. }
            | Self::ForgetSetting { device, .. } => Some(device),
            Self::Reading { uplink, .. } => Some(&uplink.device),
            Self::Command(command) => Some(&command.device),
            Self::Setting(setting) => Some(&setting.device),
            Self::Device(device) => Some(&device.id),
            Self::Prekey(change) => match change {
                PrekeyChange::Put(PrekeyRecord { kind: PrekeyKind::OneTime(device), .. })
                | PrekeyChange::Delete { kind: PrekeyKind::OneTime(device), .. } => Some(device),
                PrekeyChange::Put(_) | PrekeyChange::Delete { .. } => None,
            },
            Self::Broker { .. } | Self::Act(_) | Self::Reseal(_) => None,
        }
    }
}

/// The broker's tables.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum BrokerTable {
    /// Retained messages by Topic Name.
    Retained = 1,
    /// Sessions by number.
    Sessions = 2,
    /// Queued messages by session and sequence.
    Queued = 3,
    /// What sessions subscribed to, by session and Topic Filter.
    Subscriptions = 4,
    /// Messages that wait in several sessions' queues, by number.
    Messages = 5,
    /// Packet Identifiers in use, by session.
    Exchanges = 6,
    /// How far the node's outlets have come, by outlet and partition. Kept in the same way, and
    /// nothing of the broker's.
    Outlets = 7,
    /// The time of day as the node has seen it last: one record, and nothing of the broker's either.
    Calendar = 8,
    /// Devices that were left out when a store that went back was made ready, by their ids. Nothing of the
    /// broker's.
    Unsettled = 9,
}

impl BrokerTable {
    /// All there are. One that is missing here takes no record: its writes are refused.
    pub(crate) const ALL: [Self; 9] = [
        Self::Retained,
        Self::Sessions,
        Self::Queued,
        Self::Subscriptions,
        Self::Messages,
        Self::Exchanges,
        Self::Outlets,
        Self::Calendar,
        Self::Unsettled,
    ];

    /// The table that a key of the broker's begins with.
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|table| *table as u8 == byte)
    }
}

/// Whose prekey it is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum PrekeyKind {
    /// A signed prekey (SPK), for all devices.
    Signed,
    /// The one-time prekey (OPK) that waits for this device.
    OneTime(DeviceId),
}

/// A prekey as it lies.
#[derive(Clone, Eq, PartialEq)]
pub struct PrekeyRecord {
    /// Whose.
    pub kind: PrekeyKind,
    /// Its id, never given twice.
    pub id: u32,
    /// When it was made.
    pub created_at: UnixTime,
    /// The secret, in the bridge's encoding.
    pub secret: Bytes,
}

impl fmt::Debug for PrekeyRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrekeyRecord")
            .field("kind", &self.kind)
            .field("id", &self.id)
            .field("created_at", &self.created_at)
            .field("secret", &"[secret]")
            .finish()
    }
}

/// A change to the prekeys.
#[derive(Debug)]
pub enum PrekeyChange {
    /// Writes one.
    Put(PrekeyRecord),
    /// Deletes one; a missing one is no error.
    Delete {
        /// Whose.
        kind: PrekeyKind,
        /// Which.
        id: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StoredSession;

    #[test]
    fn keys_are_not_printed() {
        let secret = Bytes::from_static(b"sesame");
        let prekey =
            PrekeyRecord { kind: PrekeyKind::Signed, id: 7, created_at: UnixTime::EPOCH, secret: secret.clone() };
        let session = StoredSession { whole: secret.clone(), receive: Some(secret.clone()), send: Some(secret) };
        let printed = format!("{prekey:?} {session:?}");
        assert!(printed.contains("[secret]") && !printed.contains("sesame"), "{printed}");
    }
}
