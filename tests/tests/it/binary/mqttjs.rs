//! The listeners under MQTT.js, the client of most JavaScript programs: `tests/clients/mqttjs_rules.mjs`.

use std::path::Path;

use tokio::process::Command;
use unhidra_tests::process::{Place, Process};

use super::plain::plain_node;

/// Holds a node to a rule in these versions, each with a node of its own.
async fn holds(rule: &str, versions: &[&str]) {
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    assert!(
        clients.join("node_modules/mqtt").is_dir(),
        "MQTT.js is missing; run `npm ci` in tests/clients, or run tests/run setup, which does"
    );
    for version in versions {
        let place = Place::new();
        let (node, address) = plain_node(&place).await;
        let mut command = Command::new("node");
        command.arg(clients.join("mqttjs_rules.mjs")).args([format!("mqtt://{address}").as_str(), version, rule]);
        let ended = Process::start(&format!("mqttjs_rules.mjs {version} {rule}"), command).ended().await;
        assert_eq!(ended.status, Some(0), "{ended}");
        node.stop().await;
    }
}

#[tokio::test]
async fn every_qos_arrives_in_order() {
    holds("every_qos_arrives_in_order", &["311", "5"]).await;
}

#[tokio::test]
async fn a_large_message_arrives_whole() {
    holds("a_large_message_arrives_whole", &["311", "5"]).await;
}

#[tokio::test]
async fn a_will_comes_after_a_death_and_not_after_a_goodbye() {
    holds("a_will_comes_after_a_death_and_not_after_a_goodbye", &["311", "5"]).await;
}

#[tokio::test]
async fn a_session_is_resumed_with_what_came_meanwhile() {
    holds("a_session_is_resumed_with_what_came_meanwhile", &["311", "5"]).await;
}

#[tokio::test]
async fn a_retained_message_comes_to_who_subscribes_later() {
    holds("a_retained_message_comes_to_who_subscribes_later", &["311", "5"]).await;
}

#[tokio::test]
async fn properties_arrive_as_they_were_sent() {
    holds("properties_arrive_as_they_were_sent", &["5"]).await;
}
