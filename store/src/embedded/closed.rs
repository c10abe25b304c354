//! What a partition's journals were when it was closed.
//!
//! After a crash the last batch of the newest journal may be torn, and a damaged one cannot be told
//! from it. After a close it can: the file `closed` says where each journal ends. It is there from
//! the end of one opening to the beginning of the next.
//!
//! ```text
//! 3.jnl 67108331 5821 9c1f...      name, end in bytes, batches, XXH3-64 of their numbers
//! check = 0b74...                  XXH3-64 of the lines above
//! ```

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::folder::{OpenError, sync_folder};
use super::journal::{self, Damage, Walked};

const CLOSED: &str = "closed";
const CHECK: &str = "check = ";

/// Writes down what the journals are. The partition must not be open.
///
/// # Errors
///
/// Where they are damaged, or cannot be read or written. The next opening then takes it for one
/// after a crash.
pub(super) fn write(partition: &Path) -> Result<(), OpenError> {
    let io = |cause| OpenError::Io { path: partition.join(CLOSED), cause };
    let walked = journal::check(partition)?;
    let text = print(&walked);
    let draft = partition.join("closed.new");
    let mut file = File::create(&draft).map_err(io)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
    fs::rename(&draft, partition.join(CLOSED)).map_err(io)?;
    sync_folder(partition).map_err(io)
}

/// What of the journals is not as it was when the partition was closed, if it was.
///
/// # Errors
///
/// The file cannot be read.
pub(super) fn survey(partition: &Path, walked: &[Walked]) -> Result<Option<Damage>, OpenError> {
    let path = partition.join(CLOSED);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(OpenError::Io { path, cause }),
    };
    let damage = |file: &Path, offset, found: String| Some(Damage { file: file.to_owned(), offset, found });
    let whole = std::str::from_utf8(&text).ok().and_then(|text| {
        let (lines, check) = text.split_once(CHECK)?;
        (check.strip_suffix('\n')? == hash(lines)).then_some(lines)
    });
    let Some(lines) = whole else {
        return Ok(damage(&path, 0, "its lines are not those that its check was made of".into()));
    };
    for (walked, line) in walked.iter().zip(lines.lines()) {
        let found = print_one(walked);
        if found != line {
            // Batches are gone from its end, or the number of one of them is another.
            let end = line.split(' ').nth(1).and_then(|end| end.parse::<u64>().ok()).unwrap_or_default();
            let offset = if walked.end() < end { walked.end() } else { 0 };
            return Ok(damage(&walked.path, offset, format!("it was closed as {line:?}, and is {found:?}")));
        }
    }
    if walked.len() != lines.lines().count() {
        return Ok(damage(&path, 0, format!("{} journals, and it was closed with others", walked.len())));
    }
    Ok(None)
}

/// Takes the file away, before the first write.
///
/// # Errors
///
/// Where it stays.
pub(super) fn take(partition: &Path) -> io::Result<()> {
    match fs::remove_file(partition.join(CLOSED)) {
        Ok(()) => sync_folder(partition),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(cause),
    }
}

fn print(walked: &[Walked]) -> String {
    let lines: String = walked.iter().map(|journal| print_one(journal) + "\n").collect();
    let check = hash(&lines);
    format!("{lines}{CHECK}{check}\n")
}

fn print_one(journal: &Walked) -> String {
    let mut numbers = Xxh3::new();
    journal.numbers().for_each(|number| numbers.update(&number.to_le_bytes()));
    let name = journal.path.file_name().unwrap_or_default().to_string_lossy();
    let mut line = String::new();
    // A String takes everything.
    _ = write!(line, "{name} {} {} {:016x}", journal.end(), journal.batches(), numbers.digest());
    line
}

fn hash(lines: &str) -> String {
    format!("{:016x}", xxh3_64(lines.as_bytes()))
}
