//! The grammar of both versions as tables, and what it says of bytes: a judge that shares nothing
//! with the codec of the broker.

use crate::peer::{ReasonCode, Version};

use ReasonCode::{
    BadAuthenticationMethod, ClientIdentifierNotValid, MalformedPacket, NotAuthorized, ProtocolError,
    TopicAliasInvalid, TopicNameInvalid, UnsupportedProtocolVersion,
};

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// It is served.
    Good,
    /// It is served, and ends the connection.
    Leave,
    /// It ends the connection for one of these reasons, the first being the one the standard names.
    Wrong(&'static [ReasonCode]),
}

/// Why a packet is wrong.
type Wrong = &'static [ReasonCode];

const MALFORMED: Wrong = &[MalformedPacket];
const PROTOCOL: Wrong = &[ProtocolError];

/// Where properties stand: a bit each.
pub(super) mod place {
    pub(in super::super) const CONNECT: u16 = 1;
    pub(in super::super) const WILL: u16 = 1 << 1;
    pub(in super::super) const CONNACK: u16 = 1 << 2;
    pub(in super::super) const PUBLISH: u16 = 1 << 3;
    pub(in super::super) const ACK: u16 = 1 << 4;
    pub(in super::super) const SUBSCRIBE: u16 = 1 << 5;
    pub(in super::super) const UNSUBSCRIBE: u16 = 1 << 6;
    pub(in super::super) const DISCONNECT: u16 = 1 << 7;
    pub(in super::super) const AUTH: u16 = 1 << 8;
    pub(in super::super) const ALL: u16 = (1 << 9) - 1;
}

/// The type of a property's value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Type {
    /// A byte, 0 or 1.
    Bit,
    Two,
    /// Two bytes, not 0.
    TwoSome,
    Four,
    /// Four bytes, not 0.
    FourSome,
    /// A variable byte integer, not 0.
    VarSome,
    Text,
    Binary,
    Pair,
}

/// One row of table 2-4.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) id: u8,
    pub(super) value: Type,
    pub(super) places: u16,
}

const fn row(id: u8, value: Type, places: u16) -> Row {
    Row { id, value, places }
}

use place::{ACK, ALL, AUTH, CONNACK, CONNECT, DISCONNECT, PUBLISH, SUBSCRIBE, UNSUBSCRIBE, WILL};

/// Table 2-4.
pub(super) const PROPERTIES: [Row; 27] = [
    row(0x01, Type::Bit, PUBLISH | WILL),
    row(0x02, Type::Four, PUBLISH | WILL),
    row(0x03, Type::Text, PUBLISH | WILL),
    row(0x08, Type::Text, PUBLISH | WILL),
    row(0x09, Type::Binary, PUBLISH | WILL),
    row(0x0B, Type::VarSome, PUBLISH | SUBSCRIBE),
    row(0x11, Type::Four, CONNECT | CONNACK | DISCONNECT),
    row(0x12, Type::Text, CONNACK),
    row(0x13, Type::Two, CONNACK),
    row(0x15, Type::Text, CONNECT | CONNACK | AUTH),
    row(0x16, Type::Binary, CONNECT | CONNACK | AUTH),
    row(0x17, Type::Bit, CONNECT),
    row(0x18, Type::Four, WILL),
    row(0x19, Type::Bit, CONNECT),
    row(0x1A, Type::Text, CONNACK),
    row(0x1C, Type::Text, CONNACK | DISCONNECT),
    row(0x1F, Type::Text, CONNACK | ACK | DISCONNECT | AUTH),
    row(0x21, Type::TwoSome, CONNECT | CONNACK),
    row(0x22, Type::Two, CONNECT | CONNACK),
    row(0x23, Type::TwoSome, PUBLISH),
    row(0x24, Type::Bit, CONNACK),
    row(0x25, Type::Bit, CONNACK),
    row(0x26, Type::Pair, ALL),
    row(0x27, Type::FourSome, CONNECT | CONNACK),
    row(0x28, Type::Bit, CONNACK),
    row(0x29, Type::Bit, CONNACK),
    row(0x2A, Type::Bit, CONNACK),
];

/// The reason codes of a packet type (table 2-6); of DISCONNECT those of both sides.
fn reasons(kind: u8) -> &'static [u8] {
    match kind {
        4 | 5 => &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99],
        6 | 7 => &[0x00, 0x92],
        14 => &[
            0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97,
            0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
        ],
        _ => &[0x00, 0x18, 0x19],
    }
}

/// What is left to read.
struct Bytes<'b>(&'b [u8]);

