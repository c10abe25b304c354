//! Reason codes (section 2.4): one byte that says how it went, a failure from 0x80 on.

use core::fmt;

/// A reason code of any packet.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct ReasonCode(pub u8);

impl ReasonCode {
    /// It went well; of DISCONNECT: normal disconnection.
    pub const SUCCESS: Self = Self(0x00);
    /// The peer closes and does not say why.
    pub const UNSPECIFIED_ERROR: Self = Self(0x80);
    /// The packet is no packet.
    pub const MALFORMED_PACKET: Self = Self(0x81);
    /// A packet that may not come here or now.
    pub const PROTOCOL_ERROR: Self = Self(0x82);
    /// Of this project's node: the message does not open.
    pub const IMPLEMENTATION_SPECIFIC: Self = Self(0x83);
    /// The sender may not.
    pub const NOT_AUTHORIZED: Self = Self(0x87);
    /// More messages than the Receive Maximum allows.
    pub const RECEIVE_MAXIMUM_EXCEEDED: Self = Self(0x93);
    /// A Topic Alias above the maximum.
    pub const TOPIC_ALIAS_INVALID: Self = Self(0x94);
    /// A packet larger than the Maximum Packet Size.
    pub const PACKET_TOO_LARGE: Self = Self(0x95);
    /// As much as may be waits already.
    pub const QUOTA_EXCEEDED: Self = Self(0x97);

    /// Whether it says that it did not go well.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        self.0 >= 0x80
    }
}

impl fmt::Debug for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:02X}", self.0)
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
