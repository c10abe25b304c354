//! The bytes on the wire (PROTOCOL.md section 4), as views that copy nothing.
//!
//! ```text
//! PreKeyBundle   0x03 suite(1) nonce(16) last_counter(4) now_s(8) IK(32)
//!                spk_id(4) SPK(32) opk_id(4) OPK(32)
//!                [KEM public key (1184)] signature(64)                         198; suite 2: 1382
//! HandshakeInit  0x02 suite(1) IK(32) EK(32) spk_id(4) opk_id(4) counter(4)
//!                [KEM ciphertext (1088)]                                       78; suite 2: 1166;
//!                                                                              then a Message
//! Message        0x01 ratchet_key(32) PN(4) N(4) ciphertext tag(16)            57 and the ciphertext
//! ResetRequest   0x04 reason(1) ratchet_key(32) signature(64)                  98
//! PrekeyRequest  suite(1) nonce(16)                                            17, on its own topic
//! ```

use thiserror::Error;

use crate::kem::{KemCiphertext, KemKey};
use crate::reset::ResetReason;
use crate::suite::{Suite, SuiteError, built, is_built};
use crate::wire::{Reader, Short, join};

/// Bytes of a Message before its ciphertext; they are authenticated with it.
pub const HEADER_LEN: usize = 41;
/// Bytes of an authentication tag.
pub const TAG_LEN: usize = 16;
/// What a Message adds to its plaintext.
pub const MESSAGE_OVERHEAD: usize = HEADER_LEN + TAG_LEN;
/// Bytes of a KEM public key: ML-KEM-768.
pub const KEM_KEY_LEN: usize = 1184;
/// Bytes of a KEM ciphertext: ML-KEM-768.
pub const KEM_CIPHERTEXT_LEN: usize = 1088;
/// Bytes of a HandshakeInit of suite 1 before its Message.
pub const HEAD_LEN: usize = 78;
/// Bytes of a PreKeyBundle of suite 1.
pub const BUNDLE_LEN: usize = 198;
/// The most bytes a HandshakeInit has before its Message, of the suites this build has.
pub const HEAD_LEN_MAX: usize = if is_built(Suite::Pqxdh) { head_len(Suite::Pqxdh) } else { HEAD_LEN };
/// The most bytes a PreKeyBundle has, of the suites this build has.
pub const BUNDLE_LEN_MAX: usize = if is_built(Suite::Pqxdh) { bundle_len(Suite::Pqxdh) } else { BUNDLE_LEN };
/// Bytes of a ResetRequest.
pub const RESET_LEN: usize = 98;
/// Bytes of a PrekeyRequest.
pub const PREKEY_REQUEST_LEN: usize = 17;
/// The longest Message; the head of a HandshakeInit comes on top.
pub const MESSAGE_LEN_MAX: usize = 65_535;
/// The longest padded plaintext: the last multiple of 1024 that fits a Message.
pub const PLAINTEXT_LEN_MAX: usize = 64_512;

/// Bytes of a HandshakeInit before its Message.
#[must_use]
pub const fn head_len(suite: Suite) -> usize {
    match suite {
        Suite::X3dh => HEAD_LEN,
        Suite::Pqxdh => HEAD_LEN + KEM_CIPHERTEXT_LEN,
    }
}

/// Bytes of a PreKeyBundle.
#[must_use]
pub const fn bundle_len(suite: Suite) -> usize {
    match suite {
        Suite::X3dh => BUNDLE_LEN,
        Suite::Pqxdh => BUNDLE_LEN + KEM_KEY_LEN,
    }
}

pub(crate) const TYPE_MESSAGE: u8 = 0x01;
pub(crate) const TYPE_HANDSHAKE: u8 = 0x02;
pub(crate) const TYPE_BUNDLE: u8 = 0x03;
pub(crate) const TYPE_RESET: u8 = 0x04;

