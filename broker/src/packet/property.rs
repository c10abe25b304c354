//! Properties (section 2.2.2), MQTT 5.0 alone.
//!
//! ```text
//! length(varint) { identifier(varint) value }*
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use super::error::DecodeError;
use super::reader::Reader;
use super::text::Text;
use super::varint;
use super::writer::{put_prefixed, with_length};

/// One property (table 2-4).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Property {
    /// Whether the payload is UTF-8.
    PayloadFormatIndicator(bool),
    /// Seconds the message is worth sending.
    MessageExpiryInterval(u32),
    /// What the payload is, in the application's words.
    ContentType(Text),
    /// Where a response goes.
    ResponseTopic(Text),
    /// What tells a response from another.
    CorrelationData(Bytes),
    /// The subscription a message comes by.
    SubscriptionIdentifier(u32),
    /// Seconds a session outlives its connection.
    SessionExpiryInterval(u32),
    /// The client identifier the server gave.
    AssignedClientIdentifier(Text),
    /// The Keep Alive the server prescribes, in seconds.
    ServerKeepAlive(u16),
    /// How enhanced authentication is done.
    AuthenticationMethod(Text),
    /// A step of it.
    AuthenticationData(Bytes),
    /// Whether failures may be explained.
    RequestProblemInformation(bool),
    /// Seconds before the Will is published.
    WillDelayInterval(u32),
    /// Whether Response Information is wanted.
    RequestResponseInformation(bool),
    /// A basis for response topics.
    ResponseInformation(Text),
    /// Another server.
    ServerReference(Text),
    /// A reason for people.
    ReasonString(Text),
    /// How many messages may be unacknowledged.
    ReceiveMaximum(u16),
    /// The highest Topic Alias taken.
    TopicAliasMaximum(u16),
    /// A number in place of the topic.
    TopicAlias(u16),
    /// The highest QoS the server takes, 0 or 1.
    MaximumQos(bool),
    /// Whether the server keeps retained messages.
    RetainAvailable(bool),
    /// A name and a value of the application's.
    UserProperty(Text, Text),
    /// The largest packet taken, in bytes.
    MaximumPacketSize(u32),
    /// Whether filters may hold wildcards.
    WildcardSubscriptionAvailable(bool),
    /// Whether subscriptions may have identifiers.
    SubscriptionIdentifierAvailable(bool),
    /// Whether subscriptions may be shared.
    SharedSubscriptionAvailable(bool),
}

/// The properties of a packet in the order they came: an empty list takes no memory.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Properties(Vec<Property>);

/// Which packet, or the Will inside CONNECT, properties belong to (table 2-4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Place {
    Connect,
    Will,
    ConnAck,
    Publish,
    /// PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
    Acknowledgement,
    Subscribe,
    Unsubscribe,
    Disconnect,
    Auth,
}

impl Properties {
    /// Decodes the length and what it covers.
    ///
    /// # Errors
    ///
    /// A property that does not exist, has no place here, came before, or has no such value.
    pub(super) fn decode(reader: &mut Reader, place: Place) -> Result<Self, DecodeError> {
        let len = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
        if len == 0 {
            return Ok(Self::default());
        }
        let mut block = Reader::new(reader.take(len)?);
        let mut seen = 0_u64;
        let mut list = Vec::new();
        while !block.is_empty() {
            let property = Property::decode(&mut block).map_err(|error| match error {
                // Its place is wrong before its value is.
                DecodeError::TopicAliasZero if place != Place::Publish => {
                    DecodeError::MisplacedProperty { found: 0x23 }
                }
                error => error,
            })?;
            let found = property.identifier();
            if !property.belongs_to(place) {
                return Err(DecodeError::MisplacedProperty { found });
            }
            let bit = 1 << found;
            if seen & bit != 0 && !property.is_repeatable(place) {
                return Err(DecodeError::RepeatedProperty { found });
            }
            seen |= bit;
            list.push(property);
        }
        Ok(Self(list))
    }

