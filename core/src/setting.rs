//! What a device is to be set to: the last value by name, until the device has it.

use alloc::sync::Arc;
use core::fmt;
use core::str::FromStr;

use bytes::Bytes;
use thiserror::Error;

use crate::ids::DeviceId;
use crate::message::{MessageName, MessageNameError};
use crate::time::UnixTime;

/// One setting of one device, as it is wanted.
#[derive(Clone, Eq, PartialEq)]
pub struct Setting {
    /// Whose.
    pub device: DeviceId,
    /// Its name.
    pub name: SettingName,
    /// The value; `None` where the setting was removed and the device is to forget it.
    pub value: Option<Bytes>,
    /// Counts up with every change of any setting of the device, over restarts: of two values of a
    /// name the one with the higher version is the newer.
    pub version: u64,
    /// When it was changed.
    pub changed_at: UnixTime,
    /// Who asked for it, where that is known.
    pub asked_by: Option<Arc<str>>,
    /// What the device has acknowledged last.
    pub acknowledged: Option<Acknowledged>,
}

/// What a device has acknowledged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Acknowledged {
    /// Which version.
    pub version: u64,
    /// In which session of the ratchet, by its handshake counter. A device that begins a new one may
    /// have lost what it held, and is told all again.
    pub session: u32,
    /// When.
    pub at: UnixTime,
}

impl Setting {
    /// The most settings of one device that have a value.
    pub const COUNT_MAX: usize = 64;
    /// The most settings of one device, those that were removed included: a device that begins again with
    /// an old copy of its storage is told of them, too.
    pub const KNOWN_MAX: usize = 256;
    /// The most bytes of a value.
    pub const VALUE_LEN_MAX: usize = 4096;

    /// Whether the device has acknowledged this version.
    #[must_use]
    pub fn is_in_sync(&self) -> bool {
        self.acknowledged.is_some_and(|acknowledged| acknowledged.version == self.version)
    }
}

impl fmt::Debug for Setting {
    // What a device is set to may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setting")
            .field("device", &self.device)
            .field("name", &self.name)
            .field("version", &self.version)
            .field("value_len", &self.value.as_ref().map(Bytes::len))
            .finish_non_exhaustive()
    }
}

/// A setting's name: 1 to 64 bytes of UTF-8 without control characters, and none of those with
/// which the node speaks of itself, `hello` and `alive` (e2ee/PROTOCOL.md section 9).
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SettingName(Arc<str>);

/// Why a text is no [`SettingName`].
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum SettingNameError {
    /// It is no name at all.
    #[error(transparent)]
    Name(#[from] MessageNameError),
    /// The node uses it itself.
    #[error("the names hello and alive are the node's own; take another")]
    Reserved,
}

impl SettingName {
    /// The names the node uses itself.
    pub const RESERVED: [&'static str; 2] = ["hello", "alive"];

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SettingName {
    type Err = SettingNameError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name: MessageName = text.parse()?;
        if Self::RESERVED.contains(&text) {
            return Err(SettingNameError::Reserved);
        }
        Ok(Self(name.into_inner()))
    }
}

impl fmt::Display for SettingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_has_a_name_that_is_not_the_nodes() {
        assert_eq!("interval".parse::<SettingName>().map(|name| name.as_str() == "interval"), Ok(true));
        for reserved in SettingName::RESERVED {
            assert_eq!(reserved.parse::<SettingName>(), Err(SettingNameError::Reserved));
        }
        assert!(matches!("".parse::<SettingName>(), Err(SettingNameError::Name(_))));
        assert!(matches!("a\nb".parse::<SettingName>(), Err(SettingNameError::Name(_))));
    }
}
