//! A node whose store was put back from a copy, and devices that had moved on.

use std::time::Duration;

use rand::RngExt as _;
use unhidra_core::ids::DeviceId;
use unhidra_store::{PrekeyRecord, Store as _};
use unhidra_tests::world::World;

use crate::scenario;

async fn prekeys(world: &World, device: &str) -> Vec<PrekeyRecord> {
    world.store.prekeys(&DeviceId::parse(device).expect("an id")).await.expect("serves")
}

scenario! {
    /// Life goes on after a copy is taken; the copy is put back, and the pair finds together again
    /// without a person, both ways. Nothing that was acknowledged since then is repeated by the device,
    /// and nothing that waits is lost.
    async fn a_device_that_moved_on_and_a_node_put_back_find_together_again(world: World) {
        let mut pump = world.provision("pump-7").await;
        let mut still = world.provision("still").await;
        still.publish("still here");
        still.acknowledged(1).await;
        let before = world.rng.random_range(1..40);
        for n in 0..before {
            pump.publish(&n.to_string());
        }
        pump.acknowledged(before).await;
        let copy = world.store.copy();
        let old = prekeys(&world, "pump-7").await;

        // It moves on: by messages alone, by ratchet steps, or by a session.
        let moved_on: usize = match world.rng.random_range(0..3) {
            0 => world.rng.random_range(1..20),
            1 => 400,
            _ => {
                world.put_back(copy.clone()).await;
                1
            }
        };
        for n in 0..moved_on {
            pump.publish(&format!("lost with the store {n}"));
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        pump.acknowledged(before + moved_on).await;
        let sessions = pump.log().sessions;

        world.put_back(copy).await;
        pump.publish("waits");
        pump.until(|log| log.acknowledged.contains("waits") && log.sessions > sessions).await;
        assert!(pump.log().sessions - sessions == 1, "one new session is enough, SIM_SEED={}", world.seed());
        let stored = world.stored().await.remove("pump-7").expect("rows");
        assert_eq!(stored.iter().filter(|body| *body == "waits").count(), 1, "SIM_SEED={}", world.seed());
        for n in 0..before {
            assert_eq!(stored.iter().filter(|body| **body == n.to_string()).count(), 1);
        }
        let new = prekeys(&world, "pump-7").await;
        assert!(new.iter().all(|new| old.iter().all(|old| (old.kind, old.id) != (new.kind, new.id))));

        let mut client = world.client().await;
        client.subscribe(None).await;
        let command = client.send("pump-7", "reboot", "now").await;
        assert_eq!(client.until_final(&command).await, "done", "SIM_SEED={}", world.seed());
        // One that has nothing to say is reached as well.
        let command = client.send("still", "reboot", "now").await;
        assert_eq!(client.until_final(&command).await, "done", "SIM_SEED={}", world.seed());
    }
}

scenario! {
    /// The copy that is put back has a damaged record of one device. Of that one nothing is taken, the others
    /// go on; and when it reads again, in another life of the node, it is not gone on from.
    async fn a_damaged_record_in_a_copy_leaves_out_its_device_alone(world: World) {
        let mut pump = world.provision("pump-7").await;
        let mut others = Vec::new();
        for name in ["pump-1", "pump-2", "pump-3"] {
            others.push(world.provision(name).await);
        }
        pump.publish("0");
        pump.acknowledged(1).await;
        for other in &mut others {
            other.publish("0");
            other.acknowledged(1).await;
        }
        let whole = world.store.damage_session(&pump.id).expect("it has a session");
        let copy = world.store.copy();
        world.put_back(copy).await;
        let seed = world.seed();
        // It counts before it has said anything.
        world.until(|world| world.damaged_devices() == 1).await;
        pump.publish("1");
        for other in &mut others {
            other.publish("1");
            other.until(|log| log.acknowledged.len() == 2 && log.sessions == 2).await;
        }
        tokio::time::sleep(Duration::from_secs(world.rng.random_range(1..600))).await;
        assert_eq!(pump.log().acknowledged.len(), 1, "SIM_SEED={seed}");
        assert_eq!(world.damaged_devices(), 1, "SIM_SEED={seed}");

        world.stop_node().await;
        world.store.mend_session(&pump.id, whole);
        world.start_node().await;
        let taken = pump.until(|log| log.acknowledged.len() == 2 && log.sessions == 2);
        let taken = tokio::time::timeout(Duration::from_secs(3600), taken).await.is_ok();
        assert!(taken, "its reading, in a session of its own that is new, within an hour, SIM_SEED={seed}");
        assert_eq!(world.damaged_devices(), 0, "SIM_SEED={seed}");
        let stored = world.stored().await;
        assert_eq!(stored["pump-7"], ["0", "1"], "SIM_SEED={seed}");
        for other in &others {
            assert_eq!(other.log().sessions, 2, "one new session is enough, SIM_SEED={seed}");
            assert_eq!(stored[&other.id.to_string()], ["0", "1"], "SIM_SEED={seed}");
        }
        let mut client = world.client().await;
        let command = client.send("pump-7", "reboot", "now").await;
        assert_eq!(client.until_final(&command).await, "done", "SIM_SEED={seed}");
    }
}
