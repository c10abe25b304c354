//! How devices meet the node: TLS 1.3 with a certificate on both sides.
//!
//! - **1.3 alone.** Everything that dials the node speaks it: the device SDK, Mosquitto's tools,
//!   rustls. In 1.2 a device's certificate, and with it its name, would cross the network in the
//!   clear, and a device could be made to fall back.
//! - **Resumption by tickets**, which hold the peer's certificates, encrypted under a key that lives
//!   in this process and is another one after each reload; nothing is kept here. The listener holds
//!   these certificates to the rules of the moment as if they had been shown. One ticket, and only
//!   to who says that it resumes. No early data: it could be replayed.
//! - **Records of at most 4 000 bytes**, because a device reads one into a 4 KiB buffer; and at
//!   least 2 048, because it reads no handshake message that is split over two.
//! - **X25519 and P-256**: a device offers P-256 alone and cannot be asked for another.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, Ticketer, kx_group};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, version};
use thiserror::Error;
use unhidra_broker::{ClientCertificate, ListenerConfig, Revoked, Serial, TlsOffer};
use unhidra_certs::{Certificate, IssueError, Pki, RevocationList};

/// The most bytes of plaintext and record header. The tag, the content type and the header of
/// what is encrypted add 22, so that a record on the wire has at most 3 917.
const FRAGMENT_LEN_MAX: usize = 3_900;

/// The protocol's name in ALPN, as IANA registered it. Who offers none comes in too.
const ALPN: &[u8] = b"mqtt";

/// WebSocket begins as HTTP/1.1, and browsers say so.
const ALPN_HTTP: &[u8] = b"http/1.1";

