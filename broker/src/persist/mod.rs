//! Sessions, what waits for them and retained messages, kept over a restart: records and the way
//! they take. Every value begins with its version, 1.
//!
//! ```text
//! table          key                        value behind the version
//! retained       Topic Name                 a message
//! sessions       session 8                  owner 1 (0 anybody, 1 device, 2 user), its name 2+n,
//!                                           Client Identifier 2+n, expiry in s 4, left at 8 (0: a
//!                                           connection carries it), Will due at 8 (0: none; while a
//!                                           connection carries it 1 + ms after that one's end), Will
//! subscriptions  session 8, Topic Filter    options 1 (as in SUBSCRIBE of 5.0; bit 6: retained messages
//!                                           are still to be sent for it), identifier 4 (0: none)
//!                session 8, 0, row 1        QoS 1
//! messages       message 8                  a message
//! queued         session 8, sequence 8      0, flags 1, identifiers 1+4n, a message
//!                                           1, flags 1, identifiers 1+4n, message 8
//! exchanges      session 8, 1, Packet Id 2  nothing: a QoS 2 message came and was not released
//!                session 8, 2, Packet Id 2  sequence 8: it was sent under this identifier
//!                session 8, 3, Packet Id 2  order 8: PUBREC has come, and PUBCOMP has not
//!
//! a message      flags 1, stored at 8, ms it has left 8 (all ones: it does not expire), PUBLISH of
//!                5.0 at QoS 0
//! flags          QoS (bits 0 and 1), RETAIN (bit 2)
//! ```
//!
//! Numbers are big-endian, times ms since 1970. What is not exactly this is refused.

mod check;
mod doubt;
mod fields;
pub(crate) mod journal;
mod keeper;
mod load;
mod load_sessions;
mod message;
mod queued;
pub(crate) mod receipt;
mod session;
mod sessions;

use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use unhidra_core::delivery::{Ack, AckToken};
use unhidra_core::time::UnixTime;

use crate::Broker;
use crate::doors::{Change, PersistTable};
use crate::net::mailbox::Mailbox;
use crate::packet::QoS;
use crate::router::SubscriberId;
use crate::router::message::{Kept, Message, Queued, Shared};
use crate::router::queue::Queue;
pub use check::check_record;
pub use doubt::TimeOfDay;
pub(crate) use journal::Journal;
pub(crate) use keeper::Keeper;
pub use load::RestoreError;
use message::MessageRecord;
use queued::{QueuedRecord, number_key, queued_key};
use receipt::{After, Receipt};

/// What one message of a client writes, and who waits for it.
#[derive(Default)]
pub(crate) struct Storing {
    waits: Option<(Arc<Mailbox>, AckToken)>,
    receipt: Option<Arc<Receipt>>,
    is_written: bool,
    /// Where it waits in a queue that is kept.
    kept: Vec<(Arc<Queue>, Queued)>,
    /// That a message of QoS 2 has come, kept together with what becomes of it.
    step: Option<(Change, After)>,
}

impl Storing {
    /// Under `token` the client waits for its answer, if it does.
    pub(crate) fn new(mailbox: &Arc<Mailbox>, token: Option<AckToken>) -> Self {
        Self { waits: token.map(|token| (mailbox.clone(), token)), ..Self::default() }
    }

    /// One part of a message that had to wait.
    pub(crate) fn of_receipt(receipt: Option<Arc<Receipt>>) -> Self {
        Self { receipt, ..Self::default() }
    }

    /// Kept together with a step of the client's session.
    pub(crate) fn with_step(&mut self, change: Change, after: After) {
        self.step = Some((change, after));
    }

    /// The step, where nothing else was to be kept.
    pub(crate) fn take_step(&mut self) -> bool {
        self.step.take().is_some()
    }

    /// It waits in a queue that is kept.
    pub(crate) fn queued(&mut self, queue: &Arc<Queue>, queued: Queued) {
        self.kept.push((queue.clone(), queued));
    }

    /// What is to be done when one part is stored.
    pub(crate) fn part(&mut self) -> Option<After> {
        self.receipt().map(After::Answer)
    }

    /// One part that is to be stored.
    pub(crate) fn receipt(&mut self) -> Option<Arc<Receipt>> {
        self.is_written = true;
        if let Some((mailbox, token)) = self.waits.take() {
            self.receipt = Some(Receipt::new(Ack::new(mailbox, token)));
        }
        self.receipt.as_ref().map(Receipt::part)
    }

    /// Whether anything is to be stored.
    pub(crate) const fn is_written(&self) -> bool {
        self.is_written
    }

