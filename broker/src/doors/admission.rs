//! Who may come in.

use std::fmt;
use std::sync::Arc;

use unhidra_core::ids::DeviceId;
use unhidra_core::time::UnixTime;

use super::{BoxFuture, Entrance, Identity, Peer};
use crate::packet::ReasonCode;

/// Who may connect.
pub trait Admission: Send + Sync + 'static {
    /// Asked once for each CONNECT, before its CONNACK. Whoever must compute long to answer does it
    /// elsewhere than on the caller's thread.
    ///
    /// # Errors
    ///
    /// [`Denied`] says why not.
    fn admit<'a>(&'a self, introduction: Introduction<'a>) -> BoxFuture<'a, Result<Entrant, Denied>>;

    /// Whether somebody admitted a moment ago still is. Asked once its connection is found by
    /// [`Broker::disconnect_user`](crate::Broker::disconnect_user), so that nobody slips in between
    /// the two: with a password that was taken away meanwhile.
    fn still_admits(&self, _entrant: &Entrant) -> bool {
        true
    }
}

/// What a client says of itself: by its certificate, and in CONNECT.
#[derive(Clone, Copy)]
pub struct Introduction<'a> {
    /// What its listener knows.
    pub identity: &'a Identity,
    /// Where it came in, and who may come in there.
    pub entrance: &'a Entrance,
    /// Where it comes from.
    pub peer: &'a Peer,
    /// The User Name, if it gave one.
    pub user_name: Option<&'a str>,
    /// The Password, if it gave one.
    pub password: Option<&'a [u8]>,
}

impl fmt::Debug for Introduction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Introduction")
            .field("identity", self.identity)
            .field("entrance", self.entrance)
            .field("peer", self.peer)
            .field("user_name", &self.user_name)
            .field("has_password", &self.password.is_some())
            .finish()
    }
}

/// The name of a user that has proven to be it.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct UserName(Arc<str>);

impl UserName {
    /// A name somebody vouches for.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who an admitted client is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Admitted {
    /// A device: its own rows (e2ee/PROTOCOL.md section 2).
    Device(DeviceId),
    /// Another client, with its name if it has one.
    Client(Option<UserName>),
}

/// Somebody who may come in, and for how long.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entrant {
    /// Who.
    pub who: Admitted,
    /// When what it has shown ends: its connection is closed then, with 0xA0, Maximum connect time.
    pub until: Option<UnixTime>,
    /// What it has shown.
    pub proof: Proof,
}

/// What somebody has shown to come in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Proof {
    /// A certificate, or nothing where nothing is asked for.
    Listener,
    /// A password. The number changes with the password.
    Password(u64),
    /// A signed token.
    Token,
}

impl From<Admitted> for Entrant {
    fn from(who: Admitted) -> Self {
        Self { who, until: None, proof: Proof::Listener }
    }
}

/// Why a client may not connect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Denied {
    /// The registry does not hold the device.
    NotEnrolled,
    /// It was revoked.
    Revoked,
    /// It is enrolled with another certificate.
    OtherCertificate,
    /// Its record is being changed, or what became of a change is not known; later it may try again.
    BeingChanged,
    /// Its certificate is of another trust domain.
    OtherTrustDomain,
    /// Nobody comes in without a certificate here.
    AnonymousForbidden,
    /// The User Name and the Password prove nobody: there is no such user, or it is another's
    /// password. Which of the two is not told to anybody.
    BadCredentials,
    /// The token proves nobody, or somebody else than the User Name says.
    BadToken,
    /// Too many tries have failed from there, or for that name; later it may try again.
    TooManyFailures,
    /// More passwords wait to be checked than may.
    Busy,
}

impl Denied {
    /// What CONNACK says.
    #[must_use]
    pub const fn reason_code(self) -> ReasonCode {
        match self {
            Self::NotEnrolled
            | Self::Revoked
            | Self::OtherCertificate
            | Self::OtherTrustDomain
            | Self::AnonymousForbidden => ReasonCode::NotAuthorized,
            Self::BadCredentials | Self::BadToken => ReasonCode::BadUserNameOrPassword,
            Self::BeingChanged => ReasonCode::ServerUnavailable,
            Self::TooManyFailures => ReasonCode::ConnectionRateExceeded,
            Self::Busy => ReasonCode::ServerBusy,
        }
    }
}
