//! The binary as people start it, and other people's programs beside it: real processes on free
//! ports, in a folder that goes when the test ends.
//!
//! A test waits for a line, an end or an answer, never for a time. What it waits for in vain is
//! shown with all that the process has said.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;

/// Longer than anything here takes, also on a machine that builds at the same time.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Every listener of a node on a port of the system's choice.
pub const FREE_PORTS: &str =
    "--set broker.tls.listen=127.0.0.1:0 --set gateway.listen=127.0.0.1:0 --set admin.listen=127.0.0.1:0";

/// What `future` gives, in time.
///
/// # Panics
///
/// Where it does not come; `what` says for what was waited.
pub async fn soon<T>(what: impl fmt::Display, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {} s: {what}", PATIENCE.as_secs()),
    }
}

/// The folder of one test. Whatever is started in it has it as its working directory.
#[derive(Debug)]
pub struct Place {
    folder: TempDir,
    /// The node's data folder in it.
    data: &'static str,
    /// What processes find in their environment.
    environment: Vec<(&'static str, PathBuf)>,
}

impl Place {
    /// An empty one.
    ///
    /// # Panics
    ///
    /// Where the system gives none.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), data: "node", environment: Vec::new() }
    }

    /// The same, with the node's data folder elsewhere in it than in `node`.
    #[must_use]
    pub fn with_data(self, data: &'static str) -> Self {
        Self { data, ..self }
    }

    /// What the processes that are started from here on find in their environment, and nothing else of it.
    pub fn set_environment(&mut self, environment: Vec<(&'static str, PathBuf)>) {
        self.environment = environment;
    }

    /// Something in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file in it.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).expect("the test's folder is writable");
    }

    /// The binary with what is typed behind its name, not started yet.
    #[must_use]
    pub fn unhidra(&self, line: &str) -> Command {
        let binary = binary();
        assert!(binary.is_file(), "{} is missing; build it first with `cargo build -p unhidra-node`", binary.display());
        let mut command = Command::new(binary);
        command.args(line.split_whitespace()).current_dir(self.folder.path()).env_remove("UNHIDRA_TOKEN");
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        command
    }

    /// Another program, not started yet. Each line it prints is handed on at once.
    ///
    /// # Panics
    ///
    /// Where it is not installed.
    #[must_use]
    pub fn program(&self, name: &str, package: &str) -> Command {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&folders).any(|folder| folder.join(name).is_file());
        assert!(found, "{name} is not installed; apt-get install {package}, or run tests/run, which does");
        let mut command = Command::new("stdbuf");
        command.args(["-oL", "-eL", name]).current_dir(self.folder.path());
        command
    }

    /// Runs the binary to its end.
    pub async fn run(&self, line: &str) -> Ended {
        Process::start(&format!("unhidra {line}"), self.unhidra(line)).ended().await
    }

    /// Runs the binary to an end in success, and gives what it printed.
    ///
    /// # Panics
    ///
    /// Where it fails.
    pub async fn done(&self, line: &str) -> String {
        let ended = self.run(line).await;
        assert_eq!(ended.status, Some(0), "{ended}");
        ended.out
    }

    /// Starts a node on its data folder, `node`, and returns once all of it listens. `line` is `run` with
    /// its options.
    pub async fn node(&self, line: &str) -> Node {
        self.node_on(self.data, line).await
    }

    /// Starts a node on another folder.
    ///
    /// # Panics
    ///
    /// Where it does not come to serve.
    pub async fn node_on(&self, data: &str, line: &str) -> Node {
        let line = format!("{line} --json --data {data}");
        let process = Process::start(&format!("unhidra {line}"), self.unhidra(&line));
        let ready: Value = serde_json::from_str(&process.prints("\"ready\"").await).expect("the ready line is JSON");
        let address = |key: &str| {
            let text = ready[key].as_str().unwrap_or_else(|| panic!("{key} listens: {ready}"));
            text.trim_start_matches("http://").parse().unwrap_or_else(|e| panic!("{key} is {text}: {e}"))
        };
        Node { mqtt: address("mqtt"), gateway: address("gateway"), admin: address("admin"), ready, process }
    }

    /// Enrols a device with the node's folder, running or not, into a folder of its name.
    pub async fn enroll(&self, device: &str) -> PathBuf {
        self.done(&format!("enroll {device} --out {device} --data {}", self.data)).await;
        self.path(device)
    }

    /// Enrols several, some at once.
    pub async fn enroll_all(&self, devices: &[&str]) {
        let enrolled = stream::iter(devices).map(|device| self.enroll(device)).buffer_unordered(4);
        enrolled.for_each(|_| std::future::ready(())).await;
    }

    /// Starts simulated devices, and returns once each has connected. `line` holds their folders
    /// and options.
    pub async fn simulate(&self, devices: &[&str], options: &str) -> Process {
        let line = format!("simulate {} {options}", devices.join(" "));
        let process = Process::start(&format!("unhidra {line}"), self.unhidra(&line));
        for device in devices {
            process.logs(&format!("connected device={device}")).await;
        }
        process
    }

    /// Returns once the node has handed out `count` more readings.
    pub async fn readings(&self, count: usize) {
        self.done(&format!("watch --json --count {count} --data {}", self.data)).await;
    }

    /// What the node's folder stores, as its export gives it.
    pub async fn rows(&self) -> Vec<Value> {
        rows(&self.done(&format!("export --json --data {}", self.data)).await)
    }
}

