//! The wire format of clients: JSON texts, one object a message (gateway/PROTOCOL.md).

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use unhidra_core::ids::{CommandId, DeviceId, DeviceIdError};
use unhidra_core::message::{Reading, UplinkKind};
use unhidra_core::setting::SettingName;
use unhidra_core::time::UnixTime;

use crate::error::ErrorCode;
use crate::registered::{DeviceEntry, PresenceEntry};
use crate::told::{CommandEntry, SettingEntry};

/// The version spoken here.
pub(crate) const VERSION: u32 = 1;

/// What a subscription covers: every device, or one. Written `"*"` or as the device's id, which
/// never holds an asterisk.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Audience {
    /// Every device.
    All,
    /// One device.
    Device(DeviceId),
}

impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Device(device) => device.fmt(f),
        }
    }
}

impl FromStr for Audience {
    type Err = DeviceIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "*" { Ok(Self::All) } else { text.parse().map(Self::Device) }
    }
}

impl Serialize for Audience {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Audience {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer)
    }
}

fn parsed<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(deserializer: D) -> Result<T, D::Error> {
    let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

fn parsed_option<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    parsed(deserializer).map(Some)
}

/// What a client says.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    Authenticate {
        version: u32,
        token: String,
    },
    Subscribe {
        device: Audience,
        since: Option<String>,
    },
    Unsubscribe {
        device: Audience,
    },
    Devices {
        #[serde(default, deserialize_with = "parsed_option")]
        after: Option<DeviceId>,
        limit: Option<u32>,
    },
    History {
        #[serde(deserialize_with = "parsed")]
        device: DeviceId,
        newest: u32,
    },
    Send {
        #[serde(deserialize_with = "parsed")]
        device: DeviceId,
        #[serde(default, deserialize_with = "parsed_option")]
        command: Option<CommandId>,
        name: String,
        text: Option<String>,
        base64: Option<String>,
        expires_after_ms: Option<u64>,
    },
    Cancel {
        #[serde(deserialize_with = "parsed")]
        device: DeviceId,
        #[serde(deserialize_with = "parsed")]
        command: CommandId,
    },
    Commands {
        #[serde(deserialize_with = "parsed")]
        device: DeviceId,
        newest: Option<u32>,
    },
    Set {
        #[serde(deserialize_with = "parsed")]
        device: DeviceId,
        #[serde(deserialize_with = "parsed")]
        name: SettingName,
        text: Option<String>,
        base64: Option<String>,
        #[serde(default)]
        remove: bool,
    },
    Settings {
        #[serde(deserialize_with = "parsed")]
        device: DeviceId,
    },
    Command {
        #[serde(deserialize_with = "parsed")]
        device: DeviceId,
        #[serde(deserialize_with = "parsed")]
        command: CommandId,
    },
    Ping {},
    Pong {},
}

/// The number by which a client knows the answer to a request of its.
pub(crate) type RequestId = Option<u64>;

/// Why a text is no request.
#[derive(Debug)]
pub(crate) struct Malformed {
    pub(crate) id: RequestId,
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
}

const REQUESTS: [&str; 13] = [
    "authenticate",
    "subscribe",
    "unsubscribe",
    "devices",
    "history",
    "send",
    "cancel",
    "commands",
    "command",
    "set",
    "settings",
    "ping",
    "pong",
];

impl Request {
    /// Reads one message of a client.
    ///
    /// # Errors
    ///
    /// [`Malformed`] says what is wrong with it, in words fit for the client.
    pub(crate) fn parse(text: &str) -> Result<(RequestId, Self), Malformed> {
        let mut object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).map_err(|error| {
            Malformed { id: None, code: ErrorCode::NotJson, message: format!("a message is one JSON object: {error}") }
        })?;
        let id = match object.remove("id") {
            None => None,
            Some(value) => match value.as_u64() {
                Some(id) => Some(id),
                None => return Err(Malformed::bad(None, "an id is a number from 0 to 18446744073709551615")),
            },
        };
        match object.get("type").and_then(serde_json::Value::as_str) {
            None => return Err(Malformed::bad(id, "a message has a type, which is a string")),
            Some(known) if REQUESTS.contains(&known) => {}
            Some(_) => {
                let message = format!("the types are {}", REQUESTS.join(", "));
                return Err(Malformed { id, code: ErrorCode::UnknownType, message });
            }
        }
        let request = serde_json::from_value(serde_json::Value::Object(object));
        request.map(|request| (id, request)).map_err(|error| Malformed::bad(id, &error.to_string()))
    }
}

