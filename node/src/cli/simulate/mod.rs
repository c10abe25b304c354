//! Simulated devices against any node: real clients of the device SDK over TCP and TLS.
//!
//! Each lives in a folder that `unhidra enroll` has written, and adds two files to it: `flash`,
//! what a device keeps over a reset, and `journal.jsonl`, what it says it has published. A report
//! says the same of all of them in one file. Whoever calls prints; nothing here does.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;
use unhidra_core::ids::{CommandId, DeviceId};
use unhidra_core::time::Clock;
use unhidra_device_sdk::{Fingerprint, Status};

use crate::clock::SystemClock;

mod answer;
pub mod command;
mod device;
mod flash;
mod folder;
pub mod journal;
mod kept;
pub mod report;
mod sensor;
mod transport;

use device::{Phase, SimulatedDevice, Surroundings};
use folder::DeviceFolder;

/// The longest pause between two attempts of a device to connect, where nobody asks for another.
pub const RETRY_MAX: Duration = Duration::from_secs(15);

/// What is to be simulated.
#[derive(Clone, Debug)]
pub struct SimulateOptions {
    /// The devices' folders.
    pub folders: Vec<PathBuf>,
    /// Where the node listens, `127.0.0.1:8883` for instance; else as each folder says.
    pub server: Option<String>,
    /// Readings a second, of each device.
    pub rate: f64,
    /// How long they publish; without, until they are told to end.
    pub duration: Option<Duration>,
    /// How long they then wait for what is not acknowledged.
    pub drain: Duration,
    /// Whether a write to a device's flash returns only when the disk has it. Without, a device
    /// survives the end of its process and not that of the machine.
    pub sync: bool,
    /// The longest pause between two attempts of a device to connect.
    pub retry_max: Duration,
}

/// What a simulated device did, as it happens.
#[derive(Clone, Debug)]
pub enum SimulateEvent {
    /// The node took its connection.
    Connected {
        /// Who.
        device: DeviceId,
    },
    /// It could not connect, and tries again.
    NotConnected {
        /// Who.
        device: DeviceId,
        /// To where.
        server: String,
        /// Why.
        why: String,
    },
    /// Its connection ended, and it connects again.
    Disconnected {
        /// Who.
        device: DeviceId,
        /// Why.
        why: String,
    },
    /// A session of the ratchet began.
    NewSession {
        /// Who.
        device: DeviceId,
        /// Its handshake counter.
        counter: u32,
    },
    /// A reading is on its way.
    Published(journal::Entry),
    /// The node has it.
    Acknowledged(journal::Entry),
    /// The node refused it; it is sealed anew later.
    Refused {
        /// Whose.
        device: DeviceId,
        /// Which, by the device's own number.
        n: u64,
        /// The reason code of PUBACK.
        reason: u8,
    },
    /// It was set to something it was not set to before.
    Setting {
        /// Who.
        device: DeviceId,
        /// The setting's name.
        name: String,
        /// Its value; `None` where it was removed.
        value: Option<String>,
    },
    /// It was told to do something.
    Command {
        /// Who.
        device: DeviceId,
        /// The command's id.
        command: CommandId,
        /// Its name.
        name: String,
        /// What became of it.
        status: Status,
    },
}

/// What a device did in all.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct DeviceReport {
    /// Who.
    pub device: String,
    /// Readings published.
    pub published: u64,
    /// Readings acknowledged.
    pub acknowledged: u64,
    /// Readings, or receipts, the device had no room for.
    pub held_back: u64,
    /// Times the node refused a reading.
    pub refused: u64,
    /// Commands it was given.
    pub commands: u64,
    /// Connections the node took.
    pub connections: u64,
    /// Sessions of the ratchet begun.
    pub sessions: u64,
}

/// What all of them did.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Report {
    /// Readings published.
    pub published: u64,
    /// Readings acknowledged.
    pub acknowledged: u64,
    /// Each device's part, by name.
    pub devices: Vec<DeviceReport>,
}

