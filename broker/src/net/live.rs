//! The connections there are, and whose they are.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use unhidra_core::ids::DeviceId;

use super::mailbox::Mailbox;
use super::revoked::{Revoked, Serial};
use crate::doors::{ConnectionId, PeerCertificate};

/// The connections there are.
#[derive(Debug)]
pub(crate) struct Live {
    inner: Arc<Inner>,
    max: usize,
    antechamber_max: usize,
}

#[derive(Debug)]
struct Inner {
    members: Mutex<Members>,
    emptied: Notify,
}

#[derive(Debug)]
struct Members {
    next: u64,
    door: Door,
    connections: BTreeMap<ConnectionId, Arc<Mailbox>>,
    /// How many are only to be told why they may not come in.
    antechamber: usize,
    /// Of each device, oldest first. Bounded by `connections`.
    devices: HashMap<DeviceId, Vec<Connected>>,
}

/// A connection with a certificate.
#[derive(Debug)]
struct Connected {
    mailbox: Arc<Mailbox>,
    serials: Arc<[Serial]>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Door {
    Open,
    Closed,
}

/// One connection's place, given back when it is dropped.
pub(crate) struct Seat {
    inner: Arc<Inner>,
    mailbox: Arc<Mailbox>,
    place: Place,
}

/// Where a connection sits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    /// Among those who are served.
    Inside,
    /// Among those who are told why they are not, and then close.
    Antechamber(Closed),
}

/// Why nobody comes in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Closed {
    /// There are as many as may be.
    Full,
    /// The node ends.
    Draining,
}

impl Live {
    pub(crate) fn new(max: usize, antechamber_max: usize) -> Self {
        let members = Members {
            next: 1,
            door: Door::Open,
            connections: BTreeMap::new(),
            antechamber: 0,
            devices: HashMap::new(),
        };
        let inner = Arc::new(Inner { members: Mutex::new(members), emptied: Notify::new() });
        Self { inner, max, antechamber_max }
    }

    /// Takes in one more connection. Where there are too many, or the door is closed, it gets a
    /// place in the antechamber.
    ///
    /// # Errors
    ///
    /// There is none left either.
    pub(crate) fn enter(&self, mailbox: impl FnOnce(ConnectionId) -> Mailbox) -> Result<Seat, Closed> {
        let mut members = self.inner.lock();
        let closed = match members.door {
            Door::Closed => Some(Closed::Draining),
            Door::Open if members.connections.len() >= self.max => Some(Closed::Full),
            Door::Open => None,
        };
        let id = ConnectionId(members.next);
        let mailbox = Arc::new(mailbox(id));
        let place = match closed {
            None => {
                members.connections.insert(id, mailbox.clone());
                Place::Inside
            }
            Some(closed) if members.antechamber >= self.antechamber_max => return Err(closed),
            Some(closed) => {
                members.antechamber += 1;
                Place::Antechamber(closed)
            }
        };
        members.next += 1;
        Ok(Seat { inner: self.inner.clone(), mailbox, place })
    }

    /// Takes in nobody any more, and gives all who are in, in the order they came.
    pub(crate) fn close(&self) -> Vec<Arc<Mailbox>> {
        let mut members = self.inner.lock();
        members.door = Door::Closed;
        members.connections.values().cloned().collect()
    }

    /// Completes when nobody is in.
    pub(crate) async fn emptied(&self) {
        loop {
            // Made before the look, so that the last one leaving between the two is not missed.
            let emptied = self.inner.emptied.notified();
            if self.inner.lock().connections.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    pub(crate) fn add_device(&self, peer: &PeerCertificate, mailbox: Arc<Mailbox>) {
        let connected = Connected { mailbox, serials: peer.serials.clone() };
        self.inner.lock().devices.entry(peer.device).or_default().push(connected);
    }

    pub(crate) fn remove_device(&self, device: &DeviceId, connection: ConnectionId) {
        let mut members = self.inner.lock();
        if let Some(mailboxes) = members.devices.get_mut(device) {
            mailboxes.retain(|connected| connected.mailbox.id() != connection);
            if mailboxes.is_empty() {
                members.devices.remove(device);
            }
        }
    }

    /// A device's connections, oldest first.
    pub(crate) fn of_device(&self, device: &DeviceId) -> Vec<Arc<Mailbox>> {
        let members = self.inner.lock();
        let connections = members.devices.get(device).map(Vec::as_slice).unwrap_or_default();
        connections.iter().map(|connected| connected.mailbox.clone()).collect()
    }

    /// The connections whose certificate, or one it hangs on, is revoked.
    pub(crate) fn of_revoked(&self, revoked: &Revoked) -> Vec<Arc<Mailbox>> {
        let members = self.inner.lock();
        let connections = members.devices.values().flatten();
        let ended = connections.filter(|connected| revoked.holds_any(&connected.serials));
        ended.map(|connected| connected.mailbox.clone()).collect()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    pub(crate) const fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// Why it does not come in, if it does not.
    pub(crate) const fn closed(&self) -> Option<Closed> {
        match self.place {
            Place::Inside => None,
            Place::Antechamber(closed) => Some(closed),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut members = self.inner.lock();
        match self.place {
            Place::Inside => members.connections.remove(&self.mailbox.id()),
            Place::Antechamber(_) => {
                members.antechamber = members.antechamber.saturating_sub(1);
                return;
            }
        };
        if members.connections.is_empty() {
            self.inner.emptied.notify_waiters();
        }
    }
}