impl Malformed {
    pub(crate) fn bad(id: RequestId, message: &str) -> Self {
        Self { id, code: ErrorCode::BadRequest, message: message.to_owned() }
    }
}

/// What the node says, but for readings, which are put together by hand so that each is encoded
/// once.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Reply<'a> {
    Welcome {
        version: u32,
        #[serde(serialize_with = "as_ms")]
        server_time: UnixTime,
        #[serde(serialize_with = "as_ms")]
        expires_at: UnixTime,
        devices: Seen<'a>,
        may_command: bool,
        ping_s: u64,
        frame_len_max: usize,
        subscriptions_max: usize,
    },
    Subscribed {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: RequestId,
        device: Audience,
        cursor: String,
    },
    CaughtUp {
        device: Audience,
    },
    Unsubscribed {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: RequestId,
        device: Audience,
    },
    Devices {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: RequestId,
        devices: Vec<DeviceEntry>,
        more: bool,
    },
    Command {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: RequestId,
        command: CommandEntry<'a>,
    },
    Commands {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: RequestId,
        device: Id<'a>,
        commands: Vec<CommandEntry<'a>>,
    },
    CommandChanged {
        command: CommandEntry<'a>,
    },
    Setting {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: RequestId,
        setting: SettingEntry<'a>,
    },
    Settings {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: RequestId,
        device: Id<'a>,
        settings: Vec<SettingEntry<'a>>,
    },
    SettingChanged {
        setting: SettingEntry<'a>,
    },
    Presence {
        devices: Vec<PresenceEntry>,
    },
    PresenceStale {},
    Ping {},
    Pong {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: RequestId,
    },
    Error {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: RequestId,
        code: ErrorCode,
        message: &'a str,
    },
    Closing {
        code: u16,
        reason: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        reconnect_after_ms: Option<u64>,
    },
}

impl Reply<'_> {
    /// Its text.
    pub(crate) fn encode(&self) -> Bytes {
        // Strings, numbers and lists of them: there is nothing JSON could refuse.
        serde_json::to_vec(self).map(Bytes::from).unwrap_or_default()
    }
}

/// A device's id as a string.
pub(crate) struct Id<'a>(pub(crate) &'a DeviceId);

impl Serialize for Id<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

/// What a client may see: `"*"`, or a list.
pub(crate) enum Seen<'a> {
    All,
    Set(&'a std::collections::BTreeSet<DeviceId>),
}

impl Serialize for Seen<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("*"),
            Self::Set(devices) => serializer.collect_seq(devices.iter().map(Id)),
        }
    }
}

// serde hands the field over by reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn as_ms<S: Serializer>(time: &UnixTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(time.as_ms())
}

#[derive(Serialize)]
struct ReadingEntry<'a> {
    device: Id<'a>,
    partition: u16,
    offset: u64,
    prev: u64,
    kind: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_time: Option<u64>,
    received_at: u64,
    // A string: JSON's numbers lose the last digits of a u64 in most readers.
    #[serde(skip_serializing_if = "Option::is_none")]
    reading_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

/// One reading as it stands in a list of readings. The costly part of a frame: done once a
/// reading, whoever watches.
pub(crate) fn encode_reading(reading: &Reading) -> Bytes {
    let uplink = &reading.uplink;
    let mut entry = ReadingEntry {
        device: Id(&uplink.device),
        partition: reading.partition.get(),
        offset: reading.offset.get(),
        prev: reading.prev.get(),
        kind: "ignored",
        name: "",
        device_time: None,
        received_at: uplink.received_at.as_ms(),
        reading_id: None,
        command: None,
        status: None,
        text: None,
        base64: None,
    };
    match uplink.kind {
        UplinkKind::Reading => entry.kind = "reading",
        UplinkKind::Event => entry.kind = "event",
        UplinkKind::Receipt { command, status } => {
            entry.kind = "receipt";
            entry.command = Some(command.to_string());
            entry.status = Some(status.as_str());
        }
        // A row nobody is shown. Its place is shown all the same, or the chain of `prev` would
        // break and a client could not tell an ignored row from a lost one.
        // What is left of a trimmed row is a gap, and comes nowhere near here.
        UplinkKind::Ignored | UplinkKind::Trimmed => {}
    }
    if !matches!(uplink.kind, UplinkKind::Ignored | UplinkKind::Trimmed) {
        entry.name = &uplink.name;
        entry.device_time = uplink.device_time.map(UnixTime::as_ms);
        entry.reading_id = uplink.reading_id.map(|id| id.to_string());
        match std::str::from_utf8(&uplink.body) {
            Ok(text) => entry.text = Some(text),
            Err(_) => entry.base64 = Some(STANDARD.encode(&uplink.body)),
        }
    }
    // As in `Reply::encode`.
    serde_json::to_vec(&entry).map(Bytes::from).unwrap_or_default()
}

