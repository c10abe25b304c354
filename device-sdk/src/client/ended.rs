//! How a connection ends, and what DISCONNECT says of it.

use thiserror::Error;

use super::assembler::AssembleError;
use super::decode::DecodeError;
use super::reason::ReasonCode;

/// Why a connection is over.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum Ended {
    /// The server sent what is no packet.
    #[error("the server sent what is no packet: {0}")]
    Malformed(DecodeError),
    /// The server sent more than was announced as Maximum Packet Size.
    #[error("the server sent a packet of {len} bytes, at most {max} were announced")]
    PacketTooLarge {
        /// Bytes of the packet.
        len: usize,
        /// Bytes announced.
        max: usize,
    },
    /// The server did not take the connection.
    #[error("the server refused the connection: {0}")]
    Refused(ReasonCode),
    /// The server does not grant a topic.
    #[error("the server refused a subscription: {0}")]
    SubscriptionRefused(ReasonCode),
    /// The server offers QoS 0 alone.
    #[error("the server takes no message with QoS 1")]
    QosNotSupported,
    /// A packet that may not come then.
    #[error("the server sent a packet out of turn")]
    OutOfTurn,
    /// An answer to something that was never asked.
    #[error("the server answered packet {0}, which nobody sent")]
    UnknownPacketId(u16),
    /// More messages than the Receive Maximum allows.
    #[error("the server sent more messages at once than was announced")]
    ReceiveMaximumExceeded,
    /// An answer did not come.
    #[error("the server did not answer in time")]
    Silent,
    /// The server ended it.
    #[error("the server disconnected: {0}")]
    ByServer(ReasonCode),
    /// This side ended it.
    #[error("disconnected: {0}")]
    ByDevice(ReasonCode),
    /// The transport is gone.
    #[error("the transport is gone")]
    TransportLost,
}

impl Ended {
    pub(super) fn from_assembler(error: AssembleError, max: usize) -> Self {
        match error {
            AssembleError::Malformed(error) => Self::Malformed(error),
            AssembleError::TooLarge { len } => Self::PacketTooLarge { len, max },
        }
    }

    /// What DISCONNECT tells the server, where there is one to tell.
    #[must_use]
    pub const fn reason_code(self) -> Option<ReasonCode> {
        match self {
            Self::Malformed(error) => Some(error.reason_code()),
            Self::PacketTooLarge { .. } => Some(ReasonCode::PACKET_TOO_LARGE),
            Self::SubscriptionRefused(_) | Self::QosNotSupported => Some(ReasonCode::IMPLEMENTATION_SPECIFIC),
            Self::OutOfTurn | Self::UnknownPacketId(_) => Some(ReasonCode::PROTOCOL_ERROR),
            Self::ReceiveMaximumExceeded => Some(ReasonCode::RECEIVE_MAXIMUM_EXCEEDED),
            // 0x8D, Keep Alive timeout, is a server's alone (table 3-10).
            Self::Silent => Some(ReasonCode::UNSPECIFIED_ERROR),
            Self::ByDevice(reason) => Some(reason),
            Self::Refused(_) | Self::ByServer(_) | Self::TransportLost => None,
        }
    }
}
