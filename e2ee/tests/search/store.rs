//! The node's store: batches that are committed whole or not at all, backups, and what a restore
//! from one does to it.

use std::collections::{BTreeMap, VecDeque};

use rand::RngExt;
use rand::rngs::StdRng;
use unhidra_e2ee::delta::{Lane, StateDelta};
use unhidra_e2ee::prekey::{OneTimePrekeySecret, SignedPrekeySecret};
use unhidra_e2ee::recent::{MessageTag, Recent};
use unhidra_e2ee::role::NodeRole;
use unhidra_e2ee::session::Session;
use unhidra_e2ee::sessions::{Sessions, Slot};
use unhidra_e2ee::suite::Suite;

use crate::ledger::Ledger;
use crate::shelf::Shelf;
use crate::world::Broken;

/// Opened messages that are remembered, by their rows.
const RECENT: usize = 32;
/// Reading ids that are remembered, by their rows.
const READING_IDS: usize = 64;

pub(crate) type NodeSessions = Sessions<NodeRole<Shelf>>;
pub(crate) type NodeSession = Session<NodeRole<Shelf>>;

#[derive(Clone, Default)]
struct Records {
    whole: Vec<u8>,
    receive: Option<Vec<u8>>,
    send: Option<Vec<u8>>,
}

/// What outlives sessions.
#[derive(Clone, Copy)]
pub(crate) struct PeerRecord {
    pub(crate) last_counter: u32,
    pub(crate) next_prekey_id: u32,
    pub(crate) reset_at: Option<u64>,
    pub(crate) restored: bool,
    pub(crate) identity: [u8; 32],
}

/// A signed prekey, and when it was made.
#[derive(Clone)]
pub(crate) struct Signed {
    pub(crate) id: u32,
    pub(crate) made_at: u64,
    secret: [u8; 32],
}

impl Signed {
    pub(crate) fn generate(id: u32, now: u64, rng: &mut StdRng) -> Self {
        Self { id, made_at: now, secret: *SignedPrekeySecret::generate(id, rng).secret() }
    }

    pub(crate) fn secret(&self) -> SignedPrekeySecret {
        SignedPrekeySecret::from_bytes(self.id, &self.secret)
    }
}

/// A command that is neither answered nor expired.
#[derive(Clone, Copy)]
pub(crate) struct OpenCommand {
    pub(crate) expires_at: u64,
    pub(crate) delivered: bool,
}

/// One change of a batch.
pub(crate) enum Write {
    Whole(Slot, Vec<u8>),
    Chain(Slot, Lane, Vec<u8>),
    /// The present session becomes the previous one.
    Rotate,
    EndPrevious,
    EndAll,
    Peer(PeerRecord),
    Prekey(Option<OneTime>),
    Row(MessageTag, [u8; 32], Option<u64>),
    Command(u64, Option<OpenCommand>),
}

/// A one-time prekey as it is stored.
#[derive(Clone)]
pub(crate) struct OneTime {
    pub(crate) id: u32,
    secret: [u8; 32],
    /// Of suite 2: d and z of its KEM pair.
    seed: Option<[u8; 64]>,
}

impl OneTime {
    pub(crate) fn generate(id: u32, suite: Suite, rng: &mut StdRng) -> Self {
        let secret = *OneTimePrekeySecret::generate(id, rng).secret();
        Self { id, secret, seed: (suite == Suite::Pqxdh).then(|| rng.random()) }
    }

    pub(crate) fn secret(&self) -> OneTimePrekeySecret {
        let prekey = OneTimePrekeySecret::from_bytes(self.id, &self.secret);
        match &self.seed {
            #[cfg(feature = "pqxdh")]
            Some(seed) => prekey.with_kem(unhidra_e2ee::prekey::KemSeed::from_bytes(seed)),
            _ => prekey,
        }
    }
}

/// What survives the node.
#[derive(Clone)]
pub(crate) struct Store {
    present: Option<Records>,
    previous: Option<Records>,
    recent: VecDeque<MessageTag>,
    pub(crate) peer: PeerRecord,
    pub(crate) prekey: Option<OneTime>,
    pub(crate) signed: Vec<Signed>,
    pub(crate) reading_ids: VecDeque<u64>,
    pub(crate) commands: BTreeMap<u64, OpenCommand>,
}

