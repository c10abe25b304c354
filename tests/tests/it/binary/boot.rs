//! A node that commits without syncs, killed, and cut from power without leaving a hole.

use rustix::process::Signal;
use unhidra_tests::account::{Said, agree};
use unhidra_tests::process::{FREE_PORTS, Node, Place};

const DEVICE: &str = "pump-7";

/// After a kill nothing is lost and nothing begins anew. After a power cut the store may have gone back,
/// so the node seals nothing in the sessions it finds, says so, and asks each device for a new one,
/// also where it was told in between to sync each commit.
#[tokio::test]
async fn a_power_cut_makes_sessions_anew_and_a_kill_does_not() {
    let place = Place::new();
    let node = place.node(&format!("run {FREE_PORTS} --set store.durability=interval")).await;
    let ports = node.ports();
    place.enroll(DEVICE).await;
    let device = place.simulate(&[DEVICE], "--rate 20 --report report.jsonl --retry-max 300").await;
    place.readings(20).await;
    killed(node).await;

    let node = place.node(&format!("run {ports} --set store.durability=interval")).await;
    place.readings(20).await;
    assert_eq!(Said::read(&place.path("report.jsonl")).sessions[DEVICE].len(), 1, "the kill has cost no session");
    assert!(!acts(&place).await.contains("power cut"));
    killed(node).await;

    // What a boot before this one would have left.
    let boot = place.path("node/store/boot");
    assert!(std::fs::read_to_string(&boot).expect("it is open without syncs").starts_with("boot = "));
    place.write("node/store/boot", "boot = 3f1f2c5e-5c1c-4b62-9a44-7d5c0b7f6a01\n");
    let node = place.node(&format!("run {ports}")).await;
    node.process.logs("the system was started anew while the store was open").await;
    node.process.logs("a power cut may have taken the store's end").await;
    assert!(!boot.exists(), "with a sync for each commit nothing is at stake any more");
    device.logs("a new session").await;
    place.readings(20).await;
    assert!(acts(&place).await.contains("a power cut may have taken the newest"));
    device.signal(Signal::TERM);
    let ended = device.ended().await;
    assert_eq!(ended.status, Some(0), "{ended}");
    node.stop().await;
    let said = Said::read(&place.path("report.jsonl"));
    assert_eq!(said.sessions[DEVICE].len(), 2, "one new session");
    assert_eq!(agree(&said.acknowledged, &place.rows().await), Ok(()));
}

async fn killed(node: Node) {
    node.process.signal(Signal::KILL);
    let ended = node.process.ended().await;
    assert_eq!(ended.status, None, "{ended}");
}

async fn acts(place: &Place) -> String {
    place.done("acts --data node").await
}