/// What a topic of a device carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Envelope<'a> {
    /// A message of a session.
    Message(Message<'a>),
    /// The beginning of a session, with its first message.
    HandshakeInit(HandshakeInit<'a>),
    /// The keys a device begins a session with.
    PreKeyBundle(PreKeyBundle<'a>),
    /// The node's wish for a new session.
    ResetRequest(ResetRequest<'a>),
}

/// Which kind of envelope.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum EnvelopeKind {
    /// Type 0x01.
    Message,
    /// Type 0x02.
    HandshakeInit,
    /// Type 0x03.
    PreKeyBundle,
    /// Type 0x04.
    ResetRequest,
    /// 17 bytes without a type, on `prekeys/get`.
    PrekeyRequest,
}

/// Why bytes are no envelope.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum EnvelopeError {
    /// There are none.
    #[error("an empty envelope")]
    Empty,
    /// The first byte is no type.
    #[error("an envelope of type 0x{found:02x}; there are 0x01 to 0x04")]
    UnknownType {
        /// The byte found.
        found: u8,
    },
    /// The bytes end early.
    #[error("a {kind:?} of {found} bytes; it has at least {min}")]
    TooShort {
        /// Of what.
        kind: EnvelopeKind,
        /// Bytes found.
        found: usize,
        /// Bytes it has at least.
        min: usize,
    },
    /// There are more bytes than the kind has.
    #[error("a {kind:?} of {found} bytes; it has at most {max}")]
    TooLong {
        /// Of what.
        kind: EnvelopeKind,
        /// Bytes found.
        found: usize,
        /// Bytes it has at most.
        max: usize,
    },
    /// There is no such suite.
    #[error("suite {found}; there are 1 and 2")]
    UnknownSuite {
        /// The byte found.
        found: u8,
    },
    /// There is such a suite, and this build leaves it out.
    #[error("suite {}, which this build leaves out: it needs the feature pqxdh", .found.as_byte())]
    SuiteNotBuilt {
        /// The suite found.
        found: Suite,
    },
    /// No such reason for a reset.
    #[error("reset reason {found}; there are 1 to 5")]
    UnknownReason {
        /// The byte found.
        found: u8,
    },
    /// A HandshakeInit carries something else than a Message.
    #[error("a HandshakeInit around type 0x{found:02x}; it carries a Message, 0x01")]
    InnerType {
        /// The type found.
        found: u8,
    },
}

/// A message of a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Message<'a> {
    header: &'a [u8; HEADER_LEN],
    ratchet_key: &'a [u8; 32],
    previous_chain_len: u32,
    number: u32,
    ciphertext: &'a [u8],
    tag: &'a [u8; TAG_LEN],
}

/// The beginning of a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HandshakeInit<'a> {
    head: &'a [u8],
    suite: Suite,
    identity: &'a [u8; 32],
    ephemeral: &'a [u8; 32],
    spk_id: u32,
    opk_id: u32,
    counter: u32,
    /// There in suite 2 alone.
    pub(crate) kem: Option<KemCiphertext<'a>>,
    message: Message<'a>,
}

/// The keys a device begins a session with, not yet verified: see
/// [`verify`](PreKeyBundle::verify).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PreKeyBundle<'a> {
    pub(crate) signed: &'a [u8],
    pub(crate) suite: Suite,
    pub(crate) nonce: &'a [u8; 16],
    pub(crate) last_counter: u32,
    pub(crate) now_s: u64,
    pub(crate) identity: &'a [u8; 32],
    pub(crate) spk_id: u32,
    pub(crate) spk: &'a [u8; 32],
    pub(crate) opk_id: u32,
    pub(crate) opk: &'a [u8; 32],
    /// There in suite 2 alone.
    pub(crate) kem: Option<KemKey<'a>>,
    pub(crate) signature: &'a [u8; 64],
}

/// The node's wish for a new session, not yet verified: see [`verify`](ResetRequest::verify).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ResetRequest<'a> {
    pub(crate) signed: &'a [u8],
    pub(crate) reason: ResetReason,
    pub(crate) ratchet_key: &'a [u8; 32],
    pub(crate) signature: &'a [u8; 64],
}

/// What a device asks for a bundle with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PrekeyRequest {
    /// Its suite.
    pub suite: Suite,
    /// What the bundle must repeat, so that no recorded one is taken.
    pub nonce: [u8; 16],
}

