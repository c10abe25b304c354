//! Which rule of the protocol a client has broken.

use thiserror::Error;
use unhidra_core::ids::ClientIdError;
use unhidra_core::topic::TopicError;

use crate::packet::{DecodeError, ReasonCode};

/// Which rule a packet breaks. The connection ends with its reason code.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(crate) enum SessionError {
    /// The bytes are no packet.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// The first packet is not CONNECT [MQTT-3.1.0-1].
    #[error("{packet} before CONNECT")]
    NotConnect { packet: &'static str },
    /// CONNECT comes once [MQTT-3.1.0-2].
    #[error("a second CONNECT")]
    SecondConnect,
    /// A packet only a server sends, or AUTH without a method [MQTT-4.12.0-6].
    #[error("a client does not send {packet} here")]
    Unexpected { packet: &'static str },
    /// A step of an exchange that is not the next one (section 4.3).
    #[error("{packet} for a message that does not wait for it")]
    OutOfPlace { packet: &'static str },
    /// Enhanced authentication is not offered (section 4.12).
    #[error("enhanced authentication is not offered")]
    AuthenticationMethod,
    /// Authentication Data without a method [MQTT-3.1.2.11.10].
    #[error("authentication data without a method")]
    AuthenticationData,
    /// The client identifier is none, or is empty where it may not be.
    #[error("client identifier: {0}")]
    ClientId(ClientIdError),
    /// The Topic Name is none [MQTT-3.3.2-2].
    #[error("topic name: {0}")]
    TopicName(TopicError),
    /// The Topic Name is longer or deeper than this node takes.
    #[error("a topic name of {bytes} bytes and {levels} levels is over the bound")]
    TopicTooLarge { bytes: usize, levels: usize },
    /// Neither a topic nor an alias that stands for one.
    #[error("a PUBLISH without a topic")]
    NoTopic,
    /// A Topic Alias over the announced maximum [MQTT-3.3.2-9].
    #[error("topic alias {found}; at most {max} is accepted")]
    TopicAlias { found: u16, max: u16 },
    /// A payload that says it is UTF-8, and is not, at QoS 0 or in a Will.
    #[error("a payload that is not UTF-8 as it says")]
    PayloadFormat,
    /// A Response Topic with wildcards [MQTT-3.3.2-14].
    #[error("response topic: {0}")]
    ResponseTopic(TopicError),
    /// A property that a server alone sends in PUBLISH [MQTT-3.3.4-6].
    #[error("a subscription identifier from a client")]
    SubscriptionIdentifier,
    /// More unanswered messages than were announced [MQTT-3.3.4-9].
    #[error("more unanswered messages than the receive maximum")]
    ReceiveMaximum,
    /// An identifier that is not free [MQTT-2.2.1-3].
    #[error("the packet identifier of an unanswered message for another one")]
    PacketIdentifierInUse,
    /// A QoS 0 message where the client may not publish.
    #[error("a message where the client may not publish")]
    NotAuthorized,
    /// No Local on a shared subscription [MQTT-3.8.3-4].
    #[error("No Local on a shared subscription")]
    NoLocalOfShared,
    /// A Session Expiry Interval in DISCONNECT after 0 in CONNECT [MQTT-3.14.2-2].
    #[error("a session expiry interval in DISCONNECT after none in CONNECT")]
    SessionExpiryRaised,
}

impl SessionError {
    /// What the DISCONNECT or CONNACK that follows tells the client.
    pub(crate) const fn reason_code(self) -> ReasonCode {
        match self {
            Self::Malformed(error) => error.reason_code(),
            Self::NotConnect { .. }
            | Self::SecondConnect
            | Self::Unexpected { .. }
            | Self::OutOfPlace { .. }
            | Self::AuthenticationData
            | Self::NoTopic
            | Self::ResponseTopic(_)
            | Self::SubscriptionIdentifier
            | Self::PacketIdentifierInUse
            | Self::NoLocalOfShared
            | Self::SessionExpiryRaised => ReasonCode::ProtocolError,
            Self::AuthenticationMethod => ReasonCode::BadAuthenticationMethod,
            Self::ClientId(_) => ReasonCode::ClientIdentifierNotValid,
            Self::TopicName(_) | Self::TopicTooLarge { .. } => ReasonCode::TopicNameInvalid,
            Self::TopicAlias { .. } => ReasonCode::TopicAliasInvalid,
            Self::ReceiveMaximum => ReasonCode::ReceiveMaximumExceeded,
            Self::PayloadFormat => ReasonCode::PayloadFormatInvalid,
            Self::NotAuthorized => ReasonCode::NotAuthorized,
        }
    }
}
