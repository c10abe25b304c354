//! What devices are told, under crashes of the node, of the device and of both, at every step:
//! commands are carried out at most once and their fate is known, settings converge.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::{Rng as _, RngExt as _};
use unhidra_core::command::{Command, CommandState};
use unhidra_core::ids::CommandId;
use unhidra_node::control::{CancelAsked, ControlError, RowBody, SendAsked, SetAsked};
use unhidra_store::{CrashPoint, Fault, Store as _};
use unhidra_tests::device::{Log, SimDevice};
use unhidra_tests::fuse::Side;
use unhidra_tests::world::World;

use crate::scenario;

/// How long the longest command lives, and what it is given beyond.
const LIFE: Duration = Duration::from_secs(90);
const GRACE: Duration = Duration::from_secs(60);

/// What was asked for, and what has been seen of it.
#[derive(Default)]
struct Seen {
    /// The body each command has: its own.
    bodies: BTreeMap<CommandId, String>,
    /// Those that somebody was told are durable.
    accepted: BTreeSet<CommandId>,
    /// Those that somebody was told are called back.
    cancelled: BTreeSet<CommandId>,
    last: BTreeMap<CommandId, Command>,
    settings: BTreeMap<String, Option<String>>,
}

impl Seen {
    /// Looks at what is written of every command, and holds it to what was written before.
    async fn look(&mut self, world: &World, device: &SimDevice) {
        let Ok(commands) = world.store.commands(&device.id, usize::MAX).await else { return };
        for command in commands {
            let seed = world.seed();
            if let Some(before) = self.last.get(&command.id) {
                let (old, new) = (before.state(), command.state());
                assert!(!old.is_final() || before.life.stage == command.life.stage, "{before:?} {command:?} {seed}");
                let falls_back = (old, new) == (CommandState::Sent, CommandState::Accepted);
                assert!(falls_back || old as u8 <= new as u8, "{old:?} to {new:?}, SIM_SEED={seed}");
                assert!(before.life.attempts <= command.life.attempts, "SIM_SEED={seed}");
                assert!(before.life.sent_at <= command.life.sent_at, "SIM_SEED={seed}");
            }
            let ended = command.ended().map(|ended| ended.at);
            let life = &command.life;
            let first = [Some(command.created_at), life.sent_at.or(life.delivered_at), ended];
            let first: Vec<_> = first.into_iter().flatten().collect();
            assert!(first.is_sorted(), "{command:?}, SIM_SEED={seed}");
            self.last.insert(command.id, command);
        }
        let accepted = self.accepted.iter().find(|id| !self.last.contains_key(*id));
        assert_eq!(accepted, None, "accepted and not there, SIM_SEED={}", world.seed());
    }

    /// Holds the ends to what the device did.
    fn settle(&self, log: &Log, seed: u64) {
        let mut acted: Vec<&str> = log.commands.iter().map(|(_, body)| body.as_str()).collect();
        let count = acted.len();
        acted.sort_unstable();
        acted.dedup();
        assert_eq!(acted.len(), count, "carried out twice, SIM_SEED={seed}");
        for (id, command) in &self.last {
            let ended = command.ended();
            assert!(ended.is_some(), "it has no end: {command:?}, SIM_SEED={seed}");
            let did = acted.contains(&self.bodies[id].as_str());
            let promised = self.cancelled.contains(id);
            assert!(
                !promised || command.state() == CommandState::Cancelled,
                "called back: {command:?}, SIM_SEED={seed}"
            );
            match command.state() {
                CommandState::Done => assert!(did, "done and not carried out, SIM_SEED={seed}"),
                CommandState::Cancelled => assert!(!did, "cancelled and carried out: {command:?}, SIM_SEED={seed}"),
                _ if command.life.attempts == 0 => assert!(!did, "never sent and carried out, SIM_SEED={seed}"),
                _ => {}
            }
        }
    }
}

