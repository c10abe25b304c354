//! AUTH (section 3.15), 5.0 alone.
//!
//! ```text
//! [reason(1) properties]     left out where it is 0x00 and none
//! ```

use bytes::{BufMut, BytesMut};

use super::Version;
use super::error::DecodeError;
use super::fixed_header::Kind;
use super::property::{Place, Properties};
use super::reader::Reader;
use super::reason::ReasonCode;

/// A step of enhanced authentication, which this node does not offer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Auth {
    /// Which step.
    pub reason: ReasonCode,
    /// Method and data.
    pub properties: Properties,
}

impl Auth {
    pub(super) fn decode(reader: &mut Reader, version: Version) -> Result<Self, DecodeError> {
        if version == Version::V3_1_1 {
            return Err(DecodeError::AuthInV3);
        }
        if reader.is_empty() {
            return Ok(Self { reason: ReasonCode::Success, properties: Properties::default() });
        }
        let reason = ReasonCode::decode(reader.u8()?, Kind::Auth)?;
        Ok(Self { reason, properties: Properties::decode(reader, Place::Auth)? })
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        if self.reason != ReasonCode::Success || !self.properties.is_empty() {
            out.put_u8(self.reason.as_byte());
            self.properties.encode(out);
        }
    }
}
