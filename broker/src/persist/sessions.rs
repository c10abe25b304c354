//! What is written of a session as a whole: that it is there, whose, until when.

use std::sync::Arc;

use unhidra_core::time::UnixTime;

use super::Keeper;
use super::forget;
use super::journal::Written;
use super::queued::{Exchange, number_key};
use super::session::{SessionRecord, filter_key, interest_change, row_key};
use crate::Broker;
use crate::doors::{Change, PersistTable};
use crate::net::mailbox::Mailbox;
use crate::packet::Will;
use crate::router::SubscriberId;
use crate::router::message::Queued;
use crate::router::queue::Queue;
use crate::session::Interest;
use crate::session::table::{SessionKey, Stored};
use crate::sessions::{Asked, Claimed, will_delay_s};

impl Broker {
    /// What writes the steps of a session that was claimed, where it is kept.
    pub(crate) fn keeper(&self, claimed: &Claimed, mailbox: &Arc<Mailbox>) -> Option<Box<Keeper>> {
        let (journal, session) = (self.journal.as_ref()?, claimed.queue.keeper()?);
        Some(Keeper::new(session, journal.clone(), mailbox.clone(), claimed.resumed.as_ref()))
    }

    /// Whether nothing that is to be kept can be.
    pub(crate) fn stores_no_more(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.is_closed())
    }

    /// Completes when a write is durable, or never will be: says which.
    pub(crate) async fn written(&self, written: Written) -> bool {
        match &self.journal {
            Some(journal) => journal.durable(written).await,
            None => true,
        }
    }

    /// Writes that a connection carries a session, where it is kept, and its Will, so that a crash
    /// of the node is the end of a connection like another. Of a session that ends with its
    /// connection the Will is all that is kept, and nobody waits for that.
    pub(crate) fn store_session(
        &self,
        subscriber: SubscriberId,
        queue: &Queue,
        key: &SessionKey,
        asked: Asked<'_>,
    ) -> Written {
        let is_kept = queue.keeper().is_some();
        if !is_kept && asked.will.is_none() {
            return Written::NONE;
        }
        let will = asked.will.map(|will| (UnixTime::from_s(will_delay_s(will).into()), will.clone()));
        let record = SessionRecord { key: key.clone(), expiry_s: asked.expiry_s, left_at: None, will };
        let written = self.write(vec![put(subscriber, &record)]);
        if is_kept { written } else { Written::NONE }
    }

    /// Writes that a session which ended with its connection is gone, and with it its Will.
    pub(crate) fn store_without_session(&self, subscriber: SubscriberId, queue: &Queue) {
        if queue.keeper().is_none() {
            let (table, key) = (PersistTable::Sessions, number_key(subscriber.0));
            self.write(vec![Change { table, key, value: None }]);
        }
    }

    /// Writes that a subscription of a session that is kept is owed no retained messages any more.
    pub(crate) fn store_paid(&self, queue: &Queue, step: Interest) {
        if let Some(session) = queue.keeper() {
            self.write(vec![interest_change(session, &step, false)]);
        }
    }

    /// Writes that nothing carries a session any more. What it had sent has its identifiers written
    /// too, so that it leaves under them again.
    pub(crate) fn store_left(&self, key: &SessionKey, stored: &Stored) {
        let Some(session) = stored.queue.keeper() else { return };
        let will = stored.will.as_ref().map(|(at, will)| (self.unix_at(*at), will.clone()));
        let mut changes = vec![put(session, &left(key, stored, will))];
        for (packet_id, queued) in &stored.resumable.in_flight {
            if let Some(place) = &queued.kept {
                changes.push(Exchange::Sent(place.sequence.get()).put(session, *packet_id));
            }
        }
        self.write(changes);
    }

    /// Writes that a session's Will has been published.
    pub(crate) fn store_without_will(&self, key: &SessionKey) {
        let change = self.sessions().stored(key).and_then(|stored| {
            let session = stored.queue.keeper()?;
            Some(put(session, &left(key, stored, None)))
        });
        self.write(change.into_iter().collect());
    }

    /// What deletes all that is written of a session; `waiting` was its queue.
    pub(crate) fn session_ends(&self, stored: &Stored, waiting: &[Queued]) -> Vec<Change> {
        let Some(session) = stored.queue.keeper() else { return Vec::new() };
        let mut changes = Vec::new();
        let mut delete = |table, key| changes.push(Change { table, key, value: None });
        delete(PersistTable::Sessions, number_key(session.0));
        let resumable = &stored.resumable;
        for filter in resumable.subscriptions.keys() {
            delete(PersistTable::Subscriptions, filter_key(session, filter));
        }
        for row in resumable.rows.keys() {
            delete(PersistTable::Subscriptions, row_key(session, *row));
        }
        let sent = resumable.in_flight.iter().map(|(_, queued)| queued);
        for place in sent.chain(waiting).filter_map(|queued| queued.kept.as_ref()) {
            forget(session, place, &mut changes);
        }
        let sent = resumable.in_flight.iter().map(|(packet_id, _)| Exchange::Sent(0).delete(session, *packet_id));
        changes.extend(sent);
        changes.extend(resumable.releasing.iter().map(|id| Exchange::Releasing(0).delete(session, *id)));
        changes.extend(resumable.received.iter().map(|id| Exchange::Received.delete(session, *id)));
        changes
    }

    /// Writes changes that nobody waits for.
    pub(crate) fn write(&self, changes: Vec<Change>) -> Written {
        self.journal.as_ref().map_or(Written::NONE, |journal| journal.write(changes, Vec::new()))
    }

    /// A timer's instant on the calendar.
    fn unix_at(&self, at: unhidra_core::time::Timestamp) -> UnixTime {
        self.doors.clock.unix_now().saturating_add(at.saturating_since(self.doors.clock.now()))
    }
}

fn left(key: &SessionKey, stored: &Stored, will: Option<(UnixTime, Will)>) -> SessionRecord {
    SessionRecord { key: key.clone(), expiry_s: stored.expiry_s, left_at: Some(stored.left_at), will }
}

fn put(session: SubscriberId, record: &SessionRecord) -> Change {
    Change { table: PersistTable::Sessions, key: number_key(session.0), value: Some(record.encode()) }
}
