//! One simulated device: it dials, publishes what its sensor says, obeys, and keeps a journal.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::num::NonZeroU8;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustls::ClientConfig;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior};
use unhidra_core::ids::DeviceId;
use unhidra_core::time::{Clock, Timestamp};
use unhidra_device_sdk::LoadError;
use unhidra_device_sdk::backoff::BackoffOptions;
use unhidra_device_sdk::client::{Qos, RECEIVE_MAX};
use unhidra_device_sdk::device::{Device, Event, Fault, Settings, Turn, packet_len};
use unhidra_device_sdk::outbox::{ReadingId, WhenFull};
use unhidra_device_sdk::topics::Prefix;

use super::answer::{interval, obey};
use super::flash::Flash;
use super::folder::DeviceFolder;
use super::journal::{Entry, Journal};
use super::kept::Kept;
use super::sensor::Sensor;
use super::transport::Tls;
use super::{DeviceReport, SimulateError, SimulateEvent};
use crate::clock::SystemClock;

/// The longest body; a reading has about 40 bytes, a command may have more.
const BODY: usize = 256;
/// Readings that may wait, and the SDK's own for receipts.
const SLOTS: usize = 64 + RECEIVE_MAX;
/// Messages on their way at once.
const WINDOW: usize = 16;
const PACKET: usize = packet_len(BODY);

type Small = Device<Flash, StdRng, SLOTS, BODY, WINDOW, PACKET>;

/// How long TCP and TLS may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// The setting that says how many seconds there are between two readings.
const INTERVAL: &str = "interval";

/// What all devices are doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    /// They publish.
    Publishing,
    /// They publish no more, and wait until all is acknowledged, or for this instant.
    Draining { until: Timestamp },
}

/// What all devices share.
pub(super) struct Surroundings {
    pub(super) clock: SystemClock,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) tell: Arc<dyn Fn(SimulateEvent) + Send + Sync>,
    pub(super) interval: Duration,
    /// Whether flash is flash: a write returns when the disk has it.
    pub(super) sync: bool,
    /// Where the node listens; else as each folder says.
    pub(super) server: Option<String>,
    /// The longest pause between two attempts to connect.
    pub(super) retry_max: Duration,
}

/// A simulated device.
pub(super) struct SimulatedDevice {
    id: DeviceId,
    device: Box<Small>,
    journal: Journal,
    kept: Kept,
    sensor: Sensor,
    rng: StdRng,
    ticks: Interval,
    /// The journal's number of each reading that is not acknowledged.
    numbers: HashMap<ReadingId, u64>,
    server: String,
    tls: Arc<ClientConfig>,
    around: Surroundings,
    report: DeviceReport,
}

/// Why a loop over a connection, or between two, was left.
enum Left {
    /// There is nothing more to do at all.
    Done,
    /// The connection is over, or could not be made.
    Disconnected,
}

impl SimulatedDevice {
    /// Opens a device in its folder.
    pub(super) fn open(folder: DeviceFolder, around: Surroundings, rng: &mut StdRng) -> Result<Self, SimulateError> {
        let file = |path: PathBuf| move |source| SimulateError::File { path, source };
        let id = folder.identity.device;
        let (flash_path, journal_path) = (folder.path.join("flash"), folder.path.join(super::journal::FILE));
        let flash = Flash::open(&flash_path, around.sync).map_err(file(flash_path.clone()))?;
        let journal = Journal::open(&journal_path).map_err(file(journal_path))?;
        let kept = Kept::open(&folder.path).map_err(file(folder.path.clone()))?;
        let server = around.server.clone().or(folder.server);
        let server = server.ok_or_else(|| SimulateError::NoServer { folder: folder.path.clone() })?;
        let now = around.clock.now();
        let opened =
            Device::open(settings(folder.prefix, around.retry_max), folder.identity, flash, StdRng::from_rng(rng), now);
        let mut device = Box::new(opened.map_err(|error| SimulateError::Folder {
            path: flash_path,
            cause: match error {
                LoadError::Storage(error) => error.to_string(),
                LoadError::Session(error) => error.to_string(),
                LoadError::SuiteNotBuilt(suite) => format!("this build leaves out {suite}"),
                LoadError::Damaged(record) => format!("the record {record:?} is damaged"),
            },
        })?);
        device.set_time(around.clock.unix_now(), now);
        let mut rng = StdRng::from_rng(rng);
        // Devices that were started together do not publish together.
        let first = around.interval.mul_f64(rng.random_range(0.0..1.0));
        Ok(Self {
            id,
            device,
            journal,
            kept,
            sensor: Sensor::new(&mut rng),
            rng,
            ticks: ticks(first, around.interval),
            numbers: HashMap::new(),
            server,
            tls: folder.tls,
            around,
            report: DeviceReport { device: id.as_str().to_owned(), ..DeviceReport::default() },
        })
    }

