//! What is asked and what is answered, as JSON on the control socket and on the terminal.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use unhidra_bridge::Resets;
use unhidra_core::device::{Device, Fingerprint, Standing, Tag};
use unhidra_core::ids::{CommandId, DeviceId, Offset};
use unhidra_core::message::{Reading, UplinkKind};
use unhidra_core::time::UnixTime;

use super::text;

/// Where a node listens. A listener that is off has no address.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Addresses {
    /// MQTT over TLS; where it listens at several addresses, the first.
    pub mqtt: Option<SocketAddr>,
    /// Plain MQTT, likewise.
    pub mqtt_plain: Option<SocketAddr>,
    /// MQTT over WebSocket, likewise.
    #[serde(default)]
    pub mqtt_ws: Option<SocketAddr>,
    /// MQTT over WebSocket over TLS, likewise.
    #[serde(default)]
    pub mqtt_wss: Option<SocketAddr>,
    /// Every address of every listener of MQTT.
    #[serde(default)]
    pub mqtt_listeners: Vec<ListenerAddress>,
    /// The gateway and the console.
    pub gateway: Option<SocketAddr>,
    /// Health and metrics.
    pub admin: Option<SocketAddr>,
}

impl Addresses {
    /// The first address of a listener of MQTT.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<SocketAddr> {
        self.mqtt_listeners.iter().find(|listener| listener.name == name).map(|listener| listener.address)
    }
}

/// One address of a listener of MQTT.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ListenerAddress {
    /// The listener's name in the configuration: `tls`, `tcp`, `ws` or `wss`.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
}

/// A 32-byte public key, printed as 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeyHex(pub [u8; 32]);

/// A text that is no [`KeyHex`].
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("a public key is 64 hexadecimal digits")]
pub struct KeyHexError;

impl fmt::Display for KeyHex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Fingerprint(self.0), f)
    }
}

impl FromStr for KeyHex {
    type Err = KeyHexError;
    fn from_str(digits: &str) -> Result<Self, Self::Err> {
        if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(KeyHexError);
        }
        let mut key = [0; 32];
        for (byte, pair) in key.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| KeyHexError)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| KeyHexError)?;
        }
        Ok(Self(key))
    }
}

/// What a node is.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Info {
    /// The version of the program.
    pub version: String,
    /// The process that answers.
    pub pid: u32,
    /// Whether that is a running node, not the command line itself over the store.
    pub running: bool,
    /// The trust domain of its certificates.
    pub trust_domain: String,
    /// Its long-term Ed25519 public key, which devices pin.
    #[serde(with = "text")]
    pub node_identity_key: KeyHex,
    /// The first level of its topics.
    pub prefix: String,
    /// How many partitions its log has.
    pub partitions: u16,
    /// The life of its log.
    pub epoch: u64,
    /// What must have a reading before it is acknowledged: `store.durability`.
    pub durability: String,
    /// How many devices the registry holds, revoked ones too.
    pub devices: usize,
    /// Where it listens.
    pub addresses: Addresses,
}

/// A device that asks to be enrolled. Its private keys stay where they were made.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EnrollAsked {
    /// Its name.
    #[serde(with = "text")]
    pub id: DeviceId,
    /// Its certificate request, PEM.
    pub csr_pem: String,
    /// Its long-term Ed25519 public key (IK).
    #[serde(with = "text")]
    pub identity_key: KeyHex,
    /// Its suite, the byte of e2ee/PROTOCOL.md section 3.
    pub suite: u8,
    /// Labels.
    #[serde(with = "text::set")]
    pub tags: BTreeSet<Tag>,
    /// Its hardware class; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub class: String,
    /// Whether it may take the place of a device of the same name.
    pub replace: bool,
}

/// What an enrolled device needs to come in.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Enrolled {
    /// The device as the registry has it.
    pub device: DeviceRecord,
    /// Its certificate.
    pub certificate_pem: String,
    /// The authority that signs this node's certificates and its own.
    pub ca_pem: String,
    /// The trust domain in its certificate.
    pub trust_domain: String,
    /// The node's long-term public key, to pin.
    #[serde(with = "text")]
    pub node_identity_key: KeyHex,
    /// The first level of its topics.
    pub prefix: String,
    /// Where the node takes MQTT over TLS, if it runs.
    pub server: Option<SocketAddr>,
}

