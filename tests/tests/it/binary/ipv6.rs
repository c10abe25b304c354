//! Listeners on IPv6, alone and beside IPv4.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use unhidra_tests::process::{FREE_PORTS, Place, Process};

fn start(place: &Place, address: SocketAddr, program: &str, line: &str) -> Process {
    let mut command = place.program(program, "mosquitto-clients");
    command.args(["-d", "-h", &address.ip().to_string(), "-p", &address.port().to_string()]);
    command.args(line.split_whitespace());
    Process::start(&format!("{program} to {address}: {line}"), command)
}

#[tokio::test]
async fn clients_come_in_by_ipv6_over_tls_and_plainly_and_meet_those_of_ipv4() {
    if let Err(error) = TcpListener::bind("[::1]:0").await {
        eprintln!("skipped: this machine has no [::1] ({error})");
        return;
    }
    let place = Place::new();
    let listen = "--set broker.tls.listen=[::1]:0 --set broker.tcp.listen=127.0.0.1:0,[::1]:0";
    let node = place.node(&format!("run {FREE_PORTS} {listen} --set broker.tcp.anonymous=true")).await;
    let listeners = node.ready["mqtt_listeners"].as_array().expect("listeners").iter();
    let address = |listener: &serde_json::Value| listener["address"].as_str().and_then(|text| text.parse().ok());
    let plain: Vec<SocketAddr> = listeners
        .filter(|listener| listener["name"] == "tcp")
        .map(|listener| address(listener).expect("one"))
        .collect();
    let [old, new] = plain[..] else { panic!("two plain listeners: {}", node.ready) };
    assert!(old.is_ipv4() && new.is_ipv6() && node.mqtt.is_ipv6(), "{}", node.ready);

    // Its certificate is good for this address too: the client looks.
    place.enroll("pump-7").await;
    let line = "--cafile pump-7/ca.pem --cert pump-7/cert.pem --key pump-7/key.pem -V 5 -q 1 \
                -t unhidra/devices/pump-7/messages -m garbage";
    let device = start(&place, node.mqtt, "mosquitto_pub", line).ended().await;
    assert!(device.out.contains("CONNACK (0)") && device.out.contains("PUBACK (Mid: 1, RC:131)"), "{device}");

    for (from, to) in [(old, new), (new, old), (new, new)] {
        let subscriber = start(&place, to, "mosquitto_sub", "-V 5 -q 1 -t lab/t -C 1 -F got:%p");
        subscriber.prints("Subscribed (mid: 1): 1").await;
        let published = start(&place, from, "mosquitto_pub", "-V 5 -q 1 -t lab/t -m hello").ended().await;
        assert!(published.out.contains("PUBACK (Mid: 1, RC:0)"), "{published}");
        let ended = subscriber.ended().await;
        assert!(ended.out.contains("got:hello"), "{ended}");
    }
    // A client that stays is shown with its address as it is written.
    let staying = start(&place, new, "mosquitto_sub", "-V 5 -i staying -t lab/t");
    staying.prints("Subscribed (mid: 1): 0").await;
    let shown = place.done("clients --json --data node").await;
    assert!(shown.contains("[::1]:"), "{shown}");
    node.stop().await;
}
