//! Both sides as a stock X3DH and Double Ratchet begin: from raw keys, without messages of ours
//! around them. The doors the transcripts of the oracle come in by; the product begins sessions in
//! [`handshake`](crate::handshake) alone.

use rand_core::CryptoRng;
use unhidra_core::time::UnixTime;
use zeroize::Zeroizing;

use crate::agreement::{as_initiator, as_responder};
use crate::identity::{IdentityKey, IdentitySecret};
use crate::keys::{KeyPair, PublicBytes, RootKey};
use crate::ratchet::Ratchet;
use crate::role::{NoHead, StockRole};
use crate::session::Session;
use crate::suite::Suite;

/// SK of the side that begins; `None` where a key of the other side has small order.
#[must_use]
pub fn initiator_key(
    identity: &IdentitySecret,
    ephemeral: &[u8; 32],
    responder: &IdentityKey,
    spk: &PublicBytes,
    opk: &PublicBytes,
) -> Option<Zeroizing<[u8; 32]>> {
    let root = as_initiator(identity, &KeyPair::from_bytes(ephemeral), responder, spk, opk, None)?;
    Some(Zeroizing::new(root.0))
}

/// SK of the side that answers; `None` where a key of the other side has small order.
#[must_use]
pub fn responder_key(
    identity: &IdentitySecret,
    spk: &[u8; 32],
    opk: &[u8; 32],
    initiator: &IdentityKey,
    ephemeral: &PublicBytes,
) -> Option<Zeroizing<[u8; 32]>> {
    let (spk, opk) = (KeyPair::from_bytes(spk), KeyPair::from_bytes(opk));
    let root = as_responder(identity, &spk, &opk, initiator, ephemeral, None)?;
    Some(Zeroizing::new(root.0))
}

impl Session<StockRole> {
    /// The side that sends first; `None` where the signed prekey has small order.
    #[must_use]
    pub fn sending_first(key: &[u8; 32], sad: [u8; 32], spk: PublicBytes, rng: &mut impl CryptoRng) -> Option<Self> {
        let ratchet = Ratchet::sending_first(RootKey(*key), sad, spk, rng)?;
        Some(Self::new(ratchet, Suite::X3dh, 1, &[0; 32], NoHead, UnixTime::EPOCH))
    }

    /// The side that receives first, under the secret of its signed prekey.
    #[must_use]
    pub fn receiving_first(key: &[u8; 32], sad: [u8; 32], spk: &[u8; 32]) -> Self {
        let ratchet = Ratchet::receiving_first(RootKey(*key), sad, KeyPair::from_bytes(spk));
        Self::new(ratchet, Suite::X3dh, 1, &[0; 32], NoHead, UnixTime::EPOCH)
    }
}
