//! The floor: the primitives a message or a step cannot do without, from the same crates with the
//! same features, and nothing around them.

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use hmac::{Hmac, Mac};
use rand::SeedableRng;
use rand::rngs::StdRng;
use sha2::Sha256;
use x25519_dalek::{PublicKey, StaticSecret};

/// SAD and header: what a message authenticates beside its text.
const AD: [u8; 73] = [3; 73];

type Key = [u8; 32];

fn hmac(key: &Key) -> Hmac<Sha256> {
    let mut block = [0; 64];
    block[..32].copy_from_slice(key);
    Hmac::new((&block).into())
}

fn finish(mac: Hmac<Sha256>) -> Key {
    mac.finalize().into_bytes().into()
}

/// Two HMAC on one key schedule: the message key, and the chain key after it.
pub(crate) fn chain_step(chain: &mut Key) -> Key {
    let mac = hmac(chain);
    let message = finish(mac.clone().chain_update([1]));
    *chain = finish(mac.chain_update([2]));
    message
}

/// A chain step and the AEAD, in place.
pub(crate) fn seal(chain: &mut Key, text: &mut [u8]) -> [u8; 16] {
    let cipher = ChaCha20Poly1305::new((&chain_step(chain)).into());
    cipher.encrypt_inout_detached(&Default::default(), &AD, text.into()).expect("short").into()
}

/// A chain step and the AEAD's inverse, in place.
pub(crate) fn open(chain: &mut Key, text: &mut [u8], tag: &[u8; 16]) {
    let cipher = ChaCha20Poly1305::new((&chain_step(chain)).into());
    cipher.decrypt_inout_detached(&Default::default(), &AD, text.into(), tag.into()).expect("sealed so");
}

/// HKDF with 64 bytes of output: an extraction and two blocks of expansion.
fn hkdf(salt: &Key, ikm: &[u8]) -> (Key, Key) {
    let prk = finish(hmac(salt).chain_update(ikm));
    let info = b"unhidra/root/v1";
    let first = finish(hmac(&prk).chain_update(info).chain_update([1]));
    let second = finish(hmac(&prk).chain_update(first).chain_update(info).chain_update([2]));
    (first, second)
}

/// The five primitives of a DH step both ways: two X25519, one key generation, two HKDF.
pub(crate) fn step(root: &mut Key, own: &mut StaticSecret, their: &PublicKey, rng: &mut StdRng) -> (Key, PublicKey) {
    let (received, _) = hkdf(root, own.diffie_hellman(their).as_bytes());
    *own = StaticSecret::random_from_rng(rng);
    let public = PublicKey::from(&*own);
    let (sent, chain) = hkdf(&received, own.diffie_hellman(their).as_bytes());
    *root = sent;
    (chain, public)
}

/// What the side that begins cannot do without: a signature verified, two keys made, five X25519.
pub(crate) struct Initiation {
    signed: [u8; 190],
    signature: Signature,
    node: VerifyingKey,
    identity: StaticSecret,
    their: PublicKey,
    rng: StdRng,
}

impl Initiation {
    pub(crate) fn new() -> Self {
        let signer = SigningKey::from_bytes(&[3; 32]);
        let signed = [7; 190];
        Self {
            signature: signer.sign(&signed),
            signed,
            node: signer.verifying_key(),
            identity: StaticSecret::from([7; 32]),
            their: PublicKey::from(&StaticSecret::from([9; 32])),
            rng: StdRng::seed_from_u64(5),
        }
    }

    pub(crate) fn run(&mut self) -> [Key; 4] {
        self.node.verify_strict(&self.signed, &self.signature).expect("signed so");
        let ephemeral = StaticSecret::random_from_rng(&mut self.rng);
        let own = StaticSecret::random_from_rng(&mut self.rng);
        let agreed = [&self.identity, &ephemeral, &ephemeral, &ephemeral].map(|key| key.diffie_hellman(&self.their));
        let root = hkdf(&[0; 32], agreed.map(|secret| secret.to_bytes()).as_flattened()).0;
        let (root, chain) = hkdf(&root, own.diffie_hellman(&self.their).as_bytes());
        [root, chain, PublicKey::from(&ephemeral).to_bytes(), PublicKey::from(&own).to_bytes()]
    }
}

/// What the side that answers cannot do without: four X25519, and a DH step both ways.
pub(crate) fn respond(their: &PublicKey, rng: &mut StdRng) -> Key {
    let mut spk = StaticSecret::from([7; 32]);
    let agreed = [their; 4].map(|their| spk.diffie_hellman(their));
    let mut root = hkdf(&[0; 32], agreed.map(|secret| secret.to_bytes()).as_flattened()).0;
    step(&mut root, &mut spk, their, rng).0
}
