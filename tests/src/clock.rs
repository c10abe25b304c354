//! The world's clock: Tokio's, which a test has paused.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::time::Instant;
use unhidra_core::time::{Clock, Timestamp, UnixTime};

/// When the world begins: 2027-01-15T08:00:00Z.
const BEGINNING: UnixTime = UnixTime::from_s(1_800_000_000);

/// Both clocks, from one paused one.
#[derive(Clone, Debug)]
pub struct SimClock {
    origin: Instant,
    /// How far the time of day was set ahead, in ms; the timers know nothing of it.
    ahead_ms: Arc<AtomicI64>,
}

impl SimClock {
    /// Begins now.
    #[must_use]
    pub fn start() -> Self {
        Self { origin: Instant::now(), ahead_ms: Arc::default() }
    }

    /// Somebody sets the time of day: so many ms ahead of what it should be, or behind.
    pub fn set_ahead(&self, ms: i64) {
        self.ahead_ms.store(ms, Ordering::Relaxed);
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
        let right = BEGINNING.saturating_add(self.origin.elapsed()).as_ms();
        UnixTime::from_ms(right.saturating_add_signed(self.ahead_ms.load(Ordering::Relaxed)))
    }
}
