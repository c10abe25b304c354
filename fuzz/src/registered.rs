//! Where the gateway's codec looks for devices.
#[path = "../../gateway/src/registered.rs"]
#[allow(unreachable_pub, dead_code, reason = "the gateway's own; the codec needs them to be there")]
mod entries;

pub(crate) use entries::{DeviceEntry, PresenceEntry};