/// One device's readings that are gone.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct Gap {
    pub(crate) device: String,
    pub(crate) partition: u16,
    /// The last of them. The next reading's `prev` is this place, or lies before it.
    pub(crate) offset: u64,
}

/// A `readings` frame around encoded readings, and the gaps before them.
pub(crate) fn readings_frame(device: &Audience, cursor: &str, gaps: &[Gap], readings: &[Bytes]) -> Bytes {
    let gaps = encode_gaps(gaps);
    // Device ids and cursors hold no character that JSON escapes.
    let head = format!(r#"{{"type":"readings","device":"{device}","cursor":"{cursor}",{gaps}"readings":"#);
    with_list(head, readings, "}")
}

/// A `history` frame around encoded readings, oldest first, and the places of those that do not read.
pub(crate) fn history_frame(id: RequestId, device: &DeviceId, gaps: &[Gap], readings: &[Bytes], more: bool) -> Bytes {
    let id = id.map(|id| format!(r#""id":{id},"#)).unwrap_or_default();
    let gaps = encode_gaps(gaps);
    let head = format!(r#"{{"type":"history",{id}"device":"{device}","more":{more},{gaps}"readings":"#);
    with_list(head, readings, "}")
}

fn encode_gaps(gaps: &[Gap]) -> String {
    match gaps {
        [] => String::new(),
        // As in `Reply::encode`.
        gaps => format!(r#""gaps":{},"#, serde_json::to_string(gaps).unwrap_or_default()),
    }
}

fn with_list(head: String, items: &[Bytes], tail: &str) -> Bytes {
    let len = head.len() + items.iter().map(|item| item.len() + 1).sum::<usize>() + 2 + tail.len();
    let mut text = head.into_bytes();
    text.reserve_exact(len.saturating_sub(text.len()));
    text.push(b'[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            text.push(b',');
        }
        text.extend_from_slice(item);
    }
    text.push(b']');
    text.extend_from_slice(tail.as_bytes());
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{device, reading};
    use unhidra_core::ids::Offset;
    use unhidra_core::message::ReceiptStatus;

    #[test]
    fn a_message_is_one_json_object_of_a_known_type() {
        let table = [
            ("", ErrorCode::NotJson),
            ("garbage", ErrorCode::NotJson),
            ("[]", ErrorCode::NotJson),
            ("17", ErrorCode::NotJson),
            (r#"{"type":"ping"} {}"#, ErrorCode::NotJson),
            ("{}", ErrorCode::BadRequest),
            (r#"{"type":7}"#, ErrorCode::BadRequest),
            (r#"{"type":"ping","id":-1}"#, ErrorCode::BadRequest),
            (r#"{"type":"ping","id":"x"}"#, ErrorCode::BadRequest),
            (r#"{"type":"ping","extra":1}"#, ErrorCode::BadRequest),
            (r#"{"type":"reboot"}"#, ErrorCode::UnknownType),
            (r#"{"type":"subscribe"}"#, ErrorCode::BadRequest),
            (r#"{"type":"subscribe","device":"a/b"}"#, ErrorCode::BadRequest),
            (r#"{"type":"subscribe","device":"*","sinse":"x"}"#, ErrorCode::BadRequest),
            (r#"{"type":"history","device":"*","newest":1}"#, ErrorCode::BadRequest),
            (r#"{"type":"history","device":"a","newest":-1}"#, ErrorCode::BadRequest),
            (r#"{"type":"command","device":"a","command":"12"}"#, ErrorCode::BadRequest),
        ];
        for (text, code) in table {
            let malformed = Request::parse(text).err().unwrap_or_else(|| panic!("{text} is taken"));
            assert_eq!(malformed.code, code, "{text}: {}", malformed.message);
        }
        let deep = "[".repeat(5000);
        assert_eq!(Request::parse(&deep).err().map(|m| m.code), Some(ErrorCode::NotJson));
    }

    #[test]
    fn every_type_named_as_known_is_one() {
        for known in REQUESTS {
            let malformed = Request::parse(&format!(r#"{{"type":"{known}","nonsense":0}}"#)).err().expect("refused");
            assert!(!malformed.message.contains("unknown variant"), "{known}: {}", malformed.message);
        }
    }

    #[test]
    fn a_request_and_its_id_are_read() {
        let read = |text| Request::parse(text).unwrap_or_else(|m| panic!("{text}: {}", m.message));
        assert!(matches!(read(r#"{"type":"ping","id":3}"#), (Some(3), Request::Ping {})));
        let (id, request) = read(r#"{"type":"subscribe","device":"*","since":"abc"}"#);
        assert!(id.is_none());
        assert!(matches!(request, Request::Subscribe { device: Audience::All, since: Some(s) } if s == "abc"));
        let (_, request) = read(r#"{"type":"devices","after":"pump-7"}"#);
        assert!(matches!(request, Request::Devices { after: Some(d), limit: None } if d == device("pump-7")));
        let (_, request) = read(r#"{"type":"send","device":"pump-7","name":"re\u0062oot","base64":"AA=="}"#);
        assert!(matches!(request, Request::Send { name, base64: Some(_), text: None, .. } if name == "reboot"));
    }

    #[test]
    fn a_body_is_text_where_it_is_utf8_and_base64_where_it_is_not() {
        let text = |body: &[u8]| {
            let mut row = reading("pump-7", 2, 1, b"");
            row.uplink.body = Bytes::copy_from_slice(body);
            String::from_utf8(encode_reading(&row).to_vec()).expect("JSON")
        };
        assert_eq!(
            text("21.5 \"°C\"\n".as_bytes()),
            r#"{"device":"pump-7","partition":0,"offset":2,"prev":1,"kind":"reading","name":"temperature","received_at":2000,"text":"21.5 \"°C\"\n"}"#
        );
        assert!(text(&[0xff, 0x00]).ends_with(r#""base64":"/wA="}"#));
        assert!(text(b"").ends_with(r#""text":""}"#));
    }

    #[test]
    fn an_ignored_row_shows_its_place_alone() {
        let mut row = reading("pump-7", 2, 1, b"secret");
        row.uplink.kind = UplinkKind::Ignored;
        let text = encode_reading(&row);
        assert_eq!(
            text,
            r#"{"device":"pump-7","partition":0,"offset":2,"prev":1,"kind":"ignored","received_at":2000}"#
        );
    }

    #[test]
    fn a_receipt_names_its_command_and_a_reading_id_is_a_string() {
        let mut row = reading("pump-7", 2, 1, b"");
        row.uplink.reading_id = Some(u64::MAX);
        row.uplink.kind = UplinkKind::Receipt { command: CommandId::new([0xab; 16]), status: ReceiptStatus::Failed };
        let value: serde_json::Value = serde_json::from_slice(&encode_reading(&row)).expect("JSON");
        assert_eq!(value["command"], "ab".repeat(16));
        assert_eq!(value["status"], "failed");
        assert_eq!(value["reading_id"], "18446744073709551615");
    }

    #[test]
    fn frames_of_readings_are_json() {
        let rows = [reading("a", 1, 0, b"x"), reading("a", 2, 1, b"y")].map(|row| encode_reading(&row));
        for rows in [&rows[..0], &rows[..1], &rows[..]] {
            let frame = readings_frame(&Audience::All, "abc-_", &[], rows);
            let value: serde_json::Value = serde_json::from_slice(&frame).expect("JSON");
            assert_eq!((&value["type"], &value["device"]), (&"readings".into(), &"*".into()));
            assert_eq!(value["readings"].as_array().map(Vec::len), Some(rows.len()));
            let frame = history_frame(Some(4), &device("a"), &[], rows, true);
            let value: serde_json::Value = serde_json::from_slice(&frame).expect("JSON");
            assert_eq!((&value["id"], &value["more"]), (&4.into(), &true.into()));
        }
        assert_eq!(reading("a", 1, 0, b"x").prev, Offset::ZERO);
    }
}
