//! Suite 2 in the world, beside suite 1.

use std::time::Duration;

use rand::RngExt as _;
use unhidra_core::suite::Suite;

use crate::{bodies, scenario};

scenario! {
    /// One fleet of both suites: every reading is stored once in its device's order, and every
    /// command is done, over connections that are cut and a node that starts again.
    async fn a_fleet_of_both_suites_is_one_fleet(world: World) {
        let mut fleet = Vec::new();
        for n in 0..6 {
            let suite = if n % 2 == 0 { Suite::X3dh } else { Suite::Pqxdh };
            fleet.push(world.provision_of(suite, &format!("{suite}-{n}")).await);
        }
        let mut client = world.client().await;
        client.subscribe(None).await;
        for body in &bodies(20)[..10] {
            fleet.iter().for_each(|device| device.publish(body));
            if world.rng.random_bool(0.3) {
                world.network.cut_all();
            }
            tokio::time::sleep(Duration::from_millis(world.rng.random_range(0..400))).await;
        }
        for device in &mut fleet {
            device.acknowledged(10).await;
        }
        let mut commands = Vec::new();
        for device in &fleet {
            commands.push(client.send(&device.id.to_string(), "reboot", "now").await);
        }
        for command in commands {
            client.settled(&command).await;
        }
        world.stop_node().await;
        world.start_node().await;
        for body in &bodies(20)[10..] {
            fleet.iter().for_each(|device| device.publish(body));
        }
        for device in &mut fleet {
            device.acknowledged(20).await;
        }
        let stored = world.stored().await;
        assert_eq!(stored.len(), 6);
        for (device, rows) in stored {
            assert_eq!(rows, bodies(20), "{device} SIM_SEED={}", world.seed());
        }
        for device in &fleet {
            let log = device.log();
            assert_eq!(log.sessions, 1, "{} goes on in one session, SIM_SEED={}", device.id, world.seed());
            assert_eq!(log.commands, [("reboot".to_owned(), "now".to_owned())], "{}", device.id);
        }
    }
}

scenario! {
    /// The node dies between the bundle of suite 2 and what comes of it: the seed of the KEM pair
    /// is in the store before the bundle leaves, so that the handshake opens with the next node.
    async fn a_handshake_of_suite_2_opens_after_a_restart(world: World) {
        let mut pump = world.provision_of(Suite::Pqxdh, "pump-7").await;
        pump.publish("0");
        pump.until(|log| log.connections == 1).await;
        tokio::time::sleep(Duration::from_millis(world.rng.random_range(0..60))).await;
        world.bury().await;
        world.start_node().await;
        pump.publish("1");
        pump.acknowledged(2).await;
        assert_eq!(world.stored().await["pump-7"], bodies(2), "SIM_SEED={}", world.seed());
    }
}
