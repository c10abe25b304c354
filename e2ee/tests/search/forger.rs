//! Bytes an adversary makes of what it has seen.

use rand::RngExt;
use rand::rngs::StdRng;
use unhidra_e2ee::envelope::Envelope;

use crate::op::Forgery;
use crate::wire::{Wire, inner_at};

/// Offsets in a Message: ratchet key, PN, N, ciphertext.
const KEY: usize = 1;
const PN: usize = 33;
const NUMBER: usize = 37;
/// Offsets in the head of a HandshakeInit: EK, the id of the one-time prekey, the counter.
const EPHEMERAL: usize = 34;
const PREKEY: usize = 70;
const COUNTER: usize = 74;

/// What the adversary knows beside what it has seen.
pub(crate) struct Known {
    /// The ratchet key each side now sends under, where it has one.
    pub(crate) device_key: Option<[u8; 32]>,
    pub(crate) node_key: Option<[u8; 32]>,
    /// The nonce of the device's open question.
    pub(crate) nonce: Option<[u8; 16]>,
}

fn put(bytes: &mut [u8], at: usize, with: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + with.len()) {
        place.copy_from_slice(with);
    }
}

fn number_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_be_bytes)
}

fn any_key(rng: &mut StdRng) -> [u8; 32] {
    let mut key: [u8; 32] = rng.random();
    key[31] &= 0x7f;
    key
}

fn spoil_tag(bytes: &mut [u8]) {
    let tag = bytes.len().saturating_sub(16);
    bytes.iter_mut().skip(tag).for_each(|byte| *byte ^= 0x55);
}

/// Changes a Message, or the one in a HandshakeInit. `own_key` is the receiver's.
fn forge_message(mut bytes: Vec<u8>, what: Forgery, own_key: Option<[u8; 32]>, rng: &mut StdRng) -> Option<Vec<u8>> {
    let at = inner_at(&bytes);
    match what {
        Forgery::UnknownKey => put(&mut bytes, at + KEY, &any_key(rng)),
        Forgery::SeenNumber => spoil_tag(&mut bytes),
        Forgery::Ahead(by) => {
            let number = number_at(&bytes, at + NUMBER).saturating_add(by.into());
            put(&mut bytes, at + NUMBER, &number.to_be_bytes());
            spoil_tag(&mut bytes);
        }
        Forgery::UnknownKeyAhead => {
            put(&mut bytes, at + KEY, &any_key(rng));
            put(&mut bytes, at + NUMBER, &60_000u32.to_be_bytes());
        }
        Forgery::SmallOrder => put(&mut bytes, at + KEY, &[0; 32]),
        Forgery::OwnKey => put(&mut bytes, at + KEY, &own_key?),
        Forgery::HighBit => {
            let last = bytes.get(at + KEY + 31)? | 0x80;
            put(&mut bytes, at + KEY + 31, &[last]);
        }
        Forgery::OtherPn => {
            let len = number_at(&bytes, at + PN).wrapping_add(3);
            put(&mut bytes, at + PN, &len.to_be_bytes());
        }
        _ => return None,
    }
    Some(bytes)
}

fn forge_handshake(mut bytes: Vec<u8>, what: Forgery, rng: &mut StdRng) -> Option<Vec<u8>> {
    match what {
        Forgery::Init(by) => {
            put(&mut bytes, EPHEMERAL, &any_key(rng));
            let counter = number_at(&bytes, COUNTER).saturating_add(by.into());
            put(&mut bytes, COUNTER, &counter.to_be_bytes());
        }
        Forgery::InitLast => {
            let at = inner_at(&bytes);
            put(&mut bytes, at + KEY, &any_key(rng));
            put(&mut bytes, EPHEMERAL, &any_key(rng));
            put(&mut bytes, COUNTER, &u32::MAX.to_be_bytes());
        }
        Forgery::InitPrekey => {
            let at = inner_at(&bytes);
            put(&mut bytes, at + KEY, &any_key(rng));
            let id = number_at(&bytes, PREKEY).wrapping_add(1);
            put(&mut bytes, PREKEY, &id.to_be_bytes());
            let counter = number_at(&bytes, COUNTER).saturating_add(1);
            put(&mut bytes, COUNTER, &counter.to_be_bytes());
        }
        Forgery::InitKey => {
            let at = inner_at(&bytes);
            put(&mut bytes, at + KEY, &any_key(rng));
        }
        _ => return None,
    }
    // The duplicates' memory looks at the inner Message first.
    spoil_tag(&mut bytes);
    Some(bytes)
}

/// For the node; `None` where the adversary has seen nothing to make it of.
pub(crate) fn up(wire: &Wire, what: Forgery, known: &Known, rng: &mut StdRng) -> Option<Vec<u8>> {
    match what {
        Forgery::Noise => Some(rng.random::<[u8; 32]>().to_vec()),
        Forgery::Reset | Forgery::Bundle => None,
        Forgery::Init(_) | Forgery::InitLast | Forgery::InitPrekey | Forgery::InitKey => {
            forge_handshake(wire.last_up(|e| matches!(e, Envelope::HandshakeInit(_)))?, what, rng)
        }
        _ => forge_message(wire.last_up(|_| true)?, what, known.node_key, rng),
    }
}

/// For the device; with whether it is on the row of bundles.
pub(crate) fn down(wire: &Wire, what: Forgery, known: &Known, rng: &mut StdRng) -> Option<(bool, Vec<u8>)> {
    match what {
        Forgery::Noise => Some((false, rng.random::<[u8; 32]>().to_vec())),
        Forgery::Reset => {
            let mut bytes = wire.last_down(|e| matches!(e, Envelope::ResetRequest(_)))?;
            put(&mut bytes, 2, &known.device_key?);
            Some((false, bytes))
        }
        Forgery::Bundle => {
            let mut bytes = wire.last_down(|e| matches!(e, Envelope::PreKeyBundle(_)))?;
            put(&mut bytes, 2, &known.nonce?);
            Some((true, bytes))
        }
        _ => {
            let bytes = wire.last_down(|e| matches!(e, Envelope::Message(_)))?;
            Some((false, forge_message(bytes, what, known.device_key, rng)?))
        }
    }
}
