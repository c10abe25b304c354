//! What outlives a device's sessions on the node: the peer record, version 4.
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | version, 4 |
//! | 4 | last handshake counter |
//! | 4 | id of the next one-time prekey |
//! | 8 | when the last ResetRequest by the front door was committed, in ms since the Unix epoch; 0 for never |
//! | 1 | bit 0: the node was restored from a backup since the present session began |
//! | 32 | the device's identity key that all this is about |
//! | 8 | when the last one by an outside broker was, as above |
//! | 4 | how often the device was asked for a new session because its state had gone back |
//! | 8 | when the last time for that was, as above |
//! | 8 | the Offset up to which its rows are of the device that was enrolled before it; 0 for none |
//!
//! All integers are big-endian. Version 3 ended before the last field, and is read as of a device that was never
//! replaced. Version 2 ended before the two above it, and is read as of one whose state never went back. Version 1
//! ended before the one above those, and its one time was that of any door: both are read from it.

use thiserror::Error;
use unhidra_core::ids::Offset;
use unhidra_core::time::UnixTime;

/// By how much ids of prekeys jump when the node was put back from a backup: beyond whatever was
/// given out since, so that none comes again.
pub(crate) const ID_JUMP: u32 = 1 << 16;

const VERSION: u8 = 4;
const LEN: usize = LEN_3 + 8;

/// The versions before, which this node reads and does not write.
const VERSION_3: u8 = 3;
const LEN_3: usize = LEN_2 + 12;
const VERSION_2: u8 = 2;
const LEN_2: usize = LEN_1 + 8;
const VERSION_1: u8 = 1;
const LEN_1: usize = 50;

/// What outlives a device's sessions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct PeerRecord {
    /// The counter of the newest handshake that opened; 0 before the first.
    pub last_counter: u32,
    /// The id the next one-time prekey is given. Ids never repeat.
    pub next_one_time_id: u32,
    /// When the last ResetRequest by the front door was committed.
    pub reset_at: Option<UnixTime>,
    /// When the last one by any outside broker was.
    pub outside_reset_at: Option<UnixTime>,
    /// Whether the node was restored from a backup since the present session began.
    pub restored: bool,
    /// The identity key the counter and the sessions belong to: a device enrolled with another one
    /// begins at 0, without sessions.
    pub identity_key: [u8; 32],
    /// How often the device was asked for a new session because its state had gone back, as that of a
    /// device does that begins again with an old copy of its storage.
    pub went_back: u32,
    /// When the last time for that was.
    pub went_back_at: Option<UnixTime>,
    /// Up to here the reading ids of its rows are those of the device that was enrolled before it.
    pub ids_after: Offset,
}

/// How often a device was asked for a new session, as far as it is written down.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Resets {
    /// When the last time, whatever the reason and by whatever door.
    pub last_at: Option<UnixTime>,
    /// How often because its state had gone back: it began again with an old copy of its storage, or
    /// two devices have its identity.
    pub went_back: u32,
    /// When the last time for that.
    pub went_back_at: Option<UnixTime>,
}

impl Resets {
    /// What a device's peer record, as the store has it, says of this.
    ///
    /// # Errors
    ///
    /// [`PeerRecordError`] says what was found.
    pub fn of(peer: &[u8]) -> Result<Self, PeerRecordError> {
        let PeerRecord { reset_at, outside_reset_at, went_back, went_back_at, .. } = PeerRecord::decode(peer)?;
        Ok(Self { last_at: reset_at.max(outside_reset_at), went_back, went_back_at })
    }
}

/// A record that is none.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum PeerRecordError {
    /// Not the length of a record.
    #[error("a peer record of {found} bytes; version 1 has 50, version 2 has 58, version 3 has 70, version 4 has 78")]
    Length {
        /// Bytes found.
        found: usize,
    },
    /// Another version.
    #[error("a peer record of version {found}; this node reads versions 1 to 4")]
    Version {
        /// The version found.
        found: u8,
    },
    /// A flag this version does not know.
    #[error("a peer record with the flags 0x{found:02x}; 0x01 is known")]
    Flags {
        /// The flags found.
        found: u8,
    },
}

