//! What stands in the values, before it is sealed.
//!
//! ```text
//! varint   LEB128, at most 10 bytes          text, bytes   varint length, then as many bytes
//!
//! row      gap varint (offset - prev)        device    number 4            prekey   created at varint
//!          tag: key 4, number varint, tag 4            identity key 32              secret: the rest
//!          kind 1: bits 0..1 the kind,                 certificate 32
//!            bit 2 device time, bit 3 id,              expires varint      session  version 4, newest 4
//!          [receipt: command id 16, status 1]          suite 1                      state: the rest
//!          received at varint                          tags: varint, text each
//!          [device time varint]                        class text
//!          [reading id varint]                         enrolled at varint
//!          name text                                   standing 1
//!          body: the rest                              [revoked at varint]
//! ```
//!
//! Commands and settings: `record/told.rs`.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;
use unhidra_core::device::{Device, Fingerprint, Standing};
use unhidra_core::ids::{CommandId, DeviceId, DeviceNumber, Offset, Partition, Version};
use unhidra_core::message::{Reading, ReceiptStatus, Uplink, UplinkKind};
use unhidra_core::suite::Suite;
use unhidra_core::time::UnixTime;

use crate::{MessageTag, PrekeyKind, PrekeyRecord};

mod told;

pub(crate) use told::{decode_command, decode_setting, encode_command, encode_setting};

/// Why a value is no record.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(crate) enum RecordError {
    #[error("it ends within {0}")]
    Short(&'static str),
    #[error("{what} is {found}")]
    Value { what: &'static str, found: u64 },
    #[error("{0} is no text")]
    Text(&'static str),
    #[error("{0} bytes follow its end")]
    Long(usize),
}

const DEVICE_TIME: u8 = 1 << 2;
const READING_ID: u8 = 1 << 3;
const TRIMMED: u8 = 1 << 4;

/// A row as it lies.
#[derive(Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) prev: Offset,
    pub(crate) tag: MessageTag,
    pub(crate) uplink: Uplink,
}

impl Row {
    pub(crate) fn encode(offset: Offset, prev: Offset, tag: &MessageTag, uplink: &Uplink) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + uplink.name.len() + uplink.body.len());
        put_varint(&mut out, offset.get().saturating_sub(prev.get()));
        out.extend_from_slice(&tag.key);
        put_varint(&mut out, u64::from(tag.number));
        out.extend_from_slice(&tag.tag);
        let kind = match uplink.kind {
            UplinkKind::Reading => 0,
            UplinkKind::Receipt { .. } => 1,
            UplinkKind::Event => 2,
            UplinkKind::Ignored => 3,
            UplinkKind::Trimmed => 3 | TRIMMED,
        };
        let device_time = if uplink.device_time.is_some() { DEVICE_TIME } else { 0 };
        let reading_id = if uplink.reading_id.is_some() { READING_ID } else { 0 };
        out.push(kind | device_time | reading_id);
        if let UplinkKind::Receipt { command, status } = &uplink.kind {
            out.extend_from_slice(command.as_bytes());
            out.push(*status as u8);
        }
        put_varint(&mut out, uplink.received_at.as_ms());
        if let Some(time) = uplink.device_time {
            put_varint(&mut out, time.as_ms());
        }
        if let Some(id) = uplink.reading_id {
            put_varint(&mut out, id);
        }
        put_bytes(&mut out, uplink.name.as_bytes());
        out.extend_from_slice(&uplink.body);
        out
    }

    pub(crate) fn decode(device: DeviceId, offset: Offset, value: Bytes) -> Result<Self, RecordError> {
        let mut input = Input(value);
        let gap = input.varint("the gap")?;
        let prev = offset.get().checked_sub(gap).ok_or(RecordError::Value { what: "the gap", found: gap })?;
        let tag = input.tag()?;
        let kind_byte = input.byte("the kind")?;
        if kind_byte & !0x1f != 0 || (kind_byte & TRIMMED != 0 && kind_byte & 0x03 != 3) {
            return Err(RecordError::Value { what: "the kind", found: u64::from(kind_byte) });
        }
        let kind = match kind_byte & 0x03 {
            0 => UplinkKind::Reading,
            1 => UplinkKind::Receipt { command: CommandId::new(input.array("the command")?), status: input.status()? },
            2 => UplinkKind::Event,
            _ if kind_byte & TRIMMED != 0 => UplinkKind::Trimmed,
            _ => UplinkKind::Ignored,
        };
        let received_at = input.time("received at")?;
        let device_time = if kind_byte & DEVICE_TIME != 0 { Some(input.time("the device time")?) } else { None };
        let reading_id = if kind_byte & READING_ID != 0 { Some(input.varint("the reading id")?) } else { None };
        let name = input.text("the name")?;
        let uplink = Uplink { device, kind, name, device_time, received_at, reading_id, body: input.0 };
        Ok(Self { prev: Offset::new(prev), tag, uplink })
    }

    /// What stays of it where its time is over.
    pub(crate) fn into_trimmed(self) -> Self {
        let uplink =
            Uplink { kind: UplinkKind::Trimmed, name: "".into(), device_time: None, body: Bytes::new(), ..self.uplink };
        Self { uplink, ..self }
    }

    /// The tag alone, without what comes after it.
    pub(crate) fn decode_tag(value: Bytes) -> Result<MessageTag, RecordError> {
        let mut input = Input(value);
        input.varint("the gap")?;
        input.tag()
    }

    pub(crate) fn into_reading(self, partition: Partition, offset: Offset) -> Reading {
        Reading { partition, offset, prev: self.prev, uplink: self.uplink }
    }
}