impl Store {
    /// With a signed prekey, and a device that was enrolled.
    pub(crate) fn new(identity: [u8; 32], now: u64, rng: &mut StdRng) -> Self {
        let peer = PeerRecord { last_counter: 0, next_prekey_id: 1, reset_at: None, restored: false, identity };
        Self {
            present: None,
            previous: None,
            recent: VecDeque::new(),
            peer,
            prekey: None,
            signed: vec![Signed::generate(1, now, rng)],
            reading_ids: VecDeque::new(),
            commands: BTreeMap::new(),
        }
    }

    /// A batch, all of it.
    pub(crate) fn apply(&mut self, writes: &[Write], ledger: &mut Ledger) -> Result<(), Broken> {
        let mut begins = false;
        for write in writes {
            match write {
                Write::Whole(slot, whole) => {
                    begins |= *slot == Slot::Present;
                    *self.slot(*slot) = Some(Records { whole: whole.clone(), ..Records::default() });
                }
                Write::Chain(slot, lane, bytes) => {
                    let Some(records) = self.slot(*slot) else {
                        return Err(Broken("a chain record without its session".into()));
                    };
                    match lane {
                        Lane::Receive => records.receive = Some(bytes.clone()),
                        Lane::Send => records.send = Some(bytes.clone()),
                    }
                }
                Write::Rotate => self.previous = self.present.take(),
                Write::EndPrevious => self.previous = None,
                Write::EndAll => (self.present, self.previous) = (None, None),
                Write::Peer(peer) => self.peer = *peer,
                Write::Prekey(prekey) => {
                    if prekey.is_none() && !begins {
                        return Err(Broken("the node forgot a one-time prekey and began no session".into()));
                    }
                    self.prekey.clone_from(prekey);
                }
                Write::Row(tag, key, reading) => {
                    ledger.node_opened(*key, tag.number)?;
                    remember(&mut self.recent, *tag, RECENT);
                    if let Some(reading) = reading {
                        ledger.shows(*reading)?;
                        remember(&mut self.reading_ids, *reading, READING_IDS);
                    }
                }
                Write::Command(id, Some(open)) => drop(self.commands.insert(*id, *open)),
                Write::Command(id, None) => drop(self.commands.remove(id)),
            }
        }
        Ok(())
    }

    fn slot(&mut self, slot: Slot) -> &mut Option<Records> {
        match slot {
            Slot::Present => &mut self.present,
            Slot::Previous => &mut self.previous,
        }
    }

    /// The sessions as they are read back.
    pub(crate) fn sessions(&self) -> NodeSessions {
        let read = |records: &Option<Records>| {
            let records = records.as_ref()?;
            let session = Session::decode(&records.whole, records.receive.as_deref(), records.send.as_deref());
            Some(session.expect("the store holds what was written"))
        };
        let recent = Recent::from_tags(self.recent.iter().copied());
        Sessions::new(read(&self.present), read(&self.previous), recent)
    }

    /// What is done to a store that was a backup: new prekeys, and a mark on the sessions, which
    /// only receive.
    pub(crate) fn restore(&mut self, new_prekeys: bool, now: u64, rng: &mut StdRng) {
        if new_prekeys {
            let id = self.signed.last().map_or(1, |last| last.id + 1);
            self.signed = vec![Signed::generate(id, now, rng)];
            self.prekey = None;
        }
        self.peer.restored = self.present.is_some();
    }
}

fn remember<T>(ring: &mut VecDeque<T>, new: T, max: usize) {
    if ring.len() >= max {
        ring.pop_front();
    }
    ring.push_back(new);
}

pub(crate) fn encode(session: &NodeSession) -> Vec<u8> {
    let mut out = vec![0; session.encoded_len()];
    let len = session.encode(&mut out).expect("the length it asked for");
    assert_eq!(len, out.len());
    out
}

/// What of a session is to be written.
pub(crate) fn write(slot: Slot, sessions: &NodeSessions, delta: &StateDelta) -> Option<Write> {
    let session = match slot {
        Slot::Present => sessions.present(),
        Slot::Previous => sessions.previous(),
    };
    Some(match delta {
        StateDelta::Whole => Write::Whole(slot, encode(session?)),
        StateDelta::Chain { lane, bytes } => Write::Chain(slot, *lane, bytes.as_slice().to_vec()),
    })
}
