//! Both sides, the network between them, the clock, and what a script does to them.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU8;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use unhidra_core::ids::DeviceId;
use unhidra_e2ee::identity::IdentitySecret;
use unhidra_e2ee::session::Session;

use crate::device::{Calendar, Device, Halt};
use crate::flash::{Cut, Flash};
use crate::forger::{self, Known};
use crate::ledger::Ledger;
use crate::node::{Fault, Node, Out, Went};
use crate::op::{COUNTED, Forgery, Op};
use crate::rule::Rule;
use crate::said::Said;
use crate::script::Setup;
use crate::store::{Store, Write};
use crate::wire::{DownPacket, DownRow, UpPacket, Wire};

/// When a world begins, in ms.
const NOON: u64 = 1_900_000_000_000;
const SECOND: u64 = 1000;
pub(crate) const MINUTE: u64 = 60 * SECOND;
/// More than this many packets in one flow are a storm.
const FLOW_MAX: usize = 20_000;

/// What never may be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Broken(pub(crate) String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How often what happened.
#[derive(Default)]
pub(crate) struct Tally(BTreeMap<&'static str, u32>);

impl Tally {
    pub(crate) fn add(&mut self, what: &'static str, count: usize) {
        assert!(COUNTED.contains(&what), "{what} is not counted");
        *self.0.entry(what).or_default() += u32::try_from(count).expect("a small number");
    }

    /// Everything that was counted.
    pub(crate) fn all(&self) -> &BTreeMap<&'static str, u32> {
        &self.0
    }

    pub(crate) fn of(&self, what: &str) -> u32 {
        self.0.get(what).copied().unwrap_or_default()
    }
}

/// What both sides are given.
pub(crate) struct Env {
    pub(crate) now: u64,
    pub(crate) rng: StdRng,
    pub(crate) ledger: Ledger,
    pub(crate) tally: Tally,
    without: Option<Rule>,
    tickets: u64,
}

impl Env {
    pub(crate) fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    pub(crate) fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }
}

pub(crate) struct World {
    pub(crate) env: Env,
    pub(crate) device: Device,
    pub(crate) node: Node,
    pub(crate) wire: Wire,
    pub(crate) setup: Setup,
    flashes: Vec<Flash>,
    backups: Vec<Store>,
}

