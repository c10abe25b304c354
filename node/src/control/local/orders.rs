//! Commands and settings: through the running node, or written down for the one that will run here
//! next.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use unhidra_bridge::{NewSetting, SettingList, SettingRefused};
use unhidra_core::command::{By, Command, CommandState, Ended, Ending, Life};
use unhidra_core::device::Device;
use unhidra_core::ids::DeviceId;
use unhidra_core::message::MessageName;
use unhidra_core::setting::Setting;
use unhidra_store::{Act, Deed, Op};

use super::LocalControl;
use crate::actor;
use crate::commit::commit;
use crate::control::{
    CancelAsked, CommandRecord, CommandsAsked, CommandsFound, ControlError, SendAsked, SetAsked, SettingRecord,
};

/// Commands in one answer at most.
const COMMANDS_MAX: usize = 4096;

impl LocalControl {
    /// A device of the registry, revoked or not.
    pub(super) fn known(&self, device: &DeviceId) -> Result<Arc<Device>, ControlError> {
        self.doors.registry.get(device).ok_or(ControlError::NoDevice { id: *device })
    }

    fn enrolled(&self, device: &DeviceId) -> Result<(), ControlError> {
        let device = self.known(device)?;
        if device.is_enrolled() { Ok(()) } else { Err(ControlError::Revoked { id: device.id }) }
    }

    pub(super) async fn queue(&self, asked: SendAsked) -> Result<CommandRecord, ControlError> {
        let name: MessageName = asked
            .name
            .parse()
            .map_err(|error| ControlError::Invalid(format!("the command {:?}: {error}", asked.name)))?;
        fits(asked.body.len(), self.limits.body_max)?;
        self.enrolled(&asked.device)?;
        let command = match &self.doors.live {
            Some(live) => live.send(asked).await?,
            None => self.queue_alone(asked, name).await?,
        };
        Ok(self.shown(&command))
    }

    /// Writes a command down for the node that will run here next.
    async fn queue_alone(&self, asked: SendAsked, name: MessageName) -> Result<Command, ControlError> {
        let doors = &self.doors;
        let now = doors.clock.unix_now();
        let lifetime = asked.expires_in_ms.map_or(self.limits.expiry, Duration::from_millis);
        let mut command = Command {
            id: asked.id.unwrap_or_else(|| (doors.command_ids)()),
            device: asked.device,
            name: name.into_inner(),
            body: asked.body,
            created_at: now,
            expires_at: now.saturating_add(lifetime),
            asked_by: Some(actor::current()),
            life: Life::default(),
        };
        match doors.store.command(&command.device, &command.id).await? {
            Some(known) if known.asks_the_same(&command) => return Ok(known),
            Some(_) => return Err(ControlError::IdTaken { id: command.id }),
            None => {}
        }
        let open = doors.store.open_commands(&asked.device).await?;
        // As the node orders them: by the time they were made, of which no two are the same.
        let newest = open.iter().map(|open| open.created_at.saturating_add(Duration::from_millis(1))).max();
        command.created_at = newest.map_or(now, |after| after.max(now));
        let open = open.iter().filter(|command| now <= command.expires_at).count();
        if open >= self.limits.open_max {
            return Err(ControlError::TooMany { open, max: self.limits.open_max });
        }
        let detail = format!("{} {}", command.name, command.id);
        self.write(command.device, [Op::Command(command.clone())], Deed::Command, &detail).await?;
        Ok(command)
    }

    pub(super) async fn call_back(&self, asked: CancelAsked) -> Result<CommandRecord, ControlError> {
        self.known(&asked.device)?;
        let command = match &self.doors.live {
            Some(live) => live.cancel(asked).await?,
            None => self.call_back_alone(asked).await?,
        };
        Ok(self.shown(&command))
    }

