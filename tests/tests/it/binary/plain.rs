//! A node with its plain listener open, for clients that others wrote.

use std::net::SocketAddr;

use unhidra_tests::process::{FREE_PORTS, Node, Place};

/// Starts a node whose plain listener lets anybody in.
pub(super) async fn plain_node(place: &Place) -> (Node, SocketAddr) {
    plain_node_with(place, "").await
}

/// The same with further options of `run`.
pub(super) async fn plain_node_with(place: &Place, options: &str) -> (Node, SocketAddr) {
    let plain = "--set broker.tcp.listen=127.0.0.1:0 --set broker.tcp.anonymous=true";
    let node = place.node(&format!("run {FREE_PORTS} {plain} {options}")).await;
    let address = node.ready["mqtt_plain"].as_str().and_then(|text| text.parse().ok());
    let address = address.unwrap_or_else(|| panic!("it listens for plain MQTT: {}", node.ready));
    (node, address)
}
