//! A store that holds rows in memory and commits at once: what the gateway reads, and no more.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use unhidra_core::command::Command;
use unhidra_core::device::{Device, Fingerprint, Standing};
use unhidra_core::ids::{CommandId, DeviceId, DeviceNumber, Epoch, Fence, Offset, Partition};
use unhidra_core::message::{Reading, Uplink, UplinkKind};
use unhidra_core::setting::Setting;
use unhidra_core::suite::Suite;
use unhidra_core::time::UnixTime;
use unhidra_store::{
    ActRow, Batch, Bounds, BoxFuture, BrokerTable, DamagedRow, Full, Health, Limit, Oldest, Overdue, Page,
    PrekeyRecord, ReadError, Readable, Restored, RestoredError, Store, Stored, Tally, Usage, Waits,
};

/// The store.
pub(crate) struct MemoryStore {
    state: Mutex<State>,
    committed: Vec<watch::Sender<Offset>>,
    health: watch::Sender<Health>,
    epoch: Epoch,
    broken: AtomicBool,
}

#[derive(Default)]
struct State {
    logs: Vec<Vec<Reading>>,
    devices: BTreeMap<DeviceId, Device>,
    commands: BTreeMap<CommandId, Command>,
    settings: Vec<Setting>,
    damaged: Vec<(Partition, Offset)>,
}

impl MemoryStore {
    pub(crate) fn new(partitions: u16, epoch: u64) -> Arc<Self> {
        let logs = vec![Vec::new(); usize::from(partitions)];
        Arc::new(Self {
            state: Mutex::new(State { logs, ..State::default() }),
            committed: (0..partitions).map(|_| watch::Sender::new(Offset::ZERO)).collect(),
            health: watch::Sender::new(Health::Ready),
            epoch: Epoch::new(epoch),
            broken: AtomicBool::new(false),
        })
    }

    /// Appends rows of one device, and gives them with their places.
    pub(crate) fn append(&self, uplinks: Vec<Uplink>) -> Vec<Arc<Reading>> {
        let mut state = self.state();
        let mut rows = Vec::new();
        for uplink in uplinks {
            let partition = self.partition_of(&uplink.device);
            let log = &mut state.logs[usize::from(partition.get())];
            let last = log.iter().rev().find(|row| row.uplink.device == uplink.device);
            let prev = last.map_or(Offset::ZERO, |row| row.offset);
            let offset = Offset::new(log.len() as u64 + 1);
            log.push(Reading { partition, offset, prev, uplink });
            rows.extend(log.last().cloned().map(Arc::new));
            self.committed[usize::from(partition.get())].send_replace(offset);
        }
        rows
    }

    pub(crate) fn put_device(&self, id: DeviceId, tags: &[&str]) {
        let device = Device {
            id,
            number: DeviceNumber::new(1),
            identity_key: [0; 32],
            certificate: Fingerprint([0; 32]),
            certificate_expires: UnixTime::from_s(2_000_000_000),
            suite: Suite::X3dh,
            tags: tags.iter().filter_map(|tag| tag.parse().ok()).collect(),
            class: String::new(),
            enrolled_at: UnixTime::from_s(1_700_000_000),
            standing: Standing::Enrolled,
        };
        self.state().devices.insert(id, device);
    }

    pub(crate) fn put_command(&self, command: &Command) {
        self.state().commands.insert(command.id, command.clone());
    }

    #[allow(dead_code, reason = "the example has no settings")]
    pub(crate) fn put_setting(&self, setting: &Setting) {
        self.state().settings.push(setting.clone());
    }

    /// Lets all rows of a device up to a place go, and leaves no stub.
    #[allow(dead_code, reason = "the example has no retention")]
    pub(crate) fn trim(&self, device: &DeviceId, upto: Offset) {
        let partition = self.partition_of(device);
        let log = &mut self.state().logs[usize::from(partition.get())];
        log.retain(|row| row.uplink.device != *device || row.offset > upto);
    }

    /// Makes every read fail from now on, or no longer.
    #[allow(dead_code, reason = "the example has no use for failure")]
    pub(crate) fn set_broken(&self, broken: bool) {
        self.broken.store(broken, Ordering::Relaxed);
    }

    /// Makes one row a record that does not read.
    #[allow(dead_code, reason = "the example has no use for failure")]
    pub(crate) fn damage(&self, partition: Partition, offset: Offset) {
        self.state().damaged.push((partition, offset));
    }

    #[allow(dead_code, reason = "the example has no use for failure")]
    pub(crate) fn set_health(&self, health: Health) {
        self.health.send_replace(health);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<'a, T: Send + 'a>(&self, work: impl FnOnce(&State) -> T) -> BoxFuture<'a, Result<T, ReadError>> {
        let result = match self.broken.load(Ordering::Relaxed) {
            true => Err(ReadError::Unavailable),
            false => Ok(work(&self.state())),
        };
        // A real read is never there at once.
        Box::pin(async {
            tokio::task::yield_now().await;
            result
        })
    }
}

