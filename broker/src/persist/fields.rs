//! The pieces records are made of, never read past their end.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::packet::{Assurance, Packet, Publish, QoS, Text, Version, split_frame};

/// The version of every record.
pub(super) const VERSION: u8 = 1;

/// Why bytes are no record of ours.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(crate) enum RecordError {
    #[error("version {found}; {VERSION} is what this node reads")]
    Version { found: u8 },
    #[error("it ends too early")]
    Truncated,
    #[error("{count} bytes behind its end")]
    Trailing { count: usize },
    #[error("{what}: {found}")]
    Value { what: &'static str, found: String },
}

pub(super) fn wrong(what: &'static str, found: impl ToString) -> RecordError {
    RecordError::Value { what, found: found.to_string() }
}

pub(super) const fn flags(qos: QoS, retain: bool) -> u8 {
    qos.as_bits() | (retain as u8) << 2
}

pub(super) fn qos(bits: u8) -> Result<QoS, RecordError> {
    QoS::from_bits(bits).ok_or_else(|| wrong("its QoS", bits))
}

pub(super) fn put_text(out: &mut BytesMut, text: &str) {
    // Names and identifiers came in with a two-byte length, or are shorter still.
    let len = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.put_u16(len);
    out.put_slice(text.as_bytes().get(..usize::from(len)).unwrap_or_default());
}

/// What of a record is still unread.
pub(super) struct Fields(pub(super) Bytes);

impl Fields {
    pub(super) fn begin(value: Bytes) -> Result<Self, RecordError> {
        let mut fields = Self(value);
        match fields.u8()? {
            VERSION => Ok(fields),
            found => Err(RecordError::Version { found }),
        }
    }

    pub(super) fn u8(&mut self) -> Result<u8, RecordError> {
        self.0.try_get_u8().map_err(|_| RecordError::Truncated)
    }

    pub(super) fn u16(&mut self) -> Result<u16, RecordError> {
        self.0.try_get_u16().map_err(|_| RecordError::Truncated)
    }

    pub(super) fn u32(&mut self) -> Result<u32, RecordError> {
        self.0.try_get_u32().map_err(|_| RecordError::Truncated)
    }

    pub(super) fn text(&mut self) -> Result<Text, RecordError> {
        let len = usize::from(self.u16()?);
        if len > self.0.len() {
            return Err(RecordError::Truncated);
        }
        Text::from_bytes(self.0.split_to(len)).map_err(|error| wrong("a text", error))
    }

    pub(super) fn u64(&mut self) -> Result<u64, RecordError> {
        self.0.try_get_u64().map_err(|_| RecordError::Truncated)
    }

    pub(super) fn flags(&mut self) -> Result<(QoS, bool), RecordError> {
        let found = self.u8()?;
        if found & !0b111 != 0 {
            return Err(wrong("its flags", found));
        }
        Ok((qos(found & 0b11)?, found & 0b100 != 0))
    }

    pub(super) fn publish(&mut self) -> Result<Publish, RecordError> {
        let mut rest = BytesMut::from(self.0.as_ref());
        let frame = split_frame(&mut rest, usize::MAX).map_err(|error| wrong("its PUBLISH", error))?;
        let frame = frame.ok_or(RecordError::Truncated)?;
        self.0 = rest.freeze();
        match Packet::decode(frame, Version::V5).map_err(|error| wrong("its PUBLISH", error))? {
            Packet::Publish(publish) if publish.assurance == Assurance::AtMostOnce => Ok(publish),
            other => Err(wrong("its PUBLISH", other.name())),
        }
    }

    pub(super) fn finish(self) -> Result<(), RecordError> {
        if self.0.is_empty() { Ok(()) } else { Err(RecordError::Trailing { count: self.0.len() }) }
    }
}
