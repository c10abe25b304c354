//! Whether a power cut may have taken something: the store is then at an earlier moment than it was.
//!
//! With `durability = "interval"` or `"none"` what is committed is in the system's memory for a
//! while. A process that is killed leaves it there; a power cut takes it, and where it leaves no
//! hole nothing else tells of it. So while the store is open that way the file `boot` says in which
//! boot of the system, and it goes once all is synced:
//!
//! ```text
//! no file --open, interval or none--> boot = ID --closed in order, or opened with fsync--> no file
//!                                        |  ^
//!                  killed, the same boot +--+
//!                  killed, another boot, or one that nobody knows: marked as put back from a copy
//! ```
//!
//! The file is durable before the first commit that is not. What cannot be read of it is another
//! boot, and so is every boot of a system that has no id for it: rather a session too many that
//! begins anew than a message key that is used twice.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use tracing::warn;

use crate::config::Durability;
use crate::metrics::Metrics;

use super::folder::{self, Format, OpenError, sync_folder};

/// The file's name.
const BOOT: &str = "boot";

/// Where Linux says which boot this is: another random id after each.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Acts on what the last opening has left, before anything is served, counts it, and says so where this
/// one commits without a sync. Gives what the format file says now.
///
/// # Errors
///
/// The file, or the format file, cannot be read or written. Nothing was opened.
pub(super) fn begin(
    path: &Path,
    format: Format,
    durability: Durability,
    metrics: &Metrics,
) -> Result<Format, OpenError> {
    let io = |cause| OpenError::Io { path: path.join(BOOT), cause };
    let present = present();
    let left = match fs::read(path.join(BOOT)) {
        Ok(left) => Some(left),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => None,
        Err(cause) => return Err(io(cause)),
    };
    let is_same = |left: &Vec<u8>| present.as_ref().is_some_and(|present| left == present.as_bytes());
    let format = match left.as_ref().filter(|left| !is_same(left)) {
        None => format,
        Some(_) => {
            warn!(
                folder = %path.display(),
                "the system was started anew while the store was open with store.durability \"interval\" or \"none\": \
                 a power cut may have taken the last of what was acknowledged. The store is taken for one that was put \
                 back from a copy: no message key is used twice, each device is asked for a new session, and clients \
                 begin anew"
            );
            metrics.power_cuts.inc();
            folder::mark_power_cut(path)?
        }
    };
    // The mark that tells of it is in the format file now, so this one may say something else.
    if durability != Durability::Fsync && !left.as_ref().is_some_and(is_same) {
        write(path, present.as_deref().unwrap_or(UNKNOWN)).map_err(io)?;
    }
    Ok(format)
}

/// Takes the file away: all that was ever committed is synced.
///
/// # Errors
///
/// The file stays.
pub(super) fn settle(path: &Path) -> io::Result<()> {
    match fs::remove_file(path.join(BOOT)) {
        Ok(()) => sync_folder(path),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(cause),
    }
}

/// What stands in the file where the system has no id for its boots: it is never the present one.
const UNKNOWN: &str = "boot = unknown\n";

/// What stands in the file in this boot; `None` where the system does not say which it is.
fn present() -> Option<String> {
    let id = fs::read_to_string(BOOT_ID).ok()?;
    let id = id.trim();
    (!id.is_empty()).then(|| format!("boot = {id}\n"))
}

/// The old file or the new one stands there, whenever power fails, and the new one once this returns.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.join("boot.new");
    let mut file = File::create(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path.join(BOOT))?;
    sync_folder(path)
}
