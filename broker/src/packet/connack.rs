//! CONNACK (section 3.2).
//!
//! ```text
//! flags(1) reason(1) [properties]
//! ```

use bytes::{BufMut, BytesMut};

use super::Version;
use super::error::DecodeError;
use super::fixed_header::Kind;
use super::property::{Place, Properties};
use super::reader::Reader;
use super::reason::ReasonCode;

/// The answer to CONNECT.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConnAck {
    /// Whether the server has resumed a session.
    pub session_present: bool,
    /// Whether the client is in. In 3.1.1 it becomes a return code.
    pub reason: ReasonCode,
    /// What the server prescribes; not sent in 3.1.1.
    pub properties: Properties,
}

impl ConnAck {
    pub(super) fn decode(reader: &mut Reader, version: Version) -> Result<Self, DecodeError> {
        let session_present = match reader.u8()? {
            0 => false,
            1 => true,
            found => return Err(DecodeError::ConnAckFlags { found }),
        };
        let code = reader.u8()?;
        let (reason, properties) = match version {
            Version::V3_1_1 => (ReasonCode::from_v3_connect_return(code)?, Properties::default()),
            Version::V5 => (ReasonCode::decode(code, Kind::ConnAck)?, Properties::decode(reader, Place::ConnAck)?),
        };
        Ok(Self { session_present, reason, properties })
    }

    pub(super) fn encode(&self, version: Version, out: &mut BytesMut) {
        out.put_u8(u8::from(self.session_present));
        match version {
            Version::V3_1_1 => out.put_u8(self.reason.as_v3_connect_return()),
            Version::V5 => {
                out.put_u8(self.reason.as_byte());
                self.properties.encode(out);
            }
        }
    }
}
