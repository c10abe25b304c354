//! The ends of commands whose devices are away.
//!
//! A device with open commands in memory has a timer for them. One that was not heard of since the
//! node's start is looked for here, and read when the first of its commands is over: so every
//! command comes to an end, whether or not its device comes back.

use std::collections::BTreeSet;
use std::time::Duration;

use unhidra_core::ids::{DeviceId, DeviceNumber, Partition};
use unhidra_core::time::{Clock, UnixTime};
use unhidra_store::{ReadError, Store};

use crate::pump::Pump;

/// How often all open commands are looked through.
const LOOK: Duration = Duration::from_secs(60 * 60);

/// The longest sleep before a command is over: a calendar that was set on is noticed within it. Of one
/// that has an hour left or more the next look notices it.
const NAP: Duration = Duration::from_secs(60);

/// Devices read at once.
const PAGE: usize = 256;

/// Looks after all open commands, again and again.
pub(crate) async fn keep(store: &dyn Store, clock: &(dyn Clock + Send + Sync), pump: &Pump) {
    loop {
        let next_look = clock.now().saturating_add(LOOK);
        match due(store, clock.unix_now().saturating_add(LOOK)).await {
            Ok(due) => {
                for (at, device) in due {
                    let mut left = at.saturating_since(clock.unix_now());
                    // Of a calendar that was set back the next look knows what is due.
                    while !left.is_zero() && clock.now() < next_look {
                        tokio::time::sleep(left.min(NAP)).await;
                        left = at.saturating_since(clock.unix_now());
                    }
                    if !left.is_zero() {
                        break;
                    }
                    pump.look(&device).await;
                }
            }
            Err(error) => tracing::warn!(%error, "open commands could not be looked through; tried again in an hour"),
        }
        tokio::time::sleep(next_look.saturating_since(clock.now())).await;
    }
}

/// The devices with a command that is over before `until`, and when the first one is.
async fn due(store: &dyn Store, until: UnixTime) -> Result<BTreeSet<(UnixTime, DeviceId)>, ReadError> {
    let mut due = BTreeSet::new();
    for partition in (0..store.partitions()).map(Partition::new) {
        let mut after = DeviceNumber::new(0);
        loop {
            let page = store.waits(partition, after, PAGE).await?;
            let soon = page.rows.iter().filter(|waits| waits.expires_at <= until);
            due.extend(soon.map(|waits| (waits.expires_at, waits.device)));
            match page.rows.last() {
                Some(last) if page.more => after = last.number,
                _ => break,
            }
        }
    }
    Ok(due)
}
