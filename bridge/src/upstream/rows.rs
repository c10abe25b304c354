//! The rows of devices behind an outside broker (e2ee/PROTOCOL.md section 2).

use thiserror::Error;
use unhidra_core::delivery::{DownlinkRow, UplinkRow};
use unhidra_core::ids::DeviceId;

/// The most bytes a device publishes at once: the head of a HandshakeInit of suite 2 and the longest
/// Message (e2ee/PROTOCOL.md sections 4 and 7).
pub const MESSAGE_LEN_MAX: usize = 1166 + 65_535;

/// The rows under one prefix.
#[derive(Clone, Debug)]
pub struct Rows {
    /// `{p}/devices/`
    devices: String,
}

/// Why a topic is no row of a device.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("no topic of a device that this node asked for")]
pub struct Stray;

impl Rows {
    /// The rows of devices whose topics begin with `prefix`.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self { devices: format!("{prefix}/devices/") }
    }

    /// What is subscribed to: the two rows from all devices.
    #[must_use]
    pub fn filters(&self) -> [String; 2] {
        ["messages", "prekeys/get"].map(|row| format!("{}+/{row}", self.devices))
    }

    /// Whose topic this is, and which of its rows.
    ///
    /// # Errors
    ///
    /// [`Stray`]: no row from a device, or an id that is none.
    pub fn read(&self, topic: &[u8]) -> Result<(DeviceId, UplinkRow), Stray> {
        let topic = std::str::from_utf8(topic).map_err(|_| Stray)?;
        let rest = topic.strip_prefix(&self.devices).ok_or(Stray)?;
        let (id, row) = rest.split_once('/').ok_or(Stray)?;
        let row = match row {
            "messages" => UplinkRow::Messages,
            "prekeys/get" => UplinkRow::PrekeysGet,
            _ => return Err(Stray),
        };
        DeviceId::parse(id).map(|device| (device, row)).map_err(|_| Stray)
    }

    /// The topic of a row to a device.
    #[must_use]
    pub fn topic(&self, device: &DeviceId, row: DownlinkRow) -> String {
        let row = match row {
            DownlinkRow::Commands => "commands",
            DownlinkRow::Prekeys => "prekeys",
        };
        format!("{}{device}/{row}", self.devices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_are_those_of_the_protocol_and_no_others() {
        let rows = Rows::new("site/a");
        assert_eq!(rows.filters(), ["site/a/devices/+/messages", "site/a/devices/+/prekeys/get"]);
        let pump = DeviceId::parse("pump-7").expect("an id");
        assert_eq!(rows.read(b"site/a/devices/pump-7/messages"), Ok((pump, UplinkRow::Messages)));
        assert_eq!(rows.read(b"site/a/devices/pump-7/prekeys/get"), Ok((pump, UplinkRow::PrekeysGet)));
        for stray in [
            &b"site/a/devices/pump-7/commands"[..],
            b"site/a/devices/pump-7/prekeys",
            b"site/a/devices/pump-7/messages/",
            b"site/a/devices//messages",
            b"site/a/devices/pump 7/messages",
            b"site/b/devices/pump-7/messages",
            b"site/a/devices/messages",
            b"\xff",
            b"",
        ] {
            assert_eq!(rows.read(stray), Err(Stray), "{}", String::from_utf8_lossy(stray));
        }
        assert_eq!(rows.topic(&pump, DownlinkRow::Commands), "site/a/devices/pump-7/commands");
        assert_eq!(rows.topic(&pump, DownlinkRow::Prekeys), "site/a/devices/pump-7/prekeys");
    }
}
