//! What happens to keys of itself: rotation, sealing anew, destruction.
//!
//! ```text
//! active --rotation--> rotated --expiry less an eighth--> its records are sealed anew
//!                                        |
//!                                        +--expiry, and a walk finds none left--> destroyed
//! ```
//!
//! After the clock has jumped nothing happens to keys of itself for a day (`calendar.rs`), so that it
//! can be set right. One that stays wrong does no harm: ahead, keys are made and records sealed anew
//! early, and a key goes only where nothing is left under it; behind, all of it comes late.

use std::collections::BTreeSet;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry as MetricsRegistry;
use unhidra_core::ids::Partition;
use unhidra_core::time::UnixTime;
use unhidra_store::{Deed, KeyState, Op, Purpose, RingRecord, Store};

use super::{Ages, Keychain};
use crate::calendar::Calendar;
use crate::commit::commit;
use crate::control::ControlError;

/// How often the keys are looked at.
const LOOK: Duration = Duration::from_secs(60 * 60);

/// Between two steps of a walk, so that it takes no more than its share of the disk.
const PAUSE: Duration = Duration::from_millis(10);

/// How far a clock may be behind the one that made a key.
const SLACK: Duration = Duration::from_secs(86_400);

/// How long after a walk that left something the next one comes: each reads the whole store.
const AGAIN: Duration = Duration::from_secs(86_400);

/// How many walks one look makes: the second finds nothing, where nobody writes as it should not.
const WALKS: usize = 3;

/// The metrics.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    age: Gauge<f64, AtomicU64>,
    expiry: Gauge<f64, AtomicU64>,
    resealed: Counter,
}

impl Metrics {
    pub(crate) fn register(registry: &mut MetricsRegistry) -> Self {
        let metrics = Self::default();
        registry.register("store_key_age_days", "Age of the oldest data key that seals", metrics.age.clone());
        registry.register("store_key_expiry_days", "Days until the next data key expires", metrics.expiry.clone());
        registry.register(
            "store_records_resealed",
            "Records sealed anew because their key expires",
            metrics.resealed.clone(),
        );
        metrics
    }

    fn show(&self, record: &RingRecord, now: UnixTime, ages: Ages) {
        const DAY: f64 = 86_400.0;
        let age = |key: &unhidra_store::KeyRecord| age(key.created_at, now, ages).as_secs_f64() / DAY;
        let active = record.keys.iter().filter(|key| key.state == KeyState::Active);
        self.age.set(active.map(age).fold(0.0, f64::max));
        let left = record.keys.iter().map(|key| ages.expiry.as_secs_f64() / DAY - age(key));
        self.expiry.set(left.fold(f64::INFINITY, f64::min));
    }
}

/// How old a key is. One that was made well ahead of now was made under another clock, and nothing
/// is known of its age: it counts as expired, so that another takes its place.
pub(super) fn age(created_at: UnixTime, now: UnixTime, ages: Ages) -> Duration {
    if created_at > now.saturating_add(SLACK) {
        return ages.expiry;
    }
    Duration::from_millis(now.as_ms().saturating_sub(created_at.as_ms()))
}

/// What is due.
#[derive(Debug, Default, Eq, PartialEq)]
struct Due {
    /// For these another key is to seal.
    rotate: Vec<Purpose>,
    /// Nothing is to be left under these.
    empty: Vec<NonZeroU16>,
    /// Of them, those that are to go.
    destroy: BTreeSet<NonZeroU16>,
}

fn due(record: &RingRecord, now: UnixTime, ages: Ages) -> Due {
    let mut due = Due::default();
    for key in &record.keys {
        let age = age(key.created_at, now, ages);
        match (key.state, NonZeroU16::new(key.id)) {
            (KeyState::Active, _) if age >= ages.rotation => due.rotate.push(key.purpose),
            (KeyState::Rotated { .. }, Some(id)) if age >= ages.expiry - ages.expiry / 8 => {
                due.empty.push(id);
                if age >= ages.expiry {
                    due.destroy.insert(id);
                }
            }
            _ => {}
        }
    }
    due
}

