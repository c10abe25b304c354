//! An outside broker as a second door, without its wire: what it is called, which topics are whose,
//! and in which order its messages are answered.
//!
//! Nothing here trusts that broker. It may drop, repeat, reorder, forge and hold back; the sessions
//! find each of it out, and what they found is counted for each outside broker
//! ([`Bridge::take_outside_stats`](crate::Bridge::take_outside_stats)). The wire itself is the node's.

mod rows;
mod window;

use std::time::Duration;

pub use rows::{MESSAGE_LEN_MAX, Rows, Stray};
pub use window::{Answered, NoRoom, Window};

/// Which outside broker, by its place in the configuration.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct UpstreamId(pub u16);

/// By which outside broker a message came, and what follows from it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Via {
    /// Which.
    pub upstream: UpstreamId,
    /// How long a device counts as there after a message of it has opened.
    pub silent_after: Duration,
}

/// What has become of the way to an outside broker.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reach {
    /// It is reached, and has what it had: its session is the one of before.
    Resumed,
    /// It is reached, and has nothing of before: what was given to it may be lost, and nobody knows
    /// which devices are still behind it.
    Anew,
    /// It is not reached.
    Lost,
}