    /// All parts are on their way. Gives the token back where nothing was to be stored: then it is
    /// for the caller to answer.
    pub(crate) fn finish(self) -> Option<AckToken> {
        if let Some(receipt) = self.receipt {
            receipt.part_done();
        }
        self.waits.map(|(_, token)| token)
    }
}

impl Broker {
    /// Writes what a topic's retained message has become. In the order in which it became so: the
    /// caller holds the lock on them.
    pub(crate) fn store_retained(&self, message: &Message, is_kept: bool, storing: &mut Storing) {
        let Some(journal) = &self.journal else { return };
        let key = Bytes::copy_from_slice(message.topic().as_bytes());
        let value = is_kept.then(|| {
            let (now, left_ms) = self.times_of(message);
            MessageRecord::encode(message, now, left_ms)
        });
        let change = Change { table: PersistTable::Retained, key, value };
        journal.write(vec![change], storing.part().into_iter().collect());
    }

    /// Writes where a message waits, in one piece, and lets it leave: at QoS 1 at once, for it may
    /// come twice; at QoS 2 when it is stored, so that after a crash its identifier stands for
    /// nothing else.
    pub(crate) fn store_queued(&self, storing: &mut Storing) {
        let Some(journal) = &self.journal else { return };
        let mut kept = mem::take(&mut storing.kept);
        if kept.is_empty() && !storing.is_written {
            return;
        }
        let mut changes = Vec::with_capacity(kept.len() + 2);
        self.share(journal, &mut kept, &mut changes);
        let (mut after, mut at_once) = (Vec::new(), Vec::new());
        if let Some((change, done)) = storing.step.take() {
            changes.push(change);
            after.push(done);
        }
        for (queue, queued) in kept {
            let (Some(session), Some(place)) = (queue.keeper(), &queued.kept) else { continue };
            let value = match &place.shared {
                Some(shared) => QueuedRecord::shared(&queued, shared.number),
                None => {
                    let (now, left_ms) = self.times_of(&queued.message);
                    QueuedRecord::whole(&queued, now, left_ms)
                }
            };
            let key = queued_key(session, place.sequence.get());
            changes.push(Change { table: PersistTable::Queued, key, value: Some(value) });
            if queued.qos == QoS::ExactlyOnce {
                after.push(After::Ready(queue, place.sequence));
            } else {
                at_once.push((queue, place.sequence));
            }
        }
        if changes.is_empty() {
            return;
        }
        after.extend(storing.part());
        journal.write(changes, after);
        at_once.into_iter().for_each(|(queue, sequence)| queue.ready(sequence));
    }

    /// Where several sessions wait for one message, its contents are written once.
    fn share(&self, journal: &Journal, kept: &mut [(Arc<Queue>, Queued)], changes: &mut Vec<Change>) {
        let [(_, first), _, ..] = &*kept else { return };
        let message = first.message.clone();
        let shared = Shared::new(journal.message_number(), kept.len());
        let (now, left_ms) = self.times_of(&message);
        let value = Some(MessageRecord::encode(&message, now, left_ms));
        changes.push(Change { table: PersistTable::Messages, key: number_key(shared.number), value });
        for (queue, queued) in kept {
            if let Some(place) = &mut queued.kept {
                place.shared = Some(shared.clone());
                queue.share(place);
            }
        }
    }

    /// Deletes what a session is done with, or lets go of.
    pub(crate) fn forget_queued(&self, session: SubscriberId, gone: impl IntoIterator<Item = Queued>) {
        let Some(journal) = &self.journal else { return };
        let mut changes = Vec::new();
        gone.into_iter().filter_map(|queued| queued.kept).for_each(|place| forget(session, &place, &mut changes));
        journal.write(changes, Vec::new());
    }

    /// Whether a connection that has written something reads no more for now.
    pub(crate) fn is_behind(&self, writer: &Arc<Mailbox>) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.holds_up(writer))
    }

    /// When it is written down, and how long it has then.
    fn times_of(&self, message: &Message) -> (UnixTime, Option<u64>) {
        let left = message.left(self.doors.clock.now());
        let left_ms = left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX - 1));
        (self.doors.clock.unix_now(), left_ms)
    }
}

/// What deletes a queued message.
pub(crate) fn forget(session: SubscriberId, place: &Kept, changes: &mut Vec<Change>) {
    let key = queued_key(session, place.sequence.get());
    changes.push(Change { table: PersistTable::Queued, key, value: None });
    if let Some(shared) = &place.shared
        && shared.release()
    {
        changes.push(Change { table: PersistTable::Messages, key: number_key(shared.number), value: None });
    }
}

#[cfg(test)]
mod tests;