/// Why a simulation could not begin, or go on.
#[derive(Debug, Error)]
pub enum SimulateError {
    /// There is nothing to simulate.
    #[error("no device folder was named; `unhidra enroll DEVICE_ID --out DIR` makes one")]
    NoDevices,
    /// The rate is no rate.
    #[error("a rate of {found} readings a second; it is from 0.0001 to 10000")]
    Rate {
        /// The rate found.
        found: f64,
    },
    /// A file of a device's folder is not what it should be.
    #[error("{}: {cause}", path.display())]
    Folder {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// A file of a device's folder cannot be opened.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Nobody knows where the node listens.
    #[error("{} names no server, and none was given", folder.display())]
    NoServer {
        /// The device's folder.
        folder: PathBuf,
    },
    /// A device's flash or journal failed while it ran.
    #[error("the device {device} stopped: {source}")]
    Device {
        /// Who.
        device: DeviceId,
        /// What the system says.
        source: io::Error,
    },
}

/// Runs the devices, all as tasks of this runtime, until the duration is over or `shutdown`
/// completes; then waits for what is not acknowledged.
///
/// # Errors
///
/// [`SimulateError`]: a folder is wrong, or a device's files failed while it ran. A node that
/// cannot be reached is none: devices try again.
pub async fn run(
    options: SimulateOptions,
    rng: &mut StdRng,
    shutdown: impl Future<Output = ()>,
    tell: impl Fn(SimulateEvent) + Send + Sync + 'static,
) -> Result<Report, SimulateError> {
    let clock = SystemClock::start();
    let interval = interval(options.rate)?;
    let (phase, watched) = watch::channel(Phase::Publishing);
    let tell: Arc<dyn Fn(SimulateEvent) + Send + Sync> = Arc::new(tell);
    let mut devices = Vec::new();
    for path in &options.folders {
        let around = Surroundings {
            clock,
            phase: watched.clone(),
            tell: tell.clone(),
            interval,
            sync: options.sync,
            server: options.server.clone(),
            retry_max: options.retry_max,
        };
        devices.push(SimulatedDevice::open(DeviceFolder::read(path)?, around, rng)?);
    }
    if devices.is_empty() {
        return Err(SimulateError::NoDevices);
    }
    let mut living: JoinSet<_> = devices.into_iter().map(SimulatedDevice::live).collect();
    let mut report = Report::default();
    let first = tokio::select! {
        () = shutdown => None,
        () = over(options.duration) => None,
        // While they publish, a device ends only where it cannot go on.
        ended = living.join_next() => ended,
    };
    phase.send_replace(Phase::Draining { until: clock.now().saturating_add(options.drain) });
    let mut ended = first;
    let mut failure = None;
    loop {
        match ended {
            Some(Ok(Ok(device))) => report.add(device),
            Some(Ok(Err(error))) => failure = failure.or(Some(error)),
            Some(Err(panicked)) => std::panic::resume_unwind(panicked.into_panic()),
            None if living.is_empty() => break,
            None => {}
        }
        ended = living.join_next().await;
    }
    report.devices.sort_by(|a, b| a.device.cmp(&b.device));
    failure.map_or(Ok(report), Err)
}

/// What each device would show a person who compares.
///
/// # Errors
///
/// [`SimulateError::Folder`] names the file and what is wrong with it.
pub fn fingerprints(folders: &[PathBuf]) -> Result<Vec<(DeviceId, Fingerprint)>, SimulateError> {
    let read = |path: &PathBuf| DeviceFolder::read(path).map(|folder| folder.identity);
    folders.iter().map(|path| read(path).map(|identity| (identity.device, identity.fingerprint()))).collect()
}

impl Report {
    fn add(&mut self, device: DeviceReport) {
        self.published += device.published;
        self.acknowledged += device.acknowledged;
        self.devices.push(device);
    }
}

fn interval(rate: f64) -> Result<Duration, SimulateError> {
    if (0.0001..=10_000.0).contains(&rate) {
        Ok(Duration::from_secs_f64(1.0 / rate))
    } else {
        Err(SimulateError::Rate { found: rate })
    }
}

async fn over(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}
