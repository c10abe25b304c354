//! MQTT control packets, 3.1.1 and 5.0: bytes to values and back.
//!
//! ```text
//! fixed header   type(4 bits) flags(4 bits) Remaining Length(1 to 4)
//! body           variable header, then payload; one file here for each kind
//! ```
//!
//! Clause numbers are those of MQTT 5.0 (OASIS Standard, 7 March 2019); a rule of 3.1.1 says so.
//! Everything decodes without a panic, and a payload is a slice of the bytes it came in.

mod acknowledgement;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod error;
mod fixed_header;
mod property;
mod publish;
mod reader;
mod reason;
mod suback;
mod subscribe;
mod text;
mod unsuback;
mod unsubscribe;
mod varint;
mod writer;

use std::fmt;
use std::num::NonZeroU16;

use bytes::{Bytes, BytesMut};

pub use acknowledgement::Acknowledgement;
pub use auth::Auth;
pub use connack::ConnAck;
pub use connect::{Connect, Will};
pub use disconnect::Disconnect;
pub use error::DecodeError;
pub use fixed_header::{Frame, begins_connection, split_frame};
pub use property::{Properties, Property};
pub use publish::{Assurance, Publish};
pub use reason::ReasonCode;
pub use suback::SubAck;
pub use subscribe::{RetainHandling, Subscribe, SubscribeFilter, SubscriptionOptions};
pub use text::Text;
pub use unsuback::UnsubAck;
pub use unsubscribe::Unsubscribe;

use fixed_header::Kind;
use reader::Reader;
use writer::with_length;

/// The protocol version of a connection (section 3.1.2.2).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Version {
    /// Protocol level 4.
    V3_1_1,
    /// Protocol level 5.
    V5,
}

impl Version {
    /// Its number, as people write it.
    #[must_use]
    pub const fn number(self) -> &'static str {
        match self {
            Self::V3_1_1 => "3.1.1",
            Self::V5 => "5.0",
        }
    }
}

/// How surely a message arrives (section 4.3).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum QoS {
    /// 0: at most once.
    AtMostOnce,
    /// 1: at least once.
    AtLeastOnce,
    /// 2: exactly once.
    ExactlyOnce,
}

impl QoS {
    /// The two bits on the wire.
    #[must_use]
    pub const fn as_bits(self) -> u8 {
        match self {
            Self::AtMostOnce => 0,
            Self::AtLeastOnce => 1,
            Self::ExactlyOnce => 2,
        }
    }

    /// The level of two bits; 3 is reserved [MQTT-3.3.1-4].
    pub(crate) const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// A Packet Identifier, never 0 (section 2.2.1).
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PacketId(NonZeroU16);

impl PacketId {
    pub(crate) const FIRST: Self = Self(NonZeroU16::MIN);

    /// The one after it; after the last the first.
    pub(crate) const fn next(self) -> Self {
        match self.0.checked_add(1) {
            Some(number) => Self(number),
            None => Self::FIRST,
        }
    }

    /// How many identifiers on the other one is.
    pub(crate) const fn distance_to(self, other: Self) -> u16 {
        let (from, to) = (self.get(), other.get());
        // A lap has 65 535 identifiers: 0 is none.
        if to >= from { to - from } else { to.wrapping_sub(from).wrapping_sub(1) }
    }

