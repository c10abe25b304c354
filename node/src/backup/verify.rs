//! Reads a backup to its end, and says what it holds.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use serde::Serialize;
use unhidra_store::{Checking, Keys};

use super::frame::{Frame, Reader};
use super::{BackupError, End, Head};

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verified {
    /// What it says of itself.
    #[serde(flatten)]
    pub head: Head,
    /// How much it has.
    #[serde(flatten)]
    pub end: End,
}

/// Reads all of a backup, with one frame in memory, and shows `each` frame to whoever looks.
/// `progress` is told how many bytes were read.
///
/// # Errors
///
/// [`BackupError`] names the byte at which the file is not what was written.
pub(super) fn read(
    path: &Path,
    mut progress: impl FnMut(u64),
    mut each: impl FnMut(Frame) -> Result<(), BackupError>,
) -> Result<Verified, BackupError> {
    let file = File::open(path).map_err(|source| BackupError::File { path: path.into(), source })?;
    let mut reader = Reader::new(BufReader::with_capacity(1 << 20, file));
    let wrong = |cause| BackupError::Frame { path: path.into(), cause };
    let (mut head, mut ended) = (None, None);
    while let Some(frame) = reader.next().map_err(wrong)? {
        match &frame {
            Frame::Head(found) => head = Some(found.clone()),
            Frame::End(found) => ended = Some(*found),
            Frame::File { .. } | Frame::Records(_) => {}
        }
        each(frame)?;
        progress(reader.at());
    }
    match (head, ended) {
        (Some(head), Some(end)) => Ok(Verified { head, end }),
        _ => Err(BackupError::Content { path: path.into(), cause: "it has no head or no end".to_owned() }),
    }
}

/// Checks all of a backup: that it is whole and as it was written. With `keys`, also that every
/// record opens.
///
/// # Errors
///
/// [`BackupError`] names the byte at which it is not, or the record.
pub fn verify(path: &Path, keys: Option<&Keys>, progress: impl FnMut(u64)) -> Result<Verified, BackupError> {
    let (mut format, mut ring) = (None, None);
    let mut checking = None;
    read(path, progress, |frame| {
        match (frame, keys) {
            (Frame::File { name, contents }, _) if name == "store/format" => format = Some(contents),
            (Frame::File { name, contents }, _) if name == "store/keys" => ring = Some(contents),
            (Frame::Records(piece), Some(keys)) => {
                let checking = match &mut checking {
                    Some(checking) => checking,
                    none => {
                        let format = format.as_deref().unwrap_or_default();
                        none.insert(Checking::begin(path, format, ring.as_deref(), keys)?)
                    }
                };
                checking.check(&piece)?;
            }
            (Frame::Head(_) | Frame::File { .. } | Frame::Records(_) | Frame::End(_), _) => {}
        }
        Ok(())
    })
}

/// Whether a backup is of a folder whose records are sealed: reads it up to its first record.
///
/// # Errors
///
/// [`BackupError`].
pub fn is_sealed(path: &Path) -> Result<bool, BackupError> {
    let file = File::open(path).map_err(|source| BackupError::File { path: path.into(), source })?;
    let mut reader = Reader::new(BufReader::new(file));
    let wrong = |cause| BackupError::Frame { path: path.into(), cause };
    while let Some(frame) = reader.next().map_err(wrong)? {
        match frame {
            Frame::File { name, .. } if name == "store/keys" => return Ok(true),
            Frame::Records(_) => break,
            Frame::Head(_) | Frame::File { .. } | Frame::End(_) => {}
        }
    }
    Ok(false)
}
