//! One session: open and seal, each with the delta to persist.

use core::fmt;
use core::num::NonZeroU8;

use rand_core::CryptoRng;
use unhidra_core::durable::Durable;
use unhidra_core::time::UnixTime;

use crate::delta::{ChainRecord, Lane, StateDelta};
use crate::envelope::{MESSAGE_OVERHEAD, Message};
use crate::error::{OpenError, SealError};
use crate::identity::IdentityKey;
use crate::keys::{KeyId, PublicBytes, key_id};
use crate::lease::{Lease, PendingLease};
use crate::ratchet::{Change, Ratchet};
use crate::recent::MessageTag;
use crate::record::{RECEIVE_RECORD, SEND_RECORD};
use crate::role::{
    ALIVE_AFTER, ALIVE_AFTER_MESSAGES, ALIVE_UNANSWERED_MAX, CommitsFirst, DeviceRole, HeadSlot, Role, STEP_AFTER,
    STEP_AFTER_MESSAGES,
};
use crate::suite::Suite;

/// One side of a session.
///
/// Not `Clone`: a copy would use message keys twice. Wiped on drop, prints no secret.
///
/// It moves in memory ahead of the store. Where a delta could not be written the session is void:
/// drop it and read it back.
///
/// ```compile_fail,E0277
/// # use unhidra_e2ee::{role::DeviceRole, session::Session};
/// fn copied<T: Clone>() {}
/// copied::<Session<DeviceRole>>();
/// ```
pub struct Session<R: Role> {
    pub(crate) ratchet: Ratchet<R>,
    pub(crate) suite: Suite,
    /// The handshake counter it began with.
    pub(crate) counter: u32,
    /// The first bytes of the EK it began with, to know its head again.
    pub(crate) handshake: KeyId,
    pub(crate) began_at: UnixTime,
    /// When the device's present ratchet key came into use: its sending chain, the node's
    /// receiving one.
    pub(crate) chain_since: UnixTime,
    /// The number the next sealed message had when a message of the other side was last opened.
    pub(crate) answered_at: u32,
    /// Where the written state holds the sending chain, if beyond the next number: the leases' end.
    pub(crate) leased_to: u32,
    /// It was restored from a backup, and only receives.
    pub(crate) restored: bool,
    pub(crate) step: Step,
    /// The sending chain is known to be written: a lease in it was granted, or it was read back.
    pub(crate) chain_written: bool,
    pub(crate) head: R::Head,
}

/// Our DH step for the present key of the other side.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// It is taken, or there was no key to answer.
    Taken,
    /// It is to be taken once the sending chain is long or old enough.
    Owed,
    /// It is to be taken with the next lease: the session was read back owing it.
    Due,
}

/// A message, opened.
#[derive(Eq, PartialEq)]
pub struct Opened<'o> {
    plaintext: &'o [u8],
    tag: MessageTag,
    stepped: bool,
}

impl<'o> Opened<'o> {
    /// The plaintext with its padding, as it was sealed.
    /// [`Plaintext::decode`](crate::plaintext::Plaintext::decode) reads it; where that fails the
    /// message has been opened all the same, and is acknowledged.
    #[must_use]
    pub const fn plaintext(&self) -> &'o [u8] {
        self.plaintext
    }

    /// What names the message among those opened last.
    #[must_use]
    pub const fn tag(&self) -> MessageTag {
        self.tag
    }

    /// Whether it came under a new ratchet key.
    #[must_use]
    pub const fn stepped(&self) -> bool {
        self.stepped
    }
}

impl fmt::Debug for Opened<'_> {
    // Plaintext has no place in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("plaintext_len", &self.plaintext.len())
            .field("tag", &self.tag)
            .field("stepped", &self.stepped)
            .finish()
    }
}

/// A sealed message that waits for its ratchet to be durable. Dropped, its number is wasted and
/// nothing leaves.
#[must_use = "a sealed message leaves once it is released"]
pub struct Pending<B>(B);

