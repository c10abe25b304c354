//! The TLS listener, on real sockets: certificates to identities, and peers that waste its time.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::UnixTime;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    AlertDescription, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, HandshakeKind, RootCertStore,
    ServerConfig, SignatureScheme,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use unhidra_broker::*;

use crate::world::{RuntimeClock, World, config, id};

/// A development CA with a server and clients.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("a CA") }
    }

    fn issue(&self, names: Vec<SanType>, common_names: &[&str]) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.subject_alt_names = names;
        params.distinguished_name = rcgen::DistinguishedName::new();
        // A second one under the type's number, since rcgen holds one value a type.
        let types = [DnType::CommonName, DnType::CustomDnType(vec![2, 5, 4, 3])];
        for (name, dn_type) in common_names.iter().zip(types) {
            params.distinguished_name.push(dn_type, *name);
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.der().clone(), PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }

    fn device(&self, common_name: &str, uri: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        self.issue(vec![SanType::URI(uri.try_into().expect("ASCII"))], &[common_name])
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a CA");
        Arc::new(roots)
    }

    fn server(&self) -> TlsOffer {
        let names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
        let (certificate, key) = self.issue(names, &["node"]);
        let verifier = WebPkiClientVerifier::builder(self.roots()).build().expect("a verifier");
        let config = ServerConfig::builder().with_client_cert_verifier(verifier.clone());
        let mut config = config.with_single_cert(vec![certificate], key).expect("a key that fits");
        config.ticketer = Ticketer::new().expect("a key");
        TlsOffer { config: Arc::new(config), verifier: Some(verifier) }
    }

    fn client(&self, identity: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>) -> TlsConnector {
        let config = ClientConfig::builder().with_root_certificates(self.roots());
        let config = match identity {
            Some((certificate, key)) => config.with_client_auth_cert(vec![certificate], key).expect("a key that fits"),
            None => config.with_no_client_auth(),
        };
        TlsConnector::from(Arc::new(config))
    }
}

/// A verifier three thousand years from now: the certificates here end in 4096.
#[derive(Debug)]
struct Late(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Late {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }
    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let later = std::time::Duration::from_secs(3_000 * 365 * 86_400);
        let now = std::time::Duration::from_secs(now.as_secs()) + later;
        self.0.verify_client_cert(leaf, above, UnixTime::since_unix_epoch(now))
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Dials, and says whether a byte came back from the other side's `echo`.
async fn dial(connector: TlsConnector, address: SocketAddr) -> std::io::Result<u8> {
    dial_as(&connector, address).await.map(|(byte, _)| byte)
}

/// The same, and by what handshake it went.
async fn dial_as(connector: &TlsConnector, address: SocketAddr) -> std::io::Result<(u8, Option<HandshakeKind>)> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::IpAddress(std::net::IpAddr::from([127, 0, 0, 1]).into());
    let mut stream = connector.connect(name, stream).await?;
    stream.write_all(b"x").await?;
    let byte = stream.read_u8().await?;
    Ok((byte, stream.get_ref().1.handshake_kind()))
}

/// A listener whose accepted streams come back one by one, each echoing one byte.
async fn listen(authority: &Authority, gate: GateConfig) -> (SocketAddr, mpsc::Receiver<Identity>) {
    let offer = Arc::new(ArcSwap::from_pointee(authority.server()));
    listen_with(offer, Gate::new(gate, Arc::new(RuntimeClock::start())))
}

fn listen_with(offer: Arc<ArcSwap<TlsOffer>>, gate: Arc<Gate>) -> (SocketAddr, mpsc::Receiver<Identity>) {
    let layers = Layers::new("tls", &config().tls, Some(offer));
    let bind = SocketAddr::from(([127, 0, 0, 1], 0));
    let threads = HandshakeThreads::start(&gate, 1).expect("threads");
    let mut listener = PortListener::bind(bind, layers, &threads, &gate).expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (sender, identities) = mpsc::channel(8);
    tokio::spawn(async move {
        loop {
            let Accepted { mut stream, identity, .. } = listener.accept().await.expect("it goes on");
            sender.send(identity).await.expect("the test goes on");
            tokio::spawn(async move {
                if let Ok(byte) = stream.read_u8().await {
                    let _ = stream.write_all(&[byte]).await;
                    let _ = stream.flush().await;
                }
            });
        }
    });
    (address, identities)
}

