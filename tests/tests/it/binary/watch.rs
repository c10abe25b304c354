//! `unhidra watch`: what it has printed can be gone on from.

use serde_json::Value;
use unhidra_tests::process::{FREE_PORTS, Place};

#[tokio::test]
async fn a_watch_goes_on_from_its_cursor_and_misses_nothing() {
    let place = Place::new();
    let node = place.node(&format!("run {FREE_PORTS}")).await;
    let ports = node.ports();
    place.enroll("pump-7").await;
    let device = place.simulate(&["pump-7"], "--rate 20").await;
    let first = lines(&place.done("watch pump-7 --json --count 10 --data node").await);
    // Nobody watches meanwhile, and the node is another process afterwards.
    place.readings(10).await;
    node.stop().await;
    let node = place.node(&format!("run {ports}")).await;
    let cursor = first.last().and_then(|line| line["cursor"].as_str()).expect("a cursor comes last");
    let second = place.done(&format!("watch pump-7 --json --since {cursor} --count 20 --data node")).await;
    let second = lines(&second);

    let rows: Vec<&Value> = [&first, &second].into_iter().flatten().filter(|line| line["offset"].is_u64()).collect();
    assert!(rows.len() >= 30, "{} rows", rows.len());
    for pair in rows.windows(2) {
        assert_eq!(pair[1]["prev"], pair[0]["offset"], "a hole before {}", pair[1]);
    }
    drop(device);
    node.stop().await;
}

fn lines(printed: &str) -> Vec<Value> {
    printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}