impl<B> Pending<B> {
    /// The bytes to send, once the delta of the seal is durable.
    #[must_use]
    pub fn release(self, _: Durable) -> B {
        self.0
    }
}

impl<B> fmt::Debug for Pending<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pending")
    }
}

impl<R: Role> Session<R> {
    pub(crate) fn new(
        ratchet: Ratchet<R>,
        suite: Suite,
        counter: u32,
        ephemeral: &PublicBytes,
        head: R::Head,
        now: UnixTime,
    ) -> Self {
        Self {
            ratchet,
            suite,
            counter,
            handshake: key_id(ephemeral),
            began_at: now,
            chain_since: now,
            answered_at: 0,
            leased_to: 0,
            restored: false,
            step: Step::Taken,
            chain_written: false,
            head,
        }
    }

    /// Opens a message into the front of `out`, which has at least as many bytes as the ciphertext.
    ///
    /// It asks no memory of duplicates: [`Sessions::open`](crate::sessions::Sessions::open) does.
    ///
    /// # Errors
    ///
    /// [`OpenError`] says why not; the session is as it was, and `out` holds no plaintext.
    pub fn open<'o>(
        &mut self,
        message: &Message<'_>,
        out: &'o mut [u8],
        now: UnixTime,
        rng: &mut impl CryptoRng,
    ) -> Result<(Opened<'o>, StateDelta), OpenError> {
        self.open_within(message, out, R::JUMP_MAX, now, rng)
    }

    /// Opens a message whose number jumps by at most `jump_max` on the present chain.
    pub(crate) fn open_within<'o>(
        &mut self,
        message: &Message<'_>,
        out: &'o mut [u8],
        jump_max: u32,
        now: UnixTime,
        rng: &mut impl CryptoRng,
    ) -> Result<(Opened<'o>, StateDelta), OpenError> {
        let change = self.ratchet.open(message, out, jump_max, now, rng)?;
        if change == Change::Step {
            match (R::STEPS_AT_ONCE, self.step) {
                (true, _) => self.chain_since = now,
                (false, Step::Taken) => self.step = Step::Owed,
                (false, Step::Owed | Step::Due) => {}
            }
        }
        self.answered_at = self.ratchet.next_number();
        // The first message of the other side is under its first key: a step, hence written whole.
        self.head.confirm();
        let delta = match &self.ratchet.receiving {
            Some(chain) if change == Change::Next => {
                let [a, b, c, d, ..] = self.ratchet.peer;
                let record = ChainRecord::new(&[
                    &[RECEIVE_RECORD, a, b, c, d],
                    &chain.key.0,
                    &chain.next.to_be_bytes(),
                    &self.answered_at.to_be_bytes(),
                ]);
                StateDelta::Chain { lane: Lane::Receive, bytes: record }
            }
            _ => StateDelta::Whole,
        };
        let plaintext = out.get(..message.ciphertext().len()).unwrap_or_default();
        let opened = Opened { plaintext, tag: MessageTag::of(message), stepped: change == Change::Step };
        Ok((opened, delta))
    }

    /// What began later than now, by a clock that was set back, begins now.
    pub(crate) fn clock_is(&mut self, now: UnixTime) {
        self.began_at = self.began_at.min(now);
        self.chain_since = self.chain_since.min(now);
    }

    /// Forgets skipped keys whose day is over. Whether there were any: then the whole must be
    /// written.
    pub(crate) fn expire_keys(&mut self, now: UnixTime) -> bool {
        self.ratchet.skipped.expire(R::SKIPPED_AGE_MAX, now)
    }

    /// When a message key that is kept for a late arrival is past its day; `None` while none waits.
    #[must_use]
    pub fn keys_expire_at(&self) -> Option<UnixTime> {
        self.ratchet.skipped.expires_at(R::SKIPPED_AGE_MAX)
    }

    /// Says that the session was put back from a backup: from now on it only receives, since what
    /// it would seal next may have been sealed already. Its state says so when it is next written
    /// whole; until then it is the caller's to remember.
    pub(crate) fn set_restored(&mut self) {
        self.restored = true;
    }

    /// Whether it was put back from a backup, and only receives.
    pub(crate) const fn is_restored(&self) -> bool {
        self.restored
    }

    /// Whether a message under this ratchet key belongs to a chain of this session.
    #[must_use]
    pub fn knows(&self, ratchet_key: &PublicBytes) -> bool {
        self.ratchet.knows(ratchet_key)
    }

    /// The ratchet key it now sends under.
    #[must_use]
    pub const fn ratchet_key(&self) -> &PublicBytes {
        self.ratchet.own.public()
    }

    /// The number the next sealed message has.
    #[must_use]
    pub fn next_number(&self) -> u32 {
        self.ratchet.next_number()
    }

    /// The handshake counter it began with.
    #[must_use]
    pub const fn counter(&self) -> u32 {
        self.counter
    }

    /// Its suite.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// Whether a device with this identity key and suite can go on in it. While its head is unconfirmed, every
    /// message says the key it began with, which a node that knows the device by another refuses
    /// (PROTOCOL.md section 9: enrolling a new IK ends all sessions).
    #[must_use]
    pub fn serves(&self, identity: &IdentityKey, suite: Suite) -> bool {
        let began_with = self.head.head().and_then(|head| head.get(2..34));
        self.suite == suite && began_with.is_none_or(|began_with| began_with == identity.as_bytes())
    }

    /// When it began.
    #[must_use]
    pub const fn began_at(&self) -> UnixTime {
        self.began_at
    }

    /// Whether the other side has answered in it; the side that answers has nothing to wait for.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.head.head().is_none()
    }

    /// Messages sealed since one of the other side was opened.
    #[must_use]
    pub fn unanswered(&self) -> u32 {
        self.next_number().saturating_sub(self.answered_at)
    }

    /// How many bytes the envelope of a plaintext has.
    #[must_use]
    pub fn sealed_len(&self, plaintext_len: usize) -> usize {
        let head = self.head.head().map_or(0, <[u8]>::len);
        plaintext_len.saturating_add(MESSAGE_OVERHEAD).saturating_add(head)
    }

    fn send_record(&self) -> StateDelta {
        match &self.ratchet.sending {
            Some(chain) => {
                let chain = chain.over(self.leased_to);
                let [a, b, c, d, ..] = *self.ratchet.own.public();
                let record = ChainRecord::new(&[&[SEND_RECORD, a, b, c, d], &chain.key.0, &chain.next.to_be_bytes()]);
                StateDelta::Chain { lane: Lane::Send, bytes: record }
            }
            None => StateDelta::Whole,
        }
    }
}

