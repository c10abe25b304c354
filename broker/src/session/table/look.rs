//! A look at the sessions, a page at a time, so that whoever looks holds up nobody.

use std::ops::Bound;
use std::sync::Arc;

use unhidra_core::ids::ClientId;
use unhidra_core::time::Timestamp;

use super::{Entry, Name, SessionKey, Stored, Table};
use crate::acl::Principal;
use crate::doors::{Admitted, Owner, UserName};
use crate::net::mailbox::Mailbox;
use crate::router::queue::Queue;

/// A session, as it was found.
#[derive(Debug)]
pub(crate) enum Seen {
    /// A connection carries it.
    Live(Arc<Mailbox>),
    /// It waits for one.
    Stored { queue: Arc<Queue>, subscriptions: usize, in_flight: usize, expires_at: Timestamp },
}

impl SessionKey {
    pub(crate) fn owned(owner: Owner, client_id: ClientId) -> Self {
        Self(Arc::new(Name { owner, client_id }))
    }

    pub(crate) fn owner(&self) -> &Owner {
        &self.0.owner
    }

    /// Who it is to the rules.
    pub(crate) fn principal(&self) -> Principal {
        let who = match &self.0.owner {
            Owner::Device(device) => Admitted::Device(*device),
            Owner::User(user) => Admitted::Client(Some(user.clone())),
            Owner::Anybody => Admitted::Client(None),
        };
        Principal::new(who, self.0.client_id.clone())
    }

    fn is_users(&self, user: &UserName) -> bool {
        matches!(&self.0.owner, Owner::User(owner) if owner == user)
    }
}

impl Table {
    /// At most `max` sessions behind one, in the order of their owners and identifiers.
    pub(crate) fn page(&self, after: Option<&SessionKey>, max: usize) -> Vec<(SessionKey, Seen)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let found = self.entries.range::<SessionKey, _>((from, Bound::Unbounded)).take(max);
        found.map(|(key, entry)| (key.clone(), entry.seen())).collect()
    }

    /// One session.
    pub(crate) fn get(&self, key: &SessionKey) -> Option<Seen> {
        self.entries.get(key).map(Entry::seen)
    }

    /// Every session: the mailbox of its connection, or what is stored of it.
    pub(crate) fn each(&mut self, mut see: impl FnMut(&SessionKey, Result<&Arc<Mailbox>, &mut Stored>)) {
        for (key, entry) in &mut self.entries {
            match entry {
                Entry::Live(mailbox) => see(key, Ok(mailbox)),
                Entry::Stored(stored) => see(key, Err(stored)),
            }
        }
    }

    /// The connections of a user.
    pub(crate) fn of_user(&self, user: &UserName) -> Vec<Arc<Mailbox>> {
        let live = |(key, entry): (&SessionKey, &Entry)| match entry {
            Entry::Live(mailbox) if key.is_users(user) => Some(mailbox.clone()),
            Entry::Live(_) | Entry::Stored(_) => None,
        };
        self.entries.iter().filter_map(live).collect()
    }

    /// Takes away what is stored of a user.
    pub(crate) fn discard_user(&mut self, user: &UserName) -> Vec<Stored> {
        let keys: Vec<SessionKey> = self.entries.keys().filter(|key| key.is_users(user)).cloned().collect();
        keys.iter().filter_map(|key| self.take_stored(key)).map(|stored| *stored).collect()
    }

    /// Takes away a stored session. One that a connection carries stays.
    pub(crate) fn forget(&mut self, key: &SessionKey) -> Option<Box<Stored>> {
        self.take_stored(key)
    }
}

impl Entry {
    fn seen(&self) -> Seen {
        match self {
            Self::Live(mailbox) => Seen::Live(mailbox.clone()),
            Self::Stored(stored) => Seen::Stored {
                queue: stored.queue.clone(),
                subscriptions: stored.resumable.subscriptions.len() + stored.resumable.rows.len(),
                in_flight: stored.resumable.in_flight.len() + stored.resumable.releasing.len(),
                expires_at: stored.expires_at,
            },
        }
    }
}
