//! UNSUBSCRIBE (section 3.10).
//!
//! ```text
//! packet id(2) [properties] filter+
//! ```

use bytes::{BufMut, BytesMut};

use super::error::DecodeError;
use super::property::{Place, Properties};
use super::reader::Reader;
use super::text::Text;
use super::writer::put_prefixed;
use super::{PacketId, Version};

/// A client wants no more messages.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unsubscribe {
    /// Which request.
    pub packet_id: PacketId,
    /// User Properties; empty in 3.1.1.
    pub properties: Properties,
    /// The Topic Filters, unchecked, at least one.
    pub filters: Vec<Text>,
}

impl Unsubscribe {
    pub(super) fn decode(reader: &mut Reader, version: Version) -> Result<Self, DecodeError> {
        let packet_id = reader.packet_id()?;
        let properties = match version {
            Version::V3_1_1 => Properties::default(),
            Version::V5 => Properties::decode(reader, Place::Unsubscribe)?,
        };
        let mut filters = Vec::new();
        while !reader.is_empty() {
            filters.push(reader.text()?);
        }
        if filters.is_empty() { Err(DecodeError::NoFilters) } else { Ok(Self { packet_id, properties, filters }) }
    }

    pub(super) fn encode(&self, version: Version, out: &mut BytesMut) {
        out.put_u16(self.packet_id.get());
        if version == Version::V5 {
            self.properties.encode(out);
        }
        self.filters.iter().for_each(|filter| put_prefixed(out, filter.as_bytes()));
    }
}
