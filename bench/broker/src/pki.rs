//! One authority, one certificate for the brokers, a few for clients: the same for every peer.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WantsClientCert};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, SignatureScheme};
use unhidra_certs::{Authority, NodeName};

/// Where the files lie.
#[derive(Clone, Debug)]
pub(crate) struct Pki {
    pub(crate) ca: PathBuf,
    pub(crate) ca_key: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

const DAY: Duration = Duration::from_secs(86_400);

impl Pki {
    /// Makes an authority and the brokers' certificate (ECDSA P-256).
    pub(crate) fn make(folder: &Path) -> Result<Self, Box<dyn Error>> {
        fs::create_dir_all(folder)?;
        let file = |name: &str| folder.join(name);
        let pki =
            Self { ca: file("ca.pem"), ca_key: file("ca.key"), certificate: file("node.pem"), key: file("node.key") };
        let now = unhidra_core::time::UnixTime::from_s(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs());
        let authority = Authority::generate(30 * DAY, now)?;
        authority.save(&pki.ca, &pki.ca_key)?;
        let names: Vec<NodeName> = vec!["localhost".parse()?, "127.0.0.1".parse()?];
        let node = authority.issue_node(&names, 20 * DAY, now)?;
        fs::write(&pki.certificate, node.certificate.to_pem())?;
        unhidra_certs::write_private(&pki.key, node.key.to_pem()?.as_bytes())?;
        Ok(pki)
    }
}

/// How a client dials that shows no certificate.
pub(crate) fn unnamed() -> Result<Arc<ClientConfig>, Box<dyn Error>> {
    Ok(Arc::new(dialling()?.with_no_client_auth()))
}

/// How a client with a certificate dials; `resumes` says whether it keeps tickets.
pub(crate) fn client(folder: &Path, resumes: bool) -> Result<Arc<ClientConfig>, Box<dyn Error>> {
    let chain = CertificateDer::pem_file_iter(folder.join("cert.pem"))?.collect::<Result<Vec<_>, _>>()?;
    client_with(chain, PrivateKeyDer::from_pem_file(folder.join("key.pem"))?, resumes)
}

/// The same with a certificate and its key at hand.
pub(crate) fn client_with(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    resumes: bool,
) -> Result<Arc<ClientConfig>, Box<dyn Error>> {
    let mut config = dialling()?.with_client_auth_cert(chain, key)?;
    config.resumption = if resumes { Resumption::in_memory_sessions(4096) } else { Resumption::disabled() };
    Ok(Arc::new(config))
}

/// TLS 1.3 alone, X25519 first: every broker here takes both.
fn dialling() -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, Box<dyn Error>> {
    Ok(ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anything)))
}

/// Believes every broker: the generator is to cost less than what it measures, and verifying is
/// the larger part of a client's handshake.
#[derive(Debug)]
struct Anything;

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
