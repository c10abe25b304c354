//! A command, from a client to the device, and its receipt back.

use std::time::Duration;

use rand::RngExt as _;
use unhidra_store::Fault;

use crate::scenario;

scenario! {
    /// A command reaches a device that is here, once, and its receipt comes back.
    async fn a_command_is_done_and_its_receipt_comes_back(world: World) {
        let mut pump = world.provision("pump-7").await;
        pump.publish("here");
        pump.acknowledged(1).await;
        let mut client = world.client().await;
        client.subscribe(None).await;
        let command = client.send("pump-7", "reboot", "now").await;
        assert_eq!(client.until_final(&command).await, "done", "SIM_SEED={}", world.seed());
        let failing = client.send("pump-7", "fail", "").await;
        assert_eq!(client.until_final(&failing).await, "failed");
        let commands = [("reboot".to_owned(), "now".to_owned()), ("fail".to_owned(), String::new())];
        assert_eq!(pump.log().commands, commands);
    }
}

scenario! {
    /// A commit that failed is on the disk all the same: nobody repeats what is in it, and whoever waits is told.
    async fn whoever_waits_hears_of_the_end_over_commits_of_unknown_outcome(world: World) {
        let mut pump = world.provision("pump-7").await;
        pump.publish("here");
        pump.acknowledged(1).await;
        let mut client = world.client().await;
        client.subscribe(None).await;
        for n in 0..10 {
            let command = client.send("pump-7", "count", &n.to_string()).await;
            let wait = world.rng.random_range(0..60);
            tokio::time::sleep(Duration::from_millis(wait)).await;
            world.store.fail_next_commit(Fault::Written);
            assert_eq!(client.until_final(&command).await, "done", "SIM_SEED={}", world.seed());
            // Where the fault has struck none of its commits, it strikes this one's.
            pump.publish(&format!("there {n}"));
            pump.acknowledged(n + 2).await;
        }
        assert_eq!(pump.log().commands.len(), 10);
    }
}

scenario! {
    /// A command for a device that is away waits for it, over a restart of the node.
    async fn a_command_waits_for_the_device(world: World) {
        let mut pump = world.provision("pump-7").await;
        pump.publish("here");
        pump.acknowledged(1).await;
        world.stop_node().await;
        world.start_node().await;
        let mut client = world.client().await;
        client.subscribe(None).await;
        let command = client.send("pump-7", "reboot", "later").await;
        assert_eq!(client.until_final(&command).await, "done", "SIM_SEED={}", world.seed());
        assert_eq!(pump.log().commands.len(), 1);
    }
}

scenario! {
    /// A command in flight when the connection is cut is sealed anew, and acted on once.
    async fn a_command_is_acted_on_once_however_often_it_is_sent(world: World) {
        let mut pump = world.provision("pump-7").await;
        pump.publish("here");
        pump.acknowledged(1).await;
        let mut client = world.client().await;
        client.subscribe(None).await;
        let mut commands = Vec::new();
        for n in 0..5 {
            commands.push(client.send("pump-7", "count", &n.to_string()).await);
            world.network.cut_all();
        }
        for command in commands {
            // Answers come in any order; each is heard or was heard on the way to another.
            client.settled(&command).await;
        }
        let mut bodies: Vec<_> = pump.log().commands.into_iter().map(|(_, body)| body).collect();
        bodies.sort();
        assert_eq!(bodies, ["0", "1", "2", "3", "4"], "SIM_SEED={}", world.seed());
    }
}

scenario! {
    /// A revoked device is cut off at once, and stays out.
    async fn a_revoked_device_is_cut_off(world: World) {
        let mut pump = world.provision("pump-7").await;
        pump.publish("here");
        pump.acknowledged(1).await;
        let before = world.age_ms();
        world.revoke(&pump).await;
        let mut client = world.client().await;
        client.say_presence().await;
        client.until_offline("pump-7").await;
        assert!(world.age_ms() - before < 1000, "SIM_SEED={}", world.seed());
        pump.publish("never");
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        assert_eq!(pump.log().acknowledged.len(), 1);
        assert_eq!(world.stored().await["pump-7"], ["here"]);
    }
}
