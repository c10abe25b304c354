//! One outlet at work: reads the log behind its cursor, sends, and writes down how far it has come.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use rand::rngs::StdRng;
use tokio::sync::watch;
use unhidra_core::breaker::BreakerState;
use unhidra_core::device::Device;
use unhidra_core::ids::{Offset, Partition};
use unhidra_core::message::{Reading, UplinkKind};
use unhidra_core::time::{Clock, Timestamp};
use unhidra_store::{DamagedRow, Limit, ReadError, Readable, Store};

use super::config::Beginning;
use super::courier::{Courier, Step};
use super::cursor;
use super::fault::Sent;
use super::filter::Filter;
use super::local::Local;
use super::record::RowId;
use super::remote::Remote;
use super::status::Status;
use super::webhook::Webhook;
use super::window::{Found, Waiting, Window};
use crate::registry::Registry;

mod flow;
#[cfg(test)]
mod tests;

/// Rows read at once.
const PAGE: Limit = Limit { rows: 256, bytes: 256 * 1024 };

/// How often a cursor that has moved is written down: what a crash costs in rows that are sent twice.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// How often an outlet that waits says how long it does.
const LOOK: Duration = Duration::from_secs(5);

/// How long it waits for a store that does not read.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is sent: a row, and its device as the registry has it.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) row: Reading,
    pub(crate) device: Option<Arc<Device>>,
}

/// Where rows go.
#[derive(Debug)]
pub(crate) enum Sink {
    Local(Local),
    Remote(Box<Remote>),
    Webhook(Box<Webhook>),
}

/// One outlet.
pub(crate) struct Runner {
    pub(crate) status: Arc<Status>,
    pub(crate) sink: Sink,
    pub(crate) filter: Filter,
    pub(crate) courier: Courier,
    /// Rows and bytes that wait at most; a page more.
    pub(crate) window: (usize, usize),
    pub(crate) beginning: Beginning,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) clock: Arc<dyn Clock + Send + Sync>,
    pub(crate) rng: StdRng,
}

/// A runner that knows where it is.
struct Running {
    runner: Runner,
    ends: Vec<watch::Receiver<Offset>>,
    window: Window<Item>,
    saved: Vec<Offset>,
    saved_at: Timestamp,
    /// The store did not read; not before this instant again.
    read_at: Timestamp,
    /// Whether the last attempt failed, so that it is said once.
    failing: bool,
    /// Whether it was said that rows go to nobody.
    said_unread: bool,
}

impl Runner {
    /// Runs until `stop` says so, and writes down how far it has come.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        let running = tokio::select! {
            () = told(&mut stop) => return,
            running = self.begin() => running,
        };
        running.run(&mut stop).await;
    }

    /// Finds its place; where it is new, it writes that down first, so that what comes from now on is
    /// not missed by a crash.
    async fn begin(self) -> Running {
        let partitions = self.store.partitions();
        let ends: Vec<_> = (0..partitions).map(|number| self.store.committed(Partition::new(number))).collect();
        let cursors = loop {
            match cursor::load(&*self.store, &self.status.name).await {
                Ok(cursors) => break cursors,
                Err(error) => {
                    tracing::error!(outlet = self.status.name, %error, "its cursor cannot be read; nothing is sent");
                    tokio::time::sleep(LOOK).await;
                }
            }
        };
        let mut places = Vec::new();
        for (cursor, end) in cursors.iter().zip(&ends) {
            let end = *end.borrow();
            places.push(match (cursor, self.beginning) {
                (Some(cursor), _) if *cursor <= end => *cursor,
                (Some(cursor), _) => {
                    let name = &self.status.name;
                    tracing::warn!(outlet = name, %cursor, %end, "its cursor is beyond the log; it goes on at the end");
                    end
                }
                (None, Beginning::Newest) => end,
                (None, Beginning::Oldest) => Offset::ZERO,
            });
        }
        let (rows_max, bytes_max) = self.window;
        let window = Window::new(&places, rows_max, bytes_max);
        let window = if self.beginning == Beginning::Oldest { window.beginning_at_the_oldest() } else { window };
        // What is not where it was found is written down before the first row.
        let saved = cursors.iter().map(|cursor| cursor.unwrap_or(Offset::new(u64::MAX))).collect();
        let now = self.clock.now();
        let mut running = Running {
            runner: self,
            ends,
            window,
            saved,
            saved_at: now,
            read_at: now,
            failing: false,
            said_unread: false,
        };
        while !running.save().await {
            tokio::time::sleep(PATIENCE).await;
        }
        running
    }
}