/// A device, as shown.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct DeviceRecord {
    /// Its name.
    #[serde(with = "text")]
    pub id: DeviceId,
    /// The registry's number for it.
    pub number: u32,
    /// Its long-term Ed25519 public key (IK).
    #[serde(with = "text")]
    pub identity_key: KeyHex,
    /// SHA-256 over its certificate.
    #[serde(with = "text")]
    pub certificate: KeyHex,
    /// When that ends, in ms since the Unix epoch.
    pub certificate_expires: u64,
    /// Its suite.
    pub suite: u8,
    /// Labels.
    #[serde(with = "text::set")]
    pub tags: BTreeSet<Tag>,
    /// Its hardware class; empty where it has none.
    pub class: String,
    /// When it was enrolled, in ms since the Unix epoch.
    pub enrolled_at: u64,
    /// When it was revoked, if it was.
    pub revoked_at: Option<u64>,
    /// Whether it is connected; unknown where no node runs.
    pub online: Option<bool>,
    /// How often it was asked for a new session; where one device is asked for, not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resets: Option<ResetsRecord>,
}

/// How often a device was asked for a new session. Times are in ms since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ResetsRecord {
    /// When the last time, whatever the reason.
    pub last_at: Option<u64>,
    /// How often because its state had gone back: it began again with an old copy of its storage, or
    /// two devices have its identity.
    pub went_back: u32,
    /// When the last time for that.
    pub went_back_at: Option<u64>,
}

impl From<Resets> for ResetsRecord {
    fn from(resets: Resets) -> Self {
        let Resets { last_at, went_back, went_back_at } = resets;
        Self { last_at: last_at.map(UnixTime::as_ms), went_back, went_back_at: went_back_at.map(UnixTime::as_ms) }
    }
}

impl DeviceRecord {
    /// A device of the registry, and whether it is here.
    #[must_use]
    pub fn new(device: &Device, online: Option<bool>) -> Self {
        Self {
            id: device.id,
            number: device.number.get(),
            identity_key: KeyHex(device.identity_key),
            certificate: KeyHex(device.certificate.0),
            certificate_expires: device.certificate_expires.as_ms(),
            suite: device.suite.as_byte(),
            tags: device.tags.clone(),
            class: device.class.clone(),
            enrolled_at: device.enrolled_at.as_ms(),
            revoked_at: match device.standing {
                Standing::Enrolled => None,
                Standing::Revoked { at } => Some(at.as_ms()),
            },
            online,
            resets: None,
        }
    }
}

/// Which devices are asked for.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DevicesAsked {
    /// Those after this one.
    #[serde(with = "text::maybe", default)]
    pub after: Option<DeviceId>,
}

/// A run of devices.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct DevicesPage {
    /// In the order of their ids.
    pub devices: Vec<DeviceRecord>,
    /// Whether there are more.
    pub more: bool,
}

/// A change of labels.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TagAsked {
    /// Put on.
    #[serde(with = "text::set", default)]
    pub add: BTreeSet<Tag>,
    /// Taken off.
    #[serde(with = "text::set", default)]
    pub remove: BTreeSet<Tag>,
}

/// What became of a revocation.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Revoked {
    /// The device.
    pub device: DeviceRecord,
    /// Whether it was revoked before.
    pub before: bool,
    /// Whether it was connected, so that its connection was ended; unknown where no node runs.
    pub was_online: Option<bool>,
}

/// Whose rows are asked for.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Span {
    /// Those of a partition.
    Partition(u16),
    /// Those of a device.
    Device(#[serde(with = "text")] DeviceId),
}

/// Which rows are asked for.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RowsAsked {
    /// Whose.
    pub of: Span,
    /// Those after this place; 0 for all.
    pub after: u64,
    /// Those the node received then or later, in ms since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Those the node received before then, in ms since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// Those of devices of this class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
}

impl RowsAsked {
    /// All rows of `of`.
    #[must_use]
    pub const fn all(of: Span) -> Self {
        Self { of, after: 0, from: None, to: None, class: None }
    }

