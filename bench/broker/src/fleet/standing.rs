//! Cases of what a node has: readings to be replayed, devices it knows, a store to start on.

use std::error::Error;
use std::time::{Duration, Instant};

use unhidra_core::ids::Offset;
use unhidra_store::{Limit, Store};

use super::fill::{Filler, known};
use super::report::{Report, Row};
use super::stage::Disk;
use super::worker::Load;
use super::{Bench, stream};
use crate::process;

/// Readings of one device that are replayed.
const REPLAYED: usize = 100_000;
/// Devices a node knows.
const KNOWN: usize = 50_000;

type Outcome = Result<(), Box<dyn Error>>;

/// One device's readings, from the store in this process, and through a node's WebSocket.
pub(super) fn replay(bench: &Bench, report: &mut Report) -> Outcome {
    let folder = bench.stage.copy("replay")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let filler = Filler::open(&folder)?;
    filler.devices(1)?;
    filler.readings(1, REPLAYED, 64)?;
    runtime.block_on(filler.store.close());
    drop(filler);

    let filler = Filler::open(&folder)?;
    let device = known(0)?;
    let (mut best, mut all) = (0.0_f64, Vec::new());
    for _ in 0..5 {
        let (mut after, mut found, began) = (Offset::ZERO, 0, Instant::now());
        loop {
            let page = runtime.block_on(filler.store.history(&device, after, Limit::default()))?;
            found += page.rows.len();
            after = page.rows.last().map_or(after, |row| row.offset);
            if !page.more {
                break;
            }
        }
        if found != REPLAYED {
            return Err(format!("{found} readings of {REPLAYED}").into());
        }
        let rate = found as f64 / began.elapsed().as_secs_f64();
        best = best.max(rate);
        all.push(rate);
    }
    all.sort_by(f64::total_cmp);
    let median = all[all.len() / 2];
    runtime.block_on(filler.store.close());
    drop(filler);
    let notes = format!("pages of 256, median of 5, the best {best:.0}");
    report.row(&Row { case: "replay, store".into(), disk: "bare", rate: Some(median), notes, ..Row::default() })?;
    report.at_least("replay from the store, readings a second", median, 500_000.0);

    let node = bench.stage.start_in(&folder, Disk::Bare)?;
    bench.say("replay", &node);
    let (cpu, own) = (process::cpu(node.pid), process::cpu(std::process::id()));
    let began = Instant::now();
    let found = stream::replay(&node, device.as_str())?;
    let seconds = began.elapsed().as_secs_f64();
    let each =
        |now: Duration, before: Duration| Some(now.saturating_sub(before).as_secs_f64() * 1e6 / found.max(1) as f64);
    report.row(&Row {
        case: "replay, WebSocket".into(),
        disk: "bare",
        rate: Some(found as f64 / seconds),
        node_us: each(process::cpu(node.pid), cpu),
        generator_us: each(process::cpu(std::process::id()), own),
        notes: format!("{found} readings as JSON, one client"),
        ..Row::default()
    })?;
    if found == REPLAYED { Ok(()) } else { Err(format!("the client got {found} readings of {REPLAYED}").into()) }
}

/// Memory with many devices that are known and few that speak.
pub(super) fn memory(bench: &Bench, report: &mut Report) -> Outcome {
    let length = Duration::from_secs(if bench.long { 600 } else { 30 });
    let folder = bench.stage.copy("memory")?;
    fill(&folder, |filler| filler.devices(KNOWN))?;
    let node = bench.stage.start_in(&folder, Disk::Bare)?;
    bench.say("memory", &node);
    let at_start = process::resident_bytes(node.pid);
    let drive = bench.all_in(&node)?;
    let connected = process::resident_bytes(node.pid);
    let stretch = bench.stretch(&drive, node.pid, Load::Paced(1000.0), length)?;
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let resident = process::resident_bytes(node.pid);
    let notes = format!(
        "{:.1} MB resident after {} s; {:.1} MB at the start, {:.1} MB with all in",
        mb(resident),
        length.as_secs(),
        mb(at_start),
        mb(connected)
    );
    report.row(&Row::of("memory", "bare", &stretch, notes))?;
    report.at_most(&format!("memory with {KNOWN} known devices, MB"), mb(resident), 150.0);
    drive.drained(super::load::PATIENCE)?;
    Ok(())
}

/// How long a node takes to be ready.
pub(super) fn start(bench: &Bench, report: &mut Report) -> Outcome {
    let gigabytes = if bench.long { 10 } else { 1 };
    let folder = bench.stage.copy("start")?;
    let began = Instant::now();
    fill(&folder, |filler| {
        filler.devices(KNOWN)?;
        filler.readings(1000, gigabytes * 1_000_000, 1000)
    })?;
    let filled = began.elapsed().as_secs_f64();
    let node = bench.stage.start_in(&folder, Disk::Bare)?;
    let ready = node.ready_after.as_secs_f64();
    let notes = format!(
        "ready after {ready:.2} s with {KNOWN} sessions and {gigabytes} GB (filled in {filled:.0} s, in the page cache)"
    );
    report.row(&Row { case: "start".into(), disk: "bare", notes, ..Row::default() })?;
    report.at_most(&format!("start with {gigabytes} GB, seconds"), ready, 3.0);
    Ok(())
}

pub(super) fn fill(folder: &std::path::Path, with: impl FnOnce(&Filler) -> Outcome) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let filler = Filler::open(folder)?;
    with(&filler)?;
    runtime.block_on(filler.store.close());
    Ok(())
}
