//! The state record, version 1 (PROTOCOL.md section 12).
//!
//! ```text
//! at  bytes                               at  bytes
//!   0   1  version, 1                      160  32  receiving chain key
//!   1   1  role: 1 device, 2 node, 3 stock 192   4  its count
//!   2   1  suite                           196   8  old chain: ratchet key, first bytes
//!   3   1  flags, below                    204   4  its count
//!   4   4  handshake counter               208  32  sending chain key
//!   8   8  EK of the handshake, first      240   4  its next number; a device's lease's end
//!  16   8  began, ms since the epoch       244   4  PN
//!  24   8  the device's chain since, ms    248   4  next number at the last message opened
//!  32  32  root key                        252   2  skipped keys, then 48 bytes each:
//!  64  32  SAD                                      chain(8) number(4) kept_at_s(4) key(32)
//!  96  32  own ratchet secret              end  78  head of the handshake, where flag 0x10 is set;
//!                                                  suite 2: 1166
//! 128  32  ratchet key of the other side
//!
//! flags  0x01 sending chain   0x02 receiving chain   0x04 old chain   0x08 a DH step is owed
//!        0x10 head follows    0x20 restored          the others are zero
//!
//! receive record  0x11 ratchet key of the other side(4) chain key(32) count(4) next number(4)
//! send record     0x12 own ratchet key(4) chain key(32) next number(4)
//! ```
//!
//! What a flag says is absent is all zero.

use core::num::NonZeroU32;

use thiserror::Error;
use unhidra_core::time::UnixTime;

use crate::chain::Chain;
use crate::envelope::head_len;
use crate::keys::{ChainKey, KeyPair, RootKey};
use crate::ratchet::{OldChain, Ratchet};
use crate::role::{HeadSlot, Role};
use crate::session::{Session, Step};
use crate::skipped::{Kept, SLOT_LEN};
use crate::suite::{Suite, SuiteError, built};
use crate::wire::{Reader, Short, Writer};

const VERSION: u8 = 1;
pub(crate) const RECEIVE_RECORD: u8 = 0x11;
pub(crate) const SEND_RECORD: u8 = 0x12;

const FLAG_SENDING: u8 = 0x01;
const FLAG_RECEIVING: u8 = 0x02;
const FLAG_OLD: u8 = 0x04;
const FLAG_STEP_OWED: u8 = 0x08;
const FLAG_HEAD: u8 = 0x10;
const FLAG_RESTORED: u8 = 0x20;
const FLAGS: u8 = 0x3f;

/// Bytes of the record before its skipped keys.
pub const STATE_LEN: usize = 252;

/// The caller's buffer is too small for the record.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("a state record of {needed} bytes for a buffer of {found}")]
pub struct StateTooLong {
    /// Bytes needed.
    pub needed: usize,
    /// Bytes found.
    pub found: usize,
}

/// Why bytes are no state record.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum StateError {
    /// Written by a version this one does not read.
    #[error("a state record of version {found}; 1 is read")]
    Version {
        /// The version found.
        found: u8,
    },
    /// Written by the other side.
    #[error("a state record of role {found}; expected {expected}")]
    Role {
        /// The role found.
        found: u8,
        /// The reader's.
        expected: u8,
    },
    /// Of no suite.
    #[error("a state record of suite {found}; there are 1 and 2")]
    Suite {
        /// The suite found.
        found: u8,
    },
    /// Of a suite that this build leaves out.
    #[error("a state record of suite {}, which this build leaves out: it needs the feature pqxdh", .found.as_byte())]
    SuiteNotBuilt {
        /// The suite found.
        found: Suite,
    },
    /// Flags nobody sets, a head where this role has none, or an old chain without a message.
    #[error("a state record with flags 0x{found:02x}")]
    Flags {
        /// The flags found.
        found: u8,
    },
    /// A field holds something although no flag calls it present.
    #[error("a state record with something in a field that its flags call absent")]
    NotAbsent,
    /// The bytes end early.
    #[error("a state record that ends early")]
    Short,
    /// There are bytes after the end.
    #[error("a state record with {extra} bytes after its end")]
    TooLong {
        /// How many.
        extra: usize,
    },
    /// More skipped keys than this role keeps.
    #[error("a state record with more skipped keys than {max}")]
    TooManySkipped {
        /// How many it keeps.
        max: usize,
    },
    /// A chain's record is none.
    #[error("a chain record that is none, or is the other chain's")]
    Chain,
}