    /// Lives until it is told to end and has nothing left to say.
    pub(super) async fn live(mut self) -> Result<DeviceReport, SimulateError> {
        let lived = self.live_on().await;
        let flushed = self.journal.flush().map_err(|source| self.failed(source));
        lived.and(flushed).map(|()| self.report)
    }

    async fn live_on(&mut self) -> Result<(), SimulateError> {
        // A first reading before the first connection, so that a session begins with it.
        self.publish()?;
        loop {
            let transport = match self.dial().await? {
                Ok(transport) => transport,
                Err(Left::Done) => return Ok(()),
                Err(Left::Disconnected) => continue,
            };
            self.device.connected(self.now());
            let left = self.talk(transport).await?;
            self.device.disconnected(self.now());
            self.hear()?;
            if let Left::Done = left {
                return Ok(());
            }
        }
    }

    /// Waits until it is time to dial, and dials; goes on publishing meanwhile.
    async fn dial(&mut self) -> Result<Result<Tls, Left>, SimulateError> {
        let wait = self.device.dial_at().unwrap_or_default().saturating_since(self.now());
        let (server, tls) = (self.server.clone(), self.tls.clone());
        let mut dialling = Box::pin(async move {
            tokio::time::sleep(wait).await;
            tokio::time::timeout(DIAL_TIMEOUT, Tls::dial(&server, tls)).await
        });
        loop {
            if self.is_done() {
                return Ok(Err(Left::Done));
            }
            let (publishing, drained) = (self.publishes(), sleep(self.drains_for()));
            tokio::select! {
                dialled = &mut dialling => {
                    let why = match dialled {
                        Ok(Ok(transport)) => return Ok(Ok(transport)),
                        Ok(Err(error)) => error.to_string(),
                        Err(_) => format!("no answer within {} s", DIAL_TIMEOUT.as_secs()),
                    };
                    self.device.disconnected(self.now());
                    self.tell(|device| SimulateEvent::NotConnected { device, server: self.server.clone(), why });
                    return Ok(Err(Left::Disconnected));
                }
                _ = self.ticks.tick(), if publishing => self.publish()?,
                () = changed(&mut self.around.phase) => {}
                () = drained => {}
            }
        }
    }

    /// Moves bytes until the connection is over, or all is said.
    async fn talk(&mut self, mut transport: Tls) -> Result<Left, SimulateError> {
        let mut buffer = vec![0; 4096];
        let mut leave_by = None;
        loop {
            self.hear()?;
            if self.is_done() && leave_by.is_none() {
                self.device.disconnect();
                leave_by = Some(self.now().saturating_add(LEAVE_WITHIN));
            }
            let now = self.now();
            let publishing = self.publishes();
            let due = sleep(self.device.poll_timeout().map(|at| at.saturating_since(now)));
            let over = sleep(leave_by.map_or(self.drains_for(), |by| Some(by.saturating_since(now))));
            let (device, clock) = (&mut self.device, self.around.clock);
            tokio::select! {
                turned = poll_fn(|context| device.poll_turn(&mut transport, &mut buffer, context, clock.now())) => {
                    match turned {
                        Ok(Turn::Moved) => {}
                        Ok(Turn::Over) if leave_by.is_some() => return Ok(Left::Done),
                        Ok(Turn::Over) => return Ok(Left::Disconnected),
                        Err(fault) => return Err(self.stopped(fault)),
                    }
                }
                () = due => self.device.handle_timeout(self.now()),
                _ = self.ticks.tick(), if publishing => self.publish()?,
                () = changed(&mut self.around.phase) => {}
                // A node that does not take the DISCONNECT is left without.
                () = over => if leave_by.is_some() {
                    return Ok(Left::Done);
                }
            }
        }
    }

    /// Takes a sample, and publishes it if the outbox has room.
    fn publish(&mut self) -> Result<(), SimulateError> {
        let (n, unix) = (self.journal.next(), self.around.clock.unix_now());
        let sample = self.sensor.sample(n, unix, &mut self.rng);
        let body = sample.body(n);
        let Ok(queued) = self.device.publish(sample.name, body.as_bytes(), Qos::AtLeastOnce, self.now()) else {
            self.report.held_back += 1;
            return Ok(());
        };
        let entry = Entry {
            device: self.report.device.clone(),
            n,
            reading: queued.reading.0,
            sha256: sha256_hex(body.as_bytes()),
            published_at: unix.as_ms(),
            acknowledged_at: None,
        };
        self.numbers.insert(queued.reading, n);
        self.report.published += 1;
        self.journal.published(entry.clone()).map_err(|source| self.failed(source))?;
        self.tell(|_| SimulateEvent::Published(entry));
        Ok(())
    }

