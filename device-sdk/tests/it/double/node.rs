//! The node's side, without a store: it opens, remembers, and seals commands.

use rand::SeedableRng;
use rand::rngs::StdRng;
use unhidra_core::durable::DurableSource;
use unhidra_core::ids::{CommandId, DeviceId};
use unhidra_core::time::UnixTime;
use unhidra_device_sdk::{IdentityKey, IdentitySecret, Status, Suite};
use unhidra_e2ee::envelope::{Envelope, HandshakeInit, Message, PrekeyRequest};
use unhidra_e2ee::error::OpenError;
use unhidra_e2ee::handshake::{Enrolled, RespondError, respond};
use unhidra_e2ee::plaintext::{Kind, Plaintext};
use unhidra_e2ee::prekey::{BundleParts, OneTimePrekeySecret, SignedPrekeySecret};
use unhidra_e2ee::reset::{ResetReason, sign_reset};
use unhidra_e2ee::role::NodeRole;
use unhidra_e2ee::sessions::{Handshake, Sessions};
use unhidra_e2ee::skipped::Inline;

type Role = NodeRole<Inline<128>>;

/// What the device said, opened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Said {
    Reading { id: u64, body: Vec<u8> },
    Event(String),
    Receipt { command: CommandId, status: Status, body: Vec<u8> },
}

impl Said {
    /// The id of a reading.
    pub(crate) const fn reading(&self) -> Option<u64> {
        match self {
            Self::Reading { id, .. } => Some(*id),
            Self::Event(_) | Self::Receipt { .. } => None,
        }
    }
}

/// A one-time prekey of a suite.
fn one_time(suite: Suite, id: u32, rng: &mut StdRng) -> OneTimePrekeySecret {
    OneTimePrekeySecret::generate_for(suite, id, rng).expect("the suite is built")
}

/// PUBACK's reason code, and what goes to the device's `commands`.
pub(crate) struct Answer {
    pub(crate) reason: u8,
    pub(crate) to_device: Vec<Vec<u8>>,
}

pub(crate) struct Node {
    identity: IdentitySecret,
    device: DeviceId,
    device_identity: IdentityKey,
    suite: Suite,
    spk: SignedPrekeySecret,
    opk: OneTimePrekeySecret,
    last_counter: u32,
    sessions: Sessions<Role>,
    rng: StdRng,
    durable: DurableSource,
    /// What was opened, in order; each once.
    pub(crate) said: Vec<Said>,
    /// Handshakes that began a session.
    pub(crate) handshakes: u32,
    pub(crate) duplicates: u32,
    /// Refuse so many messages with 0x83, whatever they are.
    pub(crate) refuse_next: u32,
    /// Whether HandshakeInits are answered with `hello`.
    pub(crate) says_hello: bool,
}

