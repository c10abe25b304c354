//! What a simulated device is set to, kept in its folder: `settings.json`.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The file in a device's folder.
const FILE: &str = "settings.json";

/// A value, and its version.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Value {
    /// Of two values of a name the one with the higher version stands.
    pub(super) version: u64,
    /// As text; `None` where the setting was removed.
    pub(super) text: Option<String>,
}

impl fmt::Debug for Value {
    // What a device is set to may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text_len = self.text.as_ref().map(String::len);
        f.debug_struct("Value").field("version", &self.version).field("text_len", &text_len).finish()
    }
}

/// The settings of one device.
pub(super) struct Kept {
    path: PathBuf,
    values: BTreeMap<String, Value>,
}

impl Kept {
    /// Reads what is kept in a device's folder.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join(FILE);
        let values = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { path, values })
    }

    /// Keeps a value, unless a newer one is kept. Says whether it is news; when it returns the value is
    /// in the file.
    pub(super) fn keep(&mut self, name: &str, value: Option<&[u8]>, version: u64) -> io::Result<bool> {
        if self.values.get(name).is_some_and(|kept| kept.version >= version) {
            return Ok(false);
        }
        let text = value.map(|value| String::from_utf8_lossy(value).into_owned());
        self.values.insert(name.to_owned(), Value { version, text });
        let beside = self.path.with_extension("new");
        std::fs::write(&beside, serde_json::to_vec_pretty(&self.values)?)?;
        std::fs::rename(&beside, &self.path)?;
        Ok(true)
    }

    /// The value of a name, where it has one.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name)?.text.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_value_stands_and_is_there_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut kept = Kept::open(folder.path()).unwrap();
        assert!(kept.keep("interval", Some(b"5"), 7).unwrap());
        assert!(!kept.keep("interval", Some(b"4"), 6).unwrap(), "it was held back on the way");
        assert_eq!(Kept::open(folder.path()).unwrap().get("interval"), Some("5"));
        assert!(kept.keep("interval", None, 8).unwrap());
        assert_eq!((kept.get("interval"), Kept::open(folder.path()).unwrap().get("interval")), (None, None));
    }

    #[test]
    fn what_a_device_is_set_to_is_not_printed() {
        let printed = format!("{:?}", Value { version: 7, text: Some("sesame".to_owned()) });
        assert!(printed.contains("text_len: Some(6)") && !printed.contains("sesame"), "{printed}");
    }
}
