//! What a device has to say and the node does not have yet, and the packets on their way.

use crate::said::Said;

/// How many publishes may follow the oldest that is unacknowledged.
const AFTER_OLDEST_MAX: u64 = 31;
/// How long what was refused waits, in ms, where no session begins before.
const REFUSED_WAIT: u64 = 600_000;
/// Of more, the newest are not taken.
const WAITING_MAX: usize = 64;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Waiting,
    Sent { publication: u64, session: u32 },
    Refused { at: u64, session: u32 },
}

struct Entry {
    said: Said,
    state: State,
    /// The session the node refused it in last.
    refused_in: Option<u32>,
}

/// What an acknowledgement brings about.
pub(crate) enum Settled {
    /// The node has it.
    Done(Said),
    /// It is sealed anew later, or there was nothing.
    Waits,
    /// The node refused it again, in the session it was sealed anew in.
    RefusedAgain,
}

/// A publish that waits for its acknowledgement: the same bytes are sent again on a new
/// connection.
struct Packet {
    order: u64,
    publication: u64,
    is_get: bool,
    bytes: Vec<u8>,
}

/// Lives in RAM.
#[derive(Default)]
pub(crate) struct Outbox {
    entries: Vec<Entry>,
    window: Vec<Packet>,
    published: u64,
}

impl Outbox {
    /// Takes what is to be said. Whether there was room.
    pub(crate) fn push(&mut self, said: Said) -> bool {
        let room = self.entries.len() < WAITING_MAX;
        if room {
            self.entries.push(Entry { said, state: State::Waiting, refused_in: None });
        }
        room
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether one more may be published.
    pub(crate) fn has_room(&self, bounded: bool) -> bool {
        let oldest = self.window.iter().map(|packet| packet.order).min();
        !bounded || oldest.is_none_or(|oldest| self.published - oldest < AFTER_OLDEST_MAX + 1)
    }

    /// What is to be sealed next in this session.
    pub(crate) fn next(&self, session: u32) -> Option<(usize, Said)> {
        let due = |entry: &(usize, &Entry)| match entry.1.state {
            State::Waiting => true,
            State::Refused { session: refused_by, .. } => refused_by != session,
            State::Sent { .. } => false,
        };
        self.entries.iter().enumerate().find(due).map(|(at, entry)| (at, entry.said))
    }

    /// Puts a packet behind those on their way.
    pub(crate) fn publish(&mut self, publication: u64, is_get: bool, bytes: &[u8]) {
        self.window.push(Packet { order: self.published, publication, is_get, bytes: bytes.to_vec() });
        self.published += 1;
    }

    /// Something was published at QoS 0: it counts, and is forgotten.
    pub(crate) fn published_in_vain(&mut self) {
        self.published += 1;
    }

    /// What is unacknowledged counts as refused: what a device does that hears no refusal, once it
    /// has been sent over three connections.
    pub(crate) fn give_up(&mut self, now: u64) {
        self.window.clear();
        for entry in &mut self.entries {
            if let State::Sent { session, .. } = entry.state {
                entry.state = State::Refused { at: now, session };
            }
        }
    }

    pub(crate) fn sent(&mut self, at: usize, publication: u64, session: u32) {
        self.entries[at].state = State::Sent { publication, session };
    }

    /// PUBACK.
    pub(crate) fn acknowledged(&mut self, publication: u64, accepted: bool, now: u64, seal_anew: bool) -> Settled {
        self.window.retain(|packet| packet.publication != publication);
        let of = |state: State| match state {
            State::Sent { publication: sent, session } if sent == publication => Some(session),
            _ => None,
        };
        let Some(at) = self.entries.iter().position(|entry| of(entry.state).is_some()) else { return Settled::Waits };
        if accepted {
            return Settled::Done(self.entries.remove(at).said);
        }
        if !seal_anew {
            self.entries.remove(at);
            return Settled::Waits;
        }
        let entry = &mut self.entries[at];
        let session = of(entry.state).unwrap_or_default();
        entry.state = State::Refused { at: now, session };
        match entry.refused_in.replace(session) {
            Some(before) if before == session => Settled::RefusedAgain,
            _ => Settled::Waits,
        }
    }

    /// What was refused long enough ago waits again.
    pub(crate) fn handle_time(&mut self, now: u64) {
        for entry in &mut self.entries {
            if matches!(entry.state, State::Refused { at, .. } if now.saturating_sub(at) >= REFUSED_WAIT) {
                entry.state = State::Waiting;
            }
        }
    }

    /// Everything that is sent again on a new connection.
    pub(crate) fn rewind(&self) -> impl Iterator<Item = (u64, bool, &[u8])> {
        self.window.iter().map(|packet| (packet.publication, packet.is_get, packet.bytes.as_slice()))
    }

    /// Forgets what is on its way, so that it is sealed anew: what a device does that knows no
    /// better.
    pub(crate) fn forget_packets(&mut self) {
        self.window.clear();
        for entry in &mut self.entries {
            entry.state = State::Waiting;
        }
    }
}
