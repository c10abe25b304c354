//! Two sides, a network that loses, repeats and reorders, and power that fails: whatever happens,
//! no number is sealed twice, nothing opens twice or as something else, and both sides agree again
//! once it is quiet.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use unhidra_e2ee::envelope::Envelope;
use unhidra_e2ee::error::OpenError;

use crate::pair::{NodeError, Pair};

#[derive(Clone, Copy, Debug)]
enum Event {
    DeviceSeals,
    NodeSeals,
    /// Hands in a message on its way up; with the bool it stays on its way, and comes again.
    Up(usize, bool),
    Down(usize, bool),
    LoseUp(usize),
    LoseDown(usize),
    DeviceReboots,
    NodeRestarts,
    MinutesPass(u8),
    NewSession,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => Just(Event::DeviceSeals),
        5 => Just(Event::NodeSeals),
        10 => (any::<usize>(), prop::bool::weighted(0.1)).prop_map(|(at, again)| Event::Up(at, again)),
        8 => (any::<usize>(), prop::bool::weighted(0.1)).prop_map(|(at, again)| Event::Down(at, again)),
        1 => any::<usize>().prop_map(Event::LoseUp),
        1 => any::<usize>().prop_map(Event::LoseDown),
        1 => Just(Event::DeviceReboots),
        1 => Just(Event::NodeRestarts),
        2 => any::<u8>().prop_map(|minutes| Event::MinutesPass(minutes % 12)),
        1 => Just(Event::NewSession),
    ]
}

struct World {
    pair: Pair,
    up: Vec<(u32, Vec<u8>)>,
    down: Vec<(u32, Vec<u8>)>,
    opened_up: BTreeSet<u32>,
    opened_down: BTreeSet<u32>,
    sealed: u32,
}

fn pick(queue: &[(u32, Vec<u8>)], at: usize) -> Option<usize> {
    (!queue.is_empty()).then(|| at % queue.len())
}

impl World {
    fn device_seals(&mut self) {
        self.begin_if_lost();
        self.sealed += 1;
        let sealed = self.pair.device_seals(&self.sealed.to_be_bytes());
        self.up.push((self.sealed, sealed));
    }

    /// A device whose power failed before its first session was written has none.
    fn begin_if_lost(&mut self) {
        if self.pair.device.present().is_none() {
            self.pair.begin();
        }
    }

    /// What an honest network brings late is a duplicate, too old, of a session that is gone, or
    /// opens as what it was.
    fn opened(result: Result<Vec<u8>, OpenError>, number: u32, before: &mut BTreeSet<u32>) {
        match result {
            Ok(plaintext) => {
                assert_eq!(plaintext, number.to_be_bytes());
                assert!(before.insert(number), "{number} opened twice");
            }
            Err(OpenError::Duplicate | OpenError::TooOld { .. } | OpenError::UnknownKey { .. }) => {}
            Err(error) => panic!("{number}: {error}"),
        }
    }

    fn node_opens(&mut self, number: u32, sealed: &[u8]) {
        match self.pair.node_opens(sealed) {
            Ok(plaintext) => Self::opened(Ok(plaintext), number, &mut self.opened_up),
            Err(NodeError::Open(error)) => Self::opened(Err(error), number, &mut self.opened_up),
            Err(NodeError::Counter(_)) => {}
            Err(NodeError::Respond(error)) => assert!(self.prekey_is_gone(sealed), "{error}"),
        }
    }

    /// A session that another one overtook: its one-time prekey was used up.
    fn prekey_is_gone(&self, sealed: &[u8]) -> bool {
        matches!(Envelope::parse(sealed), Ok(Envelope::HandshakeInit(init)) if init.opk_id() != self.pair.opk.id())
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::DeviceSeals => self.device_seals(),
            Event::NodeSeals => {
                self.sealed += 1;
                if self.pair.node.present().is_some()
                    && let Ok(sealed) = self.pair.try_node_seals(&self.sealed.to_be_bytes())
                {
                    self.down.push((self.sealed, sealed));
                }
            }
            Event::Up(at, again) => {
                if let Some(at) = pick(&self.up, at) {
                    let (number, sealed) = if again { self.up[at].clone() } else { self.up.remove(at) };
                    self.node_opens(number, &sealed);
                }
            }
            Event::Down(at, again) => {
                if let Some(at) = pick(&self.down, at) {
                    let (number, sealed) = if again { self.down[at].clone() } else { self.down.remove(at) };
                    Self::opened(self.pair.device_opens(&sealed), number, &mut self.opened_down);
                }
            }
            Event::LoseUp(at) => drop(pick(&self.up, at).map(|at| self.up.remove(at))),
            Event::LoseDown(at) => drop(pick(&self.down, at).map(|at| self.down.remove(at))),
            Event::DeviceReboots => self.pair.device_reboots(),
            Event::NodeRestarts => self.pair.node_restarts(),
            Event::MinutesPass(minutes) => self.pair.later(Duration::from_secs(60 * u64::from(minutes))),
            Event::NewSession => self.pair.begin(),
        }
    }

    /// Everything on its way is lost; what is said now is heard.
    fn ends_quiet(&mut self) {
        for _ in 0..3 {
            self.begin_if_lost();
            let up = self.pair.device_seals(b"up");
            let heard = self.pair.node_opens(&up);
            if matches!(heard, Err(NodeError::Respond(_))) && self.prekey_is_gone(&up) {
                // Another handshake was faster and took the one-time prekey: the device asks again.
                self.pair.begin();
                continue;
            }
            assert_eq!(heard, Ok(b"up".to_vec()));
            let down = self.pair.node_seals(b"down");
            assert_eq!(self.pair.device_opens(&down), Ok(b"down".to_vec()));
        }
        assert!(self.pair.device.present().is_some_and(|present| present.is_confirmed()));
    }
}

proptest! {
    #[test]
    fn both_sides_agree_again_once_it_is_quiet(
        seed: u64,
        lease_len in prop_oneof![Just(1u8), Just(4), Just(32)],
        events in prop::collection::vec(event(), 0..250),
    ) {
        let mut pair = Pair::enrolled(seed);
        pair.lease_len = lease_len;
        pair.begin();
        let (opened_up, opened_down) = (BTreeSet::new(), BTreeSet::new());
        let mut world = World { pair, up: Vec::new(), down: Vec::new(), opened_up, opened_down, sealed: 0 };
        for event in events {
            world.apply(event);
        }
        world.ends_quiet();
    }
}