impl<R: CommitsFirst> Session<R> {
    /// Whether there is room for another `alive`: the session seals, and so few messages are
    /// unanswered that commands find room after it.
    #[must_use]
    pub fn has_room_for_alive(&self) -> bool {
        !self.restored && self.unanswered() < ALIVE_UNANSWERED_MAX
    }

    /// When the device's chain is old enough for an `alive`: a day after it began, or at once where
    /// it has 10 000 messages (PROTOCOL.md section 9). The hour between two is the caller's to
    /// keep.
    #[must_use]
    pub fn alive_due_at(&self) -> UnixTime {
        match &self.ratchet.receiving {
            Some(chain) if chain.next >= ALIVE_AFTER_MESSAGES => UnixTime::EPOCH,
            _ => self.chain_since.saturating_add(ALIVE_AFTER),
        }
    }

    /// Seals a plaintext into `out`, which has exactly [`sealed_len`](Self::sealed_len) bytes. The
    /// bytes are released once the delta is durable.
    ///
    /// # Errors
    ///
    /// [`SealError`] says why not; the session is as it was.
    pub fn seal<B: AsMut<[u8]>>(
        &mut self,
        plaintext: &[u8],
        mut out: B,
    ) -> Result<(StateDelta, Pending<B>), SealError> {
        if self.restored {
            return Err(SealError::ReceivesOnly);
        }
        if let Some(max) = R::UNANSWERED_MAX
            && self.unanswered() >= max
        {
            return Err(SealError::Unanswered { max });
        }
        self.ratchet.seal(plaintext, out.as_mut())?;
        Ok((self.send_record(), Pending(out)))
    }
}

