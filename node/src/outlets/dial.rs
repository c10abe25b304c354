//! A connection to the other side: TCP, and TLS over it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use unhidra_certs::{FileError, read_private, read_public};

use super::config::{Address, Config, Kind};

/// A connection, whatever it is made of.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Io for T {}

/// Why the other side cannot be dialled at all.
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
    /// Nothing is trusted.
    #[error("{} holds no certificate of an authority", path.display())]
    NoAuthority {
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
    #[error("url: {0}")]
    Name(#[from] InvalidDnsNameError),
}

/// Who dials one server.
#[derive(Clone)]
pub(crate) struct Dialer {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    patience: Duration,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

impl Dialer {
    /// Reads what an outlet's table names.
    pub(crate) fn new(config: &Config, address: &Address) -> Result<Self, DialError> {
        let alpn = if config.kind == Kind::Webhook { &b"http/1.1"[..] } else { b"mqtt" };
        let tls = if address.tls {
            let name = ServerName::try_from(address.host.clone())?;
            Some((TlsConnector::from(Arc::new(tls(config, alpn)?)), name))
        } else {
            None
        };
        // Those of HTTP; MQTT's is always named.
        let port = address.port.unwrap_or(if address.tls { 443 } else { 80 });
        Ok(Self { host: address.host.clone(), port, tls, patience: Duration::from_secs(config.timeout_s) })
    }

    /// Connects, within the time the other side has for an answer.
    pub(crate) async fn dial(&self) -> io::Result<Box<dyn Io>> {
        let connected = timeout(self.patience, async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            stream.set_nodelay(true)?;
            let stream: Box<dyn Io> = match &self.tls {
                Some((connector, name)) => Box::new(connector.connect(name.clone(), stream).await?),
                None => Box::new(stream),
            };
            Ok(stream)
        });
        connected.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

fn tls(config: &Config, alpn: &[u8]) -> Result<ClientConfig, DialError> {
    let mut roots = RootCertStore::empty();
    if config.ca.as_os_str().is_empty() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(DialError::NoSystem);
        }
    } else {
        for authority in certificates(&config.ca)? {
            roots.add(authority)?;
        }
    }
    // Handed over by name: nothing here depends on which provider a process has installed.
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut tls = if config.certificate.as_os_str().is_empty() {
        builder.with_no_client_auth()
    } else {
        let bytes = read_private(&config.key)?;
        let key = PrivateKeyDer::from_pem_slice(&bytes);
        let key = key.map_err(|cause| DialError::Pem { path: config.key.clone(), cause })?;
        builder.with_client_auth_cert(certificates(&config.certificate)?, key)?
    };
    tls.alpn_protocols = vec![alpn.to_vec()];
    Ok(tls)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, DialError> {
    let bytes = read_public(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|cause| DialError::Pem { path: path.into(), cause })?;
    if found.is_empty() { Err(DialError::NoAuthority { path: path.into() }) } else { Ok(found) }
}
