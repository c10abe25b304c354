//! The suites that are built (PROTOCOL.md section 3).

/// The key agreement of a session, set at enrolment on both sides and never negotiated.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum Suite {
    /// X3DH over X25519.
    X3dh = 1,
}

impl Suite {
    /// The byte on the wire.
    #[must_use]
    pub const fn as_byte(self) -> u8 {
        self as u8
    }

    /// The suite of a byte, if it is built.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::X3dh),
            _ => None,
        }
    }
}
