//! Whose a session is.

use std::fmt;

use unhidra_core::ids::DeviceId;

use super::{Admitted, UserName};

/// Whose a session is. Nobody takes over a session of another identity.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Owner {
    /// A device's.
    Device(DeviceId),
    /// A user's.
    User(UserName),
    /// Whoever names its Client Identifier.
    Anybody,
}

impl From<&Admitted> for Owner {
    fn from(who: &Admitted) -> Self {
        match who {
            Admitted::Device(device) => Self::Device(*device),
            Admitted::Client(Some(user)) => Self::User(user.clone()),
            Admitted::Client(None) => Self::Anybody,
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(device) => write!(f, "device:{device}"),
            Self::User(user) => write!(f, "user:{user}"),
            Self::Anybody => f.write_str("anybody"),
        }
    }
}