impl World {
    /// Both enrolled, connected, and nothing said.
    pub(crate) fn new(seed: u64, setup: Setup, without: Option<Rule>) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let id = DeviceId::parse("pump-7").expect("an id");
        let (device, node) = (IdentitySecret::generate(&mut rng), IdentitySecret::generate(&mut rng));
        let mut store = Store::new(*device.public().as_bytes(), NOON, &mut rng);
        store.peer.last_counter = setup.counter;
        let lease = NonZeroU8::new(setup.lease).unwrap_or(NonZeroU8::MIN);
        let calendar = if setup.clock { Calendar::Clock(0) } else { Calendar::Node };
        let device = Device::new(id, device, node.public(), setup.suite, lease, calendar, NOON);
        Self {
            env: Env { now: NOON, rng, ledger: Ledger::default(), tally: Tally::default(), without, tickets: 0 },
            device,
            node: Node::new(id, node, setup.suite, store),
            wire: Wire { connected: true, ..Wire::default() },
            setup,
            flashes: vec![Flash::default()],
            backups: Vec::new(),
        }
    }

    /// Does one step, and what follows from it.
    pub(crate) fn apply(&mut self, op: Op) -> Result<(), Broken> {
        if let Op::Expect(..) | Op::AtMost(..) = op {
            return self.expects(op);
        }
        self.env.now += SECOND;
        match op {
            Op::Expect(..) | Op::AtMost(..) => {}
            Op::Read(count) => self.reads(count)?,
            Op::Lost(count) => self.says_in_vain(count)?,
            Op::Tell(count) => self.tells(count)?,
            Op::Ask if self.wire.connected => {
                let question = self.device.question(&mut self.env);
                self.wire.send_up(vec![question]);
            }
            Op::Ask => {}
            Op::Reboot => self.power_cut()?,
            Op::CutAt(writes, records) => self.device.cut = Some(Cut { writes, records }),
            Op::Boots(count) => (0..count).try_for_each(|_| self.power_cut())?,
            Op::Burn(count) => self.burns(count)?,
            Op::KeepFlash => self.flashes.push(self.device.flash.clone()),
            Op::RollBack(copy) => {
                self.device.flash = self.flashes[usize::from(copy) % self.flashes.len()].clone();
                self.env.ledger.rolled_back();
                self.power_cut()?;
            }
            Op::Clock(minutes) => self.clock_jumps(minutes),
            Op::Enrol => self.enrols()?,
            Op::Disconnect => self.disconnect(),
            Op::Connect => self.connect()?,
            Op::Up(nth) => {
                if let Some(at) = pick(nth.into(), self.wire.up.len()) {
                    let packet = self.wire.up.remove(at);
                    self.arrives_up(&packet)?;
                }
            }
            Op::UpAgain(nth) => {
                if let Some(at) = pick(nth.into(), self.wire.up.len()) {
                    let packet = self.wire.up[at].clone();
                    self.arrives_up(&packet)?;
                }
            }
            Op::LoseUp(nth) => {
                if let Some(at) = pick(nth.into(), self.wire.up.len()) {
                    self.wire.up.remove(at);
                }
            }
            Op::Down(nth) => {
                if let Some(at) = pick(nth.into(), self.wire.down.len()) {
                    let packet = self.wire.down.remove(at);
                    self.arrives_down(&packet)?;
                }
            }
            Op::DownAgain(nth) => {
                if let Some(at) = pick(nth.into(), self.wire.down.len()) {
                    let packet = self.wire.down[at].clone();
                    self.arrives_down(&packet)?;
                }
            }
            Op::LoseDown(nth) => {
                if let Some(at) = pick(nth.into(), self.wire.down.len()) {
                    self.wire.down.remove(at);
                }
            }
            Op::GiveUp => self.device.give_up(self.env.now),
            Op::LoseAcks(count) => self.wire.acks_lost = count,
            Op::Flow => self.flow()?,
            Op::FlipUp(nth, bit) => {
                if let Some(at) = pick(nth.into(), self.wire.up.len()) {
                    let mut packet = UpPacket { publication: None, ..self.wire.up[at].clone() };
                    flip(&mut packet.bytes, bit);
                    self.arrives_up(&packet)?;
                }
            }
            Op::FlipDown(nth, bit) => {
                if let Some(at) = pick(nth.into(), self.wire.down.len()) {
                    let mut packet = DownPacket { ticket: None, ..self.wire.down[at].clone() };
                    flip(&mut packet.bytes, bit);
                    self.arrives_down(&packet)?;
                }
            }
            Op::ReplayUp(nth) => {
                if let Some(packet) = nth_last(&self.wire.seen_up, nth.into()) {
                    self.arrives_up(&UpPacket { publication: None, ..packet })?;
                }
            }
            Op::ReplayDown(nth) => {
                if let Some(packet) = nth_last(&self.wire.seen_down, nth.into()) {
                    self.arrives_down(&DownPacket { ticket: None, ..packet })?;
                }
            }
            Op::ReplayInit(nth) => {
                let is_init = |packet: &&UpPacket| packet.bytes.first() == Some(&2);
                let inits: Vec<UpPacket> = self.wire.seen_up.iter().filter(is_init).cloned().collect();
                if let Some(packet) = nth_last(&inits, nth.into()) {
                    self.arrives_up(&UpPacket { publication: None, ..packet })?;
                }
            }
            Op::ReflectUp(nth) => {
                if let Some(packet) = nth_last(&self.wire.seen_down, nth.into()) {
                    self.arrives_up(&UpPacket::new(None, false, &packet.bytes))?;
                }
            }
            Op::ReflectDown(nth) => {
                if let Some(UpPacket { bytes, .. }) = nth_last(&self.wire.seen_up, nth.into()) {
                    self.arrives_down(&DownPacket { ticket: None, row: DownRow::Commands, bytes })?;
                }
            }
            Op::Command(minutes) => self.commands(minutes.into())?,
            Op::Say(count) => self.node_says_in_vain(count)?,
            Op::Restart => self.node_restarts(),
            Op::NodeCutAt(commits, done) => self.node.fault = Some(Fault { commits, done: done > 0, ends: true }),
            Op::NodeFailAt(commits, done) => self.node.fault = Some(Fault { commits, done: done > 0, ends: false }),
            Op::Busy(drafts) => self.node.busy = drafts,
            Op::Backup => self.backups.push(self.node.store.clone()),
            Op::Restore(copy) => self.restores(copy),
            Op::Wait(minutes) => self.waits(minutes, false)?,
            Op::Live(minutes) => self.waits(minutes, true)?,
            Op::WaitSeconds(seconds) => self.env.now += u64::from(seconds) * SECOND,
            Op::ForgeUp(what) => {
                if let Some(bytes) = forger::up(&self.wire, what, &self.known(), &mut self.env.rng) {
                    self.arrives_up(&UpPacket::new(None, false, &bytes))?;
                }
            }
            Op::ForgeDown(what) => self.forges_down(what)?,
        }
        self.settle()
    }

    fn expects(&self, op: Op) -> Result<(), Broken> {
        match op {
            Op::Expect(what, count) if self.env.tally.of(what) != count => {
                Err(Broken(format!("{} {what}, expected {count}", self.env.tally.of(what))))
            }
            Op::AtMost(what, count) if self.env.tally.of(what) > count => {
                Err(Broken(format!("{} {what}, expected at most {count}", self.env.tally.of(what))))
            }
            _ => Ok(()),
        }
    }

    /// The device takes readings; it says how many it has room for.
    pub(crate) fn reads(&mut self, count: u8) -> Result<(), Broken> {
        for _ in 0..count {
            let said = Said::Reading(self.env.ticket());
            if self.wire.connected || self.env.keeps(Rule::SealConnected) {
                self.device.say(said);
            } else {
                let sealed = self.device.seal(said, &mut self.env);
                self.halts(sealed.map(drop))?;
            }
        }
        Ok(())
    }

    fn says_in_vain(&mut self, count: u16) -> Result<(), Broken> {
        for _ in 0..count {
            if !self.wire.connected && self.env.keeps(Rule::SealConnected) {
                return Ok(());
            }
            match self.device.say_in_vain(&mut self.env) {
                Ok(Some(bytes)) => self.wire.seen_up.push(UpPacket::new(None, false, &bytes)),
                Ok(None) => return Ok(()),
                Err(halt) => return self.halts(Err(halt)),
            }
        }
        Ok(())
    }

    fn tells(&mut self, count: u8) -> Result<(), Broken> {
        for _ in 0..count {
            let before = self.wire.seen_up.len();
            self.says_in_vain(1)?;
            if let Some(packet) = self.wire.seen_up.get(before).cloned() {
                self.arrives_up(&packet)?;
            }
        }
        Ok(())
    }

    fn burns(&mut self, count: u8) -> Result<(), Broken> {
        for _ in 0..count {
            let leased = self.device.take_lease(&mut self.env);
            self.halts(leased.map(drop))?;
            self.power_cut()?;
        }
        Ok(())
    }

    fn node_says_in_vain(&mut self, count: u8) -> Result<(), Broken> {
        for _ in 0..count {
            self.node.say(&mut self.env);
            let mut out = Vec::new();
            if self.node.commit(&mut self.env, &mut out)? == Went::Down {
                self.disconnect();
            }
            for out in out {
                match out {
                    Out::Packet(packet) => self.wire.seen_down.push(packet),
                    Out::Answer(publication, accepted) => self.answered(publication, accepted)?,
                }
            }
        }
        Ok(())
    }

    fn clock_jumps(&mut self, minutes: i16) {
        if let Calendar::Clock(off) = &mut self.device.calendar {
            *off += i64::from(minutes) * MINUTE.cast_signed();
            self.env.ledger.clock_jumped(self.env.now);
        }
    }

    fn enrols(&mut self) -> Result<(), Broken> {
        let identity = IdentitySecret::generate(&mut self.env.rng);
        let public = *identity.public().as_bytes();
        self.disconnect();
        self.env.ledger.enrolled();
        self.device.enrolled(identity, self.env.now);
        (self.flashes, self.backups) = (vec![Flash::default()], Vec::new());
        self.node.enrolls(public, &mut self.env)
    }

    fn restores(&mut self, copy: u8) {
        let Some(at) = pick(copy.into(), self.backups.len()) else { return };
        self.disconnect();
        self.node.store = self.backups[at].clone();
        self.node.store.restore(self.env.keeps(Rule::RestoreNewPrekeys), self.env.now, &mut self.env.rng);
        self.env.ledger.restored();
        self.node.restarts(&self.env);
    }

    pub(crate) fn node_restarts(&mut self) {
        self.disconnect();
        self.node.restarts(&self.env);
    }

    /// The node is given a command, and says its id.
    pub(crate) fn commands(&mut self, minutes: u64) -> Result<(), Broken> {
        let id = self.env.ticket();
        let writes = self.node.command(id, self.env.now + minutes * MINUTE);
        self.node.poll(self.wire.connected, writes, &mut self.env)
    }

    fn waits(&mut self, minutes: u16, flows: bool) -> Result<(), Broken> {
        let step = if minutes > 240 { 10 } else { 1 };
        let until = self.env.now + u64::from(minutes) * MINUTE;
        while self.env.now < until {
            self.env.now = (self.env.now + step * MINUTE).min(until);
            self.settle()?;
            if flows {
                self.connect()?;
                self.flow()?;
            }
        }
        Ok(())
    }

    fn known(&self) -> Known {
        Known {
            device_key: self.device.sessions().present().map(Session::ratchet_key).copied(),
            node_key: self.node.sessions().present().map(Session::ratchet_key).copied(),
            nonce: self.device.nonce(),
        }
    }

    fn forges_down(&mut self, what: Forgery) -> Result<(), Broken> {
        let Some((is_bundle, bytes)) = forger::down(&self.wire, what, &self.known(), &mut self.env.rng) else {
            return Ok(());
        };
        let row = if is_bundle { DownRow::Prekeys } else { DownRow::Commands };
        self.arrives_down(&DownPacket { ticket: None, row, bytes })
    }

    /// The connection ends for both.
    pub(crate) fn disconnect(&mut self) {
        self.wire.disconnect();
        self.node.relinked();
    }

    pub(crate) fn connect(&mut self) -> Result<(), Broken> {
        if self.wire.connected {
            return Ok(());
        }
        self.wire.connected = true;
        self.node.relinked();
        let again = self.device.connected(&mut self.env);
        self.wire.send_up(again);
        self.settle()
    }

    pub(crate) fn power_cut(&mut self) -> Result<(), Broken> {
        self.disconnect();
        self.device.cut = None;
        match self.device.boots(&mut self.env) {
            Ok(()) | Err(Halt::PowerCut) => Ok(()),
            Err(Halt::Broken(broken)) => Err(broken),
        }
    }

    fn halts(&mut self, halted: Result<(), Halt>) -> Result<(), Broken> {
        match halted {
            Ok(()) => Ok(()),
            Err(Halt::PowerCut) => self.power_cut(),
            Err(Halt::Broken(broken)) => Err(broken),
        }
    }

    fn arrives_up(&mut self, packet: &UpPacket) -> Result<(), Broken> {
        self.node.take(packet, self.wire.connected, &mut self.env)?;
        self.settle()
    }

    fn arrives_down(&mut self, packet: &DownPacket) -> Result<(), Broken> {
        match self.device.take(packet.row, &packet.bytes, &mut self.env) {
            Ok(accepted) => {
                let mut writes: Vec<Write> = Vec::new();
                if let Some(ticket) = packet.ticket {
                    self.node.published(ticket, accepted, &mut writes);
                }
                self.node.poll(self.wire.connected, writes, &mut self.env)?;
            }
            Err(halt) => self.halts(Err(halt))?,
        }
        self.settle()
    }

    fn answered(&mut self, publication: u64, accepted: bool) -> Result<(), Broken> {
        if self.wire.acks_lost > 0 {
            self.wire.acks_lost -= 1;
            return Ok(());
        }
        match self.wire.connected {
            true => self.device.acknowledged(publication, accepted, &mut self.env),
            false => Ok(()),
        }
    }

    /// Both sides do what is due, until neither has anything to do.
    pub(crate) fn settle(&mut self) -> Result<(), Broken> {
        self.node.rotate(&mut self.env);
        for _ in 0..FLOW_MAX {
            if self.wire.connected {
                match self.device.poll(&mut self.env) {
                    Ok(packets) => self.wire.send_up(packets),
                    Err(halt) => self.halts(Err(halt))?,
                }
            }
            self.node.poll(self.wire.connected, Vec::new(), &mut self.env)?;
            let mut out = Vec::new();
            let went = self.node.commit(&mut self.env, &mut out)?;
            let answers = out.iter().any(|out| matches!(out, Out::Answer(..)));
            for out in out {
                match out {
                    Out::Packet(packet) => {
                        self.env.tally.add("down", 1);
                        self.wire.send_down(packet);
                    }
                    Out::Answer(publication, accepted) => self.answered(publication, accepted)?,
                }
            }
            if went == Went::Down {
                self.disconnect();
            }
            if !answers {
                return Ok(());
            }
        }
        Err(Broken("the two never settle".into()))
    }

    /// Everything on its way arrives, in order, and what that brings about too.
    pub(crate) fn flow(&mut self) -> Result<(), Broken> {
        for _ in 0..FLOW_MAX {
            if !self.wire.up.is_empty() {
                let packet = self.wire.up.remove(0);
                self.arrives_up(&packet)?;
            } else if !self.wire.down.is_empty() {
                let packet = self.wire.down.remove(0);
                self.arrives_down(&packet)?;
            } else {
                return Ok(());
            }
        }
        Err(Broken(format!("more than {FLOW_MAX} packets and no end")))
    }

    pub(crate) fn packets(&self) -> usize {
        self.wire.seen_up.len() + self.wire.seen_down.len()
    }
}

fn pick(nth: usize, len: usize) -> Option<usize> {
    nth.checked_rem(len)
}

fn nth_last<T: Clone>(seen: &[T], nth: usize) -> Option<T> {
    let back = pick(nth, seen.len())?;
    seen.get(seen.len() - 1 - back).cloned()
}

fn flip(bytes: &mut [u8], bit: u16) {
    if let Some(at) = pick(bit.into(), bytes.len() * 8) {
        bytes[at / 8] ^= 1 << (at % 8);
    }
}