    /// Hears what has happened, and obeys.
    fn hear(&mut self) -> Result<(), SimulateError> {
        let (id, now) = (self.id, self.now());
        loop {
            let heard = match self.device.poll_event() {
                None => break,
                Some(Event::Acknowledged(reading)) => {
                    self.acknowledged(reading)?;
                    continue;
                }
                Some(Event::Command { ticket, name, body, .. }) => {
                    let (name, answer) = (name.to_owned(), obey(name, body));
                    let (command, status) = (ticket.id(), answer.status);
                    if let Some(interval) = answer.interval {
                        self.ticks = ticks(interval, interval);
                    }
                    self.report.commands += 1;
                    if self.device.answer(ticket, answer.status, &answer.body, now).is_err() {
                        // The outbox is full of receipts: whoever sent the command has its expiry.
                        self.report.held_back += 1;
                    }
                    SimulateEvent::Command { device: id, command, name, status }
                }
                Some(Event::Setting { ticket, name, value, version }) => {
                    let (name, kept) = (name.to_owned(), self.kept.keep(name, value, version));
                    let is_news = kept.map_err(|source| self.failed(source))?;
                    self.device.applied(ticket);
                    if !is_news {
                        continue;
                    }
                    if name == INTERVAL {
                        self.set_interval();
                    }
                    SimulateEvent::Setting { device: id, value: self.kept.get(&name).map(str::to_owned), name }
                }
                Some(Event::Connected { .. }) => {
                    self.report.connections += 1;
                    SimulateEvent::Connected { device: id }
                }
                Some(Event::NewSession { counter }) => {
                    self.report.sessions += 1;
                    SimulateEvent::NewSession { device: id, counter }
                }
                Some(Event::Disconnected { why, .. }) => {
                    SimulateEvent::Disconnected { device: id, why: why.to_string() }
                }
                Some(Event::Refused { reading, reason }) => {
                    self.report.refused += 1;
                    let n = self.numbers.get(&reading).copied().unwrap_or(0);
                    SimulateEvent::Refused { device: id, n, reason: reason.0 }
                }
            };
            self.tell(|_| heard);
        }
        self.journal.flush().map_err(|source| self.failed(source))
    }

    /// Publishes as often as it is set to, or else as it was started with.
    fn set_interval(&mut self) {
        let set = self.kept.get(INTERVAL).and_then(|seconds| interval(seconds.as_bytes()));
        let interval = set.unwrap_or(self.around.interval);
        self.ticks = ticks(interval, interval);
    }

    fn acknowledged(&mut self, reading: ReadingId) -> Result<(), SimulateError> {
        let Some(n) = self.numbers.remove(&reading) else { return Ok(()) };
        let unix = self.around.clock.unix_now();
        let entry = self.journal.acknowledged(n, unix.as_ms()).map_err(|source| self.failed(source))?;
        if let Some(entry) = entry {
            self.report.acknowledged += 1;
            self.tell(|_| SimulateEvent::Acknowledged(entry));
        }
        Ok(())
    }

    /// Whether it was told to end, and all is acknowledged or the wait is over.
    fn is_done(&self) -> bool {
        match *self.around.phase.borrow() {
            Phase::Publishing => false,
            Phase::Draining { until } => self.device.waiting() == 0 || self.now() >= until,
        }
    }

    fn publishes(&self) -> bool {
        *self.around.phase.borrow() == Phase::Publishing
    }

    /// How much longer it waits for the last acknowledgements.
    fn drains_for(&self) -> Option<Duration> {
        match *self.around.phase.borrow() {
            Phase::Publishing => None,
            Phase::Draining { until } => Some(until.saturating_since(self.now())),
        }
    }

    fn now(&self) -> Timestamp {
        self.around.clock.now()
    }

    fn tell(&self, event: impl FnOnce(DeviceId) -> SimulateEvent) {
        (self.around.tell)(event(self.id));
    }

    fn failed(&self, source: io::Error) -> SimulateError {
        SimulateError::Device { device: self.id, source }
    }

    fn stopped(&self, fault: Fault<io::Error>) -> SimulateError {
        let source = match fault {
            Fault::Storage(source) => source,
            Fault::Stopped => io::Error::other(Fault::<io::Error>::Stopped.to_string()),
        };
        self.failed(source)
    }
}

/// How long DISCONNECT may take to leave.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// The first pause before another attempt to connect.
const RETRY_FIRST: Duration = Duration::from_millis(250);

fn settings(prefix: Prefix, retry_max: Duration) -> Settings {
    Settings {
        prefix,
        keep_alive_s: 30,
        session_expiry_s: 3600,
        response_timeout: Duration::from_secs(10),
        lease: NonZeroU8::MIN.saturating_add(31),
        when_full: WhenFull::RefuseNew,
        backoff: BackoffOptions {
            first: RETRY_FIRST.min(retry_max),
            max: retry_max,
            stable_after: Duration::from_secs(10),
        },
    }
}

fn ticks(first: Duration, period: Duration) -> Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.reset_after(first);
    // A machine that was busy catches up: the rate is what was asked for.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    ticks
}

/// Completes when the phase changes; never once nobody can change it.
async fn changed(phase: &mut watch::Receiver<Phase>) {
    if phase.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Completes after `duration`; never without one.
async fn sleep(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

fn sha256_hex(bytes: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
