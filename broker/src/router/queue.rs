//! What waits for one subscriber: written by publishers, emptied by its connection.
//!
//! ```text
//! keeping up --full, and the connection sleeps on its peer--> overdue since the peer last took something
//!     ^                                                           |
//!     +--emptied to half-- slow <--still full after `patience`----+
//! ```
//!
//! Publishers wait for room while it is the connection's turn to run (our scheduling) and while it
//! is overdue; of a slow one the policy says at once which message is dropped. So a client that takes
//! too little holds up those who publish to it once, for `patience` at most; and one that has
//! taken nothing for that long when its queue is full, not at all.

use std::collections::{BTreeSet, VecDeque};
use std::mem;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::info;
use unhidra_core::time::Timestamp;

use super::message::{Kept, Queued};
use super::{Group, SubscriberId};
use crate::config::{Limits, QueuePolicy};
use crate::metrics::DropCause;
use crate::net::mailbox::{Mailbox, Order};
use crate::packet::{QoS, ReasonCode};
use crate::session::table::SessionKey;

/// A session's queue. It outlives connections.
#[derive(Debug)]
pub(crate) struct Queue {
    whose: SessionKey,
    terms: Arc<Terms>,
    /// The session it is kept for over a restart, if it is.
    keeper: Option<SubscriberId>,
    inner: Mutex<Inner>,
}

/// What holds for every queue.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) messages_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) policy: QueuePolicy,
    /// Whether messages of QoS 0 wait for a client that is away.
    pub(crate) keeps_qos0: bool,
    /// How long a peer may take nothing before publishers wait for its full queue no more.
    pub(crate) patience: Duration,
}

impl Terms {
    pub(crate) const fn of(limits: &Limits) -> Self {
        Self {
            messages_max: limits.queue_messages_max,
            bytes_max: limits.queue_bytes_max,
            policy: limits.queue_policy,
            keeps_qos0: limits.queue_qos0,
            patience: Duration::from_millis(limits.queue_patience_ms),
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    waiting: VecDeque<Queued>,
    bytes: usize,
    /// Not before this instant does any of them expire.
    expires_first: Option<Timestamp>,
    /// Those that have expired and were sorted out. They leave with the next that is taken, so that whoever keeps
    /// them hears of it.
    expired: Vec<Queued>,
    /// Messages of the session that did not come to it.
    dropped: u64,
    pace: Pace,
    /// Whose connection empties it, if there is one.
    reader: Option<Arc<Mailbox>>,
    /// Where the reader left messages here because its peer takes no more: when it last took some.
    blocked_since: Option<Timestamp>,
    /// The last number given to a message that is kept.
    sequence: u64,
    /// Those that are kept and may not leave yet.
    unready: BTreeSet<NonZeroU64>,
    /// Connections that wait for room. Each is here once; they are woken and forgotten at half.
    writers: Vec<Arc<Mailbox>>,
}

/// How a reader keeps up.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Pace {
    #[default]
    KeepsUp,
    /// Full, and it was not for us to go on since then.
    Overdue(Timestamp),
    /// Full, and nobody waits for it.
    Slow,
}

/// How full a queue is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Depth {
    pub(crate) messages: usize,
    /// Of memory.
    pub(crate) bytes: usize,
    /// Messages that did not come to the session since the node started.
    pub(crate) dropped: u64,
}

/// What became of a message.
#[derive(Debug)]
pub(crate) enum Pushed {
    /// It waits; where it is to be kept, it leaves after [`Queue::ready`]. Older ones are gone for it.
    Taken { kept: Option<Queued>, evicted: Vec<Queued> },
    /// It is gone.
    Dropped(DropCause),
    /// There is no room, and there may soon be: offer it again when the sender's mailbox is woken,
    /// at the latest then.
    Full(Queued, Timestamp),
}

/// How welcome one more message is: the first is the best.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Welcome {
    /// Somebody is there and keeps up.
    Ready,
    /// Somebody is there, and the queue is full.
    Full,
    /// Nobody is there, and there is room.
    Away,
    /// It would be dropped, or another for it.
    Lost,
}

impl Queue {
    pub(crate) fn new(whose: SessionKey, terms: Arc<Terms>) -> Self {
        Self { whose, terms, keeper: None, inner: Mutex::default() }
    }

