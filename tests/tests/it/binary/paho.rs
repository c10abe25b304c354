//! The plain listener under paho-mqtt, the client of most Python programs: `tests/clients/paho_rules.py`.

use std::path::Path;

use tokio::process::Command;
use unhidra_tests::process::{Place, Process};

use super::plain::plain_node;

/// Holds a node to a rule in these versions, each with a node of its own.
async fn holds(rule: &str, versions: &[&str]) {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let package = tests.join("../target/paho");
    assert!(package.join("paho").is_dir(), "paho-mqtt is missing; run tests/run setup, which installs it");
    for version in versions {
        let place = Place::new();
        let (node, address) = plain_node(&place).await;
        let mut command = Command::new("python3");
        command.arg("-B").arg(tests.join("clients/paho_rules.py")).env("PYTHONPATH", &package);
        command.args([address.port().to_string().as_str(), version, rule]);
        let ended = Process::start(&format!("paho_rules.py {version} {rule}"), command).ended().await;
        assert_eq!(ended.status, Some(0), "{ended}");
        node.stop().await;
    }
}

#[tokio::test]
async fn every_qos_arrives_in_order() {
    holds("every_qos_arrives_in_order", &["311", "5"]).await;
}

#[tokio::test]
async fn many_in_flight_arrive_once_and_in_order() {
    holds("many_in_flight_arrive_once_and_in_order", &["311", "5"]).await;
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
async fn a_retained_message_comes_as_asked_for() {
    holds("a_retained_message_comes_as_asked_for", &["311", "5"]).await;
}

#[tokio::test]
async fn properties_arrive_as_they_were_sent() {
    holds("properties_arrive_as_they_were_sent", &["5"]).await;
}

#[tokio::test]
async fn an_identifier_is_assigned() {
    holds("an_identifier_is_assigned", &["5"]).await;
}

#[tokio::test]
async fn a_group_shares_what_comes() {
    holds("a_group_shares_what_comes", &["311", "5"]).await;
}

#[tokio::test]
async fn a_topic_alias_stands_for_its_topic() {
    holds("a_topic_alias_stands_for_its_topic", &["5"]).await;
}