    /// Whether a row received then is asked for.
    #[must_use]
    pub fn covers(&self, received_at: UnixTime) -> bool {
        let at = received_at.as_ms();
        self.from.is_none_or(|from| at >= from) && self.to.is_none_or(|to| at < to)
    }

    /// The place after which rows are asked for.
    #[must_use]
    pub const fn offset(&self) -> Offset {
        Offset::new(self.after)
    }
}

/// A run of rows.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct RowsPage {
    /// In order.
    pub rows: Vec<RowRecord>,
    /// Whether there may be more.
    pub more: bool,
    /// The place looked at last: where the next question begins. Rows that were not asked for lie
    /// before it too, so a page may be empty and not the last.
    #[serde(default)]
    pub next: Option<u64>,
    /// The rows on the way there that do not read, and are not among `rows`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamagedRecord>,
}

/// A row that does not read.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DamagedRecord {
    /// The partition whose log holds it.
    pub partition: u16,
    /// Its place there.
    pub offset: u64,
    /// Whose it is, where that reads.
    #[serde(with = "text::maybe", default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
    /// Which record it is, and what is wrong with it.
    pub cause: String,
}

/// What a row is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RowKind {
    /// A measured value.
    Reading,
    /// The answer to a command.
    Receipt,
    /// Something that happened.
    Event,
    /// Kept so that a repeat is known, and of no kind this node shows.
    Ignored,
}

/// A row as exported; in JSON it is what the gateway's frames hold (gateway/PROTOCOL.md).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct RowRecord {
    /// The partition whose log holds it.
    pub partition: u16,
    /// Its place there.
    pub offset: u64,
    /// The place of its device's row before it; 0 for the first.
    pub prev: u64,
    /// Who said it.
    #[serde(with = "text")]
    pub device: DeviceId,
    /// What it is.
    pub kind: RowKind,
    /// The message type; empty where the device gave none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The command a receipt answers.
    #[serde(with = "text::maybe", default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandId>,
    /// What the receipt says became of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The device's clock, in ms since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_time: Option<u64>,
    /// The node's clock, in ms since the Unix epoch.
    pub received_at: u64,
    /// The device's own id for it, a string: JSON's numbers lose the last digits of a u64 in most
    /// readers.
    #[serde(with = "text::maybe", default, skip_serializing_if = "Option::is_none")]
    pub reading_id: Option<u64>,
    /// The body, as `text` or `base64`. The gateway gives none of an ignored row.
    #[serde(flatten)]
    pub body: Option<RowBody>,
}

/// A body: as text where it is UTF-8.
#[derive(Clone, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RowBody {
    /// UTF-8.
    Text(String),
    /// Anything.
    Base64(#[serde(with = "text::base64")] Bytes),
}

impl fmt::Debug for RowBody {
    // Plaintext has no place in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowBody({} bytes)", self.as_bytes().len())
    }
}

impl RowBody {
    pub(super) fn new(body: &Bytes) -> Self {
        match std::str::from_utf8(body) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64(body.clone()),
        }
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Base64(bytes) => bytes,
        }
    }
}

impl From<&Reading> for RowRecord {
    fn from(row: &Reading) -> Self {
        let uplink = &row.uplink;
        let (kind, command, status) = match uplink.kind {
            UplinkKind::Reading => (RowKind::Reading, None, None),
            UplinkKind::Receipt { command, status } => {
                (RowKind::Receipt, Some(command), Some(status.as_str().to_owned()))
            }
            UplinkKind::Event => (RowKind::Event, None, None),
            UplinkKind::Ignored | UplinkKind::Trimmed => (RowKind::Ignored, None, None),
        };
        Self {
            partition: row.partition.get(),
            offset: row.offset.get(),
            prev: row.prev.get(),
            device: uplink.device,
            kind,
            name: uplink.name.to_string(),
            command,
            status,
            device_time: uplink.device_time.map(UnixTime::as_ms),
            received_at: uplink.received_at.as_ms(),
            reading_id: uplink.reading_id,
            body: Some(RowBody::new(&uplink.body)),
        }
    }
}
