//! How a session begins (PROTOCOL.md sections 4, 5 and 9).
//!
//! ```text
//! device                                   node
//! PrekeyRequest (nonce)             ->     BundleParts::sign
//! PreKeyBundle::verify              <-
//! initiate: a session with its head
//! seal_within: HandshakeInit        ->     respond: a session, and its first message
//! Session::open, the head goes      <-     Session::seal
//! ```

use rand_core::CryptoRng;
use sha2::{Digest, Sha256};
use thiserror::Error;
use unhidra_core::ids::DeviceId;
use unhidra_core::time::UnixTime;

use crate::agreement::{as_initiator, as_responder};
use crate::envelope::{HandshakeInit, KEM_KEY_LEN, PreKeyBundle};
use crate::error::OpenError;
use crate::head::Head;
use crate::identity::{BadSignature, IdentityKey, IdentitySecret, Label, put_device};
use crate::kem::KemKey;
use crate::keys::{KeyPair, PublicBytes};
use crate::prekey::{OneTimePrekeySecret, SignedPrekeySecret};
use crate::ratchet::Ratchet;
use crate::reset::ResetReason;
use crate::role::{DeviceRole, KeptHead, NoHead, Role};
use crate::session::{Opened, Session};
use crate::suite::Suite;
use crate::wire::Writer;

/// Why a device takes no bundle.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum BundleError {
    /// It answers another request.
    #[error("the bundle answers another request")]
    Nonce,
    /// Its identity key is not the one pinned at enrolment.
    #[error("the bundle is of another node than the one pinned")]
    Identity,
    /// The node did not sign it, or not for this device.
    #[error(transparent)]
    Signature(#[from] BadSignature),
}

/// A bundle the device has verified: it serves one handshake.
#[derive(Debug)]
pub struct VerifiedBundle<'a> {
    node: IdentityKey,
    bundle: PreKeyBundle<'a>,
}

impl VerifiedBundle<'_> {
    /// The node's clock when it made the bundle.
    #[must_use]
    pub const fn now(&self) -> UnixTime {
        UnixTime::from_s(self.bundle.now_s)
    }
}

impl<'a> PreKeyBundle<'a> {
    /// Verifies the bundle: that it answers this request, for this device, from the pinned node.
    ///
    /// # Errors
    ///
    /// [`BundleError`] says why not.
    pub fn verify(
        &self,
        device: &DeviceId,
        node: &IdentityKey,
        nonce: &[u8; 16],
    ) -> Result<VerifiedBundle<'a>, BundleError> {
        if self.nonce != nonce {
            return Err(BundleError::Nonce);
        }
        if self.identity != node.as_bytes() {
            return Err(BundleError::Identity);
        }
        node.verify(Label::Bundle, device, self.signed, self.signature)?;
        Ok(VerifiedBundle { node: *node, bundle: *self })
    }
}

/// Why a device cannot begin a session with a bundle.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum InitiateError {
    /// The device was enrolled with another suite.
    #[error("the bundle is of suite {found}, the device of {expected}")]
    Suite {
        /// The bundle's.
        found: Suite,
        /// The device's.
        expected: Suite,
    },
    /// A key of the bundle has small order.
    #[error("the bundle holds a key of small order")]
    HostileKey,
    /// The KEM key of the bundle is none: it fails the check of FIPS 203 section 7.2.
    #[error("the bundle holds a KEM key that fails FIPS 203 section 7.2")]
    HostileKemKey,
    /// There is no handshake counter left: the device must be enrolled again.
    #[error("the handshake counter is spent")]
    CounterSpent,
}

/// Begins a session on the device. Its first messages are HandshakeInits; the counter that must
/// outlive it is [`Session::counter`].
///
/// `own_counter` is that of the device's last session, 0 before the first.
///
/// # Errors
///
/// [`InitiateError`] says why not.
pub fn initiate(
    identity: &IdentitySecret,
    device: &DeviceId,
    suite: Suite,
    bundle: &VerifiedBundle<'_>,
    own_counter: u32,
    now: UnixTime,
    rng: &mut impl CryptoRng,
) -> Result<Session<DeviceRole>, InitiateError> {
    let VerifiedBundle { node, bundle } = bundle;
    if bundle.suite != suite {
        return Err(InitiateError::Suite { found: bundle.suite, expected: suite });
    }
    let counter = own_counter.max(bundle.last_counter).checked_add(1).ok_or(InitiateError::CounterSpent)?;
    let ephemeral = KeyPair::generate(rng);
    let own = identity.public();
    let mut head = Head::new(suite, own.as_bytes(), ephemeral.public(), bundle.spk_id, bundle.opk_id, counter);
    let secret = match bundle.kem {
        None => None,
        Some(key) => Some(key.encapsulate(&mut head, rng).ok_or(InitiateError::HostileKemKey)?),
    };
    let root = as_initiator(identity, &ephemeral, node, bundle.spk, bundle.opk, secret.as_ref())
        .ok_or(InitiateError::HostileKey)?;
    let sad =
        session_ad(device, node, bundle.spk, bundle.opk, bundle.kem.as_ref().map(KemKey::as_bytes), head.as_bytes());
    let ratchet = Ratchet::sending_first(root, sad, *bundle.spk, rng).ok_or(InitiateError::HostileKey)?;
    Ok(Session::new(ratchet, suite, counter, ephemeral.public(), KeptHead(Some(head)), now))
}

