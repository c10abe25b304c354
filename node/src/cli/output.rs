//! What goes to stdout: aligned tables for people, a JSON object a line for programs.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Serialize;

use super::CliError;

/// Where answers go, and in which shape.
pub(crate) struct Output<'a> {
    json: bool,
    writer: &'a mut dyn Write,
}

impl<'a> Output<'a> {
    pub(crate) fn new(json: bool, writer: &'a mut dyn Write) -> Self {
        Self { json, writer }
    }

    /// Whether a program reads it.
    pub(crate) const fn is_json(&self) -> bool {
        self.json
    }

    /// One line for people.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), CliError> {
        self.write(|w| writeln!(w, "{text}"))
    }

    /// One object for programs.
    pub(crate) fn object(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        self.write(|w| {
            serde_json::to_writer(&mut *w, value)?;
            w.write_all(b"\n")
        })
    }

    /// Bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.write(|w| w.write_all(bytes))
    }

    /// One object, or its lines.
    pub(crate) fn say(&mut self, value: &impl Serialize, text: &str) -> Result<(), CliError> {
        if self.json { self.object(value) } else { self.line(text) }
    }

    /// A table with a heading; every column but the last as wide as its widest cell.
    pub(crate) fn table<const N: usize>(&mut self, heading: [&str; N], rows: &[[String; N]]) -> Result<(), CliError> {
        let width = |column: usize| {
            let cell = |row: &[String; N]| row.get(column).map_or(0, |cell| cell.chars().count());
            let heading = heading.get(column).map_or(0, |cell| cell.chars().count());
            rows.iter().map(cell).max().unwrap_or(0).max(heading)
        };
        let widths: [usize; N] = std::array::from_fn(width);
        self.line(&aligned(&heading, &widths))?;
        rows.iter().try_for_each(|row| self.line(&aligned(&row.each_ref().map(String::as_str), &widths)))
    }

    fn write(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), CliError> {
        write(self.writer).and_then(|()| self.writer.flush()).map_err(CliError::Output)
    }
}

fn aligned(cells: &[&str], widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, &width) in cells.iter().zip(widths) {
        let _ = write!(line, "{cell:width$}  ");
    }
    line.trim_end().to_owned()
}

/// An instant in ms since the Unix epoch as `2026-01-31T23:59:59.123Z` (RFC 3339).
pub(crate) fn instant(ms: u64) -> String {
    let (days, ms_of_day) = (ms / 86_400_000, ms % 86_400_000);
    // Days are counted in eras of 400 years that begin on 1 March, so that the leap day is last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (s, ms) = (ms_of_day / 1000, ms_of_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{ms:03}Z", s / 3600, s / 60 % 60, s % 60)
}

/// A body as a person can read it: its text, or its bytes in hexadecimal after `0x`.
pub(crate) fn body(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        // A terminal obeys control characters, and a device may send any.
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.iter().fold("0x".to_owned(), |mut line, byte| {
            let _ = write!(line, "{byte:02x}");
            line
        }),
    }
}

/// A name a device chose, without what a terminal would obey.
pub(crate) fn name(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(json: bool, print: impl FnOnce(&mut Output<'_>)) -> String {
        let mut bytes = Vec::new();
        print(&mut Output::new(json, &mut bytes));
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn instants_are_rfc_3339() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_735_689_600_000, "2025-01-01T00:00:00.000Z"),
            (4_107_542_400_001, "2100-03-01T00:00:00.001Z"),
        ] {
            assert_eq!(instant(ms), text);
        }
        // A clock gone mad is shown, and not a panic.
        assert!(instant(u64::MAX).ends_with('Z'));
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["pump-7".to_owned(), "yes".to_owned()], ["a".to_owned(), String::new()]];
        let table = printed(false, |out| out.table(["DEVICE", "HERE"], &rows).unwrap());
        assert_eq!(table, "DEVICE  HERE\npump-7  yes\na\n");
    }

    #[test]
    fn json_is_one_object_a_line() {
        let line = printed(true, |out| out.say(&serde_json::json!({"a": "b\nc"}), "text").unwrap());
        assert_eq!(line, "{\"a\":\"b\\nc\"}\n");
    }

    #[test]
    fn a_terminal_is_sent_nothing_it_would_obey() {
        assert_eq!(body("21.5 °C".as_bytes()), "21.5 °C");
        assert_eq!(body(b"\x1b[2J"), "0x1b5b324a");
        assert_eq!(body(&[0xff]), "0xff");
        assert_eq!(name("a\u{1b}b"), "a\u{fffd}b");
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let error = Output::new(false, &mut Gone).line("text").unwrap_err();
        assert_eq!(error.exit_code(), 0);
    }
}
