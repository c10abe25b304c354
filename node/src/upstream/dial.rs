//! The way to an outside broker, and what it takes to come in there.

use std::io;
use std::sync::Arc;

use rustls::SupportedProtocolVersion;
use thiserror::Error;
use unhidra_certs::FileError;
use unhidra_store::BoxFuture;
use zeroize::Zeroizing;

use super::config::{UpstreamConfig, UpstreamName};
pub use crate::dial::Wire;
use crate::dial::{DialError, Dialer, Trust, password};

/// What dials an outside broker. That of a real one is the node's dialler; the simulated world has its own.
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
    Dial(#[from] DialError),
    #[error("its password: {0}")]
    Password(#[from] FileError),
}

impl Outside {
    /// An outside broker with the files of its configuration.
    ///
    /// # Errors
    ///
    /// [`OutsideError`] names the broker and the file that cannot be used.
    pub fn open(config: &UpstreamConfig) -> Result<Self, OutsideError> {
        let failed = |cause| OutsideError { name: config.name.clone(), cause };
        let dialer = dialer(config).map_err(|cause| failed(cause.into()))?;
        let password = password(&config.password_file).map_err(|cause| failed(cause.into()))?;
        Ok(Self { config: config.clone(), dial: Arc::new(dialer), password })
    }
}

/// There is no broker that has to be spoken to in less.
const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// TLS 1.3 towards the authorities of `ca` alone: the system's are not asked.
fn dialer(config: &UpstreamConfig) -> Result<Dialer, DialError> {
    let (ca, certificate, key) = (&config.ca, &config.certificate, &config.key);
    let trust = Trust { ca, certificate, key, alpn: None, versions: VERSIONS };
    Dialer::new(&config.address.host, config.address.port.get(), config.tls.then_some(trust))
}

impl Dial for Dialer {
    fn dial(&self) -> BoxFuture<'_, io::Result<Box<dyn Wire>>> {
        Box::pin(Self::dial(self))
    }
}
