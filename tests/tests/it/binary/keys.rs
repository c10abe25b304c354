//! Keys that change under load and over a kill, and a folder that falls into other hands.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;
use unhidra_tests::process::{FREE_PORTS, Place};

use super::ledger::{journal, nothing_is_lost_or_doubled};

fn status(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}"))
}

fn active(status: &Value) -> Vec<u64> {
    let keys = status["keys"].as_array().expect("the keys").iter();
    keys.filter(|key| key["state"] == "active").filter_map(|key| key["id"].as_u64()).collect()
}

/// Whether any file below `path` holds these bytes.
fn holds(path: &Path, bytes: &[u8]) -> bool {
    fs::read_dir(path).expect("a folder").any(|entry| {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            return holds(&path, bytes);
        }
        fs::read(&path).is_ok_and(|file| file.windows(bytes.len()).any(|window| window == bytes))
    })
}

#[tokio::test]
async fn keys_change_under_load_and_over_a_kill_and_nothing_acknowledged_is_missing() {
    let place = Place::new();
    let node = place.node(&format!("run {FREE_PORTS}")).await;
    let ports = node.ports();
    place.enroll("pump-1").await;
    let devices = place.simulate(&["pump-1"], "--rate 20").await;
    let mut masters = vec![fs::read(place.path("node.key")).expect("the master key")];
    for round in 1..=3_u64 {
        place.readings(10).await;
        let rotated = status(&place.done("keys rotate --json --data node").await);
        assert_eq!(active(&rotated), (4 * round + 1..=4 * round + 4).collect::<Vec<_>>());
        place.readings(10).await;
        place.done("keys rewrap --data node").await;
        masters.push(fs::read(place.path("node.key")).expect("the master key"));
    }
    masters.dedup();
    assert_eq!(masters.len(), 4, "each time another");
    node.process.signal(Signal::KILL);
    node.process.ended().await;
    // Without a node, and with the next one.
    assert_eq!(active(&status(&place.done("keys status --json --data node").await)), [13, 14, 15, 16]);
    let node = place.node(&format!("run {ports}")).await;
    devices.logs_again("connected device=pump-1", 2).await;
    place.readings(10).await;
    devices.signal(Signal::TERM);
    assert_eq!(devices.ended().await.status, Some(0));
    node.stop().await;
    let journals = [journal(&place.path("pump-1"))];
    assert!(nothing_is_lost_or_doubled(&journals, &place.rows().await) >= 70);

    let told = place.done("acts --data node").await;
    for act in ["enroll", "keys rotate", "keys rewrap"] {
        assert!(told.contains(act), "{act} in {told}");
    }
    // An older master key opens nothing any more, and is told so.
    let present = fs::read(place.path("node.key")).expect("the master key");
    fs::write(place.path("node.key"), &masters[0]).expect("the file is ours");
    let refused = place.run("keys status --data node").await;
    assert!(refused.status == Some(1) && refused.to_string().contains("wrapped under the master key"), "{refused}");
    fs::write(place.path("node.key"), present).expect("the file is ours");
    place.done("keys status --data node").await;
}

/// What is grepped for is found where nothing is encrypted, so that the search can fail.
#[tokio::test]
async fn a_stolen_folder_tells_no_reading_no_body_and_no_key() {
    let place = Place::new();

    let node = place.node(&format!("run {FREE_PORTS}")).await;
    place.enroll("pump-1").await;
    let devices = place.simulate(&["pump-1"], "--rate 20").await;
    place.readings(20).await;
    place.done("send pump-1 name-of-a-command body-of-a-command --data node").await;
    devices.signal(Signal::TERM);
    devices.ended().await;
    let row = place.rows().await.remove(0);
    let body = row["text"].as_str().expect("a text").to_owned();
    node.stop().await;
    let master = fs::read(place.path("node.key")).expect("the master key");
    let identity = fs::read(place.path("pump-1/identity.key")).expect("the device's key");
    for secret in [
        body.as_bytes(),
        row["name"].as_str().expect("a name").as_bytes(),
        b"name-of-a-command",
        b"body-of-a-command",
        &master,
        &identity,
    ] {
        assert!(!holds(&place.path("node/store"), secret), "{:?}", String::from_utf8_lossy(secret));
    }
    assert!(holds(&place.path("node/store"), b"pump-1"), "the names of devices show");
}
