//! DISCONNECT (section 3.14).
//!
//! ```text
//! [reason(1) [properties]]     5.0: left out where it is 0x00 and none; 3.1.1: nothing
//! ```

use bytes::{BufMut, BytesMut};

use super::Version;
use super::error::DecodeError;
use super::fixed_header::Kind;
use super::property::{Place, Properties};
use super::reader::Reader;
use super::reason::ReasonCode;

/// Either side ends the connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Disconnect {
    /// Why; always 0x00 in 3.1.1.
    pub reason: ReasonCode,
    /// Session Expiry Interval and the rest; empty in 3.1.1.
    pub properties: Properties,
}

impl Disconnect {
    /// One that says no more than why.
    #[must_use]
    pub fn new(reason: ReasonCode) -> Self {
        Self { reason, properties: Properties::default() }
    }

    pub(super) fn decode(reader: &mut Reader, version: Version) -> Result<Self, DecodeError> {
        if version == Version::V3_1_1 || reader.is_empty() {
            return Ok(Self::new(ReasonCode::Success));
        }
        let reason = ReasonCode::decode(reader.u8()?, Kind::Disconnect)?;
        let properties =
            if reader.is_empty() { Properties::default() } else { Properties::decode(reader, Place::Disconnect)? };
        Ok(Self { reason, properties })
    }

    pub(super) fn encode(&self, version: Version, out: &mut BytesMut) {
        let plain = self.reason == ReasonCode::Success && self.properties.is_empty();
        if version == Version::V5 && !plain {
            out.put_u8(self.reason.as_byte());
            if !self.properties.is_empty() {
                self.properties.encode(out);
            }
        }
    }
}
