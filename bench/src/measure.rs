//! Times that hold on a busy machine: many short batches of each contestant in turn.
//!
//! A batch is short enough that most are not interrupted, and the contestants of one round run
//! within a moment of each other. So the median of a contestant is what it takes when nothing comes
//! between, and the median of the rounds' ratios holds under whatever load all of them share.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures")]

use std::cell::Cell;
use std::time::Instant;

/// How many batches of each contestant.
const ROUNDS: usize = 301;

/// Rounds that warm caches and tables, and do not count.
const WARM_UP: usize = 15;

thread_local! {
    static OPERATIONS: Cell<usize> = const { Cell::new(0) };
}

/// One batch: prepares without being timed, and says how many nanoseconds each operation took.
pub(crate) type Batch = Box<dyn FnMut() -> f64>;

/// Times `operations` calls of `work`, and gives the nanoseconds of one.
///
/// A function of its own, so that a program that counts instructions can count those between its
/// beginning and its end alone.
#[inline(never)]
pub(crate) fn timed(operations: usize, mut work: impl FnMut(usize)) -> f64 {
    let start = Instant::now();
    for at in 0..operations {
        work(at);
    }
    let passed = start.elapsed();
    OPERATIONS.set(OPERATIONS.get() + operations);
    passed.as_nanos() as f64 / operations as f64
}

/// Ours, and beside it what there is to compare with.
pub(crate) struct Contest {
    /// Ours.
    pub(crate) ours: Batch,
    /// The peer's.
    pub(crate) peer: Option<Batch>,
    /// The primitives alone.
    pub(crate) floor: Option<Batch>,
}

/// What a contest came to. Nanoseconds are medians.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// Ours.
    pub(crate) ours: f64,
    /// The fastest batch of ours.
    pub(crate) ours_min: f64,
    /// The peer's.
    pub(crate) peer: Option<f64>,
    /// The floor's.
    pub(crate) floor: Option<f64>,
    /// How many times the floor ours is: the median of the rounds' ratios.
    pub(crate) over_floor: Option<f64>,
    /// How many times as fast as the peer ours is: the median of the rounds' ratios.
    pub(crate) faster_than_peer: Option<f64>,
}

impl Contest {
    /// Runs all rounds.
    pub(crate) fn run(mut self) -> Outcome {
        let (mut ours, mut peer, mut floor) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..WARM_UP + ROUNDS {
            let o = (self.ours)();
            let p = self.peer.as_mut().map(|batch| batch());
            let f = self.floor.as_mut().map(|batch| batch());
            if round >= WARM_UP {
                ours.push(o);
                peer.extend(p);
                floor.extend(f);
            }
        }
        let over_floor = ours.iter().zip(&floor).map(|(ours, floor)| ours / floor).collect();
        let faster_than_peer = ours.iter().zip(&peer).map(|(ours, peer)| peer / ours).collect();
        Outcome {
            ours_min: ours.iter().copied().fold(f64::INFINITY, f64::min),
            ours: median(ours).unwrap_or_default(),
            peer: median(peer),
            floor: median(floor),
            over_floor: median(over_floor),
            faster_than_peer: median(faster_than_peer),
        }
    }

    /// The fastest of a few batches of ours, in nanoseconds.
    pub(crate) fn run_briefly(mut self) -> f64 {
        (0..WARM_UP * 3).map(|_| (self.ours)()).fold(f64::INFINITY, f64::min)
    }

    /// Runs a few batches of one contestant, and says how many operations they were; `None` where
    /// there is no such contestant. For a program that counts instructions from outside.
    pub(crate) fn run_alone(self, contestant: &str) -> Option<usize> {
        let mut batch = match contestant {
            "ours" => Some(self.ours),
            "peer" => self.peer,
            "floor" => self.floor,
            _ => None,
        }?;
        OPERATIONS.set(0);
        for _ in 0..8 {
            batch();
        }
        Some(OPERATIONS.get())
    }
}

/// The median; `None` of nothing.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
