//! The way of changes to where they are kept: in order, never more than a little ahead.
//!
//! ```text
//! write --> waiting --Persist::write--> under way --done--> told to those who wait
//!              ^                            |
//!              +------- outcome unknown ----+     all of it again, in the same order
//! ```
//!
//! A write that may or may not be on the disk is made again: a record is the same, however often
//! it was written. Until then nobody is told, so that a store that fails makes acknowledgements
//! wait and loses none.

use std::collections::VecDeque;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tracing::{error, warn};

use super::receipt::After;
use crate::doors::{Change, Persist, PersistError, Persisted};
use crate::net::mailbox::Mailbox;

/// What may wait for room before connections stop reading: a connection adds no more than what one
/// packet of it means.
const BEHIND_BYTES: usize = 1 << 20;

/// What a write weighs beside the bytes of its records.
const WRITE_OVERHEAD: usize = 128;

/// A write's place among all.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Written(u64);

impl Written {
    /// Before all writes: always durable.
    pub(crate) const NONE: Self = Self(0);
}

/// The way of changes to where they are kept.
pub(crate) struct Journal {
    persist: Arc<dyn Persist>,
    /// Where it waits for room: answers come from threads of the store's.
    runtime: Handle,
    inner: Mutex<Inner>,
    /// The place up to which all is durable.
    durable: AtomicU64,
    advanced: Notify,
    next_message: AtomicU64,
}

#[derive(Default)]
struct Inner {
    /// Those under way, then those that wait.
    writes: VecDeque<Write>,
    /// How many of them are under way.
    under_way: usize,
    /// How many of those under way have failed.
    failed: usize,
    last: u64,
    bytes: usize,
    course: Course,
    /// Somebody is handing over.
    handing: bool,
    /// A task waits for room.
    waiting: bool,
    /// Connections that read no more, each once: woken and forgotten when they may go on.
    held_up: Vec<Arc<Mailbox>>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Course {
    #[default]
    Going,
    /// Somebody waits for room, and goes on then.
    Waiting,
    Closed,
}

struct Write {
    place: u64,
    changes: Arc<[Change]>,
    after: Vec<After>,
    bytes: usize,
}

impl Inner {
    fn is_behind(&self) -> bool {
        match self.course {
            Course::Going => self.bytes > BEHIND_BYTES,
            Course::Waiting => true,
            // Waiting would not help.
            Course::Closed => false,
        }
    }

    /// Whom to wake, once there is room.
    fn released(&mut self) -> Vec<Arc<Mailbox>> {
        if self.is_behind() { Vec::new() } else { std::mem::take(&mut self.held_up) }
    }
}

impl Journal {
    /// # Panics
    ///
    /// Outside of a runtime.
    pub(crate) fn new(persist: Arc<dyn Persist>) -> Arc<Self> {
        Arc::new(Self {
            persist,
            runtime: Handle::current(),
            inner: Mutex::default(),
            durable: AtomicU64::new(0),
            advanced: Notify::new(),
            next_message: AtomicU64::new(1),
        })
    }

    pub(crate) fn persist(&self) -> &dyn Persist {
        self.persist.as_ref()
    }

    /// A number for a message that several sessions wait for, never given twice.
    pub(crate) fn message_number(&self) -> u64 {
        self.next_message.fetch_add(1, Ordering::Relaxed)
    }

    /// Numbers of messages begin behind this one.
    pub(crate) fn begin_behind(&self, message: u64) {
        self.next_message.fetch_max(message.saturating_add(1), Ordering::Relaxed);
    }

    /// Writes all of the changes or none, behind all writes before. `after` is done once they are
    /// durable.
    pub(crate) fn write(self: &Arc<Self>, changes: Vec<Change>, after: Vec<After>) -> Written {
        if changes.is_empty() && after.is_empty() {
            return Written::NONE;
        }
        let size = |change: &Change| change.key.len() + change.value.as_ref().map_or(0, bytes::Bytes::len);
        let bytes = WRITE_OVERHEAD + changes.iter().map(size).sum::<usize>();
        let place = {
            let mut inner = self.lock();
            if inner.course == Course::Closed {
                drop(inner);
                // Without a word to `after`: nobody is told that it is kept.
                return Written(u64::MAX);
            }
            inner.last += 1;
            inner.bytes += bytes;
            let place = inner.last;
            inner.writes.push_back(Write { place, changes: changes.into(), after, bytes });
            place
        };
        self.hand_over();
        Written(place)
    }

    /// Whether a write is durable.
    pub(crate) fn is_durable(&self, place: Written) -> bool {
        self.durable.load(Ordering::Acquire) >= place.0
    }

    /// Completes when a write is durable, or never will be: says which.
    pub(crate) async fn durable(&self, place: Written) -> bool {
        loop {
            // Made before the look, so that an advance between the two is not missed.
            let mut advanced = pin!(self.advanced.notified());
            advanced.as_mut().enable();
            if self.is_durable(place) {
                return true;
            }
            if self.is_closed() {
                return false;
            }
            advanced.await;
        }
    }