/// Asks for a command, again under its id until somebody says that it is durable.
async fn send(world: &mut World, device: &SimDevice, seen: &mut Seen, crash: Option<CrashPoint>) {
    let life_ms = world.rng.random_range(1..=u64::try_from(LIFE.as_millis()).expect("small"));
    send_for(life_ms, world, device, seen, crash).await;
}

/// The same for a command that lives so long.
async fn send_for(life_ms: u64, world: &mut World, device: &SimDevice, seen: &mut Seen, crash: Option<CrashPoint>) {
    let mut id = [0; 16];
    world.rng.fill_bytes(&mut id);
    let id = CommandId::new(id);
    let body = format!("{}", seen.bodies.len());
    seen.bodies.insert(id, body.clone());
    let asked = SendAsked {
        device: device.id,
        id: Some(id),
        name: "do".to_owned(),
        body: body.into(),
        expires_in_ms: Some(life_ms),
    };
    let mut crash = crash;
    loop {
        let live = world.live().expect("a node");
        let told = match crash.take() {
            Some(point) => {
                let asked = asked.clone();
                let asking = tokio::spawn(async move { live.send(asked).await });
                world.crash_at(point).await;
                asking.abort();
                Err(ControlError::Unavailable("crashed".to_owned()))
            }
            None => live.send(asked.clone()).await,
        };
        match told {
            Ok(command) => {
                assert_eq!(command.id, id);
                seen.accepted.insert(id);
                return;
            }
            Err(ControlError::TooMany { .. }) => {
                seen.bodies.remove(&id);
                return;
            }
            Err(ControlError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(500)).await,
            Err(error) => panic!("{error}, SIM_SEED={}", world.seed()),
        }
    }
}

async fn set(world: &mut World, device: &SimDevice, seen: &mut Seen) {
    let name = ["interval", "unit", "gain"][world.rng.random_range(0..3)].to_owned();
    let value = world.rng.random_bool(0.8).then(|| world.rng.random_range(0..1000).to_string());
    if value.is_none() && !seen.settings.contains_key(&name) {
        return;
    }
    let asked =
        SetAsked { device: device.id, name: name.parse().expect("a name"), value: value.clone().map(RowBody::Text) };
    loop {
        match world.live().expect("a node").set(asked.clone()).await {
            Ok(_) => break,
            Err(ControlError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(500)).await,
            Err(error) => panic!("{error}, SIM_SEED={}", world.seed()),
        }
    }
    seen.settings.insert(name, value);
}

/// Where a device dies.
#[derive(Clone, Copy, Debug)]
enum Step {
    Write,
    Transmit,
    Act,
}

impl Step {
    const ALL: [Self; 3] = [Self::Write, Self::Transmit, Self::Act];

    fn kills(self, device: &SimDevice, side: Side, after: u32) {
        match self {
            Self::Write => device.dies_at_write(side, after),
            Self::Transmit => device.dies_at_transmit(side, after),
            Self::Act => device.dies_at_act(side, after),
        }
    }
}

fn kill_device(world: &mut World, device: &SimDevice) {
    let step = Step::ALL[world.rng.random_range(0..3)];
    let side = if world.rng.random() { Side::Before } else { Side::After };
    step.kills(device, side, world.rng.random_range(0..4));
}

fn any_point(world: &mut World) -> CrashPoint {
    if world.rng.random() { CrashPoint::BeforeCommit } else { CrashPoint::AfterCommit }
}

