//! What a partition's writer knows, and what a group of batches becomes: a plain value, without
//! a thread or a file, the same for every engine.
//!
//! ```text
//! batches --plan--> Plan { writes, answers } --the engine commits--> settle --> answers are given
//! ```
//!
//! While one plan is being committed the next may be made behind it: it sees what the first writes,
//! and is void where the first fails.
//!
//! Batches of one group see what those before them write. One that expects the wrong version, an
//! older fence or an unknown device, or rests on a record that is damaged, leaves no trace; the others
//! of its group go on. Where its unit is the device, only that device's part of it leaves none.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use unhidra_core::durable::DurableSource;
use unhidra_core::ids::{DeviceId, DeviceNumber, Fence, Offset, Partition, Version};

use crate::rows::{Order, Rows};
use crate::table::{self, Key, Table};
use crate::{Assigned, Batch, CommitError, Committed, Done, LeftOut, Op, ReadError, Unit, query};

use self::draft::Draft;
use self::stop::Stopped;

pub(crate) mod draft;
mod stop;

/// What is known of devices by name. Hashed fast: who enrols them chooses their names, nobody outside.
type Devices<T> = HashMap<DeviceId, T, foldhash::fast::RandomState>;

/// The writes of a group, the last of each key.
pub(crate) type Writes = BTreeMap<(Table, Key), Option<Bytes>>;

/// A partition as its writer knows it.
pub(crate) struct Ledger {
    partition: Partition,
    partitions: u16,
    fence: Fence,
    head: Head,
    known: Devices<Known>,
    /// How many of them; beyond, all are forgotten and read again as they come.
    known_max: usize,
    /// How many acts are kept.
    acts_max: u64,
}

/// Where the partition's counters stand.
#[derive(Clone, Copy, Debug)]
struct Head {
    /// The newest row.
    offset: Offset,
    /// The number given last.
    number: Option<DeviceNumber>,
    /// The numbers of the oldest act that is kept and of the next one.
    acts: (u64, u64),
}

/// A device as the writer knows it.
#[derive(Clone, Copy, Debug)]
struct Known {
    number: DeviceNumber,
    version: Version,
    newest: Offset,
    /// Which chain records lie there, so that only those are deleted: a bit for each.
    chains: u8,
    /// Its session records are not of the same moment as its rows: the next write deletes them.
    stale: bool,
}

/// What a group of batches becomes.
pub(crate) struct Plan {
    /// Shared with who commits them.
    pub(crate) writes: Arc<Writes>,
    answers: Vec<(Done, Result<Outcome, CommitError>)>,
    /// The engine failed while the group was planned: nothing of it may be written.
    pub(crate) broken: Option<ReadError>,
    head: Head,
    known: Devices<Known>,
}

/// What a batch is told once it is durable.
struct Outcome {
    records: usize,
    readings: Vec<Assigned>,
    /// For each write of a session, in their order, whether it is there.
    sessions: Vec<bool>,
    left_out: Vec<LeftOut>,
}

impl Ledger {
    /// Reads where the partition stands; remembers `known_max` devices and keeps `acts_max` acts.
    pub(crate) fn load(
        rows: &dyn Rows,
        partition: Partition,
        partitions: u16,
        fence: Fence,
        known_max: usize,
        acts_max: u64,
    ) -> Result<Self, ReadError> {
        let number = rows.end_key(Table::Numbers, &[], Order::Descending)?.and_then(|key| table::tail::<4>(&key));
        let number = number.map(|bytes| DeviceNumber::new(u32::from_be_bytes(bytes)));
        let head = Head { offset: query::log_end(rows)?, number, acts: query::acts_kept(rows)? };
        Ok(Self { partition, partitions, fence, head, known: Devices::default(), known_max, acts_max })
    }

    /// The partition's newest row.
    pub(crate) const fn newest(&self) -> Offset {
        self.head.offset
    }

    /// Turns a group of batches into writes and answers.
    pub(crate) fn plan(&self, rows: &dyn Rows, batches: Vec<Batch>) -> Plan {
        let mut plan = self.empty_plan(None);
        self.add(&mut plan, None, rows, batches);
        plan
    }

    /// A plan of nothing, behind one that is being committed.
    pub(crate) fn empty_plan(&self, before: Option<&Plan>) -> Plan {
        Plan {
            writes: Arc::default(),
            answers: Vec::new(),
            broken: None,
            head: before.map_or(self.head, |before| before.head),
            known: Devices::default(),
        }
    }

    /// Adds batches to a plan. `before` is the plan that is being committed, if one is: `rows` may
    /// have its writes or not.
    pub(crate) fn add(&self, plan: &mut Plan, before: Option<&Plan>, rows: &dyn Rows, batches: Vec<Batch>) {
        plan.answers.reserve(batches.len());
        for Batch { fence, ops, unit, done, .. } in batches {
            let answer = match plan.broken {
                Some(_) => Err(CommitError::Unknown(String::new())),
                None => self.plan_batch(rows, plan, before, fence, &ops, unit),
            };
            plan.answers.push((done, answer));
        }
    }

