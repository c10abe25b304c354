//! What happens between the two, drawn from a seed, and what must come of it.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use unhidra_core::time::UnixTime;
use unhidra_e2ee::error::{OpenError, SealError};
use unhidra_e2ee::role::{DeviceRole, Role, StockRole};

use crate::peer::{Heard, Peer};
use crate::sides::{self, NOON, Node, Ours, Side, message};

/// Who plays.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pairing {
    /// A stock side of ours begins.
    StockBegins,
    /// A stock side of ours answers.
    StockAnswers,
    /// Our device: it begins, and owes its DH steps for a while.
    Device,
    /// The same, and its power fails now and then: gaps, and steps due at boot.
    DeviceReboots,
    /// Our node.
    Node,
}

pub(crate) const PAIRINGS: [Pairing; 5] =
    [Pairing::StockBegins, Pairing::StockAnswers, Pairing::Device, Pairing::DeviceReboots, Pairing::Node];

/// How many skipped keys the oracle keeps, and how far it jumps.
const ORACLE_KEEPS: usize = 64;
/// More than these are not on their way at once, so that no side has to jump beyond its bound.
const FLYING_MAX: usize = 12;

/// One direction of the network.
#[derive(Default)]
struct Way {
    flying: Vec<Flying>,
    opened: Vec<Flying>,
    /// Messages sealed, opened, opened before an earlier one, lost.
    sealed: usize,
    late: usize,
    lost: usize,
    /// Numbers that were leased and lost with the memory.
    gaps: usize,
    /// Refused: repeats, damaged ones, those whose key had to go.
    repeats: usize,
    damaged: usize,
    gone: usize,
    newest: usize,
    keys: BTreeSet<Vec<u8>>,
}

#[derive(Clone)]
struct Flying {
    at: usize,
    text: Vec<u8>,
    sealed: Vec<u8>,
}

impl Way {
    fn send(&mut self, text: Vec<u8>, sealed: Vec<u8>) {
        self.keys.insert(sealed[1..33].to_vec());
        self.flying.push(Flying { at: self.sealed, text, sealed });
        self.sealed += 1;
    }

    fn arrived(&mut self, message: Flying) {
        self.late += usize::from(message.at < self.newest);
        self.newest = self.newest.max(message.at);
        self.opened.push(message);
    }

    /// Whether a receiver that keeps `max` keys may have had to let one go.
    fn may_be_gone(&self, max: usize) -> bool {
        self.flying.len() + self.lost + self.gone + self.gaps >= max
    }
}

/// What a schedule came to.
pub(crate) struct Played {
    ours: Way,
    theirs: Way,
    owed: usize,
    reboots: usize,
}

impl fmt::Display for Played {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, way) in [("ours", &self.ours), ("theirs", &self.theirs)] {
            write!(
                f,
                "{name} {} sealed, {} opened ({} late), {} lost, {} gone; refused {} repeats, {} damaged; {} keys; ",
                way.sealed,
                way.opened.len(),
                way.late,
                way.lost,
                way.gone,
                way.repeats,
                way.damaged,
                way.keys.len()
            )?;
        }
        write!(f, "{} sealed while a step was owed; {} reboots", self.owed, self.reboots)
    }
}

/// Plays a schedule of `events` events.
///
/// # Errors
///
/// Where the first difference is, and which.
pub(crate) fn play(pairing: Pairing, seed: u64, events: u64, command: &[String]) -> Result<Played, String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut peer = Peer::start(command)?;
    match pairing {
        Pairing::StockBegins => {
            let ours = sides::stock_begins(&mut peer, &mut rng)?;
            Schedule::<StockRole>::new(ours, peer, rng, 0).play(events)
        }
        Pairing::StockAnswers => {
            let ours = sides::stock_answers(&mut peer, &mut rng)?;
            Schedule::<StockRole>::new(ours, peer, rng, 0).play(events)
        }
        Pairing::Device => {
            let ours = sides::device(&mut peer, &mut rng)?;
            Schedule::<DeviceRole>::new(ours, peer, rng, 0).play(events)
        }
        Pairing::DeviceReboots => {
            let ours = sides::device(&mut peer, &mut rng)?;
            Schedule::<DeviceRole>::new(ours, peer, rng, 3).play(events)
        }
        Pairing::Node => {
            let ours = sides::node(&mut peer, &mut rng)?;
            Schedule::<Node>::new(ours, peer, rng, 3).play(events)
        }
    }
}

struct Schedule<R: Role> {
    ours: Ours<R>,
    peer: Peer,
    rng: StdRng,
    now: UnixTime,
    /// Of a hundred events.
    reboots_in_100: u32,
    up: Way,
    down: Way,
    reboots: usize,
    /// Messages sealed under a key of ours that was there before the newest of theirs was opened.
    owed: usize,
    own_key: Vec<u8>,
    /// How many keys of theirs had been heard when that one was made.
    stepped_for: usize,
}

