//! What all simulated devices of a run say they have done, in one file: a JSON line for each
//! reading published, each acknowledged, each refused, and each session of the ratchet.
//!
//! ```text
//! {"event":"published","device":"pump-7","n":17,"reading":"9041","sha256":"ab..","published_at":1750000000000}
//! {"event":"acknowledged","device":"pump-7","n":17,"reading":"9041","sha256":"ab..",...,"acknowledged_at":1750000000021}
//! {"event":"session","device":"pump-7","counter":1}
//! {"event":"refused","device":"pump-7","n":17,"reason":135}
//! {"event":"ended","published":40,"acknowledged":40,"devices":[{"device":"pump-7","published":40,...}]}
//! ```
//!
//! A line is handed to the system in one write before the device goes on, so that what stands in
//! the file had happened by then, whoever dies. A file that is there is gone on with: a test
//! restarts devices and node as it likes, and reads one history. The last line says what a run came
//! to; it is missing where the run was killed.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::journal::{Entry, end_last_line};
use super::{Report, SimulateEvent};

/// One line of a report.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Line {
    /// A reading is on its way.
    Published(Entry),
    /// The node has acknowledged it.
    Acknowledged(Entry),
    /// A session of the ratchet began.
    Session {
        /// Whose.
        device: String,
        /// Its handshake counter.
        counter: u32,
    },
    /// The node refused a reading; it is sealed anew later.
    Refused {
        /// Whose.
        device: String,
        /// Which.
        n: u64,
        /// The reason code of PUBACK.
        reason: u8,
    },
    /// The run is over.
    Ended(Report),
}

/// Reads a report. A last line that was cut off is ignored.
///
/// # Errors
///
/// The file cannot be read, or holds a line that is none.
pub fn read(path: &Path) -> io::Result<Vec<Line>> {
    let mut reader = BufReader::new(File::open(path)?);
    let (mut lines, mut text) = (Vec::new(), String::new());
    while reader.read_line(&mut text)? > 0 {
        match serde_json::from_str(&text) {
            Ok(line) => lines.push(line),
            Err(_) if !text.ends_with('\n') => break,
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
        text.clear();
    }
    Ok(lines)
}

/// A report that is being written, by all devices.
#[derive(Debug)]
pub(super) struct ReportFile {
    state: Mutex<State>,
    failed: Notify,
}

#[derive(Debug)]
struct State {
    file: File,
    failure: Option<io::Error>,
}

impl ReportFile {
    /// Opens a report, to go on after its last whole line.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
        end_last_line(path, &mut file)?;
        Ok(Self { state: Mutex::new(State { file, failure: None }), failed: Notify::new() })
    }

    /// Writes down what has happened, where it belongs here. After a failure it writes nothing.
    pub(super) fn event(&self, event: &SimulateEvent) {
        let line = match event.clone() {
            SimulateEvent::Published(entry) => Line::Published(entry),
            SimulateEvent::Acknowledged(entry) => Line::Acknowledged(entry),
            SimulateEvent::NewSession { device, counter } => Line::Session { device: device.to_string(), counter },
            SimulateEvent::Refused { device, n, reason } => Line::Refused { device: device.to_string(), n, reason },
            SimulateEvent::Connected { .. }
            | SimulateEvent::NotConnected { .. }
            | SimulateEvent::Disconnected { .. }
            | SimulateEvent::Setting { .. }
            | SimulateEvent::Command { .. } => return,
        };
        self.write(&line);
    }

    /// Completes once a line could not be written.
    pub(super) async fn failed(&self) {
        self.failed.notified().await;
    }

    /// Writes down what the run came to.
    ///
    /// # Errors
    ///
    /// The first failure of any line.
    pub(super) fn end(&self, report: &Report) -> io::Result<()> {
        self.write(&Line::Ended(report.clone()));
        self.lock().failure.take().map_or(Ok(()), Err)
    }

    fn write(&self, line: &Line) {
        let mut state = self.lock();
        if state.failure.is_some() {
            return;
        }
        let written = serde_json::to_vec(line).map_err(io::Error::from).and_then(|mut bytes| {
            bytes.push(b'\n');
            state.file.write_all(&bytes)
        });
        if let Err(error) = written {
            state.failure = Some(error);
            // Whoever waits later finds the permit.
            self.failed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unhidra_core::ids::DeviceId;

    fn entry(n: u64, acknowledged_at: Option<u64>) -> Entry {
        Entry { device: "d".into(), n, reading: u64::MAX, sha256: "ab".into(), published_at: 5, acknowledged_at }
    }

    #[test]
    fn a_report_goes_on_where_another_run_was_killed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("report");
        let report = ReportFile::open(&path).expect("opens");
        report.event(&SimulateEvent::Published(entry(1, None)));
        report.event(&SimulateEvent::Acknowledged(entry(1, Some(9))));
        let whole = std::fs::read(&path).expect("reads");
        std::fs::write(&path, [&whole[..], br#"{"event":"publ"#].concat()).expect("writes");
        assert_eq!(read(&path).expect("reads").len(), 2);

        let report = ReportFile::open(&path).expect("opens");
        let device = DeviceId::parse("d").expect("an id");
        report.event(&SimulateEvent::Connected { device });
        report.event(&SimulateEvent::NewSession { device, counter: 2 });
        report.end(&Report::default()).expect("writes");
        assert_eq!(
            read(&path).expect("reads"),
            [
                Line::Published(entry(1, None)),
                Line::Acknowledged(entry(1, Some(9))),
                Line::Session { device: "d".into(), counter: 2 },
                Line::Ended(Report::default()),
            ]
        );
    }

    #[tokio::test]
    async fn a_report_that_cannot_be_written_says_so_at_once_and_at_the_end() {
        // A device that is always full.
        let report = ReportFile { state: Mutex::new(State { file: full(), failure: None }), failed: Notify::new() };
        report.event(&SimulateEvent::Published(entry(1, None)));
        report.failed().await;
        let failure = report.end(&Report::default()).expect_err("the disk is full");
        assert_eq!(failure.kind(), io::ErrorKind::StorageFull);
    }

    fn full() -> File {
        OpenOptions::new().write(true).open("/dev/full").expect("Linux has it")
    }
}
