//! Secret keys: a type each, moved and never cloned, wiped on drop, printed as `[secret]`.

use core::fmt;

use rand_core::CryptoRng;
use x25519_dalek::{PublicKey, SharedSecret, StaticSecret};
use zeroize::{ZeroizeOnDrop, optimization_barrier};

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub(crate) struct $name(pub(crate) [u8; 32]);

        impl Drop for $name {
            fn drop(&mut self) {
                wipe(&mut self.0);
            }
        }

        impl ZeroizeOnDrop for $name {}

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("[secret]")
            }
        }
    };
}

secret!(
    /// RK: moved by every DH step.
    RootKey);
secret!(
    /// CK: moved by every message.
    ChainKey);
secret!(
    /// MK: seals or opens one message, and is wiped.
    MessageKey);

/// Wipes a secret in one go. `Zeroize` writes each byte by itself, which costs a short message as
/// much as a tenth of its cipher.
pub(crate) fn wipe<T: Copy + Default, const N: usize>(secret: &mut [T; N]) {
    *secret = [T::default(); N];
    optimization_barrier(secret);
}

/// An X25519 public key as it stands on the wire.
pub(crate) type PublicBytes = [u8; 32];

/// The first 8 bytes of a ratchet key: enough to tell one's own keys apart. What an attacker gains
/// by making another key with the same 8 is what repeating the key itself would give.
pub(crate) type KeyId = [u8; 8];

pub(crate) fn key_id(key: &PublicBytes) -> KeyId {
    let [a, b, c, d, e, f, g, h, ..] = *key;
    [a, b, c, d, e, f, g, h]
}

/// An X25519 key pair, the public half kept so that no header costs a multiplication.
pub(crate) struct KeyPair {
    secret: StaticSecret,
    public: PublicBytes,
}

impl KeyPair {
    pub(crate) fn generate(rng: &mut impl CryptoRng) -> Self {
        Self::new(StaticSecret::random_from_rng(rng))
    }

    pub(crate) fn from_bytes(secret: &[u8; 32]) -> Self {
        Self::new(StaticSecret::from(*secret))
    }

    fn new(secret: StaticSecret) -> Self {
        let public = PublicKey::from(&secret).to_bytes();
        Self { secret, public }
    }

    /// The same pair again: a signed prekey begins many sessions.
    pub(crate) fn again(&self) -> Self {
        Self { secret: self.secret.clone(), public: self.public }
    }

    pub(crate) const fn public(&self) -> &PublicBytes {
        &self.public
    }

    pub(crate) fn secret_bytes(&self) -> &[u8; 32] {
        self.secret.as_bytes()
    }

    /// DH with `their` key; `None` where the output is all zero, which refuses the keys of small
    /// order (RFC 7748 section 6.1).
    pub(crate) fn agree(&self, their: &PublicBytes) -> Option<SharedSecret> {
        contributory(self.secret.diffie_hellman(&PublicKey::from(*their)))
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

pub(crate) fn contributory(shared: SharedSecret) -> Option<SharedSecret> {
    shared.was_contributory().then_some(shared)
}

#[cfg(test)]
mod published;

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    fn bytes(text: &str) -> [u8; 32] {
        let mut out = [0; 32];
        hex::decode_to_slice(text, &mut out).unwrap();
        out
    }

    #[test]
    fn key_pairs_agree_as_in_rfc_7748_section_6_1() {
        let alice = KeyPair::from_bytes(&bytes("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"));
        let bob = KeyPair::from_bytes(&bytes("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"));
        assert_eq!(*alice.public(), bytes("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"));
        assert_eq!(*bob.public(), bytes("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
        let shared = bytes("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        for agreed in [alice.agree(bob.public()), bob.agree(alice.public())] {
            assert_eq!(agreed.map(|s| s.to_bytes()), Some(shared));
        }
    }

    #[test]
    fn keys_of_small_order_are_refused() {
        let own = KeyPair::from_bytes(&[9; 32]);
        let mut minus_one = [0xff; 32];
        minus_one[0] = 0xec;
        minus_one[31] = 0x7f;
        let mut one = [0; 32];
        one[0] = 1;
        let order_8 = bytes("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800");
        let mut high_bit = order_8;
        high_bit[31] |= 0x80;
        for key in [[0; 32], one, minus_one, order_8, high_bit] {
            assert!(own.agree(&key).is_none(), "{key:02x?}");
        }
    }

    #[test]
    fn secrets_do_not_print() {
        assert_eq!(std::format!("{:?} {:?}", RootKey([7; 32]), KeyPair::from_bytes(&[7; 32])), "[secret] [secret]");
    }
}
