//! Control packets a server sends, out of their bytes. Clause numbers are of MQTT 5.0.
//!
//! ```text
//! byte 1   type(4) flags(4)
//! then     remaining length, a Variable Byte Integer
//! then     variable header: fields, property length, properties
//! then     payload
//! ```

use thiserror::Error;

use super::reason::ReasonCode;
use super::wire::Reader;

/// Why bytes of the server are no control packet a client may get.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum DecodeError {
    /// A field ends after the packet does.
    #[error("a field ends after its packet")]
    Truncated,
    /// Bytes are left after the last field.
    #[error("bytes after the last field of a packet")]
    Trailing,
    /// A Variable Byte Integer has more than four bytes, or idle ones [MQTT-1.5.5-1].
    #[error("a length is written in too many bytes")]
    Varint,
    /// A string is no UTF-8, or holds U+0000 [MQTT-1.5.4-1] [MQTT-1.5.4-2].
    #[error("a string is no valid UTF-8")]
    Text,
    /// A reserved flag is set, or one that must be is not [MQTT-2.1.3-1].
    #[error("flags 0x{flags:X} of packet type {packet_type}")]
    Flags {
        /// The packet's type.
        packet_type: u8,
        /// The flags found.
        flags: u8,
    },
    /// A packet type that only a client sends, or that belongs to what was never asked for: QoS 2,
    /// AUTH, UNSUBACK.
    #[error("packet type {0} is not for a client like this")]
    Unexpected(u8),
    /// A property that does not belong to this packet, stands twice, or has a value that may not be.
    #[error("property 0x{0:02X} is not allowed there, twice, or so")]
    Property(u8),
    /// A message with a QoS above what was subscribed to.
    #[error("a message with QoS {0}")]
    Qos(u8),
    /// The packet identifier is 0 [MQTT-2.2.1-3].
    #[error("packet identifier 0")]
    PacketId,
    /// A topic alias, although none was allowed [MQTT-3.3.2-8].
    #[error("a topic alias, of which none are allowed")]
    TopicAlias,
    /// A reason code this packet does not have.
    #[error("reason code {0}")]
    Reason(ReasonCode),
}

impl DecodeError {
    /// What the DISCONNECT that follows tells the server (section 3.14.2.1).
    #[must_use]
    pub const fn reason_code(self) -> ReasonCode {
        match self {
            Self::Truncated | Self::Trailing | Self::Varint | Self::Text | Self::Flags { .. } | Self::Reason(_) => {
                ReasonCode::MALFORMED_PACKET
            }
            Self::Unexpected(_) | Self::Property(_) | Self::PacketId | Self::Qos(_) => ReasonCode::PROTOCOL_ERROR,
            Self::TopicAlias => ReasonCode::TOPIC_ALIAS_INVALID,
        }
    }
}

/// A packet of the server.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Packet<'a> {
    Connack(Connack),
    Publish { topic: &'a str, packet_id: Option<u16>, payload: &'a [u8] },
    Puback { packet_id: u16, reason: ReasonCode },
    Suback { packet_id: u16, reasons: &'a [u8] },
    Pingresp,
    Disconnect { reason: ReasonCode },
}

/// What the server answers to CONNECT, and the limits it sets (section 3.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Connack {
    pub(crate) session_present: bool,
    pub(crate) reason: ReasonCode,
    pub(crate) receive_max: u16,
    pub(crate) qos_max: u8,
    pub(crate) packet_len_max: u32,
    pub(crate) keep_alive_s: Option<u16>,
}

/// Parses one packet: its first byte, and what its remaining length covers.
pub(crate) fn decode(first: u8, body: &[u8]) -> Result<Packet<'_>, DecodeError> {
    let (packet_type, flags) = (first >> 4, first & 0x0F);
    if packet_type != PUBLISH && flags != 0 {
        return Err(DecodeError::Flags { packet_type, flags });
    }
    let reader = Reader::new(body);
    match packet_type {
        CONNACK => connack(reader).map(Packet::Connack),
        PUBLISH => publish(flags, reader),
        PUBACK => puback(reader),
        SUBACK => suback(reader),
        PINGRESP if body.is_empty() => Ok(Packet::Pingresp),
        PINGRESP => Err(DecodeError::Trailing),
        DISCONNECT => disconnect(reader),
        other => Err(DecodeError::Unexpected(other)),
    }
}

const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const SUBACK: u8 = 9;
const PINGRESP: u8 = 13;
const DISCONNECT: u8 = 14;

