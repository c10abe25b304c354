//! The PKI: a certificate authority, the certificates it gives, and the files they lie in.
//!
//! Everything here is ECDSA over P-256 with SHA-256, because that is what a device's TLS speaks,
//! and every chain is short: an authority and a leaf. Keys, signatures and serial numbers draw on
//! aws-lc's own generator, which nothing outside it can seed.

mod authority;
mod certificate;
mod config;
mod error;
mod file;
mod key;
mod name;
mod pem;
mod pki;
mod request;
mod revocation;

pub use authority::{Authority, NodeCertificate};
pub use certificate::{Certificate, fingerprint};
pub use config::Config;
pub use error::{AuthorityError, CertificateError, FileError, IssueError, KeyError, PkiError, RequestError};
pub use file::{read_private, read_public, write_private, write_public};
pub use key::KeyPair;
pub use name::{NodeName, NodeNameError, TrustDomain, TrustDomainError};
pub use pki::{NodeIdentity, Origin, Pki};
pub use request::Request;
pub use revocation::{RevocationError, RevocationList};
