//! Reason codes (section 2.4), and the return codes of 3.1.1 they become.

use super::error::DecodeError;
use super::fixed_header::Kind;

/// What became of a request, or why a connection ends (section 2.4).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum ReasonCode {
    /// Success; also Normal disconnection and Granted QoS 0.
    Success = 0x00,
    /// Granted QoS 1.
    GrantedQos1 = 0x01,
    /// Granted QoS 2.
    GrantedQos2 = 0x02,
    /// Disconnect with Will Message.
    DisconnectWithWill = 0x04,
    /// No matching subscribers.
    NoMatchingSubscribers = 0x10,
    /// No subscription existed.
    NoSubscriptionExisted = 0x11,
    /// Continue authentication.
    ContinueAuthentication = 0x18,
    /// Re-authenticate.
    ReAuthenticate = 0x19,
    /// Unspecified error.
    UnspecifiedError = 0x80,
    /// Malformed Packet.
    MalformedPacket = 0x81,
    /// Protocol Error.
    ProtocolError = 0x82,
    /// Implementation specific error.
    ImplementationSpecificError = 0x83,
    /// Unsupported Protocol Version.
    UnsupportedProtocolVersion = 0x84,
    /// Client Identifier not valid.
    ClientIdentifierNotValid = 0x85,
    /// Bad User Name or Password.
    BadUserNameOrPassword = 0x86,
    /// Not authorized.
    NotAuthorized = 0x87,
    /// Server unavailable.
    ServerUnavailable = 0x88,
    /// Server busy.
    ServerBusy = 0x89,
    /// Banned.
    Banned = 0x8A,
    /// Server shutting down.
    ServerShuttingDown = 0x8B,
    /// Bad authentication method.
    BadAuthenticationMethod = 0x8C,
    /// Keep Alive timeout.
    KeepAliveTimeout = 0x8D,
    /// Session taken over.
    SessionTakenOver = 0x8E,
    /// Topic Filter invalid.
    TopicFilterInvalid = 0x8F,
    /// Topic Name invalid.
    TopicNameInvalid = 0x90,
    /// Packet Identifier in use.
    PacketIdentifierInUse = 0x91,
    /// Packet Identifier not found.
    PacketIdentifierNotFound = 0x92,
    /// Receive Maximum exceeded.
    ReceiveMaximumExceeded = 0x93,
    /// Topic Alias invalid.
    TopicAliasInvalid = 0x94,
    /// Packet too large.
    PacketTooLarge = 0x95,
    /// Message rate too high.
    MessageRateTooHigh = 0x96,
    /// Quota exceeded.
    QuotaExceeded = 0x97,
    /// Administrative action.
    AdministrativeAction = 0x98,
    /// Payload format invalid.
    PayloadFormatInvalid = 0x99,
    /// Retain not supported.
    RetainNotSupported = 0x9A,
    /// QoS not supported.
    QosNotSupported = 0x9B,
    /// Use another server.
    UseAnotherServer = 0x9C,
    /// Server moved.
    ServerMoved = 0x9D,
    /// Shared Subscriptions not supported.
    SharedSubscriptionsNotSupported = 0x9E,
    /// Connection rate exceeded.
    ConnectionRateExceeded = 0x9F,
    /// Maximum connect time.
    MaximumConnectTime = 0xA0,
    /// Subscription Identifiers not supported.
    SubscriptionIdentifiersNotSupported = 0xA1,
    /// Wildcard Subscriptions not supported.
    WildcardSubscriptionsNotSupported = 0xA2,
}

impl ReasonCode {
    /// The byte on the wire.
    #[must_use]
    pub const fn as_byte(self) -> u8 {
        self as u8
    }

    /// Whether it says that something failed (0x80 and above).
    #[must_use]
    pub const fn is_error(self) -> bool {
        self.as_byte() >= 0x80
    }

