//! What the disk beneath can do.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// Syncs of the disk: 4 KiB appended to one file, and fdatasync.
#[derive(Clone, Copy, Debug)]
pub(super) struct Syncs {
    pub(super) a_second: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
}

/// Measures for so long.
pub(super) fn syncs(folder: &Path, length: Duration) -> io::Result<Syncs> {
    let path = folder.join("syncs");
    let mut file = File::create(&path)?;
    let (began, mut times) = (Instant::now(), Vec::new());
    while began.elapsed() < length {
        file.write_all(&[7; 4096])?;
        let sync = Instant::now();
        file.sync_data()?;
        times.push(sync.elapsed().as_secs_f64() * 1e3);
    }
    let a_second = times.len() as f64 / began.elapsed().as_secs_f64();
    std::fs::remove_file(&path)?;
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() as f64 * share) as usize).min(times.len() - 1)];
    Ok(Syncs { a_second, p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0) })
}