#[tokio::test]
async fn a_certificate_is_an_identity() {
    let authority = Authority::new();
    let (address, mut identities) = listen(&authority, config().gate).await;
    let device = authority.device("pump-7", "spiffe://test.example/device/pump-7");
    assert_eq!(dial(authority.client(Some(device)), address).await.expect("let in"), b'x');
    match identities.recv().await {
        Some(Identity::Device(certificate)) => {
            assert_eq!((certificate.device, certificate.trust_domain.as_str()), (id("pump-7"), "test.example"));
            assert_ne!(certificate.fingerprint.0, [0; 32]);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_certificate_that_names_no_device_clearly_lets_nobody_in() {
    let authority = Authority::new();
    let (address, mut identities) = listen(&authority, config().gate).await;
    let uri = |text: &str| SanType::URI(text.try_into().expect("ASCII"));
    let good = "spiffe://test/device/pump-7";
    let stranger = Authority::new();
    for (case, identity) in [
        ("another device in the URI", Some(authority.device("pump-7", "spiffe://test/device/pump-8"))),
        ("no common name", Some(authority.issue(vec![uri(good)], &[]))),
        ("two common names", Some(authority.issue(vec![uri(good)], &["pump-7", "pump-8"]))),
        ("no URI", Some(authority.issue(vec![], &["pump-7"]))),
        ("two URIs", Some(authority.issue(vec![uri(good), uri("spiffe://test/device/pump-8")], &["pump-7"]))),
        ("another scheme", Some(authority.device("pump-7", "https://test/device/pump-7"))),
        ("no trust domain", Some(authority.device("pump-7", "spiffe:///device/pump-7"))),
        ("a path before it", Some(authority.device("pump-7", "spiffe://test/x/device/pump-7"))),
        ("no device id", Some(authority.device("pump/7", "spiffe://test/device/pump/7"))),
        ("another CA", Some(stranger.device("pump-7", good))),
        ("no certificate", None),
    ] {
        assert!(dial(authority.client(identity), address).await.is_err(), "{case}");
    }
    let device = authority.device("pump-7", good);
    assert_eq!(dial(authority.client(Some(device)), address).await.expect("let in"), b'x');
    assert!(matches!(identities.recv().await, Some(Identity::Device(_))), "the first to come in");
    assert!(identities.try_recv().is_err());
}

#[tokio::test]
async fn peers_that_say_nothing_hold_up_nobody() {
    let authority = Authority::new();
    let (address, _identities) = listen(&authority, config().gate).await;
    let mut silent = Vec::new();
    for _ in 0..6 {
        let mut stream = TcpStream::connect(address).await.expect("accepted");
        // Half of them begin a record and leave it there.
        if silent.len() % 2 == 0 {
            stream.write_all(b"\x16\x03\x01\x02\x00\x01").await.expect("written");
        }
        silent.push(stream);
    }
    let device = authority.device("pump-7", "spiffe://test/device/pump-7");
    assert_eq!(dial(authority.client(Some(device)), address).await.expect("let in"), b'x');
}

#[tokio::test]
async fn peers_over_the_bound_wait_until_the_silent_ones_are_gone() {
    let authority = Authority::new();
    let gate = GateConfig { handshakes_max: 2, handshake_timeout_s: 1, ..config().gate };
    let (address, _identities) = listen(&authority, gate).await;
    let mut silent =
        [TcpStream::connect(address).await.expect("accepted"), TcpStream::connect(address).await.expect("accepted")];
    let device = authority.device("pump-7", "spiffe://test/device/pump-7");
    assert_eq!(dial(authority.client(Some(device)), address).await.expect("let in"), b'x');
    for stream in &mut silent {
        assert_eq!(stream.read(&mut [0; 8]).await.expect("a clean end"), 0);
    }
}

#[tokio::test]
async fn garbage_ends_its_own_handshake_alone() {
    let authority = Authority::new();
    let (address, _identities) = listen(&authority, config().gate).await;
    let mut stream = TcpStream::connect(address).await.expect("accepted");
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("written");
    let mut answer = Vec::new();
    // An alert, perhaps, and the end.
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.len() < 16, "{answer:?}");
    let device = authority.device("pump-7", "spiffe://test/device/pump-7");
    assert_eq!(dial(authority.client(Some(device)), address).await.expect("let in"), b'x');
}

#[tokio::test]
async fn whose_handshakes_fail_is_shut_out_and_nobody_else() {
    let authority = Authority::new();
    let gate = GateConfig { handshake_failures_per_address_s: 2, ..config().gate };
    let (address, mut identities) = listen(&authority, gate).await;
    tokio::spawn(async move { while identities.recv().await.is_some() {} });
    let device = || authority.client(Some(authority.device("pump-7", "spiffe://test.example/device/pump-7")));
    for _ in 0..20 {
        assert_eq!(dial(device(), address).await.expect("who succeeds is not counted"), b'x');
    }
    let mut flood = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(address).await.expect("the kernel accepts");
        // Where it is shut out already this fails.
        _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
        flood.push(stream);
    }
    for mut stream in flood {
        _ = stream.read_to_end(&mut Vec::new()).await;
    }
    // What the last of them owes is counted right after its end.
    while dial(device(), address).await.is_ok() {}
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 2], 0))).expect("an address of loopback");
    let stream = socket.connect(address).await.expect("the kernel accepts");
    let name = ServerName::IpAddress(std::net::IpAddr::from([127, 0, 0, 1]).into());
    let mut stream = device().connect(name, stream).await.expect("another address");
    stream.write_all(b"x").await.expect("it is in");
    assert_eq!(stream.read_u8().await.expect("it is served"), b'x');
}

