//! The node: what the bridge does with one device's envelopes, and nothing around it.

use rand::rngs::StdRng;
use unhidra_core::durable::DurableSource;
use unhidra_core::ids::DeviceId;
use unhidra_core::time::UnixTime;
use unhidra_e2ee::envelope::{Envelope, HandshakeInit, PrekeyRequest};
use unhidra_e2ee::error::{OpenError, SealError};
use unhidra_e2ee::handshake::{Enrolled, RespondError, respond};
use unhidra_e2ee::identity::{IdentityKey, IdentitySecret};
use unhidra_e2ee::prekey::{BundleParts, OneTimePrekeySecret, SignedPrekeySecret};
use unhidra_e2ee::recent::Recent;
use unhidra_e2ee::reset::{ResetReason, sign_reset};
use unhidra_e2ee::role::NodeRole;
use unhidra_e2ee::session::Session;
use unhidra_e2ee::sessions::{Handshake, Sessions};
use unhidra_e2ee::skipped::Inline;
use unhidra_e2ee::suite::Suite;

type Role = NodeRole<Inline<128>>;

pub(crate) struct Node {
    pub(crate) id: DeviceId,
    suite: Suite,
    identity: IdentitySecret,
    /// The device's.
    enrolled: IdentityKey,
    spk: SignedPrekeySecret,
    opk: OneTimePrekeySecret,
    last_counter: u32,
    sessions: Sessions<Role>,
}

/// Why an envelope gave no plaintext.
#[derive(Debug)]
pub(crate) enum Refusal {
    Envelope,
    Open(OpenError),
    Respond(RespondError),
    Counter(ResetReason),
}

impl Refusal {
    /// Why the node asks for a new session, if it does.
    pub(crate) fn reset_due(&self) -> Option<ResetReason> {
        match self {
            Self::Envelope => None,
            Self::Open(error) => error.reset_due(),
            Self::Respond(error) => error.reset_due(),
            Self::Counter(reason) => Some(*reason),
        }
    }
}

/// The node's identity, before it knows the device's.
pub(crate) fn identity(rng: &mut StdRng) -> IdentitySecret {
    IdentitySecret::generate(rng)
}

impl Node {
    pub(crate) fn new(
        id: &str,
        suite: Suite,
        identity: IdentitySecret,
        device: &[u8; 32],
        rng: &mut StdRng,
    ) -> Result<Self, String> {
        Ok(Self {
            id: DeviceId::parse(id).map_err(|e| e.to_string())?,
            suite,
            identity,
            enrolled: IdentityKey::from_bytes(device).map_err(|e| e.to_string())?,
            spk: SignedPrekeySecret::generate(1, rng),
            opk: one_time(1, suite, rng),
            last_counter: 0,
            sessions: Sessions::default(),
        })
    }

    /// The bundle that answers a request.
    pub(crate) fn bundle(&self, request: &[u8], now: UnixTime) -> Result<Vec<u8>, String> {
        let request = PrekeyRequest::parse(request).map_err(|e| e.to_string())?;
        let (device, last_counter, spk, opk) = (&self.id, self.last_counter, &self.spk, &self.opk);
        let parts = BundleParts { device, request, last_counter, now, spk, opk };
        Ok(parts.sign(&self.identity).map_err(|e| e.to_string())?.as_bytes().to_vec())
    }

    pub(crate) fn has_session(&self) -> bool {
        self.sessions.present().is_some()
    }

    /// How many messages it opened last that it remembers, and all it keeps of its sessions.
    pub(crate) fn state(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.sessions.recent().tags().flat_map(|tag| tag.to_bytes()).collect();
        for session in [self.sessions.present(), self.sessions.previous()].into_iter().flatten() {
            bytes.extend(record(session));
        }
        bytes
    }

    pub(crate) fn opens(&mut self, sealed: &[u8], now: UnixTime, rng: &mut StdRng) -> Result<Vec<u8>, Refusal> {
        let mut out = vec![0; sealed.len()];
        let message = match Envelope::parse(sealed) {
            Ok(Envelope::Message(message)) => message,
            Ok(Envelope::HandshakeInit(init)) => {
                self.sessions.recent().check(&init.message()).map_err(Refusal::Open)?;
                match self.sessions.compare(&init, self.last_counter) {
                    Handshake::New => return self.responds(&init, &mut out, now, rng).map_err(Refusal::Respond),
                    Handshake::Same => init.message(),
                    Handshake::Refused(reason) => return Err(Refusal::Counter(reason)),
                }
            }
            _ => return Err(Refusal::Envelope),
        };
        let (opened, _moved) = self.sessions.open(&message, &mut out, now, rng).map_err(Refusal::Open)?;
        Ok(opened.plaintext().to_vec())
    }

    fn responds(
        &mut self,
        init: &HandshakeInit<'_>,
        out: &mut [u8],
        now: UnixTime,
        rng: &mut StdRng,
    ) -> Result<Vec<u8>, RespondError> {
        let enrolled = Enrolled { device: &self.id, identity: &self.enrolled, suite: self.suite };
        let (session, opened) = respond(&self.identity, enrolled, &self.spk, &self.opk, init, out, now, rng)?;
        let text = opened.plaintext().to_vec();
        let tag = opened.tag();
        self.last_counter = session.counter();
        self.opk = one_time(self.opk.id().saturating_add(1), self.suite, rng);
        self.sessions.begin(session, Some(tag));
        Ok(text)
    }

    pub(crate) fn seals(&mut self, text: &[u8]) -> Result<Vec<u8>, SealError> {
        let session = self.sessions.present_mut().ok_or(SealError::ChainSpent)?;
        let out = vec![0; session.sealed_len(text.len())];
        let (_delta, pending) = session.seal(text, out)?;
        Ok(pending.release(DurableSource::new_for_storage().durable()))
    }

    pub(crate) fn reset(&self, reason: ResetReason, ratchet_key: &[u8; 32]) -> Vec<u8> {
        sign_reset(&self.identity, &self.id, reason, ratchet_key).to_vec()
    }

    /// Starts again from what is written.
    pub(crate) fn restarts(&mut self) -> Result<(), String> {
        let read = |session: Option<&Session<Role>>| {
            let read = session.map(|session| Session::decode(&record(session), None, None));
            read.transpose().map_err(|e| e.to_string())
        };
        let (present, previous) = (read(self.sessions.present())?, read(self.sessions.previous())?);
        self.sessions = Sessions::new(present, previous, Recent::from_tags(self.sessions.recent().tags()));
        Ok(())
    }

    /// Loses its sessions, and nothing else.
    pub(crate) fn forgets(&mut self) {
        self.sessions = Sessions::default();
    }
}

#[cfg(feature = "pqxdh")]
fn one_time(id: u32, suite: Suite, rng: &mut StdRng) -> OneTimePrekeySecret {
    use unhidra_e2ee::prekey::KemSeed;
    let prekey = OneTimePrekeySecret::generate(id, rng);
    match suite {
        Suite::X3dh => prekey,
        Suite::Pqxdh => prekey.with_kem(KemSeed::generate(rng)),
    }
}

#[cfg(not(feature = "pqxdh"))]
fn one_time(id: u32, _: Suite, rng: &mut StdRng) -> OneTimePrekeySecret {
    OneTimePrekeySecret::generate(id, rng)
}

fn record(session: &Session<Role>) -> Vec<u8> {
    let mut bytes = vec![0; session.encoded_len()];
    let len = session.encode(&mut bytes).unwrap_or_default();
    bytes.truncate(len);
    bytes
}
