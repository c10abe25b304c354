//! What a process has used, as the kernel counts it.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Processor time of all its threads, user and system.
///
/// From the scheduler's own count in nanoseconds; a thread that has ended is missing in it, and
/// no contestant ends one while it is measured.
pub(crate) fn cpu(pid: u32) -> Duration {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Duration::ZERO };
    let ran = |path: std::path::PathBuf| -> Option<u64> {
        fs::read_to_string(path.join("schedstat")).ok()?.split(' ').next()?.parse().ok()
    };
    Duration::from_nanos(tasks.flatten().filter_map(|task| ran(task.path())).sum())
}

/// Bytes of memory that are its alone: private pages, clean and dirty.
pub(crate) fn private_bytes(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kib = |line: &str| line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
    rollup.lines().filter(|line| line.starts_with("Private_")).filter_map(kib).sum::<u64>() * 1024
}

/// Bytes it has caused to be written to the disk, in whole pages: the kernel counts a page when it
/// becomes dirty.
pub(crate) fn written_bytes(pid: u32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok()).unwrap_or_default()
}

/// How many wanted to run, over the last minute.
pub(crate) fn load() -> f64 {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or_default()
}

/// Has the thread it is called on run only on what all others leave, and off at once when one of them wakes.
/// By the system's own tool: no safe call sets it.
pub(crate) fn give_way() -> io::Result<()> {
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    let set = Command::new("chrt").args(["--idle", "--pid", "0", &thread]).status()?;
    if set.success() { Ok(()) } else { Err(io::Error::other(format!("chrt (util-linux) ended with {set}"))) }
}

/// Whether the kernel shares the processors among sessions of terminals before it does among threads.
pub(crate) fn shares_by_session() -> bool {
    fs::read_to_string("/proc/sys/kernel/sched_autogroup_enabled").is_ok_and(|on| on.trim() == "1")
}

/// The machine in a line.
pub(crate) fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} x {model}, Linux {}", std::thread::available_parallelism().map_or(0, usize::from), kernel.trim())
}

/// Bytes that are in memory, shared ones among them: cheap to ask, which the private ones are not.
pub(crate) fn resident_bytes(pid: u32) -> u64 {
    let pages = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

/// strace, counting the system calls of a process. What it watches is slower for it, so its
/// batches are longer: the counts are of a process under more load than it can carry.
#[derive(Debug)]
pub(crate) struct Tracer {
    strace: Child,
    file: PathBuf,
}

impl Tracer {
    /// Begins to count, once it has had time to attach to every thread.
    pub(crate) fn attach(pid: u32) -> std::io::Result<Self> {
        let file = std::env::temp_dir().join(format!("unhidra-bench-{}.strace", std::process::id()));
        let strace = Command::new("strace")
            .args(["-c", "-f", "-p", &pid.to_string(), "-o"])
            .arg(&file)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        std::thread::sleep(Duration::from_millis(500));
        Ok(Self { strace, file })
    }

    /// Ends, with the number of calls.
    pub(crate) fn finish(mut self) -> Option<u64> {
        Command::new("kill").args(["-INT", &self.strace.id().to_string()]).status().ok()?;
        self.strace.wait().ok()?;
        let table = fs::read_to_string(&self.file).ok()?;
        let _ = fs::remove_file(&self.file);
        table.lines().find(|line| line.ends_with(" total"))?.split_whitespace().nth(3)?.parse().ok()
    }
}
