//! Prekeys, which live on the node, and the bundle that carries their public halves to a device.

use core::fmt;

use rand_core::CryptoRng;
use thiserror::Error;
use unhidra_core::ids::DeviceId;
use unhidra_core::time::UnixTime;

use crate::envelope::{BUNDLE_LEN, BUNDLE_LEN_MAX, PrekeyRequest, TYPE_BUNDLE, bundle_len};
use crate::identity::{IdentitySecret, Label};
#[cfg(not(feature = "pqxdh"))]
use crate::kem::KemSeed;
#[cfg(feature = "pqxdh")]
pub use crate::kem::{KEM_SEED_LEN, KemSeed};
use crate::keys::{KeyPair, PublicBytes};
use crate::suite::Suite;
use crate::wire::{Writer, join};

/// SPK: one for all devices, rotated weekly.
pub struct SignedPrekeySecret {
    id: u32,
    pub(crate) pair: KeyPair,
}

/// OPK: one device's, for one handshake. The KEM pair of suite 2 belongs to it.
pub struct OneTimePrekeySecret {
    id: u32,
    pub(crate) pair: KeyPair,
    /// There in suite 2 alone.
    pub(crate) kem: Option<KemSeed>,
}

impl SignedPrekeySecret {
    /// Makes a new one under an id that was never given before.
    #[must_use]
    pub fn generate(id: u32, rng: &mut impl CryptoRng) -> Self {
        Self { id, pair: KeyPair::generate(rng) }
    }

    /// The prekey of a stored secret.
    #[must_use]
    pub fn from_bytes(id: u32, secret: &[u8; 32]) -> Self {
        Self { id, pair: KeyPair::from_bytes(secret) }
    }
}

impl OneTimePrekeySecret {
    /// Makes a new one under an id that was never given before, of suite 1.
    #[must_use]
    pub fn generate(id: u32, rng: &mut impl CryptoRng) -> Self {
        Self { id, pair: KeyPair::generate(rng), kem: None }
    }

    /// Makes a new one of a suite under an id that was never given before. `None` where this build
    /// leaves the suite out.
    #[must_use]
    pub fn generate_for(suite: Suite, id: u32, rng: &mut impl CryptoRng) -> Option<Self> {
        let prekey = Self::generate(id, rng);
        match suite {
            Suite::X3dh => Some(prekey),
            Suite::Pqxdh => Some(Self { kem: Some(KemSeed::draw(rng)?), ..prekey }),
        }
    }

    /// The prekey of a stored secret, of suite 1.
    #[must_use]
    pub fn from_bytes(id: u32, secret: &[u8; 32]) -> Self {
        Self { id, pair: KeyPair::from_bytes(secret), kem: None }
    }

    /// The same prekey with a KEM pair, which makes it one of suite 2.
    #[cfg(feature = "pqxdh")]
    #[must_use]
    pub fn with_kem(self, seed: KemSeed) -> Self {
        Self { kem: Some(seed), ..self }
    }

    /// The seed of its KEM pair, where it is of suite 2; to be stored beside the secret.
    #[cfg(feature = "pqxdh")]
    #[must_use]
    pub const fn kem_seed(&self) -> Option<&KemSeed> {
        self.kem.as_ref()
    }

    /// For handshakes of which suite.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        match self.kem {
            None => Suite::X3dh,
            Some(_) => Suite::Pqxdh,
        }
    }
}

macro_rules! prekey {
    ($name:ident) => {
        impl $name {
            /// The X25519 secret, to be stored where nobody else reads it.
            #[must_use]
            pub fn secret(&self) -> &[u8; 32] {
                self.pair.secret_bytes()
            }

            /// Its id.
            #[must_use]
            pub const fn id(&self) -> u32 {
                self.id
            }

            /// The X25519 public half.
            #[must_use]
            pub const fn public(&self) -> &PublicBytes {
                self.pair.public()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).field("id", &self.id).finish_non_exhaustive()
            }
        }
    };
}

prekey!(SignedPrekeySecret);
prekey!(OneTimePrekeySecret);

/// What a bundle is made of.
#[derive(Clone, Copy, Debug)]
pub struct BundleParts<'a> {
    /// For which device.
    pub device: &'a DeviceId,
    /// What it asked with.
    pub request: PrekeyRequest,
    /// The last handshake counter of its identity key.
    pub last_counter: u32,
    /// The node's clock: sets that of a device that has none.
    pub now: UnixTime,
    /// The signed prekey.
    pub spk: &'a SignedPrekeySecret,
    /// The one-time prekey that waits for this device.
    pub opk: &'a OneTimePrekeySecret,
}

/// A device asks for another suite than its one-time prekey is of.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("a bundle of suite {found} was asked for, the one-time prekey is of {expected}")]
pub struct PrekeySuite {
    /// The request's.
    pub found: Suite,
    /// The prekey's.
    pub expected: Suite,
}

/// A bundle as it is sent.
#[derive(Clone, Debug)]
pub struct SignedBundle {
    bytes: [u8; BUNDLE_LEN_MAX],
    len: usize,
}

impl SignedBundle {
    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }
}

impl BundleParts<'_> {
    /// The bundle, signed by the node.
    ///
    /// # Errors
    ///
    /// [`PrekeySuite`] where the request is of another suite than the one-time prekey.
    pub fn sign(&self, node: &IdentitySecret) -> Result<SignedBundle, PrekeySuite> {
        let (found, expected) = (self.request.suite, self.opk.suite());
        if found != expected {
            return Err(PrekeySuite { found, expected });
        }
        let front: [u8; BUNDLE_LEN - 64] = join(&[
            &[TYPE_BUNDLE, found.as_byte()],
            &self.request.nonce,
            &self.last_counter.to_be_bytes(),
            &self.now.as_s().to_be_bytes(),
            node.public().as_bytes(),
            &self.spk.id.to_be_bytes(),
            self.spk.public(),
            &self.opk.id.to_be_bytes(),
            self.opk.public(),
        ]);
        let kem = self.opk.kem.as_ref().map(KemSeed::public);
        let kem: &[u8] = kem.as_ref().map_or(&[], |key| key);
        let signature = node.sign(Label::Bundle, self.device, &[&front, kem]);
        let mut bundle = SignedBundle { bytes: [0; BUNDLE_LEN_MAX], len: bundle_len(found) };
        let mut writer = Writer::new(&mut bundle.bytes);
        for part in [&front, kem, &signature] {
            writer.put(part);
        }
        Ok(bundle)
    }
}