    /// The same, kept over a restart.
    pub(crate) fn kept_for(self, session: SubscriberId) -> Self {
        Self { keeper: Some(session), ..self }
    }

    /// The session it is kept for over a restart, if it is.
    pub(crate) const fn keeper(&self) -> Option<SubscriberId> {
        self.keeper
    }

    /// Whether a message of this QoS is kept over a restart.
    pub(crate) fn keeps(&self, qos: QoS) -> bool {
        self.keeper.is_some() && qos != QoS::AtMostOnce
    }

    /// A message that was kept may leave: it is on its way to where it is kept, or there.
    pub(crate) fn ready(&self, sequence: NonZeroU64) {
        let mut inner = self.lock();
        inner.unready.remove(&sequence);
        if let Some(reader) = &inner.reader
            && inner.blocked_since.is_none()
        {
            reader.wake();
        }
    }

    /// A message that waits here is kept in one place with others'.
    pub(crate) fn share(&self, place: &Kept) {
        let mut inner = self.lock();
        // Nearly always the last: it was added a moment ago, and may not leave yet.
        let is_it = |queued: &&mut Queued| queued.kept.as_ref().is_some_and(|kept| kept.sequence == place.sequence);
        if let Some(queued) = inner.waiting.iter_mut().rev().find(is_it) {
            queued.kept = Some(place.clone());
        }
    }

    /// Puts back what was kept, behind what was put back before. Gives back what is over the
    /// bounds.
    pub(crate) fn restore(&self, queued: Queued) -> Option<Queued> {
        let mut inner = self.lock();
        let size = queued.message.size();
        if inner.is_full(size, &self.terms) {
            return Some(queued);
        }
        inner.note_expiry(&queued);
        let last = queued.kept.as_ref().map_or(0, |kept| kept.sequence.get());
        inner.sequence = inner.sequence.max(last);
        inner.bytes += size;
        inner.waiting.push_back(queued);
        None
    }

    /// Numbers of kept messages begin behind this one.
    pub(crate) fn begin_behind(&self, sequence: u64) {
        let mut inner = self.lock();
        inner.sequence = inner.sequence.max(sequence);
    }

    /// Adds a message, or says why not. `sender` is woken when there is room again; without one
    /// nothing is [`Pushed::Full`].
    pub(crate) fn push(&self, queued: Queued, sender: Option<&Arc<Mailbox>>, now: Timestamp) -> Pushed {
        let mut inner = self.lock();
        if inner.reader.is_none() && queued.qos == QoS::AtMostOnce && !self.terms.keeps_qos0 {
            inner.dropped += 1;
            return Pushed::Dropped(DropCause::Away);
        }
        let size = queued.message.size();
        if inner.is_full(size, &self.terms) {
            inner.expire(now);
        }
        if !inner.is_full(size, &self.terms) {
            let kept = inner.add(queued, size, self.keeper);
            return Pushed::Taken { kept, evicted: mem::take(&mut inner.expired) };
        }
        let before = inner.pace;
        let may_wait = inner.may_wait(&self.terms, now);
        if inner.pace == Pace::Slow && before != Pace::Slow {
            info!(client_id = %self.whose.client_id(), "the client is too slow: its queue is full, and nobody waits for it");
        }
        if let (Some(retry_at), Some(sender)) = (may_wait, sender) {
            if !inner.writers.iter().any(|known| Arc::ptr_eq(known, sender)) {
                inner.writers.push(sender.clone());
            }
            return Pushed::Full(queued, retry_at);
        }
        let cause = if inner.reader.is_some() { DropCause::Slow } else { DropCause::Full };
        match (self.terms.policy, &inner.reader) {
            (QueuePolicy::Oldest, _) => {
                let evicted = inner.make_room(size, &self.terms);
                let kept = inner.add(queued, size, self.keeper);
                inner.dropped += evicted.len() as u64;
                let evicted = mem::take(&mut inner.expired).into_iter().chain(evicted).collect();
                return Pushed::Taken { kept, evicted };
            }
            (QueuePolicy::Disconnect, Some(reader)) => reader.order(Order::Close(ReasonCode::QuotaExceeded)),
            (QueuePolicy::Disconnect, None) | (QueuePolicy::Newest, _) => {}
        }
        inner.dropped += 1;
        Pushed::Dropped(cause)
    }

