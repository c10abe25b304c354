//! `unhidra export`

use std::io::{IsTerminal, Write as _};

use clap::ValueEnum;
use unhidra_core::ids::DeviceId;
use unhidra_core::time::Clock;

use super::moment::Moment;
use super::output::{Output, body, instant, name};
use super::{CliError, csv};
use crate::clock::SystemClock;
use crate::control::{Control, DamagedRecord, RowKind, RowRecord, RowsAsked, Span};

/// Prints stored rows: of one device in its order, or of all in the order of the log.
#[derive(Debug, clap::Args)]
pub struct Export {
    /// Only this device's.
    #[arg(value_name = "DEVICE")]
    pub device: Option<DeviceId>,
    /// Only this device's, likewise.
    #[arg(long = "device", value_name = "DEVICE", conflicts_with = "device")]
    pub named: Option<DeviceId>,
    /// Only those of devices of this class.
    #[arg(long, value_name = "NAME")]
    pub class: Option<String>,
    /// Only what the node received at this time or later: 2026-01-31, 2026-01-31T23:59:59Z, or -24h
    /// for a day ago (s, m, h, d, w).
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<Moment>,
    /// Only what the node received before this time.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<Moment>,
    /// As what it is printed; for people without, and as JSON lines with --json.
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Format>,
}

/// As what rows are printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Format {
    /// JSON, one object a line.
    Jsonl,
    /// CSV (RFC 4180), with a header.
    Csv,
}

pub(super) async fn run(args: &Export, control: &dyn Control, out: &mut Output<'_>) -> Result<(), CliError> {
    let now = SystemClock::start().unix_now();
    let [from, to] = [args.from, args.to].map(|moment| moment.map(|moment| moment.at(now).as_ms()));
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        let [from, to] = [from, to].map(instant);
        return Err(CliError::Usage(format!("--from {from} is after --to {to}: nothing lies between them")));
    }
    let asked = |of| RowsAsked { of, after: 0, from, to, class: args.class.clone() };
    let shape = match (args.format, out.is_json()) {
        (Some(Format::Csv), _) => Shape::Csv,
        (Some(Format::Jsonl), _) | (None, true) => Shape::Json,
        (None, false) => Shape::Text,
    };
    shape.begin(out)?;
    let mut progress = Progress::start();
    let mut damaged = Damaged::default();
    match args.device.or(args.named) {
        Some(device) => span(asked(Span::Device(device)), shape, (&mut progress, &mut damaged), control, out).await?,
        None => {
            for partition in 0..control.info().await?.partitions {
                span(asked(Span::Partition(partition)), shape, (&mut progress, &mut damaged), control, out).await?;
            }
        }
    }
    progress.end();
    damaged.end()
}

/// Prints all of one span, a page of it in memory at a time.
async fn span(
    mut asked: RowsAsked,
    shape: Shape,
    (progress, damaged): (&mut Progress, &mut Damaged),
    control: &dyn Control,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    loop {
        let page = control.rows(asked.clone()).await?;
        page.rows.iter().try_for_each(|row| shape.print(row, out))?;
        progress.show(page.rows.len(), page.rows.last());
        damaged.add(page.damaged);
        match page.next.or_else(|| page.rows.last().map(|last| last.offset)) {
            Some(next) if page.more => asked.after = next,
            _ => return Ok(()),
        }
    }
}

/// As what rows are printed, once it is decided.
#[derive(Clone, Copy)]
enum Shape {
    Text,
    Json,
    Csv,
}

impl Shape {
    fn begin(self, out: &mut Output<'_>) -> Result<(), CliError> {
        match self {
            Self::Csv => out.raw(csv::header().as_bytes()),
            Self::Text | Self::Json => Ok(()),
        }
    }

    fn print(self, row: &RowRecord, out: &mut Output<'_>) -> Result<(), CliError> {
        match self {
            Self::Text => out.line(&text(row)),
            Self::Json => out.object(row),
            Self::Csv => out.raw(csv::row(row).as_bytes()),
        }
    }
}

/// Rows that do not read: those behind them are printed, and at the end it was no success.
#[derive(Default)]
struct Damaged {
    rows: u64,
    first: Option<DamagedRecord>,
}

impl Damaged {
    fn add(&mut self, found: Vec<DamagedRecord>) {
        self.rows += found.len() as u64;
        self.first = self.first.take().or_else(|| found.into_iter().next());
    }

    fn end(self) -> Result<(), CliError> {
        let Some(DamagedRecord { partition, offset, device, cause }) = self.first else { return Ok(()) };
        let whose = device.map(|device| format!(" of {device}")).unwrap_or_default();
        let rows = if self.rows == 1 { "1 place".to_owned() } else { format!("{} places", self.rows) };
        Err(CliError::Failed(format!(
            "rows at {rows} do not read and were left out; the first at {partition}/{offset}{whose}: {cause}; \
             `unhidra store verify` of the stopped node names all"
        )))
    }
}

/// How far it has come, on stderr, where a person looks at that and not at the rows themselves.
struct Progress {
    shown: bool,
    rows: u64,
}

impl Progress {
    fn start() -> Self {
        Self { shown: std::io::stderr().is_terminal() && !std::io::stdout().is_terminal(), rows: 0 }
    }

    fn show(&mut self, rows: usize, last: Option<&RowRecord>) {
        self.rows += rows as u64;
        if let (true, Some(last)) = (self.shown, last) {
            // Nobody is served by an error about a line that is gone in a moment.
            let _ = write!(std::io::stderr(), "\r{} rows, up to {}", self.rows, instant(last.received_at));
        }
    }

    fn end(&self) {
        if self.shown {
            let _ = writeln!(std::io::stderr(), "\r{} rows                                    ", self.rows);
        }
    }
}

/// One row for people.
pub(super) fn text(row: &RowRecord) -> String {
    let what = match (row.kind, &row.command, &row.status) {
        (RowKind::Receipt, Some(command), Some(status)) => format!("receipt {command} {status}"),
        (RowKind::Receipt, ..) => "receipt".to_owned(),
        (RowKind::Reading, ..) => name(&row.name),
        (RowKind::Event, ..) => format!("event {}", name(&row.name)),
        (RowKind::Ignored, ..) => "ignored".to_owned(),
    };
    let shown = row.body.as_ref().map(|found| body(found.as_bytes())).unwrap_or_default();
    let place = format!("{}/{}", row.partition, row.offset);
    format!("{place:10}  {}  {:16}  {what:16}  {}", instant(row.received_at), row.device, shown)
}
