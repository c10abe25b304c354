//! `unhidra upstream`

use super::CliError;
use super::output::{Output, instant};
use crate::control::Control;

pub(super) async fn run(control: &dyn Control, out: &mut Output<'_>) -> Result<(), CliError> {
    let found = control.upstreams().await?;
    if out.is_json() {
        return found.iter().try_for_each(|upstream| out.object(upstream));
    }
    if found.is_empty() {
        return out.line("no outside broker is configured; docs/upstream.md says how");
    }
    let rows: Vec<_> = found
        .iter()
        .map(|upstream| {
            [
                upstream.name.clone(),
                upstream.address.clone(),
                upstream.state.as_str().to_owned(),
                instant(upstream.since),
                upstream.received.to_string(),
                upstream.opened.to_string(),
                upstream.sent.to_string(),
                upstream.last_error.clone().unwrap_or_default(),
            ]
        })
        .collect();
    out.table(["UPSTREAM", "ADDRESS", "STATE", "SINCE", "RECEIVED", "OPENED", "SENT", "LAST ERROR"], &rows)
}
