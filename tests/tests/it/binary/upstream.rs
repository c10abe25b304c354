//! Devices behind a real mosquitto, which is stopped, killed, frozen and started again with and without
//! its memory.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use unhidra_certs::Authority;
use unhidra_core::time::Clock;
use unhidra_node::cli::simulate::journal::Entry;
use unhidra_node::clock::SystemClock;
use unhidra_tests::process::{FREE_PORTS, Node, Place, Process, soon};

use super::ledger;

/// A mosquitto with a listener for devices, who show their certificates, and one for the node.
pub(super) struct Mosquitto {
    devices: u16,
    pub(super) node: u16,
    /// What is said of the node's listener.
    lines: String,
    process: Option<Process>,
}

/// Whether mosquitto remembers sessions and messages when it begins again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Memory {
    Kept,
    Lost,
}

impl Mosquitto {
    /// Starts one. Its certificate for devices is of the node's development authority, as they want it;
    /// `lines` are of the node's listener.
    pub(super) async fn start(place: &Place, lines: &str) -> Self {
        let now = SystemClock::start().unix_now();
        let pki = place.path("node/pki");
        let authority = Authority::load(&pki.join("ca.pem"), &pki.join("ca.key")).expect("the node's authority");
        let names = ["localhost", "127.0.0.1"].map(|name| name.parse().expect("a name"));
        let own = authority.issue_node(&names, Duration::from_secs(86_400), now).expect("a certificate");
        place.write("mosquitto.pem", own.certificate.to_pem());
        place.write("mosquitto.key", own.key.to_pem().expect("a key").as_bytes());
        std::fs::create_dir(place.path("memory")).expect("a folder");
        let mut mosquitto = Self { devices: free_port(), node: free_port(), lines: lines.to_owned(), process: None };
        mosquitto.begin(place, Memory::Kept).await;
        mosquitto
    }

    async fn begin(&mut self, place: &Place, memory: Memory) {
        let here = place.path("");
        let here = here.display();
        let text = format!(
            "per_listener_settings true\nuser root\nmax_queued_messages 100000\nmax_inflight_messages 20\n\
             persistence true\npersistence_location {here}memory/\nautosave_on_changes true\nautosave_interval 1\n\
             listener {} 127.0.0.1\n{}listener {} 127.0.0.1\ncafile {here}node/pki/ca.pem\n\
             certfile {here}mosquitto.pem\nkeyfile {here}mosquitto.key\nrequire_certificate true\n\
             allow_anonymous true\n",
            self.node, self.lines, self.devices
        );
        place.write("mosquitto.conf", text);
        if memory == Memory::Lost {
            forget(&place.path("memory"));
        }
        let mut command = place.program("mosquitto", "mosquitto");
        command.args(["-c", "mosquitto.conf"]);
        let process = Process::start("mosquitto", command);
        process.logs(" running").await;
        self.process = Some(process);
    }

    /// Devices that dial it.
    pub(super) async fn simulate(&self, place: &Place, devices: &[&str], options: &str) -> Process {
        place.simulate(devices, &format!("--server 127.0.0.1:{} {options}", self.devices)).await
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }

    /// Ends it, by a signal, and waits until it is gone.
    async fn end(&mut self, signal: Signal) {
        let process = self.process.take().expect("it runs");
        process.signal(signal);
        drop(process.ended().await);
    }

    /// The options with which a node comes to it.
    pub(super) fn options(&self) -> String {
        format!(
            "--set upstream.tls=false --set upstream.backoff_cap_s=1 \
             --set upstream.broker=[{{name=\"factory\",address=\"127.0.0.1:{}\"}}]",
            self.node
        )
    }
}

fn forget(folder: &Path) {
    for entry in std::fs::read_dir(folder).expect("its folder") {
        std::fs::remove_file(entry.expect("an entry").path()).expect("removed");
    }
}

pub(super) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("its address").port()
}

pub(super) const DEVICES: [&str; 3] = ["pump-1", "pump-2", "pump-3"];

/// A node that has enrolled the devices, and a mosquitto before it that both reach.
async fn behind(place: &Place) -> (Node, Mosquitto) {
    for device in DEVICES {
        place.enroll(device).await;
    }
    let mosquitto = Mosquitto::start(place, "allow_anonymous true\n").await;
    let node = place.node(&format!("run {FREE_PORTS} {}", mosquitto.options())).await;
    node.process.logs("an outside broker is reached").await;
    (node, mosquitto)
}

pub(super) async fn simulate(place: &Place, mosquitto: &Mosquitto, options: &str) -> Process {
    mosquitto.simulate(place, &DEVICES, options).await
}

/// Holds that what is stored came once and in order; gives the rows.
pub(super) async fn once_and_in_order(place: &Place) -> Vec<Value> {
    let rows = place.rows().await;
    for device in DEVICES {
        let readings = rows.iter().filter(|row| row["device"] == device && row["kind"] == "reading");
        let numbers: Vec<u64> = readings
            .filter_map(|row| serde_json::from_str::<Value>(row["text"].as_str()?).ok()?["n"].as_u64())
            .collect();
        assert!(!numbers.is_empty(), "{device} was heard");
        let sorted = numbers.is_sorted_by(|before, after| before < after);
        assert!(sorted, "{device}: {numbers:?}");
    }
    rows
}

pub(super) fn journals(place: &Place) -> Vec<Vec<Entry>> {
    DEVICES.iter().map(|device| ledger::journal(&place.path(device))).collect()
}

