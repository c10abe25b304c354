//! Power cuts: what was acknowledged is on the disk, not only in the system's memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::process::Command;
use tokio::task::JoinSet;
use unhidra_node::cli::simulate::journal::Entry;
use unhidra_node::cli::simulate::report::Line;
use unhidra_tests::account::{Said, agree};
use unhidra_tests::power::disk::{Disk, Image};
use unhidra_tests::power::recorder;
use unhidra_tests::power::recording::{self, Node, ROOT, Slot, Step};
use unhidra_tests::process::{FREE_PORTS, Place, Process, kept, rows};
use unhidra_tests::seed::{count, drawn};

const DEVICES: [&str; 12] = ["d-1", "d-2", "d-3", "d-4", "d-5", "d-6", "d-7", "d-8", "d-9", "d-10", "d-11", "d-12"];
const REPORT: &str = "report.jsonl";
const COMMAND: &str = "6c617374206f66207468652072756e21";
/// Tables are written out within seconds.
const STORE: &str = "--set store.partitions=2 --set store.memtable_bytes=65536 --set store.readings_memtable_bytes=65536 --set store.sessions_memtable_bytes=65536 --set store.linger_bytes=512";

/// At `POWER_POINTS` moments (40) the power fails; whatever the disk then has of what was not synced,
/// the store opens, and every reading acknowledged until then is there, once and in order.
#[tokio::test]
async fn whatever_a_power_cut_leaves_every_acknowledged_reading_is_there_once() {
    let recorded = Recorded::of("", Syncs::FailOnce).await;
    let points = count("POWER_POINTS", 40);
    let wrong = recorded.cut(points).await;
    assert!(wrong.is_empty(), "{} of {points} cuts:\n{}", wrong.len(), told(&wrong));
    recorded.goes_on_after_the_last_cut().await;
}

/// The test can fail: where nothing is synced, the same cuts lose what was acknowledged. Then each store
/// that opens knows that it may have gone back, and no session of it goes on.
#[tokio::test]
async fn without_syncs_a_power_cut_loses_what_was_acknowledged_and_is_noticed() {
    let recorded = Recorded::of("--set store.durability=none", Syncs::Hold).await;
    let wrong = recorded.cut(12).await;
    // Some lose what was acknowledged; others leave a hole before whole batches, and are refused.
    assert!(wrong.len() >= 3, "{} of 12 cuts went wrong:\n{}", wrong.len(), told(&wrong));
    let silent: Vec<Wrong> = wrong.into_iter().filter(|wrong| wrong.how == How::LostInSilence).collect();
    assert!(silent.is_empty(), "{} not noticed:\n{}", silent.len(), told(&silent));
    // Of a cut that takes all it can no journal tells.
    let how = recorded.cut_at_the_end().await.expect("something is lost").how;
    assert_eq!(how, How::LostAndNoticed);
}

/// A cut after which something is missing.
#[derive(Debug)]
struct Wrong {
    how: How,
    text: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum How {
    /// The store does not open.
    Refused,
    /// It opens, and what was acknowledged is missing. It is marked as one that went back.
    LostAndNoticed,
    /// It opens as if nothing were missing.
    LostInSilence,
}

fn told(wrong: &[Wrong]) -> String {
    wrong.iter().map(|wrong| format!("{:?}: {}\n", wrong.how, wrong.text)).collect()
}

/// Whether the disk does what it is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Syncs {
    Hold,
    /// One of a node that serves fails.
    FailOnce,
}

/// What one run of node and devices did to the disk.
struct Recorded {
    place: Place,
    steps: Vec<Step>,
    /// Where the node listened.
    ports: String,
}