    /// Appends the length and the properties.
    pub(super) fn encode(&self, out: &mut BytesMut) {
        with_length(out, |out| self.0.iter().for_each(|property| property.encode(out)));
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The properties, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Property> {
        self.0.iter()
    }

    /// Adds one at the end.
    pub fn push(&mut self, property: Property) {
        self.0.push(property);
    }

    /// Takes out Reason String and User Properties. Says whether there was any.
    pub(super) fn shorten(&mut self) -> bool {
        let before = self.0.len();
        self.0.retain(|property| !matches!(property, Property::ReasonString(_) | Property::UserProperty(..)));
        self.0.len() < before
    }

    /// The first value that `pick` finds.
    pub fn find<'a, T>(&'a self, pick: impl Fn(&'a Property) -> Option<T>) -> Option<T> {
        self.0.iter().find_map(pick)
    }
}

impl FromIterator<Property> for Properties {
    fn from_iter<I: IntoIterator<Item = Property>>(properties: I) -> Self {
        Self(properties.into_iter().collect())
    }
}

impl Property {
    /// Its identifier (table 2-4).
    #[must_use]
    pub const fn identifier(&self) -> u8 {
        match self {
            Self::PayloadFormatIndicator(..) => 0x01,
            Self::MessageExpiryInterval(..) => 0x02,
            Self::ContentType(..) => 0x03,
            Self::ResponseTopic(..) => 0x08,
            Self::CorrelationData(..) => 0x09,
            Self::SubscriptionIdentifier(..) => 0x0b,
            Self::SessionExpiryInterval(..) => 0x11,
            Self::AssignedClientIdentifier(..) => 0x12,
            Self::ServerKeepAlive(..) => 0x13,
            Self::AuthenticationMethod(..) => 0x15,
            Self::AuthenticationData(..) => 0x16,
            Self::RequestProblemInformation(..) => 0x17,
            Self::WillDelayInterval(..) => 0x18,
            Self::RequestResponseInformation(..) => 0x19,
            Self::ResponseInformation(..) => 0x1a,
            Self::ServerReference(..) => 0x1c,
            Self::ReasonString(..) => 0x1f,
            Self::ReceiveMaximum(..) => 0x21,
            Self::TopicAliasMaximum(..) => 0x22,
            Self::TopicAlias(..) => 0x23,
            Self::MaximumQos(..) => 0x24,
            Self::RetainAvailable(..) => 0x25,
            Self::UserProperty(..) => 0x26,
            Self::MaximumPacketSize(..) => 0x27,
            Self::WildcardSubscriptionAvailable(..) => 0x28,
            Self::SubscriptionIdentifierAvailable(..) => 0x29,
            Self::SharedSubscriptionAvailable(..) => 0x2a,
        }
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let identifier = reader.varint()?;
        let found = u8::try_from(identifier).map_err(|_| DecodeError::UnknownProperty { found: identifier })?;
        let bit = |reader: &mut Reader| match reader.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::PropertyValue { found }),
        };
        let some = |number: u32| if number == 0 { Err(DecodeError::PropertyValue { found }) } else { Ok(number) };
        Ok(match found {
            0x01 => Self::PayloadFormatIndicator(bit(reader)?),
            0x02 => Self::MessageExpiryInterval(reader.u32()?),
            0x03 => Self::ContentType(reader.text()?),
            0x08 => Self::ResponseTopic(reader.text()?),
            0x09 => Self::CorrelationData(reader.binary()?),
            0x0b => Self::SubscriptionIdentifier(some(reader.varint()?)?),
            0x11 => Self::SessionExpiryInterval(reader.u32()?),
            0x12 => Self::AssignedClientIdentifier(reader.text()?),
            0x13 => Self::ServerKeepAlive(reader.u16()?),
            0x15 => Self::AuthenticationMethod(reader.text()?),
            0x16 => Self::AuthenticationData(reader.binary()?),
            0x17 => Self::RequestProblemInformation(bit(reader)?),
            0x18 => Self::WillDelayInterval(reader.u32()?),
            0x19 => Self::RequestResponseInformation(bit(reader)?),
            0x1a => Self::ResponseInformation(reader.text()?),
            0x1c => Self::ServerReference(reader.text()?),
            0x1f => Self::ReasonString(reader.text()?),
            0x21 => match reader.u16()? {
                0 => return Err(DecodeError::PropertyValue { found }),
                number => Self::ReceiveMaximum(number),
            },
            0x22 => Self::TopicAliasMaximum(reader.u16()?),
            0x23 => match reader.u16()? {
                0 => return Err(DecodeError::TopicAliasZero),
                number => Self::TopicAlias(number),
            },
            0x24 => Self::MaximumQos(bit(reader)?),
            0x25 => Self::RetainAvailable(bit(reader)?),
            0x26 => Self::UserProperty(reader.text()?, reader.text()?),
            0x27 => Self::MaximumPacketSize(some(reader.u32()?)?),
            0x28 => Self::WildcardSubscriptionAvailable(bit(reader)?),
            0x29 => Self::SubscriptionIdentifierAvailable(bit(reader)?),
            0x2a => Self::SharedSubscriptionAvailable(bit(reader)?),
            _ => return Err(DecodeError::UnknownProperty { found: identifier }),
        })
    }

    /// Appends the identifier and the value.
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        varint::write(u32::from(self.identifier()), out);
        match self {
            Self::PayloadFormatIndicator(bit)
            | Self::RequestProblemInformation(bit)
            | Self::RequestResponseInformation(bit)
            | Self::MaximumQos(bit)
            | Self::RetainAvailable(bit)
            | Self::WildcardSubscriptionAvailable(bit)
            | Self::SubscriptionIdentifierAvailable(bit)
            | Self::SharedSubscriptionAvailable(bit) => out.put_u8(u8::from(*bit)),
            Self::MessageExpiryInterval(number)
            | Self::SessionExpiryInterval(number)
            | Self::WillDelayInterval(number)
            | Self::MaximumPacketSize(number) => out.put_u32(*number),
            Self::ServerKeepAlive(number)
            | Self::ReceiveMaximum(number)
            | Self::TopicAliasMaximum(number)
            | Self::TopicAlias(number) => out.put_u16(*number),
            Self::ContentType(text)
            | Self::ResponseTopic(text)
            | Self::AssignedClientIdentifier(text)
            | Self::AuthenticationMethod(text)
            | Self::ResponseInformation(text)
            | Self::ServerReference(text)
            | Self::ReasonString(text) => put_prefixed(out, text.as_bytes()),
            Self::CorrelationData(bytes) | Self::AuthenticationData(bytes) => put_prefixed(out, bytes),
            Self::SubscriptionIdentifier(number) => varint::write(*number, out),
            Self::UserProperty(name, value) => {
                put_prefixed(out, name.as_bytes());
                put_prefixed(out, value.as_bytes());
            }
        }
    }

    /// How many bytes [`Property::put_length`] appends.
    pub(crate) fn length_len(len: usize) -> usize {
        varint::to_bytes(u32::try_from(len).unwrap_or(u32::MAX)).1
    }

    /// Appends a length as a Variable Byte Integer, as it stands before properties and packets.
    pub(crate) fn put_length(len: usize, out: &mut BytesMut) {
        varint::write(u32::try_from(len).unwrap_or(u32::MAX), out);
    }

    const fn belongs_to(&self, place: Place) -> bool {
        match self {
            Self::UserProperty(..) => true,
            Self::PayloadFormatIndicator(..)
            | Self::MessageExpiryInterval(..)
            | Self::ContentType(..)
            | Self::ResponseTopic(..)
            | Self::CorrelationData(..) => matches!(place, Place::Publish | Place::Will),
            Self::SubscriptionIdentifier(..) => matches!(place, Place::Publish | Place::Subscribe),
            Self::SessionExpiryInterval(..) => matches!(place, Place::Connect | Place::ConnAck | Place::Disconnect),
            Self::AssignedClientIdentifier(..)
            | Self::ServerKeepAlive(..)
            | Self::ResponseInformation(..)
            | Self::MaximumQos(..)
            | Self::RetainAvailable(..)
            | Self::WildcardSubscriptionAvailable(..)
            | Self::SubscriptionIdentifierAvailable(..)
            | Self::SharedSubscriptionAvailable(..) => matches!(place, Place::ConnAck),
            Self::AuthenticationMethod(..) | Self::AuthenticationData(..) => {
                matches!(place, Place::Connect | Place::ConnAck | Place::Auth)
            }
            Self::RequestProblemInformation(..) | Self::RequestResponseInformation(..) => {
                matches!(place, Place::Connect)
            }
            Self::WillDelayInterval(..) => matches!(place, Place::Will),
            Self::ServerReference(..) => matches!(place, Place::ConnAck | Place::Disconnect),
            Self::ReasonString(..) => {
                matches!(place, Place::ConnAck | Place::Acknowledgement | Place::Disconnect | Place::Auth)
            }
            Self::ReceiveMaximum(..) | Self::TopicAliasMaximum(..) | Self::MaximumPacketSize(..) => {
                matches!(place, Place::Connect | Place::ConnAck)
            }
            Self::TopicAlias(..) => matches!(place, Place::Publish),
        }
    }

    /// User Properties may come again anywhere, Subscription Identifiers in PUBLISH alone.
    const fn is_repeatable(&self, place: Place) -> bool {
        match self {
            Self::UserProperty(..) => true,
            Self::SubscriptionIdentifier(_) => matches!(place, Place::Publish),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(block: &[u8], place: Place) -> Result<Properties, DecodeError> {
        let mut bytes = BytesMut::new();
        varint::write(block.len() as u32, &mut bytes);
        bytes.put_slice(block);
        Properties::decode(&mut Reader::new(bytes.freeze()), place)
    }

    #[test]
    fn a_property_has_its_place_and_its_values() {
        let cases: &[(&[u8], Place, Result<usize, DecodeError>)] = &[
            (&[], Place::Connect, Ok(0)),
            (&[0x21, 0, 5], Place::Connect, Ok(1)),
            (&[0x21, 0, 0], Place::Connect, Err(DecodeError::PropertyValue { found: 0x21 })),
            (&[0x21, 0, 5, 0x21, 0, 5], Place::Connect, Err(DecodeError::RepeatedProperty { found: 0x21 })),
            (&[0x21, 0, 5], Place::Publish, Err(DecodeError::MisplacedProperty { found: 0x21 })),
            (&[0x01, 2], Place::Publish, Err(DecodeError::PropertyValue { found: 0x01 })),
            (&[0x23, 0, 0], Place::Publish, Err(DecodeError::TopicAliasZero)),
            (&[0x0B, 1, 0x0B, 2], Place::Publish, Ok(2)),
            (&[0x0B, 1, 0x0B, 2], Place::Subscribe, Err(DecodeError::RepeatedProperty { found: 0x0B })),
            (&[0x0B, 0], Place::Subscribe, Err(DecodeError::PropertyValue { found: 0x0B })),
            (&[0x26, 0, 1, b'a', 0, 1, b'b', 0x26, 0, 1, b'a', 0, 0], Place::Unsubscribe, Ok(2)),
            (&[0x27, 0, 0, 0, 0], Place::Connect, Err(DecodeError::PropertyValue { found: 0x27 })),
            (&[0x04], Place::Connect, Err(DecodeError::UnknownProperty { found: 4 })),
            (&[0x80, 0x02], Place::Connect, Err(DecodeError::UnknownProperty { found: 256 })),
            (&[0x11, 0, 0], Place::Connect, Err(DecodeError::Truncated)),
        ];
        for (block, place, expected) in cases {
            assert_eq!(decode(block, *place).map(|p| p.iter().count()), *expected, "{block:02x?} in {place:?}");
        }
    }

    #[test]
    fn a_length_beyond_the_packet_is_malformed() {
        let bytes = Bytes::from_static(&[9, 0x21, 0, 5]);
        assert_eq!(Properties::decode(&mut Reader::new(bytes), Place::Connect), Err(DecodeError::Truncated));
    }
}