impl Session<DeviceRole> {
    /// Asks for the right to seal the next `count` numbers, and takes an owed DH step if it is due.
    /// The first lease of a chain is written whole.
    ///
    /// Called with the first message to seal, never at boot, and never without a connection; with
    /// a generator that has entropy.
    ///
    /// # Errors
    ///
    /// [`SealError::ChainSpent`] where the chain has no such numbers.
    pub fn lease(
        &mut self,
        count: NonZeroU8,
        now: UnixTime,
        rng: &mut impl CryptoRng,
    ) -> Result<(StateDelta, PendingLease), SealError> {
        let stepped = self.step_due(now) && self.ratchet.step(rng);
        if stepped {
            self.chain_since = now;
            self.step = Step::Taken;
            self.chain_written = false;
            self.leased_to = 0;
            self.answered_at = 0;
        }
        let end = self.next_number().checked_add(count.get().into()).ok_or(SealError::ChainSpent)?;
        self.leased_to = self.leased_to.max(end);
        let delta = if self.chain_written { self.send_record() } else { StateDelta::Whole };
        Ok((delta, PendingLease(Lease { chain: key_id(self.ratchet.own.public()), end })))
    }

    /// How many messages the lease still covers: 0 asks for another one.
    #[must_use]
    pub fn leased(&self, lease: &Lease, now: UnixTime) -> u32 {
        if lease.chain != key_id(self.ratchet.own.public()) || self.step_due(now) {
            return 0;
        }
        lease.end.saturating_sub(self.next_number())
    }

    /// Seals a plaintext into the front of `out`: a HandshakeInit until the node has answered in
    /// this session, a Message from then on. The bytes may leave at once.
    ///
    /// # Errors
    ///
    /// [`SealError`] says why not; the session is as it was. [`SealError::NotLeased`] and
    /// [`SealError::StepDue`] ask for another [`lease`](Self::lease).
    pub fn seal_within<'o>(
        &mut self,
        lease: &Lease,
        plaintext: &[u8],
        out: &'o mut [u8],
        now: UnixTime,
    ) -> Result<&'o [u8], SealError> {
        let next = self.next_number();
        if self.restored {
            return Err(SealError::ReceivesOnly);
        }
        if self.step_due(now) {
            return Err(SealError::StepDue);
        }
        if lease.chain != key_id(self.ratchet.own.public()) || next >= lease.end {
            return Err(SealError::NotLeased { end: lease.end, next });
        }
        let needed = self.sealed_len(plaintext.len());
        let wrong_len = SealError::OutLength { needed, found: out.len() };
        let out = out.get_mut(..needed).ok_or(wrong_len)?;
        match self.head.head() {
            Some(head) => {
                let (front, inner) = out.split_at_mut_checked(head.len()).ok_or(wrong_len)?;
                self.ratchet.seal(plaintext, inner)?;
                front.copy_from_slice(head);
            }
            None => self.ratchet.seal(plaintext, out)?,
        }
        self.chain_written = true;
        Ok(out)
    }

    /// Whether an owed step is to be taken before the next message: after 128 messages or 10
    /// minutes of the chain, or a boot.
    fn step_due(&self, now: UnixTime) -> bool {
        match self.step {
            Step::Taken => false,
            Step::Due => true,
            Step::Owed => {
                self.next_number() >= STEP_AFTER_MESSAGES || now.saturating_since(self.chain_since) >= STEP_AFTER
            }
        }
    }
}

impl<R: Role> fmt::Debug for Session<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("counter", &self.counter)
            .field("began_at", &self.began_at)
            .field("next_number", &self.next_number())
            .field("confirmed", &self.is_confirmed())
            .finish_non_exhaustive()
    }
}
