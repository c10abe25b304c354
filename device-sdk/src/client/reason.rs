//! Reason codes (section 2.4): one byte that says how it went, a failure from 0x80 on.

use core::fmt;

/// A reason code of any packet.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct ReasonCode(pub u8);

impl ReasonCode {
    /// It went well; of DISCONNECT: normal disconnection.
    pub const SUCCESS: Self = Self(0x00);
    /// Of PUBACK: nobody at the server subscribes to the topic, and the message is gone.
    pub const NO_MATCHING_SUBSCRIBERS: Self = Self(0x10);
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

    /// Whether a PUBACK says that the message is in nobody's hands: the server refused it, or had nobody to give
    /// it to. The latter is a success to MQTT (section 3.4.2.1). An outside broker that the node has yet to
    /// subscribe at, or whose session there is over, says so; the node's own broker never does.
    #[must_use]
    pub const fn is_undelivered(self) -> bool {
        self.is_failure() || self.0 == Self::NO_MATCHING_SUBSCRIBERS.0
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
