//! What must hold at every moment, whatever the script: written down by somebody who sees both
//! sides.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use unhidra_e2ee::envelope::{HandshakeInit, Message};

use crate::world::Broken;

/// A message without the head that may stand before it, as it is sealed.
pub(crate) type Inner = Vec<u8>;

/// Names a message key: the ratchet key and the number.
type KeyName = ([u8; 32], u32);

/// An hour, in ms.
const HOUR: u64 = 3_600_000;
/// Among so many readings none is shown twice.
const SHOWN: usize = 64;

/// Why a device begins a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Why {
    /// It has none.
    NoSession,
    /// A ResetRequest asked for it.
    Reset,
    /// Its chain is long, or the node is out of its reach.
    Itself,
}

#[derive(Default)]
pub(crate) struct Ledger {
    /// What left under each message key. A device that was rolled back may use its keys again.
    used: HashMap<(u32, KeyName), Inner>,
    released_up: HashMap<Inner, u32>,
    released_down: HashSet<Inner>,
    opened_up: HashSet<(u32, KeyName)>,
    opened_down: HashSet<(u32, KeyName)>,
    /// The last readings since the node was restored.
    shown: VecDeque<u64>,
    committed: HashSet<u64>,
    acted: HashSet<(u32, u32, u64)>,
    /// The one-time prekeys that began a session.
    prekeys: HashSet<(u32, u32)>,
    /// Every handshake that began a session, by its EK.
    begun: BTreeSet<[u8; 32]>,
    /// How often a device was enrolled, its flash rolled back, the node restored.
    enrolments: u32,
    rollbacks: u32,
    restores: u32,
    reset_at: Option<u64>,
    resets: u32,
    obeyed: u32,
    began_at: Option<u64>,
    clock_jumped_at: u64,
}

fn name(message: &Message<'_>) -> KeyName {
    (*message.ratchet_key(), message.number())
}

fn inner(message: &Message<'_>) -> Inner {
    [&message.header()[..], message.ciphertext(), message.tag()].concat()
}

impl Ledger {
    pub(crate) fn enrolled(&mut self) {
        self.enrolments += 1;
        self.began_at = None;
    }

    /// What a device whose flash is rolled back does again is its own doing (section 10).
    pub(crate) fn rolled_back(&mut self) {
        self.rollbacks += 1;
        self.began_at = None;
    }

    pub(crate) fn restored(&mut self) {
        self.restores += 1;
        self.reset_at = None;
        self.shown.clear();
    }

    fn released(&mut self, epoch: u32, message: &Message<'_>) -> Result<(), Broken> {
        let sealed = inner(message);
        match self.used.insert((epoch, name(message)), sealed.clone()) {
            Some(before) if before != sealed => {
                Err(Broken(format!("message key {} of one chain was used for two plaintexts", message.number())))
            }
            _ => Ok(()),
        }
    }

    /// A sealed message leaves the device.
    pub(crate) fn released_up(&mut self, message: &Message<'_>) -> Result<(), Broken> {
        self.released_up.insert(inner(message), self.enrolments);
        self.released(self.rollbacks, message)
    }

    /// A sealed message leaves the node. Nothing it goes through excuses it.
    pub(crate) fn released_down(&mut self, message: &Message<'_>) -> Result<(), Broken> {
        self.released_down.insert(inner(message));
        self.released(u32::MAX, message)
    }

    /// The device's copy of whatever it opened.
    pub(crate) fn device_opens(&self, message: &Message<'_>) -> Result<(), Broken> {
        match self.released_down.contains(&inner(message)) {
            true => Ok(()),
            false => Err(Broken("the device opened what the node never sealed".into())),
        }
    }

    /// That it opened is durable.
    pub(crate) fn device_opened(&mut self, message: &Message<'_>) -> Result<(), Broken> {
        match self.opened_down.insert((self.rollbacks, name(message))) {
            true => Ok(()),
            false => Err(Broken(format!("the device opened message {} twice", message.number()))),
        }
    }