#[tokio::test]
async fn who_resumes_is_held_to_the_rules_of_now() {
    let authority = Authority::new();
    let offer = authority.server();
    let verifier = offer.verifier.clone().expect("it asks for certificates");
    let offers = Arc::new(ArcSwap::from_pointee(offer.clone()));
    let gate = Gate::new(config().gate, Arc::new(RuntimeClock::start()));
    let (address, mut identities) = listen_with(offers.clone(), gate.clone());
    let pump = authority.client(Some(authority.device("pump-7", "spiffe://test/device/pump-7")));
    let (full, resumed) = (Some(HandshakeKind::Full), Some(HandshakeKind::Resumed));
    assert_eq!(dial_as(&pump, address).await.expect("let in"), (b'x', full));
    let first = identities.recv().await;
    assert_eq!(dial_as(&pump, address).await.expect("let in"), (b'x', resumed));
    assert_eq!(identities.recv().await, first, "it is known as if it had shown its certificate");
    let Some(Identity::Device(certificate)) = first else { panic!("{first:?}") };

    // Its certificate has ended meanwhile: the ticket is good, and is not enough.
    offers.store(Arc::new(TlsOffer { verifier: Some(Arc::new(Late(verifier))), ..offer.clone() }));
    assert!(dial_as(&pump, address).await.is_err());
    // Or its authority is none of ours any more.
    let verifier = WebPkiClientVerifier::builder(Authority::new().roots()).build().expect("a verifier");
    offers.store(Arc::new(TlsOffer { verifier: Some(verifier), ..offer.clone() }));
    assert!(dial_as(&pump, address).await.is_err());
    assert!(identities.try_recv().is_err(), "neither came in");

    // Whether it is revoked is asked at CONNECT, of what the ticket holds.
    offers.store(Arc::new(offer));
    assert_eq!(dial_as(&pump, address).await.expect("let in").0, b'x');
    let Some(Identity::Device(again)) = identities.recv().await else { panic!("a device") };
    assert_eq!(again.serials, certificate.serials);
}

/// A client of TLS 1.3 has its handshake for done before the server has looked at its certificate, and
/// speaks: what lies unread must not turn the server's last words into a reset.
#[tokio::test]
async fn whose_certificate_is_not_taken_reads_why_whatever_it_has_said_meanwhile() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (address, _identities) = listen(&authority, config().gate).await;
    let name = ServerName::IpAddress(std::net::IpAddr::from([127, 0, 0, 1]).into());
    for case in 0..40 {
        let (unknown, none) = (AlertDescription::UnknownCA, AlertDescription::CertificateRequired);
        let (identity, alert) = match case % 2 {
            0 => (Some(stranger.device("pump-7", "spiffe://test/device/pump-7")), unknown),
            _ => (None, none),
        };
        // That authority's name is the same: only its key is another one.
        let alerts = [alert, AlertDescription::DecryptError, AlertDescription::BadCertificate];
        let connector = authority.client(identity);
        let stream = TcpStream::connect(address).await.expect("accepted");
        let mut stream = connector.connect(name.clone(), stream).await.expect("the client has it for done");
        stream.write_all(&[0; 2048]).await.expect("the socket takes it");
        stream.get_ref().0.readable().await.expect("an answer");
        // It was being said while the answer was on its way: the first would be answered with a reset.
        for _ in 0..2 {
            stream.write_all(&[0; 2048]).await.expect("it is not reset");
        }
        let error = stream.read_u8().await.expect_err("it is refused");
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
        assert!(matches!(cause, Some(Error::AlertReceived(found)) if alerts.contains(found)), "{case}: {error:?}");
    }
}

