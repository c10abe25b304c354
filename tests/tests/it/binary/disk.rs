//! Disks that are full, or read-only, or whose sync fails: nothing is acknowledged that is not on
//! them, and the node goes on by itself once it can.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use unhidra_tests::account::{Said, agree};
use unhidra_tests::power::recorder;
use unhidra_tests::process::{FREE_PORTS, Node, Place, Process};

const DEVICES: [&str; 5] = ["d-1", "d-2", "d-3", "d-4", "d-5"];

/// A sync that fails once: the node says so, writes anew what may not be on the disk, and goes on, in
/// the same process and the same sessions. So many devices say so much that readings wait behind those of the
/// commit that fails, in the node and on their way to it: they come again, and are stored in their order.
#[tokio::test]
async fn after_a_sync_that_failed_once_the_node_goes_on_and_nothing_is_lost_or_doubled() {
    let (place, node) = faulty("UNHIDRA_FAIL_SYNC", "fail").await;
    let many: Vec<String> = (1..=30).map(|n| format!("d-{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let load = Load::of(place, &many, 30).await;
    for round in 1..=3 {
        load.place.write("fail", "");
        let said = node.process.logs_again("a commit failed", round).await;
        // The sync of a commit, or one of the engine's own of what it writes out.
        assert!(said.contains("Input/output error") || said.contains("a thread of the engine's own"), "{said}");
        node.process.logs_again("the store serves again", round).await;
        load.place.readings(600).await;
    }
    assert_eq!(readiness(&node).await, "200");
    load.end(node).await;
}

/// A disk that becomes read-only, as one does after an error of its own: the node is not ready and says
/// why, acknowledges nothing, and goes on once it may write.
#[tokio::test]
async fn a_node_on_a_disk_that_became_read_only_goes_on_once_it_may_write() {
    let (place, node) = faulty("UNHIDRA_READ_ONLY", "read-only").await;
    let load = Load::begin(place).await;
    load.place.write("read-only", "");
    node.process.logs("a commit failed").await;
    node.process.logs("Read-only file system").await;
    assert_eq!(readiness(&node).await, "503");
    let before = load.acknowledged_in_the_end().await;
    fs::remove_file(load.place.path("read-only")).expect("it is there");
    node.process.logs("the store serves again").await;
    load.place.readings(20).await;
    assert_eq!(readiness(&node).await, "200");
    assert!(load.said().acknowledged.len() > before, "it goes on");
    load.end(node).await;
}

/// A node under the recorder, whose disk fails while a file is there.
async fn faulty(key: &'static str, file: &str) -> (Place, Node) {
    let mut place = Place::new().with_data("disk/node");
    fs::create_dir(place.path("disk")).expect("the test's folder is writable");
    place.set_environment(failing(&place, "disk", key, file));
    let node = place.node(&format!("run {FREE_PORTS} {SMALL}")).await;
    place.set_environment(Vec::new());
    (place, node)
}

/// The environment of a process under the recorder, for which the disk that `folder` lies on fails while `file`
/// is there, in the way of `key`.
pub(super) fn failing(place: &Place, folder: &str, key: &'static str, file: &str) -> Vec<(&'static str, PathBuf)> {
    vec![
        ("LD_PRELOAD", recorder()),
        ("UNHIDRA_RECORD_ROOT", place.path("").canonicalize().expect("it is there").join(folder)),
        ("UNHIDRA_RECORD_LOG", PathBuf::from("/dev/null")),
        (key, place.path(file)),
    ]
}

/// A full disk: the node is not ready and says why, acknowledges nothing, and goes on once there is
/// room.
#[tokio::test]
async fn a_node_on_a_full_disk_acknowledges_nothing_and_goes_on_once_there_is_room() {
    let place = Place::new().with_data("disk/node");
    let Some(disk) = Disk::mount(&place.path("disk"), "size=200m") else { return };
    let node = place.node(&format!("run {FREE_PORTS} {SMALL}")).await;
    let load = Load::begin(place).await;
    disk.fill();
    node.process.logs("a commit failed").await;
    node.process.logs("No space left on device").await;
    assert_eq!(readiness(&node).await, "503");
    let before = load.acknowledged_in_the_end().await;
    disk.make_room();
    node.process.logs("the store serves again").await;
    load.place.readings(20).await;
    assert_eq!(readiness(&node).await, "200");
    assert!(load.said().acknowledged.len() > before, "it goes on");
    load.end(node).await;
}

/// A node that is started where it cannot write says so and ends.
#[tokio::test]
async fn a_node_is_not_started_on_a_read_only_disk_and_says_so() {
    let place = Place::new().with_data("disk/node");
    let Some(disk) = Disk::mount(&place.path("disk"), "size=200m") else { return };
    place.node(&format!("run {FREE_PORTS}")).await.stop().await;
    assert!(disk.remount("ro"), "nothing is open there");
    let ended = place.run(&format!("run {FREE_PORTS} --data disk/node")).await;
    assert_eq!(ended.status, Some(1), "{ended}");
    assert!(ended.err.contains("Read-only file system") && ended.err.contains("disk/node"), "{ended}");
}

/// Tables are written out within seconds.
const SMALL: &str = "--set store.memtable_bytes=65536 --set store.readings_memtable_bytes=65536 --set store.sessions_memtable_bytes=65536";

/// Devices that publish, and their report.
struct Load {
    place: Place,
    devices: Process,
}

const REPORT: &str = "report.jsonl";

impl Load {
    async fn begin(place: Place) -> Self {
        Self::of(place, &DEVICES, 20).await
    }

    /// These devices, each with so many readings a second.
    async fn of(place: Place, devices: &[&str], rate: u32) -> Self {
        place.enroll_all(devices).await;
        let devices = place.simulate(devices, &format!("--rate {rate} --report {REPORT} --retry-max 300")).await;
        place.readings(30).await;
        Self { place, devices }
    }

    fn said(&self) -> Said {
        Said::read(&self.place.path(REPORT))
    }

    /// How much was acknowledged, once every outbox is full and nothing comes any more: held-back
    /// readings are not in the report, so it stands still.
    async fn acknowledged_in_the_end(&self) -> usize {
        let mut before = self.said();
        loop {
            // What is awaited is that nothing happens, and only time shows that.
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            let now = self.said();
            if (now.published, now.acknowledged.len()) == (before.published, before.acknowledged.len()) {
                return now.acknowledged.len();
            }
            before = now;
        }
    }

    /// Ends it all: everything that was published is acknowledged and stored once and in order, and no
    /// device needed another session.
    async fn end(self, node: Node) {
        self.devices.signal(Signal::TERM);
        let ended = self.devices.ended().await;
        assert_eq!(ended.status, Some(0), "{ended}");
        node.stop().await;
        let said = Said::read(&self.place.path(REPORT));
        assert_eq!(agree(&said.acknowledged, &self.place.rows().await), Ok(()));
        assert_eq!(said.acknowledged.len(), said.published, "all is acknowledged in the end");
        assert_eq!(said.resets(), []);
    }
}

/// The status `/readyz` answers with.
async fn readiness(node: &Node) -> String {
    let mut peer = TcpStream::connect(node.admin).await.expect("the admin port answers");
    peer.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.expect("it reads");
    let mut answer = String::new();
    peer.read_to_string(&mut answer).await.expect("it answers");
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

/// A small file system of its own, gone when the test ends.
struct Disk {
    path: PathBuf,
}

impl Disk {
    /// None, said aloud, where nothing may be mounted.
    fn mount(path: &Path, options: &str) -> Option<Self> {
        fs::create_dir(path).expect("the test's folder is writable");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(path).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { path: path.to_owned() }),
            refused => {
                eprintln!("SKIPPED: a file system of one's own needs root and the right to mount: {refused:?}");
                None
            }
        }
    }

    fn remount(&self, mode: &str) -> bool {
        let output = Command::new("mount").args(["-o", &format!("remount,{mode}")]).arg(&self.path).output();
        output.expect("mount was there before").status.success()
    }

    /// Until nothing more fits.
    fn fill(&self) {
        let mut ballast = File::create(self.path.join("ballast")).expect("there is room still");
        for len in [1 << 20, 4096, 1] {
            while ballast.write_all(&vec![1; len]).is_ok() {}
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.path.join("ballast")).expect("it is there");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still has files open there keeps it alive until they are closed.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
