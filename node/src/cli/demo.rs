//! `unhidra demo`
//!
//! A node, a few devices and a client in one process, each through its front door: the devices
//! dial the printed port over TLS, the client speaks WebSocket. With `--seconds` it ends by itself
//! and says whether three ledgers of the same readings agree.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Serialize;
use unhidra_core::ids::DeviceId;
use unhidra_core::suite::Suite;

use super::client::NodeUrl;
use super::console::{reachable, url};
use super::enroll::{Enroll, enroll};
use super::output::Output;
use super::run::{Ready, Signals, Told};
use super::serve::Node;
use super::simulate::{RETRY_MAX, SimulateEvent, SimulateOptions, journal};
use super::{CliError, Global, simulate};
use crate::clock::SystemClock;
use crate::config::Purpose;
use crate::control::{Control, ControlError, RowKind, RowsAsked, Span, TokenAsked};
use crate::folder::{Folder, Kind, Layout, Role};
use crate::log;
use ledger::{Key, Latency, Ledger, Verdict};
use watcher::Watcher;

mod ledger;
mod watcher;

/// How long devices wait, at the end, for what is not acknowledged, and the client for what it has
/// not received.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often a run with an end says how far it is.
const PROGRESS: Duration = Duration::from_secs(2);

/// Runs a node with simulated devices, in a data folder of its own whose store is not encrypted.
#[derive(Debug, clap::Args)]
pub struct Demo {
    /// How many devices.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub devices: u16,
    /// Readings a second, of each device.
    #[arg(long, value_name = "R", default_value_t = 1.0)]
    pub rate: f64,
    /// The key agreement of the devices it enrols: x3dh (1) or pqxdh (2). Those of an earlier run
    /// keep theirs.
    #[arg(long, value_name = "SUITE", default_value_t = Suite::X3dh)]
    pub suite: Suite,
    /// Ends after so many seconds, and compares what was published, stored and received. Without,
    /// it runs until it is interrupted.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..))]
    pub seconds: Option<u32>,
    /// Where the client of that comparison connects instead: a proxy before the gateway.
    #[arg(long, value_name = "URL")]
    pub through: Option<NodeUrl>,
}

/// What a run says at its end.
#[derive(Serialize)]
struct Summary<'a> {
    event: &'static str,
    devices: u16,
    rate: f64,
    seconds: u32,
    #[serde(flatten)]
    verdict: &'a Verdict,
    #[serde(flatten)]
    latency: Latency,
    ok: bool,
}

/// What a demo says once it runs.
#[derive(Serialize)]
struct Started {
    #[serde(flatten)]
    ready: Ready,
    console: Option<String>,
    devices: Vec<String>,
}

pub(super) async fn run(args: &Demo, global: &Global, mut rng: StdRng, out: &mut Output<'_>) -> Result<(), CliError> {
    let mut signals = Signals::listen()?;
    let loaded = global.sources(Purpose::Demo).load()?;
    log::start(&loaded.config.log)?;
    let folder = Folder::open(&loaded.config.data, Kind::Plain, Role::Demo)?;
    let layout = folder.layout().clone();
    let node = Node::start(loaded, folder, StdRng::from_rng(&mut rng)).await?;
    let done = with_node(args, &node, &layout, &mut rng, &mut signals, out).await;
    node.stop().await;
    done
}

