//! A script of what can happen between a device and its node. Two bytes say who they are (a seed; in
//! bits 0 and 1 of the second how long a lease is, in bit 2 the suite), then three bytes a step:
//! what, to which message, and a detail. PROTOCOL.md sections 7 to 9 say what must hold, whatever the script:
//!
//! - no ratchet key and number is ever sealed twice, and a failed open changes nothing (the two
//!   sides of the tests, `pair`, assert both);
//! - what opens is what was sealed, once; what was tampered with does not open;
//! - as long as nobody began a session anew, went back in time or was away for a day, and no more was
//!   lost than is kept keys for, every honest message opens, in whatever order it comes;
//! - once it is quiet, both sides find back to a session that works, by themselves.

use std::collections::BTreeSet;
use std::time::Duration;

use unhidra_core::time::UnixTime;
use unhidra_e2ee::delta::StateDelta;
use unhidra_e2ee::envelope::Envelope;
use unhidra_e2ee::error::{ChainKind, OpenError, SealError};
use unhidra_e2ee::handshake::RespondError;
use unhidra_e2ee::prekey::{KemSeed, OneTimePrekeySecret, SignedPrekeySecret};
use unhidra_e2ee::recent::{MessageTag, Recent};
use unhidra_e2ee::reset::{ResetReason, sign_reset};
use unhidra_e2ee::role::Role;
use unhidra_e2ee::session::Session;
use unhidra_e2ee::sessions::{Sessions, Slot};
use unhidra_e2ee::suite::Suite;

use crate::pair::{NodeError, Pair, Written, message, one_time};

/// Steps that are played; each costs two DH steps at most.
const STEPS_MAX: usize = 96;
/// Messages of the node that are honest to expect: as many keys as a device keeps.
const DOWN_KEPT: u32 = 16;
/// Numbers the device may use up, with those its reboots leave out: as many keys as the node keeps.
const UP_KEPT: u32 = 128;
/// Keys are kept for a day.
const KEPT_FOR: Duration = Duration::from_secs(23 * 60 * 60);
/// Rounds until a pair that nobody disturbs must have found back.
const QUIET_ROUNDS: usize = 12;
/// One ResetRequest an hour.
const RESET_INTERVAL: Duration = Duration::from_secs(3601);

pub(crate) fn run(script: &[u8]) {
    let [seed, settings, steps @ ..] = script else { return };
    let suite = Suite::ALL[usize::from(settings >> 2 & 1)];
    let mut world = World::new(suite, u64::from(*seed), [1, 4, 32, 255][usize::from(settings & 3)]);
    for [what, which, detail] in steps.as_chunks().0.iter().take(STEPS_MAX) {
        world.step(*what, usize::from(*which), *detail);
    }
    world.ends_quiet();
}

/// A message on its way.
#[derive(Clone)]
struct Sealed {
    number: u32,
    bytes: Vec<u8>,
}

impl Sealed {
    fn plaintext(&self) -> [u8; 4] {
        self.number.to_be_bytes()
    }
}

/// What a backup of the node holds, and what had been opened by then.
struct Backup {
    disk: [Written; 2],
    last_counter: u32,
    recent: Vec<MessageTag>,
    opened: BTreeSet<u32>,
}

struct World {
    pair: Pair,
    up: Vec<Sealed>,
    down: Vec<Sealed>,
    opened_up: BTreeSet<u32>,
    opened_down: BTreeSet<u32>,
    sealed: u32,
    sealed_down: u32,
    reboots: u32,
    /// Until when keys are kept that were skipped at the beginning.
    calm_until: UnixTime,
    /// A session began anew, or a side went back: a message may be of a session that is gone.
    disturbed: bool,
    backup: Option<Backup>,
    /// The node's present session is out of a backup.
    restored: bool,
    next_prekey: u32,
    /// ResetRequests the node has sent, each with the ratchet key it names.
    resets: Vec<([u8; 32], Vec<u8>)>,
}

