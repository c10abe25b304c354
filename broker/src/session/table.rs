//! All sessions, by identity and Client Identifier: those a connection carries and those that wait
//! for one. No I/O, no clock.

mod look;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use unhidra_core::ids::{ClientId, DeviceId};
use unhidra_core::time::{Timestamp, UnixTime};

use super::Resumable;
use crate::doors::{Admitted, Owner};
use crate::net::mailbox::Mailbox;
use crate::packet::Will;
use crate::router::SubscriberId;
use crate::router::queue::Queue;

pub(crate) use look::Seen;

/// Whose session, and which: nobody takes over a session of another identity. Shared: the table, the
/// queue and the connection of each session have it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct SessionKey(Arc<Name>);

#[derive(Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Name {
    owner: Owner,
    client_id: ClientId,
}

impl SessionKey {
    pub(crate) fn new(who: &Admitted, client_id: ClientId) -> Self {
        Self(Arc::new(Name { owner: Owner::from(who), client_id }))
    }

    pub(crate) fn client_id(&self) -> &ClientId {
        &self.0.client_id
    }
}

/// A session no connection carries.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) resumable: Resumable,
    pub(crate) subscriber: SubscriberId,
    pub(crate) queue: Arc<Queue>,
    pub(crate) expires_at: Timestamp,
    /// The same as it is written down: so long after that.
    pub(crate) expiry_s: u32,
    pub(crate) left_at: UnixTime,
    /// What is published then, unless the session is taken up before.
    pub(crate) will: Option<(Timestamp, Will)>,
}

/// The sessions.
#[derive(Debug)]
pub(crate) struct Table {
    entries: BTreeMap<SessionKey, Entry>,
    /// When something becomes of a stored session: its Will, or its end.
    due: BTreeSet<(Timestamp, SessionKey)>,
    max: usize,
}

#[derive(Debug)]
enum Entry {
    Live(Arc<Mailbox>),
    Stored(Box<Stored>),
}

/// What a CONNECT finds.
#[derive(Debug)]
pub(crate) enum Claim {
    /// No session: it begins one. `ended` are those that had to go for it.
    New { ended: Option<Box<Stored>> },
    /// Its session, to go on with.
    Resumed(Box<Stored>),
    /// Another connection carries the session: take it over, and ask again when it has ended.
    Live(Arc<Mailbox>),
    /// There are as many sessions as may be, and a connection carries each.
    Full,
}

/// What became of a stored session.
#[derive(Debug)]
pub(crate) enum Due {
    /// Its Will is published.
    Will(SessionKey, Will),
    /// It has expired.
    Ended(Box<Stored>),
}

impl Stored {
    fn due_at(&self) -> Timestamp {
        self.will.as_ref().map_or(self.expires_at, |(at, _)| self.expires_at.min(*at))
    }
}

impl Table {
    pub(crate) const fn new(max: usize) -> Self {
        Self { entries: BTreeMap::new(), due: BTreeSet::new(), max }
    }

    /// A connection asks for a session; it has it, unless [`Claim::Live`] or [`Claim::Full`].
    pub(crate) fn claim(&mut self, key: &SessionKey, connection: &Arc<Mailbox>, clean_start: bool) -> Claim {
        let claim = match self.entries.get(key) {
            Some(Entry::Live(mailbox)) => return Claim::Live(mailbox.clone()),
            Some(Entry::Stored(_)) => match self.take_stored(key) {
                Some(stored) if !clean_start => Claim::Resumed(stored),
                ended => Claim::New { ended },
            },
            None if self.entries.len() < self.max => Claim::New { ended: None },
            None => match self.nearest_end() {
                Some(nearest) => Claim::New { ended: self.take_stored(&nearest) },
                None => return Claim::Full,
            },
        };
        self.entries.insert(key.clone(), Entry::Live(connection.clone()));
        claim
    }

