//! What a client of the fleet says: readings sealed by the device SDK, or as many opaque bytes.

use std::num::NonZeroU8;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::SeedableRng;
use rand::rngs::StdRng;
use unhidra_core::time::{Timestamp, UnixTime};
use unhidra_device_sdk::backoff::BackoffOptions;
use unhidra_device_sdk::client::{Qos, RECEIVE_MAX};
use unhidra_device_sdk::device::{Device, Event, Settings, packet_len};
use unhidra_device_sdk::outbox::WhenFull;
use unhidra_device_sdk::topics::Prefix;

use super::enrolment::Enrolled;
use super::memory::Memory;
use crate::wire;

/// Bytes of a reading.
pub(super) const BODY_LEN: usize = 64;
/// The most readings of one device in flight.
pub(super) const WINDOW_MAX: usize = 8;
/// Bytes of a sealed reading: 41 before its ciphertext, 64 and the map around them padded to 128,
/// 16 of tag.
const SEALED_LEN: usize = 41 + 128 + 16;

const BODY: usize = 80;
const SLOTS: usize = WINDOW_MAX + RECEIVE_MAX;
const PACKET: usize = packet_len(BODY);

type Sdk = Device<Memory, StdRng, SLOTS, BODY, WINDOW_MAX, PACKET>;

/// One client's protocol, without its connection.
pub(super) enum Speaker {
    /// A device as firmware has it.
    Sealed(Box<Sdk>),
    /// MQTT 3.1.1 by hand.
    Opaque(Opaque),
}

impl Speaker {
    /// A device that seals its readings.
    pub(super) fn sealed(enrolled: &Enrolled, now: Timestamp) -> Result<Self, String> {
        let backoff = BackoffOptions {
            first: Duration::from_millis(100),
            max: Duration::from_secs(1),
            stable_after: Duration::from_secs(10),
        };
        let settings = Settings {
            prefix: Prefix::parse("unhidra").map_err(|error| error.to_string())?,
            keep_alive_s: 0,
            session_expiry_s: 3600,
            response_timeout: Duration::from_secs(60),
            lease: NonZeroU8::MIN.saturating_add(31),
            when_full: WhenFull::RefuseNew,
            backoff,
        };
        let rng = StdRng::seed_from_u64(rand::random());
        let opened = Device::open(settings, enrolled.identity()?, Memory::new(), rng, now);
        let mut device = Box::new(opened.map_err(|error| error.to_string())?);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?;
        device.set_time(UnixTime::from_ms(unix.as_millis() as u64), now);
        Ok(Self::Sealed(device))
    }

    /// The transport is up.
    pub(super) fn connected(&mut self, now: Timestamp) {
        match self {
            Self::Sealed(device) => device.connected(now),
            Self::Opaque(client) => client.connected(),
        }
    }

    /// The transport is gone.
    pub(super) fn disconnected(&mut self, now: Timestamp) {
        match self {
            Self::Sealed(device) => device.disconnected(now),
            Self::Opaque(client) => client.up = false,
        }
    }

    /// Takes a reading; gives its id, or `None` where as many wait as may.
    pub(super) fn publish(&mut self, now: Timestamp) -> Option<u64> {
        const BODY_BYTES: [u8; BODY_LEN] = [b'7'; BODY_LEN];
        match self {
            Self::Sealed(device) => {
                device.publish("t", &BODY_BYTES, Qos::AtLeastOnce, now).ok().map(|queued| queued.reading.0)
            }
            Self::Opaque(client) => client.publish(),
        }
    }

    /// Takes bytes, and tells of each reading acknowledged, by its id; `false` for one refused.
    pub(super) fn handle(
        &mut self,
        bytes: &[u8],
        now: Timestamp,
        mut tell: impl FnMut(u64, bool),
    ) -> Result<(), String> {
        match self {
            Self::Sealed(device) => {
                device.handle_bytes(bytes, now).map_err(|_| "the device stopped".to_owned())?;
                while let Some(event) = device.poll_event() {
                    match event {
                        Event::Acknowledged(reading) => tell(reading.0, true),
                        Event::Refused { reading, .. } => tell(reading.0, false),
                        _ => {}
                    }
                }
                Ok(())
            }
            Self::Opaque(client) => client.handle(bytes, tell),
        }
    }

