//! Crashes before and after every commit and every transmit, of the node and of its devices, while a
//! client watches.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt as _;
use unhidra_store::{CrashPoint, Fault};
use unhidra_tests::client::SimClient;
use unhidra_tests::device::SimDevice;
use unhidra_tests::fuse::Side;
use unhidra_tests::world::World;

use crate::scenario;

const DEVICES: [&str; 3] = ["pump-7", "pump-8", "pump-9"];
const STEPS: u32 = 60;

scenario! {
    /// Whoever dies wherever, what a device has seen acknowledged is stored once and in its order, the
    /// client that watches, and comes back at its cursor after each end of the node, receives what is
    /// stored, once and in that order, and nobody ever needs another session.
    async fn wherever_node_and_devices_die_readings_arrive_once_and_in_order(world: World) {
        let mut devices = Vec::new();
        let mut watcher = Watcher::new(&world).await;
        for name in DEVICES {
            let mut device = world.provision(name).await;
            device.publish("0");
            device.acknowledged(1).await;
            devices.push(device);
        }
        for n in 1..=STEPS {
            devices.iter().for_each(|device| device.publish(&n.to_string()));
            let (side, after) = (side(&mut world), world.rng.random_range(0..6));
            let device = &devices[world.rng.random_range(0..DEVICES.len())];
            let lives = match world.rng.random_range(0..16) {
                0 => {
                    world.crash_at(CrashPoint::BeforeCommit).await;
                    false
                }
                1 => {
                    world.crash_at(CrashPoint::AfterCommit).await;
                    false
                }
                2 | 3 => {
                    world.crash_at_transmit(side, after).await;
                    false
                }
                4 => {
                    // Both at once.
                    device.dies_at_transmit(side, after);
                    world.crash_at_transmit(side, after).await;
                    false
                }
                chance => {
                    match chance {
                        5 | 6 => device.dies_at_write(side, after),
                        7 | 8 => device.dies_at_transmit(side, after),
                        9 => world.store.fail_next_commit(Fault::Written),
                        10 => world.store.fail_next_commit(Fault::NotWritten),
                        11 => world.network.cut_all(),
                        _ => watcher.listen(Duration::from_millis(world.rng.random_range(0..2000))).await,
                    }
                    true
                }
            };
            if !lives {
                watcher.come_back(&world).await;
            }
        }
        for device in &mut devices {
            // What is in memory alone when a device dies is lost, and would be waited for in vain.
            device.spare();
            device.publish("last");
            device.until(|log| log.acknowledged.contains("last")).await;
        }
        holds(&world, &devices, &mut watcher).await;
    }
}

fn side(world: &mut World) -> Side {
    if world.rng.random() { Side::Before } else { Side::After }
}

/// What is stored is what was acknowledged, in order, and what the client received is what is stored.
async fn holds(world: &World, devices: &[SimDevice], watcher: &mut Watcher) {
    let seed = world.seed();
    let stored = world.stored().await;
    watcher.until(stored.values().map(Vec::len).sum()).await;
    for device in devices {
        let rows = &stored[device.id.as_str()];
        let log = device.log();
        for body in &log.acknowledged {
            let times = rows.iter().filter(|row| *row == body).count();
            assert_eq!(times, 1, "{} of {} is stored {times} times, SIM_SEED={seed}", body, device.id);
        }
        let order = |body: &String| body.parse::<u32>().unwrap_or(u32::MAX);
        assert!(rows.is_sorted_by(|a, b| order(a) < order(b)), "{}: {rows:?}, SIM_SEED={seed}", device.id);
        assert_eq!(watcher.received.get(device.id.as_str()), Some(rows), "{}, SIM_SEED={seed}", device.id);
        assert_eq!(log.sessions, 1, "{} died {} times, SIM_SEED={seed}", device.id, log.deaths);
    }
}

/// A client that comes back at its cursor, and all it has received.
struct Watcher {
    client: SimClient,
    received: BTreeMap<String, Vec<String>>,
    taken: usize,
}

impl Watcher {
    async fn new(world: &World) -> Self {
        let mut client = world.client().await;
        client.subscribe(None).await;
        Self { client, received: BTreeMap::new(), taken: 0 }
    }

    /// Hears what comes for so long.
    async fn listen(&mut self, time: Duration) {
        self.client.listen(time).await;
        self.take();
    }

    /// Waits until it has received so many in all.
    async fn until(&mut self, count: usize) {
        let before = self.received.values().map(Vec::len).sum::<usize>() - self.taken;
        self.client.readings(count - before).await;
        // Whatever comes more is one too many.
        self.listen(Duration::from_secs(60)).await;
    }

    /// The node it was connected to is gone.
    async fn come_back(&mut self, world: &World) {
        let cursor = self.client.cursor.clone();
        self.client = world.client().await;
        self.taken = 0;
        self.client.subscribe(cursor.as_deref()).await;
    }

    fn take(&mut self) {
        for (device, body) in &self.client.received()[self.taken..] {
            self.received.entry(device.clone()).or_default().push(body.clone());
        }
        self.taken = self.client.received().len();
    }
}
