//! What the node sends: bundles, messages, reset requests. Whatever it is, it is answered.

use heapless::{Deque, String, Vec};
use rand_core::CryptoRng;
use unhidra_core::ids::CommandId;
use unhidra_core::time::Timestamp;
use unhidra_e2ee::envelope::{Envelope, Message, PreKeyBundle};
use unhidra_e2ee::error::OpenError;
use unhidra_e2ee::plaintext::{Plaintext, Status};

use super::prekeys::Prekeys;
use super::waiting::What;
use super::{Stats, Waiting};
use crate::client::{Delivery, RECEIVE_MAX, ReasonCode};
use crate::clock::WallClock;
use crate::secure::{OpenFault, Said, Secure};
use crate::storage::Storage;
use crate::topics::{Row, Topics};

/// What a message touches. It does not touch the client, out of whose buffer it is read.
pub(super) struct Inbox<'a, S, R, const BODY: usize> {
    pub(super) secure: &'a mut Secure<S>,
    pub(super) topics: &'a Topics,
    pub(super) prekeys: &'a mut Prekeys,
    pub(super) clock: &'a mut WallClock,
    pub(super) rng: &'a mut R,
    pub(super) out: &'a mut [u8],
    pub(super) stats: &'a mut Stats,
    pub(super) commands: &'a mut Deque<Waiting<BODY>, RECEIVE_MAX>,
    pub(super) wants_session: bool,
    /// Settings the application was given and has not taken over yet.
    pub(super) not_applied: &'a mut u16,
}

/// What became of a message of the node.
pub(super) enum Took<E> {
    /// It is done with.
    Answered { delivery: Option<Delivery>, reason: ReasonCode },
    /// It waits for the application.
    Kept,
    /// It is a command that is not acted on.
    Receipt { delivery: Option<Delivery>, command: CommandId, status: Status },
    /// A session has begun.
    NewSession { delivery: Option<Delivery>, counter: u32 },
    /// The node asks for a session.
    Reset { delivery: Option<Delivery> },
    /// It is beyond the device's jump, or of a session the device does not have.
    OutOfReach { delivery: Option<Delivery> },
    /// The storage failed: it is not answered.
    Storage(E),
}

impl<S: Storage, R: CryptoRng, const BODY: usize> Inbox<'_, S, R, BODY> {
    pub(super) fn take(
        &mut self,
        topic: &str,
        payload: &[u8],
        delivery: Option<Delivery>,
        now: Timestamp,
    ) -> Took<S::Error> {
        match (self.topics.row_to_device(topic), Envelope::parse(payload)) {
            (Some(Row::Prekeys), Ok(Envelope::PreKeyBundle(bundle))) => self.bundle(&bundle, delivery, now),
            (Some(Row::Commands), Ok(Envelope::Message(message))) => self.message(&message, delivery, now),
            (Some(Row::Commands), Ok(Envelope::ResetRequest(request))) if self.secure.obeys(&request) => {
                self.stats.resets_obeyed += 1;
                Took::Reset { delivery }
            }
            (Some(Row::Commands), Ok(Envelope::ResetRequest(_))) => {
                self.stats.resets_ignored += 1;
                Took::Answered { delivery, reason: ReasonCode::SUCCESS }
            }
            _ => {
                self.stats.ignored += 1;
                Took::Answered { delivery, reason: ReasonCode::IMPLEMENTATION_SPECIFIC }
            }
        }
    }

    fn bundle(&mut self, bundle: &PreKeyBundle<'_>, delivery: Option<Delivery>, now: Timestamp) -> Took<S::Error> {
        let verified = self.prekeys.nonce(now).and_then(|nonce| self.secure.verify_bundle(bundle, nonce).ok());
        let Some(bundle) = verified else {
            // An answer to an older question, or somebody's attempt: the question stands.
            self.stats.bundles_refused += 1;
            return Took::Answered { delivery, reason: ReasonCode::SUCCESS };
        };
        self.prekeys.answered();
        let unix = self.clock.unix_or_uptime(now);
        let wants_session = self.wants_session || self.secure.sessions().restart_due(unix);
        self.clock.learn(bundle.now(), now);
        if !wants_session {
            return Took::Answered { delivery, reason: ReasonCode::SUCCESS };
        }
        match self.secure.begin(&bundle, self.clock.unix_or_uptime(now), self.rng) {
            Ok(counter) => Took::NewSession { delivery, counter },
            Err(_) => {
                self.stats.bundles_refused += 1;
                self.prekeys.later(now);
                Took::Answered { delivery, reason: ReasonCode::SUCCESS }
            }
        }
    }

    fn message(&mut self, message: &Message<'_>, delivery: Option<Delivery>, now: Timestamp) -> Took<S::Error> {
        if self.commands.is_full() {
            // The application is slow, or it holds commands that wait for the time: the node is to send this one
            // again.
            return Took::Answered { delivery, reason: ReasonCode::QUOTA_EXCEEDED };
        }
        let unix = self.clock.unix_or_uptime(now);
        match self.secure.open(message, self.out, unix, self.rng) {
            Ok(Said::Command { id, plaintext }) => {
                command(id, &plaintext, delivery, self.clock, self.commands, self.stats, now)
            }
            Ok(Said::SeenCommand) => {
                self.stats.commands_repeated += 1;
                Took::Answered { delivery, reason: ReasonCode::SUCCESS }
            }
            Ok(Said::Word) => Took::Answered { delivery, reason: ReasonCode::SUCCESS },
            Ok(Said::Setting { version, plaintext }) => {
                let took = setting(version, &plaintext, delivery, self.commands);
                *self.not_applied = self.not_applied.saturating_add(u16::from(matches!(took, Took::Kept)));
                took
            }
            Ok(Said::Ignored) => {
                self.stats.ignored += 1;
                Took::Answered { delivery, reason: ReasonCode::SUCCESS }
            }
            Err(OpenFault::Open(OpenError::Duplicate)) => {
                self.stats.duplicates += 1;
                // It may be a setting that nobody has taken over yet: it is to be sent anew.
                let reason = if *self.not_applied > 0 { ReasonCode::QUOTA_EXCEEDED } else { ReasonCode::SUCCESS };
                Took::Answered { delivery, reason }
            }
            Err(OpenFault::Open(error)) => {
                self.stats.not_opened += 1;
                match error {
                    error if error.restart_due() => Took::OutOfReach { delivery },
                    _ => Took::Answered { delivery, reason: ReasonCode::IMPLEMENTATION_SPECIFIC },
                }
            }
            Err(OpenFault::Storage(error)) => Took::Storage(error),
        }
    }
}

