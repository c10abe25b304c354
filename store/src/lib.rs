//! What must survive: session records, readings, commands and the device registry.
//!
//! The interface of every engine. `contract.rs` says what each must do; [`Embedded`] is the default
//! engine over fjall, [`memory`] the one with crash points.
//!
//! Writes go through [`Store::submit`], reads are asynchronous, and nothing here knows what a
//! session record or a body means.

use std::sync::Arc;

use tokio::sync::{Notify, watch};
use unhidra_core::command::Command;
use unhidra_core::device::Device;
use unhidra_core::ids::{CommandId, DeviceId, DeviceNumber, Epoch, Fence, Offset, Partition, Version};
use unhidra_core::message::Reading;
use unhidra_core::setting::Setting;
use unhidra_core::time::UnixTime;

mod act;
mod batch;
mod config;
#[cfg(test)]
mod contract;
mod embedded;
mod error;
mod fault;
mod health;
pub mod keyfile;
mod keyring;
mod ledger;
mod linger;
mod master;
pub mod memory;
mod metrics;
mod partition;
mod query;
mod readable;
mod reading_ids;
mod record;
mod retention;
mod ring;
mod rows;
mod sealed;
mod table;
mod tag;
mod waiting;

pub use act::{Act, ActRow, Deed};
pub use batch::{
    Assigned, Batch, BrokerTable, Committed, Done, Lane, LeftOut, MessageTag, Op, PrekeyChange, PrekeyKind,
    PrekeyRecord, Slot, Unit,
};
pub use config::{Config, ConfigError, Durability, KeyCommand};
pub use embedded::{
    Acceptance, Checking, Contents, Copying, Embedded, FINDINGS_MAX, Finding, OpenError, Piece, Place, Resealable,
    Restoring, Verified, mark_restored, verify,
};
pub use error::{CommitError, Full, ReadError, RestoredError};
pub use fault::{CrashPoint, Fault};
pub use keyring::{KeyRecord, Keyring, KeyringError, RingRecord};
pub use master::{KeyBytes, LocalMaster, MasterError, MasterId, MasterKey};
pub use metrics::Metrics;
pub use retention::{Bounds, Oldest, Overdue, Reason, STUBS, Tally, Trim};
pub use ring::{KeyState, Purpose, RingError};
pub use sealed::Keys;
pub use table::RecordName;

/// A future without a name, so that [`Store`] can be a trait object.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why a store is at an earlier moment than it was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Restored {
    /// It was marked as put back from a copy ([`mark_restored`] for a folder).
    Copy,
    /// The system was started anew while it was open with [`Durability::Interval`] or
    /// [`Durability::None`], so a power cut may have taken its end.
    PowerCut,
}

/// Whether an engine serves.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Health {
    /// It does.
    Ready,
    /// A commit failed; its outcome is being read back. Everything in memory that was ahead of the
    /// store is void: drop it, and read again when `Ready` returns.
    Reopening,
    /// It takes no rows, and does everything else: there is no room for them. Says why.
    Full(String),
    /// It cannot go on without a person.
    Failed(String),
}

/// What a partition holds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    /// Bytes on the disk, journals and what waits to be compacted too.
    pub disk_bytes: u64,
    /// When its oldest whole row was received; `None` where there is none among the first.
    pub oldest: Option<UnixTime>,
    /// Its newest row.
    pub newest: Offset,
}

/// How many of a log's first rows [`Store::usage`] looks at for one that is whole.
const OLDEST_LOOK: usize = 1024;

/// How much a page may hold: whichever bound is met first ends it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limit {
    /// Rows, at least 1.
    pub rows: usize,
    /// Bytes of bodies; one row is always given, however large.
    pub bytes: usize,
}

impl Default for Limit {
    /// 256 rows, 256 KiB.
    fn default() -> Self {
        Self { rows: 256, bytes: 256 * 1024 }
    }
}

/// A run of rows in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Whether there was more at the time of reading.
    pub more: bool,
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), more: false }
    }
}

/// A row that does not read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DamagedRow {
    /// Its place.
    pub offset: Offset,
    /// Whose it is, where that reads.
    pub device: Option<DeviceId>,
    /// Which record does not read, and why.
    pub cause: ReadError,
}

