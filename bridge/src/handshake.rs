//! Prekeys and first contact.
//!
//! ```text
//! prekeys/get --> bundle: one signed prekey for all, one one-time prekey that waits for this device
//! HandshakeInit --> New:  respond, and in one commit: session, counter, one-time prekey gone, row
//!               --> Same: the present session's own, repeated until it is answered
//! ```

use bytes::Bytes;
use rand_core::CryptoRng;
use unhidra_core::delivery::{Answer, Delivery, DownlinkRow, Refusal, UplinkRow};
use unhidra_core::time::UnixTime;
use unhidra_e2ee::envelope::{Envelope, HandshakeInit, PrekeyRequest};
use unhidra_e2ee::error::OpenError;
use unhidra_e2ee::handshake::{Enrolled, RespondError, respond};
use unhidra_e2ee::prekey::{BundleParts, OneTimePrekeySecret};
use unhidra_e2ee::reset::ResetReason;
use unhidra_e2ee::sessions::{Handshake, Slot};
use unhidra_store::{Op, PrekeyChange, PrekeyKind, PrekeyRecord};

use crate::door::Way;
use crate::draft::{Effect, Payload, Publish};
use crate::peer::{Peer, wipe_into};
use crate::prekeys::one_time_bytes;
use crate::shard::{Common, Now};

/// Whether a message asks for a bundle or begins a session, so that it costs curve operations: many
/// times what one does in a session that is there.
#[must_use]
pub fn begins(delivery: &Delivery) -> bool {
    match delivery.row {
        UplinkRow::PrekeysGet => true,
        UplinkRow::Messages => matches!(Envelope::parse(&delivery.sealed.0), Ok(Envelope::HandshakeInit(_))),
    }
}

impl Peer {
    /// Answers a request for a bundle. The one-time prekey in it is durable before it leaves, and
    /// is handed out again until a handshake has opened with it: nobody can drain them.
    pub(crate) fn give_bundle(
        &mut self,
        bytes: &[u8],
        way: Way<'_>,
        common: &mut Common,
        now: Now,
        rng: &mut impl CryptoRng,
    ) -> Answer {
        let request = match PrekeyRequest::parse(bytes) {
            Ok(request) if request.suite == self.device.suite => request,
            Ok(_) | Err(_) => {
                common.stats.malformed += 1;
                return Answer::Refused(Refusal::DoesNotOpen);
            }
        };
        self.end_old_identity(common, now);
        // Nobody listens for the answer: the request is taken, and comes to nothing.
        let Some(connection) = way.target(DownlinkRow::Prekeys) else {
            return Answer::Accepted;
        };
        let serves = self.one_time.as_ref().is_some_and(|opk| opk.suite() == self.device.suite);
        if !serves && !self.make_one_time(common, now, rng) {
            return Answer::Refused(Refusal::QuotaExceeded);
        }
        let Some(opk) = &self.one_time else { return Answer::Refused(Refusal::QuotaExceeded) };
        let bundle = BundleParts {
            device: &self.device.id,
            request,
            last_counter: self.record.last_counter,
            now: now.unix,
            spk: common.signed.present(),
            opk,
        };
        let Ok(bundle) = bundle.sign(&common.identity) else { return Answer::Refused(Refusal::DoesNotOpen) };
        let bundle = Bytes::copy_from_slice(bundle.as_bytes());
        let ticket = common.ticket();
        common.stats.bundles += 1;
        common.draft.effects.push(Effect::Publish(Publish {
            device: self.device.id,
            connection,
            row: DownlinkRow::Prekeys,
            ticket,
            payload: Payload::Plain(bundle),
        }));
        Answer::Accepted
    }

    /// Makes the one-time prekey that waits, of the suite the device was enrolled with; one that
    /// waited for another suite goes. Whether an id was left for it.
    fn make_one_time(&mut self, common: &mut Common, now: Now, rng: &mut impl CryptoRng) -> bool {
        let id = self.record.next_one_time_id;
        let Some(next) = id.checked_add(1) else { return false };
        let Some(secret) = OneTimePrekeySecret::generate_for(self.device.suite, id, rng) else { return false };
        let kind = PrekeyKind::OneTime(self.device.id);
        self.record.next_one_time_id = next;
        self.write_record(common);
        if let Some(other) = &self.one_time {
            common.draft.ops.push(Op::Prekey(PrekeyChange::Delete { kind, id: other.id() }));
        }
        let record = PrekeyRecord { kind, id, created_at: now.unix, secret: one_time_bytes(&secret) };
        common.draft.ops.push(Op::Prekey(PrekeyChange::Put(record)));
        self.one_time = Some(secret);
        true
    }

