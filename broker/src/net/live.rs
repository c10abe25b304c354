//! The connections there are, and whose they are.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use unhidra_core::ids::DeviceId;

use super::mailbox::Mailbox;
use crate::doors::ConnectionId;

/// The connections there are.
#[derive(Debug)]
pub(crate) struct Live {
    inner: Arc<Inner>,
    max: usize,
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
    /// Of each device, oldest first. Bounded by `connections`.
    devices: HashMap<DeviceId, Vec<Arc<Mailbox>>>,
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
}

impl Live {
    pub(crate) fn new(max: usize) -> Self {
        let members = Members { next: 1, door: Door::Open, connections: BTreeMap::new(), devices: HashMap::new() };
        Self { inner: Arc::new(Inner { members: Mutex::new(members), emptied: Notify::new() }), max }
    }

    /// Takes in one more connection, unless there are too many or the door is closed.
    pub(crate) fn enter(&self, mailbox: impl FnOnce(ConnectionId) -> Mailbox) -> Option<Seat> {
        let mut members = self.inner.lock();
        if members.door == Door::Closed || members.connections.len() >= self.max {
            return None;
        }
        let id = ConnectionId(members.next);
        members.next += 1;
        let mailbox = Arc::new(mailbox(id));
        members.connections.insert(id, mailbox.clone());
        Some(Seat { inner: self.inner.clone(), mailbox })
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

    pub(crate) fn add_device(&self, device: &DeviceId, mailbox: Arc<Mailbox>) {
        self.inner.lock().devices.entry(*device).or_default().push(mailbox);
    }

    pub(crate) fn remove_device(&self, device: &DeviceId, connection: ConnectionId) {
        let mut members = self.inner.lock();
        if let Some(mailboxes) = members.devices.get_mut(device) {
            mailboxes.retain(|mailbox| mailbox.id() != connection);
            if mailboxes.is_empty() {
                members.devices.remove(device);
            }
        }
    }

    /// A device's connections, oldest first.
    pub(crate) fn of_device(&self, device: &DeviceId) -> Vec<Arc<Mailbox>> {
        self.inner.lock().devices.get(device).cloned().unwrap_or_default()
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
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut members = self.inner.lock();
        members.connections.remove(&self.mailbox.id());
        if members.connections.is_empty() {
            self.inner.emptied.notify_waiters();
        }
    }
}