#[tokio::test]
async fn devices_behind_mosquitto_are_heard_and_get_commands() {
    let place = Place::new();
    let (node, mosquitto) = behind(&place).await;
    let devices = simulate(&place, &mosquitto, "--rate 5").await;
    place.readings(30).await;
    let done = place.run("send pump-2 identify --wait --json --data node").await;
    assert!(done.status == Some(0) && done.out.lines().last().is_some_and(|l| l.contains("\"done\"")), "{done}");
    let shown: Value = serde_json::from_str(&place.done("upstream --json --data node").await).expect("one object");
    assert_eq!((&shown["name"], &shown["state"]), (&"factory".into(), &"connected".into()), "{shown}");
    assert!(shown["opened"].as_u64() >= Some(30) && shown["sent"].as_u64() >= Some(1), "{shown}");
    devices.signal(Signal::INT);
    let ended = devices.ended().await;
    assert_eq!(ended.status, Some(0), "{ended}");
    // The last of them may be on their way from mosquitto still.
    let acknowledged = acknowledged(&journals(&place).concat());
    wait_for_rows(&place, acknowledged).await;
    node.stop().await;
    let rows = once_and_in_order(&place).await;
    assert!(ledger::nothing_is_lost_or_doubled(&journals(&place), &rows) >= 30);
}

#[tokio::test]
async fn a_mosquitto_that_remembers_loses_nothing_while_it_or_the_node_is_away() {
    let place = Place::new();
    let (node, mut mosquitto) = behind(&place).await;
    let devices = simulate(&place, &mosquitto, "--rate 20").await;
    place.readings(60).await;
    // Stopped, and begun again with what it had written down.
    mosquitto.end(Signal::TERM).await;
    mosquitto.begin(&place, Memory::Kept).await;
    node.process.logs_again("an outside broker is reached", 2).await;
    place.readings(60).await;
    // Frozen: the connection stands, and nobody is behind it. Every outbox gathers what nobody acknowledges.
    mosquitto.process().signal(Signal::STOP);
    until_journals(&place, "60 readings wait", |entries| entries.len() >= acknowledged(entries) + 60).await;
    mosquitto.process().signal(Signal::CONT);
    place.readings(60).await;
    // The node is away, and what comes meanwhile waits in mosquitto.
    let ports = node.ports();
    node.stop().await;
    let before = acknowledged(&journals(&place).concat());
    until_journals(&place, "mosquitto has 60 more", |entries| acknowledged(entries) >= before + 60).await;
    let node = place.node(&format!("run {ports} {}", mosquitto.options())).await;
    place.readings(60).await;
    // The node dies. What it had not acknowledged comes again, and what it had does not count twice.
    node.process.signal(Signal::KILL);
    drop(node.process.ended().await);
    let node = place.node(&format!("run {ports} {}", mosquitto.options())).await;
    place.readings(60).await;
    devices.signal(Signal::INT);
    let ended = devices.ended().await;
    assert_eq!(ended.status, Some(0), "{ended}");
    // The last of them may be on their way from mosquitto still.
    let acknowledged = acknowledged(&journals(&place).concat());
    wait_for_rows(&place, acknowledged).await;
    node.stop().await;
    let rows = once_and_in_order(&place).await;
    assert_eq!(ledger::nothing_is_lost_or_doubled(&journals(&place), &rows), acknowledged);
}

/// How many of these readings were acknowledged.
fn acknowledged(entries: &[Entry]) -> usize {
    entries.iter().filter(|entry| entry.acknowledged_at.is_some()).count()
}

/// Returns once the devices' journals, together, are as they are to be: `what`, for people.
async fn until_journals(place: &Place, what: &str, enough: impl Fn(&[Entry]) -> bool) {
    let reached = async {
        while !enough(&journals(place).concat()) {
            // Files tell nobody that they grow.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(what, reached).await;
}

/// Returns once the node stores so many readings.
pub(super) async fn wait_for_rows(place: &Place, count: usize) {
    let mut rows = count;
    loop {
        let line = format!("watch --json --since beginning --count {rows} --data node");
        let shown = unhidra_tests::process::rows(&place.done(&line).await);
        let readings = shown.iter().filter(|row| row["kind"] == "reading").count();
        if readings >= count {
            return;
        }
        // What else devices say are rows too: as many more are to come.
        rows += count - readings;
    }
}

#[tokio::test]
async fn a_mosquitto_that_forgets_costs_what_it_had_and_nothing_comes_twice_or_out_of_order() {
    let place = Place::new();
    let (node, mut mosquitto) = behind(&place).await;
    let devices = simulate(&place, &mosquitto, "--rate 20").await;
    let mut reached = 1;
    for (signal, memory) in [(Signal::KILL, Memory::Kept), (Signal::KILL, Memory::Lost), (Signal::TERM, Memory::Lost)] {
        place.readings(60).await;
        mosquitto.end(signal).await;
        mosquitto.begin(&place, memory).await;
        reached += 1;
        node.process.logs_again("an outside broker is reached", reached).await;
    }
    place.readings(60).await;
    // A device whose session there is gone is reached again once it has spoken.
    let done = place.run("send pump-3 identify --wait --json --data node").await;
    assert_eq!(done.status, Some(0), "{done}");
    devices.signal(Signal::INT);
    drop(devices.ended().await);
    node.stop().await;
    once_and_in_order(&place).await;
}