    /// The code of a byte.
    ///
    /// # Errors
    ///
    /// The standard gives the byte no meaning.
    pub const fn from_byte(byte: u8) -> Result<Self, DecodeError> {
        Ok(match byte {
            0x00 => Self::Success,
            0x01 => Self::GrantedQos1,
            0x02 => Self::GrantedQos2,
            0x04 => Self::DisconnectWithWill,
            0x10 => Self::NoMatchingSubscribers,
            0x11 => Self::NoSubscriptionExisted,
            0x18 => Self::ContinueAuthentication,
            0x19 => Self::ReAuthenticate,
            0x80 => Self::UnspecifiedError,
            0x81 => Self::MalformedPacket,
            0x82 => Self::ProtocolError,
            0x83 => Self::ImplementationSpecificError,
            0x84 => Self::UnsupportedProtocolVersion,
            0x85 => Self::ClientIdentifierNotValid,
            0x86 => Self::BadUserNameOrPassword,
            0x87 => Self::NotAuthorized,
            0x88 => Self::ServerUnavailable,
            0x89 => Self::ServerBusy,
            0x8A => Self::Banned,
            0x8B => Self::ServerShuttingDown,
            0x8C => Self::BadAuthenticationMethod,
            0x8D => Self::KeepAliveTimeout,
            0x8E => Self::SessionTakenOver,
            0x8F => Self::TopicFilterInvalid,
            0x90 => Self::TopicNameInvalid,
            0x91 => Self::PacketIdentifierInUse,
            0x92 => Self::PacketIdentifierNotFound,
            0x93 => Self::ReceiveMaximumExceeded,
            0x94 => Self::TopicAliasInvalid,
            0x95 => Self::PacketTooLarge,
            0x96 => Self::MessageRateTooHigh,
            0x97 => Self::QuotaExceeded,
            0x98 => Self::AdministrativeAction,
            0x99 => Self::PayloadFormatInvalid,
            0x9A => Self::RetainNotSupported,
            0x9B => Self::QosNotSupported,
            0x9C => Self::UseAnotherServer,
            0x9D => Self::ServerMoved,
            0x9E => Self::SharedSubscriptionsNotSupported,
            0x9F => Self::ConnectionRateExceeded,
            0xA0 => Self::MaximumConnectTime,
            0xA1 => Self::SubscriptionIdentifiersNotSupported,
            0xA2 => Self::WildcardSubscriptionsNotSupported,
            found => return Err(DecodeError::UnknownReason { found }),
        })
    }

