//! Why bytes from a peer are no control packet.

use thiserror::Error;

use super::reason::ReasonCode;

/// Why bytes from a peer are no control packet.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum DecodeError {
    /// The packet ends inside a field.
    #[error("the packet ends inside a field")]
    Truncated,
    /// The packet goes on after its last field.
    #[error("{count} bytes after the last field")]
    TrailingBytes {
        /// Bytes too many.
        count: usize,
    },
    /// A Variable Byte Integer of more than four bytes [MQTT-1.5.5-1].
    #[error("a variable byte integer of more than four bytes")]
    Varint,
    /// A Variable Byte Integer in more bytes than it needs [MQTT-1.5.5-1]; 3.1.1 allows it.
    #[error("a variable byte integer in more bytes than it needs")]
    PaddedVarint,
    /// Type 0 is reserved (section 2.1.2).
    #[error("packet type {found} is reserved")]
    UnknownType {
        /// The type found.
        found: u8,
    },
    /// The flags of the fixed header are not what the packet prescribes [MQTT-2.1.3-1].
    #[error("{packet} with the flags {found:#06b}")]
    ReservedFlags {
        /// The packet's name.
        packet: &'static str,
        /// The flags found.
        found: u8,
    },
    /// The fixed header announces more bytes than this node accepts.
    #[error("a packet of {size} bytes, at most {max} accepted")]
    TooLarge {
        /// Bytes announced.
        size: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// A string that is not UTF-8 [MQTT-1.5.4-1].
    #[error("a string that is not UTF-8")]
    NotUtf8,
    /// A string with U+0000 [MQTT-1.5.4-2].
    #[error("a string with the character U+0000")]
    Nul,
    /// Another protocol than MQTT [MQTT-3.1.2-1].
    #[error("the protocol name is not MQTT")]
    ProtocolName,
    /// A version this node does not speak [MQTT-3.1.2-2].
    #[error("protocol level {found}; 4 (3.1.1) and 5 are spoken")]
    ProtocolLevel {
        /// The level found.
        found: u8,
    },
    /// The Connect Flags contradict one another or use the reserved bit [MQTT-3.1.2-3].
    #[error("the connect flags {found:#010b}")]
    ConnectFlags {
        /// The flags found.
        found: u8,
    },
    /// Both QoS bits are set [MQTT-3.3.1-4].
    #[error("QoS 3")]
    ReservedQos,
    /// DUP at QoS 0 [MQTT-3.3.1-2].
    #[error("DUP at QoS 0")]
    DupAtQosZero,
    /// A Packet Identifier of 0 [MQTT-2.2.1-3].
    #[error("packet identifier 0")]
    PacketIdZero,
    /// SUBSCRIBE or UNSUBSCRIBE without a Topic Filter [MQTT-3.8.3-2].
    #[error("no topic filter")]
    NoFilters,
    /// Subscription Options with reserved bits [MQTT-3.8.3-5].
    #[error("the subscription options {found:#010b}")]
    SubscriptionOptions {
        /// The options found.
        found: u8,
    },
    /// Subscription Options with QoS 3 or Retain Handling 3 (section 3.8.3.1).
    #[error("the subscription options {found:#010b}: neither QoS nor retain handling can be 3")]
    SubscriptionOptionValue {
        /// The options found.
        found: u8,
    },
    /// CONNACK flags with reserved bits [MQTT-3.2.2-1].
    #[error("the connect acknowledge flags {found:#010b}")]
    ConnAckFlags {
        /// The flags found.
        found: u8,
    },
    /// A reason code, or a return code of 3.1.1, that its packet does not know.
    #[error("reason code {found:#04x}")]
    UnknownReason {
        /// The code found.
        found: u8,
    },
    /// An identifier that no property has (section 2.2.2.2).
    #[error("property {found:#04x} does not exist")]
    UnknownProperty {
        /// The identifier found.
        found: u32,
    },
    /// A property this packet does not have.
    #[error("property {found:#04x} has no place in this packet")]
    MisplacedProperty {
        /// The identifier found.
        found: u8,
    },
    /// A property that may be given once was given twice.
    #[error("property {found:#04x} twice")]
    RepeatedProperty {
        /// The identifier found.
        found: u8,
    },
    /// A property with a value it cannot have.
    #[error("property {found:#04x} has no such value")]
    PropertyValue {
        /// The identifier found.
        found: u8,
    },
    /// A Topic Alias of 0 [MQTT-3.3.2-8].
    #[error("topic alias 0")]
    TopicAliasZero,
    /// AUTH in 3.1.1, which does not have it.
    #[error("AUTH in MQTT 3.1.1")]
    AuthInV3,
}

impl DecodeError {
    /// What the DISCONNECT or CONNACK that follows tells the peer (section 4.13).
    #[must_use]
    pub const fn reason_code(self) -> ReasonCode {
        match self {
            Self::TooLarge { .. } => ReasonCode::PacketTooLarge,
            Self::ProtocolName | Self::ProtocolLevel { .. } => ReasonCode::UnsupportedProtocolVersion,
            Self::TopicAliasZero => ReasonCode::TopicAliasInvalid,
            Self::NoFilters
            | Self::SubscriptionOptionValue { .. }
            | Self::RepeatedProperty { .. }
            | Self::PropertyValue { .. }
            | Self::AuthInV3 => ReasonCode::ProtocolError,
            Self::Truncated
            | Self::TrailingBytes { .. }
            | Self::Varint
            | Self::PaddedVarint
            | Self::UnknownType { .. }
            | Self::ReservedFlags { .. }
            | Self::NotUtf8
            | Self::Nul
            | Self::ConnectFlags { .. }
            | Self::ReservedQos
            | Self::DupAtQosZero
            | Self::PacketIdZero
            | Self::SubscriptionOptions { .. }
            | Self::ConnAckFlags { .. }
            | Self::UnknownReason { .. }
            | Self::UnknownProperty { .. }
            | Self::MisplacedProperty { .. } => ReasonCode::MalformedPacket,
        }
    }
}