pub(crate) fn encode_device(device: &Device, number: DeviceNumber) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(&number.get().to_be_bytes());
    out.extend_from_slice(&device.identity_key);
    out.extend_from_slice(&device.certificate.0);
    put_varint(&mut out, device.certificate_expires.as_ms());
    out.push(device.suite.as_byte());
    put_varint(&mut out, device.tags.len() as u64);
    for tag in &device.tags {
        put_bytes(&mut out, tag.as_str().as_bytes());
    }
    put_bytes(&mut out, device.class.as_bytes());
    put_varint(&mut out, device.enrolled_at.as_ms());
    match device.standing {
        Standing::Enrolled => out.push(0),
        Standing::Revoked { at } => {
            out.push(1);
            put_varint(&mut out, at.as_ms());
        }
    }
    out
}

pub(crate) fn decode_device(id: DeviceId, value: Bytes) -> Result<Device, RecordError> {
    let mut input = Input(value);
    let number = DeviceNumber::new(u32::from_be_bytes(input.array("the number")?));
    let identity_key = input.array("the identity key")?;
    let certificate = Fingerprint(input.array("the certificate")?);
    let certificate_expires = input.time("the certificate's end")?;
    let suite = input.byte("the suite")?;
    let suite = Suite::from_byte(suite).ok_or(RecordError::Value { what: "the suite", found: u64::from(suite) })?;
    let mut tags = BTreeSet::new();
    for _ in 0..input.varint("the tags")? {
        tags.insert(input.text("a tag")?.parse().map_err(|_| RecordError::Text("a tag"))?);
    }
    let class = String::from(&*input.text("the class")?);
    let enrolled_at = input.time("enrolled at")?;
    let standing = match input.byte("the standing")? {
        0 => Standing::Enrolled,
        1 => Standing::Revoked { at: input.time("revoked at")? },
        found => return Err(RecordError::Value { what: "the standing", found: u64::from(found) }),
    };
    input.end()?;
    let device = Device {
        id,
        number,
        identity_key,
        certificate,
        certificate_expires,
        suite,
        tags,
        class,
        enrolled_at,
        standing,
    };
    Ok(device)
}

/// The number alone, which stands first.
pub(crate) fn decode_device_number(value: Bytes) -> Result<DeviceNumber, RecordError> {
    Ok(DeviceNumber::new(u32::from_be_bytes(Input(value).array("the number")?)))
}

pub(crate) fn encode_prekey(prekey: &PrekeyRecord) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + prekey.secret.len());
    put_varint(&mut out, prekey.created_at.as_ms());
    out.extend_from_slice(&prekey.secret);
    out
}

pub(crate) fn decode_prekey(kind: PrekeyKind, id: u32, value: Bytes) -> Result<PrekeyRecord, RecordError> {
    let mut input = Input(value);
    let created_at = input.time("created at")?;
    Ok(PrekeyRecord { kind, id, created_at, secret: input.0 })
}

/// The last 4 bytes of an Offset, as a record of a session holds them: enough to know another, since
/// no two that lie 2^31 rows apart can be mistaken for neighbours.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct NewestRow(u32);

impl NewestRow {
    pub(crate) const fn new(offset: Offset) -> Self {
        let [_, _, _, _, a, b, c, d] = offset.get().to_be_bytes();
        Self(u32::from_be_bytes([a, b, c, d]))
    }

    /// Whether it names a later row than `other` does.
    pub(crate) const fn is_after(self, other: Self) -> bool {
        let ahead = self.0.wrapping_sub(other.0);
        ahead != 0 && ahead < 1 << 31
    }
}

/// A record of a device's sessions: `newest` is its newest row in the commit that wrote this.
pub(crate) fn encode_session(version: Version, newest: Offset, state: &[u8]) -> Vec<u8> {
    [&version.get().to_be_bytes()[..], &NewestRow::new(newest).0.to_be_bytes(), state].concat()
}

