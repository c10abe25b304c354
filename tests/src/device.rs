//! A device: the SDK, whole, on a wire of the world.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU8;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, sleep_until, timeout};
use unhidra_broker::{Identity as PeerIdentity, PeerCertificate};
use unhidra_core::ids::DeviceId;
use unhidra_core::time::{Clock as _, UnixTime};
use unhidra_device_sdk::backoff::BackoffOptions;
use unhidra_device_sdk::client::Qos;
use unhidra_device_sdk::device::{Device, Event, Fault, Settings, packet_len};
use unhidra_device_sdk::outbox::{ReadingId, WhenFull};
use unhidra_device_sdk::storage::{Record, Storage, Write};
use unhidra_device_sdk::topics::Prefix;
use unhidra_device_sdk::{Identity, IdentityKey, IdentitySecret, Status, Suite};

use crate::clock::SimClock;
use crate::door::{Network, Wire};
use crate::fuse::{Fuse, Passage, Side};

const BODY: usize = 128;
const SLOTS: usize = 64;
const WINDOW: usize = 8;
/// Longer than any scenario waits for a device at once: those that let hours pass sleep them.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);
type Sdk = Device<Flash, StdRng, SLOTS, BODY, WINDOW, { packet_len(BODY) }>;

/// What flash holds.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// The SDK's.
    records: BTreeMap<u8, Vec<u8>>,
    /// The application's: what it was set to, versions and values by name.
    settings: Settled,
}

/// What a device was set to: versions and values by name.
type Settled = BTreeMap<String, (u64, Option<String>)>;

/// Flash that outlives the device, and fails only where the device is to die.
#[derive(Clone, Debug, Default)]
struct Flash {
    image: Arc<Mutex<Image>>,
    fuse: Fuse,
}

impl Flash {
    fn lock(&self) -> MutexGuard<'_, Image> {
        self.image.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The device is dead.
#[derive(Debug)]
struct Dead;

impl Storage for Flash {
    type Error = Dead;

    fn read(&mut self, record: Record, out: &mut [u8]) -> Result<Option<usize>, Dead> {
        let records = &self.lock().records;
        Ok(records.get(&record.index()).map(|bytes| {
            out[..bytes.len()].copy_from_slice(bytes);
            bytes.len()
        }))
    }

    fn write(&mut self, writes: &[Write<'_>]) -> Result<(), Dead> {
        let passage = self.fuse.write();
        if passage == Passage::Shut {
            return Err(Dead);
        }
        let records = &mut self.lock().records;
        for write in writes {
            records.insert(write.record.index(), write.bytes.to_vec());
        }
        if passage == Passage::Last { Err(Dead) } else { Ok(()) }
    }
}

/// What a device has seen happen.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Bodies the node has acknowledged.
    pub acknowledged: BTreeSet<String>,
    /// Commands acted on: name and body.
    pub commands: Vec<(String, String)>,
    /// What it is set to, as its flash has it.
    pub settings: Settled,
    /// Sessions begun.
    pub sessions: u32,
    /// Times the node took the connection.
    pub connections: u32,
    /// Times the device died.
    pub deaths: u32,
}

/// A handle to a device that lives in the world.
pub struct SimDevice {
    /// Its name.
    pub id: DeviceId,
    say: mpsc::UnboundedSender<String>,
    log: watch::Receiver<Log>,
    flash: Flash,
    wire: Fuse,
    acts: Fuse,
    calendar: Calendar,
    task: tokio::task::JoinHandle<()>,
}

/// What its calendar is to be set to at the next thing that happens to it.
type Calendar = Arc<Mutex<Option<UnixTime>>>;

/// Who a device is, and where.
pub(crate) struct Birth {
    pub(crate) seed: [u8; 32],
    pub(crate) node: IdentityKey,
    pub(crate) suite: Suite,
    pub(crate) certificate: PeerCertificate,
    pub(crate) rng: StdRng,
    pub(crate) network: Network,
    pub(crate) clock: SimClock,
}

impl SimDevice {
    pub(crate) fn switch_on(birth: Birth) -> Self {
        let (say, said) = mpsc::unbounded_channel();
        let (log, seen) = watch::channel(Log::default());
        let id = birth.certificate.device;
        let (flash, wire, acts) = (Flash::default(), Fuse::default(), Fuse::default());
        let (fuses, calendar) = (Fuses { wire: wire.clone(), acts: acts.clone() }, Calendar::default());
        let task = tokio::spawn(live(birth, flash.clone(), fuses, calendar.clone(), said, log));
        Self { id, say, log: seen, flash, wire, acts, calendar, task }
    }

