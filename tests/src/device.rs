//! A device: the SDK, whole, on a wire of the world.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::num::NonZeroU8;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;
use unhidra_broker::{Identity as PeerIdentity, PeerCertificate};
use unhidra_core::ids::DeviceId;
use unhidra_core::time::Clock as _;
use unhidra_device_sdk::backoff::BackoffOptions;
use unhidra_device_sdk::client::Qos;
use unhidra_device_sdk::device::{Device, Event, Settings, packet_len};
use unhidra_device_sdk::outbox::{ReadingId, WhenFull};
use unhidra_device_sdk::storage::{Record, Storage, Write};
use unhidra_device_sdk::topics::Prefix;
use unhidra_device_sdk::{Identity, Status};

use crate::clock::SimClock;
use crate::door::{Network, Wire};

const BODY: usize = 128;
const SLOTS: usize = 64;
const WINDOW: usize = 8;
type Sdk = Device<Flash, StdRng, SLOTS, BODY, WINDOW, { packet_len(BODY) }>;

/// Flash that outlives the device, and never fails.
#[derive(Clone, Debug, Default)]
struct Flash(Arc<Mutex<BTreeMap<u8, Vec<u8>>>>);

impl Storage for Flash {
    type Error = Infallible;

    fn read(&mut self, record: Record, out: &mut [u8]) -> Result<Option<usize>, Infallible> {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(records.get(&record.index()).map(|bytes| {
            out[..bytes.len()].copy_from_slice(bytes);
            bytes.len()
        }))
    }

    fn write(&mut self, writes: &[Write<'_>]) -> Result<(), Infallible> {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for write in writes {
            records.insert(write.record.index(), write.bytes.to_vec());
        }
        Ok(())
    }
}

/// What a device has seen happen.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Bodies the node has acknowledged.
    pub acknowledged: BTreeSet<String>,
    /// Commands acted on: name and body.
    pub commands: Vec<(String, String)>,
    /// Sessions begun.
    pub sessions: u32,
    /// Times the node took the connection.
    pub connections: u32,
}

/// A handle to a device that lives in the world.
pub struct SimDevice {
    /// Its name.
    pub id: DeviceId,
    say: mpsc::UnboundedSender<String>,
    log: watch::Receiver<Log>,
    task: tokio::task::JoinHandle<()>,
}

/// Who a device is, and where.
pub(crate) struct Birth {
    pub(crate) identity: Identity,
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
        let task = tokio::spawn(live(birth, said, log));
        Self { id, say, log: seen, task }
    }

    /// Takes a reading; it is published when there is a connection.
    pub fn publish(&self, body: &str) {
        assert!(self.say.send(body.to_owned()).is_ok(), "the device is on");
    }

    /// Waits until what the device has seen satisfies `enough`.
    pub async fn until(&mut self, enough: impl FnMut(&Log) -> bool) -> Log {
        match self.log.wait_for(enough).await {
            Ok(log) => log.clone(),
            Err(_) => panic!("the device ended"),
        }
    }

    /// Waits until the node has acknowledged this many readings.
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

async fn live(birth: Birth, mut said: mpsc::UnboundedReceiver<String>, log: watch::Sender<Log>) {
    let Birth { identity, certificate, rng, network, clock } = birth;
    let settings = Settings {
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
    };
    let mut sdk = Sdk::open(settings, identity, Flash::default(), rng, clock.now()).expect("opens");
    let mut bodies: BTreeMap<ReadingId, String> = BTreeMap::new();
    let mut waiting: Option<String> = None;
    loop {
        let Some(dial_at) = sdk.dial_at() else { unreachable!("the wire below is gone") };
        sleep_until(clock.instant(dial_at)).await;
        let identity = PeerIdentity::Device(certificate.clone());
        match network.dial(identity, certificate.device.as_str()).await {
            Some(wire) => {
                sdk.connected(clock.now());
                talk(&mut sdk, wire, &clock, &mut said, &mut waiting, &mut bodies, &log).await;
            }
            None => sdk.disconnected(clock.now()),
        }
        take_events(&mut sdk, &clock, &mut bodies, &log);
    }
}

/// Drives one connection to its end.
async fn talk(
    sdk: &mut Sdk,
    wire: Wire,
    clock: &SimClock,
    said: &mut mpsc::UnboundedReceiver<String>,
    waiting: &mut Option<String>,
    bodies: &mut BTreeMap<ReadingId, String>,
    log: &watch::Sender<Log>,
) {
    let Wire { mut stream, mut cut } = wire;
    let mut buffer = [0; 4096];
    loop {
        if let Some(body) = waiting.take() {
            match sdk.publish("value", body.as_bytes(), Qos::AtLeastOnce, clock.now()) {
                Ok(queued) => drop(bodies.insert(queued.reading, body)),
                Err(_) => *waiting = Some(body),
            }
        }
        while let Some(bytes) = sdk.poll_transmit(clock.now()).expect("flash holds") {
            let len = bytes.len();
            if stream.write_all(bytes).await.is_err() {
                break;
            }
            sdk.transmitted(len, clock.now());
        }
        take_events(sdk, clock, bodies, log);
        if sdk.is_finished() {
            break;
        }
        let timeout = sdk.poll_timeout();
        let more = tokio::select! {
            biased;
            _ = cut.recv() => break,
            read = stream.read(&mut buffer) => match read {
                Ok(0) | Err(_) => break,
                Ok(len) => Some(len),
            },
            Some(body) = said.recv(), if waiting.is_none() => {
                *waiting = Some(body);
                None
            }
            () = async {
                match timeout {
                    Some(at) => sleep_until(clock.instant(at)).await,
                    None => std::future::pending().await,
                }
            } => {
                sdk.handle_timeout(clock.now());
                None
            }
        };
        if let Some(len) = more {
            sdk.handle_bytes(&buffer[..len], clock.now()).expect("flash holds");
        }
    }
    sdk.disconnected(clock.now());
}

fn take_events(sdk: &mut Sdk, clock: &SimClock, bodies: &mut BTreeMap<ReadingId, String>, log: &watch::Sender<Log>) {
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
                assert!(sdk.answer(ticket, status, &[], clock.now()).is_ok(), "receipts have room of their own");
                log.send_modify(|log| log.commands.push((name, body)));
            }
            Event::NewSession { .. } => log.send_modify(|log| log.sessions += 1),
            Event::Connected { .. } => log.send_modify(|log| log.connections += 1),
            Event::Disconnected { .. } | Event::Refused { .. } => {}
        }
    }
}