/// Everything that may go wrong, at random, while somebody commands and sets.
async fn ordeal(world: &mut World, steps: usize) {
    let pump = world.provision("pump-7").await;
    let mut seen = Seen::default();
    for n in 0..steps {
        match world.rng.random_range(0..26) {
            0..8 => send(world, &pump, &mut seen, None).await,
            8 => {
                let point = any_point(world);
                send(world, &pump, &mut seen, Some(point)).await;
            }
            9 => {
                // Both at once.
                let point = any_point(world);
                kill_device(world, &pump);
                send(world, &pump, &mut seen, Some(point)).await;
            }
            10..14 => kill_device(world, &pump),
            14 => world.network.cut_all(),
            15 => world.store.fail_next_commit(Fault::Written),
            16 => world.store.fail_next_commit(Fault::NotWritten),
            17 => {
                world.bury().await;
                tokio::time::sleep(Duration::from_millis(world.rng.random_range(0..5000))).await;
                world.start_node().await;
            }
            18 => {
                world.stop_node().await;
                world.start_node().await;
            }
            19 => {
                let Some(id) = seen.accepted.iter().nth(world.rng.random_range(0..seen.accepted.len().max(1))).copied()
                else {
                    continue;
                };
                // A refusal says nothing that is not written; a cancellation is a promise.
                if world.live().expect("a node").cancel(CancelAsked { device: pump.id, id }).await.is_ok() {
                    seen.cancelled.insert(id);
                }
            }
            20..23 => set(world, &pump, &mut seen).await,
            _ => {
                pump.publish(&n.to_string());
                tokio::time::sleep(Duration::from_millis(world.rng.random_range(0..4000))).await;
            }
        }
        seen.look(world, &pump).await;
    }
    // What was set up to fail and has not is left behind with this life of the store.
    world.stop_node().await;
    world.start_node().await;
    let end = LIFE + GRACE + Duration::from_secs(60);
    for _ in 0..end.as_secs() / 10 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        seen.look(world, &pump).await;
    }
    let log = pump.log();
    seen.settle(&log, world.seed());
    let kept: BTreeMap<String, Option<String>> =
        log.settings.iter().map(|(name, (_, value))| (name.clone(), value.clone())).collect();
    let wanted: BTreeMap<_, _> =
        seen.settings.into_iter().filter(|(name, value)| value.is_some() || kept.contains_key(name)).collect();
    assert_eq!(kept, wanted, "SIM_SEED={}", world.seed());
    let settings = world.store.settings(&pump.id).await.expect("serves");
    assert!(settings.iter().all(|setting| setting.is_in_sync()), "SIM_SEED={}: {settings:?}", world.seed());
}

scenario! {
    /// Under crashes of the node, of the device, and of both, before and after every commit, write,
    /// transmission and act: no command is carried out twice, each has one end, what is written goes
    /// forward, and the device is set to what was wanted last.
    async fn whatever_fails_no_command_is_carried_out_twice_and_each_has_one_end(world: World) {
        ordeal(&mut world, 60).await;
    }
}

/// One command, with one power cut or crash at one place; how it ended.
async fn one_command(
    world: &mut World,
    death: Option<(Step, Side, u32)>,
    crash: Option<CrashPoint>,
) -> (CommandState, usize) {
    let mut pump = world.provision("pump-7").await;
    pump.publish("here");
    pump.acknowledged(1).await;
    let mut seen = Seen::default();
    if let Some((step, side, after)) = death {
        step.kills(&pump, side, after);
    }
    send(world, &pump, &mut seen, crash).await;
    tokio::time::sleep(LIFE + GRACE + Duration::from_secs(10)).await;
    seen.look(world, &pump).await;
    let log = pump.log();
    seen.settle(&log, world.seed());
    let command = seen.last.values().next().expect("one").clone();
    (command.state(), log.commands.len())
}

scenario! {
    /// The device dies before or after each step that a command takes: it is carried out at most
    /// once, and where it was not it is not said to be done.
    async fn the_device_dies_at_each_step_of_a_command(world: World) {
        for step in Step::ALL {
            for side in [Side::Before, Side::After] {
                for after in 0..5 {
                    let mut world = World::new(world.seed() * 100 + u64::from(after)).await;
                    let (state, acted) = one_command(&mut world, Some((step, side, after)), None).await;
                    let known = state != CommandState::Done || acted == 1;
                    assert!(acted <= 1 && known, "{side:?} {step:?} {after}: {state:?}");
                }
            }
        }
    }
}