    /// How welcome a message of this QoS is.
    pub(crate) fn welcome(&self, qos: QoS) -> Welcome {
        let inner = self.lock();
        let is_full = inner.is_full(0, &self.terms);
        match (&inner.reader, is_full, inner.pace) {
            (Some(_), false, Pace::KeepsUp | Pace::Overdue(_)) => Welcome::Ready,
            (Some(_), true, Pace::KeepsUp | Pace::Overdue(_)) => Welcome::Full,
            (None, false, _) if qos != QoS::AtMostOnce || self.terms.keeps_qos0 => Welcome::Away,
            (Some(_), _, Pace::Slow) | (None, _, _) => Welcome::Lost,
        }
    }

    /// Takes the oldest messages: at most `max` of a QoS above 0, and none behind one that takes
    /// the bytes to `bytes_max`.
    pub(crate) fn take(&self, mut max: usize, bytes_max: usize, now: Timestamp) -> VecDeque<Queued> {
        let mut inner = self.lock();
        let mut bytes = 0_usize;
        let fits = |queued: &&Queued| {
            let needs = usize::from(queued.qos != QoS::AtMostOnce);
            let may = bytes < bytes_max && needs <= max;
            max = max.saturating_sub(needs);
            bytes = bytes.saturating_add(queued.message.size());
            may
        };
        let is_ready = |queued: &&Queued| !inner.is_unready(queued);
        let count = inner.waiting.iter().take_while(is_ready).take_while(fits).count();
        let taken = if count == inner.waiting.len() {
            mem::take(&mut inner.waiting)
        } else {
            inner.waiting.drain(..count).collect()
        };
        inner.bytes -= taken.iter().map(|queued| queued.message.size()).sum::<usize>();
        // One that is not ready waits for us, and not for the peer.
        let is_blocked = inner.waiting.front().is_some_and(|first| !inner.is_unready(first));
        let since = if taken.is_empty() { inner.blocked_since.unwrap_or(now) } else { now };
        inner.blocked_since = is_blocked.then_some(since);
        let writers = inner.drained(&self.terms);
        drop(inner);
        writers.iter().for_each(|writer| writer.wake());
        taken
    }

    /// Whether as much waits as a queue that drains may still have when others go on.
    pub(crate) fn is_half_full(&self) -> bool {
        let inner = self.lock();
        inner.waiting.len() >= self.terms.messages_max.div_ceil(2) || inner.bytes > self.terms.bytes_max / 2
    }

    /// How full it is.
    pub(crate) fn depth(&self) -> Depth {
        let inner = self.lock();
        Depth { messages: inner.waiting.len(), bytes: inner.bytes, dropped: inner.dropped }
    }

    /// Whose session it belongs to.
    pub(crate) const fn whose(&self) -> &SessionKey {
        &self.whose
    }

    /// Whether a connection empties it.
    pub(crate) fn is_read(&self) -> bool {
        self.lock().reader.is_some()
    }

    /// A connection empties the queue from now on.
    pub(crate) fn attach(&self, reader: Arc<Mailbox>) {
        let mut inner = self.lock();
        inner.reader = Some(reader);
        inner.blocked_since = None;
    }

    /// Nobody empties it any more. Publishers that wait for room find out.
    pub(crate) fn detach(&self) {
        let mut inner = self.lock();
        inner.reader = None;
        inner.blocked_since = None;
        inner.pace = Pace::KeepsUp;
        if !self.terms.keeps_qos0 {
            inner.waiting.retain(|queued| queued.qos != QoS::AtMostOnce);
        }
        inner.recount();
        let writers = mem::take(&mut inner.writers);
        drop(inner);
        writers.iter().for_each(|writer| writer.wake());
    }

    /// The groups whose messages wait here.
    pub(crate) fn groups(&self) -> Vec<Arc<Group>> {
        let mut groups: Vec<Arc<Group>> = Vec::new();
        for group in self.lock().waiting.iter().filter_map(|queued| queued.group.as_ref()) {
            if !groups.iter().any(|known| Arc::ptr_eq(known, group)) {
                groups.push(Arc::clone(group));
            }
        }
        groups
    }

