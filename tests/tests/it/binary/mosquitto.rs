//! Mosquitto's clients with devices' certificates.

use std::time::Duration;

use unhidra_certs::{Authority, KeyPair, Request, TrustDomain};
use unhidra_core::ids::DeviceId;
use unhidra_core::time::Clock;
use unhidra_node::clock::SystemClock;
use unhidra_tests::process::{Ended, FREE_PORTS, Node, Place, Process};

const PACKAGE: &str = "mosquitto-clients";

/// Starts `mosquitto_sub` or `mosquitto_pub` in a device's name.
fn start(place: &Place, node: &Node, program: &str, device: &str, line: &str) -> Process {
    let certificate = format!("--cafile {device}/ca.pem --cert {device}/cert.pem --key {device}/key.pem");
    start_with(place, node, program, &format!("{certificate} {line}"))
}

fn start_with(place: &Place, node: &Node, program: &str, line: &str) -> Process {
    let mut command = place.program(program, PACKAGE);
    command.args(["-d", "-q", "1", "-h", "127.0.0.1", "-p", &node.mqtt.port().to_string()]);
    command.args(line.split_whitespace());
    Process::start(&format!("{program} {line}"), command)
}

async fn publish(place: &Place, node: &Node, device: &str, line: &str) -> Ended {
    start(place, node, "mosquitto_pub", device, line).ended().await
}

async fn subscribe(place: &Place, node: &Node, device: &str, line: &str) -> Ended {
    start(place, node, "mosquitto_sub", device, line).ended().await
}

#[tokio::test]
async fn seventeen_bytes_bring_a_bundle() {
    let place = Place::new();
    let node = place.node(&format!("run {FREE_PORTS}")).await;
    place.enroll("pump-7").await;
    let subscribed =
        start(&place, &node, "mosquitto_sub", "pump-7", "-V 5 -i s -t unhidra/devices/pump-7/prekeys -C 1 -F %x");
    subscribed.prints("Subscribed (mid: 1): 1").await;
    let nonce: Vec<u8> = (100..116).collect();
    place.write("get", [&[1], nonce.as_slice()].concat());
    let published = publish(&place, &node, "pump-7", "-V 5 -i p -t unhidra/devices/pump-7/prekeys/get -f get").await;
    assert!(published.out.contains("PUBACK (Mid: 1, RC:0)"), "{published}");

    let ended = subscribed.ended().await;
    let bundle = ended.out.lines().find(|line| line.len() == 2 * 198).unwrap_or_else(|| panic!("198 bytes: {ended}"));
    // Kind, suite, and the nonce it answers (e2ee/PROTOCOL.md section 4).
    let nonce: String = nonce.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(bundle.starts_with(&format!("0301{nonce}")), "{bundle}");
    node.stop().await;
}

#[tokio::test]
async fn garbage_to_messages_is_refused_with_0x83_and_in_3_1_1_with_a_close() {
    let place = Place::new();
    let node = place.node(&format!("run {FREE_PORTS}")).await;
    place.enroll("pump-7").await;
    let garbage = "-t unhidra/devices/pump-7/messages -m garbage";
    let newer = publish(&place, &node, "pump-7", &format!("-V 5 {garbage}")).await;
    assert!(newer.out.contains("PUBACK (Mid: 1, RC:131)"), "{newer}");

    let older = publish(&place, &node, "pump-7", &format!("-V 311 {garbage}")).await;
    assert!(older.out.contains("CONNACK (0)") && !older.out.contains("PUBACK"), "{older}");
    assert!(older.status == Some(7) && older.err.contains("The connection was lost"), "{older}");
    node.stop().await;
}

