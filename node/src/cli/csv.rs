//! Rows as CSV (RFC 4180): a header, CRLF at the end of each record, quotes where they are needed.

use std::fmt::Write as _;

use super::output::instant;
use crate::control::{RowBody, RowKind, RowRecord};

/// The names of the columns.
const COLUMNS: [&str; 14] = [
    "device",
    "received_at",
    "device_time",
    "kind",
    "name",
    "encoding",
    "body",
    "reading_id",
    "command",
    "status",
    "partition",
    "offset",
    "prev",
    "received_ms",
];

/// The first record.
pub(super) fn header() -> String {
    record(COLUMNS.iter().map(|name| (*name).to_owned()))
}

/// One row. Times are RFC 3339; `received_ms` is the same as `received_at`, in ms since the Unix
/// epoch. The body is text where its bytes are, which `encoding` says, and else base64.
pub(super) fn row(row: &RowRecord) -> String {
    let (encoding, body) = match &row.body {
        None => ("", String::new()),
        Some(RowBody::Text(text)) => ("text", text.clone()),
        Some(RowBody::Base64(bytes)) => ("base64", base64(bytes)),
    };
    let kind = match row.kind {
        RowKind::Reading => "reading",
        RowKind::Receipt => "receipt",
        RowKind::Event => "event",
        RowKind::Ignored => "ignored",
    };
    let cells: [String; 14] = [
        row.device.to_string(),
        instant(row.received_at),
        row.device_time.map(instant).unwrap_or_default(),
        kind.to_owned(),
        row.name.clone(),
        encoding.to_owned(),
        body,
        row.reading_id.map(|id| id.to_string()).unwrap_or_default(),
        row.command.map(|id| id.to_string()).unwrap_or_default(),
        row.status.clone().unwrap_or_default(),
        row.partition.to_string(),
        row.offset.to_string(),
        row.prev.to_string(),
        row.received_at.to_string(),
    ];
    record(cells.into_iter())
}

fn base64(bytes: &[u8]) -> String {
    use ::base64::Engine as _;
    ::base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn record(cells: impl Iterator<Item = String>) -> String {
    let mut line = String::new();
    for (at, cell) in cells.enumerate() {
        if at > 0 {
            line.push(',');
        }
        if cell.contains([',', '"', '\r', '\n']) {
            let _ = write!(line, "\"{}\"", cell.replace('"', "\"\""));
        } else {
            line.push_str(&cell);
        }
    }
    line.push_str("\r\n");
    line
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::testing::{NOW, id};

    fn reading(name: &str, body: RowBody) -> RowRecord {
        RowRecord {
            partition: 0,
            offset: 7,
            prev: 5,
            device: id("pump-7"),
            kind: RowKind::Reading,
            name: name.to_owned(),
            command: None,
            status: None,
            device_time: Some(0),
            received_at: NOW.as_ms(),
            reading_id: Some(u64::MAX),
            body: Some(body),
        }
    }

    #[test]
    fn the_header_has_a_name_for_every_cell() {
        let cells = |line: &str| line.trim_end().split(',').count();
        assert_eq!(cells(&header()), cells(&row(&reading("t", RowBody::Text("21.5".to_owned())))));
        assert!(header().ends_with("\r\n"));
    }

    #[test]
    fn what_would_end_a_cell_is_quoted() {
        for (name, body, expected) in [
            ("t", "21.5", ",t,text,21.5,"),
            ("a,b", "x", ",\"a,b\",text,x,"),
            ("t", "say \"hi\"", ",t,text,\"say \"\"hi\"\"\","),
            ("t", "two\r\nlines", ",t,text,\"two\r\nlines\","),
            ("t", r#"{"a":1,"b":2}"#, r#",t,text,"{""a"":1,""b"":2}","#),
        ] {
            let line = row(&reading(name, RowBody::Text(body.to_owned())));
            assert!(line.contains(expected), "{line}");
        }
    }

    #[test]
    fn what_is_no_text_is_base64() {
        let line = row(&reading("t", RowBody::Base64(Bytes::from_static(b"\xff\x00"))));
        assert!(line.contains(",t,base64,/wA=,18446744073709551615,"), "{line}");
    }
}