impl<'a> Envelope<'a> {
    /// Reads what a topic carried.
    ///
    /// # Errors
    ///
    /// [`EnvelopeError`] says what is wrong; the sender is answered with PUBACK 0x83.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        match *bytes.first().ok_or(EnvelopeError::Empty)? {
            TYPE_MESSAGE => Message::parse(bytes).map(Self::Message),
            TYPE_HANDSHAKE => HandshakeInit::parse(bytes).map(Self::HandshakeInit),
            TYPE_BUNDLE => PreKeyBundle::parse(bytes).map(Self::PreKeyBundle),
            TYPE_RESET => ResetRequest::parse(bytes).map(Self::ResetRequest),
            found => Err(EnvelopeError::UnknownType { found }),
        }
    }
}

fn length(kind: EnvelopeKind, found: usize, min: usize, max: usize) -> Result<(), EnvelopeError> {
    if found < min {
        Err(EnvelopeError::TooShort { kind, found, min })
    } else if found > max {
        Err(EnvelopeError::TooLong { kind, found, max })
    } else {
        Ok(())
    }
}

impl From<SuiteError> for EnvelopeError {
    fn from(error: SuiteError) -> Self {
        match error {
            SuiteError::Unknown { found } => Self::UnknownSuite { found },
            SuiteError::NotBuilt { found } => Self::SuiteNotBuilt { found },
        }
    }
}

/// The suite of a bundle or a HandshakeInit, which decides its length, hence is read first. Bytes
/// that end before it are too short for any.
fn suite_of(bytes: &[u8]) -> Result<Suite, EnvelopeError> {
    Ok(bytes.get(1).map_or(Ok(Suite::X3dh), |&byte| built(byte))?)
}

/// The lengths were checked before, so this names the kind for form's sake.
const fn short(kind: EnvelopeKind, found: usize, min: usize) -> impl Fn(Short) -> EnvelopeError {
    move |Short| EnvelopeError::TooShort { kind, found, min }
}

impl<'a> Message<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        let kind = EnvelopeKind::Message;
        length(kind, bytes.len(), MESSAGE_OVERHEAD, MESSAGE_LEN_MAX)?;
        let short = short(kind, bytes.len(), MESSAGE_OVERHEAD);
        let mut reader = Reader::new(bytes);
        let header = reader.take().map_err(&short)?;
        let (ciphertext, tag) = reader.rest().split_last_chunk().ok_or_else(|| short(Short))?;
        let mut fields = Reader::new(header);
        fields.u8().map_err(&short)?;
        Ok(Self {
            header,
            ratchet_key: fields.take().map_err(&short)?,
            previous_chain_len: fields.u32().map_err(&short)?,
            number: fields.u32().map_err(&short)?,
            ciphertext,
            tag,
        })
    }

    /// The bytes before the ciphertext.
    #[must_use]
    pub const fn header(&self) -> &'a [u8; HEADER_LEN] {
        self.header
    }

    /// The sender's ratchet public key.
    #[must_use]
    pub const fn ratchet_key(&self) -> &'a [u8; 32] {
        self.ratchet_key
    }

    /// PN: how many messages the sender's chain before this one had.
    #[must_use]
    pub const fn previous_chain_len(&self) -> u32 {
        self.previous_chain_len
    }

    /// N: the message's number in its chain, from 0.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// The ciphertext; the plaintext has as many bytes.
    #[must_use]
    pub const fn ciphertext(&self) -> &'a [u8] {
        self.ciphertext
    }

    /// The authentication tag.
    #[must_use]
    pub const fn tag(&self) -> &'a [u8; TAG_LEN] {
        self.tag
    }
}

/// The header of a Message.
pub(crate) fn header(ratchet_key: &[u8; 32], previous_chain_len: u32, number: u32) -> [u8; HEADER_LEN] {
    join(&[&[TYPE_MESSAGE], ratchet_key, &previous_chain_len.to_be_bytes(), &number.to_be_bytes()])
}

