//! A TLS peer with a device's certificate, over any stream, that speaks MQTT 5 by hand.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use unhidra_tests::process::soon;

/// CONNECT of MQTT 5: clean start, Keep Alive 60 s, no properties, the client identifier `peer`.
pub(super) const CONNECT: &[u8] = b"\x10\x11\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x04peer";

/// A connection over TCP, as the device whose folder it is, to a node that calls itself `name`.
pub(super) async fn dial(folder: &Path, server: SocketAddr, name: &str) -> io::Result<TlsStream<TcpStream>> {
    over(TcpStream::connect(server).await?, folder, name).await
}

/// The same over another stream.
pub(super) async fn over<S>(stream: S, folder: &Path, name: &str) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from(name.to_owned()).expect("a server's name");
    soon("the TLS handshake", TlsConnector::from(Arc::new(config(folder))).connect(name, stream)).await
}

fn config(folder: &Path) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for root in certificates(&folder.join("ca.pem")) {
        roots.add(root).expect("an authority");
    }
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).expect("a key");
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(&folder.join("cert.pem")), key)
        .expect("a certificate and its key")
}

fn certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    let found = CertificateDer::pem_file_iter(path).expect("a PEM file");
    found.collect::<Result<_, _>>().expect("certificates")
}

/// Sends CONNECT, and gives the reason code of the CONNACK.
pub(super) async fn enter<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> u8 {
    stream.write_all(CONNECT).await.expect("the node reads");
    let connack = packet(stream).await.expect("CONNACK");
    assert_eq!(connack.first(), Some(&0x20), "{connack:x?}");
    // Fixed header, acknowledge flags, reason code.
    connack[3]
}

/// The next packet, of up to 127 bytes behind its fixed header.
pub(super) async fn packet<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    soon("a packet", async {
        let mut packet = vec![0; 2];
        stream.read_exact(&mut packet).await?;
        packet.resize(2 + usize::from(packet[1]), 0);
        stream.read_exact(&mut packet[2..]).await?;
        Ok(packet)
    })
    .await
}

/// What the other side says until it closes, or breaks the connection off.
pub(super) async fn until_closed(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut said = Vec::new();
    // Broken off is closed too.
    let _ = soon("a close", stream.read_to_end(&mut said)).await;
    said
}