impl<'b> Bytes<'b> {
    fn take(&mut self, len: usize) -> Result<&'b [u8], Wrong> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(MALFORMED)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Wrong> {
        Ok(self.take(1)?[0])
    }

    fn two(&mut self) -> Result<u16, Wrong> {
        let taken = self.take(2)?;
        Ok(u16::from_be_bytes([taken[0], taken[1]]))
    }

    fn four(&mut self) -> Result<u32, Wrong> {
        let taken = self.take(4)?;
        Ok(u32::from_be_bytes([taken[0], taken[1], taken[2], taken[3]]))
    }

    fn packet_id(&mut self) -> Result<(), Wrong> {
        if self.two()? == 0 { Err(&[MalformedPacket, ProtocolError]) } else { Ok(()) }
    }

    fn varint(&mut self) -> Result<u32, Wrong> {
        let mut value = 0;
        for at in 0..4 {
            let byte = self.byte()?;
            value |= u32::from(byte & 0x7F) << (7 * at);
            if byte & 0x80 == 0 {
                return if byte == 0 && at > 0 { Err(MALFORMED) } else { Ok(value) };
            }
        }
        Err(MALFORMED)
    }

    fn binary(&mut self) -> Result<&'b [u8], Wrong> {
        let len = self.two()?;
        self.take(usize::from(len))
    }

    fn text(&mut self) -> Result<&'b str, Wrong> {
        match std::str::from_utf8(self.binary()?) {
            Ok(text) if !text.contains('\0') => Ok(text),
            _ => Err(MALFORMED),
        }
    }
}

/// What a block of properties said.
#[derive(Default)]
struct Said<'b> {
    response_topic: Option<&'b str>,
    alias: Option<u16>,
    identifier: bool,
    expiry: Option<u32>,
    method: bool,
    data: bool,
}

fn properties<'b>(bytes: &mut Bytes<'b>, at: u16) -> Result<Said<'b>, Wrong> {
    let len = bytes.varint()?;
    let mut block = Bytes(bytes.take(len as usize)?);
    let (mut said, mut seen) = (Said::default(), Vec::new());
    while !block.0.is_empty() {
        let id = block.varint()?;
        let row = PROPERTIES.iter().find(|row| u32::from(row.id) == id).ok_or(MALFORMED)?;
        let mut some = true;
        let (mut text, mut number) = (None, 0);
        match row.value {
            Type::Bit => some = block.byte()? <= 1,
            Type::Two => number = u32::from(block.two()?),
            Type::TwoSome => {
                number = u32::from(block.two()?);
                some = number != 0;
            }
            Type::Four => number = block.four()?,
            Type::FourSome => some = block.four()? != 0,
            Type::VarSome => some = block.varint()? != 0,
            Type::Text => text = Some(block.text()?),
            Type::Binary => drop(block.binary()?),
            Type::Pair => {
                block.text()?;
                block.text()?;
            }
        }
        if row.places & at == 0 {
            return Err(&[MalformedPacket, ProtocolError]);
        }
        if !some {
            return Err(if row.id == 0x23 { &[TopicAliasInvalid] } else { PROTOCOL });
        }
        let may_repeat = row.id == 0x26 || row.id == 0x0B && at == PUBLISH;
        if seen.contains(&row.id) && !may_repeat {
            return Err(PROTOCOL);
        }
        seen.push(row.id);
        match row.id {
            0x08 => said.response_topic = text,
            0x0B => said.identifier = true,
            0x11 => said.expiry = Some(number),
            0x15 => said.method = true,
            0x16 => said.data = true,
            0x23 => said.alias = u16::try_from(number).ok(),
            _ => {}
        }
    }
    Ok(said)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.contains(['+', '#'])
}

/// What becomes of the first packet of a connection.
pub(super) fn judge_connect(first: u8, body: &[u8]) -> Verdict {
    if first != 0x10 {
        return Verdict::Wrong(&[MalformedPacket, ProtocolError]);
    }
    match connect(&mut Bytes(body)) {
        Ok(()) => Verdict::Good,
        Err(wrong) => Verdict::Wrong(wrong),
    }
}

fn connect(bytes: &mut Bytes<'_>) -> Result<(), Wrong> {
    const VERSION: Wrong = &[UnsupportedProtocolVersion];
    if bytes.binary()? != b"MQTT" {
        return Err(VERSION);
    }
    let five = match bytes.byte()? {
        4 => false,
        5 => true,
        _ => return Err(VERSION),
    };
    let flags = bytes.byte()?;
    let (has_will, will_qos) = (flags & 0x04 != 0, flags >> 3 & 3);
    let (user_name, password) = (flags & 0x80 != 0, flags & 0x40 != 0);
    if flags & 1 != 0 {
        return Err(MALFORMED);
    }
    bytes.two()?;
    let said = if five { properties(bytes, CONNECT)? } else { Said::default() };
    let client_id = bytes.text()?;
    if will_qos == 3 || !has_will && (will_qos != 0 || flags & 0x20 != 0) {
        return Err(MALFORMED);
    }
    let mut topics = Vec::new();
    if has_will {
        if five {
            topics.extend(properties(bytes, WILL)?.response_topic);
        }
        topics.push(bytes.text()?);
        bytes.binary()?;
    }
    if user_name {
        bytes.text()?;
    }
    if password {
        if !five && !user_name {
            return Err(MALFORMED);
        }
        bytes.binary()?;
    }
    if !bytes.0.is_empty() {
        return Err(MALFORMED);
    }
    if said.method {
        return Err(&[BadAuthenticationMethod]);
    }
    if said.data {
        return Err(PROTOCOL);
    }
    if topics.iter().any(|topic| !is_name(topic)) {
        // 3.1.1 has no name for it but this.
        return Err(if five { &[TopicNameInvalid, ProtocolError] } else { &[NotAuthorized] });
    }
    if client_id.is_empty() && !five && flags & 2 == 0 {
        return Err(&[ClientIdentifierNotValid]);
    }
    Ok(())
}

