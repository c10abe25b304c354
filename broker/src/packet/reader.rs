//! Reading the pieces packets are made of, never past their end.

use bytes::{Buf, Bytes};

use super::error::DecodeError;
use super::text::Text;
use super::{PacketId, varint};

/// What of a packet's body is still unread.
pub(super) struct Reader {
    rest: Bytes,
}

impl Reader {
    pub(super) const fn new(body: Bytes) -> Self {
        Self { rest: body }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// # Errors
    ///
    /// Bytes are left after the last field.
    pub(super) fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes { count: self.rest.len() }) }
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.rest.try_get_u8().map_err(|_| DecodeError::Truncated)
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.rest.try_get_u16().map_err(|_| DecodeError::Truncated)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.rest.try_get_u32().map_err(|_| DecodeError::Truncated)
    }

    pub(super) fn varint(&mut self) -> Result<u32, DecodeError> {
        let (value, len) = varint::read(&self.rest)?.ok_or(DecodeError::Truncated)?;
        if varint::is_padded(value, len) {
            return Err(DecodeError::PaddedVarint);
        }
        self.rest.advance(len);
        Ok(value)
    }

    pub(super) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        PacketId::new(self.u16()?).ok_or(DecodeError::PacketIdZero)
    }

    /// The next `len` bytes, shared.
    pub(super) fn take(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        if len > self.rest.len() {
            return Err(DecodeError::Truncated);
        }
        Ok(self.rest.split_to(len))
    }

    /// Binary data with its two-byte length (section 1.5.6).
    pub(super) fn binary(&mut self) -> Result<Bytes, DecodeError> {
        let len = usize::from(self.u16()?);
        self.take(len)
    }

    /// A UTF-8 string with its two-byte length (section 1.5.4).
    pub(super) fn text(&mut self) -> Result<Text, DecodeError> {
        Text::from_bytes(self.binary()?)
    }

    /// Everything that is left, shared.
    pub(super) fn rest(self) -> Bytes {
        self.rest
    }
}