    /// The identifier of a number, if it is not 0.
    #[must_use]
    pub fn new(number: u16) -> Option<Self> {
        NonZeroU16::new(number).map(Self)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Debug for PacketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A control packet (section 2.1.2).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Packet {
    /// A client asks to come in.
    Connect(Box<Connect>),
    /// The answer to it.
    ConnAck(ConnAck),
    /// A message.
    Publish(Publish),
    /// The answer to a message of QoS 1.
    PubAck(Acknowledgement),
    /// The first answer to a message of QoS 2.
    PubRec(Acknowledgement),
    /// The second step of QoS 2.
    PubRel(Acknowledgement),
    /// The last step of QoS 2.
    PubComp(Acknowledgement),
    /// A client asks for messages.
    Subscribe(Subscribe),
    /// The answer to it.
    SubAck(SubAck),
    /// A client wants no more of them.
    Unsubscribe(Unsubscribe),
    /// The answer to it.
    UnsubAck(UnsubAck),
    /// A client says it is there.
    PingReq,
    /// The answer to it.
    PingResp,
    /// Either side ends the connection; in 3.1.1 the client alone.
    Disconnect(Disconnect),
    /// Enhanced authentication, 5.0 alone.
    Auth(Auth),
}

impl Packet {
    /// Decodes one frame. A CONNECT says its version itself; for every other packet it is the
    /// connection's.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] says which rule the bytes break, and how to answer.
    pub fn decode(frame: Frame, version: Version) -> Result<Self, DecodeError> {
        let flags = frame.flags()?;
        let mut body = Reader::new(frame.body);
        let is_allowed =
            |version| if frame.is_padded && version == Version::V5 { Err(DecodeError::PaddedVarint) } else { Ok(()) };
        if frame.kind != Kind::Connect {
            is_allowed(version)?;
        }
        let packet = match frame.kind {
            Kind::Connect => {
                let connect = Connect::decode(&mut body)?;
                is_allowed(connect.version)?;
                Self::Connect(Box::new(connect))
            }
            Kind::ConnAck => Self::ConnAck(ConnAck::decode(&mut body, version)?),
            Kind::Publish => return Publish::decode(flags, body, version).map(Self::Publish),
            Kind::PubAck => Self::PubAck(Acknowledgement::decode(frame.kind, &mut body, version)?),
            Kind::PubRec => Self::PubRec(Acknowledgement::decode(frame.kind, &mut body, version)?),
            Kind::PubRel => Self::PubRel(Acknowledgement::decode(frame.kind, &mut body, version)?),
            Kind::PubComp => Self::PubComp(Acknowledgement::decode(frame.kind, &mut body, version)?),
            Kind::Subscribe => Self::Subscribe(Subscribe::decode(&mut body, version)?),
            Kind::SubAck => Self::SubAck(SubAck::decode(&mut body, version)?),
            Kind::Unsubscribe => Self::Unsubscribe(Unsubscribe::decode(&mut body, version)?),
            Kind::UnsubAck => Self::UnsubAck(UnsubAck::decode(&mut body, version)?),
            Kind::PingReq => Self::PingReq,
            Kind::PingResp => Self::PingResp,
            Kind::Disconnect => Self::Disconnect(Disconnect::decode(&mut body, version)?),
            Kind::Auth => Self::Auth(Auth::decode(&mut body, version)?),
        };
        body.finish()?;
        Ok(packet)
    }

    /// Appends the packet's bytes.
    pub fn encode(&self, version: Version, out: &mut BytesMut) {
        let first = self.kind().first_byte(match self {
            Self::Publish(publish) => publish.flags(),
            _ => self.kind().fixed_flags(),
        });
        out.extend_from_slice(&[first]);
        with_length(out, |out| match self {
            Self::Connect(connect) => connect.encode(out),
            Self::ConnAck(ack) => ack.encode(version, out),
            Self::Publish(publish) => publish.encode(version, out),
            Self::PubAck(ack) | Self::PubRec(ack) | Self::PubRel(ack) | Self::PubComp(ack) => ack.encode(version, out),
            Self::Subscribe(subscribe) => subscribe.encode(version, out),
            Self::SubAck(ack) => ack.encode(version, out),
            Self::Unsubscribe(unsubscribe) => unsubscribe.encode(version, out),
            Self::UnsubAck(ack) => ack.encode(version, out),
            Self::PingReq | Self::PingResp => {}
            Self::Disconnect(disconnect) => disconnect.encode(version, out),
            Self::Auth(auth) => auth.encode(out),
        });
    }

    /// The packet's bytes alone.
    #[must_use]
    pub fn to_bytes(&self, version: Version) -> Bytes {
        let mut out = BytesMut::new();
        self.encode(version, &mut out);
        out.freeze()
    }

    /// Leaves out what only explains: Reason String and User Properties, for a client that takes no
    /// packet as large as this with them [MQTT-3.2.2-19, MQTT-3.2.2-20]. Says whether there was any.
    pub(crate) fn shorten(&mut self) -> bool {
        match self {
            Self::ConnAck(ack) => ack.properties.shorten(),
            Self::PubAck(ack) | Self::PubRec(ack) | Self::PubRel(ack) | Self::PubComp(ack) => ack.properties.shorten(),
            Self::SubAck(ack) => ack.properties.shorten(),
            Self::UnsubAck(ack) => ack.properties.shorten(),
            Self::Disconnect(disconnect) => disconnect.properties.shorten(),
            Self::Connect(_)
            | Self::Publish(_)
            | Self::Subscribe(_)
            | Self::Unsubscribe(_)
            | Self::PingReq
            | Self::PingResp
            | Self::Auth(_) => false,
        }
    }

    /// The standard's name for its kind.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.kind().name()
    }

    const fn kind(&self) -> Kind {
        match self {
            Self::Connect(_) => Kind::Connect,
            Self::ConnAck(_) => Kind::ConnAck,
            Self::Publish(_) => Kind::Publish,
            Self::PubAck(_) => Kind::PubAck,
            Self::PubRec(_) => Kind::PubRec,
            Self::PubRel(_) => Kind::PubRel,
            Self::PubComp(_) => Kind::PubComp,
            Self::Subscribe(_) => Kind::Subscribe,
            Self::SubAck(_) => Kind::SubAck,
            Self::Unsubscribe(_) => Kind::Unsubscribe,
            Self::UnsubAck(_) => Kind::UnsubAck,
            Self::PingReq => Kind::PingReq,
            Self::PingResp => Kind::PingResp,
            Self::Disconnect(_) => Kind::Disconnect,
            Self::Auth(_) => Kind::Auth,
        }
    }
}

#[cfg(test)]
mod tests;