    /// It dies before or after a write to its flash, the one after so many others; what it had in memory
    /// is lost, and it begins again.
    pub fn dies_at_write(&self, side: Side, after: u32) {
        self.flash.fuse.light(side, after);
    }

    /// It dies before or after it sends something, the one after so many others.
    pub fn dies_at_transmit(&self, side: Side, after: u32) {
        self.wire.light(side, after);
    }

    /// It dies before or after it carries out a command or keeps a setting, the one after so many others.
    pub fn dies_at_act(&self, side: Side, after: u32) {
        self.acts.light(side, after);
    }

    /// It dies no more.
    pub fn spare(&self) {
        self.flash.fuse.mend();
        self.wire.mend();
        self.acts.mend();
    }

    /// A copy of its flash, as one would make of its memory card.
    #[must_use]
    pub fn copy(&self) -> Image {
        self.flash.lock().clone()
    }

    /// It is switched off, and begins again with another flash.
    pub async fn put_back(&mut self, image: Image) {
        let deaths = self.log().deaths;
        self.flash.fuse.light(Side::Before, 0);
        self.wire.light(Side::Before, 0);
        // From here on it writes nothing more.
        *self.flash.lock() = image;
        self.until(|log| log.deaths > deaths).await;
    }

    /// Somebody sets its calendar, before the next thing that happens to it.
    pub fn set_calendar(&self, to: UnixTime) {
        *self.calendar.lock().unwrap_or_else(PoisonError::into_inner) = Some(to);
    }

    /// Takes a reading; it is published when there is a connection.
    pub fn publish(&self, body: &str) {
        assert!(self.say.send(body.to_owned()).is_ok(), "the device is on");
    }

    /// Waits until what the device has seen satisfies `enough`.
    ///
    /// # Panics
    ///
    /// Where it does not within a day of the world, or the device ends.
    pub async fn until(&mut self, enough: impl FnMut(&Log) -> bool) -> Log {
        let waited = timeout(PATIENCE, self.log.wait_for(enough)).await.map(|log| log.map(|log| log.clone()));
        match waited {
            Ok(Ok(log)) => log,
            Ok(Err(_)) => panic!("{} ended; it has seen {:?}", self.id, self.log()),
            Err(_) => panic!("not within a day; {} has seen {:?}", self.id, self.log()),
        }
    }

    /// Waits until the node has acknowledged this many readings.
    ///
    /// # Panics
    ///
    /// Where it has not within a day of the world.
    pub async fn acknowledged(&mut self, count: usize) -> BTreeSet<String> {
        self.until(|log| log.acknowledged.len() >= count).await.acknowledged
    }

