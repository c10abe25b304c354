//! The threads that handshakes compute on, below all other threads of the process.
//!
//! A handshake is half a millisecond of signatures. Among the tasks of those who are inside, a storm
//! of newcomers would take every second turn of a core; here the system runs it on what the others
//! leave, and it gets its tenth where they leave nothing. While those who are inside have messages on
//! their way, it does not take all that they leave either ([`Pace`]).

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{getpriority_process, setpriority_process};
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinSet;

use super::pace::Pace;
use crate::gate::Gate;

/// How much nicer these threads are than the one that starts them. Ten steps are a tenth of the
/// weight: enough to give way, and not so much that nobody comes in while the others are busy.
const NICER: i32 = 10;
/// The nicest there is.
const NICEST: i32 = 19;

/// The threads that handshakes compute on: one set for all listeners, since they share the cores.
///
/// They end with its last copy; handshakes under way are dropped then.
#[derive(Clone, Debug)]
pub struct HandshakeThreads(Arc<Threads>);

#[derive(Debug)]
struct Threads {
    gate: Arc<Gate>,
    pace: Mutex<Pace>,
    handle: Handle,
    /// Taken when it ends.
    runtime: Option<Runtime>,
}

impl HandshakeThreads {
    /// Starts as many as the gate has for each of `cores`, at least one.
    ///
    /// # Errors
    ///
    /// The system's, where it gives no thread.
    pub fn start(gate: &Arc<Gate>, cores: usize) -> io::Result<Self> {
        let threads = gate.config().handshakes_per_core.saturating_mul(cores).max(1);
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("handshakes")
            .on_thread_start(give_way)
            .enable_time()
            .build()?;
        Ok(Self(Arc::new(Threads {
            gate: gate.clone(),
            pace: Mutex::new(Pace::new(gate.config().handshake_timeout())),
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })))
    }

    /// Runs one handshake there.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        set: &mut JoinSet<T>,
        handshake: impl Future<Output = T> + Send + 'static,
    ) {
        // Not what keeps the threads: they end with the last listener, and handshakes with them.
        let threads = Arc::downgrade(&self.0);
        let mut handshake = Box::pin(handshake);
        let mut ready_at = Some(self.0.gate.now());
        let paced = poll_fn(move |cx| {
            let step = Step::begin();
            if let (Some(ready_at), Some(threads)) = (ready_at.take(), threads.upgrade()) {
                threads.lock().begins(threads.gate.now().saturating_since(ready_at));
            }
            let polled = handshake.as_mut().poll(cx);
            if let Some(threads) = threads.upgrade() {
                threads.pace(&step);
            }
            polled
        });
        set.spawn_on(paced, &self.0.handle);
    }
}

impl Threads {
    fn lock(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the thread it is called on rest for what this step has cost, before its next one.
    fn pace(&self, step: &Step) {
        if !self.gate.traffic().is_moving(self.gate.now()) {
            return;
        }
        let (computed, waited) = step.so_far();
        let rest = self.lock().rest(computed, waited);
        if !rest.is_zero() {
            Step::rest_after(rest);
            self.gate.rested(rest);
        }
    }
}

thread_local! {
    /// When the thread may compute again. What it is idle until then is rest as well.
    static RESTS_UNTIL: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// One step of a handshake, up to where it waits for its peer.
struct Step {
    begun_at: Instant,
    cpu_before: Duration,
}

#[expect(
    clippy::disallowed_methods,
    reason = "what is measured is the processor, and a thread that rests does nothing else"
)]
impl Step {
    /// Begins one, on a thread that has rested.
    fn begin() -> Self {
        if let Some(until) = RESTS_UNTIL.take() {
            thread::sleep(until.saturating_duration_since(Instant::now()));
        }
        Self { begun_at: Instant::now(), cpu_before: thread_cpu() }
    }

    /// Has this thread rest before its next one.
    fn rest_after(rest: Duration) {
        RESTS_UNTIL.set(Instant::now().checked_add(rest));
    }