impl From<SuiteError> for StateError {
    fn from(error: SuiteError) -> Self {
        match error {
            SuiteError::Unknown { found } => Self::Suite { found },
            SuiteError::NotBuilt { found } => Self::SuiteNotBuilt { found },
        }
    }
}

impl From<Short> for StateError {
    fn from(Short: Short) -> Self {
        Self::Short
    }
}

impl<R: Role> Session<R> {
    /// The most bytes [`encode`](Self::encode) writes.
    pub const ENCODED_LEN_MAX: usize = STATE_LEN + 2 + R::SKIPPED_MAX * SLOT_LEN + R::Head::LEN_MAX;

    /// How many bytes [`encode`](Self::encode) writes now.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let head = self.head.head().map_or(0, <[u8]>::len);
        STATE_LEN.saturating_add(self.ratchet.skipped.encoded_len()).saturating_add(head)
    }

    /// Writes the state whole into the front of `out`, and says how long it is. The sending chain
    /// stands at the end of the leases.
    ///
    /// What is written is secret: the caller encrypts it or keeps it where nobody else reads.
    ///
    /// # Errors
    ///
    /// [`StateTooLong`] where `out` is shorter.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, StateTooLong> {
        let found = out.len();
        let ratchet = &self.ratchet;
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags = flag(ratchet.sending.is_some(), FLAG_SENDING)
            | flag(ratchet.receiving.is_some(), FLAG_RECEIVING)
            | flag(ratchet.old.is_some(), FLAG_OLD)
            | flag(self.step != Step::Taken, FLAG_STEP_OWED)
            | flag(self.head.head().is_some(), FLAG_HEAD)
            | flag(self.restored, FLAG_RESTORED);
        let mut writer = Writer::new(out);
        writer.put(&[VERSION, R::BYTE, self.suite.as_byte(), flags]);
        writer.put(&self.counter.to_be_bytes());
        writer.put(&self.handshake);
        writer.put(&self.began_at.as_ms().to_be_bytes());
        writer.put(&self.chain_since.as_ms().to_be_bytes());
        writer.put(&ratchet.root.0);
        writer.put(&ratchet.sad);
        writer.put(ratchet.own.secret_bytes());
        writer.put(&ratchet.peer);
        put_chain(&mut writer, ratchet.receiving.as_ref());
        let (old_id, old_count) = ratchet.old.as_ref().map_or(([0; 8], 0), |old| (old.id, old.count.get()));
        writer.put(&old_id);
        writer.put(&old_count.to_be_bytes());
        put_chain(&mut writer, ratchet.sending.as_ref().map(|chain| chain.over(self.leased_to)).as_ref());
        writer.put(&ratchet.previous_chain_len.to_be_bytes());
        writer.put(&self.answered_at.to_be_bytes());
        ratchet.skipped.encode(&mut writer);
        if let Some(head) = self.head.head() {
            writer.put(head);
        }
        writer.finish().map_err(|needed| StateTooLong { needed, found })
    }

    /// Reads a state back: the whole, and what each chain has become since.
    ///
    /// A chain's record counts where it names the whole's chain and is ahead of it. One that is not
    /// was left by a write of the whole that lost power before the record was deleted.
    ///
    /// # Errors
    ///
    /// [`StateError`] says what is wrong: damage, or another version.
    pub fn decode(whole: &[u8], receive: Option<&[u8]>, send: Option<&[u8]>) -> Result<Self, StateError> {
        let mut session = decode_whole(whole)?;
        if let Some(bytes) = receive {
            read_receive(&mut session, bytes)?;
        }
        if let Some(bytes) = send {
            read_send(&mut session, bytes)?;
        }
        Ok(session)
    }
}

fn put_chain(writer: &mut Writer<'_>, chain: Option<&Chain>) {
    match chain {
        Some(chain) => {
            writer.put(&chain.key.0);
            writer.put(&chain.next.to_be_bytes());
        }
        None => writer.put(&[0; 36]),
    }
}

fn chain(reader: &mut Reader<'_>, present: bool) -> Result<Option<Chain>, StateError> {
    let mut field = Reader::new(field::<36>(reader, present)?);
    let chain = Chain { key: ChainKey(*field.take()?), next: field.u32()? };
    Ok(present.then_some(chain))
}

/// A field, which is all zero where it is absent: a state has one record, and a record that was
/// damaged there is seen.
fn field<'a, const N: usize>(reader: &mut Reader<'a>, present: bool) -> Result<&'a [u8; N], StateError> {
    let field: &[u8; N] = reader.take()?;
    if present || field.iter().all(|byte| *byte == 0) { Ok(field) } else { Err(StateError::NotAbsent) }
}

