//! Sessions, read back at the start: what they listen to, what waits for them, how far each
//! exchange has come.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tracing::{info, warn};
use unhidra_core::time::UnixTime;

use super::fields::RecordError;
use super::load::{RestoreError, read_table};
use super::message::MessageRecord;
use super::queued::{Body, Exchange, QueuedRecord, decode_number_key, decode_queued_key};
use super::session::{SessionRecord, decode_interest};
use super::{Journal, TimeOfDay};
use crate::Broker;
use crate::doors::{Change, PersistTable};
use crate::packet::PacketId;
use crate::router::SubscriberId;
use crate::router::message::{Kept, Message, Queued, Shared};
use crate::router::queue::Queue;
use crate::routing::Place;
use crate::session::table::{SessionKey, Stored};
use crate::session::{Interest, Resumable};

/// One session as far as it has been read.
struct Found {
    record: SessionRecord,
    resumable: Resumable,
    waiting: BTreeMap<u64, Queued>,
    sent: BTreeMap<u64, PacketId>,
    releasing: Vec<(u64, PacketId)>,
}

/// All of them, and what is of no session any more.
struct Reading<'g> {
    time: TimeOfDay,
    sessions: BTreeMap<SubscriberId, Found>,
    messages: HashMap<u64, (Arc<Message>, Arc<Shared>)>,
    gone: &'g mut Vec<Change>,
}

impl Reading<'_> {
    fn drop_record(&mut self, table: PersistTable, key: Bytes) {
        self.gone.push(Change { table, key, value: None });
    }
}

impl Broker {
    pub(super) async fn restore_sessions(
        &self,
        journal: &Journal,
        time: TimeOfDay,
        gone: &mut Vec<Change>,
    ) -> Result<(), RestoreError> {
        let mut reading = Reading { time, sessions: BTreeMap::new(), messages: HashMap::new(), gone };
        read_table(journal, PersistTable::Sessions, &mut |key, value| {
            let number = SubscriberId(decode_number_key(&key)?);
            let record = SessionRecord::decode(value)?;
            let found = Found {
                record,
                resumable: Resumable::default(),
                waiting: BTreeMap::new(),
                sent: BTreeMap::new(),
                releasing: Vec::new(),
            };
            reading.sessions.insert(number, found);
            Ok(())
        })
        .await?;
        read_table(journal, PersistTable::Subscriptions, &mut |key, value| reading.interest(key, value)).await?;
        read_table(journal, PersistTable::Messages, &mut |key, value| {
            let number = decode_number_key(&key)?;
            let message = self.message_of(&MessageRecord::decode(value)?, time);
            reading.messages.insert(number, (message, Shared::new(number, 0)));
            journal.begin_behind(number);
            Ok(())
        })
        .await?;
        read_table(journal, PersistTable::Queued, &mut |key, value| {
            let record = QueuedRecord::decode(value)?;
            let message = match &record.body {
                Body::Here(record) => Some((self.message_of(record, time), None)),
                Body::Shared(number) => {
                    reading.messages.get(number).map(|(message, shared)| (message.clone(), Some(shared.clone())))
                }
            };
            reading.queued(key, record, message)
        })
        .await?;
        read_table(journal, PersistTable::Exchanges, &mut |key, value| reading.exchange(key, value)).await?;
        self.take_up(reading);
        Ok(())
    }

    fn message_of(&self, record: &MessageRecord, time: TimeOfDay) -> Arc<Message> {
        let left = record.left_at(self.doors.clock.unix_now(), time);
        let expires_at = left.map(|left| self.doors.clock.now().saturating_add(left));
        Arc::new(Message::restored(&record.publish, record.qos, expires_at))
    }

