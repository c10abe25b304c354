//! Clocks that are set while the node runs and while it is down: its own, and a device's.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rand::{Rng as _, RngExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use unhidra_broker::packet::{
    Connect, Disconnect, Packet, Properties, Property, ReasonCode, Text, Version, split_frame,
};
use unhidra_core::command::CommandState;
use unhidra_core::ids::{CommandId, DeviceId, Offset};
use unhidra_core::message::{Reading, UplinkKind};
use unhidra_core::time::{Clock as _, UnixTime};
use unhidra_node::control::{ControlError, SendAsked};
use unhidra_store::{Limit, STUBS, Store as _};
use unhidra_tests::world::World;

use crate::{bodies, scenario};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
const YEAR_MS: i64 = 365 * DAY_MS;

/// Beyond two looks of the retention at all devices.
const LOOKS: Duration = Duration::from_secs(700);

/// An hour or a year forward or back, about as far, or right.
fn somewhere(world: &mut World) -> i64 {
    let off = [0, HOUR_MS, -HOUR_MS, YEAR_MS, -YEAR_MS, 10 * YEAR_MS][world.rng.random_range(0..6)];
    off + world.rng.random_range(-60_000..60_000)
}

/// Asks for a command under an id of its own, until somebody says that it is durable.
async fn command(world: &mut World, device: DeviceId, body: &str) -> CommandId {
    let mut id = [0; 16];
    world.rng.fill_bytes(&mut id);
    let asked = SendAsked {
        device,
        id: Some(CommandId::new(id)),
        name: "do".to_owned(),
        body: body.to_owned().into(),
        expires_in_ms: Some(60_000),
    };
    loop {
        match world.live().expect("a node").send(asked.clone()).await {
            Ok(command) => return command.id,
            Err(ControlError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(error) => panic!("{error}, SIM_SEED={}", world.seed()),
        }
    }
}

async fn state(world: &World, device: DeviceId, id: CommandId) -> CommandState {
    world.store.command(&device, &id).await.expect("serves").expect("accepted").state()
}

scenario! {
    /// The time of day of the node and of the device is set an hour or years forward and back at random
    /// moments, also while the node is down: readings are stored once and in order, none goes for its age,
    /// a client that comes back at its cursor gets each of them, no session is reset, and each command is
    /// carried out at most once and has one end that is true.
    async fn clocks_that_jump_both_ways_lose_double_and_reset_nothing(world: World) {
        let mut pump = world.provision("pump-7").await;
        let mut client = world.client().await;
        client.subscribe(None).await;
        let cursor = client.cursor.clone();
        drop(client);
        let mut commands = Vec::new();
        for n in 0..40 {
            pump.publish(&n.to_string());
            if world.rng.random_bool(0.3) {
                commands.push(command(&mut world, pump.id, &n.to_string()).await);
            }
            pump.acknowledged(n + 1).await;
            let ahead = somewhere(&mut world);
            world.clock.set_ahead(ahead);
            if world.rng.random_bool(0.3) {
                let off = somewhere(&mut world);
                let to = world.clock.unix_now().as_ms().saturating_add_signed(off);
                pump.set_calendar(UnixTime::from_ms(to));
            }
            match world.rng.random_range(0..6) {
                0 => {
                    world.stop_node().await;
                    let ahead = somewhere(&mut world);
                    world.clock.set_ahead(ahead);
                    world.start_node().await;
                }
                1 => {
                    world.bury().await;
                    world.start_node().await;
                }
                2 => tokio::time::sleep(LOOKS).await,
                _ => tokio::time::sleep(Duration::from_secs(world.rng.random_range(0..100))).await,
            }
        }
        world.clock.set_ahead(0);
        tokio::time::sleep(LOOKS).await;
        let mut client = world.client().await;
        client.subscribe(cursor.as_deref()).await;
        client.readings(40).await;
        let received: Vec<_> = client.received().iter().map(|(_, body)| body.clone()).collect();
        assert_eq!(received, bodies(40), "SIM_SEED={}", world.seed());
        assert_eq!(world.stored().await["pump-7"], bodies(40), "SIM_SEED={}", world.seed());
        assert_eq!(pump.log().sessions, 1, "SIM_SEED={}", world.seed());
        let mut acted: Vec<_> = pump.log().commands.into_iter().map(|(_, body)| body).collect();
        let count = acted.len();
        acted.sort_unstable();
        acted.dedup();
        assert_eq!(acted.len(), count, "carried out twice, SIM_SEED={}", world.seed());
        let mut done = 0;
        for id in commands {
            let end = state(&world, pump.id, id).await;
            assert!(end.is_final(), "{end:?}, SIM_SEED={}", world.seed());
            done += usize::from(end == CommandState::Done);
        }
        assert!(done <= count, "{done} are done and {count} carried out, SIM_SEED={}", world.seed());
    }
}

/// A client that proves no name comes for its session, which stays for 50 minutes, and takes leave.
/// Whether there was one.
async fn comes_and_goes(world: &World, begins: bool) -> bool {
    let mut stream = world.network.dial_nameless("keeper").await.expect("a node").stream;
    let connect = Connect {
        version: Version::V5,
        clean_start: begins,
        keep_alive_s: 0,
        properties: [Property::SessionExpiryInterval(3_000)].into_iter().collect::<Properties>(),
        client_id: Text::from_bytes(Bytes::from_static(b"keeper")).expect("a text"),
        will: None,
        user_name: None,
        password: None,
    };
    stream.write_all(&Packet::Connect(Box::new(connect)).to_bytes(Version::V5)).await.expect("it reads");
    let mut read = BytesMut::new();
    let answer = loop {
        match split_frame(&mut read, 1 << 20).expect("it speaks MQTT") {
            Some(frame) => break Packet::decode(frame, Version::V5).expect("it speaks MQTT 5.0"),
            None => assert!(stream.read_buf(&mut read).await.expect("it answers") > 0, "it hangs up"),
        }
    };
    let Packet::ConnAck(accepted) = answer else { panic!("{answer:?}") };
    assert_eq!(accepted.reason, ReasonCode::Success);
    let leave = Packet::Disconnect(Disconnect::new(ReasonCode::Success));
    stream.write_all(&leave.to_bytes(Version::V5)).await.expect("it reads");
    // Its end says that the leave was taken.
    while stream.read_buf(&mut read).await.is_ok_and(|len| len > 0) {}
    accepted.session_present
}

scenario! {
    /// A node that comes up a year ahead ends no client's session; one that was down for as long as anybody
    /// believes it ends those whose time is over.
    async fn a_clock_far_ahead_at_the_start_ends_no_session_of_a_client(world: World) {
        for (ahead_ms, is_kept) in [(HOUR_MS * 3 / 4, false), (YEAR_MS, true)] {
            world.clock.set_ahead(0);
            assert!(!comes_and_goes(&world, true).await);
            // What was seen is written down every 5 minutes.
            tokio::time::sleep(LOOKS).await;
            world.stop_node().await;
            world.clock.set_ahead(ahead_ms);
            world.start_node().await;
            assert_eq!(comes_and_goes(&world, false).await, is_kept, "{ahead_ms}, SIM_SEED={}", world.seed());
        }
    }
}

scenario! {
    /// A node whose machine comes up a year ahead forgets nothing for a day, over restarts; set right within
    /// it has lost nothing, and left so it forgets what is old by that clock.
    async fn a_node_that_comes_up_a_year_ahead_forgets_nothing_for_a_day(world: World) {
        let mut pump = world.provision("pump-7").await;
        for n in 0..100 {
            pump.publish(&n.to_string());
            pump.acknowledged(n + 1).await;
        }
        // What was seen is written down every 5 minutes.
        tokio::time::sleep(LOOKS).await;
        world.stop_node().await;
        world.clock.set_ahead(YEAR_MS);
        world.start_node().await;
        for hours in [2, 10, 11] {
            tokio::time::sleep(Duration::from_secs(hours * 3600)).await;
            assert_eq!(world.stored().await["pump-7"], bodies(100), "SIM_SEED={}", world.seed());
            if world.rng.random() { world.stop_node().await } else { world.bury().await }
            world.start_node().await;
        }
        if world.rng.random() {
            world.clock.set_ahead(0);
            tokio::time::sleep(Duration::from_secs(26 * 3600)).await;
            assert_eq!(world.stored().await["pump-7"], bodies(100), "SIM_SEED={}", world.seed());
        } else {
            tokio::time::sleep(Duration::from_secs(3 * 3600)).await;
            let left = world.store.history(&pump.id, Offset::ZERO, Limit::default()).await.expect("serves").rows;
            // Of the newest 64 rows a stub stays, unless they are what the device said since it reconnected.
            let is_reading = |row: &Reading| row.uplink.kind == UplinkKind::Reading;
            assert!(left.len() == STUBS && !left.iter().any(is_reading), "SIM_SEED={}: {left:?}", world.seed());
        }
    }
}

scenario! {
    /// A command whose expiry the clock has jumped over is sent to nobody and ends as expired within the hour;
    /// one that was given while the clock was ahead ends by the device's word once it is right again.
    async fn a_command_is_not_sent_past_its_expiry_by_whatever_clock(world: World) {
        let mut pump = world.provision("pump-7").await;
        pump.publish("here");
        pump.acknowledged(1).await;
        world.network.isolate("pump-7");
        let jumped_over = command(&mut world, pump.id, "a").await;
        world.clock.set_ahead(YEAR_MS);
        if world.rng.random() {
            world.network.rejoin("pump-7");
        }
        tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
        assert_eq!(state(&world, pump.id, jumped_over).await, CommandState::Expired, "SIM_SEED={}", world.seed());
        world.network.isolate("pump-7");
        tokio::time::sleep(Duration::from_secs(60)).await;
        let of_the_future = command(&mut world, pump.id, "b").await;
        world.clock.set_ahead(0);
        world.network.rejoin("pump-7");
        pump.until(|log| !log.commands.is_empty()).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(state(&world, pump.id, of_the_future).await, CommandState::Done, "SIM_SEED={}", world.seed());
        assert_eq!(pump.log().commands, [("do".to_owned(), "b".to_owned())], "SIM_SEED={}", world.seed());
    }
}