    /// Opens a HandshakeInit: a new session, or the present one's repeated.
    pub(crate) fn open_handshake(
        &mut self,
        init: &HandshakeInit<'_>,
        received_at: UnixTime,
        way: Way<'_>,
        common: &mut Common,
        now: Now,
        rng: &mut impl CryptoRng,
    ) -> Answer {
        let inner = init.message();
        // Before any key is tried: a repeat is a repeat, whatever its head says by now.
        if let Err(error) = self.sessions.recent().check(&inner) {
            let answer = self.refuse(error, &inner, way, common, now);
            if error == OpenError::Duplicate {
                self.owe_hello(now);
            }
            return answer;
        }
        if init.suite() != self.device.suite || init.identity() != self.identity.as_bytes() {
            common.stats.refused_handshakes += 1;
            return Answer::Refused(Refusal::DoesNotOpen);
        }
        match self.sessions.compare(init, self.record.last_counter) {
            Handshake::Same => {
                let answer = self.open_message(&inner, received_at, way, common, now, rng);
                if answer == Answer::Accepted {
                    self.owe_hello(now);
                }
                answer
            }
            Handshake::New => self.begin(init, received_at, way, common, now, rng),
            Handshake::Refused(reason) => {
                common.stats.refused_handshakes += 1;
                self.ask_for_reset(reason, inner.ratchet_key(), way, common, now);
                Answer::Refused(Refusal::DoesNotOpen)
            }
        }
    }

    fn begin(
        &mut self,
        init: &HandshakeInit<'_>,
        received_at: UnixTime,
        way: Way<'_>,
        common: &mut Common,
        now: Now,
        rng: &mut impl CryptoRng,
    ) -> Answer {
        let inner = init.message();
        if self.doors.at(way.door).handshakes.is_spent(now.timer) {
            common.stats.over_budget += 1;
            return Answer::Refused(Refusal::DoesNotOpen);
        }
        let signed = common.signed.clone();
        let named = (signed.find(init.spk_id()), self.one_time.as_ref().filter(|opk| opk.id() == init.opk_id()));
        let (Some(spk), Some(opk)) = named else {
            // A bundle that was used up, or that this node no longer knows: it asks for a fresh one.
            common.stats.unknown += 1;
            self.ask_for_reset(ResetReason::UnknownKey, inner.ratchet_key(), way, common, now);
            return Answer::Refused(Refusal::DoesNotOpen);
        };
        let enrolled = Enrolled { device: &self.device.id, identity: &self.identity, suite: self.device.suite };
        let mut scratch = std::mem::take(&mut *common.scratch);
        scratch.resize(scratch.len().max(inner.ciphertext().len()), 0);
        let answer = match respond(&common.identity, enrolled, spk, opk, init, &mut scratch, now.unix, rng) {
            Ok((session, opened)) => {
                let used = opk.id();
                self.rotate(common);
                self.sessions.begin(session, Some(opened.tag()));
                self.write(Slot::Present, unhidra_e2ee::delta::StateDelta::Whole, common);
                self.record.last_counter = init.counter();
                self.record.restored = false;
                self.write_record(common);
                self.one_time = None;
                let kind = PrekeyKind::OneTime(self.device.id);
                common.draft.ops.push(Op::Prekey(PrekeyChange::Delete { kind, id: used }));
                self.add_row(opened.tag(), opened.plaintext(), received_at, common, now);
                common.stats.sessions += 1;
                // Nothing has been sealed in this session: what was, was in the one before it.
                self.sealed_at = None;
                self.doors.session_began(way.door);
                self.commands.release();
                self.settings.session_began();
                self.owe_hello(now);
                Answer::Accepted
            }
            Err(error) => {
                if error.spent_dh_step() {
                    self.doors.at(way.door).handshakes.spend(now.timer);
                }
                let counter = match error {
                    RespondError::Suite { .. }
                    | RespondError::Identity
                    | RespondError::Prekeys { .. }
                    | RespondError::PrekeySuite { .. } => &mut common.stats.refused_handshakes,
                    RespondError::Open(OpenError::TooFar { .. }) => &mut common.stats.too_far,
                    RespondError::HostileKey | RespondError::Open(_) => &mut common.stats.forged,
                };
                *counter += 1;
                // An honest device can come here too: its bundle was made before the node lost or
                // changed what it names. Once an hour it is told.
                if let Some(reason) = error.reset_due() {
                    self.ask_for_reset(reason, inner.ratchet_key(), way, common, now);
                }
                tracing::debug!(device = %self.device.id, %error, "a handshake began no session");
                Answer::Refused(Refusal::DoesNotOpen)
            }
        };
        wipe_into(common, scratch, inner.ciphertext().len());
        answer
    }
}
