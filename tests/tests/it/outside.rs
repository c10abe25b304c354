//! Devices behind an outside broker that does each evil thing. Whatever it does, what is stored came
//! once and from its device, and each attempt is counted under its name.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use rand::{Rng as _, RngExt as _};
use unhidra_core::command::CommandState;
use unhidra_core::ids::CommandId;
use unhidra_node::control::{CancelAsked, ControlError, SendAsked};
use unhidra_node::upstream::UpstreamState;
use unhidra_store::{Fault, Store as _};
use unhidra_tests::device::SimDevice;
use unhidra_tests::outside::OutsideBroker;
use unhidra_tests::world::World;

use crate::bodies;

mod defences;

const MESSAGES: &str = "unhidra/devices/pump-7/messages";

/// Runs a scenario in a world of each seed, with an outside broker before the node.
macro_rules! evil {
    ($(#[$doc:meta])* async fn $name:ident($world:ident: World, $outside:ident: OutsideBroker) $body:block) => {
        $(#[$doc])*
        #[test]
        fn $name() {
            for seed in unhidra_tests::seed::seeds() {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
                runtime.expect("a runtime").block_on(async {
                    let $outside = OutsideBroker::start();
                    #[allow(unused_mut, reason = "some scenarios only look")]
                    let mut $world = World::behind(seed, &$outside).await;
                    $body
                    assert_eq!($outside.disorders(), 0, "PUBACKs in the order of their messages, SIM_SEED={seed}");
                });
            }
        }
    };
}

/// A device behind the broker that has begun its session.
async fn begun(world: &mut World, outside: &OutsideBroker) -> SimDevice {
    let mut pump = world.provision_behind(outside, "pump-7").await;
    pump.publish("0");
    world.until_stored("pump-7", 1).await;
    pump.acknowledged(1).await;
    pump
}

/// Publishes the numbers from `from` to `to`, one at a time, and waits until the broker has them.
async fn say(pump: &mut SimDevice, from: usize, to: usize) {
    for n in from..to {
        pump.publish(&n.to_string());
        pump.acknowledged(n + 1).await;
    }
}

async fn stored(world: &World) -> Vec<String> {
    world.stored().await.remove("pump-7").unwrap_or_default()
}

/// The payloads without their last byte's lowest bit as it was: nothing a device has said.
fn flipped(payload: &Bytes, at: usize) -> Bytes {
    let mut bytes = payload.to_vec();
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1;
    }
    bytes.into()
}

evil! {
    /// An honest broker carries readings in, in order, and commands out.
    async fn behind_an_honest_broker_all_is_as_it_is_at_the_front_door(world: World, outside: OutsideBroker) {
        let mut pump = begun(&mut world, &outside).await;
        // What the command line is told is what clients are told.
        let live = world.live().expect("it runs");
        assert!(live.is_online(&unhidra_core::ids::DeviceId::parse("pump-7").expect("an id")));
        say(&mut pump, 1, 30).await;
        world.until_stored("pump-7", 30).await;
        assert_eq!(stored(&world).await, bodies(30), "SIM_SEED={}", world.seed());
        let mut client = world.client().await;
        client.subscribe(None).await;
        let command = client.send("pump-7", "reboot", "now").await;
        assert_eq!(client.until_final(&command).await, "done", "SIM_SEED={}", world.seed());
        assert_eq!(pump.log().commands, [("reboot".to_owned(), "now".to_owned())]);
    }
}

evil! {
    /// What is dropped is missing, and the gap is counted; the rest comes in order.
    async fn what_is_dropped_is_counted_by_its_gap(world: World, outside: OutsideBroker) {
        let mut pump = begun(&mut world, &outside).await;
        let mut n = 0;
        outside.be(move |said| {
            n += 1;
            if n % 3 == 0 { Vec::new() } else { vec![said] }
        });
        say(&mut pump, 1, 31).await;
        world.until_stored("pump-7", 21).await;
        let numbers: Vec<u32> = stored(&world).await.iter().map(|body| body.parse().expect("a number")).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        // The last that was dropped has none behind it to show the gap.
        assert_eq!(world.counted("passed_over"), 9, "SIM_SEED={}", world.seed());
    }
}

evil! {
    /// A repeat is a duplicate while it is among the last 32, and too old after that; at once or a day
    /// later, alone or the whole of a session from its first word on.
    async fn what_is_repeated_is_stored_once(world: World, outside: OutsideBroker) {
        let mut pump = begun(&mut world, &outside).await;
        outside.be(|said| vec![said.clone(), said]);
        say(&mut pump, 1, 20).await;
        world.until_stored("pump-7", 20).await;
        world.until_counted("duplicate", 19).await;
        outside.be(|said| vec![said]);
        say(&mut pump, 20, 80).await;
        world.until_stored("pump-7", 80).await;
        let before = world.refused();
        let all = outside.seen(MESSAGES);
        for payload in &all {
            outside.say(MESSAGES, payload.clone());
        }
        world.until(|world| world.refused() + world.counted("duplicate") >= before + 19 + all.len() as u64).await;
        // A new session, and then the old one from its beginning.
        tokio::time::sleep(Duration::from_secs(2 * 86_400)).await;
        for payload in &all {
            outside.say(MESSAGES, payload.clone());
        }
        pump.publish("80");
        world.until_stored("pump-7", 81).await;
        assert_eq!(stored(&world).await, bodies(81), "SIM_SEED={}", world.seed());
        let commands = pump.log().commands;
        assert!(commands.is_empty(), "{commands:?}");
    }
}

evil! {
    /// A broker that passes on what it says it refuses has the device seal it anew: stored once, by its id.
    async fn what_is_refused_and_passed_on_all_the_same_is_stored_once(world: World, outside: OutsideBroker) {
        let mut pump = begun(&mut world, &outside).await;
        outside.refuse(true);
        (1..6).for_each(|n| pump.publish(&n.to_string()));
        world.until_stored("pump-7", 6).await;
        outside.refuse(false);
        pump.acknowledged(6).await;
        world.until_counted("repeated_reading", 5).await;
        assert_eq!(stored(&world).await, bodies(6), "SIM_SEED={}", world.seed());
    }
}

evil! {
    /// A broker that sends each message twice under one Packet Identifier gets one PUBACK for both.
    async fn what_is_repeated_before_its_answer_is_answered_once(world: World, outside: OutsideBroker) {
        let mut pump = begun(&mut world, &outside).await;
        outside.echo(true);
        say(&mut pump, 1, 20).await;
        world.until_stored("pump-7", 20).await;
        world.until_counted("repeated_in_flight", 19).await;
        assert_eq!(world.counted("duplicate"), 0, "no session has seen a repeat, SIM_SEED={}", world.seed());
        assert_eq!(stored(&world).await, bodies(20), "SIM_SEED={}", world.seed());
    }
}

evil! {
    /// A node that takes no rows when it ends leaves the broker what it has of it, and does not wait.
    async fn a_node_whose_store_takes_no_rows_takes_its_leave_at_once(world: World, outside: OutsideBroker) {
        let mut pump = begun(&mut world, &outside).await;
        world.until(|_| outside.unacknowledged() == 0).await;
        world.store.hold_rows(Some("no room".into()));
        say(&mut pump, 1, 8).await;
        world.until(|_| outside.unacknowledged() == 7).await;
        let begun = world.age_ms();
        world.stop_node().await;
        let took = world.age_ms() - begun;
        assert!(took < 1000, "{took} ms, SIM_SEED={}", world.seed());
        assert_eq!(outside.unacknowledged(), 7, "SIM_SEED={}", world.seed());
        world.start_node().await;
        world.until_stored("pump-7", 8).await;
        assert_eq!(stored(&world).await, bodies(8), "SIM_SEED={}", world.seed());
    }
}

evil! {
    /// The node's PUBACK means that a message is durable: while the store stands still the broker gets
    /// none, and a node that dies then gets the messages again.
    async fn nothing_is_acknowledged_before_it_is_durable(world: World, outside: OutsideBroker) {
        let mut pump = begun(&mut world, &outside).await;
        world.until(|_| outside.unacknowledged() == 0).await;
        world.store.stall();
        say(&mut pump, 1, 8).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(outside.unacknowledged(), 7, "SIM_SEED={}", world.seed());
        world.bury().await;
        assert_eq!(outside.unacknowledged(), 7, "SIM_SEED={}", world.seed());
        world.start_node().await;
        world.until_stored("pump-7", 8).await;
        assert_eq!(stored(&world).await, bodies(8), "SIM_SEED={}", world.seed());
        world.until(|_| outside.unacknowledged() == 0).await;
    }
}

evil! {
    /// What is reordered or held back, for minutes or for hours, is stored once when it comes.
    async fn what_is_reordered_or_held_back_comes_late_and_once(world: World, outside: OutsideBroker) {
        let mut pump = begun(&mut world, &outside).await;
        let mut held = Vec::new();
        outside.be(move |said| {
            held.push(said);
            if held.len() < 5 {
                return Vec::new();
            }
            held.reverse();
            std::mem::take(&mut held)
        });
        say(&mut pump, 1, 31).await;
        world.until_stored("pump-7", 31).await;
        assert!(world.counted("late") >= 20, "SIM_SEED={}", world.seed());
        let back = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let holding = back.clone();
        outside.be(move |said| {
            holding.lock().expect("not poisoned").push(said);
            Vec::new()
        });
        say(&mut pump, 31, 41).await;
        outside.be(|said| vec![said]);
        say(&mut pump, 41, 42).await;
        tokio::time::sleep(Duration::from_secs(6 * 3600)).await;
        let back = std::mem::take(&mut *back.lock().expect("not poisoned"));
        for (topic, payload) in back {
            outside.say(&topic, payload);
        }
        world.until_stored("pump-7", 42).await;
        let all: BTreeSet<String> = stored(&world).await.into_iter().collect();
        assert_eq!(all, bodies(42).into_iter().collect(), "SIM_SEED={}", world.seed());
    }
}

evil! {
    /// Bits that are flipped open nothing, wherever they are, and do not keep what is true from coming.
    async fn what_is_forged_opens_nothing(world: World, outside: OutsideBroker) {
        let mut pump = begun(&mut world, &outside).await;
        let mut rng = world.fork();
        outside.be(move |(topic, payload)| {
            let at = rng.random_range(0..payload.len());
            vec![(topic.clone(), flipped(&payload, at)), (topic, payload)]
        });
        say(&mut pump, 1, 40).await;
        world.until_stored("pump-7", 40).await;
        assert_eq!(stored(&world).await, bodies(40), "SIM_SEED={}", world.seed());
        let found = world.refused();
        assert!(found >= 39, "{found} forgeries of 39 were counted, SIM_SEED={}", world.seed());
        assert!(world.counted("forged") > 0, "SIM_SEED={}", world.seed());
        // Several of them would have it asked for a new session, and the device itself would let the node ask.
        assert!(world.counted("unknown") > 1, "SIM_SEED={}", world.seed());
        assert_eq!(world.asked_for_sessions(), 1, "one request an hour, SIM_SEED={}", world.seed());
        assert!(pump.log().sessions <= 2, "one new session an hour at most");
    }
}

evil! {
    /// Noise, lengths that no message has, other topics and devices nobody has enrolled are refused, and
    /// each is counted.
    async fn what_is_made_up_is_refused_under_its_name(world: World, outside: OutsideBroker) {
        let mut pump = begun(&mut world, &outside).await;
        let mut rng = world.fork();
        for len in [0, 1, 40, 57, 98, 200, 1400] {
            for kind in [0, 1, 2, 3, 4] {
                let mut noise = vec![0; len];
                rng.fill_bytes(&mut noise);
                if let Some(first) = noise.first_mut() {
                    *first = kind;
                }
                outside.say(MESSAGES, noise);
            }
        }
        outside.say(MESSAGES, vec![1; 70_000]);
        outside.say("unhidra/devices/nobody/messages", vec![1; 100]);
        outside.say("unhidra/devices/no body/messages", vec![1; 100]);
        outside.say("unhidra/devices/pump-7/prekeys/get", vec![9; 17]);
        world.until_counted("oversize", 1).await;
        outside.retain(true);
        outside.say(MESSAGES, vec![1; 100]);
        world.until_counted("retained", 1).await;
        outside.retain(false);
        world.until_counted("not_enrolled", 1).await;
        world.until_counted("bad_topic", 1).await;
        world.until(|world| world.refused() >= 35).await;
        say(&mut pump, 1, 5).await;
        world.until_stored("pump-7", 5).await;
        assert_eq!(stored(&world).await, bodies(5), "SIM_SEED={}", world.seed());
        assert!(pump.log().sessions <= 2, "one new session an hour at most");
    }
}

evil! {
    /// One that has every message of its refused and lets go each time is left alone like one that lets
    /// nobody in.
    async fn a_broker_that_brings_nothing_but_what_is_refused_is_left_alone(world: World, outside: OutsideBroker) {
        let shown = |world: &World| world.live().expect("a node").upstreams()[0].clone();
        world.until(|world| shown(world).state == UpstreamState::Connected).await;
        for n in 1..=20 {
            outside.say("unhidra/devices/nobody/messages", vec![1; 100]);
            world.until(|world| shown(world).received >= n && outside.unacknowledged() == 0).await;
            outside.cut_all();
            world.until(|world| world.failures() >= n).await;
        }
        assert_eq!(shown(&world).state, UpstreamState::Resting, "SIM_SEED={}", world.seed());
    }
}

evil! {
    /// What one device has said opens nothing in another's name, its handshake least of all.
    async fn another_devices_words_open_nothing(world: World, outside: OutsideBroker) {
        let mut pump = begun(&mut world, &outside).await;
        let mut other = world.provision_behind(&outside, "pump-8").await;
        other.publish("other");
        other.acknowledged(1).await;
        world.until_stored("pump-8", 1).await;
        let theirs = outside.seen("unhidra/devices/pump-8/messages");
        for payload in &theirs {
            outside.say(MESSAGES, payload.clone());
        }
        for payload in &outside.seen(MESSAGES) {
            outside.say("unhidra/devices/pump-8/messages", payload.clone());
        }
        world.until(|world| world.refused() > theirs.len() as u64).await;
        assert!(world.counted("refused_handshake") >= 1, "SIM_SEED={}", world.seed());
        say(&mut pump, 1, 5).await;
        world.until_stored("pump-7", 5).await;
        let all = world.stored().await;
        assert_eq!((&all["pump-7"], &all["pump-8"]), (&bodies(5), &vec!["other".to_owned()]));
    }
}

evil! {
    /// What a device says whose records are damaged is given up and counted, and nobody behind the same
    /// broker waits for it: more of it comes than may be without an answer at once.
    async fn a_damaged_device_holds_up_nobody_else(world: World, outside: OutsideBroker) {
        let mut pump = begun(&mut world, &outside).await;
        let other = world.provision_behind(&outside, "pump-8").await;
        world.stop_node().await;
        world.damage(&pump).await;
        world.start_node().await;
        for n in 0..100 {
            pump.publish(&(n + 1).to_string());
            other.publish(&n.to_string());
            pump.acknowledged(n + 2).await;
        }
        world.until_stored("pump-8", 100).await;
        world.until_counted("unreadable", 100).await;
        let all = world.stored().await;
        assert_eq!((&all["pump-7"], &all["pump-8"]), (&bodies(1), &bodies(100)), "SIM_SEED={}", world.seed());
        assert_eq!(world.failures(), 0, "the connection is everybody's: it stands, SIM_SEED={}", world.seed());
    }
}

evil! {
    /// What a device says whose records the disk does not give just now is not acknowledged, and nobody
    /// behind the same broker waits for it. Once the disk gives them all of it is stored, in order.
    async fn a_device_that_cannot_be_read_for_a_while_holds_up_nobody_else(world: World, outside: OutsideBroker) {
        let mut pump = begun(&mut world, &outside).await;
        let other = world.provision_behind(&outside, "pump-8").await;
        world.stop_node().await;
        world.start_node().await;
        world.store.fail_reads_of(Some(pump.id));
        say(&mut pump, 1, 7).await;
        world.until_counted("passed_by", 6).await;
        for n in 0..100 {
            other.publish(&n.to_string());
        }
        world.until_stored("pump-8", 100).await;
        assert_eq!(world.stored().await["pump-7"], bodies(1), "SIM_SEED={}", world.seed());
        world.store.fail_reads_of(None);
        world.until_stored("pump-7", 7).await;
        assert_eq!(world.stored().await["pump-7"], bodies(7), "SIM_SEED={}", world.seed());
        assert_eq!(world.counted("unreadable"), 0, "nothing was given up, SIM_SEED={}", world.seed());
        assert_eq!(world.failures(), 0, "the broker has done nothing wrong, SIM_SEED={}", world.seed());
    }
}

evil! {
    /// What a device says while its record is in doubt comes again, and what it says afterwards by the same connection
    /// does not overtake it: not even by more than the node keeps keys for.
    async fn a_device_whose_record_is_in_doubt_is_heard_in_order_later(world: World, outside: OutsideBroker) {
        let mut pump = begun(&mut world, &outside).await;
        say(&mut pump, 1, 4).await;
        world.until_stored("pump-7", 4).await;
        world.store.fail_reads_of(Some(pump.id));
        world.store.fail_next_commit(Fault::Written);
        assert!(!world.tag(&pump, "site=north").await);
        say(&mut pump, 4, 5).await;
        world.until_counted("kept_out", 1).await;
        world.store.fail_reads_of(None);
        assert!(world.tag(&pump, "site=north").await);
        let all = 5 + 150;
        for n in 5..all {
            pump.publish(&n.to_string());
        }
        world.until_stored("pump-7", all).await;
        assert_eq!(world.stored().await["pump-7"], bodies(all), "SIM_SEED={}", world.seed());
        assert_eq!(world.failures(), 0, "the broker has done nothing wrong, SIM_SEED={}", world.seed());
    }
}

evil! {
    /// Where it lasts, and more of it comes than may be without an answer at once, it is given up as
    /// damaged records are, and the others come through.
    async fn a_device_that_cannot_be_read_any_more_holds_up_nobody_else_for_ever(world: World, outside: OutsideBroker) {
        let mut pump = begun(&mut world, &outside).await;
        let other = world.provision_behind(&outside, "pump-8").await;
        world.stop_node().await;
        world.start_node().await;
        world.store.fail_reads_of(Some(pump.id));
        say(&mut pump, 1, 40).await;
        for n in 0..100 {
            other.publish(&n.to_string());
        }
        world.until_stored("pump-8", 100).await;
        world.until_counted("unreadable", 39).await;
        let all = world.stored().await;
        assert_eq!((&all["pump-7"], &all["pump-8"]), (&bodies(1), &bodies(100)), "SIM_SEED={}", world.seed());
    }
}

evil! {
    /// A broker that dies, forgets, cuts and comes back, a node that dies, and commands all the while:
    /// nothing is doubled, what was not lost by the broker is there, and each command is acted on once.
    async fn whatever_happens_nothing_is_doubled_and_commands_are_acted_on_once(
        world: World, outside: OutsideBroker
    ) {
        let mut pump = begun(&mut world, &outside).await;
        let mut rng = world.fork();
        let mut sent = 0;
        for n in 1..60 {
            pump.publish(&n.to_string());
            match rng.random_range(0..16) {
                0 | 1 => outside.cut_all(),
                2 => {
                    outside.end(false);
                    tokio::time::sleep(Duration::from_secs(rng.random_range(1..120))).await;
                    outside.begin();
                }
                3 => {
                    world.stop_node().await;
                    tokio::time::sleep(Duration::from_secs(rng.random_range(1..120))).await;
                    world.start_node().await;
                }
                4 => {
                    world.bury().await;
                    world.start_node().await;
                }
                5 => {
                    let mut client = world.client().await;
                    client.send("pump-7", "count", &sent.to_string()).await;
                    sent += 1;
                }
                _ => tokio::time::sleep(Duration::from_millis(rng.random_range(0..500))).await,
            }
        }
        pump.acknowledged(60).await;
        world.until_stored("pump-7", 60).await;
        // Long enough for every wait and every rest, while the device goes on speaking.
        for n in 60..70 {
            tokio::time::sleep(Duration::from_secs(70)).await;
            pump.publish(&n.to_string());
        }
        world.until_stored("pump-7", 70).await;
        assert_eq!(stored(&world).await, bodies(70), "SIM_SEED={}", world.seed());
        let mut acted: Vec<u32> = pump.log().commands.iter().map(|(_, n)| n.parse().expect("a number")).collect();
        acted.sort_unstable();
        assert_eq!(acted, (0..sent).collect::<Vec<u32>>(), "SIM_SEED={}", world.seed());
    }
}

evil! {
    /// A connection that takes everything and delivers nothing is found dead, again and again for minutes,
    /// and what the broker has kept meanwhile is stored once and in order. A command that was lost on it is
    /// acted on once. Where nothing was sent on it either, it is the Keep Alive alone that notices.
    async fn minutes_behind_a_half_open_connection_lose_and_double_nothing(world: World, outside: OutsideBroker) {
        let mut pump = begun(&mut world, &outside).await;
        let mut said = 1;
        let mut sent = Vec::new();
        for cut in 1..=4 {
            say(&mut pump, said, said + 10).await;
            outside.swallow(true);
            let failures = world.failures();
            if cut % 2 == 0 {
                world.client().await.send("pump-7", "count", &cut.to_string()).await;
                sent.push(("count".to_owned(), cut.to_string()));
            }
            say(&mut pump, said + 10, said + 30).await;
            tokio::time::sleep(Duration::from_secs(300)).await;
            let failed = world.failures() - failures;
            assert!(failed >= 2, "{failed} connections were found dead, SIM_SEED={}", world.seed());
            outside.swallow(false);
            said += 30;
            // The node may wait a minute before its next attempt, and for a minute more with that.
            tokio::time::sleep(Duration::from_secs(120)).await;
            world.until_stored("pump-7", said).await;
            // The device speaks, and is where it was.
            say(&mut pump, said, said + 1).await;
            said += 1;
            let all = sent.len();
            let acted = tokio::time::timeout(Duration::from_secs(600), pump.until(|log| log.commands.len() >= all));
            assert!(acted.await.is_ok(), "command {cut}, SIM_SEED={}", world.seed());
        }
        world.until_stored("pump-7", said).await;
        assert_eq!(stored(&world).await, bodies(said), "SIM_SEED={}", world.seed());
        assert_eq!(pump.log().commands, sent, "SIM_SEED={}", world.seed());
    }
}

evil! {
    /// A command that an outside broker may have given to the device is not cancelled after the node has
    /// died either: it is carried out, once, and that is how it ends.
    async fn what_a_broker_has_is_not_cancelled_after_a_crash_of_the_node(world: World, outside: OutsideBroker) {
        let mut pump = begun(&mut world, &outside).await;
        let live = world.live().expect("a node");
        // The broker takes it, and the device is away.
        outside.network.isolate("pump-7");
        let asked = SendAsked {
            device: pump.id,
            id: Some(CommandId::new([7; 16])),
            name: "reboot".to_owned(),
            body: "now".into(),
            expires_in_ms: None,
        };
        let id = live.send(asked).await.expect("accepted").id;
        let device = pump.id;
        let state = async |world: &World| {
            world.store.command(&device, &id).await.expect("serves").expect("kept").state()
        };
        while state(&world).await != CommandState::Sent {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.bury().await;
        world.start_node().await;
        tokio::time::sleep(Duration::from_millis(world.rng.random_range(0..2000))).await;
        let cancelled = world.live().expect("a node").cancel(CancelAsked { device: pump.id, id }).await;
        let too_late = ControlError::TooLate { state: "sent".to_owned() };
        assert_eq!(cancelled, Err(too_late), "SIM_SEED={}", world.seed());
        outside.network.rejoin("pump-7");
        pump.publish("1");
        pump.until(|log| !log.commands.is_empty()).await;
        while state(&world).await != CommandState::Done {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(pump.log().commands.len(), 1, "SIM_SEED={}", world.seed());
    }
}

evil! {
    /// A broker that floods has its own devices wait, and nobody at the node's own door: what waits for
    /// records that take their time fills its part alone.
    async fn a_flood_has_nobody_at_another_door_wait(world: World, outside: OutsideBroker) {
        let pump = begun(&mut world, &outside).await;
        let mut valves = Vec::new();
        // Enough that some are in the same shard.
        for n in 0..8 {
            let mut valve = world.provision(&format!("valve-{n}")).await;
            valve.publish("0");
            valve.acknowledged(1).await;
            valves.push(valve);
        }
        world.stop_node().await;
        world.start_node().await;
        world.store.hold_reads_of(Some(pump.id));
        (0..200).for_each(|_| outside.say(MESSAGES, vec![1; 100]));
        // As many as it sends without an answer: more than may be parked.
        world.until(|_| outside.unacknowledged() >= 16).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        for valve in &mut valves {
            valve.publish("1");
            let heard = tokio::time::timeout(Duration::from_secs(60), valve.acknowledged(2)).await;
            assert!(heard.is_ok(), "its PUBACK waits for a flood elsewhere, SIM_SEED={}", world.seed());
        }
        world.store.hold_reads_of(None);
        world.until(|_| outside.unacknowledged() == 0).await;
        pump.publish("1");
        world.until_stored("pump-7", 2).await;
    }
}

evil! {
    /// A broker that does all of it at once and at random.
    async fn all_evil_at_once_forges_and_doubles_nothing(world: World, outside: OutsideBroker) {
        let mut pump = begun(&mut world, &outside).await;
        let mut rng = world.fork();
        let mut kept: Vec<(String, Bytes)> = Vec::new();
        outside.be(move |(topic, payload)| {
            kept.push((topic.clone(), payload.clone()));
            let old = kept[rng.random_range(0..kept.len())].clone();
            match rng.random_range(0..8) {
                0 => Vec::new(),
                1 => vec![(topic.clone(), payload.clone()), (topic, payload)],
                2 => vec![old, (topic, payload)],
                3 => {
                    let at = rng.random_range(0..payload.len());
                    vec![(topic, flipped(&payload, at))]
                }
                4 => vec![(topic, payload), old],
                _ => vec![(topic, payload)],
            }
        });
        say(&mut pump, 1, 120).await;
        outside.be(|said| vec![said]);
        // A session that was lost on the way is begun anew when its hour is over.
        for n in 120..124 {
            tokio::time::sleep(Duration::from_secs(3700)).await;
            say(&mut pump, n, n + 1).await;
        }
        while !stored(&world).await.iter().any(|body| body == "123") {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let all = stored(&world).await;
        let once: BTreeSet<&String> = all.iter().collect();
        assert_eq!(once.len(), all.len(), "doubled, SIM_SEED={}", world.seed());
        let said = bodies(124);
        assert!(all.iter().all(|body| said.contains(body)), "forged, SIM_SEED={}", world.seed());
    }
}