    /// Whether a packet of this kind may say it (table 2-3 and the tables of chapter 3).
    pub(super) const fn belongs_to(self, kind: Kind) -> bool {
        // Connect, Disconnect and both: what ends or prevents a connection.
        let is_of_connack =
            matches!(self.as_byte(), 0x00 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99..=0x9D | 0x9F);
        match kind {
            Kind::ConnAck => is_of_connack,
            Kind::PubAck | Kind::PubRec => {
                matches!(self.as_byte(), 0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
            }
            Kind::PubRel | Kind::PubComp => matches!(self, Self::Success | Self::PacketIdentifierNotFound),
            Kind::SubAck => {
                matches!(self.as_byte(), 0x00..=0x02 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2)
            }
            Kind::UnsubAck => matches!(self.as_byte(), 0x00 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91),
            Kind::Disconnect => matches!(
                self.as_byte(),
                0x00 | 0x04 | 0x80..=0x83 | 0x87 | 0x89 | 0x8B | 0x8D..=0x90 | 0x93..=0xA2
            ),
            Kind::Auth => matches!(self, Self::Success | Self::ContinueAuthentication | Self::ReAuthenticate),
            Kind::Connect | Kind::Publish | Kind::Subscribe | Kind::Unsubscribe | Kind::PingReq | Kind::PingResp => {
                false
            }
        }
    }

    /// The code of a byte in a packet of this kind.
    ///
    /// # Errors
    ///
    /// The standard gives the byte no meaning there.
    pub(super) const fn decode(byte: u8, kind: Kind) -> Result<Self, DecodeError> {
        match Self::from_byte(byte) {
            Ok(reason) if reason.belongs_to(kind) => Ok(reason),
            Ok(_) | Err(_) => Err(DecodeError::UnknownReason { found: byte }),
        }
    }

    /// What CONNACK says of a connection that ends before it was accepted, perhaps for a reason
    /// that DISCONNECT alone has.
    #[must_use]
    pub const fn of_connack(self) -> Self {
        match self {
            Self::ServerShuttingDown => Self::ServerUnavailable,
            Self::AdministrativeAction => Self::Banned,
            Self::SessionTakenOver | Self::MaximumConnectTime | Self::KeepAliveTimeout => Self::ServerBusy,
            reason if reason.belongs_to(Kind::ConnAck) => reason,
            _ => Self::UnspecifiedError,
        }
    }

    /// What DISCONNECT says: the reason itself, where DISCONNECT has it.
    #[must_use]
    pub const fn of_disconnect(self) -> Self {
        if self.belongs_to(Kind::Disconnect) { self } else { Self::UnspecifiedError }
    }

    /// The return code of a CONNACK (3.1.1, section 3.2.2.3).
    #[must_use]
    pub const fn as_v3_connect_return(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::UnsupportedProtocolVersion => 1,
            Self::ClientIdentifierNotValid => 2,
            Self::ServerUnavailable
            | Self::ServerBusy
            | Self::ServerShuttingDown
            | Self::QuotaExceeded
            | Self::ConnectionRateExceeded
            | Self::UseAnotherServer
            | Self::ServerMoved => 3,
            Self::BadUserNameOrPassword => 4,
            _ => 5,
        }
    }

    /// The reason a return code of a CONNACK stands for (3.1.1, section 3.2.2.3).
    ///
    /// # Errors
    ///
    /// 3.1.1 gives the byte no meaning.
    pub const fn from_v3_connect_return(byte: u8) -> Result<Self, DecodeError> {
        Ok(match byte {
            0 => Self::Success,
            1 => Self::UnsupportedProtocolVersion,
            2 => Self::ClientIdentifierNotValid,
            3 => Self::ServerUnavailable,
            4 => Self::BadUserNameOrPassword,
            5 => Self::NotAuthorized,
            found => return Err(DecodeError::UnknownReason { found }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_comes_back_and_no_other_byte_does() {
        let known: Vec<u8> = (0..=255).filter(|byte| ReasonCode::from_byte(*byte).is_ok()).collect();
        assert_eq!(known.len(), 43);
        for byte in known {
            assert_eq!(ReasonCode::from_byte(byte).map(ReasonCode::as_byte), Ok(byte));
        }
    }

    #[test]
    fn each_packet_has_its_codes() {
        let count = |kind| (0..=255).filter(|byte| ReasonCode::decode(*byte, kind).is_ok()).count();
        let kinds = [
            (Kind::ConnAck, 22),
            (Kind::PubAck, 9),
            (Kind::PubRec, 9),
            (Kind::PubRel, 2),
            (Kind::PubComp, 2),
            (Kind::SubAck, 12),
            (Kind::UnsubAck, 7),
            (Kind::Disconnect, 29),
            (Kind::Auth, 3),
            (Kind::Publish, 0),
        ];
        for (kind, codes) in kinds {
            assert_eq!(count(kind), codes, "{kind:?}");
        }
    }

    #[test]
    fn what_ends_a_connection_is_said_in_a_code_its_packet_has() {
        for byte in 0..=255 {
            let Ok(reason) = ReasonCode::from_byte(byte) else { continue };
            assert!(reason.of_connack().belongs_to(Kind::ConnAck), "{reason:?}");
            assert!(reason.of_disconnect().belongs_to(Kind::Disconnect), "{reason:?}");
        }
        assert_eq!(ReasonCode::ServerShuttingDown.of_connack(), ReasonCode::ServerUnavailable);
    }
}
