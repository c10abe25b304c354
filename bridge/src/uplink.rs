//! What an opened message says, as the rest of the node speaks of it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use unhidra_core::ids::DeviceId;
use unhidra_core::message::{ReceiptStatus, Uplink, UplinkKind};
use unhidra_core::time::UnixTime;
use unhidra_e2ee::plaintext::{Kind, Plaintext};

/// How many of a device's reading ids are remembered (e2ee/PROTOCOL.md section 7).
const READING_IDS: usize = 64;

/// Reads a plaintext. One that is none, or of a kind this node does not know, is
/// [`UplinkKind::Ignored`]: its message key is spent all the same, so the row must exist.
pub(crate) fn read(device: DeviceId, plaintext: &[u8], received_at: UnixTime) -> Uplink {
    let ignored = || Uplink {
        device,
        kind: UplinkKind::Ignored,
        name: Arc::from(""),
        device_time: None,
        received_at,
        reading_id: None,
        body: Bytes::new(),
    };
    let Ok(said) = Plaintext::decode(plaintext) else { return ignored() };
    let kind = match said.kind {
        Kind::Reading => UplinkKind::Reading,
        Kind::Event => UplinkKind::Event,
        Kind::Receipt => {
            match (said.command_id, said.status.and_then(|status| ReceiptStatus::from_byte(status.as_byte()))) {
                (Some(command), Some(status)) => UplinkKind::Receipt { command, status },
                _ => return ignored(),
            }
        }
        // Certificates and firmware are later rooms; the rest a device does not send.
        Kind::CertificateRequest
        | Kind::Firmware
        | Kind::Command
        | Kind::Setting
        | Kind::Time
        | Kind::Certificate
        | Kind::FirmwareChunk
        | Kind::Unknown(_) => return ignored(),
    };
    Uplink {
        device,
        kind,
        name: Arc::from(said.name.unwrap_or_default()),
        device_time: said.device_time,
        received_at,
        reading_id: said.reading_id,
        body: Bytes::copy_from_slice(said.body.unwrap_or_default()),
    }
}

/// The reading ids of a device's newest rows: a reading sealed anew is known by its id.
#[derive(Debug, Default)]
pub(crate) struct ReadingIds {
    newest: VecDeque<u64>,
}

impl ReadingIds {
    /// From the device's rows, oldest first.
    pub(crate) fn restore(ids: impl IntoIterator<Item = u64>) -> Self {
        let mut restored = Self::default();
        for id in ids {
            restored.push(id);
        }
        restored
    }

    /// Whether a reading of this id was taken before.
    pub(crate) fn contains(&self, id: u64) -> bool {
        self.newest.contains(&id)
    }

    /// Remembers one, and forgets the oldest beyond the bound.
    pub(crate) fn push(&mut self, id: u64) {
        if self.newest.len() >= READING_IDS {
            self.newest.pop_front();
        }
        self.newest.push_back(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_reading_id_goes_first() {
        let mut ids = ReadingIds::restore(0..64);
        assert!(ids.contains(0));
        ids.push(64);
        assert!(!ids.contains(0) && ids.contains(1) && ids.contains(64));
    }

    #[test]
    fn what_is_no_plaintext_is_an_ignored_row() {
        let device = DeviceId::parse("pump-7").expect("valid");
        for bytes in [&b""[..], b"\x80", b"nonsense", &[0xff; 64]] {
            assert_eq!(read(device, bytes, UnixTime::EPOCH).kind, UplinkKind::Ignored);
        }
    }
}