impl<R: Side> Schedule<R> {
    fn new(ours: Ours<R>, peer: Peer, rng: StdRng, reboots_in_100: u32) -> Self {
        Self {
            ours,
            peer,
            rng,
            now: NOON,
            reboots_in_100,
            up: Way::default(),
            down: Way::default(),
            reboots: 0,
            owed: 0,
            own_key: Vec::new(),
            stepped_for: 0,
        }
    }

    fn play(mut self, events: u64) -> Result<Played, String> {
        for event in 0..events {
            self.event().map_err(|difference| format!("event {event}: {difference}"))?;
        }
        self.ends_quiet()?;
        let played = Played { ours: self.up, theirs: self.down, owed: self.owed, reboots: self.reboots };
        played.is_worth_something(events, R::STEPS_AT_ONCE)?;
        Ok(played)
    }

    fn event(&mut self) -> Result<(), String> {
        if self.rng.random_ratio(1, 6) {
            self.now = self.now.saturating_add(Duration::from_secs(self.rng.random_range(1..400)));
        }
        if self.rng.random_ratio(self.reboots_in_100, 100) {
            let before = self.ours.present()?.next_number();
            self.ours.reboot()?;
            self.up.gaps += self.ours.present()?.next_number().saturating_sub(before) as usize;
            self.reboots += 1;
        }
        match (self.rng.random_range(0..100), self.rng.random::<bool>()) {
            (0..34, true) => self.we_seal(),
            (0..34, false) => self.they_seal(),
            (34..72, true) => self.we_open(),
            (34..72, false) => self.they_open(),
            (72..76, ours) => {
                let way = if ours { &mut self.up } else { &mut self.down };
                if let Some(at) = pick(&mut self.rng, way.flying.len()) {
                    way.flying.remove(at);
                    way.lost += 1;
                }
                Ok(())
            }
            (76..86, true) => self.we_refuse_a_repeat(),
            (76..86, false) => self.they_refuse_a_repeat(),
            (_, true) => self.we_refuse_damage(),
            (_, false) => self.they_refuse_damage(),
        }
    }

    fn text(&mut self) -> Vec<u8> {
        let len = self.rng.random_range(0..80);
        (0..len).map(|_| self.rng.random()).collect()
    }

    fn we_seal(&mut self) -> Result<(), String> {
        if self.up.flying.len() >= FLYING_MAX {
            return Ok(());
        }
        let text = self.text();
        let sealed = match self.ours.seal(&text, self.now, &mut self.rng) {
            Ok(sealed) => sealed,
            // The node seals 64 without an answer.
            Err(SealError::Unanswered { .. }) => return Ok(()),
            Err(error) => return Err(format!("sealing: {error}")),
        };
        let key = message(&sealed)?.ratchet_key().to_vec();
        if key != self.own_key {
            self.own_key = key;
            self.stepped_for = self.ours.keys_heard;
        }
        self.owed += usize::from(self.stepped_for < self.ours.keys_heard);
        self.up.send(text, sealed);
        Ok(())
    }

    fn they_seal(&mut self) -> Result<(), String> {
        if self.down.flying.len() >= FLYING_MAX {
            return Ok(());
        }
        let text = self.text();
        let sealed = self.peer.seals(&text)?;
        self.down.send(text, sealed);
        Ok(())
    }

    fn we_open(&mut self) -> Result<(), String> {
        let Some(at) = pick(&mut self.rng, self.down.flying.len()) else { return Ok(()) };
        let before = self.ours.state()?;
        let arriving = self.down.flying.remove(at);
        match self.ours.open(&arriving.sealed, self.now, &mut self.rng) {
            Ok(text) if text == arriving.text => {
                self.down.arrived(arriving);
                Ok(())
            }
            Ok(_) => Err("we opened it as another".into()),
            Err(OpenError::TooOld { .. } | OpenError::UnknownKey { .. }) if self.down.may_be_gone(R::SKIPPED_MAX) => {
                self.down.gone += 1;
                self.unchanged(&before)
            }
            Err(error) => Err(format!("we did not open it: {error}")),
        }
    }

    fn they_open(&mut self) -> Result<(), String> {
        let Some(at) = pick(&mut self.rng, self.up.flying.len()) else { return Ok(()) };
        let arriving = self.up.flying.remove(at);
        match self.peer.opens(&arriving.sealed)? {
            Heard::Opened(text) if text == arriving.text => {
                self.up.arrived(arriving);
                Ok(())
            }
            Heard::Opened(_) => Err("the peer opened it as another".into()),
            Heard::Refused if self.up.may_be_gone(ORACLE_KEEPS) => {
                self.up.gone += 1;
                Ok(())
            }
            Heard::Refused => Err("the peer did not open it".into()),
        }
    }

