//! What goes wrong here, and what a client is told.

use serde::Serialize;
use thiserror::Error;
use unhidra_core::command::CommandState;

/// Why a command or a setting was not taken, or a command not called back.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum CommandRefused {
    /// The registry does not hold the device, or it is revoked.
    #[error("no such device is enrolled")]
    NoSuchDevice,
    /// As many commands of the device are open as may be.
    #[error("{max} commands of this device are open, and no more may be")]
    TooManyOpen {
        /// The bound.
        max: usize,
    },
    /// The id is another command's.
    #[error("another command of this device has this id")]
    IdTaken,
    /// The device has no command of that id.
    #[error("there is no such command")]
    NoSuchCommand,
    /// The command is under way or over.
    #[error("the command is {}: it cannot be called back", .state.as_str())]
    TooLate {
        /// How it stands.
        state: CommandState,
    },
    /// As many settings of the device are there as may be.
    #[error("the device has {max} settings, and no more may be")]
    TooManySettings {
        /// The bound.
        max: usize,
    },
    /// There is nothing to remove.
    #[error("there is no such setting")]
    NoSuchSetting,
    /// The body is larger than a device takes.
    #[error("a body of {len} bytes; at most {max} are allowed")]
    TooLarge {
        /// Bytes found.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// The node cannot make it durable now.
    #[error("the store does not serve now; try again")]
    Unavailable,
}

impl CommandRefused {
    pub(crate) const fn code(self) -> ErrorCode {
        match self {
            Self::NoSuchDevice => ErrorCode::NoSuchDevice,
            Self::TooManyOpen { .. } => ErrorCode::TooManyOpen,
            Self::IdTaken => ErrorCode::IdTaken,
            Self::NoSuchCommand => ErrorCode::NoSuchCommand,
            Self::TooLate { .. } => ErrorCode::TooLate,
            Self::TooManySettings { .. } => ErrorCode::TooManySettings,
            Self::NoSuchSetting => ErrorCode::NoSuchSetting,
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::Unavailable => ErrorCode::Unavailable,
        }
    }
}

/// Why a token gives no rights.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum TokenRefused {
    /// Nobody was given it, it was used up, or it was given before the node's start.
    #[error("the token is unknown or used up")]
    Unknown,
    /// Its time has passed.
    #[error("the token has expired")]
    Expired,
}

/// Why a cursor cannot be resumed.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(crate) enum CursorError {
    /// This node never wrote it.
    #[error("the cursor was not given by this node")]
    Invalid,
    /// It names a place in logs that are no more, or a place the logs do not reach.
    #[error("the cursor is of another life of the log; begin again, and expect to have missed readings")]
    OtherEpoch,
}

impl CursorError {
    pub(crate) const fn code(self) -> ErrorCode {
        match self {
            Self::Invalid => ErrorCode::CursorInvalid,
            Self::OtherEpoch => ErrorCode::CursorExpired,
        }
    }
}

/// The codes of error frames (gateway/PROTOCOL.md).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ErrorCode {
    NotJson,
    BadRequest,
    UnknownType,
    NotAuthenticated,
    AlreadyAuthenticated,
    Forbidden,
    NoSuchDevice,
    NoSuchCommand,
    AlreadySubscribed,
    NotSubscribed,
    TooManySubscriptions,
    CursorInvalid,
    CursorExpired,
    TooManyOpen,
    IdTaken,
    TooLate,
    TooManySettings,
    NoSuchSetting,
    TooLarge,
    Unavailable,
}

/// Why the node ends a connection. 3000 to 3499: come back; 3500 to 3999: do not, it would end the
/// same way.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Close {
    /// The node is about to stop.
    Draining,
    /// What waits for the client and cannot be read from the store has met its bound.
    SlowClient,
    /// No answer to a ping.
    NoAnswer,
    /// The store does not serve.
    Unavailable,
    /// No `authenticate` in time.
    AuthenticationTimeout,
    /// The token gives no rights.
    TokenRefused,
    /// The rights have ended.
    TokenExpired,
    /// The client speaks another version.
    VersionUnsupported,
    /// Too many frames at fault, or too many pings.
    TooManyFaults,
    /// A binary message: this protocol has text alone.
    NotText,
}

impl Close {
    /// The close code (RFC 6455 section 7.4).
    pub(crate) const fn code(self) -> u16 {
        match self {
            Self::Draining => 3000,
            Self::SlowClient => 3001,
            Self::NoAnswer => 3002,
            Self::Unavailable => 3003,
            Self::AuthenticationTimeout => 3004,
            Self::TokenRefused => 3500,
            Self::TokenExpired => 3501,
            Self::VersionUnsupported => 3502,
            Self::TooManyFaults => 3503,
            Self::NotText => 3504,
        }
    }

    /// Its word.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::SlowClient => "slow_client",
            Self::NoAnswer => "no_answer",
            Self::Unavailable => "unavailable",
            Self::AuthenticationTimeout => "authentication_timeout",
            Self::TokenRefused => "token_refused",
            Self::TokenExpired => "token_expired",
            Self::VersionUnsupported => "version_unsupported",
            Self::TooManyFaults => "too_many_faults",
            Self::NotText => "not_text",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_the_protocol() {
        let protocol = include_str!("../PROTOCOL.md");
        let errors = [
            ErrorCode::NotJson,
            ErrorCode::BadRequest,
            ErrorCode::UnknownType,
            ErrorCode::NotAuthenticated,
            ErrorCode::AlreadyAuthenticated,
            ErrorCode::Forbidden,
            ErrorCode::NoSuchDevice,
            ErrorCode::NoSuchCommand,
            ErrorCode::AlreadySubscribed,
            ErrorCode::NotSubscribed,
            ErrorCode::TooManySubscriptions,
            ErrorCode::CursorInvalid,
            ErrorCode::CursorExpired,
            ErrorCode::TooManyOpen,
            ErrorCode::IdTaken,
            ErrorCode::TooLate,
            ErrorCode::TooManySettings,
            ErrorCode::NoSuchSetting,
            ErrorCode::TooLarge,
            ErrorCode::Unavailable,
        ];
        for code in errors {
            let word = serde_json::to_string(&code).expect("a word");
            assert!(protocol.contains(&format!("`{}`", word.trim_matches('"'))), "{word}");
        }
        let closes = [
            Close::Draining,
            Close::SlowClient,
            Close::NoAnswer,
            Close::Unavailable,
            Close::AuthenticationTimeout,
            Close::TokenRefused,
            Close::TokenExpired,
            Close::VersionUnsupported,
            Close::TooManyFaults,
            Close::NotText,
        ];
        for close in closes {
            let row = format!("| {} | `{}` |", close.code(), close.reason());
            assert!(protocol.contains(&row), "{row}");
        }
    }
}
