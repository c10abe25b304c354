//! A connection to somebody outside: TCP, and TLS over it, and the password for it. Outside brokers
//! and outlets share it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore, SupportedProtocolVersion};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use unhidra_certs::{FileError, read_private, read_public};
use zeroize::Zeroizing;

/// A byte stream to somebody outside.
pub trait Wire: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static> Wire for T {}

/// Why somebody outside cannot be dialled at all with what is configured.
#[derive(Debug, Error)]
pub enum DialError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file holds no PEM of what it should.
    #[error("{}: {cause}", path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        cause: pem::Error,
    },
    /// A file has no certificate in it.
    #[error("{} holds no certificate", path.display())]
    NoCertificate {
        /// Which file.
        path: PathBuf,
    },
    /// The system trusts nobody.
    #[error("this system has no authorities: name the file of one with `ca`")]
    NoSystem,
    /// rustls refuses what it was given.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// It is no name of a server.
    #[error("{host:?} is no name a certificate can have; name the other side as its certificate does")]
    Name {
        /// What it is.
        host: String,
    },
}

/// What TLS to somebody outside rests on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trust<'c> {
    /// The file of the authorities; empty: the system's.
    pub(crate) ca: &'c Path,
    /// The file of what this node shows; empty: nothing.
    pub(crate) certificate: &'c Path,
    /// The file of its key.
    pub(crate) key: &'c Path,
    /// What is spoken inside, where that is said.
    pub(crate) alpn: Option<&'static [u8]>,
    /// The versions of TLS that are spoken.
    pub(crate) versions: &'static [&'static SupportedProtocolVersion],
}

/// Who dials one server.
#[derive(Clone)]
pub(crate) struct Dialer {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

impl Dialer {
    /// Reads what TLS needs, where there is to be TLS.
    pub(crate) fn new(host: &str, port: u16, trust: Option<Trust<'_>>) -> Result<Self, DialError> {
        let tls = match trust {
            Some(trust) => {
                let name = ServerName::try_from(host.to_owned());
                let name = name.map_err(|_| DialError::Name { host: host.to_owned() })?;
                Some((TlsConnector::from(Arc::new(trust.config()?)), name))
            }
            None => None,
        };
        Ok(Self { host: host.to_owned(), port, tls })
    }

    /// Connects; how long that may take is the caller's to say.
    ///
    /// # Errors
    ///
    /// Says of TLS that does not come about what was found and what to set.
    pub(crate) async fn dial(&self) -> io::Result<Box<dyn Wire>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        Ok(match &self.tls {
            Some((connector, name)) => {
                let connected = connector.connect(name.clone(), stream).await;
                Box::new(connected.map_err(|error| io::Error::new(error.kind(), explained(&error)))?)
            }
            None => Box::new(stream),
        })
    }
}

impl Trust<'_> {
    fn config(&self) -> Result<ClientConfig, DialError> {
        let mut roots = RootCertStore::empty();
        if self.ca.as_os_str().is_empty() {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(DialError::NoSystem);
            }
        } else {
            for authority in certificates(self.ca)? {
                roots.add(authority)?;
            }
        }
        // Handed over by name: nothing here depends on which provider a process has installed.
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(self.versions)?
            .with_root_certificates(roots);
        let mut tls = if self.certificate.as_os_str().is_empty() {
            builder.with_no_client_auth()
        } else {
            let bytes = read_private(self.key)?;
            let key = PrivateKeyDer::from_pem_slice(&bytes);
            let key = key.map_err(|cause| DialError::Pem { path: self.key.into(), cause })?;
            builder.with_client_auth_cert(certificates(self.certificate)?, key)?
        };
        tls.alpn_protocols = self.alpn.map(<[u8]>::to_vec).into_iter().collect();
        Ok(tls)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, DialError> {
    let bytes = read_public(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|cause| DialError::Pem { path: path.into(), cause })?;
    if found.is_empty() { Err(DialError::NoCertificate { path: path.into() }) } else { Ok(found) }
}

/// The first line of the file of a password; none where no file is named.
///
/// # Errors
///
/// [`FileError`] names the file that cannot be read, or that others can read.
pub(crate) fn password(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, FileError> {
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let mut whole = read_private(path)?;
    let end = whole.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(whole.len());
    whole.truncate(end);
    Ok(Some(whole))
}

/// What an error of a connection says, and of TLS what is to be done about it. The other side refuses a
/// certificate only once the first bytes are read, so this is asked of later errors too.
pub(crate) fn explained(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let what_to_do = match inner {
        Some(rustls::Error::InvalidCertificate(cause)) => match cause {
            // The second: an authority of the same name, with another key.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "its certificate stands under none of the authorities in `ca`: it is somebody else, or needs another `ca`"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired: the other side needs a new one, or this machine's clock is wrong"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is of the future: this machine's clock is wrong, or the other side's was"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate has another name: address it by a name that stands there"
            }
            _ => "its certificate is not accepted",
        },
        Some(rustls::Error::AlertReceived(AlertDescription::CertificateExpired)) => {
            "it refuses this node's `certificate`, which has expired: put a new one in its place"
        }
        Some(rustls::Error::AlertReceived(AlertDescription::CertificateRequired)) => {
            "it asks for a certificate of this node: set `certificate` and `key`"
        }
        Some(rustls::Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRevoked
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::AccessDenied,
        )) => "it refuses this node's `certificate`: it takes those of an authority of its own",
        _ => return error.to_string(),
    };
    format!("{what_to_do} ({error})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tls_refuses_is_said_with_what_to_set() {
        use rustls::Error::{AlertReceived, InvalidCertificate};
        for (error, says) in [
            (InvalidCertificate(CertificateError::UnknownIssuer), "authorities in `ca`"),
            (InvalidCertificate(CertificateError::BadSignature), "authorities in `ca`"),
            (InvalidCertificate(CertificateError::Expired), "has expired"),
            (InvalidCertificate(CertificateError::NotValidForName), "another name"),
            (AlertReceived(AlertDescription::CertificateRequired), "set `certificate` and `key`"),
            (AlertReceived(AlertDescription::UnknownCA), "refuses this node's `certificate`"),
            (rustls::Error::DecryptError, "cannot decrypt peer's message"),
        ] {
            let found = error.to_string();
            let shown = explained(&io::Error::new(io::ErrorKind::InvalidData, error));
            assert!(shown.contains(says) && shown.contains(&found), "{shown}");
        }
        assert_eq!(explained(&io::ErrorKind::ConnectionRefused.into()), "connection refused");
    }
}