/// Why a handshake begins no session.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum RespondError {
    /// The device was enrolled with another suite.
    #[error("a handshake of suite {found}, the device was enrolled with {expected}")]
    Suite {
        /// The handshake's.
        found: Suite,
        /// The device's.
        expected: Suite,
    },
    /// Its identity key is not the one enrolled.
    #[error("a handshake of another identity than the one enrolled")]
    Identity,
    /// It names other prekeys than the caller found.
    #[error("a handshake with signed prekey {spk_id} and one-time prekey {opk_id}, which are not these")]
    Prekeys {
        /// The signed prekey it names.
        spk_id: u32,
        /// The one-time prekey it names.
        opk_id: u32,
    },
    /// It is of another suite than the one-time prekey it names.
    #[error("a handshake of suite {found}, its one-time prekey is of {expected}")]
    PrekeySuite {
        /// The handshake's.
        found: Suite,
        /// The prekey's.
        expected: Suite,
    },
    /// Its ephemeral key has small order.
    #[error("a handshake with a key of small order")]
    HostileKey,
    /// Its first message does not open.
    #[error("the first message of a handshake: {0}")]
    Open(#[from] OpenError),
}

impl RespondError {
    /// Why the node should answer with a ResetRequest that names the inner Message's ratchet key,
    /// if it should: the device's next handshake takes prekeys that are there.
    #[must_use]
    pub const fn reset_due(self) -> Option<ResetReason> {
        match self {
            Self::Prekeys { .. } | Self::PrekeySuite { .. } => Some(ResetReason::UnknownKey),
            Self::Open(error) => error.reset_due(),
            Self::Suite { .. } | Self::Identity | Self::HostileKey => None,
        }
    }

    /// Whether the failure cost DH steps: 10 a minute a device, then such messages are dropped
    /// unread.
    #[must_use]
    pub const fn spent_dh_step(self) -> bool {
        matches!(self, Self::HostileKey | Self::Open(_))
    }
}

/// What the node knows of a device that shakes hands.
#[derive(Clone, Copy, Debug)]
pub struct Enrolled<'a> {
    /// Its id, by its certificate.
    pub device: &'a DeviceId,
    /// Its identity key.
    pub identity: &'a IdentityKey,
    /// Its suite.
    pub suite: Suite,
}

/// Begins a session on the node, and opens the first message into the front of `out`. Changes
/// nothing outside: the counter moves and the one-time prekey goes in the commit that holds both.
///
/// The caller has compared the counter: see [`Sessions::compare`](crate::sessions::Sessions::compare).
///
/// # Errors
///
/// [`RespondError`] says why not.
#[allow(clippy::too_many_arguments, reason = "two sides of one handshake, the message, and the three doors")]
pub fn respond<'o, R: Role<Head = NoHead>>(
    identity: &IdentitySecret,
    enrolled: Enrolled<'_>,
    spk: &SignedPrekeySecret,
    opk: &OneTimePrekeySecret,
    init: &HandshakeInit<'_>,
    out: &'o mut [u8],
    now: UnixTime,
    rng: &mut impl CryptoRng,
) -> Result<(Session<R>, Opened<'o>), RespondError> {
    if init.suite() != enrolled.suite {
        return Err(RespondError::Suite { found: init.suite(), expected: enrolled.suite });
    }
    if init.identity() != enrolled.identity.as_bytes() {
        return Err(RespondError::Identity);
    }
    let (spk_id, opk_id) = (init.spk_id(), init.opk_id());
    if spk.id() != spk_id || opk.id() != opk_id {
        return Err(RespondError::Prekeys { spk_id, opk_id });
    }
    let kem = match (init.kem, &opk.kem) {
        (None, None) => None,
        (Some(ciphertext), Some(seed)) => Some(seed.decapsulate(ciphertext)),
        _ => return Err(RespondError::PrekeySuite { found: init.suite(), expected: opk.suite() }),
    };
    let (secret, kem_key) = (kem.as_ref().map(|(secret, _)| secret), kem.as_ref().map(|(_, key)| key));
    let root = as_responder(identity, &spk.pair, &opk.pair, enrolled.identity, init.ephemeral(), secret)
        .ok_or(RespondError::HostileKey)?;
    let sad = session_ad(enrolled.device, &identity.public(), spk.public(), opk.public(), kem_key, init.head());
    let ratchet = Ratchet::receiving_first(root, sad, spk.pair.again());
    let mut session = Session::new(ratchet, enrolled.suite, init.counter(), init.ephemeral(), NoHead, now);
    let (opened, _first_write_is_whole) = session.open(&init.message(), out, now, rng)?;
    Ok((session, opened))
}

/// SAD: what ties every message of a session to its handshake.
fn session_ad(
    device: &DeviceId,
    node: &IdentityKey,
    spk: &PublicBytes,
    opk: &PublicBytes,
    kem_key: Option<&[u8; KEM_KEY_LEN]>,
    head: &[u8],
) -> [u8; 32] {
    let mut named = [0; 65];
    let mut writer = Writer::new(&mut named);
    put_device(&mut writer, device);
    let len = writer.finish().unwrap_or_default();
    Sha256::new()
        .chain_update(b"unhidra/sad/v1")
        .chain_update(named.get(..len).unwrap_or_default())
        .chain_update(node.as_bytes())
        .chain_update(spk)
        .chain_update(opk)
        .chain_update(kem_key.map_or(&[][..], |key| key))
        .chain_update(head)
        .finalize()
        .into()
}
