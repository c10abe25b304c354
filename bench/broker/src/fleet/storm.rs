//! Everybody comes at once.

use std::error::Error;
use std::time::{Duration, Instant};

use super::drive::Drive;
use super::load::PATIENCE;
use super::report::{Report, Row};
use super::stage::Disk;
use super::worker::{DIALS_AT_ONCE, Load};
use super::{Bench, STORM_LONG};
use crate::process;

/// Those who were there before.
pub(super) const OTHERS: usize = 100;
/// What these publish together, a second.
const OTHERS_RATE: f64 = 200.0;

/// A storm of handshakes, and what those who are inside feel of it.
pub(super) fn handshakes(bench: &Bench, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let count = if bench.long { STORM_LONG } else { bench.count };
    let node = bench.stage.start("handshakes", Disk::Bare)?;
    bench.say("handshakes", &node);
    let (others, storm) = bench.devices.split_at(OTHERS);
    let others = Drive::start(bench.sealing(others, 1)?, node.mqtt, bench.epoch)?;
    others.dial(DIALS_AT_ONCE);
    others.all_in(PATIENCE)?;
    let rest = bench.stretch(&others, node.pid, Load::Paced(OTHERS_RATE), Duration::from_secs(5))?;
    let at_rest = rest.times.quantile_ms(0.99).ok_or("nothing was acknowledged")?;

    let storm = bench.sealing(&storm[..count.min(storm.len())], bench.threads)?;
    // Its devices have processors of their own in life; here they share two with the node and with those
    // whose times are taken, which are not to wait for them.
    let storm = Drive::start_behind(storm, node.mqtt, bench.epoch)?;
    others.begin();
    let own = std::process::id();
    let (began, before) = (Instant::now(), (process::cpu(node.pid), process::cpu(own)));
    storm.dial(count);
    storm.all_in(PATIENCE)?;
    let wall = began.elapsed().as_secs_f64();
    let (node_cpu, generator_cpu) =
        (process::cpu(node.pid).saturating_sub(before.0), process::cpu(own).saturating_sub(before.1));
    let (times, max_ns) = others.collect()?;
    let during = times.quantile_ms(0.99).unwrap_or(0.0);
    let sum = (node_cpu + generator_cpu).as_secs_f64();
    let each = |cpu: Duration| Some(cpu.as_secs_f64() * 1e6 / count as f64);
    report.row(&Row {
        case: "handshakes".into(),
        disk: "bare",
        rate: Some(count as f64 / wall),
        p50_ms: times.quantile_ms(0.5),
        p99_ms: Some(during),
        max_ms: Some(max_ns as f64 / 1e6),
        node_us: each(node_cpu),
        generator_us: each(generator_cpu),
        notes: format!(
            "{count} in after {wall:.2} s, CPU of both {sum:.2} s; times are the others', p99 at rest {at_rest:.2} ms{}",
            if process::shares_by_session() { "; sched_autogroup_enabled" } else { "" },
        ),
    })?;
    report.at_most(&format!("handshakes, seconds until {count} are in (2 x CPU)"), wall, 2.0 * sum);
    report.at_most("handshakes, the others' p99 ms (3 x, or 20 above)", during, (3.0 * at_rest).max(at_rest + 20.0));
    others.drained(PATIENCE)?;
    Ok(())
}