/// The rows of an export.
///
/// # Panics
///
/// Where a line is no row.
#[must_use]
pub fn rows(exported: &str) -> Vec<Value> {
    exported.lines().map(|line| serde_json::from_str(line).expect("a row is JSON")).collect()
}

/// The binary beside this test: `target/PROFILE/deps/it-HASH` and `target/PROFILE/unhidra`.
fn binary() -> PathBuf {
    profile().join("unhidra")
}

/// A folder for what a person is to look at after the test: `target/NAME`.
///
/// # Panics
///
/// Where it cannot be made.
#[must_use]
pub fn kept(name: &str) -> PathBuf {
    let folder = profile().with_file_name(name);
    std::fs::create_dir_all(&folder).expect("the target folder is writable");
    folder
}

fn profile() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it is");
    test.parent().and_then(Path::parent).expect("a test lies in target/PROFILE/deps").to_owned()
}

/// A node that serves.
#[derive(Debug)]
pub struct Node {
    /// MQTT over TLS.
    pub mqtt: SocketAddr,
    /// The gateway.
    pub gateway: SocketAddr,
    /// Health and metrics.
    pub admin: SocketAddr,
    /// The whole of its ready line.
    pub ready: Value,
    /// The process.
    pub process: Process,
}

impl Node {
    /// Options with which another node listens where this one does.
    #[must_use]
    pub fn ports(&self) -> String {
        let Self { mqtt, gateway, admin, .. } = self;
        format!("--set broker.tls.listen={mqtt} --set gateway.listen={gateway} --set admin.listen={admin}")
    }

    /// Ends it as a service manager does, and holds it to a clean end.
    ///
    /// # Panics
    ///
    /// Where its exit status is not 0.
    pub async fn stop(self) {
        self.process.signal(Signal::TERM);
        let ended = self.process.ended().await;
        assert_eq!(ended.status, Some(0), "{ended}");
    }
}

/// How much of a process's stderr a test that fails shows.
const LAST_LINES: usize = 40;

/// What a process said and how it ended.
#[derive(Debug)]
pub struct Ended {
    name: String,
    /// The exit status; none where a signal ended it.
    pub status: Option<i32>,
    /// Its stdout.
    pub out: String,
    /// Its stderr.
    pub err: String,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, status, out, err } = self;
        write!(f, "`{name}` ended with {status:?}\n--- stdout\n{out}\n--- stderr\n{err}")
    }
}

/// A process, and what it has said so far. Dropped, it is killed.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    out: watch::Receiver<Vec<String>>,
    err: watch::Receiver<Vec<String>>,
}

