//! What people and programs tell devices: commands, their cancelling, settings. Each goes to its
//! device's shard and comes back once it is durable.
//!
//! A client may name its command itself, so that its own repeat is known. The store knows every
//! command there ever was; between asking it and the commit of a new one, a second of the same name
//! waits ([`Repeats`]).

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use unhidra_bridge::{CommandRefused, NewSetting, SettingRefused};
use unhidra_core::command::{Command, CommandState, Life};
use unhidra_core::ids::{CommandId, DeviceId};
use unhidra_core::message::MessageName;
use unhidra_core::setting::Setting;
use unhidra_store::{BoxFuture, ReadError};

use super::{Event, Pump};

/// What a command may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CommandBounds {
    /// Bytes of body.
    pub(crate) body_max: usize,
    /// How long one lives where nobody says.
    pub(crate) expires_after: Duration,
}

/// A command as it is asked for.
#[derive(Clone)]
pub(crate) struct NewCommand {
    /// The client's own id for it; without, it is given one.
    pub(crate) id: Option<CommandId>,
    /// To whom.
    pub(crate) device: DeviceId,
    /// What to do.
    pub(crate) name: MessageName,
    /// With what.
    pub(crate) body: Bytes,
    /// How long it lives, where somebody says.
    pub(crate) expires_after: Option<Duration>,
    /// Who asks.
    pub(crate) asked_by: Arc<str>,
}

/// Why an order was not taken by the pump.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum NotTaken {
    /// The body is too large.
    TooLarge {
        /// Bytes found.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The device has no such command.
    NoCommand,
    /// The bridge refused it.
    Bridge(CommandRefused),
    /// The bridge refused the setting.
    Setting(SettingRefused),
}

/// Whoever waits for a command.
pub(super) type CommandReply = oneshot::Sender<Result<Command, CommandRefused>>;

/// Whoever waits for a setting.
pub(super) type SettingReply = oneshot::Sender<Result<Setting, SettingRefused>>;

/// What a shard is told to tell a device.
pub(crate) enum Order {
    /// A new command. While it is under way nobody else takes its name.
    Send(Box<Command>, CommandReply, Option<Named>),
    /// A command to be called back, and by whom.
    Cancel(DeviceId, CommandId, Arc<str>, CommandReply),
    /// A setting.
    Set(NewSetting, SettingReply),
}

/// The names that clients have given commands which are not durable yet. Bounded by the requests
/// under way: one a client.
#[derive(Default)]
pub(super) struct Repeats(Arc<Names>);

#[derive(Default)]
struct Names {
    taken: Mutex<HashSet<(DeviceId, CommandId)>>,
    freed: Notify,
}

/// A name that is taken until this is dropped: by the shard, once the command is durable or has
/// failed.
pub(crate) struct Named {
    names: Arc<Names>,
    name: (DeviceId, CommandId),
}

impl Repeats {
    /// Takes a name, once nobody else has it.
    async fn take(&self, device: DeviceId, id: CommandId) -> Named {
        let (names, name) = (self.0.clone(), (device, id));
        loop {
            let mut freed = std::pin::pin!(names.freed.notified());
            // Registered before the look, so that what is freed between is not missed.
            freed.as_mut().enable();
            if names.lock().insert(name) {
                return Named { names: names.clone(), name };
            }
            freed.await;
        }
    }
}

impl Names {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<(DeviceId, CommandId)>> {
        // A set is whole between any two statements that could panic.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        self.names.lock().remove(&self.name);
        self.names.freed.notify_waiters();
    }
}

impl Pump {
    /// Queues a command durably; it goes to the device once the device is there. One that was taken
    /// before is given as it stands.
    pub(crate) async fn send(&self, new: NewCommand) -> Result<Command, NotTaken> {
        if new.body.len() > self.bounds.body_max {
            return Err(NotTaken::TooLarge { len: new.body.len(), max: self.bounds.body_max });
        }
        let now = self.clock.unix_now();
        let command = Command {
            id: new.id.unwrap_or_else(|| (self.new_id)()),
            device: new.device,
            name: new.name.into_inner(),
            body: new.body,
            created_at: now,
            expires_at: now.saturating_add(new.expires_after.unwrap_or(self.bounds.expires_after)),
            asked_by: Some(new.asked_by),
            life: Life::default(),
        };
        let named = match new.id {
            Some(id) => Some(self.repeats.take(new.device, id).await),
            None => None,
        };
        if named.is_some()
            && let Some(known) = self.store.command(&command.device, &command.id).await.map_err(unreadable)?
        {
            let same = known.asks_the_same(&command);
            return if same { Ok(known) } else { Err(NotTaken::Bridge(CommandRefused::IdTaken)) };
        }
        let (reply, answer) = oneshot::channel();
        let device = command.device;
        self.tell(&device, Event::Order(Order::Send(Box::new(command), reply, named))).await;
        answer.await.unwrap_or(Err(CommandRefused::Unavailable)).map_err(NotTaken::Bridge)
    }

