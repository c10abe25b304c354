//! A device's records, read from the store for a shard.

use unhidra_bridge::Loaded;
use unhidra_core::command::Command;
use unhidra_core::ids::DeviceId;
use unhidra_store::{DeviceRecords, ReadError};

use super::Rooms;
use crate::restored;

/// Rows whose reading ids are remembered (e2ee/PROTOCOL.md section 7).
const ROWS: usize = 64;

/// What is found of a device.
pub(super) enum Found {
    /// All a shard needs.
    Enrolled(Box<Loaded>),
    /// It may not speak any more: its commands that are not final.
    Gone(Vec<Command>),
}

/// Why there is nothing.
pub(super) struct Unread {
    pub(super) error: ReadError,
    /// Whether another device's records were read in its place: then the fault is this one's.
    pub(super) is_its_own: bool,
}

/// What a load came to.
pub(super) type Outcome = (DeviceId, Result<Found, Unread>);

/// Reads all a shard needs of a device.
pub(super) async fn load(rooms: &Rooms, device: DeviceId) -> Outcome {
    let found = match read(rooms, &device).await {
        Ok(found) => Ok(found),
        Err(error) => Err(Unread { is_its_own: another_is_read(rooms, &device).await, error }),
    };
    (device, found)
}

/// Whether the store gives what it has of another device.
async fn another_is_read(rooms: &Rooms, device: &DeviceId) -> bool {
    let next = rooms.registry.page(Some(device), 1).rows;
    let first = rooms.registry.page(None, 1).rows;
    let Some(other) = next.iter().chain(&first).find(|other| other.id != *device) else { return false };
    rooms.store.session(&other.id).await.is_ok()
}

async fn read(rooms: &Rooms, id: &DeviceId) -> Result<Found, ReadError> {
    let store = &rooms.store;
    let Some(device) = rooms.registry.get(id).filter(|device| device.is_enrolled()) else {
        return Ok(Found::Gone(store.open_commands(id).await?));
    };
    // Its store went back since: what there is of it is good for nothing as it lies.
    if rooms.unsettled.contains(id) {
        let told = restored::settle_device(&**store, &device, rooms.clock.unix_now()).await?;
        rooms.unsettled.remove(id);
        told.commands.iter().for_each(|command| rooms.gateway.command_changed(command));
        told.settings.iter().for_each(|setting| rooms.gateway.setting_changed(setting));
    }
    let DeviceRecords { stored, prekeys, commands, settings, reading_ids } = store.records(id, ROWS).await?;
    Ok(Found::Enrolled(Box::new(Loaded { device, stored, prekeys, commands, settings, reading_ids })))
}