pub(crate) fn decode_session(value: Bytes) -> Result<(Version, NewestRow, Bytes), RecordError> {
    let mut input = Input(value);
    let version = Version::new(u32::from_be_bytes(input.array("the version")?));
    let newest = NewestRow(u32::from_be_bytes(input.array("the newest row")?));
    Ok((version, newest, input.0))
}

/// As version 1 of the format had it, without the newest row.
pub(crate) fn decode_session_1(value: Bytes) -> Result<(Version, Bytes), RecordError> {
    let mut input = Input(value);
    let version = Version::new(u32::from_be_bytes(input.array("the version")?));
    Ok((version, input.0))
}

pub(crate) fn decode_device_id(value: &[u8]) -> Result<DeviceId, RecordError> {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or(RecordError::Text("the device id"))
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// What is left of a value.
struct Input(Bytes);

impl Input {
    fn take(&mut self, len: usize, what: &'static str) -> Result<Bytes, RecordError> {
        if self.0.len() < len {
            return Err(RecordError::Short(what));
        }
        Ok(self.0.split_to(len))
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], RecordError> {
        self.take(N, what)?.first_chunk::<N>().copied().ok_or(RecordError::Short(what))
    }

    fn byte(&mut self, what: &'static str) -> Result<u8, RecordError> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    fn varint(&mut self, what: &'static str) -> Result<u64, RecordError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(what)?;
            let bits = u64::from(byte & 0x7f);
            if bits.leading_zeros() < shift {
                return Err(RecordError::Value { what, found: u64::MAX });
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(RecordError::Value { what, found: u64::MAX })
    }

    fn time(&mut self, what: &'static str) -> Result<UnixTime, RecordError> {
        self.varint(what).map(UnixTime::from_ms)
    }

    fn text(&mut self, what: &'static str) -> Result<Arc<str>, RecordError> {
        let len = usize::try_from(self.varint(what)?).map_err(|_| RecordError::Short(what))?;
        let bytes = self.take(len, what)?;
        std::str::from_utf8(&bytes).map(Arc::from).map_err(|_| RecordError::Text(what))
    }

    fn tag(&mut self) -> Result<MessageTag, RecordError> {
        let key = self.array("the tag")?;
        let number = self.varint("the message number")?;
        let number =
            u32::try_from(number).map_err(|_| RecordError::Value { what: "the message number", found: number })?;
        Ok(MessageTag { key, number, tag: self.array("the tag")? })
    }

    fn status(&mut self) -> Result<ReceiptStatus, RecordError> {
        let byte = self.byte("the status")?;
        ReceiptStatus::from_byte(byte).ok_or(RecordError::Value { what: "the status", found: u64::from(byte) })
    }

    fn end(&self) -> Result<(), RecordError> {
        if self.0.is_empty() { Ok(()) } else { Err(RecordError::Long(self.0.len())) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use unhidra_core::device::Tag;

    use super::*;

    fn device_id() -> DeviceId {
        "pump-7".parse().unwrap()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn row() -> (Offset, Offset, MessageTag, Uplink) {
        let uplink = Uplink {
            device: device_id(),
            kind: UplinkKind::Receipt { command: CommandId::new([0xcc; 16]), status: ReceiptStatus::Failed },
            name: "t".into(),
            device_time: Some(UnixTime::from_ms(300)),
            received_at: UnixTime::from_ms(127),
            reading_id: Some(128),
            body: Bytes::from_static(b"21.5"),
        };
        let tag = MessageTag { key: [1, 2, 3, 4], number: 5, tag: [6, 7, 8, 9] };
        (Offset::new(1000), Offset::new(990), tag, uplink)
    }

    fn device() -> Device {
        Device {
            id: device_id(),
            number: DeviceNumber::new(3),
            identity_key: [0x11; 32],
            certificate: Fingerprint([0x22; 32]),
            certificate_expires: UnixTime::from_ms(1),
            suite: Suite::Pqxdh,
            tags: ["a".parse().unwrap(), "b=c".parse().unwrap()].into(),
            class: "mk2".into(),
            enrolled_at: UnixTime::from_ms(2),
            standing: Standing::Revoked { at: UnixTime::from_ms(3) },
        }
    }

    /// The bytes of format version 2. A later version must read them still.
    #[test]
    fn the_bytes_of_version_2_stand() {
        let (offset, prev, tag, uplink) = row();
        let text = "0a0102030405060708090d".to_owned() + &"cc".repeat(16) + "027fac0280010174" + "32312e35";
        assert_eq!(hex(&Row::encode(offset, prev, &tag, &uplink)), text);
        let text = "00000003".to_owned()
            + &"11".repeat(32)
            + &"22".repeat(32)
            + "0102020161"
            + "03623d63"
            + "036d6b32"
            + "02"
            + "0103";
        assert_eq!(hex(&encode_device(&device(), DeviceNumber::new(3))), text);
        let prekey = PrekeyRecord {
            kind: PrekeyKind::Signed,
            id: 1,
            created_at: UnixTime::from_ms(5),
            secret: Bytes::from_static(&[9]),
        };
        assert_eq!(hex(&encode_prekey(&prekey)), "0509");
        let session = encode_session(Version::new(258), Offset::new(0x0102_0304_0506), &[7]);
        assert_eq!(hex(&session), "00000102".to_owned() + "03040506" + "07");
        assert_eq!(decode_session_1(Bytes::from_static(&[0, 0, 1, 2, 7])).unwrap().0, Version::new(258));
    }

    #[test]
    fn records_read_back_and_no_cut_one_does() {
        let (offset, prev, tag, uplink) = row();
        let value = Bytes::from(Row::encode(offset, prev, &tag, &uplink));
        assert_eq!(Row::decode_tag(value.clone()), Ok(tag));
        assert_eq!(Row::decode(device_id(), offset, value.clone()), Ok(Row { prev, tag, uplink }));
        // All but the body, which is what is left.
        for len in 0..value.len() - 4 {
            assert!(Row::decode(device_id(), offset, value.slice(..len)).is_err(), "cut at {len}");
        }
        let value = Bytes::from(encode_device(&device(), DeviceNumber::new(3)));
        assert_eq!(decode_device(device_id(), value.clone()), Ok(device()));
        for len in 0..value.len() {
            assert!(decode_device(device_id(), value.slice(..len)).is_err(), "cut at {len}");
        }
        let longer = Bytes::from([&value[..], &[0]].concat());
        assert_eq!(decode_device(device_id(), longer), Err(RecordError::Long(1)));
    }

    #[test]
    fn rows_are_ordered_over_the_end_of_their_short_form() {
        let row = |offset| NewestRow::new(Offset::new(offset));
        assert!(row(6).is_after(row(5)) && !row(5).is_after(row(6)) && !row(5).is_after(row(5)));
        assert!(row(1 << 32).is_after(row((1 << 32) - 1)) && !row((1 << 32) - 1).is_after(row(1 << 32)));
    }

    #[test]
    fn a_gap_before_the_first_row_is_damage() {
        let (offset, prev, tag, uplink) = row();
        let value = Bytes::from(Row::encode(offset, prev, &tag, &uplink));
        assert_eq!(
            Row::decode(device_id(), Offset::new(9), value),
            Err(RecordError::Value { what: "the gap", found: 10 })
        );
    }

    proptest! {
        #[test]
        fn rows_round_trip(
            prev in 0..u64::MAX,
            gap in 1..u64::MAX,
            number: u32,
            times in (any::<u64>(), any::<Option<u64>>()),
            reading_id: Option<u64>,
            name in "\\PC{0,64}",
            body in vec(any::<u8>(), 0..200),
        ) {
            let offset = Offset::new(prev.saturating_add(gap));
            let tag = MessageTag { key: [1; 4], number, tag: [2; 4] };
            let uplink = Uplink {
                device: device_id(),
                kind: UplinkKind::Event,
                name: name.into(),
                device_time: times.1.map(UnixTime::from_ms),
                received_at: UnixTime::from_ms(times.0),
                reading_id,
                body: body.into(),
            };
            let value = Row::encode(offset, Offset::new(prev), &tag, &uplink);
            prop_assert_eq!(
                Row::decode(device_id(), offset, value.into()),
                Ok(Row { prev: Offset::new(prev), tag, uplink })
            );
        }

        /// Whatever the disk gives: an answer or an error.
        #[test]
        fn no_bytes_panic(bytes in vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            _ = Row::decode(device_id(), Offset::new(u64::MAX), bytes.clone());
            _ = decode_device(device_id(), bytes.clone());
            _ = decode_command(device_id(), CommandId::new([0; 16]), bytes.clone());
            _ = decode_setting(device_id(), "interval".parse().unwrap(), bytes.clone());
            _ = decode_prekey(PrekeyKind::Signed, 0, bytes.clone());
            _ = decode_session(bytes.clone());
            _ = decode_device_id(&bytes);
        }

        #[test]
        fn devices_round_trip(tags in proptest::collection::btree_set("[a-z=]{1,64}", 0..9), class in "\\PC{0,40}") {
            let tags = tags.iter().map(|tag| tag.parse::<Tag>().unwrap()).collect();
            let device = Device { tags, class, ..device() };
            let value = encode_device(&device, device.number);
            prop_assert_eq!(decode_device(device.id, value.into()), Ok(device));
        }
    }
}