fn page<'a>(rows: impl Iterator<Item = &'a Reading>, max: Limit) -> Page<Reading> {
    let mut page = Page { rows: Vec::new(), more: false };
    let mut bytes = 0;
    for row in rows {
        bytes += row.uplink.body.len();
        if page.rows.len() >= max.rows || (bytes > max.bytes && !page.rows.is_empty()) {
            page.more = true;
            break;
        }
        page.rows.push(row.clone());
    }
    page
}

/// The rows that read, and those among them that do not.
fn readable<'a>(state: &State, rows: impl Iterator<Item = &'a Reading> + Clone, max: Limit) -> Readable {
    let bad = |row: &&Reading| state.damaged.contains(&(row.partition, row.offset));
    let page = page(rows.clone().filter(|row| !bad(row)), max);
    let last = page.rows.last().filter(|_| page.more).map(|row| row.offset);
    let damaged = rows.take_while(|row| last != Some(row.offset)).filter(bad).map(|row| DamagedRow {
        offset: row.offset,
        device: Some(row.uplink.device),
        cause: ReadError::Damaged { record: format!("readings/{}", row.offset), cause: "a test".into() },
    });
    Readable { damaged: damaged.collect(), ..page.into() }
}

impl Store for MemoryStore {
    fn submit(&self, batch: Batch) -> Result<(), Full> {
        Err(Full(Box::new(batch)))
    }

    fn room(&self, _: Partition) -> Arc<Notify> {
        Arc::new(Notify::new())
    }

