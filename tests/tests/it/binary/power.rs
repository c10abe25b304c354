//! Power cuts: what was acknowledged is on the disk, not only in the system's memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinSet;
use unhidra_node::cli::simulate::journal::Entry;
use unhidra_node::cli::simulate::report::Line;
use unhidra_tests::account::{Said, agree};
use unhidra_tests::power::disk::{Disk, Image};
use unhidra_tests::power::recorder;
use unhidra_tests::power::recording::{self, Node, ROOT, Step};
use unhidra_tests::process::{FREE_PORTS, Place, Process, kept, rows};
use unhidra_tests::seed::{count, drawn};

const DEVICES: [&str; 12] = ["d-1", "d-2", "d-3", "d-4", "d-5", "d-6", "d-7", "d-8", "d-9", "d-10", "d-11", "d-12"];
const REPORT: &str = "report.jsonl";
/// Tables are written out within seconds.
const STORE: &str = "--set store.memtable_bytes=65536 --set store.readings_memtable_bytes=65536";

/// At `POWER_POINTS` moments (40) the power fails; whatever the disk then has of what was not synced,
/// the store opens, and every reading acknowledged until then is there, once and in order.
#[tokio::test]
async fn whatever_a_power_cut_leaves_every_acknowledged_reading_is_there_once() {
    let recorded = Recorded::of("").await;
    let points = count("POWER_POINTS", 40);
    let wrong = recorded.cut(points).await;
    assert!(wrong.is_empty(), "{} of {points} cuts:\n{}", wrong.len(), wrong.join("\n"));
}

/// The test can fail: where nothing is synced, the same cuts lose what was acknowledged.
#[tokio::test]
async fn without_syncs_a_power_cut_loses_what_was_acknowledged() {
    let wrong = Recorded::of("--set store.durability=none").await.cut(12).await;
    // Some lose what was acknowledged; others leave a hole before whole batches, and are refused.
    assert!(wrong.len() >= 3, "{} of 12 cuts went wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// What one run of node and devices did to the disk.
struct Recorded {
    place: Place,
    steps: Vec<Step>,
}

impl Recorded {
    /// A node under load, ended and started again in between, with other options.
    async fn of(options: &str) -> Self {
        let mut place = Place::new().with_data("disk/node");
        let root = place.path("");
        let root = root.canonicalize().expect("it is there").join("disk");
        std::fs::create_dir(&root).expect("the test's folder is writable");
        let log = place.path("recording");
        let recorder = recorder();
        // Devices' reports are recorded between what the node writes, so all of it stands in one order:
        // when a device says that a reading was acknowledged, whatever made it durable stands before. A sync
        // that takes longer than a message leaves no doubt about what was acknowledged too early.
        place.set_environment(vec![
            ("LD_PRELOAD", recorder),
            ("UNHIDRA_RECORD_ROOT", root.clone()),
            ("UNHIDRA_RECORD_LOG", log.clone()),
            ("UNHIDRA_SYNC_MS", PathBuf::from("3")),
        ]);
        let node = place.node(&format!("run {FREE_PORTS} {STORE} {options}")).await;
        let ports = node.ports();
        place.enroll_all(&DEVICES).await;
        let line = format!("--rate 25 --report disk/{REPORT} --retry-max 300");
        let devices = place.simulate(&DEVICES, &line).await;
        place.readings(600).await;
        node.stop().await;
        let node = place.node(&format!("run {ports} {STORE} {options}")).await;
        place.readings(600).await;
        devices.signal(rustix::process::Signal::TERM);
        let ended = devices.ended().await;
        assert_eq!(ended.status, Some(0), "{ended}");
        node.process.signal(rustix::process::Signal::KILL);
        node.process.ended().await;
        place.set_environment(Vec::new());

        let steps = recording::read(&log, &root);
        // Whoever wrote in another way than the recorder knows is found here.
        let mut disk = Disk::default();
        steps.iter().for_each(|step| disk.step(step));
        let whole = disk.whole(&mut StdRng::seed_from_u64(0));
        assert_eq!(whole.differs(&Image::of(&root)), Vec::<String>::new(), "the recording is not whole");
        Self { place, steps }
    }

    /// Cuts the power at so many moments, and gives what was wrong.
    async fn cut(&self, points: u64) -> Vec<String> {
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
                let folder = self.place.path(&format!("cut-{n}"));
                image.write(&folder);
                let export = self.place.unhidra(&format!("export --json --data cut-{n}/node"));
                let acknowledged = said.acknowledged.clone();
                running.spawn(async move {
                    let checked = check(Process::start("unhidra export", export), &acknowledged).await;
                    let of = acknowledged.len();
                    std::fs::remove_dir_all(folder).expect("the test's folder is writable");
                    checked.err().map(|cause| {
                        let failed = kept("power").join(format!("cut-{n}"));
                        image.write(&failed);
                        format!("after step {n}, {of} acknowledged, kept in {}: {cause}", failed.display())
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

    fn report(&self) -> Node {
        let made = self.steps.iter().find_map(|step| match step {
            Step::Made { node, slot, .. } if *slot == (ROOT, REPORT.to_owned()) => Some(*node),
            _ => None,
        });
        made.expect("the devices' report is recorded")
    }

    /// Half of them anywhere since the first acknowledgement, half of them just after one.
    fn moments(&self, points: u64, rng: &mut StdRng) -> BTreeSet<usize> {
        let report = self.report();
        let is_said = |step: &Step| matches!(step, Step::Written { node, data, .. } if *node == report && data.starts_with(br#"{"event":"acknowledged""#));
        let said: Vec<usize> = (0..self.steps.len()).filter(|n| is_said(&self.steps[*n])).collect();
        let first = *said.first().expect("something was acknowledged");
        let mut moments = BTreeSet::new();
        while (moments.len() as u64) < points {
            moments.insert(match rng.random() {
                true => rng.random_range(first..self.steps.len()),
                false => said[rng.random_range(0..said.len())],
            });
        }
        moments
    }
}

/// One cut's outcome.
fn joined(ended: Option<Result<Option<String>, tokio::task::JoinError>>) -> Option<String> {
    ended.and_then(|outcome| outcome.expect("a check does not panic"))
}

/// Holds an export against what was acknowledged.
async fn check(export: Process, acknowledged: &BTreeMap<(String, u64), Entry>) -> Result<(), String> {
    let ended = export.ended().await;
    if ended.status != Some(0) {
        return Err(ended.to_string());
    }
    agree(acknowledged, &rows(&ended.out)).map_err(|wrong| {
        let mut some = String::new();
        wrong.lines().take(5).for_each(|line| _ = writeln!(some, "{line}"));
        format!("{} wrong: {some}", wrong.lines().count())
    })
}
