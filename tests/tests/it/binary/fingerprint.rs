//! Safety numbers: what both sides of an enrolment show, and what a scanner's reading is compared with.

use serde_json::Value;
use unhidra_tests::process::{FREE_PORTS, Place};

async fn shown(place: &Place, line: &str) -> Value {
    serde_json::from_str(&place.done(line).await).expect("an object")
}

/// The device computes from the keys in its own folder, the node from those it holds; a code that
/// was scanned from another device is told from this one's.
#[tokio::test]
async fn device_and_node_show_the_same_digits_and_another_device_others() {
    let place = Place::new();
    let node = place.node(&format!("run {FREE_PORTS}")).await;
    place.enroll("pump-7").await;
    place.enroll("pump-8").await;

    let asked = "device fingerprint pump-7 --data node";
    let of_node = place.done(asked).await;
    let of_device = place.done("simulate pump-7 --fingerprint").await;
    let digits = |text: &str| text.split_whitespace().filter(|w| w.parse::<u32>().is_ok()).map(str::to_owned).collect();
    let groups: Vec<String> = digits(&of_node);
    assert_eq!((groups.len(), &groups), (12, &digits(&of_device)), "{of_node}\n{of_device}");
    assert!(groups.iter().all(|group| group.len() == 5), "{groups:?}");

    let own = shown(&place, &format!("{asked} --json")).await;
    assert_eq!(own["digits"], groups.join(" "));
    let other = shown(&place, "device fingerprint pump-8 --data node --json").await;
    let scanned = |code: &Value| format!("{asked} --scanned {}", code.as_str().expect("a code"));
    place.done(&scanned(&own["code"])).await;
    let refused = place.run(&scanned(&other["code"])).await;
    assert!(refused.status == Some(1) && refused.err.contains("DIFFERENT"), "{refused}");

    let unknown = place.run("device fingerprint pump-9 --data node").await;
    assert!(unknown.status != Some(0) && unknown.err.contains("pump-9"), "{unknown}");
    node.stop().await;
}