fn pick(queue: &[Sealed], which: usize) -> Option<usize> {
    (!queue.is_empty()).then(|| which % queue.len())
}

impl World {
    fn new(suite: Suite, seed: u64, lease_len: u8) -> Self {
        let mut pair = Pair::enrolled_with(suite, seed);
        pair.lease_len = lease_len;
        pair.begin();
        let calm_until = pair.now.saturating_add(KEPT_FOR);
        Self {
            pair,
            up: Vec::new(),
            down: Vec::new(),
            opened_up: BTreeSet::new(),
            opened_down: BTreeSet::new(),
            sealed: 0,
            sealed_down: 0,
            reboots: 0,
            calm_until,
            disturbed: false,
            backup: None,
            restored: false,
            next_prekey: 1000,
            resets: Vec::new(),
        }
    }

    fn step(&mut self, what: u8, which: usize, detail: u8) {
        match what % 20 {
            0 => self.device_seals(),
            1 => self.node_seals(),
            2 => self.up(which, Left::Taken),
            3 => self.down(which, Left::Taken),
            4 => self.up(which, Left::There),
            5 => self.down(which, Left::There),
            6 => drop(pick(&self.up, which).map(|at| self.up.remove(at))),
            7 => drop(pick(&self.down, which).map(|at| self.down.remove(at))),
            8 => self.tampered_up(which, detail),
            9 => self.tampered_down(which, detail),
            10 => self.device_reboots(),
            11 => self.node_restarts(),
            12 => self.node_dies_before_its_commit(which),
            13 => self.device_dies_before_its_write(which),
            14 => self.pair.later(Duration::from_secs(60 * u64::from(detail))),
            15 => self.begin(),
            16 => self.node_asks_for_a_session(),
            17 => self.an_old_reset_comes(which),
            18 if self.backup.is_none() => self.back_up(),
            18 => self.restore(),
            _ => self.expire(),
        }
    }

    fn is_calm(&self) -> bool {
        !self.disturbed && self.pair.now <= self.calm_until
    }

    /// The numbers the device used or left out at most: a reboot leaves out what was leased.
    fn used_up(&self) -> u32 {
        self.sealed - self.sealed_down + self.reboots * u32::from(self.pair.lease_len)
    }

    fn next(&mut self) -> u32 {
        self.sealed += 1;
        self.sealed
    }

    fn device_seals(&mut self) {
        self.begin_if_lost();
        let number = self.next();
        let bytes = self.pair.device_seals(&number.to_be_bytes());
        self.up.push(Sealed { number, bytes });
    }

    fn node_seals(&mut self) {
        if self.pair.node.present().is_none() {
            return;
        }
        let number = self.next();
        match self.pair.try_node_seals(&number.to_be_bytes()) {
            Ok(bytes) => {
                assert!(!self.restored, "a session out of a backup has sealed");
                self.sealed_down += 1;
                self.down.push(Sealed { number, bytes });
            }
            Err(SealError::Unanswered { .. }) => assert!(self.sealed_down >= 64),
            Err(SealError::ReceivesOnly) => assert!(self.restored),
            Err(error) => panic!("{error}"),
        }
    }

    fn up(&mut self, which: usize, left: Left) {
        let Some(at) = pick(&self.up, which) else { return };
        let sealed = left.take(&mut self.up, at);
        let counter = self.pair.last_counter;
        match self.pair.node_opens(&sealed.bytes) {
            Ok(plaintext) => {
                assert_eq!(plaintext, sealed.plaintext());
                assert!(self.opened_up.insert(sealed.number), "{} opened twice", sealed.number);
            }
            Err(error) => {
                let is_repeat = self.opened_up.contains(&sealed.number);
                let calm = self.is_calm() && self.used_up() <= UP_KEPT;
                assert!(is_repeat || !calm, "the node refuses an honest message: {error:?}");
            }
        }
        self.restored &= counter == self.pair.last_counter;
    }

