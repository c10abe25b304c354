//! What outlives a device's sessions on the node: the peer record, version 1.
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | version, 1 |
//! | 4 | last handshake counter |
//! | 4 | id of the next one-time prekey |
//! | 8 | when the last ResetRequest was committed, in ms since the Unix epoch; 0 for never |
//! | 1 | bit 0: the node was restored from a backup since the present session began |
//! | 32 | the device's identity key that all this is about |
//!
//! All integers are big-endian.

use std::time::Duration;

use thiserror::Error;
use unhidra_core::time::UnixTime;

/// How long one ResetRequest serves, whatever its reason (e2ee/PROTOCOL.md section 7).
pub(crate) const RESET_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// By how much ids of prekeys jump when the node was put back from a backup: beyond whatever was
/// given out since, so that none comes again.
pub(crate) const ID_JUMP: u32 = 1 << 16;

const VERSION: u8 = 1;
const LEN: usize = 50;

/// What outlives a device's sessions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct PeerRecord {
    /// The counter of the newest handshake that opened; 0 before the first.
    pub last_counter: u32,
    /// The id the next one-time prekey is given. Ids never repeat.
    pub next_one_time_id: u32,
    /// When the last ResetRequest was committed.
    pub reset_at: Option<UnixTime>,
    /// Whether the node was restored from a backup since the present session began.
    pub restored: bool,
    /// The identity key the counter and the sessions belong to: a device enrolled with another one
    /// begins at 0, without sessions.
    pub identity_key: [u8; 32],
}

/// A record that is none.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum PeerRecordError {
    /// Not the length of a record.
    #[error("a peer record of {found} bytes; version 1 has 50")]
    Length {
        /// Bytes found.
        found: usize,
    },
    /// Another version.
    #[error("a peer record of version {found}; this node reads version 1")]
    Version {
        /// The version found.
        found: u8,
    },
    /// A flag this version does not know.
    #[error("a peer record with the flags 0x{found:02x}; version 1 knows 0x01")]
    Flags {
        /// The flags found.
        found: u8,
    },
}

impl PeerRecord {
    /// The record of a device that was never heard of.
    #[must_use]
    pub(crate) const fn new(identity_key: [u8; 32]) -> Self {
        Self { last_counter: 0, next_one_time_id: 1, reset_at: None, restored: false, identity_key }
    }

    /// The record once the device is enrolled with another identity key. What was promised to
    /// nobody's harm stays: prekey ids never repeat, and an hour stays an hour.
    #[must_use]
    pub(crate) const fn with_identity(self, identity_key: [u8; 32]) -> Self {
        Self { last_counter: 0, restored: false, identity_key, ..self }
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
        let fields: [&[u8]; 6] = [
            &[VERSION],
            &self.last_counter.to_be_bytes(),
            &self.next_one_time_id.to_be_bytes(),
            &self.reset_at.map_or(0, UnixTime::as_ms).to_be_bytes(),
            &[u8::from(self.restored)],
            &self.identity_key,
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
        let &[version, c0, c1, c2, c3, o0, o1, o2, o3, r0, r1, r2, r3, r4, r5, r6, r7, flags, ref key @ ..] = bytes
        else {
            return Err(PeerRecordError::Length { found: bytes.len() });
        };
        if version != VERSION {
            return Err(PeerRecordError::Version { found: version });
        }
        if flags > 1 {
            return Err(PeerRecordError::Flags { found: flags });
        }
        let identity_key = key.try_into().map_err(|_| PeerRecordError::Length { found: bytes.len() })?;
        let reset_ms = u64::from_be_bytes([r0, r1, r2, r3, r4, r5, r6, r7]);
        Ok(Self {
            last_counter: u32::from_be_bytes([c0, c1, c2, c3]),
            next_one_time_id: u32::from_be_bytes([o0, o1, o2, o3]),
            reset_at: (reset_ms != 0).then(|| UnixTime::from_ms(reset_ms)),
            restored: flags == 1,
            identity_key,
        })
    }

    /// What the calendar is. Of a clock that was set back the hour counts from here on: the request
    /// comes late, never twice, and does not wait for the clock to catch up.
    pub(crate) fn clock_is(&mut self, now: UnixTime) {
        self.reset_at = self.reset_at.map(|at| at.min(now));
    }

    /// When the hour of the last ResetRequest is over; `None` where none was sent.
    pub(crate) fn may_reset_at(&self) -> Option<UnixTime> {
        self.reset_at.map(|at| at.saturating_add(RESET_INTERVAL))
    }

    /// Whether a ResetRequest may be sent now.
    #[must_use]
    pub(crate) fn may_reset(&self, now: UnixTime) -> bool {
        self.reset_at.is_none_or(|at| now.saturating_since(at) >= RESET_INTERVAL)
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
            restored: true,
            identity_key: [0xAB; 32],
        };
        let mut bytes = vec![1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 1];
        bytes.extend([0xAB; 32]);
        assert_eq!(record.encode(), *bytes);
        assert_eq!(PeerRecord::decode(&bytes), Ok(record));
        assert_eq!(PeerRecord::decode(&NEW.encode()), Ok(NEW));
    }

    #[test]
    fn a_record_of_another_shape_is_refused() {
        let mut bytes = NEW.encode();
        assert_eq!(PeerRecord::decode(&bytes[..17]), Err(PeerRecordError::Length { found: 17 }));
        assert_eq!(PeerRecord::decode(&bytes[..49]), Err(PeerRecordError::Length { found: 49 }));
        bytes[17] = 2;
        assert_eq!(PeerRecord::decode(&bytes), Err(PeerRecordError::Flags { found: 2 }));
        bytes[0] = 9;
        assert_eq!(PeerRecord::decode(&bytes), Err(PeerRecordError::Version { found: 9 }));
    }

    #[test]
    fn another_identity_begins_at_nought_and_repeats_no_prekey_id() {
        let old = PeerRecord { last_counter: 9, next_one_time_id: 4, ..NEW };
        let new = old.with_identity([8; 32]);
        assert_eq!((new.last_counter, new.next_one_time_id, new.identity_key), (0, 4, [8; 32]));
    }

    #[test]
    fn one_reset_an_hour() {
        let at = UnixTime::from_s(10_000);
        let record = PeerRecord { reset_at: Some(at), ..NEW };
        assert!(NEW.may_reset(at));
        assert!(!record.may_reset(at.saturating_add(RESET_INTERVAL - Duration::from_millis(1))));
        assert!(record.may_reset(at.saturating_add(RESET_INTERVAL)));
        assert!(!record.may_reset(UnixTime::EPOCH), "a clock set back");
        let mut set_back = record;
        let back = UnixTime::from_s(500);
        set_back.clock_is(back);
        assert!(!set_back.may_reset(back.saturating_add(RESET_INTERVAL - Duration::from_millis(1))));
        assert!(set_back.may_reset(back.saturating_add(RESET_INTERVAL)), "an hour later, whatever it was before");
    }
}
