//! The Double Ratchet: root key, sending chain, receiving chains (Double Ratchet section 3).
//!
//! ```text
//!                     new key of theirs, tag verified          own new key
//! (sending) ------------------------------------------> (owed) -----------> (sending)
//!                                                          at once, or when it is due
//! ```
//!
//! Everything is computed first and moved after the tag has verified, so that a failure changes
//! nothing and no copy of the state is ever made.

use core::num::NonZeroU32;

use rand_core::CryptoRng;
use unhidra_core::time::UnixTime;

use crate::aead;
use crate::chain::Chain;
use crate::envelope::{HEADER_LEN, MESSAGE_OVERHEAD, Message, PLAINTEXT_LEN_MAX, header};
use crate::error::{ChainKind, OpenError, SealError};
use crate::kdf::root_step;
use crate::keys::{KeyId, KeyPair, MessageKey, PublicBytes, RootKey, key_id};
use crate::role::Role;
use crate::skipped::Kept;

/// What is remembered of the receiving chain before the present one: enough to tell what never
/// can have been sent in it.
#[derive(Debug)]
pub(crate) struct OldChain {
    pub(crate) id: KeyId,
    /// How many messages it had: one at least, which began it.
    pub(crate) count: NonZeroU32,
}

/// What opening moved.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Change {
    /// The receiving chain, by one.
    Next,
    /// More of the state.
    More,
    /// The ratchet: a new key of the other side.
    Step,
}

/// Where a message belongs.
enum Place {
    /// Its key is kept.
    Kept(MessageKey, usize),
    /// At or beyond the count of the present receiving chain.
    Ahead,
    /// In a chain that is known, and nothing can open it.
    Passed(OpenError),
    /// Its ratchet key is unknown.
    Unknown,
}

pub(crate) struct Ratchet<R: Role> {
    pub(crate) root: RootKey,
    /// What ties every message to the handshake.
    pub(crate) sad: [u8; 32],
    pub(crate) own: KeyPair,
    pub(crate) peer: PublicBytes,
    pub(crate) sending: Option<Chain>,
    pub(crate) previous_chain_len: u32,
    pub(crate) receiving: Option<Chain>,
    pub(crate) old: Option<OldChain>,
    pub(crate) skipped: Kept<R::Skipped>,
}

/// A sending step, computed and not yet taken.
struct SendingStep {
    root: RootKey,
    own: KeyPair,
    chain: Chain,
}

impl<R: Role> Ratchet<R> {
    /// The side that sends first. `None` where `peer` has small order.
    pub(crate) fn sending_first(
        root: RootKey,
        sad: [u8; 32],
        peer: PublicBytes,
        rng: &mut impl CryptoRng,
    ) -> Option<Self> {
        let step = sending_step(&root, &peer, rng)?;
        Some(Self {
            root: step.root,
            sad,
            own: step.own,
            peer,
            sending: Some(step.chain),
            previous_chain_len: 0,
            receiving: None,
            old: None,
            skipped: Kept::default(),
        })
    }

    /// The side that receives first, under its signed prekey.
    pub(crate) fn receiving_first(root: RootKey, sad: [u8; 32], own: KeyPair) -> Self {
        Self {
            root,
            sad,
            own,
            // No key of the curve that a peer may use: the first message begins its chain.
            peer: [0; 32],
            sending: None,
            previous_chain_len: 0,
            receiving: None,
            old: None,
            skipped: Kept::default(),
        }
    }

    /// Whether a message under this key belongs to a chain of this ratchet.
    pub(crate) fn knows(&self, key: &PublicBytes) -> bool {
        let id = key_id(key);
        self.peer == *key || self.old.as_ref().is_some_and(|old| old.id == id) || self.skipped.knows(&id)
    }

    fn place(&self, message: &Message<'_>, now: UnixTime) -> Place {
        let (key, number) = (message.ratchet_key(), message.number());
        let id = key_id(key);
        if let Some(at) = self.skipped.find(&id, number)
            && let Some(kept) = self.skipped.key(at, R::SKIPPED_AGE_MAX, now)
        {
            return Place::Kept(kept, at);
        }
        if self.peer == *key {
            return match &self.receiving {
                Some(chain) if number >= chain.next => Place::Ahead,
                Some(_) => Place::Passed(OpenError::TooOld { number }),
                // The key they only ever received under: a signed prekey.
                None => Place::Passed(OpenError::HostileKey { tried: false }),
            };
        }
        match &self.old {
            Some(old) if old.id == id && number >= old.count.get() => Place::Passed(OpenError::RolledBack { number }),
            Some(old) if old.id == id => Place::Passed(OpenError::TooOld { number }),
            _ if self.skipped.knows(&id) => Place::Passed(OpenError::TooOld { number }),
            _ => Place::Unknown,
        }
    }

