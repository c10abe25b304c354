//! A row as the outside gets it.
//!
//! Its id is the row's place: the log's life, the partition, the offset. It is the same however often
//! the row is sent, so that whoever gets a row twice knows it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;
use unhidra_core::device::Device;
use unhidra_core::ids::{Epoch, Offset, Partition};
use unhidra_core::message::{Reading, UplinkKind};
use unhidra_core::time::UnixTime;

use super::plain;
use super::template::kind;

/// A row's place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct RowId {
    pub(crate) epoch: Epoch,
    pub(crate) partition: Partition,
    pub(crate) offset: Offset,
}

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}.{}", self.epoch.get(), self.partition, self.offset)
    }
}

impl RowId {
    pub(crate) const fn of(epoch: Epoch, row: &Reading) -> Self {
        Self { epoch, partition: row.partition, offset: row.offset }
    }
}

/// The object of JSON. What a row does not have is left out.
#[derive(Serialize)]
struct Shown<'a> {
    id: String,
    device: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    class: &'a str,
    kind: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    /// The device's clock, in ms since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<u64>,
    /// The node's clock, likewise.
    received_at: u64,
    /// A text: JSON's numbers lose the last digits of a u64 in most readers.
    #[serde(skip_serializing_if = "Option::is_none")]
    reading_id: Option<String>,
    partition: u16,
    offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    json: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

/// Appends a row as one line of JSON, without its end.
///
/// The body is under one of three names: `json` where it is a value of JSON on one line that every reader takes
/// ([`plain`]), as it came; `text` where it is UTF-8; `base64` where it is neither.
pub(crate) fn put_json(epoch: Epoch, row: &Reading, device: Option<&Device>, out: &mut Vec<u8>) {
    let uplink = &row.uplink;
    let (command, status) = match uplink.kind {
        UplinkKind::Receipt { command, status } => (Some(command.to_string()), Some(status.as_str())),
        _ => (None, None),
    };
    let text = std::str::from_utf8(&uplink.body).ok();
    // A line end within a value would end its line too.
    let json = text.filter(|text| !text.contains(['\n', '\r']) && plain::is_plain(text));
    let json = json.and_then(|text| serde_json::from_str(text).ok());
    let shown = Shown {
        id: RowId::of(epoch, row).to_string(),
        device: uplink.device.as_str(),
        class: device.map_or("", |device| device.class.as_str()),
        kind: kind(uplink.kind),
        name: &uplink.name,
        command,
        status,
        time: uplink.device_time.map(UnixTime::as_ms),
        received_at: uplink.received_at.as_ms(),
        reading_id: uplink.reading_id.map(|id| id.to_string()),
        partition: row.partition.get(),
        offset: row.offset.get(),
        json,
        text: text.filter(|_| json.is_none()),
        base64: text.is_none().then(|| STANDARD.encode(&uplink.body)),
    };
    let before = out.len();
    if serde_json::to_writer(&mut *out, &shown).is_err() {
        // Texts and numbers into memory: there is nothing that could fail. Half an object never leaves.
        out.truncate(before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use serde_json::{Value, json};
    use unhidra_core::ids::CommandId;
    use unhidra_core::message::ReceiptStatus;

    use crate::outlets::testing::{device, row};

    fn shown(row: &Reading, device: Option<&Device>) -> Value {
        let mut line = Vec::new();
        put_json(Epoch::new(0xab), row, device, &mut line);
        assert!(!line.contains(&b'\n'));
        serde_json::from_slice(&line).unwrap()
    }

    #[test]
    fn a_reading_is_one_object_with_its_place_as_id() {
        let device = device("pump-7", "pump", &[]);
        assert_eq!(
            shown(&row("pump-7", 9, "temp"), Some(&device)),
            json!({
                "id": "00000000000000ab.0.9", "device": "pump-7", "class": "pump", "kind": "reading", "name": "temp",
                "time": 5, "received_at": 7, "reading_id": "9", "partition": 0, "offset": 9, "json": 21.5
            })
        );
    }

    #[test]
    fn a_body_is_json_or_text_or_base64() {
        let mut row = row("pump-7", 1, "x");
        for (body, name, value) in [
            (&b"{\"a\": [1, null]}"[..], "json", json!({"a": [1, null]})),
            (b"18446744073709551615", "json", json!(18_446_744_073_709_551_615_u64)),
            (b"\"t\"", "json", json!("t")),
            (b"{\"a\":\n1}", "text", json!("{\"a\":\n1}")),
            (b"21.5 \xc2\xb0C", "text", json!("21.5 °C")),
            (b"", "text", json!("")),
            (b"[1e999999]", "text", json!("[1e999999]")),
            (b"\"\\ud800\"", "text", json!("\"\\ud800\"")),
            (b"\xff\x00", "base64", json!("/wA=")),
        ] {
            row.uplink.body = Bytes::from_static(body);
            let shown = shown(&row, None);
            assert_eq!(shown[name], value, "{shown}");
            assert_eq!(["json", "text", "base64"].iter().filter(|name| shown.get(**name).is_some()).count(), 1);
        }
        let deep = "[".repeat(100_000);
        row.uplink.body = Bytes::from(deep.clone());
        assert_eq!(shown(&row, None)["text"], json!(deep), "no depth exhausts the stack");
    }

    #[test]
    fn a_receipt_names_its_command() {
        let mut row = row("pump-7", 1, "");
        row.uplink.kind = UplinkKind::Receipt { command: CommandId::new([1; 16]), status: ReceiptStatus::Done };
        let shown = shown(&row, None);
        assert_eq!((&shown["kind"], &shown["status"]), (&json!("receipt"), &json!("done")));
        assert_eq!(shown["command"], json!(CommandId::new([1; 16]).to_string()));
        assert!(shown.get("name").is_none());
    }
}
