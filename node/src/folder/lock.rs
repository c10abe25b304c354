//! Who uses a data folder: an advisory lock that ends with its process, however it ends.
//!
//! The file stays when the process goes; the lock does not. So a stale file is no obstacle, and
//! what it says is believed only while the lock is held.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::{FolderError, Layout};

/// What a process does with a data folder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// `unhidra run`
    Node,
    /// `unhidra demo`
    Demo,
    /// A subcommand that found no node running and works on the store itself.
    Command,
}

impl Role {
    const ALL: [Self; 3] = [Self::Node, Self::Demo, Self::Command];

    const fn word(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Demo => "demo",
            Self::Command => "command",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {}", self.word())
    }
}

/// The process that holds a folder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// What it does.
    pub role: Role,
}

/// A lock that is held.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Takes it, or says who has it.
    pub(super) fn take(layout: &Layout, role: Role) -> Result<Self, FolderError> {
        let unusable = |source| FolderError::Unusable { path: layout.root().into(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(layout.lock())
            .map_err(unusable)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(FolderError::Held { path: layout.root().into(), holder: holder(&mut file) });
            }
            Err(error) => return Err(unusable(error.into())),
        }
        write(&mut file, role).map_err(unusable)?;
        Ok(Self(file))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // What a free lock's file says is not believed, so it need not succeed.
        let _ = self.0.set_len(0);
    }
}

fn write(file: &mut File, role: Role) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{} {}", std::process::id(), role.word())
}

fn holder(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.take(64).read_to_string(&mut text).ok()?;
    let (pid, word) = text.trim_end().split_once(' ')?;
    let role = Role::ALL.into_iter().find(|role| role.word() == word)?;
    Some(Holder { pid: pid.parse().ok()?, role })
}
