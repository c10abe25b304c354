//! What the tests of this crate share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use unhidra_core::ids::{DeviceId, Offset, Partition};
use unhidra_core::message::{Reading, Uplink, UplinkKind};
use unhidra_core::time::{Clock, Timestamp, UnixTime};

/// A clock that moves when it is told to.
#[derive(Default)]
pub(crate) struct ManualClock(AtomicU64);

impl ManualClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.0.load(Ordering::Relaxed))
    }
    fn unix_now(&self) -> UnixTime {
        UnixTime::from_s(1_700_000_000).saturating_add(Duration::from_millis(self.0.load(Ordering::Relaxed)))
    }
}

pub(crate) fn device(text: &str) -> DeviceId {
    DeviceId::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

pub(crate) fn reading(id: &str, offset: u64, prev: u64, body: &[u8]) -> Reading {
    Reading {
        partition: Partition::new(0),
        offset: Offset::new(offset),
        prev: Offset::new(prev),
        uplink: Uplink {
            device: device(id),
            kind: UplinkKind::Reading,
            name: Arc::from("temperature"),
            device_time: None,
            received_at: UnixTime::from_ms(offset * 1000),
            reading_id: None,
            body: Bytes::copy_from_slice(body),
        },
    }
}
