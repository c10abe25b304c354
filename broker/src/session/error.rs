//! Which rule of the protocol a client has broken.

use thiserror::Error;
use unhidra_core::ids::ClientIdError;
use unhidra_core::topic::TopicError;

use crate::packet::{DecodeError, ReasonCode};
use crate::router::shared::InterestError;

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

/// Why a Topic Filter of SUBSCRIBE or UNSUBSCRIBE is refused. The connection goes on.
///
/// Its words are for whoever asked: they say what that client sent and which bound it met, nothing
/// of rules or of others.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(crate) enum FilterError {
    /// The text is none [MQTT-4.7.1-1], [MQTT-4.8.2-1].
    #[error("{0}")]
    NoFilter(InterestError),
    /// It is longer or deeper than this node takes.
    #[error("a topic filter of {bytes} bytes and {levels} levels; at most {bytes_max} and {levels_max} are accepted")]
    TooLarge { bytes: usize, bytes_max: usize, levels: usize, levels_max: usize },
    /// No rule grants it.
    #[error("this client may not subscribe there")]
    NotAuthorized,
    /// A device's row is for one listener.
    #[error("a device's own row is not shared")]
    RowShared,
    /// The session has as many as it may have.
    #[error("too many subscriptions: {max} of {max}; unsubscribe from one first")]
    TooMany { max: usize },
}

impl FilterError {
    /// What SUBACK or UNSUBACK says in the filter's place.
    pub(crate) const fn reason_code(self) -> ReasonCode {
        match self {
            Self::NoFilter(_) | Self::TooLarge { .. } => ReasonCode::TopicFilterInvalid,
            Self::NotAuthorized | Self::RowShared => ReasonCode::NotAuthorized,
            Self::TooMany { .. } => ReasonCode::QuotaExceeded,
        }
    }
}

/// Why a message of QoS 1 or 2 is refused, in words for the client that sent it; `None` where the
/// code says all there is to say.
pub(super) const fn words_of(refusal: ReasonCode) -> Option<&'static str> {
    match refusal {
        ReasonCode::ImplementationSpecificError => Some("the message does not open with its sender's session"),
        ReasonCode::NotAuthorized => Some("this client may not publish that there"),
        ReasonCode::PacketIdentifierInUse => Some("the packet identifier is of a QoS 2 message without its PUBREL"),
        ReasonCode::QuotaExceeded => Some("there is no room for the message; try again later"),
        ReasonCode::PayloadFormatInvalid => Some("the payload is not UTF-8 as it says"),
        _ => None,
    }
}
