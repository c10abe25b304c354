//! CONNECT (section 3.1).
//!
//! ```text
//! "MQTT" level(1) flags(1) Keep Alive(2) [properties] client id [Will] [user name] [password]
//! ```

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use super::error::DecodeError;
use super::property::{Place, Properties};
use super::reader::Reader;
use super::text::Text;
use super::writer::put_prefixed;
use super::{QoS, Version};

const USER_NAME: u8 = 0x80;
const PASSWORD: u8 = 0x40;
const WILL_RETAIN: u8 = 0x20;
const WILL_QOS_SHIFT: u8 = 3;
const WILL: u8 = 0x04;
const CLEAN_START: u8 = 0x02;
const RESERVED: u8 = 0x01;

/// A client asks to come in.
#[derive(Clone, Eq, PartialEq)]
pub struct Connect {
    /// What it speaks.
    pub version: Version,
    /// Whether a session there may be is thrown away first; in 3.1.1 also whether the new one
    /// ends with its connection.
    pub clean_start: bool,
    /// Seconds between packets at most; 0 turns the mechanism off.
    pub keep_alive_s: u16,
    /// Session Expiry Interval and the rest; empty in 3.1.1.
    pub properties: Properties,
    /// The Client Identifier, perhaps empty.
    pub client_id: Text,
    /// What is published when the client is lost.
    pub will: Option<Will>,
    /// The User Name.
    pub user_name: Option<Text>,
    /// The Password.
    pub password: Option<Bytes>,
}

/// What is published when a client is lost (section 3.1.2.5).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Will {
    /// Where.
    pub topic: Text,
    /// What.
    pub payload: Bytes,
    /// How surely.
    pub qos: QoS,
    /// Whether it is retained.
    pub retain: bool,
    /// Will Delay Interval and what a PUBLISH may have; empty in 3.1.1.
    pub properties: Properties,
}

impl Connect {
    pub(super) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        if reader.binary()?.as_ref() != b"MQTT" {
            return Err(DecodeError::ProtocolName);
        }
        let version = match reader.u8()? {
            4 => Version::V3_1_1,
            5 => Version::V5,
            found => return Err(DecodeError::ProtocolLevel { found }),
        };
        let flags = reader.u8()?;
        if flags & RESERVED != 0 {
            return Err(DecodeError::ConnectFlags { found: flags });
        }
        let keep_alive_s = reader.u16()?;
        let properties = decode_properties(reader, version, Place::Connect)?;
        let client_id = reader.text()?;
        let will = Will::decode(reader, version, flags)?;
        let user_name = if flags & USER_NAME == 0 { None } else { Some(reader.text()?) };
        let password = match (flags & PASSWORD, version) {
            (0, _) => None,
            // A password needs a user name [MQTT-3.1.2-22] (3.1.1).
            (_, Version::V3_1_1) if user_name.is_none() => return Err(DecodeError::ConnectFlags { found: flags }),
            _ => Some(reader.binary()?),
        };
        let clean_start = flags & CLEAN_START != 0;
        Ok(Self { version, clean_start, keep_alive_s, properties, client_id, will, user_name, password })
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        put_prefixed(out, b"MQTT");
        out.put_u8(match self.version {
            Version::V3_1_1 => 4,
            Version::V5 => 5,
        });
        out.put_u8(self.flags());
        out.put_u16(self.keep_alive_s);
        if self.version == Version::V5 {
            self.properties.encode(out);
        }
        put_prefixed(out, self.client_id.as_bytes());
        if let Some(will) = &self.will {
            if self.version == Version::V5 {
                will.properties.encode(out);
            }
            put_prefixed(out, will.topic.as_bytes());
            put_prefixed(out, &will.payload);
        }
        if let Some(user_name) = &self.user_name {
            put_prefixed(out, user_name.as_bytes());
        }
        if let Some(password) = &self.password {
            put_prefixed(out, password);
        }
    }

    fn flags(&self) -> u8 {
        let bit = |on: bool, flag: u8| if on { flag } else { 0 };
        let will = self
            .will
            .as_ref()
            .map_or(0, |will| WILL | will.qos.as_bits() << WILL_QOS_SHIFT | bit(will.retain, WILL_RETAIN));
        bit(self.clean_start, CLEAN_START)
            | will
            | bit(self.user_name.is_some(), USER_NAME)
            | bit(self.password.is_some(), PASSWORD)
    }
}

impl Will {
    fn decode(reader: &mut Reader, version: Version, flags: u8) -> Result<Option<Self>, DecodeError> {
        let qos = QoS::from_bits(flags >> WILL_QOS_SHIFT & 0x03).ok_or(DecodeError::ReservedQos)?;
        let retain = flags & WILL_RETAIN != 0;
        if flags & WILL == 0 {
            // Without a Will its QoS and RETAIN are 0 [MQTT-3.1.2-11, MQTT-3.1.2-13].
            let clear = qos == QoS::AtMostOnce && !retain;
            return if clear { Ok(None) } else { Err(DecodeError::ConnectFlags { found: flags }) };
        }
        let properties = decode_properties(reader, version, Place::Will)?;
        let topic = reader.text()?;
        let payload = reader.binary()?;
        Ok(Some(Self { topic, payload, qos, retain, properties }))
    }
}

fn decode_properties(reader: &mut Reader, version: Version, place: Place) -> Result<Properties, DecodeError> {
    match version {
        Version::V3_1_1 => Ok(Properties::default()),
        Version::V5 => Properties::decode(reader, place),
    }
}

impl fmt::Debug for Connect {
    // A password has no place in a log, nor has a user name, which is often a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("client_id", &self.client_id)
            .field("clean_start", &self.clean_start)
            .field("keep_alive_s", &self.keep_alive_s)
            .field("will", &self.will.as_ref().map(|will| &will.topic))
            .field("user_name", &self.user_name.as_ref().map(|_| "[secret]"))
            .field("password", &self.password.as_ref().map(|_| "[secret]"))
            .finish_non_exhaustive()
    }
}
