//! Readings out: to Mosquitto's clients under a rule, to another broker that is killed, to a webhook
//! that misbehaves, from a node that is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use rustix::process::Signal;
use serde_json::Value;
use unhidra_tests::process::{FREE_PORTS, Place, Process};

use super::hook::{Answer, Hook, SECRET};
use super::plain::plain_node_with;

/// The ids of all readings a node's log holds, in its order.
pub(super) async fn ids(place: &Place, epoch: &str) -> Vec<String> {
    let rows = place.rows().await;
    let readings = rows.iter().filter(|row| row["kind"] == "reading");
    readings.map(|row| format!("{epoch}.{}.{}", row["partition"], row["offset"])).collect()
}

/// The life of a log, from a row that was sent.
pub(super) fn epoch(row: &Value) -> String {
    let id = row["id"].as_str().expect("a row has an id");
    id.split_once('.').expect("EPOCH.PARTITION.OFFSET").0.to_owned()
}

/// Holds what came to the promise: every row of `expected` at least once, for each device in order as
/// far as it came for the first time, and nothing else. Gives how many came again.
pub(super) fn hold(came: &[Value], expected: &[String]) -> usize {
    hold_behind(0, came, expected)
}

/// The same, where the first `forgotten` rows may be missing: the other side has acknowledged so many and was killed,
/// and keeps what it has acknowledged in memory for a moment.
fn hold_behind(forgotten: usize, came: &[Value], expected: &[String]) -> usize {
    let mut seen = BTreeSet::new();
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    let mut again = 0;
    for row in came {
        let id = row["id"].as_str().expect("a row has an id").to_owned();
        if !seen.insert(id) {
            again += 1;
            continue;
        }
        let device = row["device"].as_str().expect("a row has a device").to_owned();
        let offset = row["offset"].as_u64().expect("a row has an offset");
        let before = last.insert(device, offset).unwrap_or_default();
        assert!(before < offset, "{row} comes behind {before}");
    }
    let missing = expected.iter().skip(forgotten).filter(|id| !seen.contains(*id));
    let other: Vec<&String> = seen.iter().filter(|id| !expected.contains(id)).chain(missing).collect();
    assert!(other.is_empty(), "{} came, {} were stored; not in both: {other:?}", seen.len(), expected.len());
    again
}

pub(super) fn client(place: &Place, program: &str, port: u16, line: &str) -> Process {
    let mut command = place.program(program, "mosquitto-clients");
    command.args(["-h", "127.0.0.1", "-p", &port.to_string()]).args(line.split_whitespace());
    Process::start(&format!("{program} {line}"), command)
}

/// Ends devices that publish until they are told, and returns once they have waited for what is not acknowledged.
pub(super) async fn end(devices: Process) {
    devices.signal(Signal::INT);
    let ended = devices.ended().await;
    assert_eq!(ended.status, Some(0), "{ended}");
}

pub(super) fn secret(place: &Place) {
    place.write("secret", SECRET);
    let owner = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o600);
    std::fs::set_permissions(place.path("secret"), owner).expect("the test's file");
}

