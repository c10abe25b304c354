//! A device: `e2ee`'s device side, with writes that always succeed.

use std::num::NonZeroU8;

use rand::rngs::StdRng;
use unhidra_core::durable::DurableSource;
use unhidra_core::ids::{CommandId, DeviceId};
use unhidra_core::time::UnixTime;
use unhidra_e2ee::envelope::{Envelope, PrekeyRequest};
use unhidra_e2ee::error::OpenError;
use unhidra_e2ee::handshake::{InitiateError, initiate};
use unhidra_e2ee::identity::{IdentityKey, IdentitySecret};
use unhidra_e2ee::lease::Lease;
use unhidra_e2ee::plaintext::{Kind, Plaintext, Status};
use unhidra_e2ee::role::DeviceRole;
use unhidra_e2ee::sessions::Sessions;
use unhidra_e2ee::suite::Suite;

pub(crate) struct Device {
    pub(crate) id: DeviceId,
    pub(crate) suite: Suite,
    pub(crate) identity: IdentitySecret,
    node: IdentityKey,
    pub(crate) sessions: Sessions<DeviceRole>,
    lease: Option<Lease>,
    pub(crate) counter: u32,
    rng: StdRng,
    next_reading: u64,
}

/// What a device understood of a message.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Heard {
    /// A word of the node's own, `hello` for instance.
    Setting(String),
    /// A setting: its name and value.
    Set(String, Option<Vec<u8>>),
    Command(CommandId, String, Vec<u8>),
    /// A ResetRequest, and whether the device obeys it.
    Reset(bool),
    NotOpened(OpenError),
}

pub(crate) const NONCE: [u8; 16] = [9; 16];

impl Heard {
    /// What a node says to answer a handshake.
    pub(crate) fn hello() -> Self {
        Self::Setting("hello".to_owned())
    }
}

impl Device {
    pub(crate) fn new(id: &str, node: IdentityKey, mut rng: StdRng) -> Self {
        Self {
            id: DeviceId::parse(id).expect("valid"),
            suite: Suite::X3dh,
            identity: IdentitySecret::generate(&mut rng),
            node,
            sessions: Sessions::default(),
            lease: None,
            counter: 0,
            rng,
            next_reading: 1,
        }
    }

    pub(crate) fn asks(suite: Suite) -> Vec<u8> {
        PrekeyRequest { suite, nonce: NONCE }.encode().to_vec()
    }

    /// Begins a session with a bundle.
    pub(crate) fn begin(&mut self, bundle: &[u8], now: UnixTime) {
        assert_eq!(self.try_begin(bundle, now), Ok(()));
    }

    pub(crate) fn try_begin(&mut self, bundle: &[u8], now: UnixTime) -> Result<(), InitiateError> {
        let Ok(Envelope::PreKeyBundle(bundle)) = Envelope::parse(bundle) else { panic!("a bundle") };
        let bundle = bundle.verify(&self.id, &self.node, &NONCE).expect("signed for this device");
        let session = initiate(&self.identity, &self.id, self.suite, &bundle, self.counter, now, &mut self.rng)?;
        self.counter = session.counter();
        self.sessions.begin(session, None);
        self.lease = None;
        Ok(())
    }

    pub(crate) fn reading(&mut self, body: &[u8], now: UnixTime) -> Vec<u8> {
        let id = self.next_reading;
        self.next_reading += 1;
        self.reading_again(id, body, now)
    }

    pub(crate) fn reading_again(&mut self, id: u64, body: &[u8], now: UnixTime) -> Vec<u8> {
        let said =
            Plaintext { name: Some("t"), body: Some(body), reading_id: Some(id), ..Plaintext::new(Kind::Reading) };
        self.seal(&said, now)
    }

    pub(crate) fn receipt(&mut self, command: CommandId, status: Status, now: UnixTime) -> Vec<u8> {
        let said = Plaintext { command_id: Some(command), status: Some(status), ..Plaintext::new(Kind::Receipt) };
        self.seal(&said, now)
    }

    pub(crate) fn seal(&mut self, said: &Plaintext<'_>, now: UnixTime) -> Vec<u8> {
        let mut plaintext = vec![0; said.padded_len()];
        let len = said.encode_padded(&mut plaintext).expect("fits");
        let session = self.sessions.present_mut().expect("a session");
        if self.lease.as_ref().is_none_or(|lease| session.leased(lease, now) == 0) {
            let count = NonZeroU8::new(8).expect("not 0");
            let (_, pending) = session.lease(count, now, &mut self.rng).expect("a lease");
            self.lease = Some(pending.grant(DurableSource::new_for_storage().durable()));
        }
        let lease = self.lease.as_ref().expect("taken");
        let mut out = vec![0; session.sealed_len(len)];
        session.seal_within(lease, &plaintext[..len], &mut out, now).expect("seals").to_vec()
    }

    pub(crate) fn hear(&mut self, bytes: &[u8], now: UnixTime) -> Heard {
        let mut out = vec![0; bytes.len()];
        match Envelope::parse(bytes).expect("an envelope") {
            Envelope::Message(message) => match self.sessions.open(&message, &mut out, now, &mut self.rng) {
                Ok((opened, _)) => {
                    let said = Plaintext::decode(opened.plaintext()).expect("a plaintext");
                    match (said.kind, said.command_id) {
                        (Kind::Setting, _) if said.reading_id.is_some() => {
                            Heard::Set(said.name.unwrap_or_default().to_owned(), said.body.map(<[u8]>::to_vec))
                        }
                        (Kind::Setting, _) => Heard::Setting(said.name.unwrap_or_default().to_owned()),
                        (Kind::Command, Some(id)) => {
                            let name = said.name.unwrap_or_default().to_owned();
                            Heard::Command(id, name, said.body.unwrap_or_default().to_vec())
                        }
                        other => panic!("{other:?}"),
                    }
                }
                Err(error) => Heard::NotOpened(error),
            },
            Envelope::ResetRequest(reset) => {
                let reset = reset.verify(&self.id, &self.node).expect("signed by the node for this device");
                Heard::Reset(self.sessions.obeys(&reset))
            }
            other => panic!("{other:?}"),
        }
    }
}
