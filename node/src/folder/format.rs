//! What a data folder is, in words: its `format` file.
//!
//! | line | what |
//! | --- | --- |
//! | 1 | `unhidra data folder` |
//! | 2 | `version` and a number |
//! | 3 | `kind` and `sealed` or `plain` |
//! | 4 .. | for people |

use std::fmt;
use std::io;
use std::path::Path;

use unhidra_certs::{FileError, read_public, write_private};

use super::FolderError;

/// What [`write_private`] leaves of a format file when the power goes.
pub(super) const UNFINISHED: &str = ".format.new";

const MAGIC: &str = "unhidra data folder";
const VERSION: u32 = 1;

/// Whether what a folder stores is encrypted at rest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// It is, with the store's key.
    Sealed,
    /// It is not: a demo's folder, to be looked into and thrown away.
    Plain,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sealed => "sealed",
            Self::Plain => "plain",
        })
    }
}

/// A format file of the version this program knows.
pub(super) struct Format {
    pub(super) kind: Kind,
}

impl Format {
    /// Reads it, if it is there.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, FolderError> {
        let bytes = match read_public(path) {
            Err(FileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.lines();
        let mut line = |number, expected, parse: fn(&str) -> Option<u32>| {
            let found = lines.next().unwrap_or_default();
            parse(found).ok_or_else(|| FolderError::Format {
                path: path.into(),
                line: number,
                expected,
                found: found.chars().take(80).collect(),
            })
        };
        line(1, "`unhidra data folder`", |text| (text == MAGIC).then_some(0))?;
        let found = line(2, "`version` and a number", |text| text.strip_prefix("version ")?.parse().ok())?;
        if found != VERSION {
            return Err(FolderError::Version { path: path.into(), found, known: VERSION });
        }
        let kind = line(3, "`kind sealed` or `kind plain`", |text| match text {
            "kind sealed" => Some(0),
            "kind plain" => Some(1),
            _ => None,
        })?;
        Ok(Some(Self { kind: if kind == 0 { Kind::Sealed } else { Kind::Plain } }))
    }

    /// Writes it, once in a folder's life.
    pub(super) fn write(path: &Path, kind: Kind) -> Result<Self, FolderError> {
        let words = match kind {
            Kind::Sealed => {
                "The node's data. What it stores is encrypted; the key lies beside this folder, or where\n\
                 store.master_key_file of the configuration says. Without the key nothing here can be read."
            }
            Kind::Plain => {
                "A demo's data. What it stores is NOT encrypted, so that it can be looked into.\n\
                 `unhidra run` refuses this folder. It can be thrown away."
            }
        };
        let text = format!("{MAGIC}\nversion {VERSION}\nkind {kind}\n\n{words}\n");
        write_private(path, text.as_bytes())?;
        Ok(Self { kind })
    }
}
