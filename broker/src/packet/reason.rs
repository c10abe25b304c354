//! Reason codes (section 2.4), and the return codes of 3.1.1 they become.

use super::error::DecodeError;

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

/// Packets that know the same reason codes (table 2-6).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ReasonPlace {
    /// PUBACK and PUBREC [MQTT-3.4.2-1, MQTT-3.5.2-1].
    Receipt,
    /// PUBREL and PUBCOMP [MQTT-3.6.2-1, MQTT-3.7.2-1].
    Release,
    /// DISCONNECT, of either side [MQTT-3.14.2-1].
    Disconnect,
    /// AUTH [MQTT-3.15.2-1].
    Auth,
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

    /// The code of a byte in a packet that may say it (table 2-6).
    ///
    /// # Errors
    ///
    /// The standard gives the byte no meaning, or none there.
    pub(super) fn in_place(byte: u8, place: ReasonPlace) -> Result<Self, DecodeError> {
        let reason = Self::from_byte(byte)?;
        if reason.belongs_to(place) { Ok(reason) } else { Err(DecodeError::UnknownReason { found: byte }) }
    }

    const fn belongs_to(self, place: ReasonPlace) -> bool {
        match place {
            ReasonPlace::Receipt => matches!(
                self,
                Self::Success
                    | Self::NoMatchingSubscribers
                    | Self::UnspecifiedError
                    | Self::ImplementationSpecificError
                    | Self::NotAuthorized
                    | Self::TopicNameInvalid
                    | Self::PacketIdentifierInUse
                    | Self::QuotaExceeded
                    | Self::PayloadFormatInvalid
            ),
            ReasonPlace::Release => matches!(self, Self::Success | Self::PacketIdentifierNotFound),
            ReasonPlace::Disconnect => !matches!(
                self,
                Self::GrantedQos1
                    | Self::GrantedQos2
                    | Self::NoMatchingSubscribers
                    | Self::NoSubscriptionExisted
                    | Self::ContinueAuthentication
                    | Self::ReAuthenticate
                    | Self::UnsupportedProtocolVersion
                    | Self::ClientIdentifierNotValid
                    | Self::BadUserNameOrPassword
                    | Self::ServerUnavailable
                    | Self::Banned
                    | Self::BadAuthenticationMethod
                    | Self::PacketIdentifierInUse
                    | Self::PacketIdentifierNotFound
            ),
            ReasonPlace::Auth => matches!(self, Self::Success | Self::ContinueAuthentication | Self::ReAuthenticate),
        }
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
            | Self::ConnectionRateExceeded => 3,
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
}