/// A run of rows with those that do not read passed over.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Readable {
    /// Those that read.
    pub page: Page<Reading>,
    /// Those that do not, in order, among and behind the others; at most as many as the page may hold.
    pub damaged: Vec<DamagedRow>,
    /// Of a log: rows before the page that a device's first row in it names as the one before, and that are not
    /// there. Of how many before those the same is so, nobody knows.
    pub gone: Vec<(DeviceId, Offset)>,
}

impl From<Page<Reading>> for Readable {
    fn from(page: Page<Reading>) -> Self {
        Self { page, ..Self::default() }
    }
}

impl Readable {
    /// How far this brings whoever reads from `after` on.
    #[must_use]
    pub fn reached(&self, after: Offset) -> Offset {
        let row = self.page.rows.last().map(|row| row.offset);
        let damaged = self.damaged.last().map(|row| row.offset);
        row.max(damaged).unwrap_or(after)
    }
}

/// One session's records as they lie.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct StoredSession {
    /// The whole state, written at DH steps and by a seal that made one.
    pub whole: bytes::Bytes,
    /// What the receiving chain has become since.
    pub receive: Option<bytes::Bytes>,
    /// What the sending chain has become since.
    pub send: Option<bytes::Bytes>,
}

impl std::fmt::Debug for StoredSession {
    // All of it is keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoredSession([secret])")
    }
}

/// All a shard needs to go on with a device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stored {
    /// The expectation of the next write.
    pub version: Version,
    /// The present session.
    pub present: Option<StoredSession>,
    /// The session before it, which only receives.
    pub previous: Option<StoredSession>,
    /// What outlives sessions; see [`Op::Peer`].
    pub peer: Option<bytes::Bytes>,
    /// The tags of the device's newest rows, oldest first, at most [`RECENT_TAGS`].
    pub recent: Vec<MessageTag>,
    /// The device's newest row, [`Offset::ZERO`] without one.
    pub newest: Offset,
    /// Its session records and its rows are not of one moment, so they were damaged: the sessions
    /// are not given, and its next write deletes them.
    pub stale: bool,
}

/// A device with commands that are not final.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Waits {
    /// Its number, by which the next page is asked for.
    pub number: DeviceNumber,
    /// The device.
    pub device: DeviceId,
    /// When the first of them expires.
    pub expires_at: UnixTime,
}

/// How many rows' tags [`Stored::recent`] gives (e2ee/PROTOCOL.md section 7).
pub const RECENT_TAGS: usize = 32;

/// What is kept of a device; see [`Store::records`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceRecords {
    /// Its sessions; the default where nothing was ever written of it.
    pub stored: Stored,
    /// The node's signed prekeys, and its one-time prekeys.
    pub prekeys: Vec<PrekeyRecord>,
    /// Its commands that are not final, oldest first.
    pub commands: Vec<Command>,
    /// Its settings, those that were removed too.
    pub settings: Vec<Setting>,
    /// The reading ids of its newest rows and where those are, oldest first. Those of rows that were trimmed are
    /// known as long as a stub of them is there.
    pub reading_ids: Vec<(Offset, u64)>,
}

