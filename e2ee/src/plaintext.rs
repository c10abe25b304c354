//! What is inside the AEAD (PROTOCOL.md section 6): one CBOR map in deterministic encoding, and
//! padding that hides its length but for a size bucket.

use core::fmt;

use thiserror::Error;
use unhidra_core::ids::CommandId;
use unhidra_core::time::UnixTime;

use crate::cbor::{Decoder, KeyOrder, Malformed, put_bytes, put_map, put_text, put_unsigned};
use crate::envelope::PLAINTEXT_LEN_MAX;
use crate::wire::Writer;

/// The first byte of the padding (ISO/IEC 7816-4); zeros follow.
const PADDING: u8 = 0x80;
/// The small buckets; beyond them stand multiples of the last.
const BUCKETS: [usize; 5] = [64, 128, 256, 512, 1024];

const KIND: u64 = 0;
const NAME: u64 = 1;
const DEVICE_TIME: u64 = 2;
const BODY: u64 = 3;
const COMMAND_ID: u64 = 4;
const STATUS: u64 = 5;
const EXPIRES_AT: u64 = 6;
const TRANSFER: u64 = 7;
const CHUNK_OFFSET: u64 = 8;
const TOTAL: u64 = 9;
const READING_ID: u64 = 10;

/// What a plaintext is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// Up: a measured value.
    Reading,
    /// Up: the answer to a command.
    Receipt,
    /// Up: something that happened.
    Event,
    /// Up: a certificate request.
    CertificateRequest,
    /// Up: what the device wants, and how far it is, of firmware.
    Firmware,
    /// Down: something to do.
    Command,
    /// Down: `hello`, `alive` and the like.
    Setting,
    /// Down: the node's clock.
    Time,
    /// Down: a certificate.
    Certificate,
    /// Down: an offer of firmware, or a chunk of it.
    FirmwareChunk,
    /// None this version knows: acknowledged, counted and ignored.
    Unknown(u64),
}

impl Kind {
    /// Its number.
    #[must_use]
    pub const fn number(self) -> u64 {
        match self {
            Self::Reading => 0,
            Self::Receipt => 1,
            Self::Event => 2,
            Self::CertificateRequest => 3,
            Self::Firmware => 4,
            Self::Command => 16,
            Self::Setting => 17,
            Self::Time => 18,
            Self::Certificate => 19,
            Self::FirmwareChunk => 20,
            Self::Unknown(number) => number,
        }
    }

    /// The kind of a number.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        match number {
            0 => Self::Reading,
            1 => Self::Receipt,
            2 => Self::Event,
            3 => Self::CertificateRequest,
            4 => Self::Firmware,
            16 => Self::Command,
            17 => Self::Setting,
            18 => Self::Time,
            19 => Self::Certificate,
            20 => Self::FirmwareChunk,
            number => Self::Unknown(number),
        }
    }
}

/// What became of a command.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum Status {
    /// The device will act.
    Accepted = 0,
    /// It acted.
    Done = 1,
    /// It tried and could not.
    Failed = 2,
    /// The command came after its expiry.
    Expired = 3,
    /// It knows no command of that name.
    Unknown = 4,
}

impl Status {
    /// Its byte.
    #[must_use]
    pub const fn as_byte(self) -> u8 {
        self as u8
    }

    const fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            0 => Self::Accepted,
            1 => Self::Done,
            2 => Self::Failed,
            3 => Self::Expired,
            4 => Self::Unknown,
            _ => return None,
        })
    }
}

/// What one side tells the other.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Plaintext<'a> {
    /// Key 0: what it is.
    pub kind: Kind,
    /// Key 1: its name, `temperature` or `reboot` for instance.
    pub name: Option<&'a str>,
    /// Key 2: the device's clock, if it has one.
    pub device_time: Option<UnixTime>,
    /// Key 3: the body.
    pub body: Option<&'a [u8]>,
    /// Key 4: the command it is, or answers.
    pub command_id: Option<CommandId>,
    /// Key 5: what became of that command.
    pub status: Option<Status>,
    /// Key 6: when a command stops being acted on.
    pub expires_at: Option<UnixTime>,
    /// Key 7: which transfer a chunk is of.
    pub transfer: Option<u64>,
    /// Key 8: where the chunk begins.
    pub chunk_offset: Option<u64>,
    /// Key 9: bytes in all.
    pub total: Option<u64>,
    /// Key 10: the device's own id of a reading, kept until it is acknowledged; of a setting its
    /// version.
    pub reading_id: Option<u64>,
}

