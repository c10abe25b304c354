//! Devices whose readings are durable: what a node takes, in which time, and what that costs.

mod control;
mod disk;
mod drive;
mod enrolment;
mod fill;
mod load;
mod memory;
mod outlets;
mod report;
mod speaker;
mod stage;
mod standing;
mod storm;
mod stream;
mod worker;

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::{pki, process};
use enrolment::Enrolled;
use report::Report;
use stage::Stage;

/// Devices whose readings are durable: 1 000 of them, over TLS with certificates, every reading sealed.
#[derive(Debug, clap::Args)]
pub(crate) struct Fleet {
    /// A case, or what its name begins with; may be given more than once. Else all of them
    #[arg(long, value_name = "CASE")]
    only: Vec<String>,
    /// Devices
    #[arg(long, default_value_t = 1000)]
    devices: usize,
    /// How long a rate is measured
    #[arg(long, default_value_t = 6.0)]
    seconds: f64,
    /// Threads of the generator
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Ten minutes for disk and memory, 10 GB for start, 5 000 devices for handshakes
    #[arg(long)]
    long: bool,
    /// Gives up what a goal misses: ends with 0 all the same
    #[arg(long)]
    no_goals: bool,
    /// A key of the node's configuration, KEY=VALUE; may be given more than once
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Prints each node's pid and what is about to run, for a profiler
    #[arg(long)]
    verbose: bool,
    /// Where the JSON lines go
    #[arg(long, value_name = "FILE", env = "FLEET_JSON")]
    json: PathBuf,
    /// Where data folders are made: on the disk that is meant
    #[arg(long, value_name = "DIR", env = "FLEET_FOLDER")]
    folder: PathBuf,
    /// Lists the cases
    #[arg(long)]
    list: bool,
    #[arg(long, env = "BENCH_UNHIDRA", hide = true)]
    unhidra: PathBuf,
    #[arg(long, env = "BENCH_SLOW_SYNC", hide = true)]
    slow_sync: PathBuf,
    #[arg(long, env = "BENCH_MOSQUITTO", default_value = "/usr/sbin/mosquitto", hide = true)]
    mosquitto: PathBuf,
}

type Run = fn(&Bench, &mut Report) -> Result<(), Box<dyn Error>>;

/// The cases, in the order they run.
const CASES: [(&str, Run, &str); 11] = [
    ("durable-1", load::durable_1, "one reading in flight a device; syncs of at least 5 ms, and the disk as it is"),
    ("durable-8", load::durable_8, "eight in flight a device"),
    ("puback-1k", load::puback, "1 000 readings a second: when PUBACK comes"),
    ("mosquitto", load::mosquitto, "mosquitto as it comes, the same bytes"),
    ("mosquitto-persist", load::mosquitto_persist, "mosquitto that writes down every change"),
    ("replay", standing::replay, "one device's 100 000 readings, read from the store and by a client"),
    ("outlets", outlets::outlets, "readings out in the clear: to a local client, to mosquitto, to a webhook"),
    ("handshakes", storm::handshakes, "1 000 devices at once (--long: 5 000)"),
    ("disk", load::disk, "bytes written for each byte of reading, at 5 000 a second"),
    ("memory", standing::memory, "50 000 known devices, 1 000 readings a second"),
    ("start", standing::start, "50 000 sessions and 1 GB of readings of 1 KB (--long: 10 GB)"),
];

/// What a case has at hand.
struct Bench {
    stage: Stage,
    devices: Vec<Enrolled>,
    count: usize,
    length: Duration,
    threads: usize,
    long: bool,
    verbose: bool,
    epoch: Instant,
}

/// How many devices a storm has.
const STORM_LONG: usize = 5000;

impl Fleet {
    /// Runs all that is asked for. Gives whether all goals are met.
    pub(crate) fn run(&self) -> Result<bool, Box<dyn Error>> {
        if self.list {
            CASES.iter().for_each(|(name, _, about)| println!("{name:18} {about}"));
            return Ok(true);
        }
        let folder = self.folder.join(std::process::id().to_string());
        std::fs::create_dir_all(&folder)?;
        let done = self.all(&folder);
        let _ = std::fs::remove_dir_all(&folder);
        Ok(done? || self.no_goals)
    }

    fn all(&self, folder: &std::path::Path) -> Result<bool, Box<dyn Error>> {
        let chosen: Vec<_> = CASES
            .iter()
            .filter(|(name, ..)| self.only.is_empty() || self.only.iter().any(|only| name.starts_with(only.as_str())))
            .collect();
        if chosen.is_empty() {
            return Err("no such case; --list names them".into());
        }
        let stage = Stage {
            unhidra: self.unhidra.clone(),
            mosquitto: self.mosquitto.clone(),
            slow_sync: self.slow_sync.clone(),
            folder: folder.to_owned(),
            pki: pki::Pki::make(&folder.join("pki"))?,
            set: self.set.clone(),
        };
        let syncs = disk::syncs(folder, Duration::from_secs(2))?;
        let date = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let utc = std::process::Command::new("date").args(["-u", "+%F %R UTC"]).output()?;
        let utc = String::from_utf8_lossy(&utc.stdout).trim().to_owned();
        println!("{}; load {:.1}; {utc}", process::machine(), process::load());
        println!(
            "fdatasync of 4 KiB: {:.0} a second, p50 {:.2} ms, p99 {:.2} ms, max {:.1} ms",
            syncs.a_second, syncs.p50_ms, syncs.p99_ms, syncs.max_ms
        );
        // One more, who listens, and 100 who were there before a storm.
        let storm = if self.long { STORM_LONG } else { self.devices };
        let wanted = match chosen.iter().any(|(name, ..)| *name == "handshakes") {
            true => storm.max(self.devices) + storm::OTHERS,
            false => self.devices + 1,
        };
        let began = Instant::now();
        let devices = stage.prepare(wanted)?;
        println!("{wanted} devices enrolled in {:.1} s\n", began.elapsed().as_secs_f64());
        let bench = Bench {
            stage,
            devices,
            count: self.devices,
            length: Duration::from_secs_f64(self.seconds),
            threads: self.threads.max(1),
            long: self.long,
            verbose: self.verbose,
            epoch: Instant::now(),
        };
        let header = json!({
            "machine": process::machine(), "unix": date, "load": process::load(), "syncs_a_second": syncs.a_second,
            "sync_p50_ms": syncs.p50_ms, "sync_p99_ms": syncs.p99_ms, "devices": self.devices, "long": self.long,
        });
        let mut report = Report::new(&self.json, &header)?;
        for (name, run, _) in chosen {
            if let Err(error) = run(&bench, &mut report) {
                report.failed(name, &error.to_string())?;
            }
        }
        Ok(report.judge()?)
    }
}