#[tokio::test]
async fn another_devices_topics_are_refused() {
    let place = Place::new();
    let node = place.node(&format!("run {FREE_PORTS}")).await;
    place.enroll("pump-7").await;
    place.enroll("pump-8").await;
    for (version, code) in [("5", 135), ("311", 128)] {
        for topic in ["pump-8/commands", "pump-8/prekeys", "+/commands", "#", "pump-7/messages"] {
            let line = format!("-V {version} -E -t unhidra/devices/{topic}");
            let refused = subscribe(&place, &node, "pump-7", &line).await;
            assert!(refused.out.contains(&format!("Subscribed (mid: 1): {code}")), "{refused}");
        }
    }
    for topic in ["pump-8/messages", "pump-8/prekeys/get", "pump-7/commands"] {
        let line = format!("-t unhidra/devices/{topic} -m text");
        let newer = publish(&place, &node, "pump-7", &format!("-V 5 {line}")).await;
        assert!(newer.out.contains("PUBACK (Mid: 1, RC:135)"), "{newer}");
        let older = publish(&place, &node, "pump-7", &format!("-V 311 {line}")).await;
        assert!(older.status == Some(7) && !older.out.contains("PUBACK"), "{older}");
    }
    // What it may: so that a node that refuses everything does not pass.
    let allowed = subscribe(&place, &node, "pump-7", "-V 5 -E -t unhidra/devices/pump-7/commands").await;
    assert!(allowed.out.contains("Subscribed (mid: 1): 1"), "{allowed}");
    node.stop().await;
}

#[tokio::test]
async fn without_a_certificate_of_this_authority_there_is_no_entry() {
    let place = Place::new();
    let node = place.node(&format!("run {FREE_PORTS}")).await;
    place.enroll("pump-7").await;
    let message = "-V 5 -t unhidra/devices/pump-7/messages -m text";

    let bare = start_with(&place, &node, "mosquitto_pub", &format!("--cafile pump-7/ca.pem {message}")).ended().await;
    assert!(bare.status != Some(0) && !bare.out.contains("CONNACK"), "{bare}");

    stranger(&place);
    let strange = format!("--cafile pump-7/ca.pem --cert stranger.pem --key stranger.key {message}");
    let strange = start_with(&place, &node, "mosquitto_pub", &strange).ended().await;
    assert!(strange.status != Some(0) && !strange.out.contains("CONNACK"), "{strange}");

    let plain = start_with(&place, &node, "mosquitto_pub", message).ended().await;
    assert!(plain.status != Some(0) && !plain.out.contains("CONNACK"), "{plain}");
    node.stop().await;
}

/// A certificate for the same name, and of another authority.
fn stranger(place: &Place) {
    let now = SystemClock::start().unix_now();
    let day = Duration::from_secs(86_400);
    let authority = Authority::generate(day, now).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let device = DeviceId::parse("pump-7").expect("an id");
    let request = Request::from_pem(key.request(&device).expect("a request").as_bytes()).expect("it reads");
    let domain: TrustDomain = "unhidra.local".parse().expect("a trust domain");
    let certificate = authority.sign_device(&request, &device, &domain, day, now).expect("a certificate");
    place.write("stranger.pem", certificate.to_pem());
    place.write("stranger.key", key.to_pem().expect("a key in PEM").as_bytes());
}

#[tokio::test]
async fn a_revoked_device_is_out_within_a_second_and_stays_out() {
    let place = Place::new();
    let node = place.node(&format!("run {FREE_PORTS}")).await;
    place.enroll("pump-7").await;
    place.enroll("pump-8").await;
    let commands = |device: &str| format!("-V 5 -t unhidra/devices/{device}/commands");
    let revoked = start(&place, &node, "mosquitto_sub", "pump-7", &commands("pump-7"));
    let other = start(&place, &node, "mosquitto_sub", "pump-8", &commands("pump-8"));
    revoked.prints("Subscribed (mid: 1): 1").await;
    other.prints("Subscribed (mid: 1): 1").await;

    let said = place.done("device revoke pump-7 --json --data node").await;
    assert!(said.contains("\"was_online\":true"), "{said}");
    let ended = revoked.ended_within(Duration::from_secs(1)).await;
    assert!(ended.out.contains("DISCONNECT (135)"), "{ended}");

    let back = subscribe(&place, &node, "pump-7", &commands("pump-7")).await;
    assert!(back.out.contains("CONNACK (135)") && !back.out.contains("SUBACK"), "{back}");
    // Nobody else has noticed.
    let shown = place.done("device show pump-8 --json --data node").await;
    assert!(shown.contains("\"online\":true"), "{shown}");
    node.stop().await;
}
