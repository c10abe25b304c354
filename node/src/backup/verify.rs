//! Reads a backup to its end, and says what it holds.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use serde::Serialize;

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

/// Checks all of a backup: that it is whole and as it was written.
///
/// # Errors
///
/// [`BackupError`] names the byte at which it is not.
pub fn verify(path: &Path, progress: impl FnMut(u64)) -> Result<Verified, BackupError> {
    read(path, progress, |_| Ok(()))
}
