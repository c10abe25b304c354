//! What the command line asks of a node, running or not.
//!
//! ```text
//! cli --Control--> RemoteControl --HTTP over DATA/control.sock--> server --Control--> LocalControl
//!         |                                                                            (in the node)
//!         +------> LocalControl over a store it opened itself, where no node runs
//! ```

use thiserror::Error;
use unhidra_core::command::Command;
use unhidra_core::ids::{CommandId, DeviceId};
use unhidra_core::setting::{Setting, SettingName};

use crate::backup::Pieces;
use crate::outlets::OutletRecord;
use crate::registry::RegistryError;
use crate::upstream::UpstreamRecord;

mod asked;
mod clients;
mod keys;
mod local;
mod remote;
mod server;
mod socket;
mod storage;
#[cfg(test)]
mod tests;
pub(crate) mod text;
mod tokens;
mod told;

pub use asked::{
    Addresses, DamagedRecord, DeviceRecord, DevicesAsked, DevicesPage, EnrollAsked, Enrolled, Info, KeyHex,
    ListenerAddress, ResetsRecord, Revoked, RowBody, RowKind, RowRecord, RowsAsked, RowsPage, Span, TagAsked,
};
pub use clients::{
    ClientName, ClientRecord, ClientsAsked, ClientsPage, ConnectionRecord, KickAsked, Kicked, SubscriberRecord,
    SubscribersAsked, SubscribersFound,
};
pub use keys::{ActRecord, ActsAsked, ActsPage, KeyRecord, KeysStatus, RewrapAsked, Rewrapped, UserAct, UserDeed};
pub use local::{CommandLimits, LocalControl, LocalDoors, NodeFacts};
pub use remote::RemoteControl;
pub use server::{PREFIX, router, serve};
pub use socket::{ControlListener, Peer, PeerRule, SOCKET_PATH_MAX, connect};
pub use storage::{PartitionRecord, Storage};
pub use tokens::{Minted, RevokeTokensAsked, RevokedTokens, TokenAsked, TokenRecord};
pub use told::{
    CancelAsked, CommandRecord, CommandsAsked, CommandsFound, LateRecord, SendAsked, SetAsked, SettingRecord,
    SettingsFound, Times,
};

/// A future without a name, so that the traits can be trait objects.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A future of an answer.
pub type Asked<'a, T> = BoxFuture<'a, Result<T, ControlError>>;

/// What the command line asks of a node.
pub trait Control: Send + Sync {
    /// What this node is, and where it listens.
    fn info(&self) -> Asked<'_, Info>;

    /// Signs a device's certificate request and writes the device into the registry.
    fn enroll(&self, asked: EnrollAsked) -> Asked<'_, Enrolled>;

    /// Devices in the order of their ids.
    fn devices(&self, asked: DevicesAsked) -> Asked<'_, DevicesPage>;

    /// One device.
    fn device(&self, id: DeviceId) -> Asked<'_, DeviceRecord>;

    /// Adds tags to a device and takes others from it.
    fn tag(&self, id: DeviceId, asked: TagAsked) -> Asked<'_, DeviceRecord>;

    /// Revokes a device, and ends its connection.
    fn revoke(&self, id: DeviceId) -> Asked<'_, Revoked>;

    /// Queues a command durably.
    fn send(&self, asked: SendAsked) -> Asked<'_, CommandRecord>;

    /// Calls a command back that has not been sent.
    fn cancel(&self, asked: CancelAsked) -> Asked<'_, CommandRecord>;

    /// A device's commands.
    fn commands(&self, asked: CommandsAsked) -> Asked<'_, CommandsFound>;

    /// Sets something of a device, durably.
    fn set(&self, asked: SetAsked) -> Asked<'_, SettingRecord>;

    /// A device's settings.
    fn settings(&self, device: DeviceId) -> Asked<'_, SettingsFound>;

    /// One command, and what has become of it.
    fn command(&self, device: DeviceId, id: CommandId) -> Asked<'_, CommandRecord>;

    /// Rows of the log, or of one device, in order.
    fn rows(&self, asked: RowsAsked) -> Asked<'_, RowsPage>;

    /// What the store holds.
    fn storage(&self) -> Asked<'_, Storage>;

    /// The bytes of a backup, as they are made.
    fn backup(&self) -> Asked<'_, Pieces>;