impl Node {
    pub(crate) fn new(seed: u64, suite: Suite, device: DeviceId, device_identity: IdentityKey) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        Self {
            identity: IdentitySecret::generate(&mut rng),
            device,
            device_identity,
            suite,
            spk: SignedPrekeySecret::generate(1, &mut rng),
            opk: one_time(suite, 1, &mut rng),
            last_counter: 0,
            sessions: Sessions::default(),
            rng,
            durable: DurableSource::new_for_storage(),
            said: Vec::new(),
            handshakes: 0,
            duplicates: 0,
            refuse_next: 0,
            says_hello: true,
        }
    }

    pub(crate) fn identity_key(&self) -> IdentityKey {
        self.identity.public()
    }

    /// The node forgets its sessions, as one that lost its store.
    pub(crate) fn forget_sessions(&mut self) {
        self.sessions = Sessions::default();
    }

    /// The device has a new identity key: its sessions are over.
    pub(crate) fn enrol(&mut self, device_identity: IdentityKey) {
        (self.device_identity, self.last_counter) = (device_identity, 0);
        self.forget_sessions();
    }

    pub(crate) fn bundle(&self, request: &[u8], now: UnixTime) -> Vec<u8> {
        let request = PrekeyRequest::parse(request).expect("the device asks as it should");
        let parts = BundleParts {
            device: &self.device,
            request,
            last_counter: self.last_counter,
            now,
            spk: &self.spk,
            opk: &self.opk,
        };
        parts.sign(&self.identity).expect("it asks for its own suite").as_bytes().to_vec()
    }

    pub(crate) fn message(&mut self, envelope: &[u8], now: UnixTime) -> Answer {
        if self.refuse_next > 0 {
            self.refuse_next -= 1;
            return Answer { reason: 0x83, to_device: Vec::new() };
        }
        match Envelope::parse(envelope) {
            Ok(Envelope::Message(message)) => self.open(&message, now, false),
            Ok(Envelope::HandshakeInit(init)) => match self.sessions.compare(&init, self.last_counter) {
                Handshake::New => self.respond(&init, now),
                Handshake::Same => self.open(&init.message(), now, self.says_hello),
                Handshake::Refused(reason) => self.refuse(&init.message(), Some(reason)),
            },
            other => panic!("a device sent {other:?}"),
        }
    }

    fn respond(&mut self, init: &HandshakeInit<'_>, now: UnixTime) -> Answer {
        let enrolled = Enrolled { device: &self.device, identity: &self.device_identity, suite: self.suite };
        let mut out = vec![0; 4096];
        let (identity, rng) = (&self.identity, &mut self.rng);
        match respond(identity, enrolled, &self.spk, &self.opk, init, &mut out, now, rng) {
            Ok((session, opened)) => {
                let plaintext = opened.plaintext().to_vec();
                self.sessions.begin(session, Some(opened.tag()));
                self.last_counter = init.counter();
                self.handshakes += 1;
                let opk_id = self.opk.id() + 1;
                self.opk = one_time(self.suite, opk_id, &mut self.rng);
                self.heard(&plaintext);
                self.accept(self.says_hello)
            }
            Err(RespondError::Open(_) | RespondError::Prekeys { .. }) => self.refuse(&init.message(), None),
            Err(error) => panic!("a handshake of the device: {error}"),
        }
    }

    fn open(&mut self, message: &Message<'_>, now: UnixTime, hello: bool) -> Answer {
        let mut out = vec![0; 4096];
        match self.sessions.open(message, &mut out, now, &mut self.rng) {
            Ok((opened, moved)) => {
                let plaintext = opened.plaintext().to_vec();
                self.heard(&plaintext);
                let mut answer = self.accept(hello);
                if let Some(reason) = moved.reset_due {
                    answer.to_device.push(self.reset(message, reason));
                }
                answer
            }
            Err(OpenError::Duplicate) => {
                self.duplicates += 1;
                Answer { reason: 0, to_device: Vec::new() }
            }
            Err(error) => self.refuse(message, error.reset_due()),
        }
    }

    fn accept(&mut self, hello: bool) -> Answer {
        let hello = hello.then(|| Plaintext { name: Some("hello"), ..Plaintext::new(Kind::Setting) });
        let to_device = hello.map(|hello| self.seal(&hello)).into_iter().flatten().collect();
        Answer { reason: 0, to_device }
    }

    fn refuse(&mut self, message: &Message<'_>, reason: Option<ResetReason>) -> Answer {
        Answer { reason: 0x83, to_device: reason.map(|reason| self.reset(message, reason)).into_iter().collect() }
    }

    fn reset(&self, message: &Message<'_>, reason: ResetReason) -> Vec<u8> {
        sign_reset(&self.identity, &self.device, reason, message.ratchet_key()).to_vec()
    }

    /// Reads what was opened. A reading id that was heard before is a repeat and counts once.
    fn heard(&mut self, plaintext: &[u8]) {
        let plaintext = Plaintext::decode(plaintext).expect("a device says what it should");
        let body = plaintext.body.unwrap_or_default().to_vec();
        let said = match plaintext.kind {
            Kind::Reading => Said::Reading { id: plaintext.reading_id.expect("a reading has an id"), body },
            Kind::Event => Said::Event(plaintext.name.unwrap_or_default().into()),
            Kind::Receipt => Said::Receipt {
                command: plaintext.command_id.expect("a receipt names its command"),
                status: plaintext.status.expect("a receipt has a status"),
                body,
            },
            other => panic!("a device said {other:?}"),
        };
        if !matches!(said, Said::Reading { .. }) || !self.said.contains(&said) {
            self.said.push(said);
        }
    }

    /// Seals a command; `None` where there is no session to seal it in.
    pub(crate) fn command(
        &mut self,
        id: CommandId,
        name: &str,
        body: &[u8],
        expires_at: Option<UnixTime>,
    ) -> Option<Vec<u8>> {
        self.seal(&Plaintext {
            name: Some(name),
            body: Some(body),
            command_id: Some(id),
            expires_at,
            ..Plaintext::new(Kind::Command)
        })
    }

    /// Seals a setting; `None` where there is no session to seal it in.
    pub(crate) fn setting(&mut self, name: &str, value: Option<&[u8]>, version: u64) -> Option<Vec<u8>> {
        self.seal(&Plaintext {
            name: Some(name),
            body: value,
            reading_id: Some(version),
            ..Plaintext::new(Kind::Setting)
        })
    }

    fn seal(&mut self, plaintext: &Plaintext<'_>) -> Option<Vec<u8>> {
        let session = self.sessions.present_mut()?;
        let mut padded = vec![0; plaintext.padded_len()];
        plaintext.encode_padded(&mut padded).expect("the buffer is as long as it says");
        let out = vec![0; session.sealed_len(padded.len())];
        let (_, pending) = session.seal(&padded, out).ok()?;
        Some(pending.release(self.durable.durable()))
    }
}