/// What must survive, and the order it survives in.
pub trait Store: Send + Sync + 'static {
    /// Hands a batch to the partition's writer, and never waits.
    ///
    /// Its `done` is called from the writer, in the order of submission within the partition, once
    /// the batch is durable or has failed. When a commit fails every batch behind it fails too.
    /// A store that is closed, or has failed for good, calls it at once, with
    /// [`CommitError::Closed`].
    ///
    /// # Errors
    ///
    /// [`Full`] gives the batch back; submit it again when [`Store::room`] notifies.
    fn submit(&self, batch: Batch) -> Result<(), Full>;

    /// Notified (`notify_waiters`) whenever the partition's writer has taken what waited, rows are taken
    /// again, or the store is closed. Enable the `notified()` future before `submit`, or the signal may
    /// come between.
    fn room(&self, partition: Partition) -> Arc<Notify>;

    /// A device's session records, its newest tags and its newest row. `None` where nothing was
    /// ever written of it.
    fn session(&self, device: &DeviceId) -> BoxFuture<'_, Result<Option<Stored>, ReadError>>;

    /// A device's rows after `after`, in order. Of some that were trimmed there is a stub
    /// ([`UplinkKind::Trimmed`]), of others nothing: a row whose `prev` lies behind `after` and is not
    /// here says so. A row that does not read makes this an error.
    ///
    /// [`UplinkKind::Trimmed`]: unhidra_core::message::UplinkKind::Trimmed
    fn history(&self, device: &DeviceId, after: Offset, max: Limit) -> BoxFuture<'_, Result<Page<Reading>, ReadError>>;

    /// The same for who must go on: rows that do not read are passed over, and told by their places. Where
    /// a file does not read, one place stands for all up to it.
    fn readable_history(
        &self,
        device: &DeviceId,
        after: Offset,
        max: Limit,
    ) -> BoxFuture<'_, Result<Readable, ReadError>>;

    /// A device's newest rows, newest first, rows nobody is shown left out. Looks at no more than
    /// its newest 4 096.
    fn newest(&self, device: &DeviceId, max: Limit) -> BoxFuture<'_, Result<Page<Reading>, ReadError>>;

    /// The same, with rows that do not read passed over, and told by their places, newest first. Where a file
    /// does not read, one place stands for all down to where it reads again.
    fn readable_newest(&self, device: &DeviceId, max: Limit) -> BoxFuture<'_, Result<Readable, ReadError>>;

    /// A partition's rows after `after`, in order, stubs too, as in [`history`](Self::history).
    /// A row that does not read makes this an error: see [`readable_log`](Self::readable_log).
    fn log(&self, partition: Partition, after: Offset, max: Limit) -> BoxFuture<'_, Result<Page<Reading>, ReadError>>;

    /// The same for who must go on: rows that do not read are passed over, and told by their places. Whoever reads
    /// page by page and began behind `since` is told too whose rows between there and `after` are gone
    /// ([`Readable::gone`]): at `after` itself there are none.
    fn readable_log(
        &self,
        partition: Partition,
        since: Offset,
        after: Offset,
        max: Limit,
    ) -> BoxFuture<'_, Result<Readable, ReadError>>;

    /// What of a device's rows is beyond `bounds` at `now`: of `max` rows at once. `tally` is what the
    /// last look at this device gave.
    fn overdue(
        &self,
        device: &DeviceId,
        bounds: Bounds,
        now: UnixTime,
        tally: Option<Tally>,
        max: usize,
    ) -> BoxFuture<'_, Result<Overdue, ReadError>>;

    /// The oldest `max` rows of a partition behind `after`, whatever their age, as what is to be
    /// trimmed next.
    fn oldest(&self, partition: Partition, after: Offset, max: usize) -> BoxFuture<'_, Result<Oldest, ReadError>>;

    /// A device's final commands that ended before `before`, at most `max`.
    fn ended_commands(
        &self,
        device: &DeviceId,
        before: UnixTime,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<CommandId>, ReadError>>;

    /// What all of it takes of the disk, in bytes; journals and what waits to be compacted too.
    fn disk_bytes(&self) -> BoxFuture<'_, Result<u64, ReadError>>;

    /// Writes out and compacts rows and log as a whole, so that what was deleted leaves the disk.
    /// It needs as much room again as they take, for a while.
    fn compact(&self) -> BoxFuture<'_, Result<(), ReadError>>;

    /// How much a partition holds: what it takes of the disk, and how old its oldest whole row is.
    fn usage(&self, partition: Partition) -> BoxFuture<'_, Result<Usage, ReadError>>;

    /// From now on gives back every batch that appends a row, as if the queue were full, and says
    /// why in its [`health`](Self::health); everything else goes on. `None` ends that, and notifies
    /// [`room`](Self::room).
    fn hold_rows(&self, why: Option<String>);

    /// The newest durable row of a partition.
    fn committed(&self, partition: Partition) -> watch::Receiver<Offset>;

    /// Whether the engine serves.
    fn health(&self) -> watch::Receiver<Health>;

    /// A device of the registry.
    fn device(&self, device: &DeviceId) -> BoxFuture<'_, Result<Option<Device>, ReadError>>;

    /// Devices in the order of their ids, after `after`; `max` counts rows alone.
    fn devices(&self, after: Option<&DeviceId>, max: usize) -> BoxFuture<'_, Result<Page<Device>, ReadError>>;

    /// One command.
    fn command(&self, device: &DeviceId, id: &CommandId) -> BoxFuture<'_, Result<Option<Command>, ReadError>>;

    /// A device's commands that are not final, oldest first.
    fn open_commands(&self, device: &DeviceId) -> BoxFuture<'_, Result<Vec<Command>, ReadError>>;

    /// A device's newest commands, at most `max`, final or not, oldest first.
    fn commands(&self, device: &DeviceId, max: usize) -> BoxFuture<'_, Result<Vec<Command>, ReadError>>;

    /// The devices of a partition with commands that are not final, in the order of their numbers,
    /// after `after`; 0 comes before all. At most `max`, at least 1. Damaged commands are passed over.
    fn waits(
        &self,
        partition: Partition,
        after: DeviceNumber,
        max: usize,
    ) -> BoxFuture<'_, Result<Page<Waits>, ReadError>>;

    /// The reading ids of a device's newest `max` rows and where those are, oldest first: also of rows that were trimmed
    /// and of which a stub is there. Rows that repeat another are none.
    fn reading_ids(&self, device: &DeviceId, max: usize) -> BoxFuture<'_, Result<Vec<(Offset, u64)>, ReadError>>;

    /// A device's settings in the order of their names, those that were removed too.
    fn settings(&self, device: &DeviceId) -> BoxFuture<'_, Result<Vec<Setting>, ReadError>>;

    /// The node's signed prekeys.
    fn signed_prekeys(&self) -> BoxFuture<'_, Result<Vec<PrekeyRecord>, ReadError>>;

    /// The node's signed prekeys, and the one-time prekey of `device`.
    fn prekeys(&self, device: &DeviceId) -> BoxFuture<'_, Result<Vec<PrekeyRecord>, ReadError>>;

    /// All that is kept of a device beside what it sent: [`session`](Self::session),
    /// [`prekeys`](Self::prekeys), [`open_commands`](Self::open_commands) and
    /// [`settings`](Self::settings), and the [`reading_ids`](Self::reading_ids) of its newest `rows`.
    /// An engine that can reads them at once, as of one moment.
    fn records(&self, device: &DeviceId, rows: usize) -> BoxFuture<'_, Result<DeviceRecords, ReadError>> {
        let device = *device;
        Box::pin(async move {
            Ok(DeviceRecords {
                reading_ids: self.reading_ids(&device, rows).await?,
                stored: self.session(&device).await?.unwrap_or_default(),
                prekeys: self.prekeys(&device).await?,
                commands: self.open_commands(&device).await?,
                settings: self.settings(&device).await?,
            })
        })
    }

    /// The broker's records of a table in the order of their keys, after `after`; of `max` the
    /// bytes count keys and values.
    fn broker_records(
        &self,
        table: BrokerTable,
        after: Option<&[u8]>,
        max: Limit,
    ) -> BoxFuture<'_, Result<Page<(bytes::Bytes, bytes::Bytes)>, ReadError>>;

    /// A partition's acts after the number `after`, in order; 0 is before the first.
    fn acts(&self, partition: Partition, after: u64, max: usize) -> BoxFuture<'_, Result<Page<ActRow>, ReadError>>;

    /// Which partition holds a device.
    fn partition_of(&self, device: &DeviceId) -> Partition;

    /// How many partitions there are; they are numbered from 0.
    fn partitions(&self) -> u16;

    /// The fence this process holds a partition under.
    fn fence(&self, partition: Partition) -> Fence;

    /// The log's life: a cursor of another epoch cannot be resumed.
    fn epoch(&self) -> Epoch;

    /// Why the store is at an earlier moment than it was, where it is and nobody has said yet that he
    /// acted on it: what it holds has happened before, and more after.
    fn restored(&self) -> Option<Restored>;

    /// Says that what follows from [`restored`](Self::restored) is done.
    fn settle_restored(&self) -> BoxFuture<'_, Result<(), RestoredError>>;

    /// Commits what was submitted, closes the files and refuses everything after.
    fn close(&self) -> BoxFuture<'_, ()>;
}
