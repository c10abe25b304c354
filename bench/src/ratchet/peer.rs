//! The peer: vodozemac, Olm in Rust, with its default sessions. What it would have to
//! write down after each message, its pickle, is not timed: that is in its favour.

use vodozemac::Curve25519PublicKey;
use vodozemac::olm::{Account, OlmMessage, Session, SessionConfig};

/// Two of its accounts, and the key the one made for the other.
pub(crate) struct Accounts {
    alice: Account,
    bob: Account,
}

impl Accounts {
    pub(crate) fn new() -> Self {
        Self { alice: Account::new(), bob: Account::new() }
    }

    /// Makes a one-time key for the next session.
    pub(crate) fn one_time_key(&mut self) -> Curve25519PublicKey {
        self.bob.generate_one_time_keys(1);
        let key = *self.bob.one_time_keys().values().next().expect("just made");
        self.bob.mark_keys_as_published();
        key
    }

    /// Begins a session and encrypts its first message.
    pub(crate) fn initiate(&self, key: Curve25519PublicKey, text: &[u8]) -> (Session, OlmMessage) {
        let bob = self.bob.curve25519_key();
        let mut session =
            self.alice.create_outbound_session(SessionConfig::version_1(), bob, key).expect("honest keys");
        let first = session.encrypt(text).expect("honest keys");
        (session, first)
    }

    /// Answers a session, which opens its first message.
    pub(crate) fn respond(&mut self, first: &OlmMessage) -> Session {
        let OlmMessage::PreKey(first) = first else { panic!("no session begins so") };
        let alice = self.alice.curve25519_key();
        let begun = self.bob.create_inbound_session(SessionConfig::version_1(), alice, first);
        begun.expect("honest keys").session
    }
}

/// A session both sides have sent in.
pub(crate) struct Pair {
    pub(crate) alice: Session,
    pub(crate) bob: Session,
}

impl Pair {
    pub(crate) fn new() -> Self {
        let mut accounts = Accounts::new();
        let key = accounts.one_time_key();
        let (alice, first) = accounts.initiate(key, b"first");
        let bob = accounts.respond(&first);
        let mut pair = Self { alice, bob };
        pair.send(false, b"hello");
        pair
    }

    /// A message one way, under a new key where the last one went the other way.
    pub(crate) fn send(&mut self, up: bool, text: &[u8]) {
        let (from, to) = if up { (&mut self.alice, &mut self.bob) } else { (&mut self.bob, &mut self.alice) };
        let sealed = from.encrypt(text).expect("honest keys");
        to.decrypt(&sealed).expect("in order");
    }
}
