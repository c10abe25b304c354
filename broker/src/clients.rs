//! Who is here: the sessions and their connections, for those who look after the node.

use unhidra_core::ids::ClientId;
use unhidra_core::time::{Timestamp, UnixTime};

use crate::Broker;
use crate::doors::Owner;
use crate::packet::Version;
use crate::session::table::{Seen, SessionKey};

/// How many sessions one look passes at most, so that it holds the lock for a moment only.
pub(crate) const PASSED_MAX: usize = 1024;

/// Names one session.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct SessionName {
    /// Whose it is.
    pub owner: Owner,
    /// Which of its owner's.
    pub client_id: ClientId,
}

/// A session, and the connection that carries it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientRecord {
    /// Which.
    pub name: SessionName,
    /// Its connection, or when it ends without one.
    pub standing: ClientStanding,
    /// Topic Filters, and for a device the rows it listens on.
    pub subscriptions: usize,
    /// Messages that wait for it.
    pub queued_messages: usize,
    /// What they take in memory, in bytes.
    pub queued_bytes: usize,
    /// Messages that did not come to it since the node started: it was away, or too slow.
    pub dropped: u64,
    /// Messages it has been sent and has not acknowledged.
    pub in_flight: usize,
}

/// Whether a session's client is here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ClientStanding {
    /// It is.
    Here {
        /// Where it comes from.
        peer: Box<str>,
        /// The listener it came in by.
        listener: &'static str,
        /// What it speaks.
        version: Version,
        /// Since when.
        since: UnixTime,
        /// The Keep Alive that holds, in s; 0 is none.
        keep_alive_s: u16,
    },
    /// It comes or goes at this moment.
    Passing,
    /// It is not: its session waits.
    Away {
        /// Until then.
        until: UnixTime,
    },
}

/// A run of sessions.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientsPage {
    /// In the order of their names.
    pub clients: Vec<ClientRecord>,
    /// Where the next run begins; nowhere behind the last.
    pub next: Option<SessionName>,
}

impl From<&SessionKey> for SessionName {
    fn from(key: &SessionKey) -> Self {
        Self { owner: key.owner().clone(), client_id: key.client_id().clone() }
    }
}

impl From<&SessionName> for SessionKey {
    fn from(name: &SessionName) -> Self {
        Self::owned(name.owner.clone(), name.client_id.clone())
    }
}

impl Broker {
    /// Sessions in the order of their names, behind `after`, that `wanted` lets through: at most
    /// `max`. A run may be short of it, or empty, and yet have a next one.
    #[must_use]
    pub fn clients(
        &self,
        after: Option<&SessionName>,
        max: usize,
        wanted: impl Fn(&ClientRecord) -> bool,
    ) -> ClientsPage {
        let page = self.sessions().page(after.map(SessionKey::from).as_ref(), PASSED_MAX);
        let is_last = page.len() < PASSED_MAX;
        let (now, unix_now) = (self.doors.clock.now(), self.doors.clock.unix_now());
        let mut clients = Vec::new();
        let mut last = None;
        for (key, seen) in &page {
            if clients.len() >= max.max(1) {
                return ClientsPage { clients, next: last };
            }
            let record = record(key, seen, now, unix_now);
            last = Some(record.name.clone());
            if wanted(&record) {
                clients.push(record);
            }
        }
        ClientsPage { clients, next: last.filter(|_| !is_last) }
    }
}

pub(crate) fn record(key: &SessionKey, seen: &Seen, now: Timestamp, unix_now: UnixTime) -> ClientRecord {
    let name = SessionName::from(key);
    let (standing, queue, subscriptions, in_flight) = match seen {
        Seen::Live(mailbox) => match mailbox.facts() {
            Some(facts) => {
                let holdings = facts.holdings();
                let standing = ClientStanding::Here {
                    peer: facts.peer.clone(),
                    listener: facts.listener,
                    version: facts.version,
                    since: facts.since,
                    keep_alive_s: facts.keep_alive_s,
                };
                (standing, Some(&facts.queue), holdings.subscriptions, holdings.in_flight)
            }
            None => (ClientStanding::Passing, None, 0, 0),
        },
        Seen::Stored { queue, subscriptions, in_flight, expires_at } => {
            let until = unix_now.saturating_add(expires_at.saturating_since(now));
            (ClientStanding::Away { until }, Some(queue), *subscriptions, *in_flight)
        }
    };
    let queued = queue.map(|queue| queue.depth()).unwrap_or_default();
    ClientRecord {
        name,
        standing,
        subscriptions,
        queued_messages: queued.messages,
        queued_bytes: queued.bytes,
        dropped: queued.dropped,
        in_flight,
    }
}
