//! TLS under MQTT: the handshake, and from the peer's certificate to its identity.
//!
//! A resumed peer shows no certificate: its ticket holds the chain that it showed when the ticket
//! was given. So whatever the handshake came by, what it left is held to the rules of now: the
//! chain must still verify. Whether anything of it is revoked is asked at CONNECT, where the peer can be
//! told so.

use std::sync::Arc;
use std::{fmt, io};

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::{HandshakeKind, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificate;
use super::port::Failed;
use crate::doors::Identity;
use crate::gate::Refusal;

/// What a listener offers in TLS, and what it holds certificates to.
#[derive(Clone)]
pub struct TlsOffer {
    /// Certificates, versions, tickets.
    pub config: Arc<ServerConfig>,
    /// Who verifies the certificates of peers, the same as in `config`; `None` where none is asked
    /// for.
    pub verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl fmt::Debug for TlsOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOffer").finish_non_exhaustive()
    }
}

/// Shakes hands.
pub(super) async fn accept(offer: &TlsOffer, stream: TcpStream) -> Result<(TlsStream<TcpStream>, Identity), Failed> {
    let acceptor = TlsAcceptor::from(offer.config.clone());
    let stream = acceptor.accept(stream).into_fallible().await.map_err(|(error, stream)| failed(&error, stream))?;
    let identity = identify(offer, &stream)?;
    Ok((stream, identity))
}

/// Whose certificate is not taken is sent an alert that says why (RFC 8446 section 6.2), and has taken its
/// own side of the handshake for done: what it said meanwhile lies unread.
fn failed(error: &io::Error, stream: TcpStream) -> Failed {
    let failed = Failed::new(Refusal::Tls, error);
    match error.get_ref().and_then(|cause| cause.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => failed.told(stream),
        _ => failed,
    }
}

fn identify(offer: &TlsOffer, stream: &TlsStream<TcpStream>) -> Result<Identity, Failed> {
    let (_, connection) = stream.get_ref();
    let Some(verifier) = &offer.verifier else { return Ok(Identity::Anonymous) };
    let Some(chain @ [leaf, above @ ..]) = connection.peer_certificates() else {
        return match verifier.client_auth_mandatory() {
            true => Err(Failed::new(Refusal::Certificate, &"it showed none")),
            false => Ok(Identity::Anonymous),
        };
    };
    if connection.handshake_kind() == Some(HandshakeKind::Resumed) {
        still_verifies(verifier.as_ref(), leaf, above)?;
    }
    let peer = certificate::read(chain).map_err(|error| Failed::new(Refusal::Certificate, &error))?;
    Ok(Identity::Device(peer))
}

fn still_verifies(
    verifier: &dyn ClientCertVerifier,
    leaf: &CertificateDer<'_>,
    above: &[CertificateDer<'_>],
) -> Result<(), Failed> {
    let verified = verifier.verify_client_cert(leaf, above, UnixTime::now());
    verified.map(|_| ()).map_err(|error| Failed::new(Refusal::Certificate, &error))
}