    fn session(&self, _: &DeviceId) -> BoxFuture<'_, Result<Option<Stored>, ReadError>> {
        Box::pin(async { Ok(None) })
    }

    fn history(&self, device: &DeviceId, after: Offset, max: Limit) -> BoxFuture<'_, Result<Page<Reading>, ReadError>> {
        let (device, at) = (*device, usize::from(self.partition_of(device).get()));
        self.read(|state| {
            page(state.logs[at].iter().filter(|row| row.uplink.device == device && row.offset > after), max)
        })
    }

    fn readable_history(
        &self,
        device: &DeviceId,
        after: Offset,
        max: Limit,
    ) -> BoxFuture<'_, Result<Readable, ReadError>> {
        let (device, partition) = (*device, self.partition_of(device));
        self.read(|state| {
            let rows = state.logs[usize::from(partition.get())].iter();
            readable(state, rows.filter(|row| row.uplink.device == device && row.offset > after), max)
        })
    }

    fn readable_newest(&self, device: &DeviceId, max: Limit) -> BoxFuture<'_, Result<Readable, ReadError>> {
        let (device, partition) = (*device, self.partition_of(device));
        let shown = move |row: &&Reading| row.uplink.device == device && row.uplink.kind != UplinkKind::Ignored;
        self.read(|state| readable(state, state.logs[usize::from(partition.get())].iter().rev().filter(shown), max))
    }

    fn newest(&self, device: &DeviceId, max: Limit) -> BoxFuture<'_, Result<Page<Reading>, ReadError>> {
        let (device, at) = (*device, usize::from(self.partition_of(device).get()));
        let shown = move |row: &&Reading| row.uplink.device == device && row.uplink.kind != UplinkKind::Ignored;
        self.read(|state| page(state.logs[at].iter().rev().filter(shown), max))
    }

    fn log(&self, partition: Partition, after: Offset, max: Limit) -> BoxFuture<'_, Result<Page<Reading>, ReadError>> {
        self.read(|state| page(state.logs[usize::from(partition.get())].iter().filter(|row| row.offset > after), max))
    }

    fn readable_log(
        &self,
        partition: Partition,
        since: Offset,
        after: Offset,
        max: Limit,
    ) -> BoxFuture<'_, Result<Readable, ReadError>> {
        self.read(|state| {
            let log = &state.logs[usize::from(partition.get())];
            let mut read = readable(state, log.iter().filter(|row| row.offset > after), max);
            let mut devices = std::collections::HashSet::new();
            let firsts = read.page.rows.iter().filter(|row| devices.insert(row.uplink.device));
            let named = firsts.map(|row| (row.uplink.device, row.prev));
            let earlier = named.filter(|(_, prev)| *prev > since && *prev <= after);
            let is_there = |(device, prev): &(DeviceId, Offset)| {
                log.iter().any(|row| (row.uplink.device, row.offset) == (*device, *prev))
            };
            read.gone = earlier.filter(|named| !is_there(named)).collect();
            read
        })
    }

    fn overdue(
        &self,
        _: &DeviceId,
        _: Bounds,
        _: UnixTime,
        _: Option<Tally>,
        _: usize,
    ) -> BoxFuture<'_, Result<Overdue, ReadError>> {
        Box::pin(async { Ok(Overdue::default()) })
    }

    fn oldest(&self, _: Partition, _: Offset, _: usize) -> BoxFuture<'_, Result<Oldest, ReadError>> {
        Box::pin(async { Ok(Oldest::default()) })
    }

    fn ended_commands(&self, _: &DeviceId, _: UnixTime, _: usize) -> BoxFuture<'_, Result<Vec<CommandId>, ReadError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn disk_bytes(&self) -> BoxFuture<'_, Result<u64, ReadError>> {
        Box::pin(async { Ok(0) })
    }

    fn compact(&self) -> BoxFuture<'_, Result<(), ReadError>> {
        Box::pin(async { Ok(()) })
    }

    fn usage(&self, _: Partition) -> BoxFuture<'_, Result<Usage, ReadError>> {
        Box::pin(async { Ok(Usage::default()) })
    }

    fn hold_rows(&self, _: Option<String>) {}

    fn committed(&self, partition: Partition) -> watch::Receiver<Offset> {
        self.committed[usize::from(partition.get())].subscribe()
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    fn device(&self, device: &DeviceId) -> BoxFuture<'_, Result<Option<Device>, ReadError>> {
        self.read(|state| state.devices.get(device).cloned())
    }

    fn devices(&self, after: Option<&DeviceId>, max: usize) -> BoxFuture<'_, Result<Page<Device>, ReadError>> {
        self.read(|state| {
            let mut rows = state.devices.values().filter(|device| after.is_none_or(|after| device.id > *after));
            let page = rows.by_ref().take(max).cloned().collect();
            Page { rows: page, more: rows.next().is_some() }
        })
    }

    fn command(&self, device: &DeviceId, id: &CommandId) -> BoxFuture<'_, Result<Option<Command>, ReadError>> {
        self.read(|state| state.commands.get(id).filter(|command| command.device == *device).cloned())
    }

    fn open_commands(&self, device: &DeviceId) -> BoxFuture<'_, Result<Vec<Command>, ReadError>> {
        self.read(|state| {
            let open = |command: &&Command| command.device == *device && !command.is_final();
            state.commands.values().filter(open).cloned().collect()
        })
    }

    fn commands(&self, device: &DeviceId, max: usize) -> BoxFuture<'_, Result<Vec<Command>, ReadError>> {
        self.read(|state| {
            let of_device = state.commands.values().filter(|command| command.device == *device);
            let all: Vec<Command> = of_device.cloned().collect();
            all[all.len().saturating_sub(max)..].to_vec()
        })
    }

    fn waits(&self, _: Partition, _: DeviceNumber, _: usize) -> BoxFuture<'_, Result<Page<Waits>, ReadError>> {
        Box::pin(async { Ok(Page { rows: Vec::new(), more: false }) })
    }

    fn reading_ids(&self, _: &DeviceId, _: usize) -> BoxFuture<'_, Result<Vec<(Offset, u64)>, ReadError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn settings(&self, device: &DeviceId) -> BoxFuture<'_, Result<Vec<Setting>, ReadError>> {
        self.read(|state| state.settings.iter().filter(|setting| setting.device == *device).cloned().collect())
    }

    fn signed_prekeys(&self) -> BoxFuture<'_, Result<Vec<PrekeyRecord>, ReadError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn prekeys(&self, _: &DeviceId) -> BoxFuture<'_, Result<Vec<PrekeyRecord>, ReadError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn broker_records(
        &self,
        _: BrokerTable,
        _: Option<&[u8]>,
        _: Limit,
    ) -> BoxFuture<'_, Result<Page<(Bytes, Bytes)>, ReadError>> {
        Box::pin(async { Ok(Page { rows: Vec::new(), more: false }) })
    }

    fn acts(&self, _: Partition, _: u64, _: usize) -> BoxFuture<'_, Result<Page<ActRow>, ReadError>> {
        Box::pin(async { Ok(Page { rows: Vec::new(), more: false }) })
    }

    fn partition_of(&self, device: &DeviceId) -> Partition {
        let sum: usize = device.as_bytes().iter().map(|byte| usize::from(*byte)).sum();
        Partition::new(u16::try_from(sum % self.committed.len()).unwrap_or_default())
    }

    fn partitions(&self) -> u16 {
        u16::try_from(self.committed.len()).unwrap_or(u16::MAX)
    }

    fn fence(&self, _: Partition) -> Fence {
        Fence::default()
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn restored(&self) -> Option<Restored> {
        None
    }

    fn settle_restored(&self) -> BoxFuture<'_, Result<(), RestoredError>> {
        Box::pin(async { Ok(()) })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}