#[tokio::test]
async fn readings_are_shown_to_those_a_rule_lets_and_to_nobody_else() {
    let place = Place::new();
    place.write(
        "acl.toml",
        "[[rule]]\nallow = \"subscribe\"\nclient_id = \"reader\"\ntopics = [\"{p}/readings/+/temperature\"]\n",
    );
    let options = "--set acl.file=acl.toml --set outlets.here.kind=local --set outlets.here.retain=true";
    let (node, port) = plain_node_with(&place, options).await;
    node.process.logs("IN THE CLEAR").await;
    place.enroll("pump-7").await;
    let reader = client(
        &place,
        "mosquitto_sub",
        port.port(),
        "-d -V 5 -i reader -q 1 -t unhidra/readings/+/temperature -F got:%t:%q:%p",
    );
    reader.prints("Subscribed (mid: 1): 1").await;
    let stranger = client(
        &place,
        "mosquitto_sub",
        port.port(),
        "-d -V 5 -i stranger -q 1 -t # -t unhidra/readings/# -t unhidra/readings/pump-7/temperature -F got:%t:%p",
    );
    stranger.prints("Subscribed (mid: 1): 1, 135, 135").await;
    let devices = place.simulate(&["pump-7"], "--rate 20").await;
    place.readings(40).await;
    end(devices).await;

    let stored = place.rows().await;
    let wanted = stored.iter().filter(|row| row["name"] == "temperature").map(|row| row["offset"].clone());
    let wanted: Vec<Value> = wanted.collect();
    assert!(wanted.len() > 10, "{} rows", wanted.len());
    let last = wanted.last().cloned().unwrap_or_default();
    reader.prints(&format!("\"offset\":{last},")).await;
    reader.signal(Signal::TERM);
    let heard = reader.ended().await;
    let rows: Vec<Value> = heard
        .out
        .lines()
        .filter_map(|line| line.strip_prefix("got:unhidra/readings/pump-7/temperature:1:"))
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let offsets: Vec<Value> = rows.iter().map(|row| row["offset"].clone()).collect();
    assert_eq!(offsets, wanted, "each once, in order");
    assert!(rows[0]["json"]["value"].is_number() || rows[0]["json"].is_object(), "{}", rows[0]);

    // The stranger has seen what is open to it, and no reading; what is retained neither.
    let said = client(&place, "mosquitto_pub", port.port(), "-V 5 -q 1 -t site/end -m end").ended().await;
    assert_eq!(said.status, Some(0), "{said}");
    stranger.prints("got:site/end:end").await;
    stranger.signal(Signal::TERM);
    let seen = stranger.ended().await;
    assert!(!seen.out.contains("got:unhidra/"), "{seen}");
    let late = client(&place, "mosquitto_sub", port.port(), "-V 5 -i late -q 1 -t # -W 2 -F got:%t").ended().await;
    assert!(!late.out.contains("readings"), "{late}");
    let kept = "-V 5 -i reader -q 1 -t unhidra/readings/+/temperature -C 1 -F got:%r:%p";
    let kept = client(&place, "mosquitto_sub", port.port(), kept).ended().await;
    assert!(kept.out.contains("got:1:") && kept.out.contains(&format!("\"offset\":{last},")), "{kept}");
    node.stop().await;

    // Once no outlet retains any more, nothing of it is left.
    let (node, port) = plain_node_with(&place, "--set acl.file=acl.toml --set outlets.here.kind=local").await;
    let gone = "-V 5 -i reader -q 1 -t unhidra/readings/+/temperature -W 2 -F got:%r:%p";
    let gone = client(&place, "mosquitto_sub", port.port(), gone).ended().await;
    assert!(!gone.out.contains("got:"), "{gone}");
    // What goes to nobody is told, and counted.
    let server = node.ready["mqtt"].as_str().expect("an address");
    let devices = place.simulate(&["pump-7"], &format!("--server {server} --rate 20 --seconds 1")).await;
    let _ = devices.ended().await;
    node.process.logs("nobody subscribed to these rows").await;
    let shown: Value = serde_json::from_str(&place.done("outlets --json --data node").await).expect("JSON");
    assert!(shown["unread"].as_u64() > Some(0) && shown["unread"] == shown["delivered"], "{shown}");
    node.stop().await;
}

/// Starts Mosquitto on a port, once it listens.
async fn mosquitto(place: &Place, port: u16) -> Process {
    mosquitto_with(place, port, "").await
}

/// The same with further lines of its configuration for the listener.
pub(super) async fn mosquitto_with(place: &Place, port: u16, lines: &str) -> Process {
    place.write(
        "mosquitto.conf",
        format!(
            "listener {port} 127.0.0.1\n{lines}allow_anonymous true\npersistence true\npersistence_location {}/\n\
             autosave_interval 1\nautosave_on_changes true\nmax_inflight_messages 0\nmax_queued_messages 0\n\
             log_dest stderr\nlog_type all\nuser root\n",
            place.path("").display()
        ),
    );
    let mut command = place.program("mosquitto", "mosquitto");
    command.args(["-c", "mosquitto.conf"]);
    let process = Process::start("mosquitto", command);
    process.logs("running").await;
    process
}

pub(super) async fn free_port() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("an address").port()
}

#[tokio::test]
async fn a_broker_that_is_killed_and_comes_back_gets_every_reading_in_order() {
    let place = Place::new();
    let port = free_port().await;
    let broker = mosquitto(&place, port).await;
    let subscribe = "-d -V 5 -c -x 600 -i keeper -q 1 -t plant/# -F got:%p";
    let keeper = client(&place, "mosquitto_sub", port, subscribe);
    keeper.prints("Subscribed (mid: 1): 1").await;
    let options = format!(
        "--set outlets.out.kind=mqtt --set outlets.out.url=mqtt://127.0.0.1:{port} --set outlets.out.batch_rows=16 \
         --set outlets.out.topic=plant/{{device}}/{{name}} --set outlets.out.retry_max_s=1"
    );
    let node = place.node(&format!("run {FREE_PORTS} {options}")).await;
    for device in ["pump-7", "pump-8"] {
        place.enroll(device).await;
    }
    let devices = place.simulate(&["pump-7", "pump-8"], "--rate 50").await;
    let first = keeper.prints("got:").await;
    place.readings(100).await;
    broker.signal(Signal::KILL);
    let killed = broker.ended().await;
    let acknowledged = killed.err.lines().filter(|line| line.contains("Sending PUBACK to")).count();
    node.process.logs("rows were not taken").await;
    place.readings(100).await;
    let broker = mosquitto(&place, port).await;
    place.readings(100).await;
    end(devices).await;
    let first: Value = serde_json::from_str(first.trim_start_matches("got:")).expect("JSON");
    let expected = ids(&place, &epoch(&first)).await;
    assert!(expected.len() >= 300, "{}", expected.len());
    keeper.prints(expected.last().expect("rows")).await;
    let shown = place.done("outlets --data node").await;
    keeper.signal(Signal::TERM);
    let heard = keeper.ended().await;
    let came: Vec<Value> = heard
        .out
        .lines()
        .filter_map(|line| line.strip_prefix("got:"))
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let again = hold_behind(acknowledged, &came, &expected);
    println!("{} rows, {again} of them twice\n{shown}", expected.len());
    assert!(again < 200, "{again} came twice");
    assert!(shown.contains("mqtt://127.0.0.1") && shown.contains("closed"), "{shown}");
    node.stop().await;
    drop(broker);
}

