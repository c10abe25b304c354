//! The world's clock: Tokio's, which a test has paused.

use tokio::time::Instant;
use unhidra_core::time::{Clock, Timestamp, UnixTime};

/// When the world begins: 2027-01-15T08:00:00Z.
const BEGINNING: UnixTime = UnixTime::from_s(1_800_000_000);

/// Both clocks, from one paused one.
#[derive(Clone, Copy, Debug)]
pub struct SimClock {
    origin: Instant,
}

impl SimClock {
    /// Begins now.
    #[must_use]
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// The Tokio instant of a timestamp.
    #[must_use]
    pub fn instant(&self, at: Timestamp) -> Instant {
        self.origin + std::time::Duration::from_millis(at.as_ms())
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn unix_now(&self) -> UnixTime {
        BEGINNING.saturating_add(self.origin.elapsed())
    }
}
