//! What an operator may set about the bridge. The defaults stand in `node/src/default.toml`.

use serde::Deserialize;

/// The bridge's part of the configuration.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Devices whose sessions are held in memory, over all shards, at least 1. Beyond it a device
    /// that is not connected is dropped from memory, and read again when it speaks.
    pub sessions_max: usize,
    /// Deliveries of a shard that may wait for a session to be read from the store, at least 1. At
    /// the bound the shard reads no further ones.
    pub parked_max: usize,
    /// Commands of one device that may be open at once, 1 to 32 (e2ee/PROTOCOL.md section 7). At
    /// the bound a further one is refused.
    pub commands_open_max: usize,
    /// The largest body of a command in bytes, at most 60 000.
    pub command_body_max: usize,
    /// How often the node makes a new signed prekey, in s; a week in e2ee/PROTOCOL.md section 9.
    pub signed_prekey_rotation_s: u64,
}
