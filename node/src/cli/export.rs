//! `unhidra export`

use unhidra_core::ids::DeviceId;

use super::CliError;
use super::output::{Output, body, instant, name};
use crate::control::{Control, RowKind, RowRecord, RowsAsked, Span};

/// Prints every stored row: of one device in its order, or of all in the order of the log.
#[derive(Debug, clap::Args)]
pub struct Export {
    /// Only this device's.
    pub device: Option<DeviceId>,
}

pub(super) async fn run(args: Export, control: &dyn Control, out: &mut Output<'_>) -> Result<(), CliError> {
    match args.device {
        Some(device) => span(&Span::Device(device), control, out).await,
        None => {
            for partition in 0..control.info().await?.partitions {
                span(&Span::Partition(partition), control, out).await?;
            }
            Ok(())
        }
    }
}

async fn span(of: &Span, control: &dyn Control, out: &mut Output<'_>) -> Result<(), CliError> {
    let mut after = 0;
    loop {
        let page = control.rows(RowsAsked { of: of.clone(), after }).await?;
        page.rows.iter().try_for_each(|row| if out.is_json() { out.object(row) } else { out.line(&text(row)) })?;
        match page.rows.last() {
            Some(last) if page.more => after = last.offset,
            _ => return Ok(()),
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