    /// What the device has seen so far.
    #[must_use]
    pub fn log(&self) -> Log {
        self.log.borrow().clone()
    }
}

impl Drop for SimDevice {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where a device dies, beside its flash.
struct Fuses {
    wire: Fuse,
    acts: Fuse,
}

async fn live(
    birth: Birth,
    flash: Flash,
    fuses: Fuses,
    calendar: Calendar,
    mut said: mpsc::UnboundedReceiver<String>,
    log: watch::Sender<Log>,
) {
    let Birth { seed, node, suite, certificate, mut rng, network, clock } = birth;
    loop {
        let secret = IdentitySecret::from_seed(&seed);
        let identity = Identity { device: certificate.device, secret, node, suite };
        let born = Sdk::open(settings(), identity, flash.clone(), StdRng::from_rng(&mut rng), clock.now());
        let life = Life {
            sdk: born.expect("opens"),
            bodies: BTreeMap::new(),
            waiting: None,
            fuses: &fuses,
            clock: clock.clone(),
            calendar: &calendar,
            flash: &flash,
            log: &log,
        };
        let Dead = life.live(&network, &certificate, &mut said).await;
        // Whatever it was, it is over, and another life has another of each.
        log.send_modify(|log| {
            log.deaths += 1;
            log.settings = flash.lock().settings.clone();
        });
        flash.fuse.mend();
        fuses.wire.mend();
        fuses.acts.mend();
        sleep(Duration::from_millis(rng.random_range(0..2000))).await;
    }
}

fn settings() -> Settings {
    Settings {
        prefix: Prefix::parse("unhidra").expect("a topic"),
        keep_alive_s: 30,
        session_expiry_s: 3600,
        response_timeout: Duration::from_secs(10),
        lease: NonZeroU8::new(32).expect("not 0"),
        when_full: WhenFull::RefuseNew,
        backoff: BackoffOptions {
            first: Duration::from_millis(200),
            max: Duration::from_secs(5),
            stable_after: Duration::from_secs(1),
        },
    }
}

/// One life of a device, with what it has in memory.
struct Life<'a> {
    sdk: Sdk,
    bodies: BTreeMap<ReadingId, String>,
    waiting: Option<String>,
    fuses: &'a Fuses,
    clock: SimClock,
    calendar: &'a Calendar,
    flash: &'a Flash,
    log: &'a watch::Sender<Log>,
}

impl Life<'_> {
    /// Lives until it dies.
    async fn live(
        mut self,
        network: &Network,
        certificate: &PeerCertificate,
        said: &mut mpsc::UnboundedReceiver<String>,
    ) -> Dead {
        loop {
            let Some(dial_at) = self.sdk.dial_at() else { unreachable!("the wire below is gone") };
            sleep_until(self.clock.instant(dial_at)).await;
            let identity = PeerIdentity::Device(certificate.clone());
            match network.dial(identity, certificate.device.as_str()).await {
                Some(wire) => {
                    self.sdk.connected(self.clock.now());
                    if let Err(dead) = self.talk(wire, said).await {
                        // What it heard before it died it has heard.
                        let _ = self.take_events();
                        return dead;
                    }
                }
                None => self.sdk.disconnected(self.clock.now()),
            }
            if let Err(dead) = self.take_events() {
                return dead;
            }
        }
    }

    /// Drives one connection to its end.
    async fn talk(&mut self, wire: Wire, said: &mut mpsc::UnboundedReceiver<String>) -> Result<(), Dead> {
        let Wire { mut stream, mut cut } = wire;
        let mut buffer = [0; 4096];
        let clock = self.clock.clone();
        loop {
            if let Some(to) = self.calendar.lock().unwrap_or_else(PoisonError::into_inner).take() {
                self.sdk.set_time(to, clock.now());
            }
            if let Some(body) = self.waiting.take() {
                match self.sdk.publish("value", body.as_bytes(), Qos::AtLeastOnce, clock.now()) {
                    Ok(queued) => drop(self.bodies.insert(queued.reading, body)),
                    Err(_) => self.waiting = Some(body),
                }
            }
            // What follows from them leaves at once.
            self.take_events()?;
            while let Some(bytes) = self.sdk.poll_transmit(clock.now()).map_err(dead)? {
                let passage = self.fuses.wire.write();
                let len = bytes.len();
                if passage == Passage::Shut {
                    return Err(Dead);
                }
                let written = stream.write_all(bytes).await;
                if passage == Passage::Last {
                    return Err(Dead);
                }
                if written.is_err() {
                    break;
                }
                self.sdk.transmitted(len, clock.now());
            }
            if self.sdk.is_finished() {
                break;
            }
            let timeout = self.sdk.poll_timeout();
            let more = tokio::select! {
                biased;
                _ = cut.recv() => break,
                read = stream.read(&mut buffer) => match read {
                    Ok(0) | Err(_) => break,
                    Ok(len) => Some(len),
                },
                Some(body) = said.recv(), if self.waiting.is_none() => {
                    self.waiting = Some(body);
                    None
                }
                () = async {
                    match timeout {
                        Some(at) => sleep_until(clock.instant(at)).await,
                        None => std::future::pending().await,
                    }
                } => {
                    self.sdk.handle_timeout(clock.now());
                    None
                }
            };
            if let Some(len) = more {
                self.sdk.handle_bytes(&buffer[..len], clock.now()).map_err(dead)?;
            }
        }
        self.sdk.disconnected(clock.now());
        Ok(())
    }