fn connack(mut reader: Reader<'_>) -> Result<Connack, DecodeError> {
    let flags = reader.u8()?;
    if flags & 0xFE != 0 {
        return Err(DecodeError::Flags { packet_type: CONNACK, flags });
    }
    let reason = ReasonCode(reader.u8()?);
    if reason.0 != 0 && !reason.is_failure() {
        return Err(DecodeError::Reason(reason));
    }
    let mut answer = Connack {
        session_present: flags == 1,
        reason,
        receive_max: u16::MAX,
        qos_max: 2,
        packet_len_max: u32::MAX,
        keep_alive_s: None,
    };
    properties(&mut reader, CONNACK_PROPERTIES, |id, value| match (id, value) {
        (0x13, Value::Number(value)) => answer.keep_alive_s = u16::try_from(value).ok(),
        (0x21, Value::Number(value)) => answer.receive_max = u16::try_from(value).unwrap_or(u16::MAX),
        (0x24, Value::Number(value)) => answer.qos_max = u8::try_from(value).unwrap_or(2),
        (0x27, Value::Number(value)) => answer.packet_len_max = value,
        _ => {}
    })?;
    match (answer.receive_max, answer.packet_len_max) {
        (0, _) => Err(DecodeError::Property(0x21)),
        (_, 0) => Err(DecodeError::Property(0x27)),
        _ => finished(reader, answer),
    }
}

