//! The batches that wait for a partition's writer.

use std::collections::VecDeque;
use std::mem;

use bytes::Bytes;

use crate::{Batch, Full, Op, PrekeyChange};

/// What an op weighs beside its bytes: its keys, header and tag.
const OP_OVERHEAD: usize = 96;

/// How much may wait, and how much goes into one commit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) queue_records: usize,
    pub(crate) queue_bytes: usize,
    pub(crate) commit_records: usize,
    pub(crate) commit_bytes: usize,
}

/// A queue with two bounds. Full, it gives back; empty, it takes a batch of any size, or that one
/// could never be written.
#[derive(Debug)]
pub(crate) struct Waiting {
    bounds: Bounds,
    batches: VecDeque<(Batch, Weight)>,
    held: Weight,
}

/// How many records a batch has, and about how many bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Weight {
    pub(crate) records: usize,
    pub(crate) bytes: usize,
}

impl Waiting {
    pub(crate) const fn new(bounds: Bounds) -> Self {
        Self { bounds, batches: VecDeque::new(), held: Weight { records: 0, bytes: 0 } }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// How many bytes wait, about.
    pub(crate) const fn bytes(&self) -> usize {
        self.held.bytes
    }

    /// Takes a batch and says what it weighs.
    pub(crate) fn push(&mut self, batch: Batch) -> Result<Weight, Full> {
        let weight = weigh(&batch);
        let held = self.held.plus(weight);
        let fits = held.records <= self.bounds.queue_records && held.bytes <= self.bounds.queue_bytes;
        if !fits && !self.batches.is_empty() {
            return Err(Full(Box::new(batch)));
        }
        self.batches.push_back((batch, weight));
        self.held = held;
        Ok(weight)
    }

    /// Whether a batch waits that goes into a commit beside what it has `already`. An empty commit
    /// takes one of any size.
    pub(crate) fn fits(&self, already: Weight) -> bool {
        self.batches.front().is_some_and(|(_, weight)| {
            let with = already.plus(*weight);
            already == Weight::default()
                || with.records <= self.bounds.commit_records && with.bytes <= self.bounds.commit_bytes
        })
    }

    /// Takes what goes into one commit, of which `already` is taken.
    pub(crate) fn take(&mut self, already: Weight) -> (Vec<Batch>, Weight) {
        let mut taken = Weight::default();
        let mut group = Vec::new();
        while self.fits(already.plus(taken)) {
            let Some((batch, weight)) = self.batches.pop_front() else { break };
            taken = taken.plus(weight);
            group.push(batch);
        }
        self.held = self.held.minus(taken);
        (group, taken)
    }

    /// Takes all.
    pub(crate) fn take_all(&mut self) -> (Vec<Batch>, Weight) {
        (self.batches.drain(..).map(|(batch, _)| batch).collect(), mem::take(&mut self.held))
    }
}

impl Weight {
    pub(crate) const fn plus(self, other: Self) -> Self {
        Self { records: self.records.saturating_add(other.records), bytes: self.bytes.saturating_add(other.bytes) }
    }

