//! `unhidra simulate`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;

use super::report::ReportFile;
use super::{RETRY_MAX, SimulateEvent, SimulateOptions};
use crate::cli::fingerprint::Shown;
use crate::cli::output::{Output, name};
use crate::cli::run::{Signals, Told};
use crate::cli::{CliError, Global};
use crate::config::Purpose;
use crate::log;

/// Runs simulated devices against any node.
#[derive(Debug, clap::Args)]
pub struct Simulate {
    /// The devices' folders, as `unhidra enroll` writes them.
    #[arg(value_name = "DIR", required = true)]
    pub folders: Vec<PathBuf>,
    /// Where the node listens, 127.0.0.1:8883 for instance; else as each folder says.
    #[arg(long, value_name = "HOST:PORT")]
    pub server: Option<String>,
    /// Readings a second, of each device.
    #[arg(long, value_name = "R", default_value_t = 1.0)]
    pub rate: f64,
    /// Ends after so many seconds; without, when it is interrupted.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..))]
    pub seconds: Option<u32>,
    /// How long, at the end, devices wait for what is not acknowledged, in seconds.
    #[arg(long, value_name = "S", default_value_t = 20)]
    pub drain: u32,
    /// Has each write to a device's flash reach the disk, so that it survives the machine's end too.
    #[arg(long)]
    pub sync: bool,
    /// Shows each device's fingerprint, as the device itself computes it, and runs nothing.
    #[arg(long, conflicts_with_all = ["server", "rate", "seconds", "drain", "sync", "report", "retry_max"])]
    pub fingerprint: bool,
    /// Says in this file, as it happens, of each reading that it was published and that it was acknowledged:
    /// JSON lines, after those that are there. The last line of a run says what each device did.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// The longest pause between two attempts of a device to connect, in ms; 15 s unless set.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..))]
    pub retry_max: Option<u32>,
}

/// Runs the devices, says what happens on stderr, and at the end what they did.
pub(in crate::cli) async fn run(
    args: &Simulate,
    global: &Global,
    mut rng: StdRng,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    if args.fingerprint {
        return fingerprints(args, out);
    }
    let mut signals = Signals::listen()?;
    log::start(&global.sources(Purpose::Node).load()?.config.log)?;
    let options = SimulateOptions {
        folders: args.folders.clone(),
        server: args.server.clone(),
        rate: args.rate,
        duration: args.seconds.map(|seconds| Duration::from_secs(seconds.into())),
        drain: Duration::from_secs(args.drain.into()),
        sync: args.sync,
        retry_max: args.retry_max.map_or(RETRY_MAX, |ms| Duration::from_millis(ms.into())),
    };
    let failed = |path: &PathBuf| {
        let path = path.clone();
        move |source| CliError::File { path, source }
    };
    let file = args.report.as_ref().map(|path| ReportFile::open(path).map_err(failed(path))).transpose()?;
    let file = Arc::new(file);
    let interrupted = async {
        tokio::select! {
            () = async { while signals.next().await == Told::Reload {} } => {}
            // A report with a gap proves nothing: who cannot write it ends.
            () = gap(file.as_ref().as_ref()) => {}
        }
    };
    let written = file.clone();
    let hear = move |event: SimulateEvent| {
        if let Some(file) = written.as_ref() {
            file.event(&event);
        }
        tell(event);
    };
    let report = super::run(options, &mut rng, interrupted, hear).await?;
    if let (Some(path), Some(file)) = (&args.report, file.as_ref()) {
        file.end(&report).map_err(failed(path))?;
    }
    let text = format!(
        "{} devices: published {}, acknowledged {}",
        report.devices.len(),
        report.published,
        report.acknowledged
    );
    out.say(&report, &text)
}

/// Completes once a line of the report could not be written.
async fn gap(file: Option<&ReportFile>) {
    match file {
        Some(file) => file.failed().await,
        None => std::future::pending().await,
    }
}

fn fingerprints(args: &Simulate, out: &mut Output<'_>) -> Result<(), CliError> {
    for (device, fingerprint) in super::fingerprints(&args.folders)? {
        let shown = Shown::new(&device, &fingerprint);
        out.say(&shown, &format!("{device}\n{fingerprint}\n{}", shown.code))?;
    }
    Ok(())
}

fn tell(event: SimulateEvent) {
    match event {
        SimulateEvent::Connected { device } => tracing::info!(%device, "connected"),
        SimulateEvent::NotConnected { device, server, why } => {
            tracing::warn!(%device, server, why, "cannot connect; tries again");
        }
        SimulateEvent::Disconnected { device, why } => tracing::warn!(%device, why, "disconnected; connects again"),
        SimulateEvent::NewSession { device, counter } => tracing::info!(%device, counter, "a new session"),
        SimulateEvent::Refused { device, n, reason } => {
            tracing::warn!(%device, n, reason, "the node refused a reading; it is sealed anew");
        }
        SimulateEvent::Setting { device, name: setting, value } => {
            let value = value.as_deref().map_or_else(|| "(removed)".to_owned(), name);
            tracing::info!(%device, setting = name(&setting), value, "a setting");
        }
        SimulateEvent::Command { device, name: command, status, .. } => {
            tracing::info!(%device, command = name(&command), ?status, "a command");
        }
        SimulateEvent::Published(_) | SimulateEvent::Acknowledged(_) => {}
    }
}
