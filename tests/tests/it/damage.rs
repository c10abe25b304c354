//! What the disk damages of one device stops that device, and nobody beside it.

use unhidra_store::{Health, Store as _};
use unhidra_tests::device::SimDevice;

use crate::{bodies, scenario};

/// Each publishes one reading, and is told that it is stored.
async fn all_say(others: &mut [SimDevice], n: usize) {
    others.iter().for_each(|device| device.publish(&n.to_string()));
    for device in others {
        device.acknowledged(n + 1).await;
    }
}

scenario! {
    /// A session's record is damaged under a node that has the session in memory: the store finds it where
    /// it looks before it writes. Nothing of the device is stored or acknowledged from then on, nobody else
    /// loses his connection, and nothing is lost once the record is whole again.
    async fn a_record_damaged_under_a_running_node_stops_its_device_alone(world: World) {
        let mut pump = world.provision("pump-7").await;
        let mut others = Vec::new();
        for name in ["pump-1", "pump-2", "pump-3", "pump-4"] {
            others.push(world.provision(name).await);
        }
        pump.publish("0");
        pump.acknowledged(1).await;
        all_say(&mut others, 0).await;
        let whole = world.store.damage_session(&pump.id).expect("it has a session");
        for n in 1..50 {
            pump.publish(&n.to_string());
            all_say(&mut others, n).await;
        }
        world.until(|world| world.damaged_devices() == 1).await;
        let seed = world.seed();
        assert_eq!(pump.log().acknowledged.len(), 1, "what is not stored is not acknowledged, SIM_SEED={seed}");
        let all = world.stored().await;
        assert_eq!(all["pump-7"], bodies(1), "SIM_SEED={seed}");
        for other in &others {
            let log = other.log();
            assert_eq!((log.connections, log.sessions), (1, 1), "{} is disturbed, SIM_SEED={seed}", other.id);
            assert_eq!(all[&other.id.to_string()], bodies(50), "SIM_SEED={seed}");
        }
        assert_eq!(*world.store.health().borrow(), Health::Ready, "SIM_SEED={seed}");
        let tries = pump.log().connections;
        assert!(tries < 30, "{tries} connections: nobody is asked again and again, SIM_SEED={seed}");

        world.store.mend_session(&pump.id, whole);
        pump.acknowledged(50).await;
        assert_eq!(world.stored().await["pump-7"], bodies(50), "SIM_SEED={seed}");
        assert_eq!((pump.log().sessions, world.damaged_devices()), (1, 0), "SIM_SEED={seed}");
    }
}

/// Every life of a node that is over has closed all it had open.
#[test]
fn worlds_that_are_gone_leave_no_file_open() {
    let open = || std::fs::read_dir("/proc/self/fd").expect("a system with it").count();
    let live = |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let mut world = unhidra_tests::world::World::new(seed).await;
            let mut pump = world.provision("pump-7").await;
            pump.publish("0");
            pump.acknowledged(1).await;
            if seed % 2 == 0 {
                world.stop_node().await;
            }
        });
    };
    const WORLDS: usize = 40;
    live(0);
    let before = open();
    (0..WORLDS as u64).for_each(live);
    // Others may run beside it in this process, and open some.
    assert!(open() < before + WORLDS, "{before} were open before {WORLDS} worlds, {} are after them", open());
}
