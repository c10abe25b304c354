//! Where the gateway meets the rest of the node.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use unhidra_core::ids::DeviceId;
use unhidra_core::message::{Command, MessageName};
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
    /// of it is told through [`Gateway::command_changed`](crate::Gateway::command_changed).
    ///
    /// # Errors
    ///
    /// [`CommandRefused`] says why it was not taken.
    fn send(&self, new: NewCommand) -> BoxFuture<'_, Result<Command, CommandRefused>>;
}

/// A command as a client asks for it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NewCommand {
    /// To whom.
    pub device: DeviceId,
    /// What to do.
    pub name: MessageName,
    /// With what.
    pub body: Bytes,
    /// How long from now it is worth doing.
    pub expires_after: Duration,
}
