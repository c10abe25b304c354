//! The time of day, and whether it can be believed when it says that something is old.
//!
//! A clock that is set a year ahead by mistake must not cost a year of readings, nor every key: after
//! a jump nothing goes for its age until a day has passed without another. Whoever sets the clock right
//! again within that day, which is a jump too, has lost nothing. What was seen last is kept in the
//! store, so that a jump over a restart is noticed and a restart ends no doubt.
//!
//! ```text
//! key    "seen", in partition 0
//! value  version 1 (1), the time of day in ms since the Unix epoch (8), ms it is still doubted (8)
//! ```

mod steady;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry as MetricsRegistry;
use unhidra_core::ids::Partition;
use unhidra_core::time::{Clock, Timestamp, UnixTime};
use unhidra_store::{BrokerTable, Limit, Op, ReadError, Store};

use crate::commit::commit;
use steady::{Jump, Left, Steady};

/// How often the clocks are compared.
const LOOK: Duration = Duration::from_secs(10);

/// How often what was seen is written down, beside each jump.
const SAVE: Duration = Duration::from_secs(5 * 60);

const VERSION: u8 = 1;
const KEY: &[u8] = b"seen";
const PARTITION: Partition = Partition::new(0);

/// What is counted of it.
#[derive(Clone, Debug, Default)]
struct Metrics {
    jumps: Family<[(&'static str, &'static str); 1], Counter>,
    doubted: Gauge,
}

impl Metrics {
    fn register(registry: &mut MetricsRegistry) -> Self {
        let metrics = Self::default();
        registry.register(
            "clock_jumps",
            "Times the node's time of day was set, by the direction it went",
            metrics.jumps.clone(),
        );
        registry.register(
            "clock_doubted",
            "1 while the time of day is not believed and nothing goes for its age",
            metrics.doubted.clone(),
        );
        metrics
    }
}

/// What a look at the time of day gives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Look {
    /// What it is.
    pub(crate) now: UnixTime,
    /// Whether anything may go for its age.
    pub(crate) is_believed: bool,
    /// How often it has jumped: what was concluded from it before the last jump holds no more.
    pub(crate) jumps: u64,
}

/// The node's time of day.
pub(crate) struct Calendar {
    clock: Arc<dyn Clock + Send + Sync>,
    state: Mutex<State>,
    metrics: Metrics,
}

#[derive(Default)]
struct State {
    steady: Steady,
    jumps: u64,
}

impl Calendar {
    /// Goes on from where the node's last life left it.
    pub(crate) async fn open(
        store: &dyn Store,
        clock: Arc<dyn Clock + Send + Sync>,
        registry: &mut MetricsRegistry,
    ) -> Result<Arc<Self>, ReadError> {
        let calendar = Self::new(clock, registry);
        let page = store.broker_records(BrokerTable::Calendar, None, Limit::default()).await?;
        let found = page.rows.iter().find(|(key, _)| &**key == KEY);
        if let Some(left) = found.and_then(|(_, value)| decode(value)) {
            let clock = &calendar.clock;
            let (now, boot, unix) = (clock.now(), clock.since_boot(), clock.unix_now());
            let gap = calendar.lock().steady.resume(left, now, boot, unix);
            calendar.say_gap(gap, calendar.lock().steady.doubted_for(now));
        }
        Ok(Arc::new(calendar))
    }

    /// One that knows nothing of a life before.
    pub(crate) fn new(clock: Arc<dyn Clock + Send + Sync>, registry: &mut MetricsRegistry) -> Self {
        Self { clock, state: Mutex::default(), metrics: Metrics::register(registry) }
    }

    /// What the time of day is, and whether it is believed.
    pub(crate) fn look(&self) -> Look {
        let mut state = self.lock();
        let (timer, boot, now) = (self.clock.now(), self.clock.since_boot(), self.clock.unix_now());
        let jump = state.steady.look(timer, boot, now);
        state.jumps += u64::from(jump.is_some());
        let doubted_for = state.steady.doubted_for(timer);
        if let Some(jump) = jump {
            self.say_jump(jump, doubted_for);
        }
        self.metrics.doubted.set(i64::from(!doubted_for.is_zero()));
        Look { now, is_believed: doubted_for.is_zero(), jumps: state.jumps }
    }

