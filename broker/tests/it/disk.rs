//! Where a broker in memory keeps what survives it: a disk that a test may stop, fill and cut.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tokio::sync::Notify;
use unhidra_broker::{BoxFuture, Change, NoRoom, Persist, PersistError, PersistTable, Persisted, Records};

type Rows = BTreeMap<(u8, Bytes), Bytes>;

/// A disk.
#[derive(Default)]
pub(crate) struct Disk {
    inner: Mutex<Inner>,
    roomier: Arc<Notify>,
}

#[derive(Default)]
struct Inner {
    rows: Rows,
    /// Writes that were taken and are not on the disk, while it stands still.
    waiting: VecDeque<(Vec<Change>, Persisted)>,
    stands_still: bool,
    room: Option<usize>,
    writes: usize,
    /// What the next writes come to, in place of success.
    failing: VecDeque<PersistError>,
}

impl Disk {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A disk with the same records, for the life after a crash.
    pub(crate) fn after_crash(&self) -> Arc<Self> {
        let rows = self.lock().rows.clone();
        Arc::new(Self { inner: Mutex::new(Inner { rows, ..Inner::default() }), ..Self::default() })
    }

    /// Takes writes, and does none until [`Disk::step`].
    pub(crate) fn stand_still(&self) {
        self.lock().stands_still = true;
    }

    /// Does the oldest `count` of the writes that wait.
    pub(crate) fn step(&self, count: usize) {
        for _ in 0..count {
            let next = self.lock().waiting.pop_front();
            let Some((changes, done)) = next else { return };
            self.lock().apply(&changes);
            done(Ok(()));
        }
    }

    /// Does all that wait, and from now on each at once.
    pub(crate) fn go_on(&self) {
        self.lock().stands_still = false;
        self.step(usize::MAX);
    }

    /// How many writes more it takes.
    pub(crate) fn set_room(&self, room: Option<usize>) {
        self.lock().room = room;
        self.roomier.notify_waiters();
    }

    /// What the next writes come to.
    pub(crate) fn fail(&self, errors: impl IntoIterator<Item = PersistError>) {
        self.lock().failing.extend(errors);
    }

    /// How many writes it has taken.
    pub(crate) fn writes(&self) -> usize {
        self.lock().writes
    }

    /// How many records a table has.
    pub(crate) fn count(&self, table: PersistTable) -> usize {
        self.lock().rows.keys().filter(|(number, _)| *number == table as u8).count()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic")
    }
}

impl Inner {
    fn apply(&mut self, changes: &[Change]) {
        for Change { table, key, value } in changes {
            let key = (*table as u8, key.clone());
            match value {
                Some(value) => _ = self.rows.insert(key, value.clone()),
                None => _ = self.rows.remove(&key),
            }
        }
    }
}

impl Persist for Disk {
    fn write(&self, changes: &[Change], done: Persisted) -> Result<(), NoRoom> {
        let mut inner = self.lock();
        if let Some(room) = &mut inner.room {
            *room = room.checked_sub(1).ok_or(NoRoom)?;
        }
        inner.writes += 1;
        if let Some(error) = inner.failing.pop_front() {
            drop(inner);
            done(Err(error));
        } else if inner.stands_still {
            inner.waiting.push_back((changes.to_vec(), done));
        } else {
            inner.apply(changes);
            drop(inner);
            done(Ok(()));
        }
        Ok(())
    }

    fn room(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.roomier.clone().notified_owned())
    }

    fn read(&self, table: PersistTable, after: Option<Bytes>) -> BoxFuture<'_, Result<Records, PersistError>> {
        let rows = self.lock().rows.clone();
        let own = rows.into_iter().filter(|((number, _), _)| *number == table as u8);
        let own = own.map(|((_, key), value)| (key, value));
        let mut rows: Vec<(Bytes, Bytes)> = own.filter(|(key, _)| after.as_ref().is_none_or(|a| key > a)).collect();
        // Small, so that every table takes several pages.
        let more = rows.len() > 2;
        rows.truncate(2);
        Box::pin(async move { Ok(Records { rows, more }) })
    }
}
