//! What goes wrong here: one enum for each operation.

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use unhidra_core::time::UnixTime;

/// Why a file cannot be read or written.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is a secret and not its owner's alone.
    #[error("{} holds a secret and has mode {mode:04o}; only its owner may have rights to it: chmod 600 it", path.display())]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is too large to be what it should be.
    #[error("{} has {len} bytes, at most {max} are read", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// Bytes found.
        len: u64,
        /// Bytes allowed.
        max: u64,
    },
}

/// Why a text is no private key.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum KeyError {
    /// It holds no private key in PEM.
    #[error("no PEM private key in it; PKCS #8 and SEC 1 are read, without a passphrase")]
    NotPem,
    /// It holds a key of another kind.
    #[error("its key is not ECDSA over P-256, the only kind a device can check")]
    NotP256,
}

/// Why a text or DER is no certificate.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum CertificateError {
    /// It holds no certificate in PEM, or one that ends in the middle.
    #[error("no whole PEM certificate in it")]
    NotPem,
    /// A certificate in it is no X.509 certificate.
    #[error("it is no X.509 certificate")]
    Malformed,
    /// It holds too many.
    #[error("more than {max} certificates in it")]
    TooMany {
        /// How many are allowed.
        max: usize,
    },
}

/// Why a certificate is not given on request.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum RequestError {
    /// It is too large.
    #[error("a certificate request of {len} bytes, at most {max} accepted")]
    TooLarge {
        /// Bytes found.
        len: usize,
        /// Bytes of DER allowed.
        max: usize,
    },
    /// It holds no request in PEM.
    #[error("no PEM certificate request in it")]
    NotPem,
    /// It is no PKCS #10 request.
    #[error("it is no PKCS #10 certificate request")]
    Malformed,
    /// Its key is of another kind.
    #[error("a certificate request for a key of kind {found}; only ECDSA over P-256 is accepted")]
    NotP256 {
        /// The object identifier found.
        found: String,
    },
    /// It is signed in another way.
    #[error("a certificate request signed with {found}; only ECDSA with SHA-256 is accepted")]
    Algorithm {
        /// The object identifier found.
        found: String,
    },
    /// Its signature does not verify: whoever sent it does not hold the key.
    #[error("the signature of the certificate request does not verify under its own key")]
    NotProven,
}

/// Why a certificate could not be made.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum IssueError {
    /// The authority's own certificate does not hold now.
    #[error("the authority's certificate {}; nothing it signs would hold", when(*at, *now))]
    AuthorityNotValid {
        /// When it ends or ended.
        at: UnixTime,
        /// Now.
        now: UnixTime,
    },
    /// The library or the system's generator failed.
    #[error("{0} failed")]
    Crypto(&'static str),
}

fn when(end: UnixTime, now: UnixTime) -> String {
    if now > end {
        format!("ended {} days ago", now.saturating_since(end).as_secs() / 86_400)
    } else {
        "has not begun to hold: is the clock of this machine right?".to_owned()
    }
}

/// Why an authority cannot be loaded or saved.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The key is none.
    #[error("the authority's key: {0}")]
    Key(#[from] KeyError),
    /// The certificate is none.
    #[error("the authority's certificate: {0}")]
    Certificate(#[from] CertificateError),
    /// They do not belong together.
    #[error("the authority's key is of none of the certificates given for it")]
    OtherKey,
    /// It may not sign.
    #[error("the certificate is no authority's: its basic constraints do not say CA")]
    NoAuthority,
    /// It could not be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
}

/// Why the node has nothing to present, or nobody to trust.
#[derive(Debug, Error)]
pub enum PkiError {
    /// Some of the keys that belong together are missing.
    #[error("{given} is set and {missing} is not; set pki.ca, pki.certificate and pki.key together, or none of them")]
    Incomplete {
        /// A key that is set.
        given: &'static str,
        /// A key that is not.
        missing: &'static str,
    },
    /// A file of a configuration key.
    #[error("{key}: {source}")]
    File {
        /// Which key names it.
        key: &'static str,
        /// Why.
        source: FileError,
    },
    /// A file of a configuration key holds no certificate.
    #[error("{key} = {}: {source}", path.display())]
    Certificate {
        /// Which key names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: CertificateError,
    },
    /// The lists of what is revoked cannot be used.
    #[error(transparent)]
    Revocation(#[from] crate::RevocationError),
    /// A file of a configuration key holds no usable private key.
    #[error("pki.key = {}: {source}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// The authority's key of the configuration is not usable.
    #[error("pki.ca_key = {}: {source}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        source: AuthorityError,
    },
    /// The node's certificate cannot serve devices.
    #[error("pki.certificate = {}: {rule}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// The chain does not fit a device's record.
    #[error("pki.certificate = {}: its chain has {len} bytes, at most {max} reach a device in one TLS record", path.display())]
    ChainTooLong {
        /// The file.
        path: PathBuf,
        /// Bytes found.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The generated authority lost its key.
    #[error("{} is there and {} is not; put the key back, or remove the folder around them and enrol every device anew", certificate.display(), key.display())]
    KeyLost {
        /// The certificate.
        certificate: PathBuf,
        /// Where its key should be.
        key: PathBuf,
    },
    /// The generated authority is damaged.
    #[error("the development authority in {}: {source}", folder.display())]
    Generated {
        /// Where it lies.
        folder: PathBuf,
        /// Why.
        source: AuthorityError,
    },
    /// The generated authority does not hold now.
    #[error(
        "{source}. If the clock is right, move {} away and start again: the certificate is made anew around {}, and \
         devices whose certificates have ended with it are enrolled again",
        certificate.display(),
        key.display()
    )]
    AuthorityNotValid {
        /// Where its certificate lies.
        certificate: PathBuf,
        /// Where its key lies.
        key: PathBuf,
        /// When it ends or ended.
        source: IssueError,
    },
}