    fn we_refuse_a_repeat(&mut self) -> Result<(), String> {
        let Some(at) = pick(&mut self.rng, self.down.opened.len()) else { return Ok(()) };
        let repeat = self.down.opened.get(at).map(|old| old.sealed.clone()).unwrap_or_default();
        self.down.repeats += 1;
        self.we_refuse(&repeat)
    }

    fn they_refuse_a_repeat(&mut self) -> Result<(), String> {
        let Some(at) = pick(&mut self.rng, self.up.opened.len()) else { return Ok(()) };
        let repeat = self.up.opened.get(at).map(|old| old.sealed.clone()).unwrap_or_default();
        self.up.repeats += 1;
        self.they_refuse(&repeat)
    }

    /// One bit of a message on its way; the message itself comes later, and must open.
    fn damaged(&mut self, flying: usize) -> Vec<u8> {
        let way = &self.down;
        let mut sealed = way.flying.get(flying).map(|message| message.sealed.clone()).unwrap_or_default();
        flip(&mut self.rng, &mut sealed);
        sealed
    }

    fn we_refuse_damage(&mut self) -> Result<(), String> {
        let Some(at) = pick(&mut self.rng, self.down.flying.len()) else { return Ok(()) };
        let damaged = self.damaged(at);
        self.down.damaged += 1;
        self.we_refuse(&damaged)
    }

    fn they_refuse_damage(&mut self) -> Result<(), String> {
        let Some(at) = pick(&mut self.rng, self.up.flying.len()) else { return Ok(()) };
        let mut damaged = self.up.flying.get(at).map(|message| message.sealed.clone()).unwrap_or_default();
        flip(&mut self.rng, &mut damaged);
        self.up.damaged += 1;
        self.they_refuse(&damaged)
    }

    fn we_refuse(&mut self, sealed: &[u8]) -> Result<(), String> {
        let before = self.ours.state()?;
        match self.ours.open(sealed, self.now, &mut self.rng) {
            Err(_) => self.unchanged(&before),
            Ok(_) => Err("we opened what is no message".into()),
        }
    }

    fn they_refuse(&mut self, sealed: &[u8]) -> Result<(), String> {
        match self.peer.opens(sealed)? {
            Heard::Refused => Ok(()),
            Heard::Opened(_) => Err("the peer opened what is no message".into()),
        }
    }

    fn unchanged(&mut self, before: &[u8]) -> Result<(), String> {
        if self.ours.state()? == before { Ok(()) } else { Err("a refused message changed our state".into()) }
    }

    /// What is on its way arrives, and then both hear each other, in every further round.
    fn ends_quiet(&mut self) -> Result<(), String> {
        while !self.up.flying.is_empty() {
            self.they_open().map_err(|difference| format!("at the end: {difference}"))?;
        }
        while !self.down.flying.is_empty() {
            self.we_open().map_err(|difference| format!("at the end: {difference}"))?;
        }
        for round in 0..6 {
            let here = |difference: String| format!("quiet round {round}: {difference}");
            self.now = self.now.saturating_add(Duration::from_secs(300));
            self.they_seal().map_err(here)?;
            self.we_open().map_err(here)?;
            self.we_seal().map_err(here)?;
            self.they_open().map_err(here)?;
            if !self.up.flying.is_empty() || !self.down.flying.is_empty() {
                return Err(here("something did not arrive".into()));
            }
        }
        Ok(())
    }
}

impl Played {
    /// A schedule in which nothing happened proves nothing.
    fn is_worth_something(&self, events: u64, steps_at_once: bool) -> Result<(), String> {
        if events < 200 {
            return Ok(());
        }
        for (name, way) in [("ours", &self.ours), ("theirs", &self.theirs)] {
            let counts = [way.opened.len() / 20, way.late, way.repeats, way.damaged, way.keys.len()];
            if counts.contains(&0) {
                return Err(format!("too little happened to {name}: {counts:?}"));
            }
        }
        // Some six of 400 events are losses each way, and one schedule in 400 has none one way.
        if self.ours.lost + self.theirs.lost == 0 {
            return Err("nothing was lost".into());
        }
        if !steps_at_once && self.owed == 0 {
            return Err("no step was owed".into());
        }
        if steps_at_once && self.owed > 0 {
            return Err("a step was owed by a side that steps at once".into());
        }
        Ok(())
    }
}

fn pick(rng: &mut StdRng, len: usize) -> Option<usize> {
    (len > 0).then(|| rng.random_range(0..len))
}

fn flip(rng: &mut StdRng, bytes: &mut [u8]) {
    let Some(at) = pick(rng, bytes.len()) else { return };
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << rng.random_range(0..8);
    }
}
