//! The log of acts: who commanded, enrolled, revoked, changed a key.
//!
//! An act is appended in the commit of what was done, so neither is ever without the other. A
//! partition gives its acts numbers from 1 on and remembers the newest `store.acts_max`.
//!
//! ```text
//! deed 1   at 8   by: length 2, text   device: length 2, text   detail: the rest, text
//! ```

use std::fmt;

use bytes::Bytes;
use unhidra_core::ids::{DeviceId, Partition};
use unhidra_core::time::UnixTime;

use crate::record::RecordError;

/// The most bytes of each text of an act. What is longer is cut.
const TEXT_LEN_MAX: usize = 512;

/// What was done.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Deed {
    /// A command was accepted.
    Command = 1,
    /// A command was cancelled.
    Cancel = 2,
    /// A device was enrolled, or enrolled again.
    Enroll = 3,
    /// A device was given tags, or lost some.
    Tag = 4,
    /// A device was revoked.
    Revoke = 5,
    /// A device's setting was changed.
    Setting = 6,
    /// New data keys seal.
    RotateKeys = 7,
    /// The data keys are wrapped under another master key.
    RewrapKeys = 8,
    /// Data keys are gone.
    DestroyKeys = 9,
    /// A user was added.
    AddUser = 10,
    /// A user has another password.
    ChangeUser = 11,
    /// A user was removed.
    RemoveUser = 12,
    /// The store was put back from a copy.
    Restore = 13,
    /// Damage was cut out of the store.
    AcceptLoss = 14,
    /// A token for the gateway was made.
    AddToken = 15,
    /// Tokens of the gateway were revoked.
    RevokeToken = 16,
}

impl Deed {
    /// All there are.
    pub const ALL: [Self; 16] = [
        Self::Command,
        Self::Cancel,
        Self::Enroll,
        Self::Tag,
        Self::Revoke,
        Self::Setting,
        Self::RotateKeys,
        Self::RewrapKeys,
        Self::DestroyKeys,
        Self::AddUser,
        Self::ChangeUser,
        Self::RemoveUser,
        Self::Restore,
        Self::AcceptLoss,
        Self::AddToken,
        Self::RevokeToken,
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Cancel => "cancel",
            Self::Enroll => "enroll",
            Self::Tag => "tag",
            Self::Revoke => "revoke",
            Self::Setting => "setting",
            Self::RotateKeys => "keys rotate",
            Self::RewrapKeys => "keys rewrap",
            Self::DestroyKeys => "keys destroy",
            Self::AddUser => "user add",
            Self::ChangeUser => "user passwd",
            Self::RemoveUser => "user remove",
            Self::Restore => "restore",
            Self::AcceptLoss => "accept loss",
            Self::AddToken => "token add",
            Self::RevokeToken => "token revoke",
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|deed| *deed as u8 == byte)
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One act.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Act {
    /// When.
    pub at: UnixTime,
    /// Who: a user of the system, a token of the gateway by its name, or the node itself.
    pub by: Box<str>,
    /// What was done.
    pub deed: Deed,
    /// To which device.
    pub device: Option<DeviceId>,
    /// What else there is to say; never a body, a password or a key.
    pub detail: Box<str>,
}

impl Act {
    /// An act on no device.
    #[must_use]
    pub fn new(at: UnixTime, by: &str, deed: Deed, detail: &str) -> Self {
        Self { at, by: cut(by), deed, device: None, detail: cut(detail) }
    }

    /// An act on a device.
    #[must_use]
    pub fn on(at: UnixTime, by: &str, deed: Deed, device: DeviceId, detail: &str) -> Self {
        Self { device: Some(device), ..Self::new(at, by, deed, detail) }
    }

    pub(crate) fn len(&self) -> usize {
        self.by.len() + self.detail.len()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let (by, detail) = (cut(&self.by), cut(&self.detail));
        let device = self.device.as_ref().map_or("", DeviceId::as_str);
        let mut out = Vec::with_capacity(16 + by.len() + device.len() + detail.len());
        out.push(self.deed as u8);
        out.extend_from_slice(&self.at.as_ms().to_be_bytes());
        for text in [&*by, device] {
            out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(0).to_be_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        out.extend_from_slice(detail.as_bytes());
        out
    }

    pub(crate) fn decode(value: &Bytes) -> Result<Self, RecordError> {
        let (&[deed, at @ .., by_high, by_low], rest) =
            value.split_first_chunk::<11>().ok_or(RecordError::Short("the act"))?;
        let unknown = RecordError::Value { what: "the deed", found: u64::from(deed) };
        let deed = Deed::from_byte(deed).ok_or(unknown)?;
        let (by, rest) = text(rest, [by_high, by_low], "who did it")?;
        let (len, rest) = rest.split_first_chunk::<2>().ok_or(RecordError::Short("the device"))?;
        let (device, rest) = text(rest, *len, "the device")?;
        let device = match device {
            "" => None,
            id => Some(id.parse().map_err(|_| RecordError::Text("the device"))?),
        };
        let detail = std::str::from_utf8(rest).map_err(|_| RecordError::Text("the detail"))?;
        let at = UnixTime::from_ms(u64::from_be_bytes(at));
        Ok(Self { at, by: by.into(), deed, device, detail: detail.into() })
    }
}

/// An act and its place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ActRow {
    /// In which partition's log.
    pub partition: Partition,
    /// Its number there, from 1 on.
    pub number: u64,
    /// What it was.
    pub act: Act,
}

fn text<'a>(bytes: &'a [u8], len: [u8; 2], what: &'static str) -> Result<(&'a str, &'a [u8]), RecordError> {
    let len = usize::from(u16::from_be_bytes(len));
    let (text, rest) = bytes.split_at_checked(len).ok_or(RecordError::Short(what))?;
    Ok((std::str::from_utf8(text).map_err(|_| RecordError::Text(what))?, rest))
}

/// The text, or as much of it as an act holds.
fn cut(text: &str) -> Box<str> {
    text.get(..text.floor_char_boundary(TEXT_LEN_MAX)).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn act() -> Act {
        let device = "pump-7".parse().unwrap();
        Act::on(UnixTime::from_ms(0x0102), "uid 1000", Deed::Revoke, device, "lost")
    }

    #[test]
    fn an_act_reads_back_and_no_cut_one_does() {
        let value = Bytes::from(act().encode());
        assert_eq!(Act::decode(&value), Ok(act()));
        for len in 0..value.len() - 4 {
            assert!(Act::decode(&value.slice(..len)).is_err(), "cut at {len}");
        }
        for deed in Deed::ALL {
            let bare = Act::new(UnixTime::EPOCH, "", deed, "");
            assert_eq!(Act::decode(&bare.encode().into()), Ok(bare));
        }
    }

    /// Bytes on the disk: a later version reads them still.
    #[test]
    fn the_bytes_of_an_act_stand() {
        let expected = [&[5, 0, 0, 0, 0, 0, 0, 1, 2, 0, 8][..], b"uid 1000", &[0, 6], b"pump-7", b"lost"].concat();
        assert_eq!(act().encode(), expected);
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        let long = Act::new(UnixTime::EPOCH, "root", Deed::Tag, &"é".repeat(400));
        assert_eq!(long.detail.len(), 512);
        let odd = Act::new(UnixTime::EPOCH, "root", Deed::Tag, &format!("a{}", "é".repeat(400)));
        assert_eq!(odd.detail.len(), 511);
        assert_eq!(Act::decode(&long.encode().into()), Ok(long));
    }
}