async fn with_node(
    args: &Demo,
    node: &Node,
    layout: &Layout,
    rng: &mut StdRng,
    signals: &mut Signals,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    let control = node.control();
    let folders = devices(args.devices, args.suite, &*control, layout, rng).await?;
    let console = control.mint(TokenAsked { name: None, may_command: true, lifetime_s: None, once: true }).await?;
    let started = Started {
        ready: Ready::new(node.addresses()),
        console: url(&console),
        devices: folders.iter().map(|(id, _)| id.to_string()).collect(),
    };
    let server = node.addresses().mqtt.map(|address| reachable(address).to_string());
    let server =
        server.ok_or_else(|| CliError::Usage("broker.tls.listen is off: the devices have no door".to_owned()))?;
    let options = SimulateOptions {
        folders: folders.iter().map(|(_, path)| path.clone()).collect(),
        server: Some(server.clone()),
        rate: args.rate,
        duration: args.seconds.map(|seconds| Duration::from_secs(seconds.into())),
        drain: PATIENCE,
        sync: false,
        retry_max: RETRY_MAX,
    };
    let printed = out.say(&started, &welcome(&started, layout));
    let Some(seconds) = args.seconds else {
        printed?;
        simulate::run(options, rng, interrupted(signals), |_| {}).await?;
        return Ok(());
    };
    let client = control.mint(TokenAsked { name: None, may_command: false, lifetime_s: None, once: false }).await?;
    let gateway = match (&args.through, client.gateway) {
        (Some(through), _) => through.clone(),
        (None, Some(gateway)) => NodeUrl::from(reachable(gateway)),
        (None, None) => return Err(CliError::Usage("the gateway is off: there is nobody to receive".to_owned())),
    };
    let watcher = Watcher::begin(&gateway, &client.token, SystemClock::start()).await?;
    let first: Arc<Mutex<BTreeMap<String, u64>>> = Arc::default();
    let (published, acknowledged) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let tell = {
        let (first, published, acknowledged) = (first.clone(), published.clone(), acknowledged.clone());
        move |event| match event {
            SimulateEvent::Published(entry) => {
                published.fetch_add(1, Ordering::Relaxed);
                let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
                first.entry(entry.device).or_insert(entry.n);
            }
            SimulateEvent::Acknowledged(_) => _ = acknowledged.fetch_add(1, Ordering::Relaxed),
            _ => {}
        }
    };
    let progress = async {
        loop {
            tokio::time::sleep(PROGRESS).await;
            let (published, acknowledged) = (published.load(Ordering::Relaxed), acknowledged.load(Ordering::Relaxed));
            eprintln!("published {published}, acknowledged {acknowledged}, received {}", watcher.received());
        }
    };
    tokio::select! {
        simulated = simulate::run(options, rng, interrupted(signals), tell) => simulated?,
        never = progress => never,
    };
    let _ = tokio::time::timeout(PATIENCE, watcher.caught_up(acknowledged.load(Ordering::Relaxed))).await;
    let seen = watcher.end().await?;
    let stored = export(&*control, control.info().await?.partitions).await?;
    let journals = journals(&folders)?;
    let first = first.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let verdict = Verdict::reach(&journals, &first, &stored, &seen.ledger);
    let latency = Latency::of(times(&journals, &seen.arrived_at));
    let summary = Summary {
        event: "summary",
        devices: args.devices,
        rate: args.rate,
        seconds,
        verdict: &verdict,
        latency,
        ok: verdict.is_good(),
    };
    let printed = printed.and_then(|()| out.say(&summary, &report(&summary)));
    // A loss is the answer, also where nobody reads the summary.
    if verdict.is_good() {
        printed
    } else {
        Err(CliError::Failed(format!("{} readings lost, {} doubled", verdict.lost, verdict.doubled)))
    }
}

/// The devices' folders: those of an earlier run, and new ones for the rest.
async fn devices(
    count: u16,
    suite: Suite,
    control: &dyn Control,
    layout: &Layout,
    rng: &mut StdRng,
) -> Result<Vec<(DeviceId, PathBuf)>, CliError> {
    let mut folders = Vec::new();
    for n in 1..=count {
        let name = format!("sensor-{n:02}");
        let id = DeviceId::parse(&name).map_err(|error| CliError::Failed(error.to_string()))?;
        let path = layout.device(&id);
        let known = match control.device(id).await {
            Ok(_) => true,
            Err(ControlError::NoDevice { .. }) => false,
            Err(error) => return Err(error.into()),
        };
        if !(known && path.join("device.toml").exists()) {
            if path.exists() {
                // Half of a device: the other half was never written, or was taken away.
                fs::remove_dir_all(&path).map_err(|source| CliError::File { path: path.clone(), source })?;
            }
            let args =
                Enroll { device: id, out: path.clone(), tags: Vec::new(), class: String::new(), suite, replace: known };
            enroll(&args, control, rng).await?;
        }
        folders.push((id, path));
    }
    Ok(folders)
}

