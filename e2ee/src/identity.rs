//! Long-term identity keys (PROTOCOL.md section 1): Ed25519, and DH in their Montgomery form.

use core::fmt;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use rand_core::CryptoRng;
use thiserror::Error;
use unhidra_core::ids::DeviceId;
use x25519_dalek::{PublicKey, SharedSecret, StaticSecret};
use zeroize::Zeroizing;

use crate::envelope::BUNDLE_LEN_MAX;
use crate::keys::{PublicBytes, contributory};
use crate::wire::Writer;

/// What a signature is for. The node's identity key signs these two and nothing else.
#[derive(Clone, Copy)]
pub(crate) enum Label {
    Bundle,
    Reset,
}

impl Label {
    const fn text(self) -> &'static [u8] {
        match self {
            Self::Bundle => b"unhidra/bundle/v1",
            Self::Reset => b"unhidra/reset/v1",
        }
    }
}

/// The longest text that is signed: the bundle's label, the device id with its length, the bundle
/// without its signature, which has as many bytes as the longest id.
const SIGNED_LEN_MAX: usize = 17 + 1 + BUNDLE_LEN_MAX;

/// The secret half of an identity. Not `Clone`, wiped on drop, prints as `[secret]`.
pub struct IdentitySecret(SigningKey);

/// The public half of an identity (IK): a point of the curve in its canonical encoding, and not one
/// of small order.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct IdentityKey(VerifyingKey);

/// 32 bytes that are no identity key.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum IdentityKeyError {
    /// They are no point of the curve.
    #[error("the identity key is no point of the curve")]
    NoPoint,
    /// The point has small order: anybody could sign for it.
    #[error("the identity key is a point of small order")]
    SmallOrder,
    /// The point has another encoding, which is the one to use.
    #[error("the identity key is no canonical encoding of its point")]
    NotCanonical,
}

/// A signature that does not verify, or not for this device.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the signature is not the node's, or not for this device")]
pub struct BadSignature;

impl IdentitySecret {
    /// Makes a new one.
    #[must_use]
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *seed);
        Self::from_seed(&seed)
    }

    /// The identity of a stored seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The seed, to be stored where nobody else reads it.
    #[must_use]
    pub fn seed(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> IdentityKey {
        IdentityKey(self.0.verifying_key())
    }

    /// DH of the Montgomery form; `None` where the output is all zero.
    pub(crate) fn agree(&self, their: &PublicBytes) -> Option<SharedSecret> {
        let scalar = Zeroizing::new(self.0.to_scalar_bytes());
        contributory(StaticSecret::from(*scalar).diffie_hellman(&PublicKey::from(*their)))
    }

    pub(crate) fn sign(&self, label: Label, device: &DeviceId, text: &[&[u8]]) -> [u8; 64] {
        let mut buffer = [0; SIGNED_LEN_MAX];
        let signed = self.0.try_sign(labelled(&mut buffer, label, device, text));
        // Ed25519 always signs, though the trait does not say so; zeros would verify under no key.
        signed.map_or([0; 64], |signature| signature.to_bytes())
    }
}

impl fmt::Debug for IdentitySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl IdentityKey {
    /// The identity key of 32 bytes.
    ///
    /// # Errors
    ///
    /// [`IdentityKeyError`] says why they are none.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, IdentityKeyError> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| IdentityKeyError::NoPoint)?;
        if key.is_weak() {
            Err(IdentityKeyError::SmallOrder)
        } else if key.to_edwards().compress().as_bytes() != bytes {
            Err(IdentityKeyError::NotCanonical)
        } else {
            Ok(Self(key))
        }
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The key to do DH with.
    pub(crate) fn montgomery(&self) -> PublicBytes {
        self.0.to_montgomery().to_bytes()
    }

    pub(crate) fn verify(
        &self,
        label: Label,
        device: &DeviceId,
        text: &[u8],
        signature: &[u8; 64],
    ) -> Result<(), BadSignature> {
        let mut buffer = [0; SIGNED_LEN_MAX];
        let signed = labelled(&mut buffer, label, device, &[text]);
        self.0.verify_strict(signed, &Signature::from_bytes(signature)).map_err(|_| BadSignature)
    }
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdentityKey(")?;
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// label || len(device_id)(1) || device_id || text
fn labelled<'b>(buffer: &'b mut [u8; SIGNED_LEN_MAX], label: Label, device: &DeviceId, text: &[&[u8]]) -> &'b [u8] {
    let mut writer = Writer::new(buffer);
    writer.put(label.text());
    put_device(&mut writer, device);
    text.iter().for_each(|part| writer.put(part));
    let len = writer.finish().unwrap_or_default();
    buffer.get(..len).unwrap_or_default()
}

/// len(device_id)(1) || device_id
pub(crate) fn put_device(writer: &mut Writer<'_>, device: &DeviceId) {
    let id = device.as_bytes();
    writer.put(&u8::try_from(id.len()).unwrap_or(u8::MAX).to_be_bytes());
    writer.put(id);
}

#[cfg(test)]
mod published;