    /// Completes when all that was written so far is durable, or never will be: says which.
    pub(crate) async fn settled(&self) -> bool {
        let last = Written(self.lock().last);
        self.durable(last).await
    }

    /// Whether a connection that has written reads no more: what waits is near its bound, or is not
    /// taken. It is woken when it may go on.
    pub(crate) fn holds_up(&self, writer: &Arc<Mailbox>) -> bool {
        let mut inner = self.lock();
        let is_behind = inner.is_behind();
        if is_behind && !inner.held_up.iter().any(|known| Arc::ptr_eq(known, writer)) {
            inner.held_up.push(writer.clone());
        }
        is_behind
    }

    /// Whether nothing is written any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().course == Course::Closed
    }

    /// Hands over what waits, as far as there is room. One caller at a time, without the lock:
    /// the answer may come before the call returns.
    fn hand_over(self: &Arc<Self>) {
        loop {
            let (place, changes) = {
                let mut inner = self.lock();
                if inner.handing || inner.course != Course::Going || inner.failed > 0 {
                    return;
                }
                let Some(next) = inner.writes.get(inner.under_way) else { return };
                let next = (next.place, next.changes.clone());
                inner.under_way += 1;
                inner.handing = true;
                next
            };
            let journal = self.clone();
            let done: Persisted = Box::new(move |outcome| journal.answered(place, outcome));
            let taken = self.persist.write(&changes, done).is_ok();
            let mut inner = self.lock();
            inner.handing = false;
            if !taken {
                inner.under_way = inner.under_way.saturating_sub(1);
                self.wait_for_room(&mut inner);
            }
            // A failure may have come while one more was being handed over.
            self.begin_again(&mut inner);
            if !taken {
                return;
            }
        }
    }

    fn answered(self: &Arc<Self>, place: u64, outcome: Result<(), PersistError>) {
        let mut inner = self.lock();
        let in_turn = inner.failed == 0 && inner.writes.front().is_some_and(|front| front.place == place);
        match outcome {
            Err(PersistError::Closed(cause)) => {
                if inner.course != Course::Closed {
                    error!(cause, "the broker's sessions and messages are not stored any more");
                }
                inner.course = Course::Closed;
                let (lost, released) = (std::mem::take(&mut inner.writes), inner.released());
                inner.under_way = 0;
                drop(inner);
                // Whoever waits for an answer is told by the end of its connection.
                drop(lost);
                self.advanced.notify_waiters();
                released.iter().for_each(|held_up| held_up.wake());
            }
            _ if inner.course == Course::Closed => {}
            Ok(()) if in_turn => self.settle(inner, true),
            Err(PersistError::Refused(cause)) if in_turn => {
                error!(cause, "what the broker wrote was refused");
                self.settle(inner, false);
            }
            Ok(()) | Err(PersistError::Refused(_) | PersistError::Unknown(_)) => {
                if let Err(error) = outcome
                    && inner.failed == 0
                {
                    warn!(%error, "the broker writes again what it wrote");
                }
                inner.failed += 1;
                self.begin_again(&mut inner);
            }
        }
    }

    /// The oldest write has its outcome.
    fn settle(self: &Arc<Self>, mut inner: MutexGuard<'_, Inner>, is_kept: bool) {
        let Some(write) = inner.writes.pop_front() else { return };
        inner.under_way = inner.under_way.saturating_sub(1);
        inner.bytes = inner.bytes.saturating_sub(write.bytes);
        let released = inner.released();
        // Under the lock, so that places become durable in their order.
        self.durable.store(write.place, Ordering::Release);
        drop(inner);
        write.after.into_iter().for_each(|after| after.done(is_kept));
        self.advanced.notify_waiters();
        released.iter().for_each(|held_up| held_up.wake());
    }

    /// Once all that is under way has failed, all of it waits again.
    fn begin_again(self: &Arc<Self>, inner: &mut Inner) {
        if inner.failed == 0 || inner.failed < inner.under_way || inner.handing || inner.course == Course::Closed {
            return;
        }
        inner.failed = 0;
        inner.under_way = 0;
        self.wait_for_room(inner);
    }

    fn wait_for_room(self: &Arc<Self>, inner: &mut Inner) {
        if inner.course == Course::Going {
            inner.course = Course::Waiting;
        }
        if !std::mem::replace(&mut inner.waiting, true) {
            let journal = self.clone();
            self.runtime.spawn(async move { journal.go_on().await });
        }
    }

    async fn go_on(self: Arc<Self>) {
        loop {
            // Made before the attempt, so that room that comes between is not missed.
            let room = self.persist.room();
            self.change(Course::Waiting, Course::Going);
            self.hand_over();
            {
                let mut inner = self.lock();
                if inner.course != Course::Waiting {
                    inner.waiting = false;
                    break;
                }
            }
            room.await;
        }
        let released = self.lock().released();
        released.iter().for_each(|held_up| held_up.wake());
    }

    fn change(&self, from: Course, to: Course) {
        let mut inner = self.lock();
        if inner.course == from {
            inner.course = to;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("durable", &self.durable).finish_non_exhaustive()
    }
}
