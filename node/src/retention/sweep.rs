//! The look at all devices: whose readings are beyond their bounds.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use unhidra_core::device::Device;
use unhidra_core::ids::{DeviceId, Partition};
use unhidra_core::time::UnixTime;
use unhidra_store::{Bounds, LeftOut, Op, Store, Tally};

use super::metrics::{Metrics, shown};
use super::recount::Recount;
use super::{Config, DAY, LookError, days};
use crate::calendar::{Calendar, Look};
use crate::commit::commit_each;
use crate::registry::Registry;

/// Devices taken from the registry at once.
const PAGE: usize = 256;

/// Rows of one device that go at once.
const STEP: usize = 512;

/// Rows that go in one commit, over several devices: enough to be quick, and few enough that nobody
/// waits behind them.
const COMMIT_ROWS: usize = 1024;

/// Commands that go at once, of one device.
const COMMANDS: usize = 256;

/// All devices, and what is known of each.
pub(super) struct Sweep {
    config: Config,
    store: Arc<dyn Store>,
    registry: Arc<Registry>,
    calendar: Arc<Calendar>,
    metrics: Metrics,
    recount: Recount,
    known: HashMap<DeviceId, Known>,
    /// How often the calendar had jumped when that was concluded.
    jumps: u64,
}

/// What the last look at a device gave.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    tally: Option<Tally>,
    /// What its rows were held to then: a device that is enrolled anew may be of another class.
    bounds: Bounds,
    /// Before then no row is due by its age.
    rows_due: UnixTime,
    commands_due: UnixTime,
}

/// Ops of several devices that wait for one commit.
#[derive(Default)]
struct Waiting {
    ops: BTreeMap<u16, Vec<Op>>,
    rows: usize,
    /// Devices of which nothing was written.
    left_out: Vec<LeftOut>,
}

impl Sweep {
    pub(super) fn new(
        config: Config,
        store: Arc<dyn Store>,
        registry: Arc<Registry>,
        calendar: Arc<Calendar>,
        metrics: Metrics,
        recount: Recount,
    ) -> Self {
        Self { config, store, registry, calendar, metrics, recount, known: HashMap::new(), jumps: 0 }
    }

    /// Looks at every device once.
    pub(super) async fn look(&mut self) -> Result<(), LookError> {
        // One time for all devices: the clock may jump while they are looked at.
        let seen = self.calendar.look();
        if seen.jumps != self.jumps {
            // What was due is so by another calendar.
            self.known.clear();
            self.jumps = seen.jumps;
        }
        let mut waiting = Waiting::default();
        let mut damaged: BTreeMap<DeviceId, LookError> = BTreeMap::new();
        let mut after = None;
        loop {
            let page = self.registry.page(after.as_ref(), PAGE);
            for device in &page.rows {
                match self.look_at(device, seen, &mut waiting).await {
                    Ok(()) => {}
                    // What is beyond its time of all the others goes all the same.
                    Err(error) if error.is_damage() => drop(damaged.insert(device.id, error)),
                    Err(error) => {
                        // What waits was counted as gone, and may not be.
                        self.known.clear();
                        return Err(error);
                    }
                }
            }
            after = page.rows.last().map(|device| device.id);
            if !page.more || after.is_none() {
                break;
            }
        }
        let flushed = self.flush(&mut waiting).await;
        damaged.extend(waiting.left_out.into_iter().map(|left| (left.device, left.cause.into())));
        // What was counted as gone is there still.
        self.known.retain(|device, _| !damaged.contains_key(device));
        if let Some((device, error)) = damaged.first_key_value() {
            tracing::warn!(
                devices = damaged.len(),
                first = %device,
                %error,
                "what is beyond its time of devices with damaged records stays; `unhidra store verify` says what is \
                 damaged"
            );
        }
        if let Err(error) = flushed {
            self.known.clear();
            return Err(error);
        }
        self.show_oldest().await
    }