impl Process {
    /// Starts it.
    ///
    /// # Panics
    ///
    /// Where the system does not.
    #[must_use]
    pub fn start(name: &str, mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("`{name}` does not start: {error}"));
        let out = collect(child.stdout.take().expect("stdout is piped"));
        let err = collect(child.stderr.take().expect("stderr is piped"));
        Self { name: name.to_owned(), child, out, err }
    }

    /// The first line on stdout with `word` in it, waited for.
    pub async fn prints(&self, word: &str) -> String {
        self.line(&self.out, word, 1).await
    }

    /// The first line on stderr with `word` in it, waited for.
    pub async fn logs(&self, word: &str) -> String {
        self.line(&self.err, word, 1).await
    }

    /// The `count`th line on stderr with `word` in it, waited for.
    pub async fn logs_again(&self, word: &str, count: usize) -> String {
        self.line(&self.err, word, count).await
    }

    /// Waits until stdout has `count` lines, and gives how many it has then.
    pub async fn prints_lines(&self, count: usize) -> usize {
        let mut lines = self.out.clone();
        let found = soon(format!("{count} lines\n{self}"), lines.wait_for(|lines| lines.len() >= count)).await;
        found.unwrap_or_else(|_| panic!("it ended before {count} lines\n{self}")).len()
    }

    /// How many lines it has printed.
    #[must_use]
    pub fn printed(&self) -> usize {
        self.out.borrow().len()
    }

    async fn line(&self, lines: &watch::Receiver<Vec<String>>, word: &str, count: usize) -> String {
        let mut lines = lines.clone();
        let find = |lines: &Vec<String>| lines.iter().filter(|line| line.contains(word)).nth(count - 1).cloned();
        let waited = timeout(PATIENCE, lines.wait_for(|lines| find(lines).is_some())).await;
        match waited {
            Ok(Ok(found)) => find(&found).unwrap_or_default(),
            Ok(Err(_)) => panic!("it ended without {word:?}\n{self}"),
            Err(_) => panic!("no {word:?} within {} s\n{self}", PATIENCE.as_secs()),
        }
    }

    /// Sends it a signal.
    ///
    /// # Panics
    ///
    /// Where it has ended.
    pub fn signal(&self, signal: Signal) {
        let pid = self.pid().and_then(Pid::from_raw).unwrap_or_else(|| panic!("it has ended\n{self}"));
        kill_process(pid, signal).unwrap_or_else(|error| panic!("{signal:?}: {error}\n{self}"));
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.child.id().and_then(|pid| i32::try_from(pid).ok())
    }

    /// Waits until it ends by itself.
    pub async fn ended(self) -> Ended {
        self.ended_within(PATIENCE).await
    }

    /// Waits until it ends by itself, for so long.
    ///
    /// # Panics
    ///
    /// Where it goes on.
    pub async fn ended_within(mut self, patience: Duration) -> Ended {
        let status = timeout(patience, self.child.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("it goes on after {patience:?}\n{self}"));
        let status = status.expect("the system knows its children").code();
        let Self { name, out, err, .. } = &self;
        Ended { name: name.clone(), status, out: whole(out.clone()).await, err: whole(err.clone()).await }
    }
}

/// A test that fails shows what its processes said last: what failed there is seldom what the test waited for.
impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = self.err.borrow();
            let last = lines.len().saturating_sub(LAST_LINES);
            eprintln!("`{}` said last:\n{}", self.name, lines[last..].join("\n"));
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (out, err) = (self.out.borrow().join("\n"), self.err.borrow().join("\n"));
        write!(f, "`{}`\n--- stdout\n{out}\n--- stderr\n{err}", self.name)
    }
}

/// The lines of a pipe as they come; the sender goes with the pipe.
fn collect(pipe: impl AsyncRead + Send + Unpin + 'static) -> watch::Receiver<Vec<String>> {
    let (sender, receiver) = watch::channel(Vec::new());
    tokio::spawn(async move {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            sender.send_modify(|lines| lines.push(text));
            line.clear();
        }
    });
    receiver
}

/// All lines of a pipe, once its process has ended.
async fn whole(mut lines: watch::Receiver<Vec<String>>) -> String {
    // Something the process has started may hold the pipe on; then what is there is the whole.
    let _ = timeout(PATIENCE, lines.wait_for(|_| false)).await;
    lines.borrow().join("\n")
}