    /// Appends what is to be sent. Gives whether the connection is over.
    pub(super) fn transmit(&mut self, out: &mut Vec<u8>, now: Timestamp) -> Result<bool, String> {
        match self {
            Self::Sealed(device) => {
                while let Some(bytes) = device.poll_transmit(now).map_err(|_| "the device stopped".to_owned())? {
                    let count = bytes.len();
                    out.extend_from_slice(bytes);
                    device.transmitted(count, now);
                }
                Ok(device.is_finished())
            }
            Self::Opaque(client) => {
                out.append(&mut client.out);
                Ok(false)
            }
        }
    }

    /// Does what time asks for.
    pub(super) fn timeout(&mut self, now: Timestamp) {
        if let Self::Sealed(device) = self
            && device.poll_timeout().is_some_and(|at| at <= now)
        {
            device.handle_timeout(now);
        }
    }
}

/// A client that publishes what it need not understand.
#[derive(Debug)]
pub(super) struct Opaque {
    id: String,
    topic: String,
    /// Subscribes to everything, in a session that stays.
    listens: bool,
    up: bool,
    inbox: Vec<u8>,
    out: Vec<u8>,
    number: u64,
    /// What is to be published once CONNACK is here.
    early: Vec<u64>,
}

impl Opaque {
    pub(super) fn new(enrolled: &Enrolled, listens: bool) -> Self {
        let topic = format!("unhidra/devices/{}/messages", enrolled.id);
        let id = enrolled.id.as_str().to_owned();
        Self { id, topic, listens, up: false, inbox: Vec::new(), out: Vec::new(), number: 0, early: Vec::new() }
    }

    fn connected(&mut self) {
        self.inbox.clear();
        self.out = wire::connect(&self.id);
        if self.listens {
            // The flags: a session that stays.
            self.out[9] = 0;
        }
    }

    fn publish(&mut self) -> Option<u64> {
        self.number += 1;
        if self.up {
            self.send(self.number);
        } else {
            self.early.push(self.number);
        }
        Some(self.number)
    }

    fn send(&mut self, number: u64) {
        let mut body = Vec::with_capacity(self.topic.len() + 4 + SEALED_LEN);
        wire::push_text(&mut body, &self.topic);
        body.extend_from_slice(&packet_id(number).to_be_bytes());
        body.resize(body.len() + SEALED_LEN, 0xa5);
        self.out.extend_from_slice(&wire::packet(0x32, &body));
    }

    fn handle(&mut self, bytes: &[u8], mut tell: impl FnMut(u64, bool)) -> Result<(), String> {
        self.inbox.extend_from_slice(bytes);
        let mut at = 0;
        while let Some((first, body, end)) = frame(&self.inbox, at) {
            match first >> 4 {
                2 if self.inbox[body + 1] != 0 => return Err(format!("CONNACK says {}", self.inbox[body + 1])),
                2 => {
                    self.up = true;
                    if self.listens {
                        self.out.extend_from_slice(&wire::subscribe("#", 1));
                    }
                    for number in std::mem::take(&mut self.early) {
                        self.send(number);
                    }
                }
                3 => {
                    let topic = usize::from(u16::from_be_bytes([self.inbox[body], self.inbox[body + 1]]));
                    let id = body + 2 + topic;
                    self.out.extend_from_slice(&wire::puback([self.inbox[id], self.inbox[id + 1]]));
                    tell(0, true);
                }
                4 => {
                    let id = u16::from_be_bytes([self.inbox[body], self.inbox[body + 1]]);
                    // Few are in flight, so the newest number with this identifier is the one.
                    let back = (i64::from(packet_id(self.number)) - i64::from(id)).rem_euclid(65_535);
                    tell(self.number - back as u64, true);
                }
                9 => tell(0, true),
                _ => {}
            }
            at = end;
        }
        self.inbox.drain(..at);
        Ok(())
    }
}

/// Identifiers 1 to 65 535 in turn.
fn packet_id(number: u64) -> u16 {
    (number % 65_535 + 1) as u16
}

/// First byte, where the body begins and ends, of the frame at `at`, if it is whole.
fn frame(bytes: &[u8], at: usize) -> Option<(u8, usize, usize)> {
    let (mut len, mut next) = (0, at + 1);
    loop {
        let byte = *bytes.get(next)?;
        len |= usize::from(byte & 0x7f) << (7 * (next - at - 1));
        next += 1;
        if byte < 0x80 {
            break;
        }
    }
    (bytes.len() >= next + len).then_some((bytes[at], next, next + len))
}