impl PeerRecord {
    /// The record of a device that was never heard of.
    #[must_use]
    pub(crate) const fn new(identity_key: [u8; 32]) -> Self {
        Self {
            last_counter: 0,
            next_one_time_id: 1,
            reset_at: None,
            outside_reset_at: None,
            restored: false,
            identity_key,
            went_back: 0,
            went_back_at: None,
            ids_after: Offset::ZERO,
        }
    }

    /// The record once the device is enrolled with another identity key; `ids_after` is where the newest row of the
    /// one before it is. What was promised to nobody's harm stays: prekey ids never repeat, and an hour stays an hour.
    #[must_use]
    pub(crate) const fn with_identity(self, identity_key: [u8; 32], ids_after: Offset) -> Self {
        Self { last_counter: 0, restored: false, identity_key, went_back: 0, went_back_at: None, ids_after, ..self }
    }

    /// The record once the node was put back from a backup: the sessions only receive, every message
    /// may be answered with a ResetRequest, and no prekey id that was given since is given again.
    #[must_use]
    pub(crate) const fn put_back(self) -> Self {
        Self { restored: true, next_one_time_id: self.next_one_time_id.saturating_add(ID_JUMP), ..self }
    }

    /// The record's bytes.
    #[must_use]
    pub(crate) fn encode(&self) -> [u8; LEN] {
        let mut out = [0; LEN];
        let ms = |at: Option<UnixTime>| at.map_or(0, UnixTime::as_ms).to_be_bytes();
        let fields: [&[u8]; 10] = [
            &[VERSION],
            &self.last_counter.to_be_bytes(),
            &self.next_one_time_id.to_be_bytes(),
            &ms(self.reset_at),
            &[u8::from(self.restored)],
            &self.identity_key,
            &ms(self.outside_reset_at),
            &self.went_back.to_be_bytes(),
            &ms(self.went_back_at),
            &self.ids_after.get().to_be_bytes(),
        ];
        let bytes = fields.into_iter().flatten();
        out.iter_mut().zip(bytes).for_each(|(slot, byte)| *slot = *byte);
        out
    }

