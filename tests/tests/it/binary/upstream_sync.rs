//! A real mosquitto before a node whose disk fails a sync now and then.

use rustix::process::Signal;
use unhidra_tests::account::{Said, agree};
use unhidra_tests::process::{FREE_PORTS, Place};

use super::disk::failing;
use super::upstream::{Mosquitto, wait_for_rows};

const DEVICES: [&str; 8] = ["d-1", "d-2", "d-3", "d-4", "d-5", "d-6", "d-7", "d-8"];

/// It sends the node as many at once as that takes, so that each device has several on their way, and does not
/// write down each.
const MANY: &str = "allow_anonymous true\nmax_inflight_messages 256\nautosave_on_changes false\n";

/// All devices come by one connection. Of each that a failed commit has cost a message, what waits behind it in
/// the node is left there and comes again behind it; on a disk this slow something waits.
#[tokio::test]
async fn behind_mosquitto_readings_are_stored_once_and_in_order_over_syncs_that_fail() {
    let mut place = Place::new();
    place.enroll_all(&DEVICES).await;
    let mosquitto = Mosquitto::start(&place, MANY).await;
    let mut environment = failing(&place, "node", "UNHIDRA_FAIL_SYNC", "fail");
    environment.push(("UNHIDRA_SYNC_MS", "20".into()));
    place.set_environment(environment);
    let node = place.node(&format!("run {FREE_PORTS} {}", mosquitto.options())).await;
    place.set_environment(Vec::new());
    node.process.logs("an outside broker is reached").await;
    let devices = mosquitto.simulate(&place, &DEVICES, "--rate 100 --report report.jsonl").await;
    place.readings(200).await;
    for round in 1..=3 {
        place.write("fail", "");
        node.process.logs_again("a commit failed; reopening the store", round).await;
        if round == 3 {
            // Once more, while the store is made ready or by what comes first then.
            place.write("fail", "");
        }
        place.readings(400).await;
        assert!(!place.path("fail").exists(), "the next sync fails, and takes it away");
    }
    devices.signal(Signal::TERM);
    let ended = devices.ended().await;
    assert_eq!(ended.status, Some(0), "{ended}");
    let said = Said::read(&place.path("report.jsonl"));
    // The last of them may be on their way from mosquitto still.
    wait_for_rows(&place, said.acknowledged.len()).await;
    node.stop().await;
    assert_eq!(agree(&said.acknowledged, &place.rows().await), Ok(()));
    assert_eq!(said.acknowledged.len(), said.published, "mosquitto takes all");
    assert_eq!(said.resets(), []);
}