    /// Makes a token for the gateway.
    fn mint(&self, asked: TokenAsked) -> Asked<'_, Minted>;

    /// The tokens for the gateway that have not ended.
    fn tokens(&self) -> Asked<'_, Vec<TokenRecord>>;

    /// Ends all tokens of a name, and the connections of those who came in by one.
    fn revoke_tokens(&self, asked: RevokeTokensAsked) -> Asked<'_, RevokedTokens>;

    /// MQTT clients, connected or not.
    fn clients(&self, asked: ClientsAsked) -> Asked<'_, ClientsPage>;

    /// Ends connections of clients, and sessions too where that is asked for.
    fn kick(&self, asked: KickAsked) -> Asked<'_, Kicked>;

    /// Who would get a message.
    fn subscribers(&self, asked: SubscribersAsked) -> Asked<'_, SubscribersFound>;

    /// What keys encrypt the store, and how old they are.
    fn keys(&self) -> Asked<'_, KeysStatus>;

    /// Makes new keys, which encrypt from now on.
    fn rotate_keys(&self) -> Asked<'_, KeysStatus>;

    /// Wraps the keys under another master key.
    fn rewrap_keys(&self, asked: RewrapAsked) -> Asked<'_, Rewrapped>;

    /// What was done, and by whom.
    fn acts(&self, asked: ActsAsked) -> Asked<'_, ActsPage>;

    /// The outlets that are on, and how they stand; where no node runs, those that have a cursor.
    fn outlets(&self) -> Asked<'_, Vec<OutletRecord>>;

    /// Writes down what was done to a user of MQTT.
    fn user_act(&self, asked: UserAct) -> Asked<'_, ()>;

    /// How the outside brokers stand.
    fn upstreams(&self) -> Asked<'_, Vec<UpstreamRecord>>;
}

/// The parts of a node that exist only while it runs.
pub trait Live: Send + Sync + 'static {
    /// Where it listens.
    fn addresses(&self) -> Addresses;

    /// Whether a device has a connection now.
    fn is_online(&self, device: &DeviceId) -> bool;

    /// Queues a command, and sends it if the device is here.
    fn send(&self, asked: SendAsked) -> Asked<'_, Command>;

    /// Calls a command back that has not been sent.
    fn cancel(&self, asked: CancelAsked) -> Asked<'_, Command>;

    /// Sets something of a device, and tells the device if it is here.
    fn set(&self, asked: SetAsked) -> Asked<'_, Setting>;

    /// Makes a token for the gateway.
    ///
    /// # Errors
    ///
    /// [`ControlError::Unavailable`] where no further token fits.
    fn mint(&self, asked: &TokenAsked) -> Result<String, ControlError>;

    /// The tokens for the gateway that have not ended.
    fn tokens(&self) -> Vec<TokenRecord>;

    /// Ends all tokens of a name, and the connections of those who came in by one.
    fn revoke_tokens(&self, asked: &RevokeTokensAsked) -> RevokedTokens;

    /// MQTT clients, connected or not.
    ///
    /// # Errors
    ///
    /// [`ControlError::Invalid`] where the place to begin is none.
    fn clients(&self, asked: &ClientsAsked) -> Result<ClientsPage, ControlError>;

    /// Ends connections of clients, and sessions too where that is asked for.
    fn kick(&self, asked: KickAsked) -> Asked<'_, Kicked>;

    /// The outlets that are on, and how they stand.
    fn outlets(&self) -> Vec<OutletRecord>;

    /// Who would get a message.
    ///
    /// # Errors
    ///
    /// [`ControlError::Invalid`] where the topic is none.
    fn subscribers(&self, asked: &SubscribersAsked) -> Result<SubscribersFound, ControlError>;

    /// How the outside brokers stand.
    fn upstreams(&self) -> Vec<UpstreamRecord>;
}