fn webhook(address: SocketAddr) -> String {
    format!(
        "--set outlets.hook.kind=webhook --set outlets.hook.url=http://{address}/in --set \
         outlets.hook.secret_file=secret --set outlets.hook.batch_rows=20 --set outlets.hook.timeout_s=1 --set \
         outlets.hook.retry_max_s=1 --set outlets.hook.refusals_max=2"
    )
}

#[tokio::test]
async fn a_webhook_that_fails_hangs_and_refuses_one_row_gets_all_the_others() {
    let place = Place::new();
    secret(&place);
    let poisoned = |rows: &[Value]| rows.iter().any(|row| row["offset"] == 33);
    let script = move |number: usize, rows: &[Value]| match number {
        2 => Answer::Status(500, ""),
        3 => Answer::Close,
        4 => Answer::Hang,
        5 => Answer::Status(429, "Retry-After: 1\r\n"),
        6 => Answer::Status(307, "Location: http://127.0.0.1:1/\r\n"),
        _ if poisoned(rows) => Answer::Status(422, ""),
        _ => Answer::Status(204, ""),
    };
    let any = "127.0.0.1:0".parse().expect("an address");
    let hook = Hook::start(any, Box::new(script)).await;
    let address = hook.address;
    let node = place.node(&format!("run {FREE_PORTS} {}", webhook(address))).await;
    place.enroll("pump-7").await;
    let devices = place.simulate(&["pump-7"], "--rate 40").await;
    hook.rows(100).await;
    assert!(hook.requests() > 12, "{} requests", hook.requests());
    let first = hook.has(&[]).await;
    let epoch = epoch(&first[0]);
    // It goes, and comes back on the same port; what came while it was away waits.
    let mut came = hook.stop().await;
    place.readings(40).await;
    let hook = Hook::start(address, Box::new(move |_, _| Answer::Status(200, ""))).await;
    end(devices).await;

    let mut expected = ids(&place, &epoch).await;
    let bad = expected.iter().find(|id| id.ends_with(".33")).cloned().expect("the row that is refused");
    expected.retain(|id| *id != bad);
    let last = expected.last().cloned().into_iter().collect::<Vec<_>>();
    came.extend(hook.has(&last).await);
    let again = hold(&came, &expected);
    println!("{} rows, {again} of them twice, {} requests", expected.len(), hook.requests());
    node.process.logs(&format!("row=\"{bad}\"")).await;
    let shown = place.done("outlets --json --data node").await;
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!((&shown["left_behind"], &shown["missing"]), (&Value::from(1), &Value::from(0)), "{shown}");
    assert_eq!(shown["delivered"], Value::from(expected.len()), "{shown}");
    node.stop().await;
}

#[tokio::test]
async fn a_node_that_is_killed_goes_on_behind_its_cursor() {
    let place = Place::new();
    secret(&place);
    let any = "127.0.0.1:0".parse().expect("an address");
    let hook = Hook::start(any, Box::new(|_, _| Answer::Status(200, ""))).await;
    let options = webhook(hook.address);
    let mut node = place.node(&format!("run {FREE_PORTS} {options}")).await;
    let ports = node.ports();
    place.enroll("pump-7").await;
    let devices = place.simulate(&["pump-7"], "--rate 100").await;
    for rows in [60, 460] {
        hook.rows(rows).await;
        node.process.signal(Signal::KILL);
        let _ = node.process.ended().await;
        node = place.node(&format!("run {ports} {options}")).await;
    }
    end(devices).await;
    let first = hook.has(&[]).await;
    let expected = ids(&place, &epoch(&first[0])).await;
    let came = hook.has(&expected).await;
    let again = hold(&came, &expected);
    println!("{} rows, {again} of them twice", expected.len());
    // A second's rows and a run, for each of the two kills; without a cursor all that had come before comes again.
    assert!(again <= 2 * (100 + 40), "{again} came twice");
    node.stop().await;
    let shown = place.done("outlets --data node").await;
    assert!(shown.contains("hook") && shown.contains("stopped"), "{shown}");
}
