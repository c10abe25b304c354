//! Cases of devices that publish.

use std::error::Error;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Bench;
use super::drive::{Drive, Stretch};
use super::enrolment::Enrolled;
use super::report::{Report, Row};
use super::speaker::{BODY_LEN, Opaque, Speaker};
use super::stage::{Commits, Disk, Running};
use super::worker::{Client, DIALS_AT_ONCE, Load};
use super::{disk, worker};

/// How long everybody may take to come in, and to be done.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);
/// How long a load goes on before it is measured.
const WARM_UP: Duration = Duration::from_secs(2);

/// The goals of the floored disk, in readings a second.
const GOALS: [(usize, f64); 2] = [(1, 40_000.0), (8, 80_000.0)];

type Outcome = Result<(), Box<dyn Error>>;

impl Bench {
    /// Devices that seal, dealt out to threads.
    pub(super) fn sealing(&self, devices: &[Enrolled], threads: usize) -> Result<Vec<Vec<Client>>, String> {
        let now = unhidra_core::time::Timestamp::from_ms(self.epoch.elapsed().as_millis() as u64);
        let client = |device: &Enrolled| {
            Speaker::sealed(device, now).map(|speaker| Client::new(speaker, device.tls.clone(), true))
        };
        deal(devices, threads, client)
    }

    /// Everybody in, at one node.
    pub(super) fn all_in(&self, node: &Running) -> Result<Drive, Box<dyn Error>> {
        let groups = self.sealing(&self.devices[..self.count], self.threads)?;
        let drive = Drive::start(groups, node.mqtt, self.epoch)?;
        drive.dial(DIALS_AT_ONCE);
        drive.all_in(PATIENCE)?;
        Ok(drive)
    }

    /// Says which process is about to be measured.
    pub(super) fn say(&self, case: &str, node: &Running) {
        if self.verbose {
            eprintln!("{case}: pid {}", node.pid);
        }
    }

    /// A load, after it has gone on for a while.
    pub(super) fn stretch(&self, drive: &Drive, pid: u32, load: Load, length: Duration) -> Result<Stretch, String> {
        drive.load(load);
        std::thread::sleep(WARM_UP);
        drive.measure(pid, length)
    }

    fn durable(&self, report: &mut Report, case: &str, window: usize) -> Outcome {
        for disk in [Disk::Floored, Disk::Bare] {
            let node = self.stage.start(case, disk)?;
            self.say(case, &node);
            let drive = self.all_in(&node)?;
            drive.load(Load::Window(window));
            std::thread::sleep(WARM_UP);
            let commits = node.commits();
            let stretch = drive.measure(node.pid, self.length)?;
            let commits = commits_said(commits, node.commits(), &stretch);
            let notes = format!("{commits}; {:.1} bytes written a byte{}", written(&stretch), lost(&drive));
            report.row(&Row::of(case, disk.name(), &stretch, notes))?;
            if let (Disk::Floored, Some((_, goal))) = (disk, GOALS.iter().find(|(of, _)| *of == window)) {
                report.at_least(&format!("{case}, readings a second, syncs of 5 ms"), stretch.rate(), *goal);
            }
            drive.drained(PATIENCE)?;
        }
        Ok(())
    }
}

/// Deals out what becomes of each.
fn deal<T>(
    devices: &[Enrolled],
    threads: usize,
    of: impl Fn(&Enrolled) -> Result<T, String>,
) -> Result<Vec<Vec<T>>, String> {
    (0..threads).map(|first| devices.iter().skip(first).step_by(threads).map(&of).collect()).collect()
}

fn commits_said(before: Option<Commits>, after: Option<Commits>, stretch: &Stretch) -> String {
    let Some((before, after)) = before.zip(after) else { return String::new() };
    let commits = after.count.saturating_sub(before.count);
    let each = stretch.acknowledged as f64 / commits.max(1) as f64;
    let longest = after.longest_ms(&before).unwrap_or(f64::NAN);
    format!(
        "{:.0} commits a second, {each:.0} readings each, the longest within {longest:.0} ms",
        commits as f64 / stretch.seconds
    )
}

/// Bytes to the disk for each byte of reading.
fn written(stretch: &Stretch) -> f64 {
    stretch.written as f64 / (stretch.acknowledged.max(1) as f64 * BODY_LEN as f64)
}

/// What did not go as it should, for the last column.
fn lost(drive: &Drive) -> String {
    let of = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    let worker::Counts { refused, lost, skipped, .. } = &*drive.counts;
    match (of(refused), of(lost), of(skipped)) {
        (0, 0, 0) => String::new(),
        (refused, lost, skipped) => format!("; {refused} refused, {lost} connections lost, {skipped} skipped"),
    }
}

