//! Power cuts: what was done to a folder is recorded by `tests/power/recorder.c`, and what a cut at
//! any moment might have left of it is built anew.
//!
//! A kill proves nothing about a sync: the system still has every page. Here only what was synced is
//! sure to be there. Of what was written later each page of 4 KiB is there as it was after any of its
//! writes, or is not; a name that was made, moved or removed counts once its folder was synced, and
//! before that by chance. That is harder than what one file system or another does, and within what
//! POSIX lets all of them do.

pub mod disk;
pub mod recording;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::kept;

/// The recorder, built: a library to be preloaded.
///
/// # Panics
///
/// Where there is no C compiler, or it does not take the source.
#[must_use]
pub fn recorder() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("power/recorder.c");
    let folder = kept("power");
    // Under a name of its own first: tests run side by side and load it while others build it.
    let (draft, built) = (folder.join(format!("recorder-{}.so", std::process::id())), folder.join("recorder.so"));
    let mut compile = Command::new("cc");
    compile.args(["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]).arg(&draft).arg(&source);
    let status = compile.status().expect("a C compiler (apt-get install gcc libc6-dev)");
    assert!(status.success(), "{} does not compile", source.display());
    std::fs::rename(&draft, &built).expect("the target folder is writable");
    built
}
