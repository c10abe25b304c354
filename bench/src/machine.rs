//! Where and with what a figure was measured. No figure is printed without it.

use std::fs;

use serde_json::{Value, json};
use unhidra_core::time::UnixTime;

/// The machine, the moment and the build.
pub(crate) fn describe(now: UnixTime) -> Value {
    json!({
        "machine": format!("{} x {}", std::thread::available_parallelism().map_or(0, |n| n.get()), cpu()),
        "load": load(),
        "unix_s": now.as_s(),
        "rustc": env!("BENCH_RUSTC"),
        "rustflags": env!("BENCH_RUSTFLAGS"),
        "profile": env!("BENCH_PROFILE"),
    })
}

fn cpu() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    let model = field("model name").unwrap_or_else(|| "unknown processor".into());
    let flags = field("flags").unwrap_or_default();
    let known = ["sha_ni", "avx2", "avx512f"];
    let has: Vec<&str> = known.into_iter().filter(|flag| flags.split(' ').any(|f| f == *flag)).collect();
    format!("{model} ({})", has.join(", "))
}

/// How many wanted to run, over the last minute: more than there are processors is a busy machine.
fn load() -> f64 {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or_default()
}
