//! Nodes and their peer, each as a process on a data folder of its own.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::enrolment::{self, Enrolled};
use crate::pki::Pki;

/// The floor of a commit, in microseconds.
pub(super) const FLOOR_US: u32 = 5000;

/// What the runs share.
pub(super) struct Stage {
    pub(super) unhidra: PathBuf,
    pub(super) mosquitto: PathBuf,
    /// The library that makes syncs slow.
    pub(super) slow_sync: PathBuf,
    pub(super) folder: PathBuf,
    pub(super) pki: Pki,
    pub(super) set: Vec<String>,
}

/// How long syncs take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Disk {
    /// At least [`FLOOR_US`].
    Floored,
    /// As it is.
    Bare,
}

impl Disk {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Floored => "5 ms",
            Self::Bare => "bare",
        }
    }
}

/// A process that listens; it is killed when this is dropped, and its folder goes.
pub(super) struct Running {
    child: Child,
    pub(super) pid: u32,
    pub(super) mqtt: SocketAddr,
    /// The listener without TLS, where it is on.
    pub(super) mqtt_plain: Option<SocketAddr>,
    pub(super) gateway: String,
    admin: String,
    pub(super) data: PathBuf,
    /// From the start of the process to the line that says it is ready.
    pub(super) ready_after: Duration,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(folder) = self.data.parent() {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

impl Running {
    /// Ends it in peace; its folder stays.
    fn stop(mut self) -> Result<(), Box<dyn Error>> {
        Command::new("kill").arg(self.pid.to_string()).status()?;
        let ended = self.child.wait()?;
        self.data = PathBuf::new();
        if ended.success() { Ok(()) } else { Err(format!("the node ended with {ended}").into()) }
    }

    /// Where it is asked.
    pub(super) fn socket(&self) -> PathBuf {
        self.data.join("control.sock")
    }

    /// Its commits since its start, as its metrics have them.
    pub(super) fn commits(&self) -> Option<Commits> {
        let address = self.admin.strip_prefix("http://")?;
        let mut stream = TcpStream::connect(address).ok()?;
        write!(stream, "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("unhidra_store_commits_total"))?;
        let count = line.rsplit(' ').next()?.parse().ok()?;
        let bucket = |line: &str| {
            let rest = line.strip_prefix("unhidra_store_commit_duration_seconds_bucket{le=\"")?;
            let (bound, count) = rest.split_once("\"} ")?;
            // The last bucket is "+Inf".
            Some((bound.parse().unwrap_or(f64::INFINITY), count.parse().ok()?))
        };
        Some(Commits { count, within: text.lines().filter_map(bucket).collect() })
    }
}

/// Commits of a node.
#[derive(Clone, Debug)]
pub(super) struct Commits {
    pub(super) count: u64,
    /// How many took at most so many seconds, by ascending bounds.
    within: Vec<(f64, u64)>,
}

impl Commits {
    /// The bound in ms under which all commits since then stayed.
    pub(super) fn longest_ms(&self, since: &Self) -> Option<f64> {
        let newer = |at: usize| Some(self.within.get(at)?.1.saturating_sub(since.within.get(at)?.1));
        let all = newer(self.within.len().checked_sub(1)?)?;
        let at = (0..self.within.len()).find(|at| newer(*at) == Some(all))?;
        Some(self.within[at].0 * 1e3)
    }
}

impl Stage {
    /// A node's first start: its folder, with all devices enrolled, from which the others are copied.
    pub(super) fn prepare(&self, devices: usize) -> Result<Vec<Enrolled>, Box<dyn Error>> {
        let node = self.start_in(&self.folder.join("base"), Disk::Bare)?;
        let devices = enrolment::enrol(&node.socket(), devices)?;
        node.stop()?;
        Ok(devices)
    }

    /// A copy of the first folder.
    pub(super) fn copy(&self, name: &str) -> Result<PathBuf, Box<dyn Error>> {
        let folder = self.folder.join(name);
        let _ = fs::remove_dir_all(&folder);
        let copied = Command::new("cp").arg("-a").arg(self.folder.join("base")).arg(&folder).status()?;
        if copied.success() { Ok(folder) } else { Err("the folder cannot be copied".into()) }
    }

    /// A node on a copy of the first folder.
    pub(super) fn start(&self, name: &str, disk: Disk) -> Result<Running, Box<dyn Error>> {
        self.start_in(&self.copy(name)?, disk)
    }

    /// A node on this folder.
    pub(super) fn start_in(&self, folder: &Path, disk: Disk) -> Result<Running, Box<dyn Error>> {
        self.start_with(folder, disk, &[])
    }

    /// The same with further keys of its configuration.
    pub(super) fn start_with(&self, folder: &Path, disk: Disk, set: &[String]) -> Result<Running, Box<dyn Error>> {
        fs::create_dir_all(folder)?;
        let data = folder.join("data");
        let mut command = Command::new(&self.unhidra);
        command.args(["run", "--json", "--data"]).arg(&data).stdin(Stdio::null());
        let pki = &self.pki;
        for (key, path) in
            [("ca", &pki.ca), ("ca_key", &pki.ca_key), ("certificate", &pki.certificate), ("key", &pki.key)]
        {
            command.arg("--set").arg(format!("pki.{key}={}", path.display()));
        }
        for key in KEYS.into_iter().chain(set.iter().chain(&self.set).map(String::as_str)) {
            command.args(["--set", key]);
        }
        if disk == Disk::Floored {
            command.env("LD_PRELOAD", &self.slow_sync).env("BENCH_SYNC_US", FLOOR_US.to_string());
        }
        let log = folder.join("log");
        let began = Instant::now();
        let mut child = command.stdout(Stdio::piped()).stderr(File::create(&log)?).spawn()?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let pid = child.id();
        let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        let mut running = Running {
            child,
            pid,
            mqtt: nowhere,
            mqtt_plain: None,
            gateway: String::new(),
            admin: String::new(),
            data,
            ready_after: Duration::ZERO,
        };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        running.ready_after = began.elapsed();
        let said = || fs::read_to_string(&log).unwrap_or_default();
        let ready: Value = serde_json::from_str(&line).map_err(|_| format!("unhidra did not start: {}", said()))?;
        let text = |key: &str| ready[key].as_str().map(str::to_owned).ok_or_else(|| format!("no {key} in {ready}"));
        running.mqtt = text("mqtt")?.parse()?;
        running.mqtt_plain = ready["mqtt_plain"].as_str().and_then(|address| address.parse().ok());
        running.gateway = text("gateway")?;
        running.admin = text("admin")?;
        Ok(running)
    }

    /// mosquitto as Debian has it, over TLS with certificates; with `persists` it writes down every
    /// change, as often as it can: once a second.
    pub(super) fn start_mosquitto(&self, persists: bool) -> Result<Running, Box<dyn Error>> {
        let persistence = if persists {
            format!(
                "persistence true\npersistence_location {}/\nautosave_on_changes true\nautosave_interval 1\n\
                 max_inflight_messages 1000\nmax_queued_messages 1000000\n",
                self.folder.join("mosquitto/data").display()
            )
        } else {
            String::new()
        };
        let pki = &self.pki;
        let tls = format!(
            "cafile {}\ncertfile {}\nkeyfile {}\ntls_version tlsv1.3\nrequire_certificate true\n",
            pki.ca.display(),
            pki.certificate.display(),
            pki.key.display()
        );
        self.mosquitto_with(&persistence, &tls)
    }

    /// mosquitto over TCP, with further lines of its configuration; no queue of it has an end.
    pub(super) fn start_mosquitto_plain(&self, lines: &str) -> Result<Running, Box<dyn Error>> {
        self.mosquitto_with(&format!("max_queued_messages 0\n{lines}"), "")
    }

    /// mosquitto with lines for all of it and for its listener.
    fn mosquitto_with(&self, general: &str, listener: &str) -> Result<Running, Box<dyn Error>> {
        let folder = self.folder.join("mosquitto");
        let data = folder.join("data");
        fs::create_dir_all(&data)?;
        let mqtt = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let user = std::env::var("USER").unwrap_or_else(|_| "root".into());
        let file = folder.join("conf");
        fs::write(
            &file,
            format!(
                "user {user}\nlog_type error\nallow_anonymous true\n{general}listener {} 127.0.0.1\n{listener}",
                mqtt.port()
            ),
        )?;
        let began = Instant::now();
        let child = Command::new(&self.mosquitto)
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.join("log"))?)
            .spawn()?;
        let pid = child.id();
        let (gateway, admin) = (String::new(), String::new());
        let mut running =
            Running { child, pid, mqtt, mqtt_plain: None, gateway, admin, data, ready_after: Duration::ZERO };
        while TcpStream::connect(mqtt).is_err() {
            if running.child.try_wait()?.is_some() || began.elapsed() > Duration::from_secs(20) {
                return Err("mosquitto does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        running.ready_after = began.elapsed();
        Ok(running)
    }
}

/// What else there is stays as it comes.
const KEYS: [&str; 5] = [
    "broker.tls.listen=127.0.0.1:0",
    // One address for all devices.
    "broker.gate.connects_per_address_s=0",
    "gateway.listen=127.0.0.1:0",
    "admin.listen=127.0.0.1:0",
    "log.level=warn",
];
