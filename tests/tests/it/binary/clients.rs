//! `unhidra clients` and `unhidra kick` beside Mosquitto's clients.

use serde_json::Value;
use unhidra_tests::process::{Place, Process};

use super::plain::plain_node;

async fn listed(place: &Place, line: &str) -> Vec<Value> {
    let out = place.done(&format!("clients {line} --json --data node")).await;
    out.lines().map(|line| serde_json::from_str(line).expect("a client is JSON")).collect()
}

#[tokio::test]
async fn a_client_is_listed_kicked_and_its_session_forgotten() {
    let place = Place::new();
    let (node, address) = plain_node(&place).await;
    let start = |id: &str| {
        let mut command = place.program("mosquitto_sub", "mosquitto-clients");
        let port = address.port();
        let line = format!("-d -V 5 -c -x 600 -i {id} -k 30 -q 1 -t lab/# -t site/# -h 127.0.0.1 -p {port}");
        command.args(line.split_whitespace());
        Process::start(&format!("mosquitto_sub {line}"), command)
    };
    let (one, two) = (start("one"), start("two"));
    one.prints("Subscribed (mid: 1)").await;
    two.prints("Subscribed (mid: 1)").await;

    let clients = listed(&place, "").await;
    let names: Vec<_> = clients.iter().map(|client| client["client_id"].as_str()).collect();
    assert_eq!(names, [Some("one"), Some("two")]);
    let connection = &clients[0]["connection"];
    assert_eq!(connection["version"], "5.0", "{connection}");
    assert_eq!((&connection["listener"], &connection["keep_alive_s"]), (&"tcp".into(), &30.into()));
    assert_eq!(clients[0]["subscriptions"], 2);
    let table = place.done("clients --listener tcp tw --data node").await;
    assert!(table.contains("two") && !table.contains("one "), "{table}");

    let out = place.done("subscriptions lab/a --json --data node").await;
    let found: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(found.len(), 2, "{out}");
    assert_eq!(
        (&found[0]["client_id"], &found[0]["filter"], &found[0]["qos"]),
        (&"one".into(), &"lab/#".into(), &1.into())
    );
    assert!(place.done("subscriptions elsewhere --data node").await.contains("nobody"));

    let said = place.done("kick one --data node").await;
    assert!(said.contains("one: its connection from 127.0.0.1:") && said.contains("is ended"), "{said}");
    one.prints("Received DISCONNECT (152)").await;
    let away = place.run("kick one --data node").await;
    assert!(away.status == Some(1) && away.err.contains("\"one\" is not connected"), "{away}");
    let nobody = place.run("kick nobody --data node").await;
    assert!(nobody.status == Some(1) && nobody.err.contains("nobody here is \"nobody\""), "{nobody}");

    let said = place.done("kick two --forget --json --data node").await;
    assert!(said.contains("\"client_id\":\"two\""), "{said}");
    two.prints("Received DISCONNECT (152)").await;
    node.stop().await;
}
