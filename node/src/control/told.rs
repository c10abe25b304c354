//! What devices are told, as JSON on the control socket and on the terminal: commands, settings. What
//! is answered is what the gateway's frames hold (gateway/PROTOCOL.md).

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use unhidra_core::command::{Command, CommandState};
use unhidra_core::ids::{CommandId, DeviceId};
use unhidra_core::setting::{Setting, SettingName};
use unhidra_core::time::UnixTime;

use super::{RowBody, text};

/// A command to be queued.
#[derive(Clone, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SendAsked {
    /// To whom.
    #[serde(with = "text")]
    pub device: DeviceId,
    /// The sender's own id for it, so that a repeat is known; without, it is given one.
    #[serde(with = "text::maybe", default)]
    pub id: Option<CommandId>,
    /// What to do.
    pub name: String,
    /// With what.
    #[serde(with = "text::base64")]
    pub body: Bytes,
    /// How long it lives, in ms; the node's own default without.
    pub expires_in_ms: Option<u64>,
}

impl fmt::Debug for SendAsked {
    // What a device is told may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendAsked")
            .field("device", &self.device)
            .field("id", &self.id)
            .field("name", &self.name)
            .field("body_len", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// A command to be called back.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CancelAsked {
    /// Whose.
    #[serde(with = "text")]
    pub device: DeviceId,
    /// Which.
    #[serde(with = "text")]
    pub id: CommandId,
}

/// Which commands are asked for.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CommandsAsked {
    /// Whose.
    #[serde(with = "text")]
    pub device: DeviceId,
    /// The newest so many; without, those that are not final.
    pub newest: Option<usize>,
}

/// A device's commands.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct CommandsFound {
    /// Oldest first.
    pub commands: Vec<CommandRecord>,
}

/// A command as shown. Its body is not.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct CommandRecord {
    /// Its identity.
    #[serde(rename = "command", with = "text")]
    pub id: CommandId,
    /// To whom.
    #[serde(with = "text")]
    pub device: DeviceId,
    /// What to do.
    pub name: String,
    /// What has become of it, in a word.
    #[serde(with = "state")]
    pub state: CommandState,
    /// When it was accepted, in ms since the Unix epoch.
    pub created_at: u64,
    /// When it ends, in ms since the Unix epoch.
    pub expires_at: u64,
    /// When it was in each state it has passed, in ms since the Unix epoch.
    pub times: Times,
    /// How often it was sealed and handed to the broker.
    pub attempts: u32,
    /// Whose word the end is: the device's, the node's or a client's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why it ended, in a few words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cause: String,
    /// What the device said after the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<LateRecord>,
    /// Who asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_by: Option<String>,
}

/// When a command was in each state, in ms since the Unix epoch.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Times {
    /// Durable.
    pub accepted: u64,
    /// Sealed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<u64>,
    /// With the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered: Option<u64>,
    /// The device has said that it will act.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acting: Option<u64>,
    /// Done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<u64>,
    /// Failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<u64>,
    /// Expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired: Option<u64>,
    /// Cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<u64>,
}

/// What a device said of a command after its end.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LateRecord {
    /// What it said last.
    pub status: String,
    /// When, in ms since the Unix epoch.
    pub at: u64,
    /// How often.
    pub count: u32,
}

impl CommandRecord {
    /// A command as it stands at `now`: one that was never sent and whose time has passed is
    /// expired whether or not somebody has written that down yet.
    #[must_use]
    pub fn new(command: &Command, now: UnixTime) -> Self {
        let (life, ended) = (&command.life, command.ended());
        let unwritten = !command.is_final() && life.attempts == 0 && now > command.expires_at;
        let state = if unwritten { CommandState::Expired } else { command.state() };
        let ended_at = ended.map(|ended| ended.at).or(unwritten.then_some(command.expires_at));
        let at = |wanted| ended_at.filter(|_| state == wanted).map(UnixTime::as_ms);
        Self {
            id: command.id,
            device: command.device,
            name: command.name.to_string(),
            state,
            created_at: command.created_at.as_ms(),
            expires_at: command.expires_at.as_ms(),
            times: Times {
                accepted: command.created_at.as_ms(),
                sent: life.sent_at.map(UnixTime::as_ms),
                delivered: life.delivered_at.map(UnixTime::as_ms),
                acting: life.acting_at.map(UnixTime::as_ms),
                done: at(CommandState::Done),
                failed: at(CommandState::Failed),
                expired: at(CommandState::Expired),
                cancelled: at(CommandState::Cancelled),
            },
            attempts: life.attempts,
            by: ended.map(|ended| ended.by.as_str().to_owned()),
            cause: ended.map(|ended| ended.cause.to_string()).unwrap_or_default(),
            late: life.late.map(|late| LateRecord {
                status: late.status.as_str().to_owned(),
                at: late.at.as_ms(),
                count: late.count,
            }),
            asked_by: command.asked_by.as_deref().map(str::to_owned),
        }
    }

    /// Whether nothing more will become of it.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        self.state.is_final()
    }
}

/// A setting to be set or removed.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SetAsked {
    /// Whose.
    #[serde(with = "text")]
    pub device: DeviceId,
    /// Which.
    #[serde(with = "text")]
    pub name: SettingName,
    /// The value; without, it is removed.
    pub value: Option<RowBody>,
}

/// A device's settings.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct SettingsFound {
    /// In the order of their names.
    pub settings: Vec<SettingRecord>,
}

/// A setting as shown.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct SettingRecord {
    /// Whose.
    #[serde(with = "text")]
    pub device: DeviceId,
    /// Which.
    #[serde(with = "text")]
    pub name: SettingName,
    /// Whether the device is to forget it.
    pub removed: bool,
    /// Of two values of a name the one with the higher version is the newer.
    pub version: u64,
    /// When it was changed, in ms since the Unix epoch.
    pub changed_at: u64,
    /// Whether the device has acknowledged this version.
    pub in_sync: bool,
    /// The version it has acknowledged last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_version: Option<u64>,
    /// When, in ms since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_at: Option<u64>,
    /// Who asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_by: Option<String>,
    /// The value, where there is one.
    #[serde(flatten)]
    pub value: Option<RowBody>,
}

impl From<&Setting> for SettingRecord {
    fn from(setting: &Setting) -> Self {
        Self {
            device: setting.device,
            name: setting.name.clone(),
            removed: setting.value.is_none(),
            version: setting.version,
            changed_at: setting.changed_at.as_ms(),
            in_sync: setting.is_in_sync(),
            acknowledged_version: setting.acknowledged.map(|of| of.version),
            acknowledged_at: setting.acknowledged.map(|of| of.at.as_ms()),
            asked_by: setting.asked_by.as_deref().map(str::to_owned),
            value: setting.value.as_ref().map(RowBody::new),
        }
    }
}

/// A state by its word.
mod state {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use unhidra_core::command::CommandState;

    // serde hands the field over by reference.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    pub(super) fn serialize<S: Serializer>(state: &CommandState, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(state.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<CommandState, D::Error> {
        let word = String::deserialize(deserializer)?;
        let unknown = || D::Error::custom(format!("{word:?} is no state of a command this version knows"));
        CommandState::from_word(&word).ok_or_else(unknown)
    }
}
