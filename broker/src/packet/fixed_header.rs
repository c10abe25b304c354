//! The fixed header, and the cut of a stream into frames (section 2.1).

use bytes::{Buf, Bytes, BytesMut};

use super::error::DecodeError;
use super::{ReasonCode, Version, varint};

/// A kind of control packet (section 2.1.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Connect,
    ConnAck,
    Publish,
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    Subscribe,
    SubAck,
    Unsubscribe,
    UnsubAck,
    PingReq,
    PingResp,
    Disconnect,
    Auth,
}

/// One control packet as it was cut from the stream.
#[derive(Clone, Debug)]
pub struct Frame {
    pub(super) kind: Kind,
    pub(super) flags: u8,
    /// Whether its Remaining Length takes more bytes than it needs.
    pub(super) is_padded: bool,
    pub(super) body: Bytes,
}

/// Cuts the next whole packet off the front, or says that more bytes are needed.
///
/// # Errors
///
/// An unknown type, a Remaining Length that is none, and a packet of more than `len_max` bytes,
/// known from its header alone, so that nothing is kept for it.
pub fn split_frame(stream: &mut BytesMut, len_max: usize) -> Result<Option<Frame>, DecodeError> {
    let Some(&first) = stream.first() else { return Ok(None) };
    let kind = Kind::from_byte(first)?;
    let Some((body_len, digits)) = varint::read(stream.get(1..).unwrap_or_default())? else { return Ok(None) };
    let header_len = 1 + digits;
    let size = header_len.saturating_add(usize::try_from(body_len).unwrap_or(usize::MAX));
    if size > len_max {
        return Err(DecodeError::TooLarge { size, max: len_max });
    }
    if stream.len() < size {
        stream.reserve(size - stream.len());
        return Ok(None);
    }
    stream.advance(header_len);
    let body = stream.split_to(size - header_len).freeze();
    Ok(Some(Frame { kind, flags: first & 0x0F, is_padded: varint::is_padded(body_len, digits), body }))
}

/// Whether a stream may begin with this byte: with CONNECT and nothing else [MQTT-3.1.0-1].
#[must_use]
pub fn begins_connection(first: u8) -> bool {
    first == Kind::Connect.first_byte(0)
}

impl Frame {
    /// What a CONNECT says it speaks, however wrong the rest of it: the answer is in that version.
    /// `None` for another packet, and where it is no version of ours.
    #[must_use]
    pub fn connect_version(&self) -> Option<Version> {
        if self.kind != Kind::Connect {
            return None;
        }
        match self.body.strip_prefix(b"\0\x04MQTT")?.first()? {
            4 => Some(Version::V3_1_1),
            5 => Some(Version::V5),
            _ => None,
        }
    }

    /// Why the client leaves, where this is its DISCONNECT; in 3.1.1 it never says.
    #[must_use]
    pub fn disconnect_reason(&self) -> Option<ReasonCode> {
        let said = || self.body.first().and_then(|byte| ReasonCode::from_byte(*byte).ok());
        (self.kind == Kind::Disconnect).then(|| said().unwrap_or(ReasonCode::Success))
    }

    /// The flags, once they have been found to be what the kind prescribes [MQTT-2.1.3-1].
    pub(super) const fn flags(&self) -> Result<u8, DecodeError> {
        match self.kind {
            Kind::Publish => Ok(self.flags),
            kind if self.flags == kind.fixed_flags() => Ok(self.flags),
            kind => Err(DecodeError::ReservedFlags { packet: kind.name(), found: self.flags }),
        }
    }
}

impl Kind {
    const fn from_byte(first: u8) -> Result<Self, DecodeError> {
        Ok(match first >> 4 {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            found => return Err(DecodeError::UnknownType { found }),
        })
    }

    pub(super) const fn first_byte(self, flags: u8) -> u8 {
        let number = match self {
            Self::Connect => 1,
            Self::ConnAck => 2,
            Self::Publish => 3,
            Self::PubAck => 4,
            Self::PubRec => 5,
            Self::PubRel => 6,
            Self::PubComp => 7,
            Self::Subscribe => 8,
            Self::SubAck => 9,
            Self::Unsubscribe => 10,
            Self::UnsubAck => 11,
            Self::PingReq => 12,
            Self::PingResp => 13,
            Self::Disconnect => 14,
            Self::Auth => 15,
        };
        number << 4 | flags
    }

    /// The flags of every kind but PUBLISH (section 2.1.3).
    pub(super) const fn fixed_flags(self) -> u8 {
        match self {
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            _ => 0,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::ConnAck => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::PubAck => "PUBACK",
            Self::PubRec => "PUBREC",
            Self::PubRel => "PUBREL",
            Self::PubComp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::SubAck => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::UnsubAck => "UNSUBACK",
            Self::PingReq => "PINGREQ",
            Self::PingResp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_cut_once_it_is_whole() {
        let mut stream = BytesMut::from(&[0xC0, 0x00, 0x40, 0x02, 0x00][..]);
        assert!(matches!(split_frame(&mut stream, 100), Ok(Some(Frame { kind: Kind::PingReq, .. }))));
        assert!(matches!(split_frame(&mut stream, 100), Ok(None)));
        stream.extend_from_slice(&[0x07, 0xC0]);
        assert!(matches!(split_frame(&mut stream, 100), Ok(Some(Frame { kind: Kind::PubAck, .. }))));
        assert_eq!(stream.as_ref(), [0xC0]);
    }

    #[test]
    fn a_packet_over_the_bound_is_known_by_its_header() {
        let mut stream = BytesMut::from(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F][..]);
        assert_eq!(split_frame(&mut stream, 1000).err(), Some(DecodeError::TooLarge { size: 268_435_460, max: 1000 }));
    }

    #[test]
    fn type_0_and_a_fifth_length_byte_are_malformed() {
        assert_eq!(split_frame(&mut BytesMut::from(&[0x00][..]), 9).err(), Some(DecodeError::UnknownType { found: 0 }));
        let long = &[0x30, 0x80, 0x80, 0x80, 0x80, 0x01][..];
        assert_eq!(split_frame(&mut BytesMut::from(long), 9).err(), Some(DecodeError::Varint));
    }
}