    fn plan_batch(
        &self,
        rows: &dyn Rows,
        plan: &mut Plan,
        before: Option<&Plan>,
        fence: Fence,
        ops: &[Op],
        unit: Unit,
    ) -> Result<Outcome, CommitError> {
        if fence != self.fence {
            return Err(CommitError::Fenced { found: fence, held: self.fence });
        }
        let mut left_out = BTreeMap::new();
        let mut moved = loop {
            let mut draft = Draft::new(self, rows, (plan, before), ops, &left_out);
            let Err(stopped) = draft.apply_all() else { break draft.into_moved() };
            match (*stopped, unit) {
                // Each time some devices more: the places of the others' rows move up.
                (Stopped::Devices(causes), Unit::Device) => left_out.extend(causes),
                (Stopped::Devices(causes), Unit::Batch) => {
                    let first = causes.into_values().next();
                    return Err(first.unwrap_or_else(|| CommitError::Unknown(String::new())));
                }
                (Stopped::Whole(cause), _) => return Err(cause),
                (Stopped::Engine(cause), _) => {
                    plan.broken = Some(cause);
                    return Err(CommitError::Unknown(String::new()));
                }
            }
        };
        moved.outcome.left_out = left_out.into_iter().map(|(device, cause)| LeftOut { device, cause }).collect();
        // Nobody commits it yet, so nothing is copied.
        let writes = Arc::make_mut(&mut plan.writes);
        // The fewer go to the more; the batch's are the last of each key either way.
        if writes.len() < moved.writes.len() {
            std::mem::swap(writes, &mut moved.writes);
            moved.writes.into_iter().for_each(|(place, value)| _ = writes.entry(place).or_insert(value));
        } else {
            writes.extend(moved.writes);
        }
        plan.known.extend(moved.known);
        plan.head = moved.head;
        Ok(moved.outcome)
    }

    /// Takes over what a durable plan moved, and gives its answers, in the order of the batches.
    pub(crate) fn settle(&mut self, plan: Plan, source: &DurableSource) -> Answers {
        if self.known.len().saturating_add(plan.known.len()) > self.known_max {
            self.known.clear();
        }
        self.known.extend(plan.known);
        self.head = plan.head;
        let committed = |outcome: Outcome| Committed {
            readings: outcome.readings,
            durable: outcome.sessions.into_iter().map(|is_there| is_there.then(|| source.durable())).collect(),
            left_out: outcome.left_out,
        };
        Answers(plan.answers.into_iter().map(|(done, outcome)| (done, outcome.map(committed))).collect())
    }
}

impl Plan {
    /// Takes batches that cannot be planned: nothing of the plan may be written.
    pub(crate) fn breaks(&mut self, cause: ReadError, batches: Vec<Batch>) {
        self.broken.get_or_insert(cause);
        let unknown = |batch: Batch| (batch.done, Err(CommitError::Unknown(String::new())));
        self.answers.extend(batches.into_iter().map(unknown));
    }

    /// How many batches were refused.
    pub(crate) fn refused(&self) -> usize {
        self.answers.iter().filter(|(_, answer)| answer.is_err()).count()
    }

    /// How often a device was left out of an accepted batch.
    pub(crate) fn left_out(&self) -> usize {
        self.answers.iter().filter_map(|(_, answer)| answer.as_ref().ok()).map(|outcome| outcome.left_out.len()).sum()
    }

    /// How many records the accepted batches have.
    pub(crate) fn records(&self) -> u64 {
        self.answers.iter().filter_map(|(_, answer)| answer.as_ref().ok()).map(|outcome| outcome.records as u64).sum()
    }

    /// The answers where the outcome of the commit is not known.
    ///
    /// A batch refused for its own sake keeps its cause: nothing of it was written.
    pub(crate) fn unknown(self, cause: &str) -> Answers {
        let unknown = || Err(CommitError::Unknown(cause.to_owned()));
        let answer = |answer: Result<Outcome, CommitError>| match answer {
            Ok(_) | Err(CommitError::Unknown(_)) => unknown(),
            Err(refused) => Err(refused),
        };
        Answers(self.answers.into_iter().map(|(done, outcome)| (done, answer(outcome))).collect())
    }
}

/// Answers that wait to be given.
#[must_use]
pub(crate) struct Answers(Vec<(Done, Result<Committed, CommitError>)>);

impl Answers {
    /// The same error for all.
    pub(crate) fn all_unknown(batches: Vec<Batch>, cause: &str) -> Self {
        Self(batches.into_iter().map(|batch| (batch.done, Err(CommitError::Unknown(cause.to_owned())))).collect())
    }

    /// Gives them, in order.
    pub(crate) fn give(self) {
        for (done, answer) in self.0 {
            done(answer);
        }
    }
}

#[cfg(test)]
mod tests;
