//! `unhidra acts`

use unhidra_core::ids::DeviceId;
use unhidra_core::time::UnixTime;

use super::CliError;
use super::moment::Moment;
use super::output::{Output, instant, name};
use crate::control::{ActRecord, ActsAsked, Control};

/// Prints the log of acts: who commanded, enrolled, revoked, changed a key.
#[derive(Debug, clap::Args)]
pub struct Acts {
    /// Only those from this time on: 2026-01-31, 2026-01-31T23:59:59Z, or -24h (s, m, h, d, w).
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<Moment>,
    /// Only those on this device.
    #[arg(long, value_name = "DEVICE_ID")]
    device: Option<DeviceId>,
}

pub(super) async fn run(
    acts: Acts,
    now: UnixTime,
    control: &dyn Control,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    let since = acts.since.map(|since| since.at(now).as_ms());
    let mut found = Vec::new();
    for partition in 0..control.info().await?.partitions {
        let mut asked = ActsAsked { partition, after: 0, since, device: acts.device };
        loop {
            let page = control.acts(asked.clone()).await?;
            found.extend(page.acts);
            let Some(next) = page.next else { break };
            asked.after = next;
        }
    }
    // Each partition numbers its own; the time puts them together.
    found.sort_by_key(|act: &ActRecord| (act.at, act.partition, act.number));
    if out.is_json() {
        return found.iter().try_for_each(|act| out.object(act));
    }
    if found.is_empty() {
        return out.line("no such acts are written down");
    }
    let rows: Vec<_> = found
        .iter()
        .map(|act| {
            let device = act.device.map_or_else(|| "-".to_owned(), |device| device.to_string());
            [instant(act.at), name(&act.by), act.deed.clone(), device, name(&act.detail)]
        })
        .collect();
    out.table(["AT", "BY", "ACT", "DEVICE", "DETAIL"], &rows)
}