async fn interrupted(signals: &mut Signals) {
    while signals.next().await == Told::Reload {}
}

fn journals(folders: &[(DeviceId, PathBuf)]) -> Result<Vec<BTreeMap<u64, journal::Entry>>, CliError> {
    let read = |(_, folder): &(DeviceId, PathBuf)| {
        let path = folder.join(journal::FILE);
        journal::read(&path).map_err(|source| CliError::File { path, source })
    };
    folders.iter().map(read).collect()
}

/// The store's ledger: every reading of its export.
pub(super) async fn export(control: &dyn Control, partitions: u16) -> Result<Ledger, CliError> {
    let mut ledger = Ledger::default();
    for partition in 0..partitions {
        let mut after = 0;
        loop {
            let page = control.rows(RowsAsked { after, ..RowsAsked::all(Span::Partition(partition)) }).await?;
            for row in page.rows.iter().filter(|row| row.kind == RowKind::Reading) {
                let body = row.body.as_ref().map(|body| body.as_bytes()).unwrap_or_default();
                if let Some(key) = Key::of(row.device.as_str(), body) {
                    ledger.enter(key);
                }
            }
            // A page of what is left of trimmed rows shows none, and there may be readings behind it.
            match page.next.or_else(|| page.rows.last().map(|last| last.offset)) {
                Some(next) if page.more => after = next,
                _ => break,
            }
        }
    }
    Ok(ledger)
}

fn times(journals: &[BTreeMap<u64, journal::Entry>], arrived_at: &BTreeMap<Key, u64>) -> Vec<u64> {
    let published = journals.iter().flat_map(BTreeMap::values);
    let time = |entry: &journal::Entry| {
        let key = Key { device: entry.device.clone(), n: entry.n, sha256: entry.sha256.clone() };
        arrived_at.get(&key).map(|at| at.saturating_sub(entry.published_at))
    };
    published.filter_map(time).collect()
}

fn welcome(started: &Started, layout: &Layout) -> String {
    let data = layout.root().display();
    let device = started.devices.first().map_or("sensor-01", String::as_str);
    let off = "off".to_owned();
    // As it was called: after `cargo run` the binary is in no search path.
    let unhidra = std::env::args().next().unwrap_or_else(|| "unhidra".to_owned());
    format!(
        "{} devices publish encrypted readings; only the bridge of this node opens them.\n\n\
         \x20 console   {}\n\
         \x20           (the token in it works once; `{unhidra} console --data {data}` makes another)\n\
         \x20 MQTT      {}  (TLS, client certificates in {data}/devices)\n\
         \x20 health    {}\n\n\
         Try in another terminal:\n\
         \x20 {unhidra} watch --data {data}\n\
         \x20 {unhidra} send {device} identify --data {data}\n\
         \x20 {unhidra} device list --data {data}\n\n\
         This is a demonstration: what it stores is not encrypted. Ctrl-C ends it.",
        started.devices.len(),
        started.console.as_ref().unwrap_or(&off),
        started.ready.mqtt.as_ref().unwrap_or(&off),
        started.ready.admin.as_ref().map_or_else(|| off.clone(), |admin| format!("{admin}/readyz")),
    )
}

fn report(summary: &Summary<'_>) -> String {
    let Summary { devices, rate, seconds, verdict, latency, .. } = summary;
    let mut text = format!(
        "{devices} devices, {rate} readings a second each, {seconds} s\n\
         \x20 published     {}\n\
         \x20 acknowledged  {}\n\
         \x20 stored        {}  (all runs on this folder)\n\
         \x20 received      {}\n\
         \x20 lost          {}\n\
         \x20 doubled       {}\n\
         \x20 publish to client: p50 {} ms, p99 {} ms, max {} ms",
        verdict.published,
        verdict.acknowledged,
        verdict.stored,
        verdict.received,
        verdict.lost,
        verdict.doubled,
        latency.p50_ms,
        latency.p99_ms,
        latency.max_ms,
    );
    for finding in &verdict.faults {
        let reading = &finding.reading;
        text.push_str(&format!("\n  {} number {}: {}", reading.device, reading.n, finding.fault));
    }
    text
}
