//! What an outlet sends next, and what an answer means: a plain value.
//!
//! ```text
//!                taken                        refused, again and again
//!   whole <-------------- sends a run ------------------------------> halves: sends the first half
//!     ^                   |  ^     |                                     |  taken: the rest is suspect
//!     |            failed |  |     | broke, again and again              |  refused: this half is
//!     |                   v  |     v                                     v
//!     |                  waits   singly: one row at a time,       one row is left
//!     |      (backoff, breaker)    |     those of the run            |
//!     +----------------------------+---------------------------------+
//!             all are through: taken, or left behind
//! ```
//!
//! A row that is refused alone, often enough, is left behind at once; but no more than so many of them
//! with none taken between. The next one, and a row that breaks the exchange instead, is only accused, and
//! a witness is heard: a row of another device.
//!
//! ```text
//!   weighed ------ the first row failed alone, often enough ----> accused <---------------+
//!      ^                                                             | a witness is sent  |
//!      |                                                             v                    |
//!      |                                                +--------- heard <--+ sent again, |
//!      |                                          taken |            |  |   | where the   |
//!      |      the first row is sent:                    v            |  +---+ way failed  |
//!      +----- taken, or fails and is left behind --- proven          |                    |
//!      |                                                | the way    | not taken          |
//!      |      the first row is sent:                    v failed     v                    |
//!      +----- taken ------------------------------- contested <------+   it fails again --+
//! ```
//!
//! A run that failed is offered again as it was, so that who takes it twice can tell. Where a witness is
//! not taken either, or there is none, it is the other side that is at fault: then nothing is left
//! behind, and all waits. A witness that is taken is proof and no more: it is sent again in its turn. It
//! proves something of the first row only if that one fails once more behind it, for an outage may end
//! between the two; and only so often in a row ([`PROOFS`]), for other failures come and go by chance.

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
    /// How often a run is refused, or breaks, before something else is tried; a single row, before it is
    /// left behind or a witness is asked for.
    pub(crate) refusals_max: u32,
    /// How many rows are left behind with none taken between, and without a witness.
    pub(crate) left_behind_max: u32,
    /// How often in a row a witness is taken and the first row fails, until it is the row's fault.
    pub(crate) proofs: u32,
}

/// As many [`proofs`](Terms::proofs) as are asked for. Where half of what is sent fails by chance, as behind a
/// balancer whose one half is down, a good row is found at fault once in a million.
pub(crate) const PROOFS: u32 = 10;

/// What to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// Send the first rows of the window, so many.
    Send(usize),
    /// Send the row at this place of the window alone, out of its turn.
    Witness(usize),
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
    /// The other side had let us in, and failed over them: it may be one of them, and may be itself.
    Broke,
    /// The way failed, and says nothing of them; the other side asks for so much time.
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

/// Which rows are sent together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Scope {
    /// As many as a run may have.
    Whole,
    /// One of the first so many is refused: half of them.
    Halves(usize),
    /// The first so many broke the exchange: one.
    Singly(usize),
}

impl Scope {
    /// What is left of it once so many rows are through.
    fn without(self, rows: usize) -> Self {
        let left = |before: usize| before.checked_sub(rows).filter(|left| *left > 0);
        match self {
            Self::Whole => Self::Whole,
            Self::Halves(suspects) => left(suspects).map_or(Self::Whole, Self::Halves),
            Self::Singly(rows) => left(rows).map_or(Self::Whole, Self::Singly),
        }
    }
}

/// What is held against the first row. In all but the first of these the run is that row alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Charge {
    /// The run was refused so often and broke so often, which is too little to blame a row.
    Weighed { refusals: u32, breaks: u32 },
    /// It failed alone, often enough, and so often since then beside a witness that was taken. Next is a witness
    /// behind this place; the row itself while there is none.
    Accused { behind: usize, proofs: u32 },
    /// The witness at this place is to say what it knows.
    Heard { at: usize, proofs: u32 },
    /// That one was not taken either. Next is the row, and then a witness behind that place.
    Contested { behind: usize },
    /// A witness was taken, as one was so often before it. Next is the row.
    Proven { proofs: u32 },
}

impl Charge {
    const NONE: Self = Self::Weighed { refusals: 0, breaks: 0 };
}

/// What an outlet sends next, and when.
#[derive(Debug)]
pub(crate) struct Courier {
    terms: Terms,
    pace: Pace,
    /// The run that is under way, or is to be sent again.
    run: Option<usize>,
    scope: Scope,
    charge: Charge,
    /// Rows left behind since the last one that was taken in its turn.
    left_behind: u32,
}