/// Why bytes that opened are no plaintext. The message is acknowledged all the same: the ratchet
/// has moved.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum PlaintextError {
    /// They are no map in deterministic CBOR, or it has a key twice.
    #[error("no CBOR map in deterministic encoding")]
    Cbor,
    /// A known key holds a value of another type.
    #[error("key {key} holds a value of another type")]
    Value {
        /// The key.
        key: u64,
    },
    /// There is no kind.
    #[error("no kind (key 0)")]
    NoKind,
    /// What follows the map is not its padding to the bucket.
    #[error("a map of {map_len} bytes is not padded to {found}")]
    Padding {
        /// Bytes of the map.
        map_len: usize,
        /// Bytes of map and padding found.
        found: usize,
    },
}

/// The buffer, or a Message, is too small for a plaintext.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("a padded plaintext of {needed} bytes; there is room for {max}")]
pub struct PlaintextTooLong {
    /// Bytes needed.
    pub needed: usize,
    /// Bytes of the buffer, or of the longest plaintext.
    pub max: usize,
}

/// How many bytes a map of `map_len` bytes is padded to.
#[must_use]
pub fn padded_len(map_len: usize) -> usize {
    let least = map_len.saturating_add(1);
    BUCKETS.into_iter().find(|bucket| least <= *bucket).unwrap_or_else(|| {
        let [.., step] = BUCKETS;
        least.div_ceil(step).saturating_mul(step)
    })
}

impl<'a> Plaintext<'a> {
    /// A plaintext of a kind, with nothing else in it.
    #[must_use]
    pub const fn new(kind: Kind) -> Self {
        Self {
            kind,
            name: None,
            device_time: None,
            body: None,
            command_id: None,
            status: None,
            expires_at: None,
            transfer: None,
            chunk_offset: None,
            total: None,
            reading_id: None,
        }
    }

    /// How many bytes [`encode_padded`](Self::encode_padded) writes.
    #[must_use]
    pub fn padded_len(&self) -> usize {
        let mut nothing = Writer::new(&mut []);
        self.put(&mut nothing);
        padded_len(match nothing.finish() {
            Ok(len) | Err(len) => len,
        })
    }

    /// Writes map and padding into the front of `out`, and says how long they are.
    ///
    /// # Errors
    ///
    /// [`PlaintextTooLong`] where `out` is shorter, or a Message could not carry it.
    pub fn encode_padded(&self, out: &mut [u8]) -> Result<usize, PlaintextTooLong> {
        let needed = self.padded_len();
        let max = out.len().min(PLAINTEXT_LEN_MAX);
        let too_long = PlaintextTooLong { needed, max };
        if needed > max {
            return Err(too_long);
        }
        let padded = out.get_mut(..needed).ok_or(too_long)?;
        let mut writer = Writer::new(padded);
        self.put(&mut writer);
        let map_len = writer.finish().map_err(|_| too_long)?;
        if let Some((first, zeros)) = padded.get_mut(map_len..).and_then(<[u8]>::split_first_mut) {
            *first = PADDING;
            zeros.fill(0);
        }
        Ok(needed)
    }