    /// Opens a message into the front of `out`. On the present chain N may jump by `jump_max`, on a
    /// new one never by more than the role's bound.
    pub(crate) fn open(
        &mut self,
        message: &Message<'_>,
        out: &mut [u8],
        jump_max: u32,
        now: UnixTime,
        rng: &mut impl CryptoRng,
    ) -> Result<Change, OpenError> {
        let needed = message.ciphertext().len();
        let found = out.len();
        let out = out.get_mut(..needed).ok_or(OpenError::OutTooSmall { needed, found })?;
        let change = match self.place(message, now) {
            Place::Kept(key, at) => self.open_kept(&key, at, message, out)?,
            Place::Ahead => self.open_ahead(message, out, jump_max, now)?,
            Place::Passed(error) => return Err(error),
            Place::Unknown => self.open_new(message, out, now, rng)?,
        };
        if self.skipped.expire(R::SKIPPED_AGE_MAX, now) && change == Change::Next {
            return Ok(Change::More);
        }
        Ok(change)
    }

    fn decrypt(&self, key: &MessageKey, message: &Message<'_>, out: &mut [u8]) -> bool {
        let ad = aead::associated_data(&self.sad, message.header());
        aead::decrypt(key, &ad, message.ciphertext(), out, message.tag()).is_some()
    }

    fn open_kept(
        &mut self,
        key: &MessageKey,
        at: usize,
        message: &Message<'_>,
        out: &mut [u8],
    ) -> Result<Change, OpenError> {
        if !self.decrypt(key, message, out) {
            return Err(OpenError::BadTag { number: message.number() });
        }
        self.skipped.remove(at);
        Ok(Change::More)
    }

    fn open_ahead(
        &mut self,
        message: &Message<'_>,
        out: &mut [u8],
        jump_max: u32,
        now: UnixTime,
    ) -> Result<Change, OpenError> {
        let number = message.number();
        let Some(chain) = self.receiving.as_ref() else { return Err(OpenError::TooOld { number }) };
        let jump = number.saturating_sub(chain.next);
        let too_far = OpenError::TooFar { number, jump, max: jump_max, chain: ChainKind::Known };
        if jump > jump_max {
            return Err(too_far);
        }
        // A long way is gone once: from where the keys that will be kept begin, not from the chain's
        // next message, they are derived again.
        let near = before::<R>(chain, number);
        let (key, after) = near.reach(number).ok_or(too_far)?;
        if !self.decrypt(&key, message, out) {
            return Err(OpenError::BadTag { number });
        }
        keep_until::<R>(&mut self.skipped, &key_id(&self.peer), near, number, now);
        self.receiving = Some(after);
        Ok(if jump > 0 { Change::More } else { Change::Next })
    }

    fn open_new(
        &mut self,
        message: &Message<'_>,
        out: &mut [u8],
        now: UnixTime,
        rng: &mut impl CryptoRng,
    ) -> Result<Change, OpenError> {
        let (key, number) = (message.ratchet_key(), message.number());
        let too_far = OpenError::TooFar { number, jump: number, max: R::JUMP_MAX, chain: ChainKind::New };
        if number > R::JUMP_MAX {
            return Err(too_far);
        }
        // An encoding with the highest bit set is no honest one, and would let one point pass for
        // two keys (RFC 7748 section 5).
        let [.., last] = *key;
        if last & 0x80 != 0 || key == self.own.public() {
            return Err(OpenError::HostileKey { tried: false });
        }
        let agreed = self.own.agree(key).ok_or(OpenError::HostileKey { tried: true })?;
        let (root, first) = root_step(&self.root, &agreed);
        let first = Chain::new(first);
        let (message_key, after) = first.reach(number).ok_or(too_far)?;
        if !self.decrypt(&message_key, message, out) {
            return Err(OpenError::UnknownKey { tried: true });
        }
        let step = match R::STEPS_AT_ONCE {
            true => Some(sending_step(&root, key, rng).ok_or(OpenError::HostileKey { tried: true })?),
            false => None,
        };

        self.close_receiving(message.previous_chain_len(), now);
        keep_until::<R>(&mut self.skipped, &key_id(key), before::<R>(&first, number), number, now);
        self.root = root;
        self.peer = *key;
        self.receiving = Some(after);
        if let Some(step) = step {
            self.take(step);
        }
        Ok(Change::Step)
    }

