//! Lists of revoked certificates (`pki.crl`) that change while the node runs.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::{
    CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use unhidra_tests::process::{FREE_PORTS, Node, Place, Process};
use x509_parser::prelude::{FromDer, X509Certificate};

/// A block of PEM (RFC 7468).
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Writes the list of the node's own authority, in place of the one before: the certificates of these
/// devices are revoked.
fn revoke(place: &Place, devices: &[&str]) {
    let key = PrivateKeyDer::from_pem_file(place.path("node/pki/ca.key")).expect("the authority's key");
    let key = KeyPair::try_from(&key).expect("a key that signs");
    let authority = CertificateDer::from_pem_file(place.path("node/pki/ca.pem")).expect("an authority");
    let authority = Issuer::from_ca_cert_der(&authority, key).expect("an authority");
    let revoked_certs = devices.iter().map(|device| {
        // Its own comes first in the file.
        let der = CertificateDer::from_pem_file(place.path(&format!("{device}/cert.pem"))).expect("a certificate");
        let (_, certificate) = X509Certificate::from_der(&der).expect("a certificate");
        RevokedCertParams {
            serial_number: SerialNumber::from_slice(certificate.raw_serial()),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }
    });
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2026, 1, 1),
        next_update: date_time_ymd(2096, 1, 1),
        crl_number: SerialNumber::from(devices.len() as u64),
        issuing_distribution_point: None,
        revoked_certs: revoked_certs.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = params.signed_by(&authority).expect("a list");
    place.write("next.pem", pem("X509 CRL", list.der()));
    std::fs::rename(place.path("next.pem"), place.path("crl.pem")).expect("the test's folder is writable");
}

fn start(place: &Place, node: &Node, device: &str) -> Process {
    let mut command = place.program("mosquitto_sub", "mosquitto-clients");
    let certificate = format!("--cafile {device}/ca.pem --cert {device}/cert.pem --key {device}/key.pem");
    let line = format!("{certificate} -p {} -V 5 -t unhidra/devices/{device}/commands", node.mqtt.port());
    command.args(["-d", "-q", "1", "-h", "127.0.0.1"]).args(line.split_whitespace());
    Process::start(&format!("mosquitto_sub {line}"), command)
}

/// The bearer of a revoked certificate is never in, and is told so: "Not authorized".
async fn is_refused(place: &Place, node: &Node, device: &str) {
    let ended = start(place, node, device).ended().await;
    assert!(ended.out.contains("received CONNACK (135)") && !ended.out.contains("SUBACK"), "{ended}");
}

#[tokio::test]
async fn a_list_that_changes_closes_live_connections_and_refuses_the_next_and_nobody_else() {
    let place = Place::new();
    place.enroll_all(&["pump-7", "pump-8", "pump-9"]).await;
    revoke(&place, &[]);
    let node = place.node(&format!("run {FREE_PORTS} --set pki.crl=crl.pem --set pki.crl_interval_s=1")).await;
    let live = [start(&place, &node, "pump-7"), start(&place, &node, "pump-8"), start(&place, &node, "pump-9")];
    for device in &live {
        device.prints("Subscribed (mid: 1): 1").await;
    }
    let [first, second, third] = live;

    // The file is found to have changed, without a word to the node.
    revoke(&place, &["pump-7"]);
    node.process.logs("the lists of what is revoked are read again").await;
    first.prints("DISCONNECT (135)").await;
    drop(first);
    is_refused(&place, &node, "pump-7").await;

    // And at once, where it is told to look.
    revoke(&place, &["pump-7", "pump-8"]);
    node.process.signal(Signal::HUP);
    node.process.logs("configuration and certificates are read again").await;
    second.prints("DISCONNECT (135)").await;
    drop(second);
    is_refused(&place, &node, "pump-8").await;
    is_refused(&place, &node, "pump-7").await;

    // What is no list changes nothing.
    place.write("crl.pem", "no list");
    node.process.logs("what was revoked before is so still").await;
    is_refused(&place, &node, "pump-7").await;
    let shown = place.done("device show pump-9 --json --data node").await;
    assert!(shown.contains("\"online\":true"), "{shown}");
    drop(third);
    node.stop().await;
}