    pub(crate) fn node_opens(&self, message: &Message<'_>) -> Result<(), Broken> {
        match self.released_up.get(&inner(message)) {
            Some(enrolment) if *enrolment == self.enrolments => Ok(()),
            Some(_) => Err(Broken("the node opened a message of an identity that is no longer enrolled".into())),
            None => Err(Broken("the node opened what the device never sealed".into())),
        }
    }

    /// That it opened is durable.
    pub(crate) fn node_opened(&mut self, key: [u8; 32], number: u32) -> Result<(), Broken> {
        match self.opened_up.insert((self.restores, (key, number))) {
            true => Ok(()),
            false => Err(Broken(format!("the node opened message {number} twice"))),
        }
    }

    /// A handshake began a session, durably. It never may again, not after a restore either.
    pub(crate) fn node_began(&mut self, init: &HandshakeInit<'_>) -> Result<(), Broken> {
        let new_prekey = self.prekeys.insert((self.restores, init.opk_id()));
        match (self.begun.insert(*init.ephemeral()), new_prekey) {
            (true, true) => Ok(()),
            (false, _) => Err(Broken("one handshake began two sessions".into())),
            (true, false) => Err(Broken("one one-time prekey began two sessions".into())),
        }
    }

    /// A reading is in the store, for clients to see.
    pub(crate) fn shows(&mut self, reading: u64) -> Result<(), Broken> {
        self.committed.insert(reading);
        if self.shown.contains(&reading) {
            return Err(Broken(format!("reading {reading} is shown twice")));
        }
        self.shown.push_back(reading);
        if self.shown.len() > SHOWN {
            self.shown.pop_front();
        }
        Ok(())
    }

    /// The device forgets a reading: it was acknowledged.
    pub(crate) fn forgets(&self, reading: u64) -> Result<(), Broken> {
        match self.committed.contains(&reading) {
            true => Ok(()),
            false => Err(Broken(format!("reading {reading} was acknowledged and is not in the store"))),
        }
    }

    pub(crate) fn acts(&mut self, command: u64) -> Result<(), Broken> {
        match self.acted.insert((self.rollbacks, self.enrolments, command)) {
            true => Ok(()),
            false => Err(Broken(format!("the device acted on command {command} twice"))),
        }
    }

    /// A ResetRequest leaves.
    pub(crate) fn resets(&mut self, now: u64) -> Result<(), Broken> {
        let before = self.reset_at.replace(now);
        self.resets += 1;
        match before {
            Some(at) if now.saturating_sub(at) < HOUR => {
                Err(Broken(format!("two ResetRequests within {} s", now.saturating_sub(at) / 1000)))
            }
            _ => Ok(()),
        }
    }

    /// The device begins a session, for a reason, and it is durable.
    pub(crate) fn begins(&mut self, why: Why, now: u64) -> Result<(), Broken> {
        match why {
            Why::NoSession => Ok(()),
            Why::Reset => {
                self.obeyed += 1;
                match self.obeyed <= self.resets + self.rollbacks {
                    true => Ok(()),
                    false => Err(Broken(format!("{} sessions for {} ResetRequests", self.obeyed, self.resets))),
                }
            }
            // By another clock.
            Why::Itself if now < self.clock_jumped_at => Ok(()),
            Why::Itself => match self.began_at.replace(now) {
                // A device that has its time from the node has it in seconds.
                Some(at) if now.saturating_sub(at) < HOUR - 2000 => {
                    Err(Broken(format!("two sessions of its own within {} s", now.saturating_sub(at) / 1000)))
                }
                _ => Ok(()),
            },
        }
    }

    /// The device's clock jumped: its hours are not ours.
    pub(crate) fn clock_jumped(&mut self, now: u64) {
        self.began_at = None;
        self.clock_jumped_at = now;
    }
}