pub(super) fn durable_1(bench: &Bench, report: &mut Report) -> Outcome {
    bench.durable(report, "durable-1", 1)
}

pub(super) fn durable_8(bench: &Bench, report: &mut Report) -> Outcome {
    bench.durable(report, "durable-8", 8)
}

/// 1 000 readings a second over all devices, against what a sync took right before.
pub(super) fn puback(bench: &Bench, report: &mut Report) -> Outcome {
    let node = bench.stage.start("puback-1k", Disk::Bare)?;
    bench.say("puback-1k", &node);
    let drive = bench.all_in(&node)?;
    let syncs = disk::syncs(&bench.stage.folder, Duration::from_secs(2))?;
    drive.load(Load::Paced(1000.0));
    std::thread::sleep(WARM_UP);
    let commits = node.commits();
    let stretch = drive.measure(node.pid, bench.length.max(Duration::from_secs(10)))?;
    let notes = format!(
        "sync p50 {:.2} ms, p99 {:.2}, max {:.1}; {}{}",
        syncs.p50_ms,
        syncs.p99_ms,
        syncs.max_ms,
        commits_said(commits, node.commits(), &stretch),
        lost(&drive)
    );
    let row = Row::of("puback-1k", "bare", &stretch, notes);
    report.row(&row)?;
    let sync = syncs.p50_ms;
    report.at_most("puback-1k, p50 ms (1.5 syncs + 1)", row.p50_ms.unwrap_or(f64::MAX), 1.5 * sync + 1.0);
    report.at_most("puback-1k, p99 ms (3 syncs + 3)", row.p99_ms.unwrap_or(f64::MAX), 3.0 * sync + 3.0);
    drive.drained(PATIENCE)?;
    Ok(())
}

/// Bytes to the disk at 5 000 a second.
pub(super) fn disk(bench: &Bench, report: &mut Report) -> Outcome {
    let (length, disks): (_, &[Disk]) = match bench.long {
        true => (Duration::from_secs(600), &[Disk::Bare]),
        false => (Duration::from_secs(30), &[Disk::Bare, Disk::Floored]),
    };
    for disk in disks {
        let node = bench.stage.start("disk", *disk)?;
        bench.say("disk", &node);
        let drive = bench.all_in(&node)?;
        let commits = node.commits();
        let stretch = bench.stretch(&drive, node.pid, Load::Paced(5000.0), length)?;
        let each = written(&stretch);
        let said = commits_said(commits, node.commits(), &stretch);
        let notes = format!("{each:.1} bytes written for each byte of reading; {said}{}", lost(&drive));
        report.row(&Row::of("disk", disk.name(), &stretch, notes))?;
        if *disk == Disk::Bare {
            report.at_most("disk, bytes written for each byte of reading", each, 9.0);
        }
        drive.drained(PATIENCE)?;
    }
    Ok(())
}

pub(super) fn mosquitto(bench: &Bench, report: &mut Report) -> Outcome {
    beside(bench, report, "mosquitto", false)
}

pub(super) fn mosquitto_persist(bench: &Bench, report: &mut Report) -> Outcome {
    beside(bench, report, "mosquitto-persist", true)
}

/// The same bytes, opaque. With persistence somebody with a session that stays takes all of them, or
/// there would be nothing to write down.
fn beside(bench: &Bench, report: &mut Report, case: &str, persists: bool) -> Outcome {
    for window in [1, 8] {
        let peer = bench.stage.start_mosquitto(persists)?;
        bench.say(case, &peer);
        let client =
            |device: &Enrolled| Ok(Client::new(Speaker::Opaque(Opaque::new(device, false)), device.tls.clone(), true));
        let mut groups = deal(&bench.devices[..bench.count], bench.threads, client)?;
        if persists {
            let device = &bench.devices[bench.count];
            let listener = Client::new(Speaker::Opaque(Opaque::new(device, true)), device.tls.clone(), false);
            groups.push(vec![listener]);
        }
        let drive = Drive::start(groups, peer.mqtt, bench.epoch)?;
        drive.dial(DIALS_AT_ONCE);
        drive.all_in(PATIENCE)?;
        let stretch = bench.stretch(&drive, peer.pid, Load::Window(window), bench.length)?;
        let written = written(&stretch);
        let notes = format!("{window} in flight; {written:.1} bytes written for each byte of reading{}", lost(&drive));
        report.row(&Row::of(&format!("{case}-{window}"), "bare", &stretch, notes))?;
    }
    Ok(())
}