    fn put(&self, out: &mut Writer<'_>) {
        let numbers_before_body = [(DEVICE_TIME, self.device_time.map(UnixTime::as_ms))];
        let numbers_after_id = [
            (STATUS, self.status.map(|status| status.as_byte().into())),
            (EXPIRES_AT, self.expires_at.map(UnixTime::as_ms)),
            (TRANSFER, self.transfer),
            (CHUNK_OFFSET, self.chunk_offset),
            (TOTAL, self.total),
            (READING_ID, self.reading_id),
        ];
        let present = [self.name.is_some(), self.body.is_some(), self.command_id.is_some()];
        let numbers = numbers_before_body.iter().chain(&numbers_after_id);
        let kind = 1usize;
        let entries = kind
            .saturating_add(present.iter().filter(|present| **present).count())
            .saturating_add(numbers.filter(|(_, value)| value.is_some()).count());
        put_map(out, entries as u64);
        put_unsigned(out, KIND);
        put_unsigned(out, self.kind.number());
        if let Some(name) = self.name {
            put_unsigned(out, NAME);
            put_text(out, name);
        }
        put_numbers(out, &numbers_before_body);
        if let Some(body) = self.body {
            put_unsigned(out, BODY);
            put_bytes(out, body);
        }
        if let Some(id) = &self.command_id {
            put_unsigned(out, COMMAND_ID);
            put_bytes(out, id.as_bytes());
        }
        put_numbers(out, &numbers_after_id);
    }

    /// Reads an opened plaintext, padding and all.
    ///
    /// # Errors
    ///
    /// [`PlaintextError`] says what is wrong.
    pub fn decode(padded: &'a [u8]) -> Result<Self, PlaintextError> {
        let mut decoder = Decoder::new(padded);
        let entries = decoder.map().map_err(cbor)?;
        let mut order = KeyOrder::default();
        let mut read = Self::new(Kind::Unknown(u64::MAX));
        let mut kind = None;
        for _ in 0..entries {
            let mut key = Decoder::new(decoder.skip().map_err(cbor)?);
            order.next(key.rest()).map_err(cbor)?;
            let value = decoder.skip().map_err(cbor)?;
            // Keys of other types are unknown ones.
            if let Ok(key) = key.unsigned() {
                read.set(key, Decoder::new(value), &mut kind).map_err(|Malformed| PlaintextError::Value { key })?;
            }
        }
        read.kind = kind.ok_or(PlaintextError::NoKind)?;
        let found = padded.len();
        let map_len = found.saturating_sub(decoder.rest().len());
        match decoder.rest() {
            [PADDING, zeros @ ..] if padded_len(map_len) == found && zeros.iter().all(|byte| *byte == 0) => Ok(read),
            _ => Err(PlaintextError::Padding { map_len, found }),
        }
    }

    fn set(&mut self, key: u64, mut value: Decoder<'a>, kind: &mut Option<Kind>) -> Result<(), Malformed> {
        match key {
            KIND => *kind = Some(Kind::from_number(value.unsigned()?)),
            NAME => self.name = Some(value.text()?),
            DEVICE_TIME => self.device_time = Some(UnixTime::from_ms(value.unsigned()?)),
            BODY => self.body = Some(value.bytes()?),
            COMMAND_ID => {
                let id = value.bytes()?.try_into().map_err(|_| Malformed)?;
                self.command_id = Some(CommandId::new(id));
            }
            STATUS => self.status = Some(Status::from_number(value.unsigned()?).ok_or(Malformed)?),
            EXPIRES_AT => self.expires_at = Some(UnixTime::from_ms(value.unsigned()?)),
            TRANSFER => self.transfer = Some(value.unsigned()?),
            CHUNK_OFFSET => self.chunk_offset = Some(value.unsigned()?),
            TOTAL => self.total = Some(value.unsigned()?),
            READING_ID => self.reading_id = Some(value.unsigned()?),
            _ => {}
        }
        Ok(())
    }
}

const fn cbor(Malformed: Malformed) -> PlaintextError {
    PlaintextError::Cbor
}

fn put_numbers(out: &mut Writer<'_>, numbers: &[(u64, Option<u64>)]) {
    for (key, value) in numbers {
        if let Some(value) = value {
            put_unsigned(out, *key);
            put_unsigned(out, *value);
        }
    }
}

impl fmt::Debug for Plaintext<'_> {
    // Plaintext has no place in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plaintext")
            .field("kind", &self.kind)
            .field("body_len", &self.body.map(<[u8]>::len))
            .finish_non_exhaustive()
    }
}
