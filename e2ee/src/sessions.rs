//! A device's two sessions and what was opened last: which message goes where, and what it means
//! when it opens nowhere (PROTOCOL.md sections 7 and 9). Both sides share these rules.

use rand_core::CryptoRng;
use unhidra_core::time::UnixTime;

use crate::delta::StateDelta;
use crate::envelope::{HandshakeInit, Message};
use crate::error::OpenError;
use crate::keys::key_id;
use crate::recent::{MessageTag, Recent};
use crate::reset::{ResetReason, VerifiedReset};
use crate::role::{
    CHAIN_LEN_MAX, DeviceRole, LONG_TRY_MAX, NodeRole, PREVIOUS_KEPT, PREVIOUS_USUAL, RESTART_INTERVAL, Role,
};
use crate::session::{Opened, Session};
use crate::skipped::SkippedKeys;

/// Which of the two.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Slot {
    /// The one both sides send in.
    Present,
    /// The one before it, which only receives.
    Previous,
}

/// What opening a message moved, and what follows from it.
#[derive(Debug)]
pub struct Moved {
    /// Which session.
    pub slot: Slot,
    /// What of it must be written.
    pub delta: StateDelta,
    /// Whether the node should answer with a ResetRequest although the message opened: the device
    /// still sends in its previous session, or the present one was put back from a backup.
    pub reset_due: Option<ResetReason>,
}

/// What a handshake's counter says (PROTOCOL.md section 9).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Handshake {
    /// Above the last: a new session.
    New,
    /// The present session's own, repeated until it is answered: open the inner Message.
    Same,
    /// Neither: refused, and answered with this reason.
    Refused(ResetReason),
}

/// A device's sessions, as one side holds them.
#[derive(Debug)]
pub struct Sessions<R: Role> {
    present: Option<Session<R>>,
    previous: Option<Session<R>>,
    recent: Recent,
}

impl<R: Role> Default for Sessions<R> {
    fn default() -> Self {
        Self { present: None, previous: None, recent: Recent::default() }
    }
}

impl<R: Role> Sessions<R> {
    /// The sessions as they were read back.
    #[must_use]
    pub const fn new(present: Option<Session<R>>, previous: Option<Session<R>>, recent: Recent) -> Self {
        Self { present, previous, recent }
    }

    /// The present session.
    #[must_use]
    pub const fn present(&self) -> Option<&Session<R>> {
        self.present.as_ref()
    }

    /// The present session, to seal in.
    pub const fn present_mut(&mut self) -> Option<&mut Session<R>> {
        self.present.as_mut()
    }

    /// The session before it.
    #[must_use]
    pub const fn previous(&self) -> Option<&Session<R>> {
        self.previous.as_ref()
    }

    /// What was opened last.
    #[must_use]
    pub const fn recent(&self) -> &Recent {
        &self.recent
    }

    /// Makes `session` the present one, and the present one the previous. On the node `first` is
    /// the message that was opened with the handshake.
    pub fn begin(&mut self, session: Session<R>, first: Option<MessageTag>) {
        // Swapped in place: a session is dear on a device's stack.
        core::mem::swap(&mut self.previous, &mut self.present);
        self.present = Some(session);
        if let Some(tag) = first {
            self.recent.remember(tag);
        }
    }

    /// Says what the calendar is now; called where it is known, and not with an uptime in its place.
    ///
    /// What began later, by a clock that has been set back since, begins now: then the hours and
    /// days that are counted from there end, and none ends early.
    pub fn clock_is(&mut self, now: UnixTime) {
        for session in self.present.iter_mut().chain(&mut self.previous) {
            session.clock_is(now);
        }
    }

    /// Forgets the previous session where its 24 hours are over. Whether it did: then it must be
    /// deleted where it was written.
    pub fn expire(&mut self, now: UnixTime) -> bool {
        if self.previous.is_some() && !self.previous_receives(now) {
            self.previous = None;
            return true;
        }
        false
    }

    /// Forgets skipped keys whose day is over. The sessions that lost some must be written whole.
    ///
    /// A session that opens messages does so by itself, and no key opens anything after its day;
    /// this is for the device that has fallen silent.
    pub fn expire_keys(&mut self, now: UnixTime) -> impl Iterator<Item = Slot> + use<R> {
        let expire = |slot, session: Option<&mut Session<R>>| {
            session.is_some_and(|session| session.expire_keys(now)).then_some(slot)
        };
        let present = expire(Slot::Present, self.present.as_mut());
        let previous = expire(Slot::Previous, self.previous.as_mut());
        present.into_iter().chain(previous)
    }

    /// When [`expire_keys`](Self::expire_keys) has something to forget; `None` while no key waits.
    #[must_use]
    pub fn keys_expire_at(&self) -> Option<UnixTime> {
        let at = |session: &Option<Session<R>>| session.as_ref().and_then(Session::keys_expire_at);
        at(&self.present).into_iter().chain(at(&self.previous)).min()
    }

    fn present_age_is_within(&self, age: core::time::Duration, now: UnixTime) -> bool {
        self.present.as_ref().is_none_or(|present| now.saturating_since(present.began_at()) <= age)
    }

    fn previous_receives(&self, now: UnixTime) -> bool {
        self.previous.is_some() && self.present_age_is_within(PREVIOUS_KEPT, now)
    }