    /// Where no node runs nothing is under way. What was sent when one ran the device may have.
    async fn call_back_alone(&self, asked: CancelAsked) -> Result<Command, ControlError> {
        let found = self.doors.store.command(&asked.device, &asked.id).await?;
        let mut command = found.ok_or(ControlError::NoCommand { id: asked.id })?;
        if command.state() == CommandState::Cancelled {
            return Ok(command);
        }
        let now = self.doors.clock.unix_now();
        if !command.end(Ended::new(Ending::Cancelled, By::Client, &actor::current(), now)) {
            return Err(ControlError::TooLate { state: command.state().as_str().to_owned() });
        }
        let detail = command.id.to_string();
        self.write(command.device, [Op::Command(command.clone())], Deed::Cancel, &detail).await?;
        Ok(command)
    }

    pub(super) async fn list(&self, asked: CommandsAsked) -> Result<CommandsFound, ControlError> {
        self.known(&asked.device)?;
        let store = &self.doors.store;
        let commands = match asked.newest {
            Some(newest) => store.commands(&asked.device, newest.clamp(1, COMMANDS_MAX)).await?,
            None => store.open_commands(&asked.device).await?,
        };
        Ok(CommandsFound { commands: commands.iter().map(|command| self.shown(command)).collect() })
    }

    pub(super) async fn put_setting(&self, asked: SetAsked) -> Result<SettingRecord, ControlError> {
        fits(asked.value.as_ref().map_or(0, |value| value.as_bytes().len()), Setting::VALUE_LEN_MAX)?;
        self.enrolled(&asked.device)?;
        let setting = match &self.doors.live {
            Some(live) => live.set(asked).await?,
            None => self.put_setting_alone(asked).await?,
        };
        Ok(SettingRecord::from(&setting))
    }

    async fn put_setting_alone(&self, asked: SetAsked) -> Result<Setting, ControlError> {
        let new = NewSetting::from(asked);
        let (device, name) = (new.device, new.name.clone());
        // In no session: the node sends what it finds not acknowledged in the present one.
        let now = self.doors.clock.unix_now();
        let mut settings = SettingList::restore(self.doors.store.settings(&device).await?, 0, now);
        let changed = settings.set(new, now).map_err(|refused| match refused {
            SettingRefused::TooMany { max } => ControlError::TooManySettings { max },
            SettingRefused::NoSetting => ControlError::NoSetting { name },
            SettingRefused::NoDevice => ControlError::NoDevice { id: device },
            SettingRefused::Unavailable => ControlError::Unavailable(refused.to_string()),
        })?;
        if changed.is_new {
            let forgotten = changed.forgotten.map(|name| Op::ForgetSetting { device, name });
            let ops = forgotten.into_iter().chain([Op::Setting(changed.setting.clone())]);
            self.write(device, ops, Deed::Setting, changed.setting.name.as_str()).await?;
        }
        Ok(changed.setting)
    }

    /// Writes what was asked for, and who asked.
    async fn write(
        &self,
        device: DeviceId,
        ops: impl IntoIterator<Item = Op>,
        deed: Deed,
        detail: &str,
    ) -> Result<(), ControlError> {
        let store = &self.doors.store;
        let act = Act::on(self.doors.clock.unix_now(), &actor::current(), deed, device, detail);
        let ops = ops.into_iter().chain([Op::Act(act)]).collect();
        commit(&**store, store.partition_of(&device), ops).await?;
        Ok(())
    }

    pub(super) fn shown(&self, command: &Command) -> CommandRecord {
        CommandRecord::new(command, self.doors.clock.unix_now())
    }
}

impl From<SetAsked> for NewSetting {
    fn from(asked: SetAsked) -> Self {
        let value = asked.value.map(|value| Bytes::copy_from_slice(value.as_bytes()));
        Self { device: asked.device, name: asked.name, value, asked_by: Some(actor::current()) }
    }
}

fn fits(len: usize, max: usize) -> Result<(), ControlError> {
    if len > max {
        return Err(ControlError::Invalid(format!("a body of {len} bytes; at most {max} are allowed")));
    }
    Ok(())
}
