//! What a process has used, as the kernel counts it.

use std::fs;
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

/// How many wanted to run, over the last minute.
pub(crate) fn load() -> f64 {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or_default()
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