    /// The connection that carries a session has ended: it is stored, or gone.
    pub(crate) fn release(&mut self, key: &SessionKey, stored: Option<Box<Stored>>) {
        match stored {
            None => {
                self.entries.remove(key);
            }
            Some(stored) => {
                self.due.insert((stored.due_at(), key.clone()));
                self.entries.insert(key.clone(), Entry::Stored(stored));
            }
        }
    }

    /// Takes away what is stored of a device.
    pub(crate) fn discard(&mut self, device: &DeviceId) -> Vec<Stored> {
        let owned = |(key, entry): (&SessionKey, &Entry)| match entry {
            Entry::Stored(_) if key.0.owner == Owner::Device(*device) => Some(key.clone()),
            Entry::Stored(_) | Entry::Live(_) => None,
        };
        let keys: Vec<SessionKey> = self.entries.iter().filter_map(owned).collect();
        keys.iter().filter_map(|key| self.take_stored(key)).map(|stored| *stored).collect()
    }

    /// The stored session that ends first, of those without a Will that is due before.
    fn nearest_end(&self) -> Option<SessionKey> {
        let ends = |at: Timestamp, key: &SessionKey| self.stored(key).is_some_and(|stored| stored.expires_at == at);
        let nearest = self.due.iter().find(|(at, key)| ends(*at, key)).or_else(|| self.due.first());
        nearest.map(|(_, key)| key.clone())
    }

    /// A session that no connection carries.
    pub(crate) fn stored(&self, key: &SessionKey) -> Option<&Stored> {
        match self.entries.get(key)? {
            Entry::Stored(stored) => Some(stored),
            Entry::Live(_) => None,
        }
    }

    /// Takes away those that are over the bound: those that end first.
    pub(crate) fn shrink(&mut self) -> Vec<Stored> {
        let mut ended = Vec::new();
        while self.entries.len() > self.max
            && let Some(key) = self.nearest_end()
        {
            ended.extend(self.take_stored(&key).map(|stored| *stored));
        }
        ended
    }

    /// When to call [`Table::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp) -> Vec<Due> {
        let mut what = Vec::new();
        while let Some((_, key)) = self.due.first().filter(|(at, _)| *at <= now).cloned() {
            let Some(mut stored) = self.take_stored(&key) else { continue };
            if stored.expires_at <= now {
                what.push(Due::Ended(stored));
            } else {
                what.extend(stored.will.take().map(|(_, will)| Due::Will(key.clone(), will)));
                self.release(&key, Some(stored));
            }
        }
        what
    }

    fn take_stored(&mut self, key: &SessionKey) -> Option<Box<Stored>> {
        match self.entries.remove(key)? {
            Entry::Stored(stored) => {
                self.due.remove(&(stored.due_at(), key.clone()));
                Some(stored)
            }
            live @ Entry::Live(_) => {
                self.entries.insert(key.clone(), live);
                None
            }
        }
    }
}