    /// Closes the receiving chain, of which the other side says it had `len` messages. Keys of the
    /// missing ones are kept; of a gap beyond the bound none are, and the session goes on.
    fn close_receiving(&mut self, len: u32, now: UnixTime) {
        let Some(chain) = self.receiving.take() else { return };
        let id = key_id(&self.peer);
        if len.saturating_sub(chain.next) <= R::JUMP_MAX {
            keep_until::<R>(&mut self.skipped, &id, before::<R>(&chain, len), len, now);
        }
        self.old = NonZeroU32::new(chain.next.max(len)).map(|count| OldChain { id, count });
    }

    /// Makes a new key of one's own, and begins the chain under it. Whether that was possible;
    /// where it was not, the peer's key has small order, which opening has refused before.
    pub(crate) fn step(&mut self, rng: &mut impl CryptoRng) -> bool {
        match sending_step(&self.root, &self.peer, rng) {
            Some(step) => {
                self.take(step);
                true
            }
            None => false,
        }
    }

    fn take(&mut self, step: SendingStep) {
        self.previous_chain_len = self.sending.as_ref().map_or(0, |chain| chain.next);
        self.root = step.root;
        self.own = step.own;
        self.sending = Some(step.chain);
    }

    /// The number the next sealed message has.
    pub(crate) fn next_number(&self) -> u32 {
        self.sending.as_ref().map_or(0, |chain| chain.next)
    }

    /// Seals into `out`, which is as long as the Message, and moves the sending chain.
    pub(crate) fn seal(&mut self, plaintext: &[u8], out: &mut [u8]) -> Result<(), SealError> {
        let needed = plaintext.len().saturating_add(MESSAGE_OVERHEAD);
        let wrong_len = SealError::OutLength { needed, found: out.len() };
        if plaintext.len() > PLAINTEXT_LEN_MAX {
            return Err(SealError::PlaintextTooLong { found: plaintext.len(), max: PLAINTEXT_LEN_MAX });
        }
        let chain = self.sending.as_ref().ok_or(SealError::ChainSpent)?;
        let (key, after) = chain.reach(chain.next).ok_or(SealError::ChainSpent)?;
        let header = header(self.own.public(), self.previous_chain_len, chain.next);
        let (front, rest) = out.split_first_chunk_mut::<HEADER_LEN>().ok_or(wrong_len)?;
        let (text, tag) = rest.split_last_chunk_mut().ok_or(wrong_len)?;
        *tag = aead::encrypt(&key, &aead::associated_data(&self.sad, &header), plaintext, text).ok_or(wrong_len)?;
        *front = header;
        self.sending = Some(after);
        Ok(())
    }
}

fn sending_step(root: &RootKey, peer: &PublicBytes, rng: &mut impl CryptoRng) -> Option<SendingStep> {
    let own = KeyPair::generate(rng);
    let (root, first) = root_step(root, &own.agree(peer)?);
    Some(SendingStep { root, own, chain: Chain::new(first) })
}

/// The chain where the keys begin that are kept of the messages before `end`: at its next message,
/// or later if there are more than are kept in all.
fn before<R: Role>(chain: &Chain, end: u32) -> Chain {
    chain.over(end.saturating_sub(u32::try_from(R::SKIPPED_MAX).unwrap_or(u32::MAX)))
}

/// Keeps the keys of the messages from the chain's next one up to `end`.
fn keep_until<R: Role>(skipped: &mut Kept<R::Skipped>, id: &KeyId, mut at: Chain, end: u32, now: UnixTime) {
    while at.next < end {
        let number = at.next;
        let Some((key, after)) = at.reach(number) else { return };
        skipped.keep(id, number, &key, now, R::SKIPPED_MAX);
        at = after;
    }
}
