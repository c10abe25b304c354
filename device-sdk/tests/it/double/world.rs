//! Device, broker and node, stepped one after another. Time stands still but for `sleep`.

use std::collections::HashMap;
use std::num::NonZeroU8;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use unhidra_core::ids::{CommandId, DeviceId};
use unhidra_core::time::{Timestamp, UnixTime};
use unhidra_device_sdk::backoff::BackoffOptions;
use unhidra_device_sdk::client::{Ended, Qos, ReasonCode};
use unhidra_device_sdk::device::{CommandTicket, Device, Event, SettingTicket, Settings, packet_len};
use unhidra_device_sdk::outbox::{ReadingId, WhenFull};
use unhidra_device_sdk::topics::Prefix;
use unhidra_device_sdk::{Identity, IdentitySecret, LoadError, Status, Suite};
use unhidra_e2ee::suite::is_built;

use super::broker::{Broker, FromDevice};
use super::flash::{Cut, Flash, PowerLost};
use super::node::Node;
use super::wire::Wire;

/// The longest body of this device.
pub(crate) const BODY_MAX: usize = 64;

type Small = Device<Flash, StdRng, 12, BODY_MAX, 4, { packet_len(BODY_MAX) }>;

const DEVICE: &str = "pump-7";
const MESSAGES: &str = "unhidra/devices/pump-7/messages";
const PREKEYS_GET: &str = "unhidra/devices/pump-7/prekeys/get";
const PREKEYS: &str = "unhidra/devices/pump-7/prekeys";
const COMMANDS: &str = "unhidra/devices/pump-7/commands";

/// When the world begins.
const BEGIN: UnixTime = UnixTime::from_s(1_800_000_000);

/// An event of the device, kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Told {
    Connected,
    NewSession(u32),
    Disconnected(Ended),
    Acknowledged(ReadingId),
    Refused(ReadingId, ReasonCode),
    Command { id: CommandId, name: String, body: Vec<u8> },
    Setting { name: String, value: Option<Vec<u8>>, version: u64 },
}

/// The suites this build has.
pub(crate) fn suites() -> impl Iterator<Item = Suite> {
    Suite::ALL.into_iter().filter(|&suite| is_built(suite))
}

pub(crate) struct World {
    seed: u64,
    /// How often the device was enrolled.
    enrolled: u64,
    suite: Suite,
    boots: u64,
    now: Timestamp,
    slow_by: Duration,
    device: Option<Small>,
    connected: bool,
    pub(crate) flash: Flash,
    pub(crate) broker: Broker,
    pub(crate) node: Node,
    pub(crate) wire: Wire,
    /// Whether dialling succeeds.
    pub(crate) network: bool,
    /// Whether the node's PUBACKs are lost on their way.
    pub(crate) lose_pubacks: bool,
    /// Whether the device sets its clock by itself.
    pub(crate) has_clock: bool,
    /// Whether the application answers commands, with what they say.
    pub(crate) answers: bool,
    /// Whether it asks for events.
    pub(crate) listens: bool,
    /// Whether it takes over settings.
    pub(crate) applies: bool,
    pub(crate) told: Vec<Told>,
    /// PUBLISH packets with DUP.
    pub(crate) repeats: usize,
    /// Reason codes of the device's DISCONNECTs.
    pub(crate) goodbyes: Vec<u8>,
    /// Bodies by reading id, of every boot.
    pub(crate) published: HashMap<u64, Vec<u8>>,
    tickets: Vec<(CommandTicket, Vec<u8>)>,
    setting_tickets: Vec<SettingTicket>,
}

impl World {
    /// One whose device is of suite 1.
    pub(crate) fn new(seed: u64) -> Self {
        Self::of(Suite::X3dh, seed)
    }

    pub(crate) fn of(suite: Suite, seed: u64) -> Self {
        let device = DeviceId::parse(DEVICE).expect("a device id");
        let node = Node::new(seed + 1, suite, device, identity_secret(seed, 1).public());
        Self {
            seed,
            enrolled: 1,
            suite,
            boots: 0,
            now: Timestamp::from_ms(1000),
            slow_by: Duration::ZERO,
            device: None,
            connected: false,
            flash: Flash::default(),
            broker: Broker::default(),
            node,
            wire: Wire::default(),
            network: true,
            lose_pubacks: false,
            has_clock: true,
            answers: true,
            listens: true,
            applies: true,
            told: Vec::new(),
            repeats: 0,
            goodbyes: Vec::new(),
            published: HashMap::new(),
            tickets: Vec::new(),
            setting_tickets: Vec::new(),
        }
    }

    pub(crate) fn unix(&self) -> UnixTime {
        let unix = BEGIN.saturating_add(Duration::from_millis(self.now.as_ms()));
        UnixTime::from_ms(unix.as_ms() - self.slow_by.as_millis() as u64)
    }

