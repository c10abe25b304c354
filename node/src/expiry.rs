//! Message keys of devices that are away, once their day is over (e2ee/PROTOCOL.md section 7).
//!
//! A device in memory has a timer for them. One that is not, after a restart of the node or a
//! commit that failed, is looked for here.

use std::time::Duration;

use unhidra_bridge::holds_old_keys;
use unhidra_core::time::Clock;
use unhidra_store::{ReadError, Store};

use crate::pump::Pump;

/// How often all devices are looked at.
const LOOK: Duration = Duration::from_secs(60 * 60);

/// Devices read at once.
const PAGE: usize = 256;

/// Looks at all devices, again and again.
pub(crate) async fn keep(store: &dyn Store, clock: &(dyn Clock + Send + Sync), pump: &Pump) {
    loop {
        if let Err(error) = look(store, clock, pump).await {
            tracing::warn!(%error, "old message keys could not be looked for; tried again in an hour");
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn look(store: &dyn Store, clock: &(dyn Clock + Send + Sync), pump: &Pump) -> Result<(), ReadError> {
    let mut after = None;
    loop {
        let page = store.devices(after.as_ref(), PAGE).await?;
        for device in page.rows.iter().filter(|device| device.is_enrolled()) {
            let stored = match store.session(&device.id).await {
                Ok(stored) => stored,
                // What is said of it when it speaks; the keys of the others go all the same.
                Err(ReadError::Damaged { .. }) => continue,
                Err(error) => return Err(error),
            };
            if stored.is_some_and(|stored| holds_old_keys(&stored, clock.unix_now())) {
                pump.look(&device.id).await;
            }
        }
        after = page.rows.last().map(|device| device.id);
        if !page.more || after.is_none() {
            return Ok(());
        }
    }
}
