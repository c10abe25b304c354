//! Prekeys, which live on the node, and the bundle that carries their public halves to a device.

use core::fmt;

use rand_core::CryptoRng;
use unhidra_core::ids::DeviceId;
use unhidra_core::time::UnixTime;

use crate::envelope::{BUNDLE_LEN, PrekeyRequest, TYPE_BUNDLE};
use crate::identity::{IdentitySecret, Label};
use crate::keys::{KeyPair, PublicBytes};
use crate::wire::join;

macro_rules! prekey {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name {
            id: u32,
            pub(crate) pair: KeyPair,
        }

        impl $name {
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

            /// The secret, to be stored where nobody else reads it.
            #[must_use]
            pub fn secret(&self) -> &[u8; 32] {
                self.pair.secret_bytes()
            }

            /// Its id.
            #[must_use]
            pub const fn id(&self) -> u32 {
                self.id
            }

            /// The public half.
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

prekey!(
    /// SPK: one for all devices, rotated weekly.
    SignedPrekeySecret);
prekey!(
    /// OPK: one device's, for one handshake.
    OneTimePrekeySecret);

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

impl BundleParts<'_> {
    /// The bundle, signed by the node.
    #[must_use]
    pub fn sign(&self, node: &IdentitySecret) -> [u8; BUNDLE_LEN] {
        let signed: [u8; BUNDLE_LEN - 64] = join(&[
            &[TYPE_BUNDLE, self.request.suite.as_byte()],
            &self.request.nonce,
            &self.last_counter.to_be_bytes(),
            &self.now.as_s().to_be_bytes(),
            node.public().as_bytes(),
            &self.spk.id.to_be_bytes(),
            self.spk.public(),
            &self.opk.id.to_be_bytes(),
            self.opk.public(),
        ]);
        join(&[&signed, &node.sign(Label::Bundle, self.device, &signed)])
    }
}