    const fn minus(self, other: Self) -> Self {
        Self { records: self.records.saturating_sub(other.records), bytes: self.bytes.saturating_sub(other.bytes) }
    }
}

/// Counts an empty batch as one record, so that no number of them is free.
fn weigh(batch: &Batch) -> Weight {
    let bytes = batch.ops.iter().map(|op| payload(op).saturating_add(OP_OVERHEAD)).fold(0, usize::saturating_add);
    Weight { records: batch.ops.len().max(1), bytes }
}

fn payload(op: &Op) -> usize {
    match op {
        Op::Session { whole, .. } => whole.len(),
        Op::Chain { delta, .. } => delta.len(),
        Op::Rotate { .. } | Op::EndSessions { .. } => 0,
        Op::Peer { bytes, .. } => bytes.len(),
        Op::Reading { uplink, .. } => uplink.name.len() + uplink.body.len(),
        // Two keys of each, deleted.
        Op::Trim { trim, .. } => 48 * trim.delete.len() + OP_OVERHEAD * trim.stub.len(),
        Op::Forget { commands, .. } => OP_OVERHEAD * commands.len(),
        Op::Command(command) => command.name.len() + command.body.len(),
        Op::LateReceipt { .. } | Op::ForgetSetting { .. } => 0,
        Op::Setting(setting) => setting.value.as_ref().map_or(0, Bytes::len),
        Op::Device(device) => device.class.len() + device.tags.iter().map(|tag| tag.as_str().len()).sum::<usize>(),
        Op::Prekey(PrekeyChange::Put(prekey)) => prekey.secret.len(),
        Op::Prekey(PrekeyChange::Delete { .. }) => 0,
        Op::Broker { key, value, .. } => key.len() + value.as_ref().map_or(0, Bytes::len),
        Op::Act(act) => act.len(),
        Op::Reseal(names) => names.iter().map(|name| name.len().saturating_add(OP_OVERHEAD)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BrokerTable, Unit};
    use unhidra_core::ids::{Fence, Partition};

    const BOUNDS: Bounds = Bounds { queue_records: 10, queue_bytes: 10_000, commit_records: 4, commit_bytes: 5_000 };

    fn batch(ops: usize, bytes: usize) -> Batch {
        let value = Bytes::from(vec![0; bytes]);
        let op = || Op::Broker { table: BrokerTable::Queued, key: Bytes::new(), value: Some(value.clone()) };
        let ops = (0..ops).map(|_| op()).collect();
        Batch { partition: Partition::new(0), fence: Fence::new(1), ops, unit: Unit::Batch, done: Box::new(|_| ()) }
    }

    fn sizes(batches: &[Batch]) -> Vec<usize> {
        batches.iter().map(|batch| batch.ops.len()).collect()
    }

    #[test]
    fn a_full_queue_gives_back_what_it_cannot_take() {
        let mut waiting = Waiting::new(BOUNDS);
        assert!(waiting.push(batch(6, 0)).is_ok());
        let Err(Full(back)) = waiting.push(batch(5, 0)) else { panic!("taken beyond the records") };
        assert_eq!(back.ops.len(), 5);
        assert!(waiting.push(batch(4, 0)).is_ok(), "what fits is taken still");
        assert!(waiting.push(batch(1, 0)).is_err());
        waiting.take(Weight::default());
        assert!(waiting.push(batch(5, 0)).is_ok(), "there is room again");
    }

    #[test]
    fn bytes_are_a_bound_as_records_are() {
        let mut waiting = Waiting::new(BOUNDS);
        assert!(waiting.push(batch(1, 9_000)).is_ok());
        assert!(waiting.push(batch(1, 1_000)).is_err());
        assert!(waiting.push(batch(1, 500)).is_ok());
    }

    #[test]
    fn an_empty_queue_takes_a_batch_of_any_size() {
        let mut waiting = Waiting::new(BOUNDS);
        assert!(waiting.push(batch(100, 1_000)).is_ok());
        let (group, weight) = waiting.take(Weight::default());
        assert_eq!((sizes(&group), weight.records), (vec![100], 100));
        assert!(waiting.is_empty() && waiting.held == Weight::default());
    }

    #[test]
    fn a_commit_takes_whole_batches_in_order_up_to_its_bounds() {
        let mut waiting = Waiting::new(BOUNDS);
        for ops in [2, 1, 2, 3] {
            assert!(waiting.push(batch(ops, 0)).is_ok());
        }
        assert_eq!(sizes(&waiting.take(Weight::default()).0), [2, 1]);
        assert_eq!(sizes(&waiting.take(Weight::default()).0), [2]);
        assert_eq!(sizes(&waiting.take(Weight::default()).0), [3]);
        assert_eq!(sizes(&waiting.take(Weight::default()).0), [0; 0]);
        for bytes in [3_000, 3_000] {
            assert!(waiting.push(batch(1, bytes)).is_ok());
        }
        assert_eq!(sizes(&waiting.take(Weight::default()).0), [1], "the bytes end it");
    }

    #[test]
    fn a_commit_that_has_something_already_takes_what_fits_beside_it() {
        let mut waiting = Waiting::new(BOUNDS);
        for ops in [2, 1, 2] {
            assert!(waiting.push(batch(ops, 0)).is_ok());
        }
        let already = Weight { records: 2, bytes: 0 };
        assert_eq!(sizes(&waiting.take(already).0), [2]);
        assert!(!waiting.fits(Weight { records: 4, bytes: 0 }));
        assert_eq!(sizes(&waiting.take(Weight { records: 4, bytes: 0 }).0), [0; 0], "it is full");
        assert_eq!(sizes(&waiting.take(Weight { records: 3, bytes: 4_950 }).0), [0; 0], "so it is by its bytes");
        assert_eq!(sizes(&waiting.take(Weight::default()).0), [1, 2]);
    }

    #[test]
    fn empty_batches_fill_the_queue_too() {
        let mut waiting = Waiting::new(BOUNDS);
        let taken = (0..100).filter(|_| waiting.push(batch(0, 0)).is_ok()).count();
        assert_eq!(taken, 10);
    }
}