/// When a Will is due after a connection's end: at once, or after its delay, but no later than the
/// session's end (section 3.1.3.2.2).
pub(crate) fn will_due(now: Timestamp, delay_s: u32, expiry_s: u32) -> Option<Timestamp> {
    match delay_s.min(expiry_s) {
        0 => None,
        s => Some(now.saturating_add(Duration::from_secs(u64::from(s)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::limits;
    use crate::doors::ConnectionId;
    use crate::packet::{Properties, QoS, Text};
    use crate::router::queue::Terms;

    fn key(who: &Admitted, id: &str) -> SessionKey {
        SessionKey::new(who, ClientId::parse(id).expect("an id"))
    }

    fn device(id: &str) -> Admitted {
        Admitted::Device(DeviceId::parse(id).expect("an id"))
    }

    fn mailbox(number: u64) -> Arc<Mailbox> {
        Arc::new(Mailbox::new(ConnectionId(number), 8))
    }

    fn stored(expires_s: u64, will_s: Option<u64>) -> Box<Stored> {
        let (topic, payload) = (Text::from("w"), bytes::Bytes::new());
        let will = Will { topic, payload, qos: QoS::AtMostOnce, retain: false, properties: Properties::default() };
        Box::new(Stored {
            resumable: Resumable::default(),
            subscriber: SubscriberId(1),
            queue: Arc::new(Queue::new(key(&Admitted::Client(None), "c"), Arc::new(Terms::of(&limits())))),
            expires_at: Timestamp::from_ms(expires_s * 1000),
            expiry_s: 0,
            left_at: UnixTime::EPOCH,
            will: will_s.map(|s| (Timestamp::from_ms(s * 1000), will)),
        })
    }

    #[test]
    fn a_session_is_its_identitys_alone() {
        let mut table = Table::new(10);
        let (a, b) = (key(&device("a"), "x"), key(&device("b"), "x"));
        assert!(matches!(table.claim(&a, &mailbox(1), false), Claim::New { ended: None }));
        assert!(matches!(table.claim(&b, &mailbox(2), false), Claim::New { ended: None }));
        assert!(matches!(table.claim(&key(&Admitted::Client(None), "x"), &mailbox(3), false), Claim::New { .. }));
        assert!(matches!(table.claim(&a, &mailbox(4), false), Claim::Live(live) if live.id() == ConnectionId(1)));
    }

    #[test]
    fn a_stored_session_is_resumed_or_thrown_away() {
        let mut table = Table::new(10);
        let a = key(&Admitted::Client(None), "a");
        table.release(&a, Some(stored(10, None)));
        assert!(matches!(table.claim(&a, &mailbox(1), false), Claim::Resumed(_)));
        table.release(&a, Some(stored(10, None)));
        assert!(matches!(table.claim(&a, &mailbox(2), true), Claim::New { ended: Some(_) }));
        table.release(&a, None);
        assert_eq!((table.entries.len(), table.poll_timeout()), (0, None));
    }

    #[test]
    fn a_will_is_due_before_its_session_ends() {
        let mut table = Table::new(10);
        table.release(&key(&Admitted::Client(None), "a"), Some(stored(10, Some(4))));
        assert_eq!(table.poll_timeout(), Some(Timestamp::from_ms(4000)));
        assert!(table.handle_timeout(Timestamp::from_ms(3999)).is_empty());
        assert!(matches!(table.handle_timeout(Timestamp::from_ms(4000))[..], [Due::Will(..)]));
        assert!(matches!(table.handle_timeout(Timestamp::from_ms(10_000))[..], [Due::Ended(_)]));
        assert_eq!(table.entries.len(), 0);
    }

    #[test]
    fn a_full_table_gives_up_what_expires_first_and_never_a_live_one() {
        let mut table = Table::new(2);
        // Its Will is due first of all, and is no reason.
        table.release(&key(&Admitted::Client(None), "late"), Some(stored(20, Some(4))));
        table.release(&key(&Admitted::Client(None), "soon"), Some(stored(10, None)));
        let claim = table.claim(&key(&Admitted::Client(None), "new"), &mailbox(1), false);
        assert!(matches!(claim, Claim::New { ended: Some(s) } if s.expires_at == Timestamp::from_ms(10_000)));
        assert!(matches!(
            table.claim(&key(&Admitted::Client(None), "more"), &mailbox(2), false),
            Claim::New { ended: Some(_) }
        ));
        assert!(matches!(table.claim(&key(&Admitted::Client(None), "most"), &mailbox(3), false), Claim::Full));
    }

    #[test]
    fn what_is_stored_of_a_device_can_be_discarded() {
        let mut table = Table::new(10);
        for id in ["x", "y"] {
            table.release(&key(&device("a"), id), Some(stored(10, None)));
        }
        table.release(&key(&device("b"), "x"), Some(stored(10, None)));
        table.claim(&key(&device("a"), "live"), &mailbox(1), false);
        assert_eq!(table.discard(&DeviceId::parse("a").expect("an id")).len(), 2);
        assert_eq!((table.entries.len(), table.due.len()), (2, 1));
    }
}