fn decode_whole<R: Role>(whole: &[u8]) -> Result<Session<R>, StateError> {
    let mut reader = Reader::new(whole);
    let version = reader.u8()?;
    if version != VERSION {
        return Err(StateError::Version { found: version });
    }
    let role = reader.u8()?;
    if role != R::BYTE {
        return Err(StateError::Role { found: role, expected: R::BYTE });
    }
    let suite = built(reader.u8()?)?;
    let flags = reader.u8()?;
    if flags & !FLAGS != 0 {
        return Err(StateError::Flags { found: flags });
    }
    let set = |flag: u8| flags & flag != 0;
    let counter = reader.u32()?;
    let handshake = *reader.take()?;
    let began_at = UnixTime::from_ms(reader.u64()?);
    let chain_since = UnixTime::from_ms(reader.u64()?);
    let root = RootKey(*reader.take()?);
    let sad = *reader.take()?;
    let own = KeyPair::from_bytes(reader.take()?);
    let peer = *reader.take()?;
    let receiving = chain(&mut reader, set(FLAG_RECEIVING))?;
    let mut old = Reader::new(field::<12>(&mut reader, set(FLAG_OLD))?);
    let (id, count) = (*old.take()?, NonZeroU32::new(old.u32()?));
    let old = count.map(|count| OldChain { id, count });
    if old.is_some() != set(FLAG_OLD) {
        return Err(StateError::Flags { found: flags });
    }
    let sending = chain(&mut reader, set(FLAG_SENDING))?;
    let previous_chain_len = reader.u32()?;
    let answered_at = reader.u32()?;
    let skipped =
        Kept::decode(&mut reader, R::SKIPPED_MAX)?.ok_or(StateError::TooManySkipped { max: R::SKIPPED_MAX })?;
    let (head, rest) = match set(FLAG_HEAD) {
        true => {
            let (head, rest) = reader.rest().split_at_checked(head_len(suite)).ok_or(StateError::Short)?;
            (R::Head::holding(suite, head).ok_or(StateError::Flags { found: flags })?, rest)
        }
        false => (R::Head::default(), reader.rest()),
    };
    if !rest.is_empty() {
        return Err(StateError::TooLong { extra: rest.len() });
    }
    Ok(Session {
        ratchet: Ratchet { root, sad, own, peer, sending, previous_chain_len, receiving, old, skipped },
        suite,
        counter,
        handshake,
        began_at,
        chain_since,
        answered_at,
        leased_to: 0,
        restored: set(FLAG_RESTORED),
        step: if set(FLAG_STEP_OWED) { Step::Due } else { Step::Taken },
        chain_written: true,
        head,
    })
}

fn read_receive<R: Role>(session: &mut Session<R>, bytes: &[u8]) -> Result<(), StateError> {
    let mut reader = Reader::new(bytes);
    let named: [u8; 4] = chain_header(&mut reader, RECEIVE_RECORD)?;
    let read = chain(&mut reader, true)?;
    let answered_at = reader.u32()?;
    end_of(&reader)?;
    let same = session.ratchet.peer.starts_with(&named);
    let ahead = |(now, read): (&Chain, &Chain)| read.next > now.next;
    if same && session.ratchet.receiving.as_ref().zip(read.as_ref()).is_some_and(ahead) {
        session.ratchet.receiving = read;
        session.answered_at = answered_at;
    }
    Ok(())
}

fn read_send<R: Role>(session: &mut Session<R>, bytes: &[u8]) -> Result<(), StateError> {
    let mut reader = Reader::new(bytes);
    let named: [u8; 4] = chain_header(&mut reader, SEND_RECORD)?;
    let read = chain(&mut reader, true)?;
    end_of(&reader)?;
    let same = session.ratchet.own.public().starts_with(&named);
    let ahead = |(now, read): (&Chain, &Chain)| read.next > now.next;
    if same && session.ratchet.sending.as_ref().zip(read.as_ref()).is_some_and(ahead) {
        session.ratchet.sending = read;
    }
    Ok(())
}

fn chain_header(reader: &mut Reader<'_>, expected: u8) -> Result<[u8; 4], StateError> {
    if reader.u8()? != expected {
        return Err(StateError::Chain);
    }
    Ok(*reader.take()?)
}

fn end_of(reader: &Reader<'_>) -> Result<(), StateError> {
    match reader.rest() {
        [] => Ok(()),
        extra => Err(StateError::TooLong { extra: extra.len() }),
    }
}