    async fn look_at(&mut self, device: &Device, seen: Look, waiting: &mut Waiting) -> Result<(), LookError> {
        let Look { now, is_believed: aged, .. } = seen;
        let mut known = self.known.get(&device.id).copied().unwrap_or_default();
        if self.recount.take(&device.id) {
            known.tally = known.tally.map(Tally::anew);
        }
        let mut bounds = self.config.bounds(&device.class);
        if !aged {
            bounds.age = None;
        }
        if known.bounds != bounds {
            (known.bounds, known.rows_due) = (bounds, UnixTime::EPOCH);
        }
        if now < known.rows_due {
            bounds.age = None;
        }
        if bounds != Bounds::default() {
            self.rows(device, &bounds, now, &mut known, waiting).await?;
        }
        if aged && self.config.commands_days != 0 && now >= known.commands_due {
            self.commands(device, now, &mut known, waiting).await?;
        }
        self.known.insert(device.id, known);
        Ok(())
    }

    async fn rows(
        &self,
        device: &Device,
        bounds: &Bounds,
        now: UnixTime,
        known: &mut Known,
        waiting: &mut Waiting,
    ) -> Result<(), LookError> {
        loop {
            let found = self.store.overdue(&device.id, *bounds, now, known.tally, STEP).await?;
            known.tally = found.tally;
            if !found.trim.is_empty() {
                found.rows.iter().for_each(|(reason, rows)| self.metrics.trimmed(*reason, *rows));
                self.metrics.freed(found.bytes);
                let rows = found.trim.delete.len() + found.trim.stub.len();
                let partition = self.store.partition_of(&device.id);
                waiting.push(partition, rows, Op::Trim { device: device.id, trim: found.trim });
            }
            if found.more || waiting.rows >= COMMIT_ROWS {
                self.flush(waiting).await?;
                // It would find the same again.
                if let Some(left) = waiting.left_out.iter().find(|left| left.device == device.id) {
                    return Err(left.cause.clone().into());
                }
            }
            if !found.more {
                // By its age nothing is due before the oldest row is, nor any that comes.
                if let Some(age) = bounds.age {
                    known.rows_due = found.oldest.unwrap_or(now).saturating_add(age);
                }
                return Ok(());
            }
        }
    }

    async fn commands(
        &self,
        device: &Device,
        now: UnixTime,
        known: &mut Known,
        waiting: &mut Waiting,
    ) -> Result<(), LookError> {
        let kept_ms = days(self.config.commands_days).as_secs().saturating_mul(1000);
        let before = UnixTime::from_ms(now.as_ms().saturating_sub(kept_ms));
        let ended = self.store.ended_commands(&device.id, before, COMMANDS).await?;
        // The rest of a full answer comes with the next look.
        if ended.len() < COMMANDS {
            known.commands_due = now.saturating_add(DAY);
        }
        if !ended.is_empty() {
            self.metrics.forgotten(ended.len());
            let partition = self.store.partition_of(&device.id);
            waiting.push(partition, ended.len(), Op::Forget { device: device.id, commands: ended });
            if waiting.rows >= COMMIT_ROWS {
                self.flush(waiting).await?;
            }
        }
        Ok(())
    }

    async fn flush(&self, waiting: &mut Waiting) -> Result<(), LookError> {
        waiting.rows = 0;
        for (partition, ops) in std::mem::take(&mut waiting.ops) {
            let committed = commit_each(&*self.store, Partition::new(partition), ops).await?;
            waiting.left_out.extend(committed.left_out);
        }
        Ok(())
    }

    async fn show_oldest(&self) -> Result<(), LookError> {
        let mut oldest: Option<UnixTime> = None;
        for partition in 0..self.store.partitions() {
            let usage = self.store.usage(Partition::new(partition)).await?;
            oldest = oldest.into_iter().chain(usage.oldest).min();
        }
        self.metrics.oldest.set(shown(oldest.map_or(0, UnixTime::as_s)));
        Ok(())
    }
}

impl Waiting {
    fn push(&mut self, partition: Partition, rows: usize, op: Op) {
        self.ops.entry(partition.get()).or_default().push(op);
        self.rows += rows;
    }
}
