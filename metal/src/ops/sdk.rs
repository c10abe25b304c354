//! What firmware calls: every operation of a device of `device-sdk`, over a storage and a link of
//! which nothing is known.

use core::num::NonZeroU8;
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use unhidra_core::time::Timestamp;
use unhidra_device_sdk::backoff::BackoffOptions;
use unhidra_device_sdk::client::Qos;
use unhidra_device_sdk::device::{Device, Event, Settings, packet_len};
use unhidra_device_sdk::outbox::{ReadingId, WhenFull};
use unhidra_device_sdk::storage::{Record, Storage, Write};
use unhidra_device_sdk::topics::Prefix;
use unhidra_device_sdk::transport::Transport;
use unhidra_device_sdk::{Identity, IdentityKey, IdentitySecret, Status, Suite};

use super::plain::{device_id, now};
use super::{any, bytes, chunk, used};
use crate::rng::FixedRng;

/// 16 readings of 128 bytes wait, 8 are on their way.
type Firmware = Device<Medium, FixedRng, 16, 128, 8, { packet_len(128) }>;

struct Medium;

impl Storage for Medium {
    type Error = u8;

    fn read(&mut self, record: Record, out: &mut [u8]) -> Result<Option<usize>, u8> {
        used((record.index(), out));
        any(Ok(None))
    }

    fn write(&mut self, writes: &[Write<'_>]) -> Result<(), u8> {
        used(writes);
        any(Ok(()))
    }
}

struct Link;

impl Transport for Link {
    type Error = u8;

    fn poll_receive(&mut self, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize, u8>> {
        used(buffer);
        any(Poll::Pending)
    }

    fn poll_send(&mut self, _: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, u8>> {
        used(bytes);
        any(Poll::Pending)
    }
}

/// Every operation, the device's whole life.
pub fn all() {
    let Some(mut device) = open() else { return };
    let at = Timestamp::from_ms(any(0));
    device.set_time(now(), at);
    device.connected(at);
    ask(&mut device, at);
    let mut buffer = any([0; 1024]);
    let context = &mut Context::from_waker(Waker::noop());
    while any(true) {
        used(device.poll_turn(&mut Link, &mut buffer, context, at).is_ready());
        used(device.handle_bytes(bytes(), at).is_ok());
        used(device.poll_transmit(at).is_ok());
        device.transmitted(any(0), at);
        device.handle_timeout(at);
        let (command, setting) = match device.poll_event() {
            Some(Event::Command { ticket, name, body, expires_at }) => {
                used((name, body, expires_at));
                (Some(ticket), None)
            }
            Some(Event::Setting { ticket, name, value, version }) => {
                used((name, value, version));
                (None, Some(ticket))
            }
            _ => (None, None),
        };
        if let Some(ticket) = command {
            used(device.answer(ticket, any(Status::Done), bytes(), at).is_ok());
        }
        if let Some(ticket) = setting {
            device.applied(ticket);
        }
    }
    device.disconnect();
    device.disconnected(at);
    used(device.into_medium());
}

fn open() -> Option<Firmware> {
    let settings = Settings {
        prefix: Prefix::parse(core::str::from_utf8(bytes()).ok()?).ok()?,
        keep_alive_s: any(60),
        session_expiry_s: any(3600),
        response_timeout: any(Duration::ZERO),
        lease: any(NonZeroU8::MIN),
        when_full: any(WhenFull::DropOldest),
        backoff: BackoffOptions {
            first: any(Duration::ZERO),
            max: any(Duration::ZERO),
            stable_after: any(Duration::ZERO),
        },
    };
    let identity = Identity {
        device: device_id()?,
        secret: IdentitySecret::from_seed(chunk()),
        node: IdentityKey::from_bytes(chunk()).ok()?,
        suite: any(Suite::X3dh),
    };
    Device::open(settings, identity, Medium, FixedRng::new(any(0)), Timestamp::from_ms(any(0))).ok()
}

fn ask(device: &mut Firmware, at: Timestamp) {
    let Ok(name) = core::str::from_utf8(bytes()) else { return };
    used(device.publish(name, bytes(), any(Qos::AtLeastOnce), at).is_ok());
    used(device.publish_as(ReadingId(any(0)), name, bytes(), any(Qos::AtLeastOnce), at).is_ok());
    used(device.withdraw(ReadingId(any(0))));
    used(device.report(name, bytes(), any(Qos::AtMostOnce), at).is_ok());
    used((device.time(at), device.waiting(), device.dial_at(), device.is_finished(), device.poll_timeout()));
    used((device.stats(), device.fingerprint()));
}
