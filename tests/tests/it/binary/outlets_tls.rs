//! Readings out over TLS: the other side is who its authority says, and so is this node.

use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use tokio_rustls::TlsAcceptor;
use unhidra_certs::{Authority, KeyPair, NodeCertificate, Request, write_private};
use unhidra_core::ids::DeviceId;
use unhidra_core::time::Clock;
use unhidra_node::clock::SystemClock;
use unhidra_tests::process::{FREE_PORTS, Place};

use super::hook::{Answer, Hook};
use super::outlets::{client, end, epoch, free_port, hold, ids, mosquitto_with, secret};

const DAY: Duration = Duration::from_secs(86_400);

/// Writes an authority, and a stranger's that nobody stands under; gives the server's certificate.
/// `own.pem` and `own.key` are what this node shows.
fn certificates(place: &Place) -> NodeCertificate {
    let now = SystemClock::start().unix_now();
    let authority = Authority::generate(DAY, now).expect("an authority");
    place.write("ca.pem", authority.certificate().to_pem());
    place.write("other.pem", Authority::generate(DAY, now).expect("an authority").certificate().to_pem());
    let key = KeyPair::generate().expect("a key");
    let name = DeviceId::parse("this-node").expect("an id");
    let request = Request::from_pem(key.request(&name).expect("a request").as_bytes()).expect("it reads");
    let domain = "unhidra.local".parse().expect("a trust domain");
    let certificate = authority.sign_device(&request, &name, &domain, DAY, now).expect("a certificate");
    place.write("own.pem", certificate.to_pem());
    write_private(&place.path("own.key"), key.to_pem().expect("PEM").as_bytes()).expect("a file");
    let names = ["localhost".parse().expect("a name"), "127.0.0.1".parse().expect("an address")];
    authority.issue_node(&names, DAY, now).expect("a certificate")
}

/// The outlets of a node whose authority is not the server's have delivered nothing.
fn wrong(shown: &str) -> Value {
    let lines = shown.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.into_iter().find(|outlet| outlet["name"] == "wrong").expect("an outlet of this name")
}

#[tokio::test]
async fn a_broker_is_reached_by_certificates_on_both_sides_and_a_stranger_gets_nothing() {
    let place = Place::new();
    let server = certificates(&place);
    place.write("server.pem", server.certificate.to_pem());
    place.write("server.key", server.key.to_pem().expect("PEM").as_bytes());
    let port = free_port().await;
    let lines = "cafile ca.pem\ncertfile server.pem\nkeyfile server.key\nrequire_certificate true\n\
                 use_identity_as_username true\n";
    let _broker = mosquitto_with(&place, port, lines).await;
    let tls = "--cafile ca.pem --cert own.pem --key own.key";
    let subscriber = client(&place, "mosquitto_sub", port, &format!("{tls} -d -V 5 -q 1 -t readings/# -F got:%p"));
    subscriber.prints("Subscribed (mid: 1): 1").await;
    let outlet = |name: &str, ca: &str| {
        format!(
            "--set outlets.{name}.kind=mqtt --set outlets.{name}.url=mqtts://127.0.0.1:{port} --set \
             outlets.{name}.ca={ca} --set outlets.{name}.certificate=own.pem --set outlets.{name}.key=own.key"
        )
    };
    let options = format!("{} {}", outlet("right", "ca.pem"), outlet("wrong", "other.pem"));
    let node = place.node(&format!("run {FREE_PORTS} {options}")).await;
    place.enroll("pump-7").await;
    let devices = place.simulate(&["pump-7"], "--rate 20").await;
    let first = subscriber.prints("got:").await;
    node.process.logs("rows were not taken").await;
    place.readings(20).await;
    end(devices).await;
    let first: Value = serde_json::from_str(first.trim_start_matches("got:")).expect("JSON");
    let expected = ids(&place, &epoch(&first)).await;
    subscriber.prints(expected.last().expect("rows")).await;
    let shown = place.done("outlets --json --data node").await;
    let wrong = wrong(&shown);
    assert_eq!(wrong["delivered"], 0, "{wrong}");
    assert!(wrong["failures"].as_u64().is_some_and(|failures| failures > 0), "{wrong}");
    assert!(wrong["lag_rows"].as_u64().is_some_and(|rows| rows >= expected.len() as u64), "what waits, waits: {wrong}");
    node.stop().await;
}

#[tokio::test]
async fn a_webhook_over_https_is_held_to_its_authority() {
    let place = Place::new();
    secret(&place);
    let server = certificates(&place);
    let key = PrivateKeyDer::from_pem_slice(server.key.to_pem().expect("PEM").as_bytes()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![server.certificate.der().clone()], key)
        .expect("a certificate and its key");
    let tls = TlsAcceptor::from(Arc::new(config));
    let any = "127.0.0.1:0".parse().expect("an address");
    let hook = Hook::start_with(any, Box::new(|_, _| Answer::Status(200, "")), Some(tls)).await;
    let outlet = |name: &str, ca: &str| {
        let port = hook.address.port();
        format!(
            "--set outlets.{name}.kind=webhook --set outlets.{name}.url=https://localhost:{port}/in --set \
             outlets.{name}.secret_file=secret --set outlets.{name}.ca={ca}"
        )
    };
    let options = format!("{} {}", outlet("right", "ca.pem"), outlet("wrong", "other.pem"));
    let node = place.node(&format!("run {FREE_PORTS} {options}")).await;
    place.enroll("pump-7").await;
    let devices = place.simulate(&["pump-7"], "--rate 20").await;
    hook.rows(10).await;
    node.process.logs("rows were not taken").await;
    end(devices).await;
    let first = hook.has(&[]).await;
    let expected = ids(&place, &epoch(&first[0])).await;
    let came = hook.has(&expected).await;
    assert_eq!(hold(&came, &expected), 0, "none comes twice");
    let wrong = wrong(&place.done("outlets --json --data node").await);
    assert!(wrong["delivered"] == 0 && wrong["failures"].as_u64().is_some_and(|failures| failures > 0), "{wrong}");
    node.stop().await;
}
