//! Who may come in.

use std::fmt;
use std::sync::Arc;

use unhidra_core::ids::DeviceId;

use super::{BoxFuture, Entrance, Identity};

/// Who may connect.
pub trait Admission: Send + Sync + 'static {
    /// Asked once for each CONNECT, before its CONNACK. Whoever must compute long to answer does it
    /// elsewhere than on the caller's thread.
    ///
    /// # Errors
    ///
    /// [`Denied`] says why not.
    fn admit<'a>(&'a self, introduction: Introduction<'a>) -> BoxFuture<'a, Result<Admitted, Denied>>;
}

/// What a client says of itself: by its certificate, and in CONNECT.
#[derive(Clone, Copy)]
pub struct Introduction<'a> {
    /// What its listener knows.
    pub identity: &'a Identity,
    /// Where it came in, and who may come in there.
    pub entrance: &'a Entrance,
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

/// Why a client may not connect. CONNACK 0x87; in 3.1.1 return code 5.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Denied {
    /// The registry does not hold the device.
    NotEnrolled,
    /// It was revoked.
    Revoked,
    /// It is enrolled with another certificate.
    OtherCertificate,
    /// Its certificate is of another trust domain.
    OtherTrustDomain,
    /// Nobody comes in without a certificate here.
    AnonymousForbidden,
}