impl Running {
    async fn run(mut self, stop: &mut watch::Receiver<bool>) {
        loop {
            let has_read = self.read().await;
            self.show();
            let now = self.runner.clock.now();
            let goes_on = match self.runner.courier.next(&self.window, now) {
                Step::Send(count) => self.exchange(0..count, stop).await,
                Step::Witness(at) => self.exchange(at..at + 1, stop).await,
                Step::Wait(at) => self.rest(Some(at), has_read, stop).await,
                Step::Idle => self.rest(None, has_read, stop).await,
            };
            if !goes_on {
                break;
            }
        }
        self.save().await;
    }

    /// Sends rows and hears what became of them. Says whether it goes on: not where it is told to end.
    async fn exchange(&mut self, places: Range<usize>, stop: &mut watch::Receiver<bool>) -> bool {
        let sent = tokio::select! {
            biased;
            () = told(stop) => return false,
            sent = self.send(places) => sent,
        };
        self.hear(&sent);
        if self.is_due() {
            self.save().await;
        }
        true
    }

    /// Waits until there is something to do. Says whether it goes on, likewise.
    async fn rest(&mut self, until: Option<Timestamp>, has_read: bool, stop: &mut watch::Receiver<bool>) -> bool {
        if self.is_due() {
            self.save().await;
        }
        tokio::select! {
            biased;
            () = told(stop) => false,
            () = self.pause(until, has_read) => true,
        }
    }

    /// Sends the rows at these places of the window: the first ones, and those that may follow them, or a
    /// witness.
    async fn send(&mut self, places: Range<usize>) -> Sent {
        if let Sink::Remote(_) = self.runner.sink {
            return if places.start == 0 { self.flow(places.len()).await } else { self.testify(places.start).await };
        }
        let Self { runner, window, .. } = self;
        let rows: Vec<Item> = places.filter_map(|at| window.at(at)).map(|waiting| waiting.item.clone()).collect();
        let rows: Vec<&Item> = rows.iter().collect();
        match &mut runner.sink {
            Sink::Local(local) => local.send(&rows).await,
            Sink::Webhook(webhook) => webhook.send(&rows).await,
            Sink::Remote(_) => Sent::all(0),
        }
    }

    /// Reads on while there is room. Says whether it has read all there is.
    async fn read(&mut self) -> bool {
        if self.runner.clock.now() < self.read_at {
            return false;
        }
        loop {
            let ends: Vec<Offset> = self.ends.iter_mut().map(|end| *end.borrow_and_update()).collect();
            let Some((partition, after)) = self.window.wants(&ends) else { return true };
            if let Err(error) = self.read_page(partition, after, &ends).await {
                tracing::warn!(outlet = self.runner.status.name, %error, "the log cannot be read; tried again");
                self.read_at = self.runner.clock.now().saturating_add(PATIENCE);
                return false;
            }
        }
    }

    async fn read_page(&mut self, partition: Partition, after: Offset, ends: &[Offset]) -> Result<(), ReadError> {
        // What went before it was read shows by its place.
        let Readable { page, damaged, .. } = self.runner.store.readable_log(partition, after, after, PAGE).await?;
        self.pass_over(partition, &damaged);
        let read_at = self.runner.clock.now();
        let passed = damaged.into_iter().map(|row| (row.offset, Found::Unwanted));
        let rows = page.rows.into_iter().map(|row| {
            let (id, offset) = (row.uplink.device, row.offset);
            let device = self.runner.registry.get(&id);
            let found = if row.uplink.kind == UplinkKind::Trimmed {
                Found::Removed
            } else if self.runner.filter.wants(&row, device.as_deref()) {
                let (bytes, received_at) = (row.uplink.body.len(), row.uplink.received_at);
                let item = Item { row, device };
                Found::Wanted(Waiting { item, device: id, partition, offset, bytes, received_at, read_at })
            } else {
                Found::Unwanted
            };
            (offset, found)
        });
        let mut rows: Vec<_> = rows.chain(passed).collect();
        rows.sort_by_key(|(offset, _)| *offset);
        let end = ends.get(usize::from(partition.get())).copied().filter(|_| !page.more);
        if let Some(gap) = self.window.fill(partition, rows, end).gap {
            self.runner.status.misses(gap.rows);
            if gap.begins {
                let (name, rows) = (&self.runner.status.name, gap.rows);
                tracing::warn!(outlet = name, %partition, rows, "rows were removed from the log before they were sent");
            }
        }
        Ok(())
    }

    /// Counts rows that do not read, and says it once: they are behind the outlet from now on.
    fn pass_over(&self, partition: Partition, damaged: &[DamagedRow]) {
        let Some(first) = damaged.first() else { return };
        let status = &self.runner.status;
        status.cannot_read(damaged.len());
        let (name, rows, offset, cause) = (&status.name, damaged.len(), first.offset, &first.cause);
        tracing::error!(
            outlet = name,
            %partition,
            %offset,
            rows,
            %cause,
            "rows of the log do not read and are passed over; the first is at this offset: `unhidra store verify` \
             of the stopped node names all"
        );
    }

