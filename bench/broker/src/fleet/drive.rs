//! The generator: its threads, told what to do together.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::worker::{Client, Counts, Load, Order, Worker};
use crate::histogram::Histogram;
use crate::process;

/// Threads and the clients they serve.
pub(super) struct Drive {
    workers: Vec<(Sender<Order>, JoinHandle<()>)>,
    failures: Receiver<String>,
    pub(super) counts: Arc<Counts>,
    clients: u64,
}

/// What a stretch of load brought.
pub(super) struct Stretch {
    pub(super) seconds: f64,
    /// PUBACKs.
    pub(super) acknowledged: u64,
    pub(super) times: Histogram,
    pub(super) max_ms: f64,
    /// Processor time of the node, and of the generator.
    pub(super) node_cpu: Duration,
    pub(super) generator_cpu: Duration,
    /// Bytes the node had written to the disk.
    pub(super) written: u64,
}

impl Stretch {
    pub(super) fn rate(&self) -> f64 {
        self.acknowledged as f64 / self.seconds
    }

    /// Microseconds of a processor for each reading.
    pub(super) fn each_us(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 1e6 / self.acknowledged.max(1) as f64
    }
}

impl Drive {
    /// Starts as many threads as there are groups of clients.
    pub(super) fn start(groups: Vec<Vec<Client>>, to: SocketAddr, epoch: Instant) -> Result<Self, String> {
        Self::start_as(groups, to, epoch, false)
    }

    /// The same, with threads that give way to all others.
    pub(super) fn start_behind(groups: Vec<Vec<Client>>, to: SocketAddr, epoch: Instant) -> Result<Self, String> {
        Self::start_as(groups, to, epoch, true)
    }

    fn start_as(groups: Vec<Vec<Client>>, to: SocketAddr, epoch: Instant, gives_way: bool) -> Result<Self, String> {
        let counts = Arc::new(Counts::default());
        let (failed, failures) = channel();
        let clients = groups.iter().map(|group| group.len() as u64).sum();
        let mut workers = Vec::new();
        for group in groups {
            let worker = Worker::new(group, to, epoch, counts.clone()).map_err(|error| error.to_string())?;
            let (orders, told) = channel();
            let failed = failed.clone();
            let thread = std::thread::spawn(move || {
                let placed = if gives_way { process::give_way() } else { Ok(()) };
                let done = placed.map_err(|error| error.to_string()).and_then(|()| worker.run(&told));
                if let Err(error) = done {
                    let _ = failed.send(error);
                }
            });
            workers.push((orders, thread));
        }
        Ok(Self { workers, failures, counts, clients })
    }

    fn tell(&self, order: impl Fn() -> Order) {
        for (orders, _) in &self.workers {
            // One that has ended has said why.
            let _ = orders.send(order());
        }
    }

    /// Begins to connect everybody, `at_once` of each thread.
    pub(super) fn dial(&self, at_once: usize) {
        self.tell(|| Order::Dial(at_once));
    }

    /// Waits until everybody is in and has a reading acknowledged.
    pub(super) fn all_in(&self, patience: Duration) -> Result<(), String> {
        let reached = || self.of(&self.counts.ready) >= self.clients;
        self.wait(patience, reached)
            .map_err(|error| format!("{} of {} devices in: {error}", self.of(&self.counts.ready), self.clients))
    }

    /// Waits until nothing is in flight.
    pub(super) fn drained(&self, patience: Duration) -> Result<(), String> {
        self.load(Load::Rest);
        let left = || self.of(&self.counts.in_flight);
        self.wait(patience, || left() == 0).map_err(|error| format!("{} readings in flight: {error}", left()))
    }

    fn wait(&self, patience: Duration, reached: impl Fn() -> bool) -> Result<(), String> {
        let until = Instant::now() + patience;
        while !reached() {
            if let Ok(error) = self.failures.try_recv() {
                return Err(error);
            }
            if Instant::now() > until {
                return Err(format!("not within {} s", patience.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn of(&self, count: &AtomicU64) -> u64 {
        count.load(Ordering::Relaxed)
    }

    /// Sets the load of all threads together.
    pub(super) fn load(&self, load: Load) {
        let threads = self.workers.len() as f64;
        let each = match load {
            Load::Paced(rate) => Load::Paced(rate / threads),
            other => other,
        };
        self.tell(|| Order::Load(each));
    }

    /// Measures what goes on for so long.
    pub(super) fn measure(&self, pid: u32, length: Duration) -> Result<Stretch, String> {
        let own = std::process::id();
        self.begin();
        let (began, before) = (Instant::now(), self.of(&self.counts.acknowledged));
        let (node, generator, disk) = (process::cpu(pid), process::cpu(own), process::written_bytes(pid));
        std::thread::sleep(length);
        let acknowledged = self.of(&self.counts.acknowledged) - before;
        let seconds = began.elapsed().as_secs_f64();
        let (node_cpu, generator_cpu) =
            (process::cpu(pid).saturating_sub(node), process::cpu(own).saturating_sub(generator));
        let written = process::written_bytes(pid).saturating_sub(disk);
        let (times, max_ns) = self.collect()?;
        Ok(Stretch { seconds, acknowledged, times, max_ms: max_ns as f64 / 1e6, node_cpu, generator_cpu, written })
    }

    /// Measures from now on.
    pub(super) fn begin(&self) {
        self.tell(|| Order::Begin);
    }

    /// Gives the times since it began to measure, and the longest in nanoseconds.
    pub(super) fn collect(&self) -> Result<(Histogram, u64), String> {
        let (mut times, mut max_ns) = (Histogram::new(), 0);
        let (to, from) = channel();
        self.tell(|| Order::Collect(to.clone()));
        drop(to);
        let mut heard = 0;
        while let Ok(measured) = from.recv_timeout(Duration::from_secs(30)) {
            times.add(&measured.times);
            max_ns = max_ns.max(measured.max_ns);
            heard += 1;
        }
        if heard < self.workers.len() {
            return Err(self.failures.try_recv().unwrap_or_else(|_| "a thread of the generator ended".into()));
        }
        Ok((times, max_ns))
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        self.tell(|| Order::Stop);
        for (_, thread) in self.workers.drain(..) {
            let _ = thread.join();
        }
    }
}