/// Nobody else's handshake is to wait for it to have done.
#[tokio::test]
async fn who_goes_on_speaking_after_he_was_refused_is_closed_all_the_same() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (address, _identities) = listen(&authority, config().gate).await;
    let name = ServerName::IpAddress(std::net::IpAddr::from([127, 0, 0, 1]).into());
    let connector = authority.client(Some(stranger.device("pump-7", "spiffe://test/device/pump-7")));
    let stream = TcpStream::connect(address).await.expect("accepted");
    let mut stream = connector.connect(name, stream).await.expect("the client has it for done");
    let (below, _) = stream.get_mut();
    let mut taken = 0;
    while let Ok(bytes) = below.write(&[0; 64 * 1024]).await {
        taken += bytes;
        // What is read, and what the sockets hold.
        assert!(taken < 32 << 20, "{taken} bytes");
    }
}

/// It is told so at CONNECT; a handshake for nothing it has cost all the same.
#[tokio::test]
async fn whose_certificate_is_revoked_counts_as_whose_handshakes_fail() {
    let authority = Authority::new();
    let offers = Arc::new(ArcSwap::from_pointee(authority.server()));
    let rules = GateConfig { handshake_failures_per_address_s: 2, ..config().gate };
    let gate = Gate::new(rules, Arc::new(RuntimeClock::start()));
    let (address, mut identities) = listen_with(offers, gate.clone());
    let bad = authority.client(Some(authority.device("bad", "spiffe://t/device/bad")));
    dial_as(&bad, address).await.expect("let in");
    let Some(Identity::Device(certificate)) = identities.recv().await else { panic!("a device") };
    gate.set_revoked(Arc::new(certificate.serials.iter().copied().collect()));
    tokio::spawn(async move { while identities.recv().await.is_some() {} });
    while dial_as(&bad, address).await.is_ok() {}
}

/// Certificates are swapped while devices come in by the dozen: every one of them gets in.
#[tokio::test]
async fn certificates_rotate_under_load_and_nobody_is_refused() {
    let authority = Authority::new();
    let offers = Arc::new(ArcSwap::from_pointee(authority.server()));
    let gate = Gate::new(config().gate, Arc::new(RuntimeClock::start()));
    let (address, mut identities) = listen_with(offers.clone(), gate);
    tokio::spawn(async move { while identities.recv().await.is_some() {} });
    let mut devices = tokio::task::JoinSet::new();
    for number in 0..8 {
        let name = format!("pump-{number}");
        let pump = authority.client(Some(authority.device(&name, &format!("spiffe://t/device/{name}"))));
        devices.spawn(async move {
            for _ in 0..6 {
                assert_eq!(dial_as(&pump, address).await.expect("let in").0, b'x');
            }
        });
    }
    loop {
        tokio::select! {
            biased;
            done = devices.join_next() => match done {
                Some(done) => done.expect("each of them gets in"),
                None => return,
            },
            () = tokio::task::yield_now() => offers.store(Arc::new(authority.server())),
        }
    }
}

#[tokio::test]
async fn a_farewell_arrives_before_the_end_over_tls() {
    let authority = Authority::new();
    let offers = Arc::new(ArcSwap::from_pointee(authority.server()));
    let world = World::new();
    let address = world.port(Layers::new("tls", &config().tls, Some(offers)));
    let pump = authority.client(Some(authority.device("pump-7", "spiffe://test/device/pump-7")));
    let stream = TcpStream::connect(address).await.expect("accepted");
    let name = ServerName::IpAddress(std::net::IpAddr::from([127, 0, 0, 1]).into());
    let mut stream = pump.connect(name, stream).await.expect("let in");
    stream.write_all(b"\x10\x13\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x06pump-7").await.expect("written");
    stream.flush().await.expect("written");
    let mut connack = [0; 2];
    stream.read_exact(&mut connack).await.expect("CONNACK");
    stream.read_exact(&mut vec![0; connack[1].into()]).await.expect("the rest of it");
    let broker = world.broker.clone();
    let draining = tokio::spawn(async move { broker.drain(std::time::Duration::from_secs(5)).await });
    let mut farewell = Vec::new();
    // A clean end: the node says close_notify, or this would be an error.
    stream.read_to_end(&mut farewell).await.expect("a clean end");
    assert_eq!(farewell, [0xe0, 1, 0x8b]);
    drop(stream);
    draining.await.expect("drained");
}
