//! Where what devices say goes.

use unhidra_core::delivery::{Delivery, DownlinkRow};
use unhidra_core::ids::DeviceId;

use super::{BoxFuture, ConnectionId, Outcome, Ticket};

/// What the broker tells the bridge, in order for each device.
#[derive(Debug)]
pub enum BrokerEvent {
    /// A device published on one of its rows.
    Delivery(Delivery),
    /// A device's connection was admitted. The connection it takes over, if there is one, has had
    /// its `Disconnected` before.
    Connected {
        /// Who.
        device: DeviceId,
        /// Its connection.
        connection: ConnectionId,
    },
    /// A device listens on one of its rows from now on, by SUBSCRIBE or by a resumed session.
    Listening {
        /// Who.
        device: DeviceId,
        /// Its connection.
        connection: ConnectionId,
        /// On which row.
        row: DownlinkRow,
    },
    /// A device's connection ended.
    Disconnected {
        /// Who.
        device: DeviceId,
        /// Its connection.
        connection: ConnectionId,
    },
    /// What became of a publish.
    Published {
        /// To whom.
        device: DeviceId,
        /// Which.
        ticket: Ticket,
        /// What.
        outcome: Outcome,
    },
}

impl BrokerEvent {
    /// Whose event it is; a device's events keep their order.
    #[must_use]
    pub const fn device(&self) -> &DeviceId {
        match self {
            Self::Delivery(delivery) => &delivery.device,
            Self::Connected { device, .. }
            | Self::Listening { device, .. }
            | Self::Disconnected { device, .. }
            | Self::Published { device, .. } => device,
        }
    }
}

/// Where the broker's events go.
pub trait Inlet: Send + Sync + 'static {
    /// Takes the events of one connection, in order.
    ///
    /// # Errors
    ///
    /// Gives back what did not fit, in order. The connection stops reading its socket, waits for
    /// [`Inlet::room`] and offers again; it goes on answering PINGREQ from what it has read.
    fn offer(&self, events: Vec<BrokerEvent>) -> Result<(), Vec<BrokerEvent>>;

    /// Completes when an event of `device` may fit again.
    fn room(&self, device: &DeviceId) -> BoxFuture<'_, ()>;
}