    fn take_events(&mut self) -> Result<(), Dead> {
        let Self { sdk, bodies, clock, log, fuses, flash, .. } = self;
        while let Some(event) = sdk.poll_event() {
            match event {
                Event::Acknowledged(id) => {
                    if let Some(body) = bodies.remove(&id) {
                        log.send_modify(|log| assert!(log.acknowledged.insert(body), "acknowledged twice"));
                    }
                }
                Event::Command { ticket, name, body, .. } => {
                    let (name, body) = (name.to_owned(), String::from_utf8_lossy(body).into_owned());
                    let status = if name == "fail" { Status::Failed } else { Status::Done };
                    act(&fuses.acts, || log.send_modify(|log| log.commands.push((name, body))))?;
                    assert!(sdk.answer(ticket, status, &[], clock.now()).is_ok(), "receipts have room of their own");
                }
                Event::Setting { ticket, name, value, version } => {
                    let (name, value) = (name.to_owned(), value.map(|text| String::from_utf8_lossy(text).into_owned()));
                    let keep = |kept: &mut Settled| match kept.get(&name) {
                        Some((newest, _)) if *newest >= version => {}
                        _ => drop(kept.insert(name.clone(), (version, value.clone()))),
                    };
                    act(&fuses.acts, || {
                        keep(&mut flash.lock().settings);
                        log.send_modify(|log| keep(&mut log.settings));
                    })?;
                    sdk.applied(ticket);
                }
                Event::NewSession { .. } => log.send_modify(|log| log.sessions += 1),
                Event::Connected { .. } => log.send_modify(|log| log.connections += 1),
                Event::Disconnected { .. } | Event::Refused { .. } => {}
            }
        }
        Ok(())
    }
}

/// Does what the device is told, unless it dies before or after it.
fn act(fuse: &Fuse, does: impl FnOnce()) -> Result<(), Dead> {
    let passage = fuse.write();
    if passage == Passage::Shut {
        return Err(Dead);
    }
    does();
    if passage == Passage::Last { Err(Dead) } else { Ok(()) }
}

/// Flash fails where the device is to die, and nowhere else.
fn dead(fault: Fault<Dead>) -> Dead {
    match fault {
        Fault::Storage(dead) => dead,
        Fault::Stopped => unreachable!("nobody drives a device on after its flash failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;

    /// Else a scenario that breaks would hang.
    #[tokio::test(start_paused = true)]
    #[should_panic(expected = r#"not within a day; pump-7 has seen Log { acknowledged: {"0"}, commands: []"#)]
    async fn what_a_device_never_sees_is_waited_for_a_day_and_what_it_has_seen_is_said() {
        let mut world = World::new(1).await;
        let mut pump = world.provision("pump-7").await;
        pump.publish("0");
        pump.acknowledged(1).await;
        drop(timeout(2 * PATIENCE, pump.until(|log| log.deaths > 0)).await);
    }
}