    /// Reads a record.
    ///
    /// # Errors
    ///
    /// [`PeerRecordError`] says what was found.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, PeerRecordError> {
        let length = PeerRecordError::Length { found: bytes.len() };
        let (version, expected) = match *bytes.first().ok_or(length)? {
            version @ VERSION_1 => (version, LEN_1),
            version @ VERSION_2 => (version, LEN_2),
            version @ VERSION_3 => (version, LEN_3),
            version @ VERSION => (version, LEN),
            found => return Err(PeerRecordError::Version { found }),
        };
        if bytes.len() != expected {
            return Err(length);
        }
        let mut whole = [0; LEN];
        whole.iter_mut().zip(bytes).for_each(|(slot, byte)| *slot = *byte);
        let [_, c0, c1, c2, c3, o0, o1, o2, o3, r0, r1, r2, r3, r4, r5, r6, r7, flags, rest @ ..] = whole;
        let [
            identity_key @ ..,
            u0,
            u1,
            u2,
            u3,
            u4,
            u5,
            u6,
            u7,
            w0,
            w1,
            w2,
            w3,
            b0,
            b1,
            b2,
            b3,
            b4,
            b5,
            b6,
            b7,
            a0,
            a1,
            a2,
            a3,
            a4,
            a5,
            a6,
            a7,
        ] = rest;
        let at = |ms| Some(u64::from_be_bytes(ms)).filter(|ms| *ms != 0).map(UnixTime::from_ms);
        let reset_at = at([r0, r1, r2, r3, r4, r5, r6, r7]);
        let outside = at([u0, u1, u2, u3, u4, u5, u6, u7]);
        if flags > 1 {
            return Err(PeerRecordError::Flags { found: flags });
        }
        Ok(Self {
            last_counter: u32::from_be_bytes([c0, c1, c2, c3]),
            next_one_time_id: u32::from_be_bytes([o0, o1, o2, o3]),
            reset_at,
            outside_reset_at: if version == VERSION_1 { reset_at } else { outside },
            restored: flags == 1,
            identity_key,
            went_back: u32::from_be_bytes([w0, w1, w2, w3]),
            went_back_at: at([b0, b1, b2, b3, b4, b5, b6, b7]),
            ids_after: Offset::new(u64::from_be_bytes([a0, a1, a2, a3, a4, a5, a6, a7])),
        })
    }

    /// The device's state has gone back, and it is asked for a new session.
    pub(crate) const fn goes_back(&mut self, now: UnixTime) {
        self.went_back = self.went_back.saturating_add(1);
        self.went_back_at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: PeerRecord = PeerRecord::new([7; 32]);

    #[test]
    fn a_record_reads_back_and_its_bytes_are_fixed() {
        let record = PeerRecord {
            last_counter: 0x0102_0304,
            next_one_time_id: 0x0506_0708,
            reset_at: Some(UnixTime::from_ms(0x090A_0B0C_0D0E_0F10)),
            outside_reset_at: Some(UnixTime::from_ms(0x1112_1314_1516_1718)),
            restored: true,
            identity_key: [0xAB; 32],
            went_back: 0x191A_1B1C,
            went_back_at: Some(UnixTime::from_ms(0x1D1E_1F20_2122_2324)),
            ids_after: Offset::new(0x2526_2728_292A_2B2C),
        };
        let mut bytes = vec![4, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 1];
        bytes.extend([0xAB; 32]);
        bytes.extend(0x11..=0x2C);
        assert_eq!(record.encode(), *bytes);
        assert_eq!(PeerRecord::decode(&bytes), Ok(record));
        assert_eq!(PeerRecord::decode(&NEW.encode()), Ok(NEW));
    }

    #[test]
    fn a_record_of_version_1_is_read_and_its_hour_holds_for_every_door() {
        let at = Some(UnixTime::from_s(10_000));
        let record = PeerRecord { last_counter: 9, reset_at: at, outside_reset_at: at, ..NEW };
        let mut bytes = record.encode();
        bytes[0] = 1;
        assert_eq!(PeerRecord::decode(&bytes[..50]), Ok(record));
        assert_eq!(PeerRecord::decode(&bytes), Err(PeerRecordError::Length { found: LEN }));
    }

    #[test]
    fn a_record_of_version_2_is_of_a_device_whose_state_never_went_back() {
        let at = UnixTime::from_s;
        let record = PeerRecord { reset_at: Some(at(10)), outside_reset_at: Some(at(20)), ..NEW };
        let mut bytes = PeerRecord { went_back: 7, went_back_at: Some(at(5)), ..record }.encode();
        assert_eq!(Resets::of(&bytes), Ok(Resets { last_at: Some(at(20)), went_back: 7, went_back_at: Some(at(5)) }));
        bytes[0] = 2;
        assert_eq!(PeerRecord::decode(&bytes[..LEN_2]), Ok(record));
        assert_eq!(PeerRecord::decode(&bytes), Err(PeerRecordError::Length { found: LEN }));
    }

    #[test]
    fn a_record_of_version_3_is_of_a_device_that_was_never_replaced() {
        let record = PeerRecord { went_back: 7, went_back_at: Some(UnixTime::from_s(5)), ..NEW };
        let mut bytes = PeerRecord { ids_after: Offset::new(9), ..record }.encode();
        bytes[0] = 3;
        assert_eq!(PeerRecord::decode(&bytes[..LEN_3]), Ok(record));
        assert_eq!(PeerRecord::decode(&bytes), Err(PeerRecordError::Length { found: LEN }));
    }

    #[test]
    fn a_record_of_another_shape_is_refused() {
        let mut bytes = NEW.encode();
        for found in [0, 17, 49, 50, 58, 70, 77] {
            assert_eq!(PeerRecord::decode(&bytes[..found]), Err(PeerRecordError::Length { found }));
        }
        bytes[17] = 2;
        assert_eq!(PeerRecord::decode(&bytes), Err(PeerRecordError::Flags { found: 2 }));
        bytes[0] = 9;
        assert_eq!(PeerRecord::decode(&bytes), Err(PeerRecordError::Version { found: 9 }));
    }

    #[test]
    fn another_identity_begins_at_nought_and_repeats_no_prekey_id() {
        let old = PeerRecord { last_counter: 9, next_one_time_id: 4, ..NEW };
        let new = old.with_identity([8; 32], Offset::new(40));
        assert_eq!((new.last_counter, new.next_one_time_id, new.identity_key), (0, 4, [8; 32]));
        assert_eq!(new.ids_after, Offset::new(40));
    }
}
