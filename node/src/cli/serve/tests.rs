//! What the listeners of a running node show, before and after its certificate was looked at.

use super::*;
use crate::config::Purpose;
use crate::folder::{Kind, Role};
use std::path::PathBuf;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use unhidra_certs::{Authority, Certificate, write_private, write_public};
use unhidra_core::time::UnixTime;

const DAY: Duration = Duration::from_secs(86_400);

/// CONNECT of MQTT 5: clean start, Keep Alive 60 s, no properties, the client identifier `peer`.
const CONNECT: &[u8] = b"\x10\x11\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x04peer";

/// A running node, and when it was started.
struct Running {
    node: Node,
    started: UnixTime,
    folder: TempDir,
}

impl Running {
    /// One that serves MQTT over TLS and over WebSocket, with these lines of `[pki]`. Without any, its own
    /// authority is 200 days old.
    async fn start(pki: &str, folder: TempDir) -> Self {
        let path = folder.path().join("node.toml");
        let free = "listen = '127.0.0.1:0'\nclient_certificate = 'none'";
        let text = format!(
            "[pki]\n{pki}\n[broker.tls]\n{free}\n[broker.wss]\n{free}\n\
             [gateway]\nlisten = '127.0.0.1:0'\n[admin]\nlisten = '127.0.0.1:0'\n"
        );
        std::fs::write(&path, text).unwrap();
        let data = Some(folder.path().join("data"));
        let sources = Sources { purpose: Purpose::Node, file: Some(path), set: Vec::new(), data, log_format: None };
        let loaded = sources.load().unwrap();
        let held = Folder::open(&loaded.config.data, Kind::Sealed, Role::Node).unwrap();
        let started = SystemClock::start().unix_now();
        if pki.is_empty() {
            Pki::open(&loaded.config.pki, &held.layout().pki(), ago(started, DAY * 200)).unwrap();
        }
        let node = Node::start(loaded, held, StdRng::seed_from_u64(7)).await.unwrap();
        Self { node, started, folder }
    }

    async fn generated() -> Self {
        Self::start("", tempfile::tempdir().unwrap()).await
    }

    /// The node as it stands so long after it made its certificate. The machine's clock cannot be moved here:
    /// the certificate is moved back instead.
    fn has_run_for(&self, since: Duration) {
        let config = &self.node.loaded.config;
        let old = Pki::open(&config.pki, &self.node.layout.pki(), ago(self.started, since)).unwrap();
        self.node.tls.renew(tls::Offers::new(&old, &config.broker).unwrap());
        self.node.pki.store(Arc::new(old));
    }

    /// Dials both listeners as clients that check what they are shown, dates included.
    async fn dial(&self) -> Vec<Result<TlsStream<TcpStream>, std::io::Error>> {
        let mut roots = RootCertStore::empty();
        for root in &self.node.pki.load().roots {
            roots.add(root.der().clone()).unwrap();
        }
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let mut dialled = Vec::new();
        for address in [self.node.addresses.mqtt, self.node.addresses.mqtt_wss] {
            let stream = TcpStream::connect(address.unwrap()).await.unwrap();
            dialled.push(connector.connect(ServerName::try_from("localhost").unwrap(), stream).await);
        }
        assert_eq!(dialled.len(), 2);
        dialled
    }

    /// What both listeners show to whoever comes now: one certificate.
    async fn shown(&self) -> Certificate {
        let dialled = self.dial().await;
        let shown: Vec<_> = dialled.iter().map(|stream| leaf(stream.as_ref().unwrap())).collect();
        assert_eq!(shown[0], shown[1], "both listeners show the same");
        Certificate::parse(&shown[0]).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn stop(self) {
        self.node.stop().await;
        drop(self.folder);
    }
}

fn ago(now: UnixTime, by: Duration) -> UnixTime {
    UnixTime::from_ms(now.as_ms() - by.as_millis() as u64)
}

fn leaf(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

#[tokio::test]
async fn a_listener_that_has_been_running_shows_the_new_certificate_and_who_is_in_stays() {
    let mut running = Running::generated().await;
    running.has_run_for(DAY * 59);
    let first = running.shown().await;
    running.node.look_at_certificate();
    assert_eq!(running.shown().await, first, "more than a third of 90 days is left");

    running.has_run_for(DAY * 61);
    let old = running.shown().await;
    let mut present = running.dial().await.remove(0).unwrap();
    running.node.look_at_certificate();
    let new = running.shown().await;
    assert_ne!(new, old);
    assert!(new.remaining(running.started).unwrap() > DAY * 89, "a whole life from now on");
    assert_eq!(running.node.pki.load().identity.chain[0], new, "what the metrics tell of is what is shown");

    running.node.look_at_certificate();
    assert_eq!(running.shown().await, new, "made once");

    // Whoever came before is served on its connection: a CONNACK, whatever it says.
    present.write_all(CONNECT).await.unwrap();
    assert_eq!(present.read_u8().await.unwrap(), 0x20);
    running.stop().await;
}

#[tokio::test]
async fn after_the_clock_was_put_past_its_end_a_listener_shows_one_that_holds() {
    let mut running = Running::generated().await;
    running.has_run_for(DAY * 180);
    for refused in running.dial().await {
        let text = refused.map(|_| ()).expect_err("it has ended").to_string();
        assert!(text.contains("expired"), "{text}");
    }
    running.node.look_at_certificate();
    assert!(running.shown().await.remaining(running.started).is_some());
    running.stop().await;
}

#[tokio::test]
async fn a_renewal_that_fails_changes_nothing_and_the_next_look_tries_again() {
    let mut running = Running::generated().await;
    running.has_run_for(DAY * 61);
    let old = running.shown().await;
    let key = running.node.layout.pki().join("ca.key");
    let away = key.with_extension("away");
    std::fs::rename(&key, &away).unwrap();
    running.node.look_at_certificate();
    assert_eq!(running.shown().await, old, "it holds still, and is served");
    std::fs::rename(&away, &key).unwrap();
    running.node.look_at_certificate();
    assert_ne!(running.shown().await, old);
    running.stop().await;
}

#[tokio::test]
async fn an_operators_own_certificate_is_left_alone_however_near_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name| folder.path().join(name);
    let now = SystemClock::start().unix_now();
    let authority = Authority::generate(DAY * 400, ago(now, DAY * 200)).unwrap();
    // The authority's key lies here too: the node could sign, and must not.
    authority.save(&path("ca.pem"), &path("ca.key")).unwrap();
    let made = authority.issue_node(&["localhost".parse().unwrap()], DAY * 90, ago(now, DAY * 89)).unwrap();
    write_public(&path("node.pem"), made.certificate.to_pem().as_bytes()).unwrap();
    write_private(&path("node.key"), made.key.to_pem().unwrap().as_bytes()).unwrap();
    let pki = "ca = 'ca.pem'\nca_key = 'ca.key'\ncertificate = 'node.pem'\nkey = 'node.key'";
    let mut running = Running::start(pki, folder).await;
    assert_eq!(running.shown().await, made.certificate);
    // As on the day on which a renewed file lies there and nobody has asked for it yet.
    let next = authority.issue_node(&["localhost".parse().unwrap()], DAY * 90, now).unwrap();
    write_public(&running.path("node.pem"), next.certificate.to_pem().as_bytes()).unwrap();
    write_private(&running.path("node.key"), next.key.to_pem().unwrap().as_bytes()).unwrap();
    running.node.look_at_certificate();
    assert_eq!(running.shown().await, made.certificate);
    running.stop().await;
}