/// Why an answer is none. It crosses the socket whole, so that the command line says the same
/// whether it asked a node or the store.
#[derive(Clone, Debug, Error, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(tag = "code", content = "detail", rename_all = "snake_case")]
pub enum ControlError {
    /// The registry does not hold the device.
    #[error("no device {id} is enrolled here; `unhidra device list` names those that are")]
    NoDevice {
        /// Which.
        #[serde(with = "text")]
        id: DeviceId,
    },
    /// The name is taken.
    #[error("the device {id} is enrolled already; --replace gives it a new certificate and a new key")]
    Taken {
        /// Which.
        #[serde(with = "text")]
        id: DeviceId,
    },
    /// It may not be told anything.
    #[error("the device {id} is revoked")]
    Revoked {
        /// Which.
        #[serde(with = "text")]
        id: DeviceId,
    },
    /// The device has no such command.
    #[error("no command {id} is known of this device")]
    NoCommand {
        /// Which.
        #[serde(with = "text")]
        id: CommandId,
    },
    /// Another command has the id.
    #[error("another command of this device has the id {id}; a repeat asks for the same again")]
    IdTaken {
        /// Which.
        #[serde(with = "text")]
        id: CommandId,
    },
    /// The command is under way or over.
    #[error("too late: the command is {state} and cannot be called back")]
    TooLate {
        /// How it stands, in a word.
        state: String,
    },
    /// The device has no such setting.
    #[error("the device has no setting {name}; `unhidra settings DEVICE` names those it has")]
    NoSetting {
        /// Which.
        #[serde(with = "text")]
        name: SettingName,
    },
    /// As many settings as may be.
    #[error("the device has {max} settings, and no more may be; remove one")]
    TooManySettings {
        /// How many there may be.
        max: usize,
    },
    /// The device says so much that its record cannot be replaced beside it.
    #[error("{id} says so much that its sessions cannot be ended; first revoke it: unhidra device revoke {id}")]
    Busy {
        /// Which.
        #[serde(with = "text")]
        id: DeviceId,
    },
    /// What was asked for is not well formed.
    #[error("{0}")]
    Invalid(String),
    /// As much as may wait for the device waits already.
    #[error("{open} commands wait for this device already; at most {max} may, until one is answered or expires")]
    TooMany {
        /// How many there are.
        open: usize,
        /// How many there may be.
        max: usize,
    },
    /// It takes a running node.
    #[error("no node runs on this data folder, and {0} needs one; start it with `unhidra run`")]
    NotRunning(String),
    /// The node, or its store, does not serve now.
    #[error("{0}")]
    Unavailable(String),
    /// Nothing is found under that address: a node of another version, probably.
    #[error("the node does not know {0}; it is of another version than this command")]
    Unknown(String),
    /// The node cannot do it as it is set up. It has changed nothing.
    #[error("{0}")]
    Unable(String),
    /// Nobody heard the question.
    #[error("the node cannot be asked: {0}")]
    Unasked(String),
    /// The conversation over the socket broke.
    #[error("the node did not answer: {0}")]
    Transport(String),
}

impl ControlError {
    /// The HTTP status that goes with it.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::NoDevice { .. } | Self::NoCommand { .. } | Self::NoSetting { .. } | Self::Unknown(_) => 404,
            Self::Taken { .. }
            | Self::Revoked { .. }
            | Self::IdTaken { .. }
            | Self::TooLate { .. }
            | Self::Busy { .. }
            | Self::Unable(_) => 409,
            Self::Invalid(_) => 400,
            Self::TooMany { .. } | Self::TooManySettings { .. } => 429,
            Self::NotRunning(_) | Self::Unavailable(_) => 503,
            Self::Transport(_) | Self::Unasked(_) => 502,
        }
    }

    /// Whether what was asked for may be done all the same: the answer is missing, or the store could not say.
    #[must_use]
    pub const fn leaves_doubt(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Transport(_))
    }
}

impl From<RegistryError> for ControlError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::NoDevice(id) => Self::NoDevice { id },
            RegistryError::Taken(id) => Self::Taken { id },
            RegistryError::TooManyTags { .. } => Self::Invalid(error.to_string()),
            RegistryError::Busy(id) => Self::Busy { id },
            RegistryError::Commit(_)
            | RegistryError::Read(_)
            | RegistryError::InDoubt { .. }
            | RegistryError::Store(_)
            | RegistryError::Closed => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<unhidra_store::ReadError> for ControlError {
    fn from(error: unhidra_store::ReadError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<unhidra_store::CommitError> for ControlError {
    fn from(error: unhidra_store::CommitError) -> Self {
        match error {
            unhidra_store::CommitError::NoDevice(id) => Self::NoDevice { id },
            other => Self::Unavailable(other.to_string()),
        }
    }
}
