//! Where the gateway meets the rest of the node.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use unhidra_core::command::Command;
use unhidra_core::ids::{CommandId, DeviceId};
use unhidra_core::message::MessageName;
use unhidra_core::setting::{Setting, SettingName};
use unhidra_core::time::Clock;
use unhidra_store::{BoxFuture, Store};

use crate::auth::Authority;
use crate::error::CommandRefused;

/// Everything the gateway is given.
pub struct Doors {
    /// Where readings, commands and devices are read.
    pub store: Arc<dyn Store>,
    /// Who may see and do what.
    pub authority: Arc<dyn Authority>,
    /// The way to the devices.
    pub commands: Arc<dyn Commands>,
    /// The time.
    pub clock: Arc<dyn Clock + Send + Sync>,
    /// What authenticates cursors. Kept over restarts, or every cursor ends with the process.
    pub cursor_key: [u8; 32],
}

/// The way to the devices.
pub trait Commands: Send + Sync + 'static {
    /// Makes a command durable and sees to its sending. Completes when it is durable; what becomes
    /// of it is told through [`Gateway::command_changed`](crate::Gateway::command_changed). One that
    /// was taken before, of the same id and for the same, is given as it stands.
    ///
    /// # Errors
    ///
    /// [`CommandRefused`] says why it was not taken.
    fn send(&self, new: NewCommand) -> BoxFuture<'_, Result<Command, CommandRefused>>;

    /// Calls a command back that was not sent, or is known not to be on its way.
    ///
    /// # Errors
    ///
    /// [`CommandRefused`] says why it stands.
    fn cancel(&self, cancel: Cancel) -> BoxFuture<'_, Result<Command, CommandRefused>>;

    /// Makes a setting durable and sees to its sending. What becomes of it is told through
    /// [`Gateway::setting_changed`](crate::Gateway::setting_changed).
    ///
    /// # Errors
    ///
    /// [`CommandRefused`] says why it was not taken.
    fn set(&self, new: NewSetting) -> BoxFuture<'_, Result<Setting, CommandRefused>>;
}

/// A command that a client calls back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cancel {
    /// Whose.
    pub device: DeviceId,
    /// Which.
    pub command: CommandId,
    /// Who asks for it.
    pub asked_by: Arc<str>,
}

/// A setting as a client asks for it.
#[derive(Clone, Eq, PartialEq)]
pub struct NewSetting {
    /// Whose.
    pub device: DeviceId,
    /// Which.
    pub name: SettingName,
    /// The value; without, the setting is removed.
    pub value: Option<Bytes>,
    /// Who asks for it.
    pub asked_by: Arc<str>,
}

impl fmt::Debug for NewSetting {
    // What a device is set to may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewSetting")
            .field("device", &self.device)
            .field("name", &self.name)
            .field("value_len", &self.value.as_ref().map(Bytes::len))
            .finish_non_exhaustive()
    }
}

/// A command as a client asks for it.
#[derive(Clone, Eq, PartialEq)]
pub struct NewCommand {
    /// The client's own id for it, so that a repeat is known; without, it is given one.
    pub id: Option<CommandId>,
    /// To whom.
    pub device: DeviceId,
    /// What to do.
    pub name: MessageName,
    /// With what.
    pub body: Bytes,
    /// How long from now it is worth doing.
    pub expires_after: Duration,
    /// Who asks for it.
    pub asked_by: Arc<str>,
}

impl fmt::Debug for NewCommand {
    // So may be what it is told.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewCommand")
            .field("id", &self.id)
            .field("device", &self.device)
            .field("name", &self.name)
            .field("body_len", &self.body.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_is_told_is_not_printed() {
        let (device, body) = (DeviceId::parse("pump-7").unwrap(), Bytes::from_static(b"sesame"));
        let asked_by: Arc<str> = "ann".into();
        let value = Some(body.clone());
        let setting = NewSetting { device, name: "password".parse().unwrap(), value, asked_by: asked_by.clone() };
        let name = "unlock".parse().unwrap();
        let command = NewCommand { id: None, device, name, body, expires_after: Duration::ZERO, asked_by };
        let printed = format!("{setting:?} {command:?}");
        assert!(printed.contains("password") && printed.contains("unlock") && !printed.contains("sesame"), "{printed}");
    }
}