fn publish(flags: u8, mut reader: Reader<'_>) -> Result<Packet<'_>, DecodeError> {
    let topic = reader.string()?;
    let packet_id = match (flags >> 1) & 3 {
        // DUP means a repeat of something acknowledged, which QoS 0 never is [MQTT-3.3.1-2].
        0 if flags & 8 != 0 => return Err(DecodeError::Flags { packet_type: PUBLISH, flags }),
        0 => None,
        1 => Some(packet_id(&mut reader)?),
        qos => return Err(DecodeError::Qos(qos)),
    };
    let mut alias = false;
    properties(&mut reader, PUBLISH_PROPERTIES, |id, _| alias |= id == 0x23)?;
    if alias {
        return Err(DecodeError::TopicAlias);
    }
    Ok(Packet::Publish { topic, packet_id, payload: reader.rest() })
}

fn puback(mut reader: Reader<'_>) -> Result<Packet<'_>, DecodeError> {
    let packet_id = packet_id(&mut reader)?;
    // Both the reason code and the properties may be left out (section 3.4.2.1).
    let reason = if reader.is_empty() { ReasonCode::SUCCESS } else { ReasonCode(reader.u8()?) };
    if !reader.is_empty() {
        properties(&mut reader, ANSWER_PROPERTIES, |_, _| {})?;
    }
    finished(reader, Packet::Puback { packet_id, reason })
}

fn suback(mut reader: Reader<'_>) -> Result<Packet<'_>, DecodeError> {
    let packet_id = packet_id(&mut reader)?;
    properties(&mut reader, ANSWER_PROPERTIES, |_, _| {})?;
    Ok(Packet::Suback { packet_id, reasons: reader.rest() })
}

fn disconnect(mut reader: Reader<'_>) -> Result<Packet<'_>, DecodeError> {
    let reason = if reader.is_empty() { ReasonCode::SUCCESS } else { ReasonCode(reader.u8()?) };
    if !reader.is_empty() {
        properties(&mut reader, DISCONNECT_PROPERTIES, |_, _| {})?;
    }
    finished(reader, Packet::Disconnect { reason })
}

fn packet_id(reader: &mut Reader<'_>) -> Result<u16, DecodeError> {
    match reader.u16()? {
        0 => Err(DecodeError::PacketId),
        id => Ok(id),
    }
}

fn finished<T>(reader: Reader<'_>, packet: T) -> Result<T, DecodeError> {
    if reader.is_empty() { Ok(packet) } else { Err(DecodeError::Trailing) }
}

/// A property's value, as far as this client reads one.
enum Value {
    Number(u32),
    Other,
}

/// Properties by identifier (section 2.2.2.2), as bits.
type Allowed = u64;

const fn allowed(ids: &[u8]) -> Allowed {
    let mut set = 0;
    let mut rest = ids;
    while let [id, others @ ..] = rest {
        set |= 1 << *id;
        rest = others;
    }
    set
}

const CONNACK_PROPERTIES: Allowed =
    allowed(&[0x11, 0x12, 0x13, 0x15, 0x16, 0x1A, 0x1C, 0x1F, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2A]);
const PUBLISH_PROPERTIES: Allowed = allowed(&[0x01, 0x02, 0x03, 0x08, 0x09, 0x0B, 0x23, 0x26]);
const ANSWER_PROPERTIES: Allowed = allowed(&[0x1F, 0x26]);
const DISCONNECT_PROPERTIES: Allowed = allowed(&[0x1C, 0x1F, 0x26]);
/// User properties and subscription identifiers may stand more than once.
const REPEATABLE: Allowed = allowed(&[0x0B, 0x26]);
/// Flags: 0 or 1, nothing else.
const BOOLEAN: Allowed = allowed(&[0x01, 0x24, 0x25, 0x28, 0x29, 0x2A]);

/// Reads a property list, each property of `permitted` at most once, and shows each to `take`.
fn properties(reader: &mut Reader<'_>, permitted: Allowed, mut take: impl FnMut(u8, Value)) -> Result<(), DecodeError> {
    let len = reader.varint()?;
    let mut reader = Reader::new(reader.take(len)?);
    let mut seen: Allowed = 0;
    while !reader.is_empty() {
        let id = reader.u8()?;
        let bit = 1_u64.checked_shl(u32::from(id)).unwrap_or(0);
        if permitted & bit == 0 || (seen & bit != 0 && REPEATABLE & bit == 0) {
            return Err(DecodeError::Property(id));
        }
        seen |= bit;
        let value = property(id, &mut reader)?;
        if let Value::Number(number) = value
            && BOOLEAN & bit != 0
            && number > 1
        {
            return Err(DecodeError::Property(id));
        }
        take(id, value);
    }
    Ok(())
}

fn property(id: u8, reader: &mut Reader<'_>) -> Result<Value, DecodeError> {
    Ok(match id {
        0x01 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => Value::Number(u32::from(reader.u8()?)),
        0x13 | 0x21 | 0x22 | 0x23 => Value::Number(u32::from(reader.u16()?)),
        0x02 | 0x11 | 0x27 => Value::Number(reader.u32()?),
        0x0B => {
            reader.varint()?;
            Value::Other
        }
        0x09 | 0x16 => {
            reader.binary()?;
            Value::Other
        }
        0x26 => {
            reader.string()?;
            reader.string()?;
            Value::Other
        }
        0x03 | 0x08 | 0x12 | 0x15 | 0x1A | 0x1C | 0x1F => {
            reader.string()?;
            Value::Other
        }
        other => return Err(DecodeError::Property(other)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn packets_of_a_server_are_read() {
        let connack = Connack {
            session_present: true,
            reason: ReasonCode::SUCCESS,
            receive_max: 10,
            qos_max: 1,
            packet_len_max: 4096,
            keep_alive_s: Some(30),
        };
        let table: [(u8, &[u8], Packet<'_>); 8] = [
            (0x20, &[1, 0, 13, 0x21, 0, 10, 0x24, 1, 0x27, 0, 0, 16, 0, 0x13, 0, 30], Packet::Connack(connack)),
            (0x32, &[0, 1, b't', 0, 7, 0, b'x'], Packet::Publish { topic: "t", packet_id: Some(7), payload: b"x" }),
            (
                0x30,
                &[0, 1, b't', 7, 0x26, 0, 1, b'k', 0, 1, b'v'],
                Packet::Publish { topic: "t", packet_id: None, payload: b"" },
            ),
            (0x40, &[0, 7], Packet::Puback { packet_id: 7, reason: ReasonCode::SUCCESS }),
            (0x40, &[0, 7, 0x83], Packet::Puback { packet_id: 7, reason: ReasonCode(0x83) }),
            (0x40, &[0, 7, 0x83, 4, 0x1F, 0, 1, b'?'], Packet::Puback { packet_id: 7, reason: ReasonCode(0x83) }),
            (0x90, &[0, 1, 0, 1, 0x87], Packet::Suback { packet_id: 1, reasons: &[1, 0x87] }),
            (0xE0, &[0x8B], Packet::Disconnect { reason: ReasonCode(0x8B) }),
        ];
        for (first, body, packet) in table {
            assert_eq!(decode(first, body), Ok(packet), "{first:02x} {body:02x?}");
        }
        assert_eq!(decode(0xD0, &[]), Ok(Packet::Pingresp));
        assert_eq!(decode(0xE0, &[]), Ok(Packet::Disconnect { reason: ReasonCode::SUCCESS }));
    }

    #[test]
    fn what_a_server_may_not_send_has_its_own_error() {
        let table: [(u8, &[u8], DecodeError); 16] = [
            (0x20, &[0, 0], DecodeError::Truncated),
            (0x20, &[2, 0, 0], DecodeError::Flags { packet_type: 2, flags: 2 }),
            (0x21, &[0, 0, 0], DecodeError::Flags { packet_type: 2, flags: 1 }),
            (0x20, &[0, 1, 0], DecodeError::Reason(ReasonCode(1))),
            (0x20, &[0, 0, 3, 0x21, 0, 0], DecodeError::Property(0x21)),
            (0x20, &[0, 0, 6, 0x21, 0, 1, 0x21, 0, 1], DecodeError::Property(0x21)),
            (0x20, &[0, 0, 2, 0x24, 2], DecodeError::Property(0x24)),
            (0x20, &[0, 0, 2, 0x0B, 1], DecodeError::Property(0x0B)),
            (0x34, &[0, 1, b't', 0, 7, 0], DecodeError::Qos(2)),
            (0x38, &[0, 1, b't', 0], DecodeError::Flags { packet_type: 3, flags: 8 }),
            (0x32, &[0, 1, b't', 0, 0, 0], DecodeError::PacketId),
            (0x32, &[0, 1, b't', 0, 7, 3, 0x23, 0, 1], DecodeError::TopicAlias),
            (0x40, &[0, 7, 0, 0, 9], DecodeError::Trailing),
            (0xD0, &[0], DecodeError::Trailing),
            (0x50, &[0, 7], DecodeError::Unexpected(5)),
            (0xF0, &[], DecodeError::Unexpected(15)),
        ];
        for (first, body, error) in table {
            assert_eq!(decode(first, body), Err(error), "{first:02x} {body:02x?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_packet_or_an_error(first in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Err(error) = decode(first, &body) {
                prop_assert!(error.reason_code().is_failure());
            }
        }
    }
}
