//! The files that say who may come in: secrets for their owner alone, all of a bounded size.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use unhidra_certs::FileError;
pub(super) use unhidra_certs::write_private;
use zeroize::Zeroizing;

/// The most bytes such a file may have: 100 000 users.
const LEN_MAX: u64 = 16 * 1024 * 1024;

/// Reads a file that nobody but its owner may read.
pub(super) fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let mode = metadata(path)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(FileError::Exposed { path: path.into(), mode });
    }
    read(path)
}

/// Reads a file whoever may read it.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let len = metadata(path)?.len();
    if len > LEN_MAX {
        return Err(FileError::TooLarge { path: path.into(), len, max: LEN_MAX });
    }
    let failed = |source| FileError::Read { path: path.into(), source };
    // Room for all of it at once, so that growing leaves no copy of a secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(len).unwrap_or(0).saturating_add(1)));
    File::open(path).map_err(failed)?.take(LEN_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn metadata(path: &Path) -> Result<std::fs::Metadata, FileError> {
    std::fs::metadata(path).map_err(|source| FileError::Read { path: path.into(), source })
}
