//! ResetRequest: how the node asks for a new session (PROTOCOL.md sections 4, 7 and 9).

use unhidra_core::ids::DeviceId;

use crate::envelope::{RESET_LEN, ResetRequest, TYPE_RESET};
use crate::identity::{BadSignature, IdentityKey, IdentitySecret, Label};
use crate::keys::PublicBytes;
use crate::wire::join;

/// Why the node wants a new session.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum ResetReason {
    /// It does not know the ratchet key, or the session.
    UnknownKey = 1,
    /// The device has gone back to an older state.
    RolledBack = 2,
    /// The node was restored from a backup.
    Restored = 3,
    /// The handshake counter is not above the last.
    Counter = 4,
    /// The device still sends in its previous session.
    PreviousSession = 5,
}

impl ResetReason {
    /// The byte on the wire.
    #[must_use]
    pub const fn as_byte(self) -> u8 {
        self as u8
    }

    /// The reason of a byte, if there is one.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::UnknownKey,
            2 => Self::RolledBack,
            3 => Self::Restored,
            4 => Self::Counter,
            5 => Self::PreviousSession,
            _ => return None,
        })
    }
}

/// A ResetRequest the device has verified. It is obeyed only if
/// [`Sessions::obeys`](crate::sessions::Sessions::obeys) says so.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct VerifiedReset {
    pub(crate) ratchet_key: PublicBytes,
    reason: ResetReason,
}

impl VerifiedReset {
    /// Why.
    #[must_use]
    pub const fn reason(&self) -> ResetReason {
        self.reason
    }
}

/// Makes a ResetRequest for a device. `ratchet_key` is that of the message it answers; of a
/// HandshakeInit, that of the inner Message.
#[must_use]
pub fn sign_reset(
    node: &IdentitySecret,
    device: &DeviceId,
    reason: ResetReason,
    ratchet_key: &PublicBytes,
) -> [u8; RESET_LEN] {
    let signed: [u8; RESET_LEN - 64] = join(&[&[TYPE_RESET, reason.as_byte()], ratchet_key]);
    join(&[&signed, &node.sign(Label::Reset, device, &[&signed])])
}

impl ResetRequest<'_> {
    /// Verifies it against the node's pinned identity key and the device's own id.
    ///
    /// # Errors
    ///
    /// [`BadSignature`]: it was not made by the node for this device.
    pub fn verify(&self, device: &DeviceId, node: &IdentityKey) -> Result<VerifiedReset, BadSignature> {
        node.verify(Label::Reset, device, self.signed, self.signature)?;
        Ok(VerifiedReset { ratchet_key: *self.ratchet_key, reason: self.reason })
    }
}
