//! A node that ends and comes back, and devices that go on.

use rustix::process::Signal;
use unhidra_tests::account::Said;
use unhidra_tests::process::{FREE_PORTS, Node, Place};

use super::ledger::{journal, nothing_is_lost_or_doubled};

const DEVICES: [&str; 3] = ["pump-1", "pump-2", "pump-3"];

#[tokio::test]
async fn after_sigterm_devices_go_on_in_the_same_sessions_and_nothing_acknowledged_is_missing() {
    goes_on_after(async |node, _| node.stop().await).await;
}

#[tokio::test]
async fn after_sigkill_devices_go_on_in_the_same_sessions_and_nothing_acknowledged_is_missing() {
    goes_on_after(async |node, place| {
        node.process.signal(Signal::KILL);
        let ended = node.process.ended().await;
        assert_eq!(ended.status, None, "{ended}");
        // It left its socket behind, and nobody is misled by that.
        assert!(place.path("node/control.sock").exists());
    })
    .await;
}

/// `run` and `simulate` as two processes; the node ends in the middle and is started again.
async fn goes_on_after(end: impl AsyncFnOnce(Node, &Place)) {
    let place = Place::new();
    let node = place.node(&format!("run {FREE_PORTS}")).await;
    let ports = node.ports();
    for device in DEVICES {
        place.enroll(device).await;
    }
    let devices = place.simulate(&DEVICES, "--rate 20 --report report.jsonl").await;
    place.readings(40).await;

    end(node, &place).await;
    // Journals first: what they call acknowledged must be in the store already.
    let journals = DEVICES.map(|device| journal(&place.path(device)));
    let between = nothing_is_lost_or_doubled(&journals, &place.rows().await);
    assert!(between > 0, "nothing was acknowledged before the node ended");

    let node = place.node(&format!("run {ports}")).await;
    for device in DEVICES {
        devices.logs_again(&format!("connected device={device}"), 2).await;
    }
    place.readings(40).await;
    devices.signal(Signal::TERM);
    let ended = devices.ended().await;
    assert_eq!(ended.status, Some(0), "{ended}");
    node.stop().await;

    let journals = DEVICES.map(|device| journal(&place.path(device)));
    let acknowledged = nothing_is_lost_or_doubled(&journals, &place.rows().await);
    let published: usize = journals.iter().map(Vec::len).sum();
    assert!(acknowledged >= between + 40, "{acknowledged} acknowledged, {between} of them before the end");
    assert_eq!(acknowledged, published, "with the node back, everything is acknowledged");
    let report = Said::read(&place.path("report.jsonl")).ended.expect("it came to its end");
    assert_eq!(report.devices.len(), DEVICES.len());
    for device in &report.devices {
        assert_eq!((device.sessions, device.refused), (1, 0), "{report:?}");
        assert!(device.connections >= 2, "{report:?}");
    }
}