    fn down(&mut self, which: usize, left: Left) {
        let Some(at) = pick(&self.down, which) else { return };
        let sealed = left.take(&mut self.down, at);
        self.begin_if_lost();
        match self.pair.device_opens(&sealed.bytes) {
            Ok(plaintext) => {
                assert_eq!(plaintext, sealed.plaintext());
                assert!(self.opened_down.insert(sealed.number), "{} opened twice", sealed.number);
            }
            Err(error) => {
                let is_repeat = self.opened_down.contains(&sealed.number);
                let calm = self.is_calm() && self.sealed_down <= DOWN_KEPT;
                assert!(is_repeat || !calm, "the device refuses an honest message: {error:?}");
            }
        }
    }

    /// One byte of a message is another; `detail` says which, and with what.
    fn tampered(sealed: &Sealed, detail: u8) -> Vec<u8> {
        let mut bytes = sealed.bytes.clone();
        let at = usize::from(detail) * 7 % bytes.len();
        bytes[at] ^= 1 << (detail % 8);
        bytes
    }

    fn tampered_up(&mut self, which: usize, detail: u8) {
        let Some(at) = pick(&self.up, which) else { return };
        let bytes = Self::tampered(&self.up[at], detail);
        let Ok(envelope) = Envelope::parse(&bytes) else { return };
        let inner_is_whole = match envelope {
            // A head that is known already is compared by counter and EK; the message itself is tied
            // to the one that was agreed on.
            Envelope::HandshakeInit(init) => {
                let whole = message(&self.up[at].bytes);
                init.message() == whole && self.pair.node.present().is_some()
            }
            Envelope::Message(_) => false,
            _ => return,
        };
        match self.pair.node_opens(&bytes) {
            Ok(plaintext) => {
                assert!(inner_is_whole, "what was tampered with opened");
                assert_eq!(plaintext, self.up[at].plaintext());
                assert!(self.opened_up.insert(self.up[at].number), "opened twice");
            }
            Err(_) => {}
        }
    }

    fn tampered_down(&mut self, which: usize, detail: u8) {
        let Some(at) = pick(&self.down, which) else { return };
        let bytes = Self::tampered(&self.down[at], detail);
        if matches!(Envelope::parse(&bytes), Ok(Envelope::Message(_))) {
            self.begin_if_lost();
            assert!(self.pair.device_opens(&bytes).is_err(), "what was tampered with opened");
        }
    }

    fn device_reboots(&mut self) {
        self.reboots += 1;
        self.pair.device_reboots();
        // The session was begun in memory alone.
        self.begin_if_lost();
    }

    fn node_restarts(&mut self) {
        self.pair.node_restarts();
        if self.restored {
            self.pair.node.set_restored();
        }
    }

    /// The node opens, and its power fails before the commit: nothing was acknowledged, and the
    /// message comes again.
    fn node_dies_before_its_commit(&mut self, which: usize) {
        let Some(at) = pick(&self.up, which) else { return };
        let bytes = self.up[at].bytes.clone();
        let (disk, counter) = (self.pair.node_disk.clone(), self.pair.last_counter);
        let opk = self.opk_again();
        let recent: Vec<_> = self.pair.node.recent().tags().collect();
        let first = self.pair.node_opens(&bytes);
        self.pair.node_disk = disk;
        self.pair.last_counter = counter;
        self.pair.opk = opk;
        self.pair.node = read_back(&self.pair.node_disk, recent);
        if self.restored {
            self.pair.node.set_restored();
        }
        if let Ok(plaintext) = first {
            let again = self.pair.node_opens(&bytes);
            assert_eq!(again, Ok(plaintext), "what was not committed did not open again");
            assert!(self.opened_up.insert(self.up[at].number), "opened twice");
            self.restored &= counter == self.pair.last_counter;
        }
    }

