//! A reading, all the way.

use crate::{bodies, scenario};

scenario! {
    /// What a device publishes is stored once and seen once, in order, by a client that watches.
    async fn a_reading_reaches_the_store_and_the_client_once(world: World) {
        let mut pump = world.provision("pump-7").await;
        let mut client = world.client().await;
        client.subscribe(None).await;
        for body in bodies(40) {
            pump.publish(&body);
        }
        pump.acknowledged(40).await;
        client.readings(40).await;
        let received: Vec<_> = client.received().iter().map(|(_, body)| body.clone()).collect();
        assert_eq!(received, bodies(40), "SIM_SEED={}", world.seed());
        assert_eq!(world.stored().await["pump-7"], bodies(40), "SIM_SEED={}", world.seed());
        assert_eq!(pump.log().sessions, 1);
    }
}

scenario! {
    /// Devices do not mix: each has its own rows, in its own order.
    async fn many_devices_keep_their_own_order(world: World) {
        let mut devices = Vec::new();
        for n in 0..6 {
            devices.push(world.provision(&format!("sensor-{n}")).await);
        }
        for body in bodies(15) {
            devices.iter().for_each(|device| device.publish(&body));
        }
        for device in &mut devices {
            device.acknowledged(15).await;
        }
        let stored = world.stored().await;
        assert_eq!(stored.len(), 6);
        for (device, rows) in stored {
            assert_eq!(rows, bodies(15), "{device} SIM_SEED={}", world.seed());
        }
    }
}

scenario! {
    /// A client that comes late replays from its cursor and goes on live, with no gap and no double.
    async fn a_client_resumes_from_its_cursor(world: World) {
        let mut pump = world.provision("pump-7").await;
        let mut first = world.client().await;
        first.subscribe(None).await;
        (0..10).for_each(|n| pump.publish(&n.to_string()));
        first.readings(10).await;
        let cursor = first.cursor.clone().expect("a cursor");
        drop(first);
        (10..30).for_each(|n| pump.publish(&n.to_string()));
        pump.acknowledged(20).await;
        let mut second = world.client().await;
        second.subscribe(Some(&cursor)).await;
        second.readings(20).await;
        let received: Vec<_> = second.received().iter().map(|(_, body)| body.clone()).collect();
        assert_eq!(received, bodies(30)[10..], "SIM_SEED={}", world.seed());
    }
}

scenario! {
    /// While the store answers nothing no PUBACK leaves and the connection lives: the device's
    /// PINGREQ is answered, or it would have begun another connection.
    async fn a_store_that_never_answers_stalls_no_ping(world: World) {
        let mut pump = world.provision("pump-7").await;
        pump.publish("first");
        pump.acknowledged(1).await;
        world.store.stall();
        (0..20).for_each(|n| pump.publish(&n.to_string()));
        tokio::time::sleep(std::time::Duration::from_secs(300)).await;
        let log = pump.log();
        assert_eq!((log.acknowledged.len(), log.connections), (1, 1), "SIM_SEED={}", world.seed());
        world.store.resume();
        pump.acknowledged(21).await;
    }
}
