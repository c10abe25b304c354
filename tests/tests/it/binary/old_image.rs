//! A device that begins again with an old copy of its flash.

use std::net::SocketAddr;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use unhidra_tests::account::{Said, agree};
use unhidra_tests::process::{FREE_PORTS, Place, soon};

const OPTIONS: &str = "--rate 20 --report report.jsonl --retry-max 300";

/// The node says of it in its log what may have happened, counts it, shows it with the device, also after
/// a restart, and asks for one new session, in which the device goes on: nothing is taken twice.
#[tokio::test]
async fn a_device_restored_from_an_old_copy_is_reported_counted_and_healed() {
    let place = Place::new();
    let node = place.node(&format!("run {FREE_PORTS}")).await;
    place.enroll("pump-7").await;
    run(&place).await;
    assert!(shown(&place).await.contains("state went back   never"));
    std::fs::copy(place.path("pump-7/flash"), place.path("copy")).expect("the test's folder is writable");
    run(&place).await;
    std::fs::copy(place.path("copy"), place.path("pump-7/flash")).expect("the test's folder is writable");

    let device = place.simulate(&["pump-7"], OPTIONS).await;
    let said = node.process.logs("the device is asked for a new session").await;
    assert!(said.contains("pump-7") && said.contains("restored from an old copy"), "{said}");
    device.logs("a new session").await;
    place.readings(20).await;
    device.signal(Signal::TERM);
    let ended = device.ended().await;
    assert_eq!(ended.status, Some(0), "{ended}");
    let metrics = soon("the metrics", metrics(node.admin)).await;
    assert!(metrics.contains("unhidra_bridge_devices_went_back_total 1\n"), "{metrics}");
    assert!(shown(&place).await.contains("state went back   once, last at 2"));
    node.stop().await;
    let shown = shown(&place).await;
    assert!(shown.contains("state went back   once, last at 2"), "{shown}");
    let said = Said::read(&place.path("report.jsonl"));
    assert_eq!(agree(&said.acknowledged, &place.rows().await), Ok(()));
    assert_eq!(said.sessions["pump-7"].len(), 2, "one at first, one that healed");
}

/// The device publishes for a while, and ends.
async fn run(place: &Place) {
    let device = place.simulate(&["pump-7"], OPTIONS).await;
    place.readings(20).await;
    device.signal(Signal::TERM);
    let ended = device.ended().await;
    assert_eq!(ended.status, Some(0), "{ended}");
}

/// What the node shows of the device, running or not.
async fn shown(place: &Place) -> String {
    place.done("device show pump-7 --data node").await
}

async fn metrics(admin: SocketAddr) -> String {
    let mut peer = TcpStream::connect(admin).await.expect("the admin port answers");
    peer.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.expect("it reads");
    let mut answer = String::new();
    peer.read_to_string(&mut answer).await.expect("it answers");
    answer
}