    /// Where a message belongs: to the session that knows its ratchet key; an unknown one is tried
    /// on the present session alone.
    fn slot_of(&self, message: &Message<'_>, now: UnixTime) -> Option<Slot> {
        let knows = |session: Option<&Session<R>>| session.is_some_and(|s| s.knows(message.ratchet_key()));
        if knows(self.present.as_ref()) {
            Some(Slot::Present)
        } else if self.previous_receives(now) && knows(self.previous.as_ref()) {
            Some(Slot::Previous)
        } else {
            None
        }
    }

    /// Whether opening this message takes a DH step, which is what an attacker makes a node pay
    /// for: the caller drops it unread when the device's budget is spent.
    #[must_use]
    pub fn needs_dh_step(&self, message: &Message<'_>, now: UnixTime) -> bool {
        self.present.is_some() && self.recent.check(message).is_ok() && self.slot_of(message, now).is_none()
    }

    /// Opens a message into the front of `out`, which has at least as many bytes as the ciphertext.
    ///
    /// # Errors
    ///
    /// [`OpenError`] says why not, and what the node answers; nothing has changed.
    pub fn open<'o>(
        &mut self,
        message: &Message<'_>,
        out: &'o mut [u8],
        now: UnixTime,
        rng: &mut impl CryptoRng,
    ) -> Result<(Opened<'o>, Moved), OpenError> {
        self.open_within(message, out, R::JUMP_MAX, now, rng)
    }

    fn open_within<'o>(
        &mut self,
        message: &Message<'_>,
        out: &'o mut [u8],
        jump_max: u32,
        now: UnixTime,
        rng: &mut impl CryptoRng,
    ) -> Result<(Opened<'o>, Moved), OpenError> {
        self.recent.check(message)?;
        let slot = self.slot_of(message, now).unwrap_or(Slot::Present);
        let reset_due = self.reset_due(slot, now);
        let session = match slot {
            Slot::Present => self.present.as_mut(),
            Slot::Previous => self.previous.as_mut(),
        };
        let session = session.ok_or(OpenError::UnknownKey { tried: false })?;
        let (opened, delta) = session.open_within(message, out, jump_max, now, rng)?;
        self.recent.remember(opened.tag());
        Ok((opened, Moved { slot, delta, reset_due }))
    }

    /// Why a message is answered with a ResetRequest although it opens.
    fn reset_due(&self, slot: Slot, now: UnixTime) -> Option<ResetReason> {
        if self.present.as_ref().is_some_and(Session::is_restored) {
            return Some(ResetReason::Restored);
        }
        let late = slot == Slot::Previous && !self.present_age_is_within(PREVIOUS_USUAL, now);
        late.then_some(ResetReason::PreviousSession)
    }

    /// What the counter of a handshake says. `last_counter` is the last that began a session under
    /// the device's identity key, 0 before the first.
    #[must_use]
    pub fn compare(&self, init: &HandshakeInit<'_>, last_counter: u32) -> Handshake {
        let same = self.present.as_ref().is_some_and(|present| {
            present.counter() == init.counter() && present.handshake == key_id(init.ephemeral())
        });
        if init.counter() > last_counter {
            Handshake::New
        } else if init.counter() == last_counter && same {
            Handshake::Same
        } else {
            Handshake::Refused(ResetReason::Counter)
        }
    }
}

impl<S: SkippedKeys> Sessions<NodeRole<S>> {
    /// Says that these sessions were put back from a backup: they only receive until a new one has
    /// begun, and what opens in the present one is answered with a ResetRequest.
    pub fn set_restored(&mut self) {
        for session in self.present.iter_mut().chain(&mut self.previous) {
            session.set_restored();
        }
    }

    /// Opens a message that is beyond the jump on a known chain, where
    /// [`OpenError::is_within_long_try`] says so: the node alone does, once in 10 minutes a device
    /// ([`LONG_TRY_INTERVAL`](crate::role::LONG_TRY_INTERVAL)), whether it opens or not.
    ///
    /// It costs at most 65 536 steps of the chain, and no more keys are kept than ever.
    ///
    /// # Errors
    ///
    /// [`OpenError`] as of [`open`](Self::open); nothing has changed.
    pub fn open_by_long_try<'o>(
        &mut self,
        message: &Message<'_>,
        out: &'o mut [u8],
        now: UnixTime,
        rng: &mut impl CryptoRng,
    ) -> Result<(Opened<'o>, Moved), OpenError> {
        self.open_within(message, out, LONG_TRY_MAX, now, rng)
    }
}

impl Sessions<DeviceRole> {
    /// Whether the device obeys a ResetRequest: only if it names the ratchet key the device now
    /// sends under. It then fetches a bundle and begins a session.
    #[must_use]
    pub fn obeys(&self, request: &VerifiedReset) -> bool {
        self.present.as_ref().is_some_and(|present| *present.ratchet_key() == request.ratchet_key)
    }

    /// Whether a device may begin a session of its own accord: once an hour, and not while the head
    /// of the present one is unconfirmed. Asked when a message of the
    /// node failed in a way that [`OpenError::restart_due`] names, and when the node refused one twice.
    #[must_use]
    pub fn may_restart(&self, now: UnixTime) -> bool {
        self.present.as_ref().is_none_or(|present| {
            present.is_confirmed() && now.saturating_since(present.began_at()) >= RESTART_INTERVAL
        })
    }

    /// Whether a device should begin a session: it has none, or its chain has become long.
    #[must_use]
    pub fn restart_due(&self, now: UnixTime) -> bool {
        self.present.as_ref().is_none_or(|present| present.next_number() >= CHAIN_LEN_MAX) && self.may_restart(now)
    }
}
