//! What became of commands and settings in drafts that failed.
//!
//! A draft may be durable though its commit failed, or though it rests on one that did: then nobody repeats what is
//! in it, and nobody who waits for it would hear of it. So what was to be told is asked of the store once that
//! serves again, before anything else happens to it.

use std::collections::BTreeSet;

use rand_core::CryptoRng;
use unhidra_bridge::Effect;
use unhidra_core::ids::{CommandId, DeviceId};
use unhidra_core::setting::SettingName;

use super::Shard;

/// Commands and settings that may have changed without a word to who watches. Bounded by the drafts on their way.
#[derive(Debug, Default)]
pub(super) struct Untold {
    commands: BTreeSet<(DeviceId, CommandId)>,
    settings: BTreeSet<(DeviceId, SettingName)>,
}

impl Untold {
    /// Notes what an effect would have told.
    pub(super) fn note(&mut self, effect: &Effect) {
        match effect {
            Effect::CommandChanged(command) => _ = self.commands.insert((command.device, command.id)),
            Effect::SettingChanged(setting) => _ = self.settings.insert((setting.device, setting.name.clone())),
            Effect::Publish(_) | Effect::CommandAnswered(..) | Effect::SettingAnswered(..) => {}
        }
    }
}

impl<R: CryptoRng> Shard<R> {
    /// Tells who watches what the store has of them. What is as it was is told as well, and does no harm.
    pub(super) async fn tell_untold(&mut self) {
        let Untold { commands, settings } = std::mem::take(&mut self.untold);
        let (store, gateway) = (&self.rooms.store, &self.rooms.gateway);
        for (device, id) in commands {
            match store.command(&device, &id).await {
                Ok(Some(command)) => gateway.command_changed(&command),
                Ok(None) => {}
                Err(error) => tracing::warn!(%device, %error, "what became of a command is not told; it can be asked"),
            }
        }
        let devices: BTreeSet<DeviceId> = settings.iter().map(|(device, _)| *device).collect();
        for device in devices {
            match store.settings(&device).await {
                Ok(found) => found
                    .iter()
                    .filter(|setting| settings.contains(&(device, setting.name.clone())))
                    .for_each(|setting| gateway.setting_changed(setting)),
                Err(error) => tracing::warn!(%device, %error, "what became of a setting is not told; it can be asked"),
            }
        }
    }
}
