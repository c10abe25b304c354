//! The device's flash: records that are each the old one or the new one, and writes of several
//! that a power cut may end after any of them.

use std::collections::BTreeMap;

use unhidra_core::durable::{Durable, DurableSource};
use unhidra_e2ee::delta::{Lane, StateDelta};
use unhidra_e2ee::recent::{MessageTag, Recent};
use unhidra_e2ee::role::DeviceRole;
use unhidra_e2ee::session::Session;
use unhidra_e2ee::sessions::Sessions;

/// Opened messages that are remembered.
const OPENED: u64 = 32;
/// Command ids that are remembered.
const COMMANDS: u64 = 64;

/// Which of the two places of a session.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Half {
    A,
    B,
}

impl Half {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Record {
    Session(Half),
    Receive(Half),
    Send(Half),
    Opened(u64),
    Command(u64),
}

/// The device lost its power.
pub(crate) struct PowerCut;

/// Ends a write early.
#[derive(Clone, Copy)]
pub(crate) struct Cut {
    /// How many writes are done before it.
    pub(crate) writes: u8,
    /// How many records of it are done.
    pub(crate) records: u8,
}

/// What lies in flash.
#[derive(Clone, Default)]
pub(crate) struct Flash {
    records: BTreeMap<Record, Vec<u8>>,
}

/// What a device reads at boot.
pub(crate) struct ReadBack {
    pub(crate) sessions: Sessions<DeviceRole>,
    pub(crate) present: Half,
    pub(crate) opened_next: u64,
    pub(crate) commands: BTreeMap<u64, u64>,
}

/// What one write puts beside what moved of a session.
#[derive(Default)]
pub(crate) struct More {
    /// The sequence and the name of a message that was opened.
    pub(crate) opened: Option<(u64, MessageTag)>,
    /// The sequence and the id of a command.
    pub(crate) command: Option<(u64, u64)>,
}

pub(crate) fn encode(session: &Session<DeviceRole>) -> Vec<u8> {
    let mut out = vec![0; session.encoded_len()];
    let len = session.encode(&mut out).expect("the length it asked for");
    assert_eq!(len, out.len());
    out
}

impl Flash {
    /// Writes what moved of a session, and more behind it.
    pub(crate) fn write(
        &mut self,
        half: Half,
        session: &Session<DeviceRole>,
        delta: &StateDelta,
        more: &More,
        cut: &mut Option<Cut>,
    ) -> Result<Durable, PowerCut> {
        let mut writes = vec![match delta {
            StateDelta::Whole => (Record::Session(half), encode(session)),
            StateDelta::Chain { lane: Lane::Receive, bytes } => (Record::Receive(half), bytes.as_slice().to_vec()),
            StateDelta::Chain { lane: Lane::Send, bytes } => (Record::Send(half), bytes.as_slice().to_vec()),
        }];
        if let Some((sequence, tag)) = &more.opened {
            let bytes = [&sequence.to_be_bytes()[..], &tag.to_bytes()].concat();
            writes.push((Record::Opened(sequence % OPENED), bytes));
        }
        if let Some((sequence, id)) = &more.command {
            let bytes = [sequence.to_be_bytes(), id.to_be_bytes()].concat();
            writes.push((Record::Command(sequence % COMMANDS), bytes));
        }
        self.put(writes, cut)
    }

    /// Deletes a session.
    pub(crate) fn delete(&mut self, half: Half, cut: &mut Option<Cut>) -> Result<Durable, PowerCut> {
        let records = [Record::Session(half), Record::Receive(half), Record::Send(half)];
        self.put(records.map(|record| (record, Vec::new())).into(), cut)
    }

    fn put(&mut self, writes: Vec<(Record, Vec<u8>)>, cut: &mut Option<Cut>) -> Result<Durable, PowerCut> {
        let done = match cut {
            Some(Cut { writes: 0, records }) => {
                let done = usize::from(*records);
                *cut = None;
                Some(done)
            }
            Some(cut) => {
                cut.writes -= 1;
                None
            }
            None => None,
        };
        self.records.extend(writes.into_iter().take(done.unwrap_or(usize::MAX)));
        match done {
            Some(_) => Err(PowerCut),
            None => Ok(DurableSource::new_for_storage().durable()),
        }
    }

    fn session(&self, half: Half) -> Option<Session<DeviceRole>> {
        let read = |record| self.records.get(&record).filter(|bytes| !bytes.is_empty()).map(Vec::as_slice);
        let whole = read(Record::Session(half))?;
        let session = Session::decode(whole, read(Record::Receive(half)), read(Record::Send(half)));
        Some(session.expect("flash holds what was written"))
    }

    /// Reads everything back, as a boot does.
    pub(crate) fn read(&self) -> ReadBack {
        let (a, b) = (self.session(Half::A), self.session(Half::B));
        let counter = |session: &Option<Session<DeviceRole>>| session.as_ref().map_or(0, Session::counter);
        let (present, sessions) = if counter(&a) >= counter(&b) { (Half::A, (a, b)) } else { (Half::B, (b, a)) };
        let numbered = |bytes: &Vec<u8>| -> Option<(u64, Vec<u8>)> {
            let (sequence, rest) = bytes.split_first_chunk()?;
            Some((u64::from_be_bytes(*sequence), rest.to_vec()))
        };
        let mut opened: BTreeMap<u64, MessageTag> = BTreeMap::new();
        let mut commands = BTreeMap::new();
        for (record, bytes) in &self.records {
            let Some((sequence, rest)) = numbered(bytes) else { continue };
            match record {
                Record::Opened(_) => {
                    let tag = rest.as_slice().try_into().expect("a name has 12 bytes");
                    opened.insert(sequence, MessageTag::from_bytes(tag));
                }
                Record::Command(_) => {
                    let id = rest.as_slice().try_into().expect("an id has 8 bytes here");
                    commands.insert(sequence, u64::from_be_bytes(id));
                }
                Record::Session(_) | Record::Receive(_) | Record::Send(_) => {}
            }
        }
        let opened_next = opened.last_key_value().map_or(1, |(last, _)| last + 1);
        let recent = Recent::from_tags(opened.into_values());
        ReadBack { sessions: Sessions::new(sessions.0, sessions.1, recent), present, opened_next, commands }
    }
}