scenario! {
    /// The node dies before or after the commit of a command: asked for again under its id it is one
    /// command, and done.
    async fn the_node_dies_at_the_commit_of_a_command(world: World) {
        for point in [CrashPoint::BeforeCommit, CrashPoint::AfterCommit] {
            let mut world = World::new(world.seed()).await;
            let (state, acted) = one_command(&mut world, None, Some(point)).await;
            assert_eq!(acted, usize::from(state == CommandState::Done), "{point:?}, SIM_SEED={}", world.seed());
        }
    }
}

scenario! {
    /// Commands are carried out one after another, in the order they were accepted.
    async fn commands_are_carried_out_in_order(world: World) {
        let mut pump = world.provision("pump-7").await;
        pump.publish("here");
        pump.acknowledged(1).await;
        let mut client = world.client().await;
        client.subscribe(None).await;
        let mut commands = Vec::new();
        for n in 0..20 {
            commands.push(client.send("pump-7", "count", &n.to_string()).await);
        }
        for command in &commands {
            client.settled(command).await;
        }
        let bodies: Vec<_> = pump.log().commands.into_iter().map(|(_, body)| body).collect();
        assert_eq!(bodies, crate::bodies(20), "SIM_SEED={}", world.seed());
    }
}

scenario! {
    /// A device that never comes back leaves no command without an end, over a restart of the node.
    async fn a_command_of_a_device_that_stays_away_ends(world: World) {
        let pump = world.provision("pump-7").await;
        world.network.isolate("pump-7");
        let mut seen = Seen::default();
        for _ in 0..3 {
            send(&mut world, &pump, &mut seen, None).await;
        }
        world.stop_node().await;
        world.start_node().await;
        tokio::time::sleep(LIFE + GRACE + Duration::from_secs(120)).await;
        seen.look(&world, &pump).await;
        assert!(seen.last.len() == 3 && seen.last.values().all(|c| c.state() == CommandState::Expired));
        seen.settle(&pump.log(), world.seed());
    }
}

scenario! {
    /// The commands of a device that is revoked end.
    async fn a_command_of_a_revoked_device_ends(world: World) {
        let pump = world.provision("pump-7").await;
        world.network.isolate("pump-7");
        let mut seen = Seen::default();
        // One that lives for milliseconds may be over before.
        send_for(60_000, &mut world, &pump, &mut seen, None).await;
        world.revoke(&pump).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        seen.look(&world, &pump).await;
        let failed = |command: &Command| command.state() == CommandState::Failed;
        assert!(seen.last.values().all(failed), "{:?}, SIM_SEED={}", seen.last, world.seed());
    }
}

scenario! {
    /// A setting reaches a device that comes back, and one that began a new session is told all.
    async fn settings_reach_a_device_that_comes_back(world: World) {
        let mut pump = world.provision("pump-7").await;
        world.network.isolate("pump-7");
        let asked = |value: Option<&str>| SetAsked {
            device: "pump-7".parse().expect("valid"),
            name: "interval".parse().expect("a name"),
            value: value.map(|text| RowBody::Text(text.to_owned())),
        };
        let live = world.live().expect("a node");
        for value in ["5", "6"] {
            assert!(live.set(asked(Some(value))).await.is_ok_and(|setting| !setting.is_in_sync()));
        }
        world.network.rejoin("pump-7");
        pump.publish("here");
        let kept = |log: &Log| log.settings.get("interval").map(|(_, value)| value.clone());
        let log = pump.until(|log| kept(log).is_some()).await;
        assert_eq!(kept(&log), Some(Some("6".to_owned())), "the last value alone, SIM_SEED={}", world.seed());
        assert!(live.set(asked(None)).await.is_ok());
        pump.until(|log| kept(log) == Some(None)).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let settings = world.store.settings(&pump.id).await.expect("serves");
        assert!(settings.iter().all(|setting| setting.is_in_sync()));
    }
}