/// What becomes of a packet of a client that is in, and has announced no Session Expiry Interval.
pub(super) fn judge(version: Version, first: u8, body: &[u8], alias_max: u16) -> Verdict {
    match packet(version, first, &mut Bytes(body), alias_max) {
        Ok(verdict) => verdict,
        Err(wrong) => Verdict::Wrong(wrong),
    }
}

fn packet(version: Version, first: u8, bytes: &mut Bytes<'_>, alias_max: u16) -> Result<Verdict, Wrong> {
    let (kind, flags, five) = (first >> 4, first & 0x0F, version == Version::V5);
    let prescribed = match kind {
        3 => flags,
        6 | 8 | 10 => 0b0010,
        _ => 0,
    };
    if kind == 0 || flags != prescribed || kind == 15 && !five {
        return Err(if kind == 15 && flags == 0 { &[MalformedPacket, ProtocolError] } else { MALFORMED });
    }
    let mut verdict = Verdict::Good;
    match kind {
        // What only a server sends is wrong, whatever it says; and so is a second CONNECT.
        1 | 2 | 9 | 11 | 13 => {
            return Err(&[ProtocolError, MalformedPacket, UnsupportedProtocolVersion, TopicAliasInvalid]);
        }
        3 => return publish(five, flags, bytes, alias_max),
        4..=7 => {
            bytes.packet_id()?;
            if five && !bytes.0.is_empty() {
                reason(kind, bytes)?;
                if !bytes.0.is_empty() {
                    properties(bytes, ACK)?;
                }
            }
        }
        8 | 10 => {
            bytes.packet_id()?;
            if five {
                properties(bytes, if kind == 8 { SUBSCRIBE } else { UNSUBSCRIBE })?;
            }
            let mut count = 0;
            while !bytes.0.is_empty() {
                bytes.text()?;
                if kind == 8 {
                    options(five, bytes.byte()?)?;
                }
                count += 1;
            }
            if count == 0 {
                return Err(PROTOCOL);
            }
        }
        14 => {
            verdict = Verdict::Leave;
            if five && !bytes.0.is_empty() {
                reason(kind, bytes)?;
                if !bytes.0.is_empty() && properties(bytes, DISCONNECT)?.expiry.is_some_and(|s| s > 0) {
                    verdict = Verdict::Wrong(PROTOCOL);
                }
            }
        }
        // AUTH from a client that named no method [MQTT-4.12.0-7].
        15 => {
            verdict = Verdict::Wrong(PROTOCOL);
            if !bytes.0.is_empty() {
                reason(kind, bytes)?;
                properties(bytes, AUTH)?;
            }
        }
        _ => {}
    }
    if bytes.0.is_empty() { Ok(verdict) } else { Err(MALFORMED) }
}

fn reason(kind: u8, bytes: &mut Bytes<'_>) -> Result<(), Wrong> {
    let reason = bytes.byte()?;
    if reasons(kind).contains(&reason) { Ok(()) } else { Err(&[MalformedPacket, ProtocolError]) }
}

fn options(five: bool, byte: u8) -> Result<(), Wrong> {
    let reserved = if five { 0b1100_0000 } else { 0b1111_1100 };
    if byte & reserved != 0 {
        return Err(MALFORMED);
    }
    if byte & 3 == 3 || byte >> 4 & 3 == 3 { Err(PROTOCOL) } else { Ok(()) }
}

fn publish(five: bool, flags: u8, bytes: &mut Bytes<'_>, alias_max: u16) -> Result<Verdict, Wrong> {
    let qos = flags >> 1 & 3;
    if qos == 3 {
        return Err(MALFORMED);
    }
    let topic = bytes.text()?;
    if qos == 0 && flags & 8 != 0 {
        return Err(MALFORMED);
    }
    if qos > 0 {
        bytes.packet_id()?;
    }
    let said = if five { properties(bytes, PUBLISH)? } else { Said::default() };
    if said.identifier {
        return Err(PROTOCOL);
    }
    let has_alias = said.alias.is_some_and(|alias| alias > alias_max);
    if said.response_topic.is_some_and(|topic| !is_name(topic)) {
        // Either may be found first where both are wrong.
        return Err(if has_alias { &[ProtocolError, TopicNameInvalid, TopicAliasInvalid] } else { PROTOCOL });
    }
    match (topic.is_empty(), said.alias) {
        _ if has_alias => return Err(&[TopicAliasInvalid]),
        // Nothing was said under any alias before.
        (true, Some(_)) => return Err(&[ProtocolError, TopicAliasInvalid]),
        (true, None) => return Err(if five { PROTOCOL } else { &[TopicNameInvalid] }),
        (false, _) if !is_name(topic) => return Err(&[TopicNameInvalid]),
        (false, _) => {}
    }
    Ok(Verdict::Good)
}
