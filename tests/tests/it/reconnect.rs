//! Connections that are lost, and nodes that end well.

use std::time::Duration;

use rand::RngExt as _;
use unhidra_store::Store as _;

use crate::{bodies, scenario};

scenario! {
    /// However often the connection is cut, what is published is stored once, and the session goes
    /// on: a lost connection begins no new one.
    async fn a_lost_connection_loses_and_doubles_nothing(world: World) {
        let mut pump = world.provision("pump-7").await;
        let mut client = world.client().await;
        client.subscribe(None).await;
        for body in bodies(60) {
            pump.publish(&body);
            if world.rng.random_bool(0.2) {
                world.network.cut_all();
            }
            tokio::time::sleep(Duration::from_millis(world.rng.random_range(0..400))).await;
        }
        pump.acknowledged(60).await;
        client.readings(60).await;
        let seed = world.seed();
        let stored = world.stored().await.remove("pump-7").expect("rows");
        assert_eq!(stored, bodies(60), "doubled, lost or out of order, SIM_SEED={seed}");
        let received: Vec<_> = client.received().iter().map(|(_, body)| body.clone()).collect();
        assert_eq!(received, stored, "SIM_SEED={seed}");
        assert_eq!(pump.log().sessions, 1, "SIM_SEED={seed}");
    }
}

scenario! {
    /// A node that is told to end, ends; what it acknowledged is there when it begins again, and
    /// its devices go on in the same sessions.
    async fn a_restart_keeps_sessions_and_readings(world: World) {
        let mut pump = world.provision("pump-7").await;
        for round in 0..4 {
            (0..10).for_each(|n| pump.publish(&(round * 10 + n).to_string()));
            tokio::time::sleep(Duration::from_millis(world.rng.random_range(0..60))).await;
            world.stop_node().await;
            world.start_node().await;
        }
        pump.acknowledged(40).await;
        let stored = world.stored().await.remove("pump-7").expect("rows");
        assert_eq!(stored, bodies(40), "SIM_SEED={}", world.seed());
        assert_eq!(pump.log().sessions, 1, "SIM_SEED={}", world.seed());
    }
}

scenario! {
    /// A store that takes no rows gives them back, and once the node ends nobody makes room for them any more: it
    /// ends all the same, at once. What it leaves is not acknowledged, and comes to the next.
    async fn a_node_whose_store_takes_no_rows_ends_at_once_and_nothing_is_lost_or_doubled(world: World) {
        let mut pumps = [world.provision("pump-7").await, world.provision("pump-8").await];
        for pump in &mut pumps {
            pump.publish("0");
            pump.acknowledged(1).await;
        }
        let seed = world.seed();
        world.store.hold_rows(Some("no room".into()));
        pumps.iter().for_each(|pump| (1..40).for_each(|n| pump.publish(&n.to_string())));
        // All that may be on its way is, and waits.
        tokio::time::sleep(Duration::from_secs(20)).await;
        let begun = world.age_ms();
        world.stop_node().await;
        let took = world.age_ms() - begun;
        assert!(took < 1000, "{took} ms, SIM_SEED={seed}");
        let acknowledged = pumps.each_ref().map(|pump| pump.log().acknowledged.len());
        assert_eq!(acknowledged, [1, 1], "nothing is acknowledged that is not stored, SIM_SEED={seed}");
        world.start_node().await;
        for pump in &mut pumps {
            pump.acknowledged(40).await;
            assert_eq!(world.stored().await[&pump.id.to_string()], bodies(40), "SIM_SEED={seed}");
            assert_eq!(pump.log().sessions, 1, "SIM_SEED={seed}");
        }
    }
}
