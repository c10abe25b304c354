//! Devices on the wire: their entries in the registry, and whether they are here.

use serde::Serialize;
use unhidra_core::device::{Device, Standing};
use unhidra_core::ids::DeviceId;
use unhidra_core::time::UnixTime;

/// Whether a device is here, and since when it is so.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Presence {
    pub(crate) online: bool,
    pub(crate) since: UnixTime,
}

/// A device's presence on the wire.
#[derive(Serialize)]
pub(crate) struct PresenceEntry {
    device: String,
    online: bool,
    since: u64,
}

impl PresenceEntry {
    pub(crate) fn new(device: &DeviceId, presence: Presence) -> Self {
        Self { device: device.to_string(), online: presence.online, since: presence.since.as_ms() }
    }
}

/// A device of the registry on the wire.
#[derive(Serialize)]
pub(crate) struct DeviceEntry {
    device: String,
    tags: Vec<String>,
    class: String,
    suite: u8,
    enrolled_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_at: Option<u64>,
    online: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<u64>,
}

impl DeviceEntry {
    /// `presence` is `None` where the device was not here since the node's start.
    pub(crate) fn new(device: &Device, presence: Option<Presence>) -> Self {
        Self {
            device: device.id.to_string(),
            tags: device.tags.iter().map(ToString::to_string).collect(),
            class: device.class.clone(),
            suite: device.suite.as_byte(),
            enrolled_at: device.enrolled_at.as_ms(),
            revoked_at: match device.standing {
                Standing::Enrolled => None,
                Standing::Revoked { at } => Some(at.as_ms()),
            },
            online: presence.is_some_and(|presence| presence.online),
            since: presence.map(|presence| presence.since.as_ms()),
        }
    }
}
