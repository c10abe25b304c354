//! MQTT clients, as they are asked for and shown.

use std::fmt;

use serde::{Deserialize, Serialize};
use unhidra_broker::{ClientRecord as Found, ClientStanding, Owner, SessionName, UserName};
use unhidra_core::ids::{ClientId, DeviceId};

use super::{ControlError, text};

/// Names one session: its owner, a device or a user or neither, and its Client Identifier.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClientName {
    /// The device whose it is.
    #[serde(with = "text::maybe", default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
    /// The user whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Its Client Identifier.
    pub client_id: String,
}

/// Which clients are asked for: those that everything given holds of.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClientsAsked {
    /// Those behind this one.
    #[serde(default)]
    pub after: Option<ClientName>,
    /// Those with this Client Identifier.
    #[serde(default)]
    pub client_id: Option<String>,
    /// Those whose Client Identifier or address holds this text.
    #[serde(default)]
    pub matching: Option<String>,
    /// Those of this user.
    #[serde(default)]
    pub user: Option<String>,
    /// Those of this device.
    #[serde(with = "text::maybe", default)]
    pub device: Option<DeviceId>,
    /// Those that came in by this listener.
    #[serde(default)]
    pub listener: Option<String>,
    /// Those that are here, or those that are not.
    #[serde(default)]
    pub connected: Option<bool>,
}

/// A client, or its session while it is away.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ClientRecord {
    /// Which.
    #[serde(flatten)]
    pub name: ClientName,
    /// Its connection, while it is here.
    pub connection: Option<ConnectionRecord>,
    /// When its session ends, while it is away; in ms since the Unix epoch.
    pub expires_at: Option<u64>,
    /// Topic Filters, and for a device the rows it listens on.
    pub subscriptions: usize,
    /// Messages that wait for it.
    pub queued_messages: usize,
    /// What they take in memory, in bytes.
    pub queued_bytes: usize,
    /// Messages that did not come to it since the node started: it was away, or too slow.
    pub dropped: u64,
    /// Messages it has been sent and has not acknowledged.
    pub in_flight: usize,
}

/// A connection.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ConnectionRecord {
    /// Where it comes from.
    pub peer: String,
    /// The listener it came in by.
    pub listener: String,
    /// The MQTT version: 3.1.1 or 5.0.
    pub version: String,
    /// Since when, in ms since the Unix epoch.
    pub since: u64,
    /// The Keep Alive that holds, in s; 0 is none.
    pub keep_alive_s: u16,
}

/// A run of clients.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ClientsPage {
    /// In the order of their owners and identifiers. There may be none, and yet a next run.
    pub clients: Vec<ClientRecord>,
    /// Behind whom the next run begins; nobody behind the last.
    pub next: Option<ClientName>,
}

/// Who is to be sent away.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KickAsked {
    /// Whom.
    pub clients: Vec<ClientName>,
    /// Whether their sessions end too.
    pub forget: bool,
}

/// Who was sent away.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Kicked {
    /// As they were before.
    pub clients: Vec<ClientRecord>,
}

/// Of which topic, or of which topics by a filter, the subscribers are asked for.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SubscribersAsked {
    /// A Topic Name or a Topic Filter.
    pub topic: String,
}

/// A subscription by which a message would come.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct SubscriberRecord {
    /// Whose.
    #[serde(flatten)]
    pub name: ClientName,
    /// Its Topic Filter.
    pub filter: String,
    /// The group of which one member gets the message, where it is shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_name: Option<String>,
    /// The highest QoS the message comes with.
    pub qos: u8,
    /// Whether its client is here.
    pub connected: bool,
}

/// Who would get a message.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct SubscribersFound {
    /// In the order of their owners, identifiers and filters.
    pub subscribers: Vec<SubscriberRecord>,
    /// Whether there are more than an answer holds.
    pub more: bool,
}

impl From<&unhidra_broker::SubscriberRecord> for SubscriberRecord {
    fn from(found: &unhidra_broker::SubscriberRecord) -> Self {
        Self {
            name: ClientName::from(&found.name),
            filter: found.filter.to_string(),
            share_name: found.share_name.as_deref().map(str::to_owned),
            qos: found.qos.as_bits(),
            connected: found.connected,
        }
    }
}

impl ClientsAsked {
    /// Whether a client is one of those asked for.
    #[must_use]
    pub fn wants(&self, found: &Found) -> bool {
        let Self { after: _, client_id, matching, user, device, listener, connected } = self;
        let id = found.name.client_id.as_str();
        let here = match &found.standing {
            ClientStanding::Here { peer, listener, .. } => Some((&**peer, *listener)),
            ClientStanding::Passing | ClientStanding::Away { .. } => None,
        };
        client_id.as_deref().is_none_or(|wanted| wanted == id)
            && matching.as_deref().is_none_or(|t| id.contains(t) || here.is_some_and(|(peer, _)| peer.contains(t)))
            && user.as_deref().is_none_or(|u| matches!(&found.name.owner, Owner::User(name) if name.as_str() == u))
            && device.is_none_or(|device| found.name.owner == Owner::Device(device))
            && listener.as_deref().is_none_or(|wanted| here.is_some_and(|(_, listener)| listener == wanted))
            && connected.is_none_or(|wanted| wanted == here.is_some())
    }
}

impl From<&SessionName> for ClientName {
    fn from(name: &SessionName) -> Self {
        let (device, user) = match &name.owner {
            Owner::Device(device) => (Some(*device), None),
            Owner::User(user) => (None, Some(user.to_string())),
            Owner::Anybody => (None, None),
        };
        Self { device, user, client_id: name.client_id.as_str().to_owned() }
    }
}

impl TryFrom<&ClientName> for SessionName {
    type Error = ControlError;
    fn try_from(name: &ClientName) -> Result<Self, ControlError> {
        let owner = match (name.device, &name.user) {
            (Some(device), None) => Owner::Device(device),
            (None, Some(user)) => Owner::User(UserName::new(user)),
            (None, None) => Owner::Anybody,
            (Some(_), Some(_)) => {
                return Err(ControlError::Invalid("a session is a device's or a user's, not both".to_owned()));
            }
        };
        let client_id = ClientId::parse(&name.client_id);
        let client_id = client_id.map_err(|error| ControlError::Invalid(format!("the client identifier: {error}")))?;
        Ok(Self { owner, client_id })
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, user, client_id } = self;
        match (device, user) {
            (Some(device), _) => write!(f, "{client_id} of device {device}"),
            (None, Some(user)) => write!(f, "{client_id} of user {user}"),
            (None, None) => f.write_str(client_id),
        }
    }
}

impl From<&Found> for ClientRecord {
    fn from(found: &Found) -> Self {
        let (connection, expires_at) = match &found.standing {
            ClientStanding::Here { peer, listener, version, since, keep_alive_s } => {
                let connection = ConnectionRecord {
                    peer: peer.to_string(),
                    listener: (*listener).to_owned(),
                    version: version.number().to_owned(),
                    since: since.as_ms(),
                    keep_alive_s: *keep_alive_s,
                };
                (Some(connection), None)
            }
            ClientStanding::Passing => (None, None),
            ClientStanding::Away { until } => (None, Some(until.as_ms())),
        };
        Self {
            name: ClientName::from(&found.name),
            connection,
            expires_at,
            subscriptions: found.subscriptions,
            queued_messages: found.queued_messages,
            queued_bytes: found.queued_bytes,
            dropped: found.dropped,
            in_flight: found.in_flight,
        }
    }
}
