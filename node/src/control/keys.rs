//! What is asked of the store's keys and of the log of acts, as JSON.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use unhidra_core::ids::DeviceId;
use unhidra_store::{ActRow, Deed};

use super::text;

/// The key ring. It holds nothing secret.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct KeysStatus {
    /// How often the ring was written.
    pub generation: u64,
    /// The master key all of it is wrapped under: what tells it from others.
    pub master_key: String,
    /// Where that comes from: `file PATH`, `command PROGRAM` or `environment NAME`.
    pub master_key_from: String,
    /// The master key that is to take its place, while it is changed.
    pub next_master_key: Option<String>,
    /// In the order of their ids.
    pub keys: Vec<KeyRecord>,
}

/// A data key.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct KeyRecord {
    /// What records name it by.
    pub id: u16,
    /// What it seals: `sessions`, `readings`, `broker`, `registry`, or `all` for the one key of a
    /// folder of version 1.
    pub purpose: String,
    /// `active`: it seals and opens; `rotated`: it opens.
    pub state: String,
    /// When it was made, in ms since the Unix epoch.
    pub created_at: u64,
    /// Since when it seals no more, likewise.
    pub rotated_at: Option<u64>,
    /// How old it is, in days.
    pub age_days: f64,
    /// Days until another one seals; below 0 where that is overdue.
    pub rotates_in_days: Option<f64>,
    /// Days until it is destroyed, once nothing is left under it.
    pub expires_in_days: f64,
}

/// Another master key.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RewrapAsked {
    /// A file on the node's machine that holds it: the key itself does not go over the socket.
    /// Without, it is read from where the configuration says, or drawn where that is a file.
    pub new_key_file: Option<PathBuf>,
}

/// The keys, wrapped anew.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Rewrapped {
    /// What tells the new master key from others.
    pub master_key: String,
    /// Whether it alone opens the keys now. If not, the old one does so too until a node has started
    /// with the new one.
    pub done: bool,
    /// The file that holds it now, where the node put it there.
    pub replaced: Option<String>,
}

/// Which acts are asked for.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ActsAsked {
    /// Of which partition.
    pub partition: u16,
    /// Behind which number; 0 for all.
    pub after: u64,
    /// From this instant on, in ms since the Unix epoch.
    pub since: Option<u64>,
    /// On this device alone.
    #[serde(with = "text::maybe", default)]
    pub device: Option<DeviceId>,
}

/// One act.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ActRecord {
    /// The partition whose log it is in.
    pub partition: u16,
    /// Its number there.
    pub number: u64,
    /// When, in ms since the Unix epoch.
    pub at: u64,
    /// Who: `uid N` for a user of the node's machine, `token:NAME` for a client of the gateway, `node` for what it
    /// does of itself.
    pub by: String,
    /// What.
    pub deed: String,
    /// To which device.
    #[serde(with = "text::maybe", default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
    /// What else there is to say.
    pub detail: String,
}

/// A run of acts.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ActsPage {
    /// In the order of their numbers. There may be none, and yet a next run.
    pub acts: Vec<ActRecord>,
    /// Behind which number the next run begins; `None` behind the last.
    pub next: Option<u64>,
}

/// What was done to a user of MQTT, whose file anybody who may write it can change.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct UserAct {
    /// Which user.
    pub user: String,
    /// What was done.
    pub done: UserDeed,
}

/// What is done to users.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UserDeed {
    /// It was added.
    Added,
    /// It has another password.
    Changed,
    /// It was removed.
    Removed,
}

impl From<UserDeed> for Deed {
    fn from(deed: UserDeed) -> Self {
        match deed {
            UserDeed::Added => Self::AddUser,
            UserDeed::Changed => Self::ChangeUser,
            UserDeed::Removed => Self::RemoveUser,
        }
    }
}

impl ActsAsked {
    /// Whether an act is one of those asked for.
    #[must_use]
    pub fn wants(&self, row: &ActRow) -> bool {
        self.since.is_none_or(|since| row.act.at.as_ms() >= since)
            && self.device.is_none_or(|device| row.act.device == Some(device))
    }
}

impl From<&ActRow> for ActRecord {
    fn from(row: &ActRow) -> Self {
        Self {
            partition: row.partition.get(),
            number: row.number,
            at: row.act.at.as_ms(),
            by: row.act.by.to_string(),
            deed: row.act.deed.to_string(),
            device: row.act.device,
            detail: row.act.detail.to_string(),
        }
    }
}
