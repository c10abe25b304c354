//! SUBSCRIBE (section 3.8).
//!
//! ```text
//! packet id(2) [properties] { filter options(1) }+
//! options: reserved(2) Retain Handling(2) Retain As Published(1) No Local(1) QoS(2)
//! ```

use bytes::{BufMut, BytesMut};

use super::error::DecodeError;
use super::property::{Place, Properties};
use super::reader::Reader;
use super::text::Text;
use super::writer::put_prefixed;
use super::{PacketId, QoS, Version};

/// A client asks for messages.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Subscribe {
    /// Which request.
    pub packet_id: PacketId,
    /// Subscription Identifier and User Properties; empty in 3.1.1.
    pub properties: Properties,
    /// For what, at least one.
    pub filters: Vec<SubscribeFilter>,
}

/// One Topic Filter of a SUBSCRIBE.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SubscribeFilter {
    /// The Topic Filter, unchecked.
    pub filter: Text,
    /// How.
    pub options: SubscriptionOptions,
}

/// How a subscription is served (section 3.8.3.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SubscriptionOptions {
    /// The highest QoS messages are sent with.
    pub qos: QoS,
    /// Whether the client's own messages are left out.
    pub no_local: bool,
    /// Whether RETAIN is passed on as it was published.
    pub retain_as_published: bool,
    /// Which retained messages are sent at once.
    pub retain_handling: RetainHandling,
}

/// Which retained messages a subscription is sent at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RetainHandling {
    /// 0: those that match.
    Send,
    /// 1: those that match, if the subscription is new.
    SendIfNew,
    /// 2: none.
    DoNotSend,
}

impl SubscriptionOptions {
    /// What 3.1.1 can ask for.
    #[must_use]
    pub const fn with_qos(qos: QoS) -> Self {
        Self { qos, no_local: false, retain_as_published: false, retain_handling: RetainHandling::Send }
    }

    fn from_byte(byte: u8, version: Version) -> Result<Self, DecodeError> {
        let wrong = DecodeError::SubscriptionOptionValue { found: byte };
        let reserved = match version {
            Version::V3_1_1 => 0b1111_1100,
            Version::V5 => 0b1100_0000,
        };
        if byte & reserved != 0 {
            return Err(DecodeError::SubscriptionOptions { found: byte });
        }
        let retain_handling = match byte >> 4 & 0b11 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(wrong),
        };
        Ok(Self {
            qos: QoS::from_bits(byte & 0b11).ok_or(wrong)?,
            no_local: byte & 0b0100 != 0,
            retain_as_published: byte & 0b1000 != 0,
            retain_handling,
        })
    }

    const fn as_byte(self, version: Version) -> u8 {
        let handling = match self.retain_handling {
            RetainHandling::Send => 0,
            RetainHandling::SendIfNew => 1,
            RetainHandling::DoNotSend => 2,
        };
        match version {
            Version::V3_1_1 => self.qos.as_bits(),
            Version::V5 => {
                handling << 4 | (self.retain_as_published as u8) << 3 | (self.no_local as u8) << 2 | self.qos.as_bits()
            }
        }
    }
}

impl Subscribe {
    pub(super) fn decode(reader: &mut Reader, version: Version) -> Result<Self, DecodeError> {
        let packet_id = reader.packet_id()?;
        let properties = match version {
            Version::V3_1_1 => Properties::default(),
            Version::V5 => Properties::decode(reader, Place::Subscribe)?,
        };
        let mut filters = Vec::new();
        while !reader.is_empty() {
            let filter = reader.text()?;
            let options = SubscriptionOptions::from_byte(reader.u8()?, version)?;
            filters.push(SubscribeFilter { filter, options });
        }
        if filters.is_empty() { Err(DecodeError::NoFilters) } else { Ok(Self { packet_id, properties, filters }) }
    }

    pub(super) fn encode(&self, version: Version, out: &mut BytesMut) {
        out.put_u16(self.packet_id.get());
        if version == Version::V5 {
            self.properties.encode(out);
        }
        for SubscribeFilter { filter, options } in &self.filters {
            put_prefixed(out, filter.as_bytes());
            out.put_u8(options.as_byte(version));
        }
    }
}
