//! PUBLISH (section 3.3).
//!
//! ```text
//! flags: DUP QoS(2) RETAIN      topic [packet id] [properties] payload
//! ```

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use super::error::DecodeError;
use super::property::{Place, Properties};
use super::reader::Reader;
use super::text::Text;
use super::writer::put_prefixed;
use super::{PacketId, QoS, Version, varint};

/// A message.
#[derive(Clone, Eq, PartialEq)]
pub struct Publish {
    /// Its QoS, and what a QoS above 0 needs.
    pub assurance: Assurance,
    /// RETAIN.
    pub retain: bool,
    /// The Topic Name, unchecked; empty where a Topic Alias stands for it.
    pub topic: Text,
    /// Message Expiry Interval and the rest; empty in 3.1.1.
    pub properties: Properties,
    /// The payload, a slice of the bytes it came in.
    pub payload: Bytes,
}

/// A QoS, and what a QoS above 0 needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Assurance {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce {
        /// Which message.
        packet_id: PacketId,
        /// Whether it may be a repeat.
        dup: bool,
    },
    /// QoS 2.
    ExactlyOnce {
        /// Which message.
        packet_id: PacketId,
        /// Whether it may be a repeat.
        dup: bool,
    },
}

impl Assurance {
    /// The QoS alone.
    #[must_use]
    pub const fn qos(self) -> QoS {
        match self {
            Self::AtMostOnce => QoS::AtMostOnce,
            Self::AtLeastOnce { .. } => QoS::AtLeastOnce,
            Self::ExactlyOnce { .. } => QoS::ExactlyOnce,
        }
    }

    const fn dup(self) -> bool {
        match self {
            Self::AtMostOnce => false,
            Self::AtLeastOnce { dup, .. } | Self::ExactlyOnce { dup, .. } => dup,
        }
    }
}

impl Publish {
    pub(super) fn decode(flags: u8, mut reader: Reader, version: Version) -> Result<Self, DecodeError> {
        let dup = flags & 0b1000 != 0;
        let qos = QoS::from_bits(flags >> 1 & 0b11).ok_or(DecodeError::ReservedQos)?;
        let topic = reader.text()?;
        let assurance = match qos {
            QoS::AtMostOnce if dup => return Err(DecodeError::DupAtQosZero),
            QoS::AtMostOnce => Assurance::AtMostOnce,
            QoS::AtLeastOnce => Assurance::AtLeastOnce { packet_id: reader.packet_id()?, dup },
            QoS::ExactlyOnce => Assurance::ExactlyOnce { packet_id: reader.packet_id()?, dup },
        };
        let properties = match version {
            Version::V3_1_1 => Properties::default(),
            Version::V5 => Properties::decode(&mut reader, Place::Publish)?,
        };
        Ok(Self { assurance, retain: flags & 0b0001 != 0, topic, properties, payload: reader.rest() })
    }

    pub(super) fn encode(&self, version: Version, out: &mut BytesMut) {
        put_prefixed(out, self.topic.as_bytes());
        match self.assurance {
            Assurance::AtMostOnce => {}
            Assurance::AtLeastOnce { packet_id, .. } | Assurance::ExactlyOnce { packet_id, .. } => {
                out.put_u16(packet_id.get());
            }
        }
        if version == Version::V5 {
            self.properties.encode(out);
        }
        out.put_slice(&self.payload);
    }

    /// Its length in bytes, fixed header and all, where it has no properties (sections 2.1 and 3.3).
    pub(crate) fn len(&self, version: Version) -> usize {
        let packet_id = if self.assurance.qos() == QoS::AtMostOnce { 0 } else { 2 };
        let properties = if version == Version::V5 { 1 } else { 0 };
        let body = 2 + self.topic.as_bytes().len() + packet_id + properties + self.payload.len();
        1 + varint::to_bytes(u32::try_from(body).unwrap_or(u32::MAX)).1 + body
    }

    pub(super) const fn flags(&self) -> u8 {
        (self.assurance.dup() as u8) << 3 | self.assurance.qos().as_bits() << 1 | self.retain as u8
    }
}

impl fmt::Debug for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish")
            .field("assurance", &self.assurance)
            .field("retain", &self.retain)
            .field("topic", &self.topic)
            .field("properties", &self.properties)
            .field("payload_len", &self.payload.len())
            .finish()
    }
}
