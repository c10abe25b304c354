//! `unhidra outlets`

use std::time::Duration;

use super::CliError;
use super::output::{Output, instant, name};
use crate::control::Control;
use crate::outlets::OutletRecord;

/// Shows the outlets: where readings leave the node in the clear, and how far each has come.
///
/// Without a node that runs, it shows how much waits for each outlet that has ever been on.
#[derive(Debug, clap::Args)]
pub struct Outlets {}

pub(super) async fn run(_: Outlets, control: &dyn Control, out: &mut Output<'_>) -> Result<(), CliError> {
    let outlets = control.outlets().await?;
    if out.is_json() {
        return outlets.iter().try_for_each(|outlet| out.object(outlet));
    }
    if outlets.is_empty() {
        return out.line("no outlet is on: nothing leaves this node in the clear (see [outlets.NAME] in default.toml)");
    }
    let rows: Vec<_> = outlets.iter().map(row).collect();
    let heading = [
        "OUTLET",
        "KIND",
        "TARGET",
        "BREAKER",
        "BEHIND",
        "OLDEST",
        "DELIVERED",
        "UNREAD",
        "REFUSED",
        "MISSING",
        "DAMAGED",
        "FAILED",
        "LAST ERROR",
    ];
    out.table(heading, &rows)
}

fn row(outlet: &OutletRecord) -> [String; 13] {
    let error = match (&outlet.last_error, outlet.last_error_at) {
        (Some(text), Some(at)) => format!("{} {}", instant(at), name(text)),
        _ => String::new(),
    };
    [
        outlet.name.clone(),
        outlet.kind.clone(),
        name(&outlet.target),
        outlet.state.clone(),
        outlet.lag_rows.to_string(),
        format!("{:.1} s", Duration::from_millis(outlet.lag_ms).as_secs_f64()),
        outlet.delivered.to_string(),
        outlet.unread.to_string(),
        outlet.left_behind.to_string(),
        outlet.missing.to_string(),
        outlet.damaged.to_string(),
        outlet.failures.to_string(),
        error,
    ]
}
