//! Rows and devices for the tests of this room.

use std::collections::BTreeSet;

use bytes::Bytes;
use unhidra_core::device::{Device, Fingerprint, Standing};
use unhidra_core::ids::{DeviceId, DeviceNumber, Offset, Partition};
use unhidra_core::message::{Reading, Uplink, UplinkKind};
use unhidra_core::suite::Suite;
use unhidra_core::time::UnixTime;

pub(crate) fn row(device: &str, offset: u64, name: &str) -> Reading {
    Reading {
        partition: Partition::new(0),
        offset: Offset::new(offset),
        prev: Offset::ZERO,
        uplink: Uplink {
            device: DeviceId::parse(device).unwrap(),
            kind: UplinkKind::Reading,
            name: name.into(),
            device_time: Some(UnixTime::from_ms(5)),
            received_at: UnixTime::from_ms(7),
            reading_id: Some(offset),
            body: Bytes::from_static(b"21.5"),
        },
    }
}

pub(crate) fn device(id: &str, class: &str, tags: &[&str]) -> Device {
    Device {
        id: DeviceId::parse(id).unwrap(),
        number: DeviceNumber::new(1),
        identity_key: [0; 32],
        certificate: Fingerprint([0; 32]),
        certificate_expires: UnixTime::EPOCH,
        suite: Suite::X3dh,
        tags: tags.iter().map(|tag| tag.parse().unwrap()).collect::<BTreeSet<_>>(),
        class: class.to_owned(),
        standing: Standing::Enrolled,
        enrolled_at: UnixTime::EPOCH,
    }
}
