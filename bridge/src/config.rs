//! What an operator may set about the bridge. The defaults stand in `node/src/default.toml`.

use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;

use crate::commands::Pace;

/// The bridge's part of the configuration.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Devices whose sessions are held in memory, over all shards, at least 1. Beyond it a device
    /// that is not connected is dropped from memory, and read again when it speaks.
    pub sessions_max: usize,
    /// Deliveries of a shard that may wait for a session to be read from the store, at least 1, for
    /// each door: the node's own broker and its clients, and each outside broker. At the bound the
    /// shard takes no more by that door.
    pub parked_max: usize,
    /// Commands of one device that may be open at once, 1 to 32 (e2ee/PROTOCOL.md section 7). At
    /// the bound a further one is refused.
    pub commands_open_max: usize,
    /// Commands of one device that may be under way at once, 1 to 8: sent, and neither ended nor
    /// silent for `command_answer_s`. With 1 they are carried out one after another, in order.
    pub commands_in_flight: usize,
    /// How long a command that was delivered holds up the next one where the device has promised no
    /// receipt for it, in s.
    pub command_answer_s: u64,
    /// How long after its expiry a command that was sent may still be answered, in s. Then it is
    /// expired for good.
    pub command_grace_s: u64,
    /// The largest body of a command in bytes, at most 60 000.
    pub command_body_max: usize,
    /// How often the node makes a new signed prekey, in s; a week in e2ee/PROTOCOL.md section 9.
    pub signed_prekey_rotation_s: u64,
}

/// A setting out of its bounds.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("bridge.{key} is {found}; {min} to {max} are allowed")]
pub struct ConfigError {
    /// Which.
    pub key: &'static str,
    /// What it is set to.
    pub found: u64,
    /// The least it may be.
    pub min: u64,
    /// The most it may be.
    pub max: u64,
}

impl Config {
    /// Holds the settings of commands to their bounds.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the first setting out of its bounds.
    pub fn check(&self) -> Result<(), ConfigError> {
        const DAY_S: u64 = 24 * 60 * 60;
        let bounds = [
            ("commands_open_max", self.commands_open_max as u64, 1, 32),
            ("commands_in_flight", self.commands_in_flight as u64, 1, 8),
            ("command_answer_s", self.command_answer_s, 0, DAY_S),
            ("command_grace_s", self.command_grace_s, 0, DAY_S),
            ("command_body_max", self.command_body_max as u64, 0, 60_000),
        ];
        match bounds.into_iter().find(|(_, found, min, max)| !(min..=max).contains(&found)) {
            Some((key, found, min, max)) => Err(ConfigError { key, found, min, max }),
            None => Ok(()),
        }
    }

    /// How the commands of a device are held to time and number.
    pub(crate) fn pace(&self) -> Pace {
        Pace {
            in_flight: self.commands_in_flight,
            answer: Duration::from_secs(self.command_answer_s),
            grace: Duration::from_secs(self.command_grace_s),
        }
    }
}