    /// The one-time prekey that waits, to be put back.
    fn opk_again(&self) -> OneTimePrekeySecret {
        let opk = &self.pair.opk;
        let again = OneTimePrekeySecret::from_bytes(opk.id(), opk.secret());
        match opk.kem_seed() {
            Some(seed) => again.with_kem(KemSeed::from_bytes(seed.as_bytes())),
            None => again,
        }
    }

    /// The same of the device: before its write nothing was acted on.
    fn device_dies_before_its_write(&mut self, which: usize) {
        let Some(at) = pick(&self.down, which).filter(|_| !self.pair.begun_in_ram) else { return };
        let bytes = self.down[at].bytes.clone();
        let disk = self.pair.device_disk.clone();
        let recent: Vec<_> = self.pair.device.recent().tags().collect();
        let first = self.pair.device_opens(&bytes);
        self.pair.device_disk = disk;
        self.pair.device = read_back(&self.pair.device_disk, recent);
        self.pair.lease = None;
        self.reboots += 1;
        if let Ok(plaintext) = first {
            assert_eq!(self.pair.device_opens(&bytes), Ok(plaintext), "what was not written did not open again");
            assert!(self.opened_down.insert(self.down[at].number), "opened twice");
        }
    }

    fn begin(&mut self) {
        self.disturbed = true;
        self.pair.begin();
    }

    fn begin_if_lost(&mut self) {
        if self.pair.device.present().is_none() {
            self.begin();
        }
    }

    /// The node asks, and the device obeys: the request names the key it sends under.
    fn node_asks_for_a_session(&mut self) {
        self.begin_if_lost();
        let Some(key) = self.pair.device.present().map(|present| *present.ratchet_key()) else { return };
        let request = sign_reset(&self.pair.node_identity, &self.pair.id, ResetReason::UnknownKey, &key).to_vec();
        assert!(self.obeys(&request));
        self.resets.push((key, request));
        self.begin();
    }

    /// It is obeyed again by a device alone that lost its power before the session it began was
    /// written, and sends under the key it names.
    fn an_old_reset_comes(&mut self, which: usize) {
        let Some((key, request)) = self.resets.get(which % self.resets.len().max(1)) else { return };
        let present = self.pair.device.present().map(|present| *present.ratchet_key());
        assert_eq!(self.obeys(request), present == Some(*key), "an old request");
        if present == Some(*key) {
            self.begin();
        }
    }

    fn obeys(&self, request: &[u8]) -> bool {
        let Ok(Envelope::ResetRequest(request)) = Envelope::parse(request) else { panic!("no request") };
        let request = request.verify(&self.pair.id, &self.pair.node_identity.public()).expect("the node signed it");
        self.pair.device.obeys(&request)
    }

    fn back_up(&mut self) {
        self.backup = Some(Backup {
            disk: self.pair.node_disk.clone(),
            last_counter: self.pair.last_counter,
            recent: self.pair.node.recent().tags().collect(),
            opened: self.opened_up.clone(),
        });
    }

    /// The node is put back: with new prekeys, and sessions that only receive.
    fn restore(&mut self) {
        let Some(backup) = self.backup.take() else { return };
        self.disturbed = true;
        self.next_prekey += 1;
        self.pair.spk = SignedPrekeySecret::generate(self.next_prekey, &mut self.pair.rng);
        self.next_prekey += 1;
        self.pair.opk = one_time(self.pair.suite, self.next_prekey, &mut self.pair.rng);
        self.next_prekey += 1000;
        self.pair.node_disk = backup.disk;
        self.pair.last_counter = backup.last_counter;
        self.pair.node = read_back(&self.pair.node_disk, backup.recent);
        self.pair.node.set_restored();
        self.restored = self.pair.node.present().is_some();
        self.opened_up = backup.opened;
    }