    fn take_up(&self, reading: Reading<'_>) {
        let Reading { time, sessions, messages, gone } = reading;
        let (now, unix_now) = (self.doors.clock.now(), self.doors.clock.unix_now());
        let mut over = 0_usize;
        let mut entries: BTreeMap<SessionKey, Stored> = BTreeMap::new();
        for (number, found) in sessions {
            self.next_subscriber.fetch_max(number.0.saturating_add(1), Ordering::Relaxed);
            let Found { record, mut resumable, waiting, sent, mut releasing } = found;
            let SessionRecord { key, expiry_s, left_at, will } = record;
            // One that a connection carried when the node died is left now. A clock that was set
            // back gives a session no more than it had.
            let passed = left_at.map_or(Duration::ZERO, |left_at| time.left_for(unix_now.saturating_since(left_at)));
            let expires_at = now.saturating_add(Duration::from_secs(u64::from(expiry_s)).saturating_sub(passed));
            let queue = Arc::new(Queue::new(key.clone(), self.queue_terms.clone()).kept_for(number));
            let mut dropped = Vec::new();
            for (sequence, queued) in waiting {
                queue.begin_behind(sequence);
                if let Some(packet_id) = sent.get(&sequence) {
                    resumable.in_flight.push((*packet_id, queued));
                } else if queued.message.is_expired(now) {
                    dropped.push(queued);
                } else if let Some(queued) = queue.restore(queued) {
                    over += 1;
                    dropped.push(queued);
                }
            }
            dropped
                .iter()
                .filter_map(|queued| queued.kept.as_ref())
                .for_each(|place| super::forget(number, place, gone));
            releasing.sort_unstable();
            resumable.releasing = releasing.into_iter().map(|(_, packet_id)| packet_id).collect();
            let begun_at = left_at.map_or(UnixTime::EPOCH, |left_at| left_at.saturating_add(passed));
            let will = will.map(|(due_at, will)| (now.saturating_add(due_at.saturating_since(begun_at)), will));
            let left_at = left_at.unwrap_or(unix_now);
            let stored = Stored { resumable, subscriber: number, queue, expires_at, expiry_s, left_at, will };
            // Of two of one name the later one stands: the earlier one was about to go.
            if let Some(earlier) = entries.insert(key, stored) {
                gone.extend(self.session_ends(&earlier, &earlier.queue.take_if(|_| true)));
            }
        }
        for (number, (_, shared)) in messages {
            if shared.is_orphan() {
                gone.push(Change { table: PersistTable::Messages, key: super::number_key(number), value: None });
            }
        }
        let count = entries.len();
        for (key, stored) in entries {
            self.take_up_session(&key, stored);
        }
        self.handle_due();
        let ended = self.sessions().shrink();
        let too_many = ended.len();
        ended.into_iter().for_each(|stored| _ = self.end_session(stored));
        if count > 0 {
            info!(sessions = count, "sessions read");
        }
        if over + too_many > 0 {
            warn!(sessions = too_many, messages = over, "what is beyond the bounds is dropped");
        }
    }

    fn take_up_session(&self, key: &SessionKey, stored: Stored) {
        let who = Arc::new(key.principal());
        let place = Place { who: &who, subscriber: stored.subscriber, queue: &stored.queue };
        for (filter, subscription) in &stored.resumable.subscriptions {
            self.place(filter, place, *subscription);
        }
        self.sessions().release(key, Some(Box::new(stored)));
    }
}

impl Reading<'_> {
    fn interest(&mut self, key: Bytes, value: Bytes) -> Result<(), RecordError> {
        let (session, interest, owed) = decode_interest(&key, value)?;
        let Some(found) = self.sessions.get_mut(&session) else {
            self.drop_record(PersistTable::Subscriptions, key);
            return Ok(());
        };
        match interest {
            Interest::Begun(filter, subscription) => {
                if owed {
                    found.resumable.owed.get_or_insert_default().add(&filter, subscription);
                }
                found.resumable.subscriptions.insert(filter, subscription);
            }
            Interest::Listens(row, qos) => _ = found.resumable.rows.insert(row, qos),
            Interest::Ended(_) | Interest::ListensNoMore(_) => {}
        }
        Ok(())
    }

    fn queued(
        &mut self,
        key: Bytes,
        record: QueuedRecord,
        message: Option<(Arc<Message>, Option<Arc<Shared>>)>,
    ) -> Result<(), RecordError> {
        let (session, sequence) = decode_queued_key(&key)?;
        let number = NonZeroU64::new(sequence).ok_or_else(|| super::fields::wrong("its sequence", 0))?;
        // Without its contents the last who waited for it is done with it.
        let (Some(found), Some((message, shared))) = (self.sessions.get_mut(&session), message) else {
            self.drop_record(PersistTable::Queued, key);
            return Ok(());
        };
        if let Some(shared) = &shared {
            shared.hold();
        }
        let QueuedRecord { qos, retain, identifiers, .. } = record;
        let kept = Some(Kept { sequence: number, shared });
        found
            .waiting
            .insert(sequence, Queued { message, qos, retain, identifiers: identifiers.into(), group: None, kept });
        Ok(())
    }

    fn exchange(&mut self, key: Bytes, value: Bytes) -> Result<(), RecordError> {
        let (session, packet_id, exchange) = Exchange::decode(&key, value)?;
        let found = self.sessions.get_mut(&session);
        match (found, exchange) {
            (Some(found), Exchange::Received) => found.resumable.received.push(packet_id),
            (Some(found), Exchange::Sent(sequence)) if found.waiting.contains_key(&sequence) => {
                found.sent.insert(sequence, packet_id);
            }
            (Some(found), Exchange::Releasing(order)) => found.releasing.push((order, packet_id)),
            (Some(_) | None, _) => self.drop_record(PersistTable::Exchanges, key),
        }
        Ok(())
    }
}
