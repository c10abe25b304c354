//! ML-KEM-768 (FIPS 203): what suite 2 adds to the agreement. `kem_absent.rs` stands in its place
//! where the feature `pqxdh` is off.

use core::fmt;

use ml_kem::kem::{Ciphertext, Decapsulate, Encapsulate, KeyExport};
use ml_kem::ml_kem_768::{DecapsulationKey, EncapsulationKey};
use ml_kem::{MlKem768, SharedKey};
use rand_core::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::envelope::{KEM_CIPHERTEXT_LEN, KEM_KEY_LEN};
use crate::head::Head;
use crate::wire::{Reader, Short};

/// Bytes of a [`KemSeed`]: d and z of FIPS 203 section 7.1.
pub const KEM_SEED_LEN: usize = 64;

/// The secret half of a KEM pair. Not `Clone`, wiped on drop, prints as `[secret]`.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct KemSeed([u8; KEM_SEED_LEN]);

/// The public half, as a bundle carries it; not checked yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct KemKey<'a>(&'a [u8; KEM_KEY_LEN]);

/// What a HandshakeInit carries for the holder of the seed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct KemCiphertext<'a>(&'a [u8; KEM_CIPHERTEXT_LEN]);

/// What both sides have agreed on.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct KemSecret([u8; 32]);

impl KemSeed {
    /// Makes a new one.
    #[must_use]
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut seed = Self([0; KEM_SEED_LEN]);
        rng.fill_bytes(&mut seed.0);
        seed
    }

    /// The pair of a stored seed.
    #[must_use]
    pub const fn from_bytes(seed: &[u8; KEM_SEED_LEN]) -> Self {
        Self(*seed)
    }

    /// The seed, to be stored where nobody else reads it.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; KEM_SEED_LEN] {
        &self.0
    }

    /// Makes a new one, as a build without suite 2 cannot.
    pub(crate) fn draw(rng: &mut impl CryptoRng) -> Option<Self> {
        Some(Self::generate(rng))
    }

    fn pair(&self) -> DecapsulationKey {
        DecapsulationKey::from_seed(self.0.into())
    }

    /// The public half. Makes the pair anew: some 50 us on a host.
    pub(crate) fn public(&self) -> [u8; KEM_KEY_LEN] {
        self.pair().encapsulation_key().to_bytes().into()
    }

    /// What a ciphertext brings, and the public half. There is no failure: of a ciphertext that
    /// was not made for this pair comes a secret that nobody else has (FIPS 203 section 7.3), and
    /// the message under it does not open.
    pub(crate) fn decapsulate(&self, ciphertext: KemCiphertext<'_>) -> (KemSecret, [u8; KEM_KEY_LEN]) {
        let pair = self.pair();
        let secret = taken(&mut pair.decapsulate(ciphertext.0.into()));
        (secret, pair.encapsulation_key().to_bytes().into())
    }
}

impl fmt::Debug for KemSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl<'a> KemKey<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, Short> {
        reader.take().map(Self)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; KEM_KEY_LEN] {
        self.0
    }

    /// Agrees on a secret, and writes its ciphertext into the head. `None` where the key fails the
    /// check of FIPS 203 section 7.2.
    ///
    /// On a device this is the deepest stack there is, so it stays a frame of its own and is gone
    /// before the session is made.
    #[inline(never)]
    pub(crate) fn encapsulate(self, head: &mut Head, rng: &mut impl CryptoRng) -> Option<KemSecret> {
        // By reference throughout: each of these moved once more would be a kilobyte of stack.
        let key = EncapsulationKey::new(self.0.into());
        let Ok(key) = &key else { return None };
        let mut sealed: (Ciphertext<MlKem768>, SharedKey) = key.encapsulate_with_rng(rng);
        let secret = taken(&mut sealed.1);
        *head.ciphertext_mut()? = *sealed.0.as_ref();
        Some(secret)
    }
}

impl<'a> KemCiphertext<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, Short> {
        reader.take().map(Self)
    }
}

impl KemSecret {
    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Moves a secret out, and wipes where it was.
fn taken(secret: &mut SharedKey) -> KemSecret {
    let taken = KemSecret(*secret.as_ref());
    secret.zeroize();
    taken
}

#[cfg(test)]
mod published;

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn a_seed_does_not_print() {
        assert_eq!(std::format!("{:?}", KemSeed::from_bytes(&[7; 64])), "[secret]");
    }
}