    fn hear(&mut self, sent: &Sent) {
        let Self { runner, window, .. } = self;
        let (now, unix_now) = (runner.clock.now(), runner.clock.unix_now());
        let outcome = runner.courier.heard(sent.answer, now, &mut runner.rng);
        let name = &runner.status.name;
        if outcome.taken > 0 {
            runner.status.delivers(outcome.taken);
            runner.status.passes_over(sent.unread);
            // Once: with readers of some devices alone, rows of the others go to nobody for ever.
            if sent.unread > 0 && !std::mem::replace(&mut self.said_unread, true) {
                tracing::warn!(
                    outlet = runner.status.name,
                    rows = sent.unread,
                    "nobody subscribed to these rows whom a rule of [acl] lets read them: they are passed over, and \
                     nobody gets them later; further ones are counted as unread"
                );
            }
        }
        if let Some(fault) = &sent.fault {
            runner.status.fails(fault, unix_now);
        }
        match (&sent.fault, self.failing) {
            (Some(fault), false) => tracing::warn!(outlet = name, cause = fault.text, "rows were not taken; they wait"),
            // Not where it was a witness: the row that it speaks of still waits.
            (None, true) if outcome.taken > 0 => tracing::info!(outlet = name, "rows are taken again"),
            _ => {}
        }
        self.failing = sent.fault.is_some() || (self.failing && outcome.taken == 0);
        if outcome.left_behind {
            runner.status.leaves_behind();
            let refused = window.at(outcome.taken);
            let id = refused.map(|waiting| RowId::of(runner.store.epoch(), &waiting.item.row).to_string());
            tracing::error!(
                outlet = name,
                row = id.unwrap_or_default(),
                "a row was refused again and again: left behind"
            );
        }
        window.done(outcome.taken + usize::from(outcome.left_behind));
    }

    fn show(&self) {
        let status = &self.runner.status;
        let ends: Vec<Offset> = self.ends.iter().map(|end| *end.borrow()).collect();
        let oldest = self.window.first(1).next().map(|row| row.received_at);
        status.lags(self.window.lag(&ends), oldest, self.runner.clock.unix_now());
        let state = self.runner.courier.pace().breaker();
        if let Some(before) = status.breaker(state) {
            let (name, from, to) = (&status.name, before.as_str(), state.as_str());
            match state {
                BreakerState::Open => tracing::warn!(outlet = name, from, to, "its circuit breaker"),
                _ => tracing::info!(outlet = name, from, to, "its circuit breaker"),
            }
        }
    }

    fn is_dirty(&self) -> bool {
        self.window.cursors() != self.saved
    }

    fn is_due(&self) -> bool {
        self.runner.clock.now() >= self.saved_at.saturating_add(SAVE_EVERY) && self.is_dirty()
    }

    /// Writes down the cursors that have moved. Says whether all are.
    async fn save(&mut self) -> bool {
        self.saved_at = self.runner.clock.now();
        let mut all = true;
        for ((number, cursor), saved) in (0..).zip(self.window.cursors()).zip(&mut self.saved) {
            if cursor == *saved {
                continue;
            }
            match cursor::save(&*self.runner.store, &self.runner.status.name, Partition::new(number), cursor).await {
                Ok(()) => *saved = cursor,
                Err(error) => {
                    all = false;
                    let name = &self.runner.status.name;
                    tracing::warn!(outlet = name, %error, "how far it has come is not written down; tried again");
                }
            }
        }
        all
    }

    /// Waits until there is something to do: until `at`, for new rows where there is room for them, or
    /// to write down the cursors.
    async fn pause(&mut self, at: Option<Timestamp>, has_read: bool) {
        let mut until = at;
        let mut earlier = |instant: Timestamp| until = Some(until.map_or(instant, |until| until.min(instant)));
        let now = self.runner.clock.now();
        if self.is_dirty() {
            earlier(self.saved_at.saturating_add(SAVE_EVERY));
        }
        if !has_read {
            earlier(self.read_at);
        }
        if self.window.len() > 0 {
            earlier(now.saturating_add(LOOK));
        }
        let (rows_max, bytes_max) = self.runner.window;
        let has_room = has_read && !self.window.is_full(rows_max, bytes_max);
        let timer = async {
            match until {
                Some(until) => tokio::time::sleep(until.saturating_since(now)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = timer => {}
            () = news(&mut self.ends), if has_room => {}
        }
    }
}

/// Completes when a log goes on.
async fn news(ends: &mut [watch::Receiver<Offset>]) {
    let changes = ends.iter_mut().map(|end| Box::pin(end.changed()));
    // A store that is closed says no more; the end of the node follows.
    if select_all(changes).await.0.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Completes when the outlet is to end.
async fn told(stop: &mut watch::Receiver<bool>) {
    // An error says that nobody is left to tell us.
    let _ = stop.wait_for(|stop| *stop).await;
}