    /// The node's clock goes back by so much.
    pub(crate) const fn slow_by(&mut self, by: Duration) {
        self.slow_by = by;
    }

    /// The device, with power.
    pub(crate) fn device(&mut self) -> &mut Small {
        if self.device.is_none() {
            self.boot();
        }
        self.device.as_mut().expect("it has just been booted")
    }

    fn boot(&mut self) {
        self.boots += 1;
        self.flash.power_on();
        let mut device = self.open(self.suite).expect("the state is whole");
        if self.has_clock {
            device.set_time(self.unix(), self.now);
        }
        self.device = Some(device);
    }

    /// The device as it starts, enrolled with a suite.
    pub(crate) fn open(&self, suite: Suite) -> Result<Small, LoadError<PowerLost>> {
        let settings = Settings {
            prefix: Prefix::parse("unhidra").expect("a prefix"),
            keep_alive_s: 60,
            session_expiry_s: 3600,
            response_timeout: Duration::from_secs(10),
            lease: NonZeroU8::new(2).expect("not zero"),
            when_full: WhenFull::RefuseNew,
            backoff: BackoffOptions {
                first: Duration::from_secs(1),
                max: Duration::from_secs(60),
                stable_after: Duration::from_secs(10),
            },
        };
        let identity = Identity {
            device: DeviceId::parse(DEVICE).expect("a device id"),
            secret: identity_secret(self.seed, self.enrolled),
            node: self.node.identity_key(),
            suite,
        };
        let rng = StdRng::seed_from_u64(self.seed.wrapping_mul(1000) + self.boots);
        Device::open(settings, identity, self.flash.clone(), rng, self.now)
    }

    /// Power fails: what is in RAM is gone.
    pub(crate) fn power_cut(&mut self) {
        self.device = None;
        self.connected = false;
        self.broker.disconnected();
        self.tickets.clear();
        self.setting_tickets.clear();
    }

    /// The node enrols the device with a new identity key, which is loaded while it has no power. Its flash is as
    /// it was.
    pub(crate) fn enrol_anew(&mut self) {
        self.power_cut();
        self.enrolled += 1;
        self.node.enrol(identity_secret(self.seed, self.enrolled).public());
    }

    /// The connection breaks; the device keeps its power.
    pub(crate) fn disconnect(&mut self) {
        if std::mem::take(&mut self.connected) {
            let now = self.now;
            self.device().disconnected(now);
            self.broker.disconnected();
        }
    }

    /// Publishes a reading. Its body says the number, so that each is another one.
    pub(crate) fn publish(&mut self, n: u32, qos: Qos) -> Option<ReadingId> {
        let body = format!("{{\"n\":{n}}}");
        let now = self.now;
        let queued = self.device().publish("temperature", body.as_bytes(), qos, now).ok()?;
        self.published.insert(queued.reading.0, body.into_bytes());
        Some(queued.reading)
    }

    pub(crate) fn publish_as(&mut self, id: ReadingId, body: &[u8]) {
        let now = self.now;
        let queued = self.device().publish_as(id, "temperature", body, Qos::AtLeastOnce, now);
        assert_eq!(queued.map(|queued| queued.reading), Ok(id));
    }

    /// The node sends a command.
    pub(crate) fn command(&mut self, id: u8, body: &[u8]) -> bool {
        self.command_until(id, body, None)
    }

    pub(crate) fn command_until(&mut self, id: u8, body: &[u8], expires_at: Option<UnixTime>) -> bool {
        match self.node.command(CommandId::new([id; 16]), "do", body, expires_at) {
            Some(sealed) => {
                self.send(sealed);
                true
            }
            None => false,
        }
    }

    /// Bytes for the device's `commands`.
    pub(crate) fn send(&mut self, payload: Vec<u8>) {
        self.broker.publish(COMMANDS, payload);
    }

    pub(crate) fn sleep(&mut self, duration: Duration) {
        self.now = self.now.saturating_add(duration);
        let now = self.now;
        self.device().handle_timeout(now);
        if self.device().dial_at().is_none() {
            // Whoever sleeps until then would not sleep at all.
            let due = self.device().poll_timeout();
            assert!(due.is_none_or(|due| due > now), "{due:?} is over at {now:?}");
        }
    }

    /// Time passes while the application is busy with something else.
    pub(crate) fn be_busy(&mut self, duration: Duration) {
        self.now = self.now.saturating_add(duration);
    }

    /// Steps until nothing moves.
    pub(crate) fn settle(&mut self) {
        for _ in 0..2000 {
            if !self.step() {
                return;
            }
        }
        panic!("the world does not come to rest");
    }