impl Courier {
    pub(crate) const fn new(terms: Terms, pace: Pace) -> Self {
        Self { terms, pace, run: None, scope: Scope::Whole, charge: Charge::NONE, left_behind: 0 }
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
        let witness = match self.charge {
            Charge::Accused { behind, proofs } => window.witness(behind).map(|at| (at, proofs)),
            Charge::Heard { at, proofs } => Some((at, proofs)),
            Charge::Weighed { .. } | Charge::Contested { .. } | Charge::Proven { .. } => None,
        };
        if let Some((at, proofs)) = witness {
            self.charge = Charge::Heard { at, proofs };
            self.pace.begins(now);
            return Step::Witness(at);
        }
        let Terms { rows_max, bytes_max, linger, .. } = self.terms;
        let count = match (self.run, self.scope) {
            (Some(run), _) => run.min(window.len()),
            (None, Scope::Halves(suspects)) => suspects.div_ceil(2).min(window.len()),
            (None, Scope::Singly(_)) => 1,
            (None, Scope::Whole) => {
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
        matches!((self.scope, self.charge), (Scope::Whole, Charge::Weighed { refusals: 0, .. }))
    }

    /// The first rows of a run were taken; so many are on their way now, and are the run.
    pub(crate) fn flowed(&mut self, taken: usize, on_their_way: usize) {
        self.took(taken);
        self.run = Some(on_their_way);
    }

    /// What became of the run, or of the witness, that was sent.
    pub(crate) fn heard(&mut self, answer: Answer, now: Timestamp, rng: &mut impl Rng) -> Outcome {
        if let Charge::Heard { at, proofs } = self.charge {
            self.testified((at, proofs), answer, now, rng);
            return Outcome::default();
        }
        let sent = self.run.take().unwrap_or_default();
        let taken = answer.taken.min(sent);
        let left = sent - taken;
        self.took(taken);
        let outcome = Outcome { taken, left_behind: false };
        match answer.rest {
            Rest::None => {
                self.pace.succeeded();
                outcome
            }
            Rest::Failed { retry_after } => {
                self.run = Some(left).filter(|left| *left > 0);
                if matches!(self.charge, Charge::Proven { .. }) {
                    // What the witness has proved was before this.
                    self.charge = Charge::Contested { behind: 0 };
                }
                self.pace.failed(now, retry_after, rng.next_u64());
                outcome
            }
            Rest::Broke => self.broke(outcome, left.max(1), now, rng),
            Rest::FirstRefused => self.refused(outcome, 1, now, rng),
            Rest::Refused => self.refused(outcome, left.max(1), now, rng),
        }
    }

    /// So many of the first rows were taken in their turn.
    fn took(&mut self, rows: usize) {
        if rows > 0 {
            self.pace.succeeded();
            (self.charge, self.left_behind) = (Charge::NONE, 0);
            self.scope = self.scope.without(rows);
        }
    }

    /// What became of the witness at this place. Where only the way failed, it has said nothing yet: the
    /// first row may have brought down the other side, which takes its time to come back.
    fn testified(&mut self, (at, proofs): (usize, u32), answer: Answer, now: Timestamp, rng: &mut impl Rng) {
        let retry_after = match answer.rest {
            _ if answer.taken > 0 => {
                self.charge = Charge::Proven { proofs: proofs.saturating_add(1) };
                self.pace.succeeded();
                return;
            }
            Rest::Failed { retry_after } => retry_after,
            Rest::None | Rest::FirstRefused | Rest::Refused | Rest::Broke => {
                self.charge = Charge::Contested { behind: at };
                None
            }
        };
        self.pace.failed(now, retry_after, rng.next_u64());
    }

    /// The other side failed over the first `rows`.
    fn broke(&mut self, outcome: Outcome, rows: usize, now: Timestamp, rng: &mut impl Rng) -> Outcome {
        let Charge::Weighed { refusals, breaks } = self.charge else { return self.accuse(outcome, now, rng) };
        let breaks = breaks.saturating_add(1);
        if breaks >= self.terms.refusals_max && rows <= 1 {
            return self.accuse(outcome, now, rng);
        }
        if breaks < self.terms.refusals_max {
            self.charge = Charge::Weighed { refusals, breaks };
            self.run = Some(rows);
        } else {
            let suspects = if let Scope::Halves(suspects) = self.scope { suspects } else { rows };
            (self.scope, self.charge) = (Scope::Singly(suspects.max(rows)), Charge::NONE);
        }
        self.pace.failed(now, None, rng.next_u64());
        outcome
    }

    /// One of `suspects` rows was refused.
    fn refused(&mut self, outcome: Outcome, suspects: usize, now: Timestamp, rng: &mut impl Rng) -> Outcome {
        let Charge::Weighed { refusals, breaks } = self.charge else { return self.accuse(outcome, now, rng) };
        let refusals = refusals.saturating_add(1);
        let narrows = matches!(self.scope, Scope::Halves(_)) && suspects > 1;
        if !narrows && refusals < self.terms.refusals_max {
            // It may be a whim: the same run again, a little later.
            self.charge = Charge::Weighed { refusals, breaks };
            self.run = Some(suspects);
            self.pace.refused(now, rng.next_u64());
            return outcome;
        }
        if suspects > 1 {
            self.pace.succeeded();
            (self.scope, self.charge) = (Scope::Halves(suspects), Charge::NONE);
            return outcome;
        }
        if self.left_behind >= self.terms.left_behind_max {
            return self.accuse(outcome, now, rng);
        }
        self.leave_behind(outcome)
    }

    /// The first row failed alone: often enough, or once more since it is accused.
    fn accuse(&mut self, outcome: Outcome, now: Timestamp, rng: &mut impl Rng) -> Outcome {
        let (behind, proofs) = match self.charge {
            Charge::Proven { proofs } if proofs >= self.terms.proofs => return self.leave_behind(outcome),
            Charge::Proven { proofs } => (0, proofs),
            Charge::Accused { behind, .. } | Charge::Contested { behind } => (behind, 0),
            Charge::Weighed { .. } | Charge::Heard { .. } => (0, 0),
        };
        (self.charge, self.run) = (Charge::Accused { behind, proofs }, Some(1));
        self.pace.failed(now, None, rng.next_u64());
        outcome
    }

    /// The first row is at fault.
    fn leave_behind(&mut self, outcome: Outcome) -> Outcome {
        self.pace.succeeded();
        self.charge = Charge::NONE;
        self.left_behind = self.left_behind.saturating_add(1);
        self.scope = self.scope.without(1);
        Outcome { left_behind: true, ..outcome }
    }
}

#[cfg(test)]
mod tests;
