//! X3DH and PQXDH (PROTOCOL.md section 5): four agreements, a fifth by ML-KEM in suite 2, and one
//! session key.

use x25519_dalek::SharedSecret;

use crate::identity::{IdentityKey, IdentitySecret};
use crate::kdf::session_key;
use crate::kem::KemSecret;
use crate::keys::{KeyPair, PublicBytes, RootKey};

const X3DH_LABEL: &[u8] = b"unhidra/x3dh/v1";
const PQXDH_LABEL: &[u8] = b"unhidra/pqxdh/v1";

/// The side that begins. `None` where a key of the other side has small order.
pub(crate) fn as_initiator(
    identity: &IdentitySecret,
    ephemeral: &KeyPair,
    responder: &IdentityKey,
    spk: &PublicBytes,
    opk: &PublicBytes,
    kem: Option<&KemSecret>,
) -> Option<RootKey> {
    let agreed =
        [identity.agree(spk)?, ephemeral.agree(&responder.montgomery())?, ephemeral.agree(spk)?, ephemeral.agree(opk)?];
    Some(combine(agreed, kem))
}

/// The side that answers. `None` where a key of the other side has small order.
pub(crate) fn as_responder(
    identity: &IdentitySecret,
    spk: &KeyPair,
    opk: &KeyPair,
    initiator: &IdentityKey,
    ephemeral: &PublicBytes,
    kem: Option<&KemSecret>,
) -> Option<RootKey> {
    let agreed =
        [spk.agree(&initiator.montgomery())?, identity.agree(ephemeral)?, spk.agree(ephemeral)?, opk.agree(ephemeral)?];
    Some(combine(agreed, kem))
}

fn combine([dh1, dh2, dh3, dh4]: [SharedSecret; 4], kem: Option<&KemSecret>) -> RootKey {
    let filler = [0xff; 32];
    let [dh1, dh2, dh3, dh4] = [&dh1, &dh2, &dh3, &dh4].map(SharedSecret::as_bytes);
    match kem {
        None => session_key(&[&filler, dh1, dh2, dh3, dh4], X3DH_LABEL),
        Some(kem) => session_key(&[&filler, dh1, dh2, dh3, dh4, kem.as_bytes()], PQXDH_LABEL),
    }
}
