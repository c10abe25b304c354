//! A backup made under load, the node's folder gone, and what the backup brings back.

use std::fs;

use rustix::process::Signal;
use serde_json::Value;
use unhidra_tests::account::Said;
use unhidra_tests::process::{FREE_PORTS, Place};

use super::ledger::{journal, stored};

const DEVICES: [&str; 3] = ["pump-1", "pump-2", "pump-3"];

#[tokio::test]
async fn what_a_backup_holds_is_there_once_after_the_folder_is_lost_and_devices_go_on_by_themselves() {
    let place = Place::new();
    let node = place.node(&format!("run {FREE_PORTS}")).await;
    let ports = node.ports();
    for device in DEVICES {
        place.enroll(device).await;
    }
    let devices = place.simulate(&DEVICES, "--rate 20 --report report.jsonl").await;
    place.readings(60).await;
    let before = stored(&place.rows().await);
    let told = place.done("backup create kept.backup --data node --json").await;
    let told: Value = serde_json::from_str(&told).expect("it is JSON");
    assert!(told["backup"]["records"].as_u64() > Some(120), "{told}");
    assert!(place.done("backup verify kept.backup --data node").await.contains("every record opens"));
    let elsewhere = place.done("backup verify kept.backup --data elsewhere").await;
    assert!(elsewhere.contains("the master key is not at hand"), "{elsewhere}");
    // Acknowledged, and after the backup: of these the backup knows nothing.
    place.readings(60).await;
    node.process.signal(Signal::KILL);
    node.process.ended().await;
    fs::remove_dir_all(place.path("node")).expect("the folder goes");

    let refused = place.run("backup restore kept.backup --data pump-1").await;
    assert_eq!(refused.status, Some(1), "{refused}");
    assert!(refused.err.contains("a new or an empty folder"), "{refused}");
    let said = place.done("backup restore kept.backup --data node").await;
    assert!(said.contains("is put back") && said.contains("asks each device for a new session"), "{said}");
    let node = place.node(&format!("run {ports}")).await;
    for device in DEVICES {
        devices.logs_again(&format!("connected device={device}"), 2).await;
    }
    place.readings(90).await;
    devices.signal(Signal::TERM);
    let ended = devices.ended().await;
    assert_eq!(ended.status, Some(0), "{ended}");
    node.stop().await;

    let rows = place.rows().await;
    let after = stored(&rows);
    assert!(after.values().all(|count| *count == 1), "twice: {after:?}");
    for reading in before.keys() {
        assert!(after.contains_key(reading), "it was there when the backup was made: {reading:?}");
    }
    // What was published once the devices were back is there; of the rest the journals say what is lost.
    let journals = DEVICES.map(|device| journal(&place.path(device)));
    for entries in &journals {
        let last =
            entries.iter().rev().find(|entry| entry.acknowledged_at.is_some()).expect("something is acknowledged");
        assert!(after.contains_key(&(last.device.clone(), last.n, last.sha256.clone())), "{last:?}");
    }
    let report = Said::read(&place.path("report.jsonl")).ended.expect("the devices have ended");
    assert_eq!(report.devices.len(), DEVICES.len());
    for device in &report.devices {
        assert!(device.sessions >= 2, "a new session: {device:?}");
    }
}
