//! SUBACK (section 3.9).
//!
//! ```text
//! packet id(2) [properties] reason(1)+     3.1.1: 0x80 for every failure
//! ```

use bytes::{BufMut, BytesMut};

use super::error::DecodeError;
use super::fixed_header::Kind;
use super::property::{Place, Properties};
use super::reader::Reader;
use super::reason::ReasonCode;
use super::{PacketId, Version};

/// The answer to SUBSCRIBE.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SubAck {
    /// To which.
    pub packet_id: PacketId,
    /// Reason String and User Properties; not sent in 3.1.1.
    pub properties: Properties,
    /// The QoS granted, or why not, for each Topic Filter in order.
    pub reasons: Vec<ReasonCode>,
}

impl SubAck {
    pub(super) fn decode(reader: &mut Reader, version: Version) -> Result<Self, DecodeError> {
        let packet_id = reader.packet_id()?;
        let properties = match version {
            Version::V3_1_1 => Properties::default(),
            Version::V5 => Properties::decode(reader, Place::Acknowledgement)?,
        };
        let mut reasons = Vec::new();
        while !reader.is_empty() {
            let reason = ReasonCode::decode(reader.u8()?, Kind::SubAck)?;
            if version == Version::V3_1_1 && !is_v3(reason) {
                return Err(DecodeError::UnknownReason { found: reason.as_byte() });
            }
            reasons.push(reason);
        }
        Ok(Self { packet_id, properties, reasons })
    }

    pub(super) fn encode(&self, version: Version, out: &mut BytesMut) {
        out.put_u16(self.packet_id.get());
        if version == Version::V5 {
            self.properties.encode(out);
        }
        for reason in &self.reasons {
            out.put_u8(match version {
                Version::V3_1_1 if reason.is_error() => ReasonCode::UnspecifiedError.as_byte(),
                Version::V3_1_1 | Version::V5 => reason.as_byte(),
            });
        }
    }
}

/// The return codes there are [MQTT-3.9.3-2 (3.1.1)].
const fn is_v3(reason: ReasonCode) -> bool {
    use ReasonCode::{GrantedQos1, GrantedQos2, Success, UnspecifiedError};
    matches!(reason, Success | GrantedQos1 | GrantedQos2 | UnspecifiedError)
}