    /// Takes out what `may` says, in order. It takes no lock: whoever holds a group's takes its members'.
    pub(crate) fn take_if(&self, mut may: impl FnMut(&Queued) -> bool) -> Vec<Queued> {
        let mut inner = self.lock();
        let (taken, left): (Vec<_>, VecDeque<_>) = {
            let mut taken: Vec<Queued> = mem::take(&mut inner.expired);
            let mut left = VecDeque::new();
            taken.retain(&mut may);
            for queued in mem::take(&mut inner.waiting) {
                if may(&queued) { taken.push(queued) } else { left.push_back(queued) }
            }
            (taken, left)
        };
        inner.waiting = left;
        inner.recount();
        taken
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Whether a message of so many bytes has no room. One always fits, however large.
    fn is_full(&self, size: usize, terms: &Terms) -> bool {
        self.waiting.len() >= terms.messages_max
            || (self.bytes.saturating_add(size) > terms.bytes_max && !self.waiting.is_empty())
    }

    /// Adds a message, and gives it back where it is to be kept.
    fn add(&mut self, mut queued: Queued, size: usize, keeper: Option<SubscriberId>) -> Option<Queued> {
        if self.waiting.is_empty()
            && let Some(reader) = &self.reader
        {
            reader.wake();
        }
        let is_kept = keeper.is_some() && queued.qos != QoS::AtMostOnce;
        queued.kept = None;
        if is_kept && let Some(sequence) = NonZeroU64::new(self.sequence.saturating_add(1)) {
            self.sequence = sequence.get();
            self.unready.insert(sequence);
            queued.kept = Some(Kept { sequence, shared: None });
        }
        let kept = is_kept.then(|| queued.clone());
        self.note_expiry(&queued);
        self.bytes += size;
        self.waiting.push_back(queued);
        kept
    }

    fn note_expiry(&mut self, queued: &Queued) {
        if let Some(at) = queued.message.expires_at() {
            self.expires_first = Some(self.expires_first.map_or(at, |first| first.min(at)));
        }
    }

    /// Sorts out what has expired (section 3.3.2.3.3): it takes nobody's place.
    fn expire(&mut self, now: Timestamp) {
        if self.expires_first.is_none_or(|first| first > now) {
            return;
        }
        let (expired, left) =
            mem::take(&mut self.waiting).into_iter().partition::<Vec<_>, _>(|q| q.message.is_expired(now));
        self.dropped += expired.len() as u64;
        self.expired.extend(expired);
        self.expires_first = left.iter().filter_map(|queued| queued.message.expires_at()).min();
        self.waiting = left.into();
        self.recount();
    }

    fn make_room(&mut self, size: usize, terms: &Terms) -> Vec<Queued> {
        let mut evicted = Vec::new();
        while self.is_full(size, terms)
            && let Some(oldest) = self.waiting.pop_front()
        {
            self.bytes -= oldest.message.size();
            evicted.push(oldest);
        }
        evicted
    }

    /// Whether a message may not leave yet.
    fn is_unready(&self, queued: &Queued) -> bool {
        !self.unready.is_empty() && queued.kept.as_ref().is_some_and(|kept| self.unready.contains(&kept.sequence))
    }

    /// Until when a publisher may wait for room, if it may.
    fn may_wait(&mut self, terms: &Terms, now: Timestamp) -> Option<Timestamp> {
        self.reader.as_ref()?;
        let since = match (self.pace, self.blocked_since) {
            (Pace::Slow, _) => return None,
            // It has been woken, and is to run: that is no fault of its peer.
            (Pace::KeepsUp, None) => return Some(now.saturating_add(terms.patience)),
            (Pace::KeepsUp, Some(since)) | (Pace::Overdue(since), _) => since,
        };
        let until = since.saturating_add(terms.patience);
        let may_wait = until > now;
        self.pace = if may_wait { Pace::Overdue(since) } else { Pace::Slow };
        may_wait.then_some(until)
    }

    /// What was taken may end an episode: then those who wait are to be woken.
    fn drained(&mut self, terms: &Terms) -> Vec<Arc<Mailbox>> {
        if self.waiting.len() > terms.messages_max / 2 || self.bytes > terms.bytes_max / 2 {
            return Vec::new();
        }
        self.pace = Pace::KeepsUp;
        mem::take(&mut self.writers)
    }

    fn recount(&mut self) {
        self.bytes = self.waiting.iter().map(|queued| queued.message.size()).sum();
    }
}

#[cfg(test)]
mod tests;