    fn expire(&mut self) {
        let now = self.pair.now;
        if self.pair.node.expire(now) {
            self.pair.node_disk[1] = Written::default();
        }
        if self.pair.device.expire(now) && !self.pair.begun_in_ram {
            self.pair.device_disk[1] = Written::default();
        }
        for slot in self.pair.node.expire_keys(now) {
            let (session, at) = match slot {
                Slot::Present => (self.pair.node.present(), 0),
                Slot::Previous => (self.pair.node.previous(), 1),
            };
            self.pair.node_disk[at].write(session.expect("it lost keys"), &StateDelta::Whole);
        }
    }

    /// Nothing else happens now: what one side says the other hears, after some ResetRequests at
    /// most, an hour apart.
    fn ends_quiet(&mut self) {
        let mut heard = 0;
        for _ in 0..QUIET_ROUNDS {
            match self.round() {
                Ok(()) => heard += 1,
                Err(()) => heard = 0,
            }
            if heard == 3 {
                return;
            }
        }
        panic!("no session works after {QUIET_ROUNDS} rounds");
    }

    fn round(&mut self) -> Result<(), ()> {
        self.begin_if_lost();
        let up = self.pair.device_seals(b"up");
        let counter = self.pair.last_counter;
        let result = self.pair.node_opens(&up);
        self.restored &= counter == self.pair.last_counter;
        match result {
            Ok(plaintext) => assert_eq!(plaintext, b"up"),
            Err(NodeError::Open(OpenError::TooFar { chain: ChainKind::Known, .. })) => {
                let (plaintext, _) = self.pair.node_opens_by_long_try(&up).unwrap_or_else(|error| panic!("{error}"));
                assert_eq!(plaintext, b"up");
            }
            Err(error) => return self.reset(why(&error).unwrap_or_else(|| panic!("a wedge: {error:?}")), &up),
        }
        match self.pair.try_node_seals(b"down") {
            Ok(down) => match self.pair.device_opens(&down) {
                Ok(plaintext) => {
                    assert_eq!(plaintext, b"down");
                    Ok(())
                }
                // Beyond the device's own jump: it begins a session, an hour after the last.
                Err(OpenError::TooFar { .. }) => {
                    self.pair.later(RESET_INTERVAL);
                    self.begin();
                    Err(())
                }
                Err(error) => panic!("a wedge: {error}"),
            },
            Err(SealError::ReceivesOnly) => self.reset(ResetReason::Restored, &up),
            Err(error) => panic!("a wedge: {error}"),
        }
    }

    /// The node answers a message with a ResetRequest, and the device obeys it.
    fn reset(&mut self, reason: ResetReason, up: &[u8]) -> Result<(), ()> {
        self.pair.later(RESET_INTERVAL);
        let key = message(up).ratchet_key();
        let request = sign_reset(&self.pair.node_identity, &self.pair.id, reason, key).to_vec();
        assert!(self.obeys(&request), "the device does not obey what answers its last message");
        self.begin();
        Err(())
    }
}

/// Whether a message that was delivered comes again.
#[derive(Clone, Copy)]
enum Left {
    Taken,
    There,
}

impl Left {
    fn take(self, queue: &mut Vec<Sealed>, at: usize) -> Sealed {
        match self {
            Self::Taken => queue.remove(at),
            Self::There => queue[at].clone(),
        }
    }
}

const fn why(error: &NodeError) -> Option<ResetReason> {
    match error {
        NodeError::Open(error) => error.reset_due(),
        NodeError::Respond(error) => RespondError::reset_due(*error),
        NodeError::Counter(reason) => Some(*reason),
    }
}

fn read_back<R: Role>(disk: &[Written; 2], recent: Vec<MessageTag>) -> Sessions<R> {
    let read = |written: &Written| -> Option<Session<R>> { (!written.whole.is_empty()).then(|| written.read()) };
    Sessions::new(read(&disk[0]), read(&disk[1]), Recent::from_tags(recent))
}
