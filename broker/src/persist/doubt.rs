//! Whether the time of day can be believed at a start, and what counts as passed where it cannot.

use std::time::Duration;

/// What a message has lain for at the most, where the time of day is doubted.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Whether the time of day can be believed: a node may come up with its clock far ahead, and nobody
/// can tell that from a long pause.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TimeOfDay {
    /// The time since a record was written has passed.
    Believed,
    /// It may not have.
    Doubted,
}

impl TimeOfDay {
    /// How long a session counts as left that was left so long ago by the clock. A session that stays
    /// too long costs memory; one that is ended by mistake costs what waited for it.
    pub(super) const fn left_for(self, passed: Duration) -> Duration {
        match self {
            Self::Believed => passed,
            Self::Doubted => Duration::ZERO,
        }
    }

    /// How long a message has lain that was stored so long ago by the clock. Who gave it a short
    /// life meant that nobody acts on it late, so a night counts in full; a year that the clock is
    /// ahead takes a day at the most.
    pub(super) fn lain_for(self, passed: Duration) -> Duration {
        match self {
            Self::Believed => passed,
            Self::Doubted => passed.min(DAY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubted_year_ends_no_session_and_takes_a_day_of_a_message() {
        let (night, year) = (DAY / 2, DAY * 365);
        for passed in [night, year] {
            let believed = (TimeOfDay::Believed.left_for(passed), TimeOfDay::Believed.lain_for(passed));
            assert_eq!(believed, (passed, passed));
            assert_eq!(TimeOfDay::Doubted.left_for(passed), Duration::ZERO);
        }
        assert_eq!((TimeOfDay::Doubted.lain_for(night), TimeOfDay::Doubted.lain_for(year)), (night, DAY));
    }
}
