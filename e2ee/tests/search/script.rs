//! A script: how the two are set up, and what is done to them. It is text, and runs again from it.

use std::fmt;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use unhidra_e2ee::suite::{Suite, built, is_built};

use crate::op::{Forgery, Op};
use crate::rule::Rule;
use crate::world::{Broken, World};

/// How the device is made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Setup {
    /// Message numbers of a lease.
    pub(crate) lease: u8,
    /// Whether it has a clock that runs through power cuts.
    pub(crate) clock: bool,
    /// Whether it takes no readings of its own at the end, and waits for commands alone.
    pub(crate) listens: bool,
    /// With which key agreement it was enrolled.
    pub(crate) suite: Suite,
    /// The last handshake counter of its identity key.
    pub(crate) counter: u32,
}

impl Default for Setup {
    fn default() -> Self {
        Self { lease: 32, clock: true, listens: false, suite: Suite::X3dh, counter: 0 }
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Script {
    /// Of every random draw of both sides and the adversary.
    pub(crate) seed: u64,
    pub(crate) setup: Setup,
    pub(crate) ops: Vec<Op>,
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setup { lease, clock, listens, suite, counter } = self.setup;
        let (clock, listens, suite) = (u8::from(clock), u8::from(listens), suite.as_byte());
        write!(f, "seed {} lease {lease} clock {clock} listens {listens} suite {suite}", self.seed)?;
        write!(f, " counter {counter}")?;
        self.ops.iter().try_for_each(|op| write!(f, "; {op}"))
    }
}

impl Script {
    /// Reads a script: steps with `;` between them, and how the two are set up before the first
    /// where that matters.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut script = Self { seed: 1, setup: Setup::default(), ops: Vec::new() };
        for step in text.split([';', '\n']).map(str::trim).filter(|step| !step.is_empty()) {
            match Op::parse(step) {
                Some(op) => script.ops.push(op),
                None => script.set_up(step).ok_or_else(|| format!("no step: {step}"))?,
            }
        }
        Ok(script)
    }

    fn set_up(&mut self, text: &str) -> Option<()> {
        let mut words = text.split_whitespace();
        while let Some(word) = words.next() {
            let value = words.next()?;
            match word {
                "seed" => self.seed = value.parse().ok()?,
                "lease" => self.setup.lease = value.parse().ok()?,
                "suite" => self.setup.suite = built(value.parse().ok()?).ok()?,
                "counter" => self.setup.counter = value.parse().ok()?,
                "clock" => self.setup.clock = value == "1",
                "listens" => self.setup.listens = value == "1",
                _ => return None,
            }
        }
        Some(())
    }

    /// Runs it and its quiet end. How many minutes the two took to find back.
    ///
    /// # Errors
    ///
    /// What never may be has been, or they did not find back, or something panicked.
    pub(crate) fn run(&self, without: Option<Rule>) -> Result<u64, Broken> {
        let run = std::panic::AssertUnwindSafe(|| self.run_or_panic(without));
        let panicked = |cause: Box<dyn std::any::Any + Send>| {
            let text = cause.downcast_ref::<String>().cloned();
            Broken(format!("panic: {}", text.unwrap_or_default()))
        };
        std::panic::catch_unwind(run).map_err(panicked)?
    }

    fn run_or_panic(&self, without: Option<Rule>) -> Result<u64, Broken> {
        let mut world = World::new(self.seed, self.setup, without);
        world.settle()?;
        for (at, op) in self.ops.iter().enumerate() {
            world.apply(*op).map_err(|broken| Broken(format!("step {at}, {op}: {broken}")))?;
        }
        world.ends_quiet().map_err(|broken| Broken(format!("quiet: {broken}")))
    }

    /// Runs it, and prints what was counted after each step.
    pub(crate) fn play(&self) -> Result<u64, Broken> {
        let mut world = World::new(self.seed, self.setup, None);
        world.settle()?;
        for op in &self.ops {
            let done = world.apply(*op);
            println!("{op}: {:?}", world.env.tally.all());
            done?;
        }
        let minutes = world.ends_quiet();
        println!("quiet: {:?}", world.env.tally.all());
        minutes
    }

    /// A random script. Of all that can happen each script takes some: what hides among many
    /// kinds of events shows among few.
    pub(crate) fn random(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let lease = [1, 4, 32, 32, 255][rng.random_range(0..5)];
        let suite = if rng.random_bool(0.3) && is_built(Suite::Pqxdh) { Suite::Pqxdh } else { Suite::X3dh };
        let setup = Setup { lease, clock: rng.random_bool(0.6), listens: rng.random_bool(0.2), suite, counter: 0 };
        let chosen: Vec<usize> = (0..KINDS.len()).filter(|_| rng.random_bool(0.6)).collect();
        let total: u32 = chosen.iter().map(|kind| KINDS[*kind].0).sum();
        let mut ops = Vec::new();
        if rng.random_bool(0.8) {
            ops.push(Op::Flow);
        }
        let len = rng.random_range(3..60);
        while ops.len() < len && total > 0 {
            let mut at = rng.random_range(0..total);
            for kind in &chosen {
                let (weight, make) = KINDS[*kind];
                if at < weight {
                    ops.push(make(&mut rng));
                    break;
                }
                at -= weight;
            }
        }
        Self { seed, setup, ops }
    }

