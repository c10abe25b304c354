//! The threads that handshakes compute on, below all other threads of the process.
//!
//! A handshake is half a millisecond of signatures. Among the tasks of those who are inside, a storm
//! of newcomers would take every second turn of a core; here the system runs it on what the others
//! leave, and it gets its tenth where they leave nothing.

use std::io;
use std::sync::Arc;

use rustix::process::{getpriority_process, setpriority_process};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinSet;

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
    pub fn start(gate: &Gate, cores: usize) -> io::Result<Self> {
        let threads = gate.config().handshakes_per_core.saturating_mul(cores).max(1);
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("handshakes")
            .on_thread_start(give_way)
            .enable_time()
            .build()?;
        Ok(Self(Arc::new(Threads { handle: runtime.handle().clone(), runtime: Some(runtime) })))
    }

    /// Runs one handshake there.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        set: &mut JoinSet<T>,
        handshake: impl Future<Output = T> + Send + 'static,
    ) {
        set.spawn_on(handshake, &self.0.handle);
    }
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
    use std::time::Duration;

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

    fn threads() -> HandshakeThreads {
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
        HandshakeThreads::start(&Gate::new(config, Arc::new(Standing)), 1).expect("threads")
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
}