/// A command that was never seen: it waits for the application, unless it came too late or is
/// larger than the application's buffers.
fn command<E, const BODY: usize>(
    id: CommandId,
    plaintext: &Plaintext<'_>,
    delivery: Option<Delivery>,
    clock: &WallClock,
    commands: &mut Deque<Waiting<BODY>, RECEIVE_MAX>,
    stats: &mut Stats,
    now: Timestamp,
) -> Took<E> {
    // Before the time is known, or where that was long ago, nobody can say: it waits, and is judged then.
    let waits_for_time = plaintext.expires_at.is_some() && !clock.is_believed(now);
    let over = clock.unix(now).zip(plaintext.expires_at).is_some_and(|(unix, expires_at)| unix >= expires_at);
    if over && !waits_for_time {
        stats.commands_expired += 1;
        return Took::Receipt { delivery, command: id, status: Status::Expired };
    }
    let name = String::try_from(plaintext.name.unwrap_or_default());
    let body = Vec::from_slice(plaintext.body.unwrap_or_default());
    let (Ok(name), Ok(body)) = (name, body) else {
        return Took::Receipt { delivery, command: id, status: Status::Failed };
    };
    // There was room before it was opened.
    let what = What::Command { id, expires_at: plaintext.expires_at, waits_for_time };
    if waits_for_time {
        // Its id is in storage, and what the node may still send before PUBACK has to have room for the
        // bundle that says the time.
        let _ = commands.push_back(Waiting { delivery: None, what, name, body });
        return Took::Answered { delivery, reason: ReasonCode::SUCCESS };
    }
    let _ = commands.push_back(Waiting { delivery, what, name, body });
    Took::Kept
}

/// A setting waits for the application, unless it is larger than the application's buffers: then it
/// is refused, and the node knows that it was not taken.
fn setting<E, const BODY: usize>(
    version: u64,
    plaintext: &Plaintext<'_>,
    delivery: Option<Delivery>,
    waiting: &mut Deque<Waiting<BODY>, RECEIVE_MAX>,
) -> Took<E> {
    let name = String::try_from(plaintext.name.unwrap_or_default());
    let body = Vec::from_slice(plaintext.body.unwrap_or_default());
    let (Ok(name), Ok(body)) = (name, body) else {
        return Took::Answered { delivery, reason: ReasonCode::PACKET_TOO_LARGE };
    };
    let what = What::Setting { version, is_removed: plaintext.body.is_none() };
    // There was room before it was opened.
    let _ = waiting.push_back(Waiting { delivery, what, name, body });
    Took::Kept
}
