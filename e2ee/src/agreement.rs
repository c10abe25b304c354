//! X3DH (PROTOCOL.md section 5): four agreements, one session key.

use x25519_dalek::SharedSecret;

use crate::identity::{IdentityKey, IdentitySecret};
use crate::kdf::session_key;
use crate::keys::{KeyPair, PublicBytes, RootKey};

const LABEL: &[u8] = b"unhidra/x3dh/v1";

/// The side that begins. `None` where a key of the other side has small order.
pub(crate) fn as_initiator(
    identity: &IdentitySecret,
    ephemeral: &KeyPair,
    responder: &IdentityKey,
    spk: &PublicBytes,
    opk: &PublicBytes,
) -> Option<RootKey> {
    Some(combine([
        identity.agree(spk)?,
        ephemeral.agree(&responder.montgomery())?,
        ephemeral.agree(spk)?,
        ephemeral.agree(opk)?,
    ]))
}

/// The side that answers. `None` where a key of the other side has small order.
pub(crate) fn as_responder(
    identity: &IdentitySecret,
    spk: &KeyPair,
    opk: &KeyPair,
    initiator: &IdentityKey,
    ephemeral: &PublicBytes,
) -> Option<RootKey> {
    Some(combine([
        spk.agree(&initiator.montgomery())?,
        identity.agree(ephemeral)?,
        spk.agree(ephemeral)?,
        opk.agree(ephemeral)?,
    ]))
}

fn combine([dh1, dh2, dh3, dh4]: [SharedSecret; 4]) -> RootKey {
    session_key(&[&[0xff; 32], dh1.as_bytes(), dh2.as_bytes(), dh3.as_bytes(), dh4.as_bytes()], LABEL)
}
