//! The listeners under MQTT.js, the client of most JavaScript programs: `tests/clients/mqttjs_rules.mjs`.

use std::path::Path;

use tokio::process::Command;
use unhidra_tests::process::{Place, Process};

use super::plain::{plain_node, plain_node_with};

const BOTH: [&str; 2] = ["311", "5"];

/// The plain listeners of MQTT and MQTT over WebSocket, and MQTT over WebSocket over TLS.
const LISTENERS: &str = "--set broker.ws.listen=127.0.0.1:0 --set broker.ws.anonymous=true \
    --set broker.wss.listen=127.0.0.1:0 --set broker.wss.anonymous=true";

/// Holds a node to a rule in these versions over TCP, each with a node of its own.
async fn holds(rule: &str, versions: &[&str]) {
    for version in versions {
        let place = Place::new();
        let (node, address) = plain_node(&place).await;
        held(&format!("mqtt://{address}"), version, rule, None).await;
        node.stop().await;
    }
}

/// The same over WebSocket, plain and over TLS.
async fn holds_over_websocket(rule: &str) {
    for version in BOTH {
        for listener in ["mqtt_ws", "mqtt_wss"] {
            let place = Place::new();
            let (node, _) = plain_node_with(&place, LISTENERS).await;
            let ca = place.enroll("pump-7").await.join("ca.pem");
            let url = node.ready[listener].as_str().unwrap_or_else(|| panic!("{listener} listens: {}", node.ready));
            held(url, version, rule, Some(&ca)).await;
            node.stop().await;
        }
    }
}

async fn held(url: &str, version: &str, rule: &str, ca: Option<&Path>) {
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    assert!(
        clients.join("node_modules/mqtt").is_dir(),
        "MQTT.js is missing; run `npm ci` in tests/clients, or run tests/run setup, which does"
    );
    let mut command = Command::new("node");
    command.arg(clients.join("mqttjs_rules.mjs")).args([url, version, rule]).args(ca);
    let ended = Process::start(&format!("mqttjs_rules.mjs {url} {version} {rule}"), command).ended().await;
    assert_eq!(ended.status, Some(0), "{ended}");
}

#[tokio::test]
async fn every_qos_arrives_in_order() {
    holds("every_qos_arrives_in_order", &BOTH).await;
}

#[tokio::test]
async fn a_large_message_arrives_whole() {
    holds("a_large_message_arrives_whole", &BOTH).await;
}

#[tokio::test]
async fn a_will_comes_after_a_death_and_not_after_a_goodbye() {
    holds("a_will_comes_after_a_death_and_not_after_a_goodbye", &BOTH).await;
}

#[tokio::test]
async fn a_session_is_resumed_with_what_came_meanwhile() {
    holds("a_session_is_resumed_with_what_came_meanwhile", &BOTH).await;
}

#[tokio::test]
async fn a_retained_message_comes_to_who_subscribes_later() {
    holds("a_retained_message_comes_to_who_subscribes_later", &BOTH).await;
}

#[tokio::test]
async fn properties_arrive_as_they_were_sent() {
    holds("properties_arrive_as_they_were_sent", &["5"]).await;
}

#[tokio::test]
async fn every_qos_arrives_in_order_over_websocket() {
    holds_over_websocket("every_qos_arrives_in_order").await;
}

#[tokio::test]
async fn a_large_message_arrives_whole_over_websocket() {
    holds_over_websocket("a_large_message_arrives_whole").await;
}

#[tokio::test]
async fn a_will_comes_after_a_death_over_websocket() {
    holds_over_websocket("a_will_comes_after_a_death_and_not_after_a_goodbye").await;
}

#[tokio::test]
async fn a_topic_has_an_alias_both_ways() {
    holds("a_topic_has_an_alias_both_ways", &["5"]).await;
}