    /// How long it has computed, and how long it was ready to and had no processor.
    fn so_far(&self) -> (Duration, Duration) {
        let computed = thread_cpu().saturating_sub(self.cpu_before);
        (computed, self.begun_at.elapsed().saturating_sub(computed))
    }
}

/// The time for which this thread has had a processor.
fn thread_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting for them is not allowed where tasks run, and there is nothing to wait for.
            runtime.shutdown_background();
        }
    }
}

/// Puts the thread it is called on below the others: on Linux a nice value is a thread's own.
fn give_way() {
    let nicer = getpriority_process(None).map(|nice| nice.saturating_add(NICER).min(NICEST));
    if let Err(error) = nicer.and_then(|nice| setpriority_process(None, nice)) {
        tracing::warn!(%error, "handshakes compute beside everything else: their threads cannot be made nicer");
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::config::GateConfig;
    use unhidra_core::time::{Clock, Timestamp, UnixTime};

    struct Standing;

    impl Clock for Standing {
        fn now(&self) -> Timestamp {
            Timestamp::ZERO
        }
        fn unix_now(&self) -> UnixTime {
            UnixTime::from_ms(0)
        }
    }

    fn gate() -> Arc<Gate> {
        let config = GateConfig {
            connections_per_address: 0,
            connects_per_address_s: 0,
            handshake_failures_per_address_s: 0,
            connects_s: 0,
            addresses_max: 1,
            antechamber_max: 1,
            lag_max_ms: 0,
            memory_max_bytes: 0,
            handshakes_per_core: 1,
            handshakes_max: 1,
            handshake_timeout_s: 1,
        };
        Gate::new(config, Arc::new(Standing))
    }

    fn threads() -> HandshakeThreads {
        HandshakeThreads::start(&gate(), 1).expect("threads")
    }

    fn nice() -> i32 {
        getpriority_process(None).expect("the system says it")
    }

    #[tokio::test]
    async fn a_handshake_gives_way_to_everybody_else() {
        let (threads, mut set, before) = (threads(), JoinSet::new(), nice());
        threads.spawn(&mut set, async { nice() });
        let there = set.join_next().await.expect("one").expect("it ends");
        assert_eq!((there, nice()), ((before + NICER).min(NICEST), before));
    }

    #[tokio::test]
    async fn the_threads_end_where_tasks_run_and_their_handshakes_with_them() {
        let (threads, mut set) = (threads(), JoinSet::new());
        threads.spawn(&mut set, tokio::time::sleep(Duration::MAX));
        drop(threads);
        assert!(set.join_next().await.expect("one").is_err_and(|error| error.is_cancelled()));
    }

    /// A millisecond of computing, behind twenty without a processor.
    #[expect(clippy::disallowed_methods, reason = "a thread that stands still is what this is about")]
    async fn hindered() {
        thread::sleep(Duration::from_millis(20));
        let until = thread_cpu() + Duration::from_millis(1);
        while thread_cpu() < until {}
    }

    /// The seconds that the metrics show.
    fn rested(gate: &Gate) -> f64 {
        let (mut registry, mut text) = (Registry::default(), String::new());
        gate.register(&mut registry);
        encode(&mut text, &registry).expect("text");
        let line = text.lines().find(|line| line.starts_with("broker_handshake_rest_seconds_total"));
        line.and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a number")
    }

    #[tokio::test]
    async fn who_had_to_wait_for_a_processor_rests_while_others_have_messages_on_their_way() {
        let gate = gate();
        let (threads, mut set) = (HandshakeThreads::start(&gate, 1).expect("threads"), JoinSet::new());
        for _ in 0..2 {
            threads.spawn(&mut set, hindered());
            set.join_next().await.expect("one").expect("it ends");
        }
        assert_eq!(rested(&gate), 0.0, "there is nobody it could hinder");
        gate.traffic().moves();
        threads.spawn(&mut set, hindered());
        threads.spawn(&mut set, hindered());
        while let Some(ended) = set.join_next().await {
            ended.expect("it ends");
        }
        // Eight times what both have computed, which is a millisecond and more each.
        let rested = rested(&gate);
        assert!(rested >= 0.016, "{rested}");
    }
}
