//! The commands of one device, from the node's side: sealed anew under the same id until the
//! device has one, or its time is over.

use std::collections::BTreeMap;

use crate::store::{OpenCommand, Write};

/// Sealed and not acknowledged, at once.
const IN_FLIGHT_MAX: usize = 8;
/// Of more, the newest are not taken.
const OPEN_MAX: usize = 32;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Progress {
    Waiting,
    InFlight(u64),
    /// In flight, and sealed before the device listened anew or a new session began.
    Overtaken(u64),
    Held,
    Delivered,
}

struct Entry {
    id: u64,
    expires_at: u64,
    progress: Progress,
}

impl Entry {
    fn ticket(&self) -> Option<u64> {
        match self.progress {
            Progress::InFlight(ticket) | Progress::Overtaken(ticket) => Some(ticket),
            Progress::Waiting | Progress::Held | Progress::Delivered => None,
        }
    }

    fn as_write(&self) -> Write {
        let delivered = self.progress == Progress::Delivered;
        Write::Command(self.id, Some(OpenCommand { expires_at: self.expires_at, delivered }))
    }
}

/// Lives in RAM.
pub(crate) struct Commands(Vec<Entry>);

impl Commands {
    pub(crate) fn read(stored: &BTreeMap<u64, OpenCommand>) -> Self {
        let progress = |open: &OpenCommand| if open.delivered { Progress::Delivered } else { Progress::Waiting };
        let entry =
            |(id, open): (&u64, &OpenCommand)| Entry { id: *id, expires_at: open.expires_at, progress: progress(open) };
        Self(stored.iter().map(entry).collect())
    }

    /// Whether the device has every command; it need not have answered.
    pub(crate) fn is_quiet(&self) -> bool {
        self.0.iter().all(|entry| entry.progress == Progress::Delivered)
    }

    pub(crate) fn push(&mut self, id: u64, expires_at: u64) -> Option<Write> {
        if self.0.len() >= OPEN_MAX {
            return None;
        }
        let entry = Entry { id, expires_at, progress: Progress::Waiting };
        let written = entry.as_write();
        self.0.push(entry);
        Some(written)
    }

    /// What may be sealed next.
    pub(crate) fn next(&self) -> Option<(u64, u64)> {
        let in_flight = self.0.iter().filter(|entry| entry.ticket().is_some()).count();
        let waiting = self.0.iter().find(|entry| entry.progress == Progress::Waiting);
        waiting.filter(|_| in_flight < IN_FLIGHT_MAX).map(|entry| (entry.id, entry.expires_at))
    }

    pub(crate) fn sent(&mut self, id: u64, ticket: u64) -> Option<Write> {
        let entry = self.0.iter_mut().find(|entry| entry.id == id)?;
        entry.progress = Progress::InFlight(ticket);
        Some(entry.as_write())
    }

    pub(crate) fn published(&mut self, ticket: u64, accepted: bool) -> Option<Write> {
        let entry = self.0.iter_mut().find(|entry| entry.ticket() == Some(ticket))?;
        entry.progress = match entry.progress {
            _ if accepted => Progress::Delivered,
            Progress::Overtaken(_) => Progress::Waiting,
            _ => Progress::Held,
        };
        Some(entry.as_write())
    }

    /// A new session has begun: what the device refused, or will refuse, is sent again in it.
    pub(crate) fn release(&mut self) {
        for entry in &mut self.0 {
            entry.progress = match entry.progress {
                Progress::Held => Progress::Waiting,
                Progress::InFlight(ticket) => Progress::Overtaken(ticket),
                other => other,
            };
        }
    }

    pub(crate) fn connection_ended(&mut self) {
        let lost = |entry: &&mut Entry| entry.ticket().is_some() || entry.progress == Progress::Held;
        for entry in self.0.iter_mut().filter(lost) {
            entry.progress = Progress::Waiting;
        }
    }

    pub(crate) fn answered(&mut self, id: u64) -> Option<Write> {
        let at = self.0.iter().position(|entry| entry.id == id)?;
        self.0.remove(at);
        Some(Write::Command(id, None))
    }

    pub(crate) fn expire(&mut self, now: u64) -> Vec<Write> {
        let over: Vec<u64> = self.0.iter().filter(|entry| entry.expires_at <= now).map(|entry| entry.id).collect();
        self.0.retain(|entry| !over.contains(&entry.id));
        over.into_iter().map(|id| Write::Command(id, None)).collect()
    }

    /// What a node does that repeats nothing after a crash.
    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }
}
