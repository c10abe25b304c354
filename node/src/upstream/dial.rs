//! The way to an outside broker: TCP, and TLS 1.3 over it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use unhidra_certs::{Certificate, CertificateError, FileError, KeyError, KeyPair, read_private, read_public};
use unhidra_store::BoxFuture;
use zeroize::Zeroizing;

use super::config::{Address, UpstreamConfig, UpstreamName};

/// A byte stream to an outside broker.
pub trait Wire: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static> Wire for T {}

/// What dials an outside broker. That of a real one is `Network`; the simulated world has its own.
pub trait Dial: Send + Sync + 'static {
    /// A stream to it, past any handshake of TLS.
    fn dial(&self) -> BoxFuture<'_, io::Result<Box<dyn Wire>>>;
}

/// An outside broker, and what it takes to come in there.
pub struct Outside {
    /// What is set about it.
    pub config: UpstreamConfig,
    /// The way to it.
    pub dial: Arc<dyn Dial>,
    /// The node's password there.
    pub password: Option<Zeroizing<Vec<u8>>>,
}

/// Why an outside broker cannot be spoken to with what is configured.
#[derive(Debug, Error)]
#[error("upstream {name}: {cause}")]
pub struct OutsideError {
    name: UpstreamName,
    cause: Cause,
}

/// What is wrong.
#[derive(Debug, Error)]
enum Cause {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{0}")]
    Certificate(#[from] CertificateError),
    #[error("key: {0}")]
    Key(#[from] KeyError),
    #[error("key: {0}")]
    Handed(#[from] unhidra_certs::IssueError),
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    #[error("{host:?} is no name a certificate can have; name the broker as its certificate does")]
    Name { host: String },
}

impl Outside {
    /// An outside broker with the files of its configuration.
    ///
    /// # Errors
    ///
    /// [`OutsideError`] names the broker and the file that cannot be used.
    pub fn open(config: &UpstreamConfig) -> Result<Self, OutsideError> {
        let failed = |cause| OutsideError { name: config.name.clone(), cause };
        let network = Network::new(config).map_err(failed)?;
        let password = password(&config.password_file).map_err(failed)?;
        Ok(Self { config: config.clone(), dial: Arc::new(network), password })
    }
}

/// The first line of a file of its own.
fn password(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, Cause> {
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let mut whole = read_private(path)?;
    let end = whole.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(whole.len());
    whole.truncate(end);
    Ok(Some(whole))
}

/// A broker on the network.
struct Network {
    address: Address,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Network {
    fn new(config: &UpstreamConfig) -> Result<Self, Cause> {
        let address = config.address.clone();
        let tls = if config.tls {
            let named = ServerName::try_from(address.host.clone());
            let name = named.map_err(|_| Cause::Name { host: address.host.clone() })?;
            Some((TlsConnector::from(Arc::new(tls(config)?)), name))
        } else {
            None
        };
        Ok(Self { address, tls })
    }
}

/// TLS 1.3 towards the authorities of `ca` alone: the system's are not asked.
fn tls(config: &UpstreamConfig) -> Result<ClientConfig, Cause> {
    let mut roots = RootCertStore::empty();
    for root in Certificate::parse_pem(&read_public(&config.ca)?)? {
        roots.add(root.der().clone())?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots);
    if config.certificate.as_os_str().is_empty() {
        return Ok(builder.with_no_client_auth());
    }
    let chain = Certificate::parse_pem(&read_public(&config.certificate)?)?;
    let chain = chain.iter().map(Certificate::der).cloned().collect();
    let key = KeyPair::from_pem(&read_private(&config.key)?)?;
    Ok(builder.with_client_auth_cert(chain, key.to_rustls()?)?)
}

impl Dial for Network {
    fn dial(&self) -> BoxFuture<'_, io::Result<Box<dyn Wire>>> {
        Box::pin(async move {
            let stream = TcpStream::connect((self.address.host.as_str(), self.address.port.get())).await?;
            stream.set_nodelay(true)?;
            let stream: Box<dyn Wire> = match &self.tls {
                Some((tls, name)) => Box::new(tls.connect(name.clone(), stream).await?),
                None => Box::new(stream),
            };
            Ok(stream)
        })
    }
}