    /// One packet of the device, or one answer to it; says whether anything moved.
    pub(crate) fn step(&mut self) -> bool {
        let now = self.now;
        if !self.connected {
            if !self.network {
                return false;
            }
            self.device().connected(now);
            self.connected = true;
        }
        let moved = match self.device().poll_transmit(now) {
            Ok(Some(bytes)) => {
                let bytes = bytes.to_vec();
                self.device().transmitted(bytes.len(), now);
                self.receive(&bytes);
                true
            }
            Ok(None) => self.deliver(),
            Err(_) => {
                self.power_cut();
                return true;
            }
        };
        self.listen();
        if self.device.as_ref().is_some_and(Device::is_finished) {
            self.disconnect();
            self.listen();
        }
        moved
    }

    /// What the broker has for the device.
    fn deliver(&mut self) -> bool {
        let (bytes, now) = (self.broker.take_output(), self.now);
        // In pieces, as a network may.
        for piece in bytes.chunks(50) {
            if self.device().handle_bytes(piece, now).is_err() {
                self.power_cut();
                return true;
            }
        }
        !bytes.is_empty()
    }

    fn receive(&mut self, bytes: &[u8]) {
        for packet in self.broker.receive(bytes) {
            match packet {
                FromDevice::Publish { topic, packet_id, dup, payload } => {
                    self.repeats += usize::from(dup);
                    let reason = self.published_by_device(&topic, &payload);
                    if let Some(packet_id) = packet_id
                        && !self.lose_pubacks
                    {
                        self.broker.puback(packet_id, reason);
                    }
                }
                FromDevice::Disconnect { reason } => self.goodbyes.push(reason),
                FromDevice::Connect { .. }
                | FromDevice::Puback { .. }
                | FromDevice::Subscribe { .. }
                | FromDevice::Pingreq => {}
            }
        }
    }

    fn published_by_device(&mut self, topic: &str, payload: &[u8]) -> u8 {
        match topic {
            PREKEYS_GET => {
                let bundle = self.node.bundle(payload, self.unix());
                self.broker.publish(PREKEYS, bundle);
                0
            }
            MESSAGES => {
                self.wire.record(payload);
                let unix = self.unix();
                let answer = self.node.message(payload, unix);
                answer.to_device.into_iter().for_each(|payload| self.send(payload));
                answer.reason
            }
            other => panic!("a device published to {other}"),
        }
    }

    /// What the application does: it notes what it is told, and answers commands.
    fn listen(&mut self) {
        let Some(device) = self.device.as_mut().filter(|_| self.listens) else { return };
        while let Some(event) = device.poll_event() {
            self.told.push(match event {
                Event::Connected { .. } => Told::Connected,
                Event::NewSession { counter } => Told::NewSession(counter),
                Event::Disconnected { why, .. } => Told::Disconnected(why),
                Event::Acknowledged(reading) => Told::Acknowledged(reading),
                Event::Refused { reading, reason } => Told::Refused(reading, reason),
                Event::Command { ticket, name, body, .. } => {
                    let told = Told::Command { id: ticket.id(), name: name.into(), body: body.into() };
                    self.tickets.push((ticket, body.to_vec()));
                    told
                }
                Event::Setting { ticket, name, value, version } => {
                    let told = Told::Setting { name: name.into(), value: value.map(Into::into), version };
                    self.setting_tickets.push(ticket);
                    told
                }
            });
        }
        if self.applies {
            self.setting_tickets.drain(..).for_each(|ticket| device.applied(ticket));
        }
        if self.answers {
            for (ticket, body) in self.tickets.drain(..) {
                // A full outbox takes no receipt: the node has an expiry.
                let _ = device.answer(ticket, Status::Done, &body, self.now);
            }
        }
    }

    /// Every acknowledged reading, by its id.
    pub(crate) fn acknowledged(&self) -> Vec<ReadingId> {
        let acknowledged = self.told.iter().filter_map(|told| match told {
            Told::Acknowledged(reading) => Some(*reading),
            _ => None,
        });
        acknowledged.collect()
    }

    /// How often each command was acted on.
    pub(crate) fn acted_on(&self) -> HashMap<CommandId, usize> {
        let mut counts = HashMap::new();
        for told in &self.told {
            if let Told::Command { id, .. } = told {
                *counts.entry(*id).or_insert(0) += 1;
            }
        }
        counts
    }

    pub(crate) fn cut_at(&self, cut: Cut) {
        self.flash.cut_at(cut);
    }
}

fn identity_secret(seed: u64, enrolled: u64) -> IdentitySecret {
    IdentitySecret::generate(&mut StdRng::seed_from_u64(seed.wrapping_add(enrolled << 32)))
}
