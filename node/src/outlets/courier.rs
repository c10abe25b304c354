//! What an outlet sends next, and what an answer means: a plain value.
//!
//! ```text
//!          taken                       refused, again and again
//!  whole <-------- sends a run -----------------------------> suspects: sends its first half
//!    ^                |  ^                                        |  taken: the rest is suspect
//!    |         failed |  | its time has come                      |  refused: this half is
//!    |                v  |                                        v
//!    |             waits (backoff, breaker)                  one row is left
//!    +-----------------------------------------------------------+
//!                     taken, or refused often enough: left behind
//! ```
//!
//! A run that failed is offered again as it was, so that who takes it twice can tell. Where nothing is
//! taken any more and row after row is refused, it is the other side that is at fault: then nothing is
//! left behind, and all waits.

use std::time::Duration;

use rand::Rng;
use unhidra_core::time::Timestamp;

use super::window::Window;
use crate::outside::Pace;

/// What bounds it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// Rows in a run.
    pub(crate) rows_max: usize,
    /// Bytes of bodies in a run.
    pub(crate) bytes_max: usize,
    /// How long a run waits to be filled.
    pub(crate) linger: Duration,
    /// How often a row is refused before it is left behind.
    pub(crate) refusals_max: u32,
    /// How many rows are left behind with none taken between.
    pub(crate) left_behind_max: u32,
}

/// What to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// Send the first rows of the window, so many.
    Send(usize),
    /// Nothing before this instant, unless there are more rows.
    Wait(Timestamp),
    /// Nothing before there are rows.
    Idle,
}

/// What became of a run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Answer {
    /// How many of its first rows were taken.
    pub(crate) taken: usize,
    /// What became of the rest.
    pub(crate) rest: Rest,
}

/// What became of the rows of a run that were not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Rest {
    /// There are none.
    None,
    /// The first of them was refused.
    FirstRefused,
    /// One of them was refused, and with it all.
    Refused,
    /// It is not known; the other side asks for so much time.
    Failed {
        /// From `Retry-After`, within its bound.
        retry_after: Option<Duration>,
    },
}

/// What follows from an answer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Outcome {
    /// Rows that were taken.
    pub(crate) taken: usize,
    /// Whether the row behind them is left behind.
    pub(crate) left_behind: bool,
}

/// What an outlet sends next, and when.
#[derive(Debug)]
pub(crate) struct Courier {
    terms: Terms,
    pace: Pace,
    /// The run that is under way, or is to be sent again.
    run: Option<usize>,
    /// Among how many of the first rows one is refused.
    suspects: Option<usize>,
    /// How often the run was refused.
    refusals: u32,
    /// Rows left behind since the last one that was taken.
    left_behind: u32,
}

impl Courier {
    pub(crate) const fn new(terms: Terms, pace: Pace) -> Self {
        Self { terms, pace, run: None, suspects: None, refusals: 0, left_behind: 0 }
    }

    pub(crate) const fn pace(&self) -> &Pace {
        &self.pace
    }

    /// What to do with what waits.
    pub(crate) fn next<T>(&mut self, window: &Window<T>, now: Timestamp) -> Step {
        let Some(first) = window.first(1).next() else { return Step::Idle };
        if let Some(at) = self.pace.opens_at(now) {
            return Step::Wait(at);
        }
        let Terms { rows_max, bytes_max, linger, .. } = self.terms;
        let count = match (self.run, self.suspects) {
            (Some(run), _) => run.min(window.len()),
            (None, Some(suspects)) => suspects.div_ceil(2).min(window.len()),
            (None, None) => {
                let filled_at = first.read_at.saturating_add(linger);
                if !window.is_full(rows_max, bytes_max) && now < filled_at {
                    return Step::Wait(filled_at);
                }
                window.fit(rows_max, bytes_max)
            }
        };
        self.run = Some(count);
        self.pace.begins(now);
        Step::Send(count)
    }

    /// Whether rows behind the run may follow it while it is under way: not where one of them is suspect.
    pub(crate) const fn flows(&self) -> bool {
        self.suspects.is_none() && self.refusals == 0
    }

    /// The first rows of a run that flows were taken; so many are on their way now, and are the run.
    pub(crate) fn flowed(&mut self, taken: usize, on_their_way: usize) {
        if taken > 0 {
            self.pace.succeeded();
            (self.refusals, self.left_behind) = (0, 0);
        }
        self.run = Some(on_their_way);
    }

    /// What became of the run that was sent.
    pub(crate) fn heard(&mut self, answer: Answer, now: Timestamp, rng: &mut impl Rng) -> Outcome {
        let sent = self.run.take().unwrap_or_default();
        let taken = answer.taken.min(sent);
        if taken > 0 {
            self.pace.succeeded();
            (self.refusals, self.left_behind) = (0, 0);
            self.suspects = self.suspects.and_then(|suspects| suspects.checked_sub(taken)).filter(|left| *left > 0);
        }
        let outcome = Outcome { taken, left_behind: false };
        match answer.rest {
            Rest::None => {
                self.pace.succeeded();
                outcome
            }
            Rest::Failed { retry_after } => {
                self.run = sent.checked_sub(taken).filter(|left| *left > 0);
                self.pace.failed(now, retry_after, rng.next_u64());
                outcome
            }
            Rest::FirstRefused => self.refused(outcome, 1, now, rng),
            Rest::Refused => self.refused(outcome, (sent - taken).max(1), now, rng),
        }
    }

    /// One of `suspects` rows was refused.
    fn refused(&mut self, outcome: Outcome, suspects: usize, now: Timestamp, rng: &mut impl Rng) -> Outcome {
        self.refusals = self.refusals.saturating_add(1);
        let narrows = self.suspects.is_some() && suspects > 1;
        if !narrows && self.refusals < self.terms.refusals_max {
            // It may be a whim: the same run again, a little later.
            self.run = Some(suspects);
            self.pace.refused(now, rng.next_u64());
            return outcome;
        }
        if suspects > 1 {
            self.pace.succeeded();
            (self.suspects, self.refusals) = (Some(suspects), 0);
            return outcome;
        }
        if self.left_behind >= self.terms.left_behind_max {
            self.run = Some(1);
            self.pace.failed(now, None, rng.next_u64());
            return outcome;
        }
        self.pace.succeeded();
        self.refusals = 0;
        self.left_behind += 1;
        self.suspects = self.suspects.and_then(|suspects| suspects.checked_sub(1)).filter(|left| *left > 0);
        Outcome { left_behind: true, ..outcome }
    }
}

#[cfg(test)]
mod tests;