impl<'a> HandshakeInit<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        let kind = EnvelopeKind::HandshakeInit;
        let suite = suite_of(bytes)?;
        let head_len = head_len(suite);
        let min = head_len.saturating_add(MESSAGE_OVERHEAD);
        length(kind, bytes.len(), min, head_len.saturating_add(MESSAGE_LEN_MAX))?;
        let short = short(kind, bytes.len(), min);
        let (head, inner) = bytes.split_at_checked(head_len).ok_or_else(|| short(Short))?;
        if let Some(&found) = inner.first().filter(|&&found| found != TYPE_MESSAGE) {
            return Err(EnvelopeError::InnerType { found });
        }
        let mut fields = Reader::new(head);
        fields.take::<2>().map_err(&short)?;
        Ok(Self {
            head,
            suite,
            identity: fields.take().map_err(&short)?,
            ephemeral: fields.take().map_err(&short)?,
            spk_id: fields.u32().map_err(&short)?,
            opk_id: fields.u32().map_err(&short)?,
            counter: fields.u32().map_err(&short)?,
            kem: match suite {
                Suite::X3dh => None,
                Suite::Pqxdh => Some(KemCiphertext::read(&mut fields).map_err(&short)?),
            },
            message: Message::parse(inner)?,
        })
    }

    /// The bytes before the Message.
    #[must_use]
    pub const fn head(&self) -> &'a [u8] {
        self.head
    }

    /// The suite.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// The device's identity key, as it says.
    #[must_use]
    pub const fn identity(&self) -> &'a [u8; 32] {
        self.identity
    }

    /// EK: the ephemeral key of this handshake.
    #[must_use]
    pub const fn ephemeral(&self) -> &'a [u8; 32] {
        self.ephemeral
    }

    /// Which signed prekey it used.
    #[must_use]
    pub const fn spk_id(&self) -> u32 {
        self.spk_id
    }

    /// Which one-time prekey it used.
    #[must_use]
    pub const fn opk_id(&self) -> u32 {
        self.opk_id
    }

    /// The handshake counter.
    #[must_use]
    pub const fn counter(&self) -> u32 {
        self.counter
    }

    /// The first message, or a later one for as long as the head is repeated.
    #[must_use]
    pub const fn message(&self) -> Message<'a> {
        self.message
    }
}

impl<'a> PreKeyBundle<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        let kind = EnvelopeKind::PreKeyBundle;
        let suite = suite_of(bytes)?;
        let len = bundle_len(suite);
        length(kind, bytes.len(), len, len)?;
        let short = short(kind, bytes.len(), len);
        let (signed, signature) = bytes.split_last_chunk().ok_or_else(|| short(Short))?;
        let mut fields = Reader::new(signed);
        fields.take::<2>().map_err(&short)?;
        Ok(Self {
            signed,
            suite,
            nonce: fields.take().map_err(&short)?,
            last_counter: fields.u32().map_err(&short)?,
            now_s: fields.u64().map_err(&short)?,
            identity: fields.take().map_err(&short)?,
            spk_id: fields.u32().map_err(&short)?,
            spk: fields.take().map_err(&short)?,
            opk_id: fields.u32().map_err(&short)?,
            opk: fields.take().map_err(&short)?,
            kem: match suite {
                Suite::X3dh => None,
                Suite::Pqxdh => Some(KemKey::read(&mut fields).map_err(&short)?),
            },
            signature,
        })
    }
}

impl<'a> ResetRequest<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        let kind = EnvelopeKind::ResetRequest;
        length(kind, bytes.len(), RESET_LEN, RESET_LEN)?;
        let short = short(kind, bytes.len(), RESET_LEN);
        let (signed, signature) = bytes.split_last_chunk().ok_or_else(|| short(Short))?;
        let mut fields = Reader::new(signed);
        fields.u8().map_err(&short)?;
        let found = fields.u8().map_err(&short)?;
        let reason = ResetReason::from_byte(found).ok_or(EnvelopeError::UnknownReason { found })?;
        Ok(Self { signed, reason, ratchet_key: fields.take().map_err(&short)?, signature })
    }
}

impl PrekeyRequest {
    /// Reads what `prekeys/get` carried.
    ///
    /// # Errors
    ///
    /// [`EnvelopeError`] says what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let kind = EnvelopeKind::PrekeyRequest;
        length(kind, bytes.len(), PREKEY_REQUEST_LEN, PREKEY_REQUEST_LEN)?;
        let short = short(kind, bytes.len(), PREKEY_REQUEST_LEN);
        let mut reader = Reader::new(bytes);
        let suite = built(reader.u8().map_err(&short)?)?;
        Ok(Self { suite, nonce: *reader.take().map_err(&short)? })
    }

    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; PREKEY_REQUEST_LEN] {
        join(&[&[self.suite.as_byte()], &self.nonce])
    }
}