    /// Looks again and again, and writes down what it has seen. Goes on until it is dropped.
    pub(crate) async fn keep(&self, store: &dyn Store) {
        let mut written: Option<(Timestamp, u64)> = None;
        loop {
            let jumps = self.look().jumps;
            let now = self.clock.now();
            let is_due = written.is_none_or(|(at, then)| then != jumps || now.saturating_since(at) >= SAVE);
            if is_due {
                match self.save(store).await {
                    Ok(()) => written = Some((now, jumps)),
                    Err(error) => tracing::debug!(%error, "the time of day was not written down; tried again"),
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn save(&self, store: &dyn Store) -> Result<(), unhidra_store::CommitError> {
        let (now, unix) = (self.clock.now(), self.clock.unix_now());
        let left = Left { seen: unix, doubted_for: self.lock().steady.doubted_for(now) };
        let op = Op::Broker {
            table: BrokerTable::Calendar,
            key: Bytes::from_static(KEY),
            value: Some(Bytes::copy_from_slice(&encode(left))),
        };
        commit(store, PARTITION, vec![op]).await.map(drop)
    }

    fn say_jump(&self, jump: Jump, doubted_for: Duration) {
        let (by, direction, said) = match jump {
            Jump::Forward(by) => (by, "forward", "the clock went forward"),
            Jump::Back(by) => (by, "back", "the clock went back"),
        };
        self.metrics.jumps.get_or_create(&[("direction", direction)]).inc();
        let (by_s, doubted_s) = (by.as_secs(), doubted_for.as_secs());
        tracing::warn!(by_s, doubted_s, "{said} by {by_s} s; what goes for its age waits while that is doubted");
    }

    fn say_gap(&self, gap: Option<Jump>, doubted_for: Duration) {
        let doubted_s = doubted_for.as_secs();
        match gap {
            Some(Jump::Forward(by)) => tracing::info!(
                by_s = by.as_secs(),
                doubted_s,
                "the node was down for long, or the clock is ahead; what goes for its age waits while that is doubted"
            ),
            Some(back @ Jump::Back(_)) => self.say_jump(back, doubted_for),
            None => {}
        }
        self.metrics.doubted.set(i64::from(doubted_s > 0));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Numbers that are whole between any two statements that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn encode(left: Left) -> [u8; 17] {
    let mut out = [0; 17];
    let doubted_ms = u64::try_from(left.doubted_for.as_millis()).unwrap_or(u64::MAX);
    let (seen, doubted) = (left.seen.as_ms().to_be_bytes(), doubted_ms.to_be_bytes());
    let bytes = [VERSION].into_iter().chain(seen).chain(doubted);
    out.iter_mut().zip(bytes).for_each(|(slot, byte)| *slot = byte);
    out
}

/// Whether what was seen last reads, for whoever looks over a store.
pub(crate) fn check(value: &[u8]) -> Result<(), String> {
    let malformed = || format!("{} bytes, or of a version this node does not know", value.len());
    decode(value).map(|_| ()).ok_or_else(malformed)
}

/// What is of another version is not known: nothing is lost but a doubt.
fn decode(value: &[u8]) -> Option<Left> {
    let &[VERSION, s0, s1, s2, s3, s4, s5, s6, s7, ref doubted @ ..] = value else { return None };
    Some(Left {
        seen: UnixTime::from_ms(u64::from_be_bytes([s0, s1, s2, s3, s4, s5, s6, s7])),
        doubted_for: Duration::from_millis(u64::from_be_bytes(doubted.try_into().ok()?)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Ground;

    const DAY: Duration = Duration::from_secs(86_400);

    async fn opened(ground: &Ground) -> Arc<Calendar> {
        let mut registry = MetricsRegistry::default();
        Calendar::open(&*ground.store, ground.clock.clone(), &mut registry).await.unwrap()
    }

    #[tokio::test]
    async fn what_was_seen_is_there_again_in_the_next_process() {
        let mut ground = Ground::new();
        let calendar = opened(&ground).await;
        assert!(calendar.look().is_believed, "nobody knows better");
        calendar.save(&*ground.store).await.unwrap();
        ground.reopen().await;
        assert!(opened(&ground).await.look().is_believed);
        // The machine comes up a year ahead.
        ground.clock.jump(DAY * 365);
        ground.reopen().await;
        let calendar = opened(&ground).await;
        assert!(!calendar.look().is_believed);
        // Whoever restarts the node does not end that.
        calendar.save(&*ground.store).await.unwrap();
        ground.reopen().await;
        let calendar = opened(&ground).await;
        ground.clock.advance(DAY - Duration::from_secs(1));
        assert!(!calendar.look().is_believed);
        ground.clock.advance(Duration::from_secs(1));
        assert!(calendar.look().is_believed);
    }

    #[test]
    fn a_machine_that_was_suspended_has_not_been_set() {
        let clock = Arc::new(crate::testing::StillClock::default());
        let calendar = Calendar::new(clock.clone(), &mut MetricsRegistry::default());
        calendar.look();
        clock.suspend(DAY);
        assert_eq!((calendar.look().jumps, calendar.look().is_believed), (0, true));
        clock.jump(DAY);
        assert!(!calendar.look().is_believed);
        // Nobody sets it right while the machine is suspended.
        clock.suspend(DAY);
        assert!(!calendar.look().is_believed);
    }

    #[test]
    fn jumps_are_counted_by_direction() {
        let clock = Arc::new(crate::testing::StillClock::default());
        let mut registry = MetricsRegistry::default();
        let calendar = Calendar::new(clock.clone(), &mut registry);
        calendar.look();
        clock.jump(DAY);
        assert_eq!((calendar.look().jumps, calendar.look().is_believed), (1, false));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("clock_jumps_total{direction=\"forward\"} 1"), "{text}");
        assert!(text.contains("clock_doubted 1"), "{text}");
    }

    #[test]
    fn the_record_reads_back_and_one_of_another_shape_is_not_known() {
        let left = Left { seen: UnixTime::from_ms(7), doubted_for: Duration::from_millis(9) };
        let mut bytes = encode(left);
        assert_eq!(bytes, [1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 9]);
        assert_eq!(decode(&bytes), Some(left));
        assert_eq!(decode(&bytes[..16]), None);
        bytes[0] = 2;
        assert_eq!(decode(&bytes), None);
    }
}