    /// The shortest script found that still fails, and why it does.
    pub(crate) fn shrunk(self, without: Option<Rule>, mut why: Broken) -> (Self, Broken) {
        let mut script = self;
        let mut chunk = script.ops.len().div_ceil(2);
        while chunk > 0 {
            let mut at = 0;
            while at < script.ops.len() {
                let mut shorter = script.clone();
                shorter.ops.drain(at..(at + chunk).min(script.ops.len()));
                match shorter.run(without) {
                    Err(broken) => (script, why) = (shorter, broken),
                    Ok(_) => at += chunk,
                }
            }
            chunk /= 2;
        }
        (script, why)
    }
}

type Make = fn(&mut StdRng) -> Op;

/// Everything that can happen, with its weight.
const KINDS: &[(u32, Make)] = &[
    (10, |rng| Op::Read(rng.random_range(1..4))),
    (1, |rng| Op::Read(rng.random_range(20..60))),
    (1, |rng| Op::Lost(rng.random_range(1..40))),
    (1, |rng| Op::Lost(rng.random_range(100..2500))),
    (1, |rng| Op::Tell(rng.random_range(1..50))),
    (2, |_| Op::Ask),
    (4, |_| Op::Reboot),
    (4, |rng| Op::CutAt(rng.random_range(0..3), rng.random_range(0..4))),
    (1, |rng| Op::Boots(rng.random_range(1..6))),
    (1, |rng| Op::Burn(rng.random_range(1..20))),
    (2, |_| Op::KeepFlash),
    (2, |rng| Op::RollBack(rng.random())),
    (1, |rng| Op::Clock(rng.random_range(-3000..3000))),
    (1, |_| Op::Enrol),
    (4, |_| Op::Disconnect),
    (10, |_| Op::Connect),
    (14, |rng| Op::Up(rng.random_range(0..4))),
    (2, |rng| Op::UpAgain(rng.random_range(0..4))),
    (3, |rng| Op::LoseUp(rng.random_range(0..4))),
    (14, |rng| Op::Down(rng.random_range(0..4))),
    (2, |rng| Op::DownAgain(rng.random_range(0..4))),
    (3, |rng| Op::LoseDown(rng.random_range(0..4))),
    (2, |rng| Op::LoseAcks(rng.random_range(1..6))),
    (1, |_| Op::GiveUp),
    (10, |_| Op::Flow),
    (2, |rng| Op::FlipUp(rng.random_range(0..4), rng.random())),
    (2, |rng| Op::FlipDown(rng.random_range(0..4), rng.random())),
    (3, |rng| Op::ReplayUp(rng.random_range(0..60))),
    (3, |rng| Op::ReplayDown(rng.random_range(0..60))),
    (2, |rng| Op::ReplayInit(rng.random())),
    (1, |rng| Op::ReflectUp(rng.random())),
    (1, |rng| Op::ReflectDown(rng.random())),
    (5, |rng| Op::Command(rng.random_range(1..180))),
    (1, |rng| Op::Say(rng.random_range(1..70))),
    (4, |_| Op::Restart),
    (3, |rng| Op::NodeCutAt(rng.random_range(0..4), rng.random_range(0..2))),
    (3, |rng| Op::NodeFailAt(rng.random_range(0..4), rng.random_range(0..2))),
    (1, |rng| Op::Busy(rng.random_range(0..5))),
    (2, |_| Op::Backup),
    (2, |rng| Op::Restore(rng.random())),
    (5, |rng| Op::Wait(rng.random_range(1..20))),
    (3, |rng| Op::Wait(rng.random_range(30..200))),
    (1, |rng| Op::Wait(rng.random_range(1000..30_000))),
    (2, |rng| Op::Live(rng.random_range(1..150))),
    (3, |rng| Op::WaitSeconds(rng.random_range(1..60))),
    (6, |rng| Op::ForgeUp(forgery(rng))),
    (6, |rng| Op::ForgeDown(forgery(rng))),
];

fn forgery(rng: &mut StdRng) -> Forgery {
    match rng.random_range(0..15) {
        0 => Forgery::UnknownKey,
        1 => Forgery::SeenNumber,
        2 => Forgery::Ahead(rng.random_range(1..200)),
        3 => Forgery::Ahead(rng.random()),
        4 => Forgery::UnknownKeyAhead,
        5 => Forgery::SmallOrder,
        6 => Forgery::OwnKey,
        7 => Forgery::OtherPn,
        8 => Forgery::Init(rng.random_range(0..3)),
        9 => Forgery::InitLast,
        10 => Forgery::InitPrekey,
        11 => Forgery::InitKey,
        12 => Forgery::Reset,
        13 => Forgery::Bundle,
        14 => Forgery::HighBit,
        _ => Forgery::Noise,
    }
}

/// A script that fails where its rule is taken out.
pub(crate) struct Directed {
    pub(crate) name: String,
    pub(crate) script: Script,
}

/// The directed scripts, of `scripts.txt`.
pub(crate) fn directed() -> Vec<Directed> {
    let text = include_str!("scripts.txt");
    let blocks = text.split("\n== ").skip(1);
    let read = |block: &str| -> Directed {
        let mut lines = block.lines();
        let (name, _rule) = (lines.next().unwrap_or_default(), lines.next());
        let steps: String = lines.take_while(|line| !line.starts_with('#')).collect();
        let script = Script::parse(&steps).unwrap_or_else(|error| panic!("{name}: {error}"));
        Directed { name: name.to_owned(), script }
    };
    blocks.map(read).collect()
}
