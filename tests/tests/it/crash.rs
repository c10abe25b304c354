//! Nodes that die, and commits that fail.

use std::time::Duration;

use rand::RngExt as _;
use unhidra_store::{CrashPoint, Fault};
use unhidra_tests::device::SimDevice;
use unhidra_tests::world::World;

use crate::{bodies, scenario};

mod everywhere;

/// All that was published is acknowledged in the end, and stored exactly once and in the order it was published.
async fn nothing_is_lost_or_doubled(world: &World, pump: &mut SimDevice, count: usize) {
    pump.acknowledged(count).await;
    let stored = world.stored().await.remove(pump.id.as_str()).expect("rows");
    assert_eq!(stored, bodies(count), "SIM_SEED={}", world.seed());
    assert_eq!(pump.log().sessions, 1, "SIM_SEED={}", world.seed());
}

async fn dies_at(world: &mut World, point: CrashPoint) {
    let mut pump = world.provision("pump-7").await;
    pump.publish("0");
    pump.acknowledged(1).await;
    (1..20).for_each(|n| pump.publish(&n.to_string()));
    world.crash_at(point).await;
    (20..30).for_each(|n| pump.publish(&n.to_string()));
    nothing_is_lost_or_doubled(world, &mut pump, 30).await;
}

scenario! {
    /// A node that dies before the commit is sent the messages again, and they still open.
    async fn a_crash_before_the_commit_loses_nothing(world: World) {
        dies_at(&mut world, CrashPoint::BeforeCommit).await;
    }
}

scenario! {
    /// A node that dies after the commit and before the PUBACK is sent the messages again; they are
    /// stored once.
    async fn a_crash_after_the_commit_repeats_nothing(world: World) {
        dies_at(&mut world, CrashPoint::AfterCommit).await;
    }
}

scenario! {
    /// A commit that fails, and whether it is on disk nobody knows, loses and doubles nothing.
    async fn a_commit_of_unknown_outcome_loses_and_doubles_nothing(world: World) {
        let mut pump = world.provision("pump-7").await;
        pump.publish("0");
        pump.acknowledged(1).await;
        for round in 0..6 {
            let fault = if world.rng.random() { Fault::Written } else { Fault::NotWritten };
            world.store.fail_next_commit(fault);
            for n in 0..5 {
                pump.publish(&(1 + round * 5 + n).to_string());
                tokio::time::sleep(Duration::from_millis(world.rng.random_range(0..4))).await;
            }
            tokio::time::sleep(Duration::from_millis(world.rng.random_range(1..3000))).await;
        }
        nothing_is_lost_or_doubled(&world, &mut pump, 31).await;
    }
}

scenario! {
    /// Where the store stands still for a while and more comes than a shard has drafts under way, the rest waits in
    /// the node. If the commit then fails, a device's readings among the rest are not stored before those that it
    /// has to send again.
    async fn what_waits_in_the_node_when_a_commit_fails_is_stored_behind_what_comes_again(world: World) {
        let mut fleet = Vec::new();
        for n in 0..12 {
            let mut device = world.provision(&format!("pump-{n}")).await;
            device.publish("0");
            device.acknowledged(1).await;
            fleet.push(device);
        }
        for round in 0..4 {
            let fault = if world.rng.random() { Fault::Written } else { Fault::NotWritten };
            world.store.stall();
            world.store.fail_next_commit(fault);
            for n in 0..7 {
                for device in &fleet {
                    device.publish(&(1 + round * 7 + n).to_string());
                    // Each is a draft of its own.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            world.store.resume();
            tokio::time::sleep(Duration::from_millis(world.rng.random_range(1..3000))).await;
        }
        for device in &mut fleet {
            nothing_is_lost_or_doubled(&world, device, 29).await;
        }
    }
}

scenario! {
    /// A draft that is refused alone loses and doubles nothing: its message is not acknowledged, comes again
    /// and is stored.
    async fn a_draft_that_is_refused_alone_loses_nothing(world: World) {
        let mut pump = world.provision("pump-7").await;
        pump.publish("0");
        pump.acknowledged(1).await;
        world.move_version(&pump).await;
        world.store.stall();
        pump.publish("1");
        tokio::time::sleep(Duration::from_secs(1)).await;
        // The device has given the connection up by the time the store goes on.
        world.network.cut_all();
        tokio::time::sleep(Duration::from_secs(60)).await;
        world.store.resume();
        nothing_is_lost_or_doubled(&world, &mut pump, 2).await;
    }
}

scenario! {
    /// All of it at once, at random, with commands in between.
    async fn whatever_happens_nothing_acknowledged_is_lost_or_doubled(world: World) {
        let mut pump = world.provision("pump-7").await;
        pump.publish("0");
        pump.acknowledged(1).await;
        for n in 1..80 {
            pump.publish(&n.to_string());
            match world.rng.random_range(0..20) {
                0 => world.network.cut_all(),
                1 => world.crash_at(CrashPoint::BeforeCommit).await,
                2 => world.crash_at(CrashPoint::AfterCommit).await,
                3 => world.store.fail_next_commit(Fault::Written),
                4 => world.store.fail_next_commit(Fault::NotWritten),
                5 => {
                    world.stop_node().await;
                    world.start_node().await;
                }
                _ => tokio::time::sleep(Duration::from_millis(world.rng.random_range(0..200))).await,
            }
        }
        nothing_is_lost_or_doubled(&world, &mut pump, 80).await;
    }
}
