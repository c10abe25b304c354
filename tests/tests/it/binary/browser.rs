//! The console in a browser: Chromium without a screen, driven by `tests/browser/console.mjs` before a node that serves
//! devices, and by `tests/browser/faults.mjs` before one that is played.

use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;
use tokio::process::Command;
use unhidra_tests::process::{FREE_PORTS, PATIENCE, Place, Process, kept};

use super::ledger::{journal, stored};

#[tokio::test]
async fn the_console_shows_what_a_device_publishes_and_what_becomes_of_a_command() {
    let place = Place::new();
    let demo = place.node_on("demo", &format!("demo {FREE_PORTS} --rate 5")).await;
    let url = demo.ready["console"].as_str().expect("the console's address");
    let device = demo.ready["devices"][1].as_str().expect("a device").to_owned();
    let folder = place.path(&format!("demo/devices/{device}.device"));

    let driver = drive(url, &device, &folder.join("journal.jsonl"));
    let ended = driver.ended().await;
    assert_eq!(ended.status, Some(0), "{ended}");
    let seen: Value = serde_json::from_str(ended.out.trim()).unwrap_or_else(|error| panic!("{error}: {ended}"));
    demo.process.signal(Signal::TERM);
    let demo = demo.process.ended().await;
    assert_eq!(demo.status, Some(0), "{demo}");

    // The value on the page is that of the body the device journaled, and the store holds.
    let n = seen["n"].as_u64().expect("a number");
    assert!(Some(n) > seen["held"].as_u64(), "{seen}");
    let entry = journal(&folder).into_iter().find(|entry| entry.n == n).expect("it is in the journal");
    let exported = place.done(&format!("export {device} --json --data demo")).await;
    let rows: Vec<Value> = exported.lines().map(|line| serde_json::from_str(line).expect("a row is JSON")).collect();
    assert_eq!(stored(&rows).get(&(device, n, entry.sha256)), Some(&1));
    let offset: Value = seen["offset"].as_str().and_then(|offset| offset.parse().ok()).expect("an offset");
    let row = rows.iter().find(|row| row["offset"] == offset);
    let body = row.and_then(|row| row["text"].as_str()).expect("a body");
    let body: Value = serde_json::from_str(body).expect("it is JSON");
    assert_eq!(body["n"], n, "{body}");
    let number = seen["value"].as_str().and_then(|value| value.split_whitespace().next()?.parse::<f64>().ok());
    let (shown, value) = (number.expect("a number is shown"), body["v"].as_f64().expect("a value"));
    assert!((shown - value).abs() < 0.05, "{seen} shows {body}");
}

#[tokio::test]
async fn the_console_and_the_documented_client_keep_their_word_before_a_node_that_fails() {
    let gateway = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway");
    let mut command = script("faults.mjs");
    command.arg(gateway.join("src/console")).arg(gateway.join("PROTOCOL.md"));
    let ended = Process::start("node faults.mjs", command).ended_within(4 * PATIENCE).await;
    assert_eq!(ended.status, Some(0), "{ended}");
}

/// Starts the browser and what drives it.
fn drive(url: &str, device: &str, journal: &Path) -> Process {
    let mut command = script("console.mjs");
    command.args([url, device]).arg(journal).arg(kept("screenshots"));
    Process::start("node console.mjs", command)
}

/// A script of `tests/browser`, which drives Chromium.
fn script(name: &str) -> Command {
    let browser = Path::new(env!("CARGO_MANIFEST_DIR")).join("browser");
    let missing = "run `npm ci` in tests/browser and install chromium, or run tests/run, which does";
    assert!(browser.join("node_modules/playwright-core").is_dir(), "playwright-core is missing; {missing}");
    let mut command = Command::new("node");
    command.arg(browser.join(name));
    command
}