/// Looks at the keys, again and again.
pub(crate) async fn keep(keys: Arc<Keychain>, calendar: Arc<Calendar>, metrics: Metrics) {
    let mut life = Life { keys, metrics, empty: BTreeSet::new(), left_at: None };
    loop {
        if let Err(error) = life.look(calendar.look().is_believed).await {
            tracing::error!(%error, "the store's keys could not be looked after; tried again in an hour");
        }
        tokio::time::sleep(LOOK).await;
    }
}

struct Life {
    keys: Arc<Keychain>,
    metrics: Metrics,
    /// Keys under which a walk of this process found nothing.
    empty: BTreeSet<NonZeroU16>,
    /// When the last walks left something: damaged records, which nobody can seal anew.
    left_at: Option<UnixTime>,
}

impl Life {
    /// Does what is due; shows alone how old the keys are where the time of day is not believed.
    async fn look(&mut self, is_believed: bool) -> Result<(), ControlError> {
        let Some(ring) = self.keys.store.keyring().cloned() else { return Ok(()) };
        let (now, ages) = (self.keys.clock.unix_now(), self.keys.ages);
        if !is_believed {
            self.metrics.show(&ring.record(), now, ages);
            return Ok(());
        }
        let rotate = due(&ring.record(), now, ages).rotate;
        // A ring that is full takes a new key once an old one is gone: that goes on all the same.
        let rotated = match rotate.is_empty() {
            true => Ok(()),
            false => self.keys.rotate_for(rotate).await,
        };
        let Due { empty, destroy, .. } = due(&ring.record(), now, ages);
        let wanted: Vec<NonZeroU16> = empty.into_iter().filter(|id| !self.empty.contains(id)).collect();
        let rests = self.left_at.is_some_and(|at| at <= now && now < at.saturating_add(AGAIN));
        if !wanted.is_empty() && !rests {
            self.make_empty(&wanted).await?;
        }
        let ids: Vec<NonZeroU16> = destroy.into_iter().filter(|id| self.empty.contains(id)).collect();
        if !ids.is_empty() {
            self.destroy(ids).await?;
        }
        self.metrics.show(&ring.record(), now, ages);
        rotated
    }

    /// Seals anew what is under `ids`, until a walk finds nothing.
    async fn make_empty(&mut self, ids: &[NonZeroU16]) -> Result<(), ControlError> {
        let mut sealed = 0_u64;
        for _ in 0..WALKS {
            let found = self.walk(ids).await?;
            if found == 0 {
                self.empty.extend(ids);
                tracing::info!(keys = ?ids, records = sealed, "nothing is left under the data keys that expire");
                return Ok(());
            }
            sealed = sealed.saturating_add(found);
        }
        self.left_at = Some(self.keys.clock.unix_now());
        tracing::warn!(keys = ?ids, "records are left under data keys that expire; the keys stay. They may be damaged");
        Ok(())
    }

    /// Walks over every partition. Says how many records it has found.
    async fn walk(&self, ids: &[NonZeroU16]) -> Result<u64, ControlError> {
        let store = &self.keys.store;
        let mut found = 0_u64;
        for partition in (0..store.partitions()).map(Partition::new) {
            // What was on its way when the keys rotated is written once this is.
            commit(&**store, partition, Vec::new()).await?;
            let mut after = None;
            loop {
                let step = store.sealed_under(partition, ids.to_vec(), after).await?;
                let count = step.names.len() as u64;
                if count > 0 {
                    commit(&**store, partition, vec![Op::Reseal(step.names)]).await?;
                    self.metrics.resealed.inc_by(count);
                    found = found.saturating_add(count);
                }
                after = step.next;
                if after.is_none() {
                    break;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(found)
    }

    async fn destroy(&mut self, ids: Vec<NonZeroU16>) -> Result<(), ControlError> {
        let destroyed = self.keys.store.destroy_keys(ids.clone()).await;
        destroyed.unwrap_or(Ok(())).map_err(|error| ControlError::Unavailable(error.to_string()))?;
        let names: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let detail = format!("expired keys {}", names.join(", "));
        tracing::info!(detail, "data keys destroyed");
        self.empty.retain(|id| !ids.contains(id));
        self.keys.write_down(Deed::DestroyKeys, &detail).await
    }
}

#[cfg(test)]
mod tests;
