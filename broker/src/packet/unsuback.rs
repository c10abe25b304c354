//! UNSUBACK (section 3.11).
//!
//! ```text
//! packet id(2) [properties reason(1)+]     3.1.1: the packet id alone
//! ```

use bytes::{BufMut, BytesMut};

use super::error::DecodeError;
use super::fixed_header::Kind;
use super::property::{Place, Properties};
use super::reader::Reader;
use super::reason::ReasonCode;
use super::{PacketId, Version};

/// The answer to UNSUBSCRIBE.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnsubAck {
    /// To which.
    pub packet_id: PacketId,
    /// Reason String and User Properties; not sent in 3.1.1.
    pub properties: Properties,
    /// What became of each Topic Filter in order; not sent in 3.1.1.
    pub reasons: Vec<ReasonCode>,
}

impl UnsubAck {
    pub(super) fn decode(reader: &mut Reader, version: Version) -> Result<Self, DecodeError> {
        let packet_id = reader.packet_id()?;
        let mut reasons = Vec::new();
        let properties = match version {
            Version::V3_1_1 => Properties::default(),
            Version::V5 => Properties::decode(reader, Place::Acknowledgement)?,
        };
        while version == Version::V5 && !reader.is_empty() {
            reasons.push(ReasonCode::decode(reader.u8()?, Kind::UnsubAck)?);
        }
        Ok(Self { packet_id, properties, reasons })
    }

    pub(super) fn encode(&self, version: Version, out: &mut BytesMut) {
        out.put_u16(self.packet_id.get());
        if version == Version::V5 {
            self.properties.encode(out);
            self.reasons.iter().for_each(|reason| out.put_u8(reason.as_byte()));
        }
    }
}
