//! `unhidra demo` with an end: its ledgers agree, and turn it to 1 where they do not.

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_websockets::{ClientBuilder, Message, ServerBuilder};
use unhidra_core::ids::{DeviceId, Offset};
use unhidra_node::config::{Purpose, Sources};
use unhidra_store::{Embedded, Keys, Store};
use unhidra_tests::process::{Ended, FREE_PORTS, Place};

/// The line of JSON with which it ends.
fn summary(ended: &Ended) -> Value {
    let line = ended.out.lines().find(|line| line.contains("\"summary\"")).unwrap_or_else(|| panic!("{ended}"));
    serde_json::from_str(line).expect("the summary is JSON")
}

#[tokio::test]
async fn it_ends_with_0_and_with_1_once_a_row_it_acknowledged_is_gone() {
    let place = Place::new();
    let demo = format!("demo --json --data demo {FREE_PORTS} --devices 3 --rate 5");
    let ended = place.run(&format!("{demo} --seconds 3")).await;
    assert_eq!(ended.status, Some(0), "{ended}");
    let said = summary(&ended);
    assert_eq!((&said["ok"], &said["lost"], &said["doubled"]), (&true.into(), &0.into(), &0.into()), "{ended}");
    let published = said["published"].as_u64().unwrap_or_default();
    // 3 devices, 5 a second, 3 seconds, and the first of each; a busy machine may owe some.
    assert!(published >= 20, "{ended}");
    for ledger in ["acknowledged", "stored", "received"] {
        assert_eq!(said[ledger], published, "{ledger}: {ended}");
    }
    assert!(said["p50_ms"].as_u64() <= said["p99_ms"].as_u64() && said["p99_ms"].as_u64() <= said["max_ms"].as_u64());

    lose_a_row(&place, "sensor-02").await;
    let ended = place.run(&format!("{demo} --seconds 1")).await;
    assert_eq!(ended.status, Some(1), "{ended}");
    let said = summary(&ended);
    assert_eq!((&said["ok"], &said["lost"], &said["doubled"]), (&false.into(), &1.into(), &0.into()), "{ended}");
    assert_eq!(said["faults"][0]["device"], "sensor-02", "{ended}");
    assert!(ended.err.contains("1 readings lost"), "{ended}");
}

/// Deletes a device's first row from the demo's store.
async fn lose_a_row(place: &Place, device: &str) {
    let rows = place.done(&format!("export {device} --json --data demo")).await;
    let first: Value = serde_json::from_str(rows.lines().next().unwrap_or_default()).expect("a row");
    let offset = Offset::new(first["offset"].as_u64().expect("an offset"));
    let nothing = Sources { purpose: Purpose::Demo, file: None, set: Vec::new(), data: None, log_format: None };
    let config = nothing.load().expect("the defaults are good").config;
    let store = Embedded::open(&place.path("demo/store"), &config.store, Keys::Plain).expect("the store opens");
    assert!(store.delete_row(&DeviceId::parse(device).expect("an id"), offset).expect("the store is written"));
    store.close().await;
}

#[tokio::test]
async fn it_ends_with_1_where_a_frame_comes_twice() {
    let place = Place::new();
    // The proxy listens before the gateway behind it has its port.
    let gateway = TcpListener::bind("127.0.0.1:0").await.and_then(|free| free.local_addr()).expect("a port");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let through = listener.local_addr().expect("an address");
    let proxy = tokio::spawn(async move {
        let (client, _) = listener.accept().await.expect("the demo dials");
        double(client, &gateway.to_string()).await
    });
    let demo = format!("demo --json --data demo {FREE_PORTS} --set gateway.listen={gateway}");
    let ended = place.run(&format!("{demo} --devices 2 --rate 5 --seconds 1 --through http://{through}")).await;
    assert_eq!(ended.status, Some(1), "{ended}");
    let said = summary(&ended);
    let doubled = proxy.await.expect("the proxy ends with its client");
    assert!(doubled > 0);
    assert_eq!((&said["lost"], &said["doubled"]), (&0.into(), &doubled.into()), "{ended}");
    assert_eq!(said["faults"][0]["fault"], "received more than once", "{ended}");
    assert!(ended.err.contains(&format!("{doubled} doubled")), "{ended}");
}

/// Stands between a client and the gateway, and hands the first frame of readings on twice. Gives
/// how many readings that frame held.
async fn double(client: TcpStream, gateway: &str) -> usize {
    let (_, mut client) = ServerBuilder::new().accept(client).await.expect("the client speaks WebSocket");
    let server = TcpStream::connect(gateway).await.expect("the gateway listens");
    let builder = ClientBuilder::new().uri(&format!("ws://{gateway}/v1/ws")).expect("a URL");
    let (mut server, _) = builder.connect_on(server).await.expect("the gateway speaks WebSocket");
    let mut doubled = 0;
    loop {
        // Whoever ends first ends it for both; what was handed on is all that counts.
        tokio::select! {
            said = client.next() => match said {
                Some(Ok(said)) if server.send(said.clone()).await.is_ok() => {}
                _ => return doubled,
            },
            answer = server.next() => match answer {
                Some(Ok(answer)) => {
                    let readings = if doubled == 0 { readings_in(&answer) } else { 0 };
                    if readings > 0 && client.send(answer.clone()).await.is_ok() {
                        doubled = readings;
                    }
                    if client.send(answer).await.is_err() {
                        return doubled;
                    }
                }
                _ => return doubled,
            },
        }
    }
}

fn readings_in(message: &Message) -> usize {
    let frame: Value = message.as_text().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let is_reading = |row: &&Value| row["kind"] == "reading";
    frame["readings"].as_array().map_or(0, |rows| rows.iter().filter(is_reading).count())
}