impl Recorded {
    /// A node under load, whose keys change, ended and started again in between.
    async fn of(options: &str, syncs: Syncs) -> Self {
        let mut place = Place::new().with_data("disk/node");
        let root = place.path("");
        let root = root.canonicalize().expect("it is there").join("disk");
        std::fs::create_dir(&root).expect("the test's folder is writable");
        let log = place.path("recording");
        let recorder = recorder();
        // Devices' reports are recorded between what the node writes, so all of it stands in one order:
        // when a device says that a reading was acknowledged, whatever made it durable stands before. A sync
        // that takes longer than a message leaves no doubt about what was acknowledged too early.
        let recording = vec![
            ("LD_PRELOAD", recorder),
            ("UNHIDRA_RECORD_ROOT", root.clone()),
            ("UNHIDRA_RECORD_LOG", log.clone()),
            ("UNHIDRA_SYNC_MS", PathBuf::from("3")),
        ];
        place.set_environment([recording.clone(), vec![("UNHIDRA_FAIL_SYNC", place.path("fail"))]].concat());
        let node = place.node(&format!("run {FREE_PORTS} {STORE} {options}")).await;
        let ports = node.ports();
        place.set_environment(recording);
        place.enroll_all(&DEVICES).await;
        let line = format!("--rate 25 --report disk/{REPORT} --retry-max 300");
        let devices = place.simulate(&DEVICES, &line).await;
        place.readings(600).await;
        if syncs == Syncs::FailOnce {
            place.write("fail", "");
            node.process.logs("the store serves again").await;
            place.readings(300).await;
        }
        place.done("keys rotate --data disk/node").await;
        place.done("keys rewrap --data disk/node").await;
        place.readings(100).await;
        node.stop().await;
        let node = place.node(&format!("run {ports} {STORE} {options}")).await;
        place.readings(600).await;
        devices.signal(rustix::process::Signal::TERM);
        let ended = devices.ended().await;
        assert_eq!(ended.status, Some(0), "{ended}");
        // The last that anybody was told: no later sync of a reading makes it durable.
        let told = place.done(&format!("send d-1 identify --id {COMMAND} --json --data disk/node")).await;
        assert!(told.contains(r#""accepted""#), "{told}");
        node.process.signal(rustix::process::Signal::KILL);
        node.process.ended().await;
        place.set_environment(Vec::new());

        let steps = recording::read(&log, &root);
        // Whoever wrote in another way than the recorder knows is found here.
        let mut disk = Disk::default();
        steps.iter().for_each(|step| disk.step(step));
        let whole = disk.whole(&mut StdRng::seed_from_u64(0));
        assert_eq!(whole.differs(&Image::of(&root)), Vec::<String>::new(), "the recording is not whole");
        Self { place, steps, ports }
    }

    /// Cuts the power at so many moments, and gives what was wrong.
    async fn cut(&self, points: u64) -> Vec<Wrong> {
        let mut rng = drawn();
        let moments = self.moments(points, &mut rng);
        let report = self.report();
        let (mut disk, mut said) = (Disk::default(), Said::default());
        let (mut running, mut wrong) = (JoinSet::new(), Vec::new());
        for (n, step) in self.steps.iter().enumerate() {
            match step {
                Step::Written { node, data, .. } if *node == report => {
                    said.add(serde_json::from_slice::<Line>(data).expect("a line a write"));
                }
                step => disk.step(step),
            }
            if moments.contains(&n) {
                if running.len() == 2 {
                    wrong.extend(joined(running.join_next().await));
                }
                let image = disk.cut(&mut rng);
                let folder = self.written(&image, n);
                let (export, verify) = (self.export(n), self.verify(n));
                let acknowledged = said.acknowledged.clone();
                running.spawn(async move {
                    let checked = check(export, verify, &folder, &acknowledged).await;
                    let of = acknowledged.len();
                    std::fs::remove_dir_all(folder).expect("the test's folder is writable");
                    checked.err().map(|Wrong { how, text }| {
                        let failed = kept("power").join(format!("cut-{n}"));
                        image.write(&failed);
                        let text = format!("after step {n}, {of} acknowledged, kept in {}: {text}", failed.display());
                        Wrong { how, text }
                    })
                });
            }
        }
        while !running.is_empty() {
            wrong.extend(joined(running.join_next().await));
        }
        let synced = self.steps.iter().filter(|step| matches!(step, Step::SyncEnds { .. })).count();
        println!(
            "power: {points} cuts in {} steps and {synced} syncs, {} readings acknowledged, {} wrong",
            self.steps.len(),
            said.acknowledged.len(),
            wrong.len()
        );
        wrong
    }

    /// What is wrong where the power fails at the end of the recording, and nothing that was not synced
    /// is left.
    async fn cut_at_the_end(&self) -> Option<Wrong> {
        let report = self.report();
        let (mut disk, mut said) = (Disk::default(), Said::default());
        for step in &self.steps {
            match step {
                Step::Written { node, data, .. } if *node == report => {
                    said.add(serde_json::from_slice::<Line>(data).expect("a line a write"));
                }
                step => disk.step(step),
            }
        }
        let end = self.steps.len();
        let folder = self.written(&disk.least(&mut StdRng::seed_from_u64(0)), end);
        check(self.export(end), self.verify(end), &folder, &said.acknowledged).await.err()
    }

    /// The power fails at the end, and nothing that was not synced is left: node and devices go on in their
    /// sessions, and what was accepted last is carried out.
    async fn goes_on_after_the_last_cut(&self) {
        let wrong = self.cut_at_the_end().await;
        assert!(wrong.is_none(), "{wrong:?}");
        let data = format!("cut-{}/node", self.steps.len());
        let node = self.place.node_on(&data, &format!("run {} {STORE}", self.ports)).await;
        let devices = self.place.simulate(&DEVICES, "--rate 10 --report after.jsonl").await;
        self.place.done(&format!("watch --json --count 100 --data {data}")).await;
        let told = self.place.done(&format!("send d-1 identify --wait --json --data {data}")).await;
        assert!(told.contains(r#""done""#), "{told}");
        let commands = self.place.done(&format!("commands d-1 --json --data {data}")).await;
        let of_it = commands.lines().find(|line| line.contains(COMMAND)).expect("it was accepted");
        assert!(of_it.contains(r#""done""#), "{of_it}");
        devices.signal(rustix::process::Signal::TERM);
        let ended = devices.ended().await;
        assert_eq!(ended.status, Some(0), "{ended}");
        node.stop().await;
        let after = Said::read(&self.place.path("after.jsonl"));
        assert_eq!((after.sessions, after.refused), (BTreeMap::new(), 0), "they go on in the sessions they have");
        let rows = rows(&self.place.done(&format!("export --json --data {data}")).await);
        let all = self.said().acknowledged.into_iter().chain(after.acknowledged).collect();
        agree(&all, &rows).expect("nothing is lost or doubled");
    }

    /// What the devices said until the end of the recording.
    fn said(&self) -> Said {
        let report = self.report();
        let mut said = Said::default();
        for step in &self.steps {
            if let Step::Written { node, data, .. } = step
                && *node == report
            {
                said.add(serde_json::from_slice::<Line>(data).expect("a line a write"));
            }
        }
        said
    }

    /// Writes an image, as the system finds it when it is started again: this is another boot.
    fn written(&self, image: &Image, n: usize) -> PathBuf {
        let folder = self.place.path(&format!("cut-{n}"));
        image.write(&folder);
        let boot = folder.join("node/store/boot");
        if boot.exists() {
            std::fs::write(boot, "boot = 3f1f2c5e-5c1c-4b62-9a44-7d5c0b7f6a01\n")
                .expect("the test's folder is writable");
        }
        folder
    }

    fn export(&self, n: usize) -> Process {
        Process::start("unhidra export", self.place.unhidra(&format!("export --json --data cut-{n}/node")))
    }

    /// Which begins once the export has opened the store, and closed it.
    fn verify(&self, n: usize) -> Command {
        self.place.unhidra(&format!("store verify --data cut-{n}/node"))
    }

    fn report(&self) -> Node {
        let made = self.steps.iter().find_map(|step| match step {
            Step::Made { node, slot, .. } if *slot == (ROOT, REPORT.to_owned()) => Some(*node),
            _ => None,
        });
        made.expect("the devices' report is recorded")
    }

    /// While the mark of a partition in doubt is there.
    fn renewed(&self) -> Option<Range<usize>> {
        let is = |slot: &Slot| slot.1 == "unsynced";
        let made = |step: &Step| matches!(step, Step::Made { slot, .. } if is(slot));
        let removed = |step: &Step| matches!(step, Step::Removed { slot, .. } if is(slot));
        let begins = self.steps.iter().position(made)?;
        let ends = self.steps.iter().position(removed).expect("the node serves again");
        Some(begins..ends)
    }

    /// Some anywhere since the first acknowledgement, some just after one, and some while the node writes anew what
    /// a failed sync has put in doubt.
    fn moments(&self, points: u64, rng: &mut StdRng) -> BTreeSet<usize> {
        let report = self.report();
        let is_said = |step: &Step| matches!(step, Step::Written { node, data, .. } if *node == report && data.starts_with(br#"{"event":"acknowledged""#));
        let said: Vec<usize> = (0..self.steps.len()).filter(|n| is_said(&self.steps[*n])).collect();
        let first = *said.first().expect("something was acknowledged");
        let renewed = self.renewed();
        let mut moments = BTreeSet::new();
        while (moments.len() as u64) < points {
            moments.insert(match (rng.random_range(0..5), &renewed) {
                (0, Some(renewed)) => rng.random_range(renewed.clone()),
                (0..=2, _) => rng.random_range(first..self.steps.len()),
                _ => said[rng.random_range(0..said.len())],
            });
        }
        moments
    }
}

/// One cut's outcome.
fn joined(ended: Option<Result<Option<Wrong>, tokio::task::JoinError>>) -> Option<Wrong> {
    ended.and_then(|outcome| outcome.expect("a check does not panic"))
}

/// Holds an export against what was acknowledged.
async fn check(
    export: Process,
    verify: Command,
    folder: &Path,
    acknowledged: &BTreeMap<(String, u64), Entry>,
) -> Result<(), Wrong> {
    let ended = export.ended().await;
    if ended.status != Some(0) {
        return Err(Wrong { how: How::Refused, text: ended.to_string() });
    }
    agree(acknowledged, &rows(&ended.out)).map_err(|wrong| {
        let mut some = String::new();
        wrong.lines().take(5).for_each(|line| _ = writeln!(some, "{line}"));
        let format = std::fs::read_to_string(folder.join("node/store/format")).unwrap_or_default();
        let how = if format.contains("restored = yes") { How::LostAndNoticed } else { How::LostInSilence };
        Wrong { how, text: format!("{} wrong: {some}", wrong.lines().count()) }
    })?;
    // Sessions, commands and log beside the rows.
    let ended = Process::start("unhidra store verify", verify).ended().await;
    match ended.status {
        Some(0) => Ok(()),
        _ => Err(Wrong { how: How::LostInSilence, text: ended.to_string() }),
    }
}
