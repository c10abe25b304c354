//! PUBACK, PUBREC, PUBREL and PUBCOMP, which look alike (sections 3.4 to 3.7).
//!
//! ```text
//! packet id(2) [reason(1) [properties]]     5.0: the rest is left out where it is 0x00 and none
//! ```

use bytes::{BufMut, BytesMut};

use super::error::DecodeError;
use super::fixed_header::Kind;
use super::property::{Place, Properties};
use super::reader::Reader;
use super::reason::ReasonCode;
use super::{PacketId, Version};

/// The answer to a PUBLISH, or a step of QoS 2.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Acknowledgement {
    /// To which.
    pub packet_id: PacketId,
    /// What became of it; always success in 3.1.1.
    pub reason: ReasonCode,
    /// Reason String and User Properties; empty in 3.1.1.
    pub properties: Properties,
}

impl Acknowledgement {
    pub(super) fn decode(kind: Kind, reader: &mut Reader, version: Version) -> Result<Self, DecodeError> {
        let packet_id = reader.packet_id()?;
        let (reason, properties) = match version {
            Version::V5 if !reader.is_empty() => {
                let reason = ReasonCode::decode(reader.u8()?, kind)?;
                let properties = if reader.is_empty() {
                    Properties::default()
                } else {
                    Properties::decode(reader, Place::Acknowledgement)?
                };
                (reason, properties)
            }
            Version::V5 | Version::V3_1_1 => (ReasonCode::Success, Properties::default()),
        };
        Ok(Self { packet_id, reason, properties })
    }

    pub(super) fn encode(&self, version: Version, out: &mut BytesMut) {
        out.put_u16(self.packet_id.get());
        let plain = self.reason == ReasonCode::Success && self.properties.is_empty();
        if version == Version::V5 && !plain {
            out.put_u8(self.reason.as_byte());
            if !self.properties.is_empty() {
                self.properties.encode(out);
            }
        }
    }
}