    /// Calls a command back, unless it is under way or over. One that was called back before is
    /// given as it stands.
    pub(crate) async fn cancel(&self, device: DeviceId, id: CommandId, who: Arc<str>) -> Result<Command, NotTaken> {
        let (reply, answer) = oneshot::channel();
        self.tell(&device, Event::Order(Order::Cancel(device, id, who, reply))).await;
        match answer.await.unwrap_or(Err(CommandRefused::Unavailable)) {
            Err(CommandRefused::NotOpen) => {}
            answered => return answered.map_err(NotTaken::Bridge),
        }
        match self.store.command(&device, &id).await.map_err(unreadable)? {
            None => Err(NotTaken::NoCommand),
            Some(command) if command.state() == CommandState::Cancelled => Ok(command),
            Some(command) => Err(NotTaken::Bridge(CommandRefused::TooLate { state: command.state() })),
        }
    }

    /// Makes a setting durable; it goes to the device once the device is there.
    pub(crate) async fn set(&self, new: NewSetting) -> Result<Setting, NotTaken> {
        let (len, max) = (new.value.as_ref().map_or(0, Bytes::len), Setting::VALUE_LEN_MAX);
        if len > max {
            return Err(NotTaken::TooLarge { len, max });
        }
        let (reply, answer) = oneshot::channel();
        let device = new.device;
        self.tell(&device, Event::Order(Order::Set(new, reply))).await;
        answer.await.unwrap_or(Err(SettingRefused::Unavailable)).map_err(NotTaken::Setting)
    }
}

fn unreadable(error: ReadError) -> NotTaken {
    tracing::warn!(%error, "whether a command is known could not be read");
    NotTaken::Bridge(CommandRefused::Unavailable)
}

impl From<NotTaken> for unhidra_gateway::CommandRefused {
    fn from(not_taken: NotTaken) -> Self {
        match not_taken {
            NotTaken::TooLarge { len, max } => Self::TooLarge { len, max },
            NotTaken::NoCommand | NotTaken::Bridge(CommandRefused::NotOpen) => Self::NoSuchCommand,
            NotTaken::Bridge(CommandRefused::TooMany { max, .. }) => Self::TooManyOpen { max },
            NotTaken::Bridge(CommandRefused::IdTaken) => Self::IdTaken,
            NotTaken::Bridge(CommandRefused::TooLate { state }) => Self::TooLate { state },
            NotTaken::Bridge(CommandRefused::NoDevice) | NotTaken::Setting(SettingRefused::NoDevice) => {
                Self::NoSuchDevice
            }
            NotTaken::Setting(SettingRefused::TooMany { max }) => Self::TooManySettings { max },
            NotTaken::Setting(SettingRefused::NoSetting) => Self::NoSuchSetting,
            NotTaken::Bridge(CommandRefused::Unavailable) | NotTaken::Setting(SettingRefused::Unavailable) => {
                Self::Unavailable
            }
        }
    }
}

impl unhidra_gateway::Commands for Pump {
    fn send(
        &self,
        new: unhidra_gateway::NewCommand,
    ) -> BoxFuture<'_, Result<Command, unhidra_gateway::CommandRefused>> {
        let unhidra_gateway::NewCommand { id, device, name, body, expires_after, asked_by } = new;
        let new = NewCommand { id, device, name, body, expires_after: Some(expires_after), asked_by };
        Box::pin(async move { Ok(Pump::send(self, new).await?) })
    }

    fn cancel(
        &self,
        cancel: unhidra_gateway::Cancel,
    ) -> BoxFuture<'_, Result<Command, unhidra_gateway::CommandRefused>> {
        let unhidra_gateway::Cancel { device, command, asked_by } = cancel;
        Box::pin(async move { Ok(Pump::cancel(self, device, command, asked_by).await?) })
    }

    fn set(&self, new: unhidra_gateway::NewSetting) -> BoxFuture<'_, Result<Setting, unhidra_gateway::CommandRefused>> {
        let unhidra_gateway::NewSetting { device, name, value, asked_by } = new;
        let new = NewSetting { device, name, value, asked_by: Some(asked_by) };
        Box::pin(async move { Ok(Pump::set(self, new).await?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_one_commands_until_that_is_settled() {
        let repeats = Arc::new(Repeats::default());
        let (device, id) = (DeviceId::parse("pump-7").expect("valid"), CommandId::new([1; 16]));
        let first = repeats.take(device, id).await;
        let other = repeats.take(device, CommandId::new([2; 16])).await;
        let second = tokio::spawn({
            let repeats = repeats.clone();
            async move { drop(repeats.take(device, id).await) }
        });
        tokio::task::yield_now().await;
        drop(other);
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        assert!(second.await.is_ok());
    }
}
