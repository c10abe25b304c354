//! Backups: a data folder as it was at one instant, in one file, made while the node runs.
//!
//! ```text
//! create:   the store's snapshot + the folder's files --frames--> control socket --> FILE
//! verify:   FILE --every check, every record opened where the key is at hand--> what it holds
//! restore:  FILE --all of that first--> an empty folder, marked as put back from a copy
//! ```
//!
//! A backup is as safe as the folder: records stay sealed, and the key that opens them is not in it, also where
//! somebody keeps it in the folder. Nor are other secrets that the configuration names a file for.

mod folder;
mod frame;
mod restore;
#[cfg(test)]
mod tests;
mod verify;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::mpsc;
use unhidra_core::time::UnixTime;
use unhidra_store::{Copying, Embedded, ReadError, Store};

pub use frame::{End, FrameError, Head};
pub use restore::restore;
pub use verify::{Verified, is_sealed, verify};

use crate::config::Config;
use crate::control::ControlError;
use crate::folder::Layout;
use frame::{Frame, Writer};

/// Bytes of records in one frame, about.
const FRAME_BYTES: usize = 256 * 1024;

/// Frames that wait for whoever takes them: full, the copy waits too.
const FRAMES: usize = 4;

/// The bytes of a backup, as they are made. An error is the last of them.
pub type Pieces = mpsc::Receiver<Result<Bytes, ControlError>>;

/// Why a backup was not made, is none, or was not put back.
#[derive(Debug, Error)]
pub enum BackupError {
    /// The store does not read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file is no backup, or not a whole one.
    #[error("{}: {cause}", path.display())]
    Frame {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        cause: FrameError,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The folder is in use.
    #[error("{} holds {found:?} already; a backup is put back into a new or an empty folder: --data DIR names one", path.display())]
    NotEmpty {
        /// Which folder.
        path: PathBuf,
        /// One name in it.
        found: String,
    },
    /// The store does not take it.
    #[error(transparent)]
    Open(#[from] unhidra_store::OpenError),
    /// It holds what no backup of this program holds.
    #[error("{}: {cause}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
}

/// What backups are made of.
pub struct Source {
    store: Arc<Embedded>,
    layout: Layout,
    apart: Vec<PathBuf>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("folder", &self.layout.root()).finish_non_exhaustive()
    }
}

/// The files of passwords and secrets that a configuration names: none belongs into a backup. Keys of certificates are
/// not among them, for those may be the node's own.
#[must_use]
pub fn secrets(config: &Config) -> Vec<PathBuf> {
    let named = [&config.users.file, &config.jwt.key_file].into_iter();
    let outlets = config.outlets.values().flat_map(|outlet| [&outlet.password_file, &outlet.secret_file]);
    let upstreams = config.upstream.iter().map(|upstream| &upstream.password_file);
    named.chain(outlets).chain(upstreams).cloned().chain(config.store.master_key_path(&config.data)).collect()
}

impl Source {
    /// Backups of an open folder, without the files `apart`, wherever they lie.
    #[must_use]
    pub const fn new(store: Arc<Embedded>, layout: Layout, apart: Vec<PathBuf>) -> Self {
        Self { store, layout, apart }
    }

    /// Begins one. Its bytes come as fast as they are taken; whoever drops them ends it.
    ///
    /// # Errors
    ///
    /// [`ControlError::Unavailable`] where the store does not read now.
    pub async fn begin(&self, now: UnixTime) -> Result<Pieces, ControlError> {
        let bytes_about = self.store.disk_bytes().await?;
        let head = Head {
            program: env!("CARGO_PKG_VERSION").to_owned(),
            created_at: now.as_ms(),
            partitions: self.store.partitions(),
            bytes_about,
        };
        // First what the records were, then the files: a key that is made between is in the file, and
        // one that records name is never missing.
        let copying = self.store.copy()?;
        let (layout, apart) = (self.layout.clone(), self.apart.clone());
        let (send, pieces) = mpsc::channel(FRAMES);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = produce(&head, &layout, &apart, copying, &send) {
                tracing::error!(%error, "a backup was given up");
                // Nobody may be left to be told.
                let _ = send.blocking_send(Err(ControlError::Unavailable(error.to_string())));
            }
        });
        Ok(pieces)
    }
}

/// Makes the frames, until the end or until nobody takes them.
fn produce(
    head: &Head,
    layout: &Layout,
    apart: &[PathBuf],
    mut copying: Copying,
    send: &mpsc::Sender<Result<Bytes, ControlError>>,
) -> Result<(), BackupError> {
    let mut writer = Writer::new();
    let put = |writer: &mut Writer, frame: &Frame| {
        let cause = |cause| BackupError::Frame { path: layout.root().into(), cause };
        Ok::<_, BackupError>(send.blocking_send(Ok(writer.put(frame).map_err(cause)?)).is_ok())
    };
    if !put(&mut writer, &Frame::Head(head.clone()))? {
        return Ok(());
    }
    for (name, contents) in folder::files(layout, apart)? {
        if !put(&mut writer, &Frame::File { name, contents })? {
            return Ok(());
        }
    }
    while let Some(piece) = copying.read(FRAME_BYTES)? {
        if !put(&mut writer, &Frame::Records(piece))? {
            return Ok(());
        }
    }
    let end = Frame::End(writer.counted());
    put(&mut writer, &end)?;
    Ok(())
}
