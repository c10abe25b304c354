//! `unhidra send`, to a device that is here and to one that is not.

use unhidra_tests::process::{FREE_PORTS, Place};

#[tokio::test]
async fn a_command_is_followed_to_its_receipt() {
    let place = Place::new();
    let node = place.node(&format!("run {FREE_PORTS}")).await;
    place.enroll("pump-7").await;
    let device = place.simulate(&["pump-7"], "--rate 5").await;

    let done = place.run("send pump-7 identify --wait --json --data node").await;
    assert!(done.status == Some(0) && done.out.lines().last().is_some_and(|l| l.contains("\"done\"")), "{done}");
    let unknown = place.run("send pump-7 dance twice --wait --data node").await;
    assert!(unknown.status == Some(1) && unknown.err.contains("pump-7 did not do dance: unknown command"), "{unknown}");
    let failed = place.run("send pump-7 set-interval soon --wait --data node").await;
    assert!(failed.status == Some(1) && failed.err.contains("pump-7 did not do set-interval"), "{failed}");

    // What the device answered is in its log, beside its readings.
    let rows = place.rows().await;
    let receipts: Vec<_> = rows.iter().filter(|row| row["kind"] == "receipt").map(|row| &row["status"]).collect();
    assert_eq!(receipts, ["done", "unknown", "failed"]);
    drop(device);
    node.stop().await;
}

#[tokio::test]
async fn a_command_waits_for_its_device_over_a_restart_of_the_node() {
    let place = Place::new();
    let node = place.node(&format!("run {FREE_PORTS}")).await;
    let ports = node.ports();
    place.enroll("pump-7").await;
    let queued = place.done("send pump-7 identify --json --data node").await;
    assert!(queued.contains("\"accepted\""), "{queued}");
    node.stop().await;
    let alone = place.done("send pump-7 ping hello --data node").await;
    assert!(alone.contains("no node runs here; the next one sends it"), "{alone}");

    let node = place.node(&format!("run {ports}")).await;
    let device = place.simulate(&["pump-7"], "--rate 5").await;
    device.logs("a command device=pump-7 command=\"identify\"").await;
    device.logs("a command device=pump-7 command=\"ping\"").await;
    drop(device);
    node.stop().await;
}