/// Why TLS cannot be offered with the node's certificates.
#[derive(Debug, Error)]
pub enum TlsError {
    /// rustls does not take them.
    #[error("the node's certificates cannot be used: {0}")]
    Rustls(#[from] rustls::Error),
    /// The roots cannot verify clients.
    #[error("the authorities of pki.ca cannot verify devices: {0}")]
    Verifier(#[from] VerifierBuilderError),
    /// The key cannot be handed over.
    #[error(transparent)]
    Key(#[from] IssueError),
}

/// What the listeners of MQTT offer.
#[derive(Clone, Debug)]
pub struct Offers {
    /// `broker.tls`
    pub mqtt: TlsOffer,
    /// `broker.wss`
    pub websocket: TlsOffer,
}

impl Offers {
    /// What they offer with these certificates.
    ///
    /// # Errors
    ///
    /// [`TlsError`] where rustls refuses a certificate or the key.
    pub fn new(pki: &Pki, config: &unhidra_broker::Config) -> Result<Self, TlsError> {
        Ok(Self { mqtt: offer(pki, &config.tls, ALPN)?, websocket: offer(pki, &config.wss, ALPN_HTTP)? })
    }
}

fn offer(pki: &Pki, listener: &ListenerConfig, alpn: &[u8]) -> Result<TlsOffer, TlsError> {
    let provider = Arc::new(provider());
    let verifier = verifier(pki, listener.client_certificate, &provider)?;
    let chain = pki.identity.chain.iter().map(Certificate::der).cloned().collect();
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&version::TLS13])?;
    let builder = match &verifier {
        Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, pki.identity.key.to_rustls()?)?;
    config.max_fragment_size = Some(FRAGMENT_LEN_MAX);
    config.alpn_protocols = vec![alpn.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    if listener.resumption {
        config.ticketer = Ticketer::new()?;
        config.send_tls13_tickets = 1;
    }
    Ok(TlsOffer { config: Arc::new(config), verifier })
}

fn verifier(
    pki: &Pki,
    client_certificate: ClientCertificate,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let mut roots = RootCertStore::empty();
    for root in &pki.roots {
        roots.add(root.der().clone())?;
    }
    // The authorities' names are left out of the request: a device has one certificate and needs
    // no hint, a stranger learns nothing, and the first flight stays within one record.
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = builder.clear_root_hint_subjects();
    Ok(match client_certificate {
        ClientCertificate::None => None,
        ClientCertificate::Optional => Some(builder.allow_unauthenticated().build()?),
        ClientCertificate::Required => Some(builder.build()?),
    })
}

/// What the authorities have revoked, as the listeners compare it.
#[must_use]
pub fn revoked(lists: &[RevocationList]) -> Arc<Revoked> {
    let serials = lists.iter().flat_map(|list| list.serials.iter().map(|serial| Serial::new(&list.issuer, serial)));
    Arc::new(serials.collect())
}

/// aws-lc, handed over by name: nothing here depends on which provider a process has installed.
fn provider() -> CryptoProvider {
    CryptoProvider { kx_groups: vec![kx_group::X25519, kx_group::SECP256R1], ..aws_lc_rs::default_provider() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::time::Duration;

    use rustls::client::{ClientConnection, Resumption};
    use rustls::pki_types::ServerName;
    use rustls::server::ServerConnection;
    use rustls::{ClientConfig, HandshakeKind, SupportedProtocolVersion};
    use unhidra_certs::{Config, KeyPair, Origin, Request};
    use unhidra_core::ids::DeviceId;
    use unhidra_core::time::UnixTime;

    /// What a device's reader holds, header included.
    const RECORD_LEN_MAX: usize = 4_096;

    fn listener(resumption: bool) -> ListenerConfig {
        ListenerConfig {
            listen: unhidra_broker::Listen::default(),
            client_certificate: ClientCertificate::Required,
            resumption,
            insecure: false,
            anonymous: false,
            users: false,
            proxy_from: Vec::new(),
            origins: Vec::new(),
            connections_max: 1,
        }
    }

    struct World {
        _folder: tempfile::TempDir,
        pki: Pki,
    }

    struct Client {
        versions: Vec<&'static SupportedProtocolVersion>,
        groups: Vec<&'static dyn rustls::crypto::SupportedKxGroup>,
        alpn: Vec<Vec<u8>>,
        certificate: bool,
    }

    impl Default for Client {
        fn default() -> Self {
            Self {
                versions: vec![&version::TLS13],
                groups: vec![kx_group::SECP256R1],
                alpn: Vec::new(),
                certificate: true,
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "rustls verifies against the wall clock")]
    fn now() -> UnixTime {
        UnixTime::from_s(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs())
    }

    fn world() -> World {
        let folder = tempfile::tempdir().unwrap();
        let config: Config = toml::from_str(
            "ca = ''\nca_key = ''\ncertificate = ''\nkey = ''\ncrl = ''\ncrl_interval_s = 10\nnames = ['localhost', '127.0.0.1', '::1']\n\
             trust_domain = 'unhidra.local'\ndevice_validity_days = 30\nnode_validity_days = 30",
        )
        .unwrap();
        let pki = Pki::open(&config, folder.path(), now()).unwrap();
        assert_eq!(pki.origin, Origin::Generated);
        World { _folder: folder, pki }
    }

    impl World {
        fn client_config(&self, client: Client) -> Arc<ClientConfig> {
            let mut roots = RootCertStore::empty();
            roots.add(self.pki.roots[0].der().clone()).unwrap();
            let provider = CryptoProvider { kx_groups: client.groups, ..aws_lc_rs::default_provider() };
            let builder = ClientConfig::builder_with_provider(Arc::new(provider))
                .with_protocol_versions(&client.versions)
                .unwrap()
                .with_root_certificates(roots);
            let mut config = if client.certificate {
                let (chain, key) = self.enrol(&self.pki);
                builder.with_client_auth_cert(vec![chain.der().clone()], key.to_rustls().unwrap()).unwrap()
            } else {
                builder.with_no_client_auth()
            };
            config.alpn_protocols = client.alpn;
            config.resumption = Resumption::in_memory_sessions(8);
            Arc::new(config)
        }

        fn enrol(&self, by: &Pki) -> (Certificate, KeyPair) {
            let key = KeyPair::generate().unwrap();
            let device = DeviceId::parse("pump-7").unwrap();
            let request = Request::from_pem(key.request(&device).unwrap().as_bytes()).unwrap();
            let domain = "unhidra.local".parse().unwrap();
            let day = Duration::from_secs(86_400);
            let authority = by.authority.as_ref().unwrap();
            (authority.sign_device(&request, &device, &domain, day, now()).unwrap(), key)
        }

        fn dial(&self, config: &Arc<ClientConfig>) -> Link {
            self.dial_with(config, &offer(&self.pki, &listener(true), ALPN).unwrap())
        }

        fn dial_with(&self, config: &Arc<ClientConfig>, offer: &TlsOffer) -> Link {
            let server = ServerConnection::new(Arc::clone(&offer.config)).unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            Link { client: ClientConnection::new(Arc::clone(config), name).unwrap(), server, records: Vec::new() }
        }
    }

    /// Two ends and a reader of 4 KiB between the node and the device.
    struct Link {
        client: ClientConnection,
        server: ServerConnection,
        /// Content type and whole length of each record the node has sent.
        records: Vec<(u8, usize)>,
    }

    impl Link {
        /// Carries bytes both ways until nothing moves.
        fn run(&mut self) -> Result<(), rustls::Error> {
            loop {
                let mut wire = Vec::new();
                while self.client.wants_write() {
                    self.client.write_tls(&mut wire).unwrap();
                }
                let moved = !wire.is_empty();
                feed(&mut wire.as_slice(), |bytes| self.server.read_tls(bytes).unwrap());
                let accepted = self.server.process_new_packets().map(|_| ());
                let mut wire = Vec::new();
                while self.server.wants_write() {
                    self.server.write_tls(&mut wire).unwrap();
                }
                self.meter(&wire);
                let mut rest = wire.as_slice();
                while !rest.is_empty() {
                    self.client.read_tls(&mut rest).unwrap();
                    self.client.process_new_packets()?;
                }
                accepted?;
                if !moved && wire.is_empty() {
                    return Ok(());
                }
            }
        }

        fn meter(&mut self, mut wire: &[u8]) {
            while let [content_type, _, _, high, low, ..] = *wire {
                let len = 5 + usize::from(u16::from_be_bytes([high, low]));
                assert!(len <= RECORD_LEN_MAX, "a record of {len} bytes does not fit a device's reader");
                self.records.push((content_type, len));
                wire = &wire[len..];
            }
            assert!(wire.is_empty(), "the node writes whole records");
        }
    }

    fn feed(rest: &mut &[u8], mut read: impl FnMut(&mut &[u8]) -> usize) {
        while !rest.is_empty() {
            assert!(read(rest) > 0);
        }
    }

    #[test]
    fn every_record_fits_a_4_kib_reader_and_the_first_flight_one_of_them() {
        let world = world();
        let mut link = world.dial(&world.client_config(Client::default()));
        link.run().unwrap();
        assert!(!link.client.is_handshaking() && !link.server.is_handshaking());
        // ServerHello, ChangeCipherSpec, and one record with all that is encrypted: no message of
        // the handshake is split. The ticket follows, in one record.
        let kinds: Vec<u8> = link.records.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [22, 20, 23, 23], "{:?}", link.records);

        let bulk: Vec<u8> = (0..1_000_000_u32).map(|i| i as u8).collect();
        let mut sent = 0;
        let mut received = Vec::new();
        while sent < bulk.len() {
            // No more at a time than the device's end holds before it is read.
            let end = bulk.len().min(sent + 16_000);
            sent += link.server.writer().write(&bulk[sent..end]).unwrap();
            link.run().unwrap();
            // Ends with "would block": all that has arrived is read by then.
            let _ = link.client.reader().read_to_end(&mut received);
        }
        assert!(received == bulk);
        let longest = link.records.iter().map(|(_, len)| *len).max().unwrap();
        assert!((2_048..=4_000).contains(&longest), "{longest}");
    }

    #[test]
    fn the_longest_chain_allowed_still_fits_one_record() {
        let mut world = world();
        // The same authority's certificate over and over makes a chain no one needs, and is legal.
        let filler = world.pki.roots[0].clone();
        let chain_len = |pki: &Pki| pki.identity.chain.iter().map(|c| c.der().len()).sum::<usize>();
        while chain_len(&world.pki) + filler.der().len() <= Pki::CHAIN_LEN_MAX {
            world.pki.identity.chain.push(filler.clone());
        }
        assert!(world.pki.identity.chain.len() > 3);
        let mut link = world.dial(&world.client_config(Client::default()));
        link.run().unwrap();
        let kinds: Vec<u8> = link.records.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [22, 20, 23, 23], "{:?}", link.records);
    }

    #[test]
    fn a_device_that_offers_p_256_alone_is_never_asked_to_retry() {
        let world = world();
        for groups in [vec![kx_group::SECP256R1], vec![kx_group::X25519, kx_group::SECP256R1]] {
            let mut link = world.dial(&world.client_config(Client { groups, ..Client::default() }));
            link.run().unwrap();
            assert_eq!(link.client.handshake_kind(), Some(HandshakeKind::Full));
        }
    }

    #[test]
    fn a_second_connection_resumes_and_is_known_by_its_certificate_still() {
        let world = world();
        let config = world.client_config(Client::default());
        let offer = offer(&world.pki, &listener(true), ALPN).unwrap();
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut link = world.dial_with(&config, &offer);
            link.run().unwrap();
            assert_eq!(link.server.handshake_kind(), Some(kind));
            assert_eq!(link.server.peer_certificates().map(<[_]>::len), Some(1));
        }
        // Another offer, after a reload: its tickets are its own.
        let mut link = world.dial(&config);
        link.run().unwrap();
        assert_eq!(link.server.handshake_kind(), Some(HandshakeKind::Full));
    }

    #[test]
    fn without_resumption_every_connection_shows_its_certificate() {
        let world = world();
        let config = world.client_config(Client::default());
        let offer = offer(&world.pki, &listener(false), ALPN).unwrap();
        for _ in 0..2 {
            let mut link = world.dial_with(&config, &offer);
            link.run().unwrap();
            assert_eq!(link.server.handshake_kind(), Some(HandshakeKind::Full));
        }
    }

    #[test]
    fn nobody_comes_in_without_a_certificate_of_the_authority() {
        let world = world();
        let mut link = world.dial(&world.client_config(Client { certificate: false, ..Client::default() }));
        assert!(link.run().is_err());
        assert!(link.server.is_handshaking());

        let stranger = self::world();
        let (certificate, key) = world.enrol(&stranger.pki);
        let mut roots = RootCertStore::empty();
        roots.add(world.pki.roots[0].der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate.der().clone()], key.to_rustls().unwrap())
            .unwrap();
        let mut link = world.dial(&Arc::new(config));
        assert!(link.run().is_err());
        assert!(link.server.is_handshaking());
    }

    #[test]
    fn tls_1_2_is_refused() {
        let world = world();
        let old = Client { versions: vec![&version::TLS12], ..Client::default() };
        assert!(world.dial(&world.client_config(old)).run().is_err());
    }

    #[test]
    fn alpn_is_mqtt_where_it_is_offered() {
        let world = world();
        let dial = |alpn: &[&[u8]]| {
            let alpn = alpn.iter().map(|name| name.to_vec()).collect();
            let mut link = world.dial(&world.client_config(Client { alpn, ..Client::default() }));
            link.run().map(|()| link.client.alpn_protocol().map(<[u8]>::to_vec))
        };
        assert_eq!(dial(&[]), Ok(None));
        assert_eq!(dial(&[b"h2", b"mqtt"]), Ok(Some(b"mqtt".to_vec())));
        assert!(dial(&[b"h2"]).is_err());
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let mut world = world();
        world.pki.identity.key = KeyPair::generate().unwrap();
        assert!(matches!(offer(&world.pki, &listener(true), ALPN), Err(TlsError::Rustls(_))));
    }
}
