//! The memory engine as a [`Store`].

use super::*;

impl Store for Memory {
    fn submit(&self, batch: Batch) -> Result<(), Full> {
        self.life.submit(batch)
    }

    fn room(&self, partition: Partition) -> Arc<Notify> {
        Arc::clone(&self.life.rooms[usize::from(partition.get())])
    }

    fn session(&self, device: &DeviceId) -> BoxFuture<'_, Result<Option<Stored>, ReadError>> {
        let device = *device;
        if lock(&self.life.state).unreadable == Some(device) {
            return Box::pin(async { Err(ReadError::Engine("the disk gives nothing".to_owned())) });
        }
        let mut slow = self.life.slow.subscribe();
        Box::pin(async move {
            // The sender is in the life this handle holds, so it is never gone.
            _ = slow.wait_for(|slow| *slow != Some(device)).await;
            self.read(self.partition_of(&device), move |rows, _| query::session(rows, &device)).await
        })
    }

    fn history(&self, device: &DeviceId, after: Offset, max: Limit) -> BoxFuture<'_, Result<Page<Reading>, ReadError>> {
        let device = *device;
        self.read(self.partition_of(&device), move |rows, partition| {
            query::history(rows, partition, &device, after, max)
        })
    }

    fn readable_history(
        &self,
        device: &DeviceId,
        after: Offset,
        max: Limit,
    ) -> BoxFuture<'_, Result<Readable, ReadError>> {
        let device = *device;
        self.read(self.partition_of(&device), move |rows, partition| {
            readable::history(rows, partition, &device, after, max)
        })
    }

    fn readable_newest(&self, device: &DeviceId, max: Limit) -> BoxFuture<'_, Result<Readable, ReadError>> {
        let device = *device;
        self.read(self.partition_of(&device), move |rows, partition| readable::newest(rows, partition, &device, max))
    }

    fn newest(&self, device: &DeviceId, max: Limit) -> BoxFuture<'_, Result<Page<Reading>, ReadError>> {
        let device = *device;
        self.read(self.partition_of(&device), move |rows, partition| query::newest(rows, partition, &device, max))
    }

    fn log(&self, partition: Partition, after: Offset, max: Limit) -> BoxFuture<'_, Result<Page<Reading>, ReadError>> {
        self.read(partition, move |rows, partition| query::log(rows, partition, after, max))
    }

    fn readable_log(
        &self,
        partition: Partition,
        since: Offset,
        after: Offset,
        max: Limit,
    ) -> BoxFuture<'_, Result<Readable, ReadError>> {
        self.read(partition, move |rows, partition| readable::log(rows, partition, since, after, max))
    }

    fn overdue(
        &self,
        device: &DeviceId,
        bounds: Keep,
        now: UnixTime,
        tally: Option<Tally>,
        max: usize,
    ) -> BoxFuture<'_, Result<Overdue, ReadError>> {
        let device = *device;
        self.read(self.partition_of(&device), move |rows, _| {
            retention::overdue(rows, &device, &bounds, now, tally, max)
        })
    }

    fn oldest(&self, partition: Partition, after: Offset, max: usize) -> BoxFuture<'_, Result<Oldest, ReadError>> {
        self.read(partition, move |rows, _| retention::oldest(rows, after, max))
    }

    fn ended_commands(
        &self,
        device: &DeviceId,
        before: UnixTime,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<CommandId>, ReadError>> {
        let device = *device;
        self.read(self.partition_of(&device), move |rows, _| query::ended_commands(rows, &device, before, max))
    }

    fn disk_bytes(&self) -> BoxFuture<'_, Result<u64, ReadError>> {
        Box::pin(async move {
            let bytes = self.all().map(|partition| self.life.read(partition, |rows| retention::bytes(rows)));
            Ok(bytes.collect::<Result<Vec<_>, _>>()?.into_iter().sum())
        })
    }

    fn compact(&self) -> BoxFuture<'_, Result<(), ReadError>> {
        Box::pin(async { Ok(()) })
    }

    fn usage(&self, partition: Partition) -> BoxFuture<'_, Result<Usage, ReadError>> {
        self.read(partition, |rows, _| {
            let oldest = retention::oldest_at(rows, OLDEST_LOOK)?;
            Ok(Usage { disk_bytes: retention::bytes(rows)?, oldest, newest: query::log_end(rows)? })
        })
    }

    fn hold_rows(&self, why: Option<String>) {
        let is_held = why.is_some();
        lock(&self.life.state).held = is_held;
        self.life.board.set_full(why);
        if !is_held {
            self.life.rooms.iter().for_each(|room| room.notify_waiters());
        }
    }

    fn committed(&self, partition: Partition) -> watch::Receiver<Offset> {
        self.life.committed[usize::from(partition.get())].subscribe()
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.life.board.subscribe()
    }

    fn device(&self, device: &DeviceId) -> BoxFuture<'_, Result<Option<Device>, ReadError>> {
        let device = *device;
        if lock(&self.life.state).unreadable == Some(device) {
            return Box::pin(async { Err(ReadError::Engine("the disk gives nothing".to_owned())) });
        }
        self.read(self.partition_of(&device), move |rows, _| query::device(rows, &device))
    }

    fn devices(&self, after: Option<&DeviceId>, max: usize) -> BoxFuture<'_, Result<Page<Device>, ReadError>> {
        let after = after.copied();
        Box::pin(async move {
            let page = |partition| self.life.read(partition, |rows| query::devices(rows, after.as_ref(), max));
            Ok(query::merge_devices(self.all().map(page).collect::<Result<_, _>>()?, max))
        })
    }

    fn command(&self, device: &DeviceId, id: &CommandId) -> BoxFuture<'_, Result<Option<Command>, ReadError>> {
        let (device, id) = (*device, *id);
        self.read(self.partition_of(&device), move |rows, _| query::command(rows, &device, &id))
    }

    fn open_commands(&self, device: &DeviceId) -> BoxFuture<'_, Result<Vec<Command>, ReadError>> {
        let device = *device;
        self.read(self.partition_of(&device), move |rows, _| query::open_commands(rows, &device))
    }

    fn commands(&self, device: &DeviceId, max: usize) -> BoxFuture<'_, Result<Vec<Command>, ReadError>> {
        let device = *device;
        self.read(self.partition_of(&device), move |rows, _| query::commands(rows, &device, max))
    }

    fn waits(
        &self,
        partition: Partition,
        after: DeviceNumber,
        max: usize,
    ) -> BoxFuture<'_, Result<Page<Waits>, ReadError>> {
        self.read(partition, move |rows, _| query::waits(rows, after, max))
    }

    fn reading_ids(&self, device: &DeviceId, max: usize) -> BoxFuture<'_, Result<Vec<(Offset, u64)>, ReadError>> {
        let device = *device;
        self.read(self.partition_of(&device), move |rows, partition| {
            crate::reading_ids::of(rows, partition, &device, max)
        })
    }

    fn settings(&self, device: &DeviceId) -> BoxFuture<'_, Result<Vec<Setting>, ReadError>> {
        let device = *device;
        self.read(self.partition_of(&device), move |rows, _| query::settings(rows, &device))
    }

    fn signed_prekeys(&self) -> BoxFuture<'_, Result<Vec<PrekeyRecord>, ReadError>> {
        Box::pin(async move {
            let signed = self.all().map(|partition| self.life.read(partition, |rows| query::signed_prekeys(rows)));
            Ok(query::merge_prekeys(signed.collect::<Result<_, _>>()?, Vec::new()))
        })
    }

    fn prekeys(&self, device: &DeviceId) -> BoxFuture<'_, Result<Vec<PrekeyRecord>, ReadError>> {
        let device = *device;
        Box::pin(async move {
            let signed = self.all().map(|partition| self.life.read(partition, |rows| query::signed_prekeys(rows)));
            let own = self.life.read(self.partition_of(&device), |rows| query::one_time_prekeys(rows, &device));
            Ok(query::merge_prekeys(signed.collect::<Result<_, _>>()?, own?))
        })
    }

    fn broker_records(
        &self,
        table: BrokerTable,
        after: Option<&[u8]>,
        max: Limit,
    ) -> BoxFuture<'_, Result<Page<(Bytes, Bytes)>, ReadError>> {
        let after = after.map(Bytes::copy_from_slice);
        Box::pin(async move {
            let read =
                |partition| self.life.read(partition, |rows| query::broker_records(rows, table, after.as_deref(), max));
            Ok(query::merge_broker_records(self.all().map(read).collect::<Result<_, _>>()?, max))
        })
    }

    fn acts(&self, partition: Partition, after: u64, max: usize) -> BoxFuture<'_, Result<Page<ActRow>, ReadError>> {
        self.read(partition, move |rows, partition| query::acts(rows, partition, after, max))
    }

    fn partition_of(&self, device: &DeviceId) -> Partition {
        partition_of(device, self.partitions())
    }

    fn partitions(&self) -> u16 {
        self.life.options.partitions
    }

    fn fence(&self, _: Partition) -> Fence {
        self.life.fence
    }

    fn epoch(&self) -> Epoch {
        self.life.options.epoch
    }

    fn restored(&self) -> Option<Restored> {
        lock(&self.life.disk).restored
    }

    fn settle_restored(&self) -> BoxFuture<'_, Result<(), RestoredError>> {
        Box::pin(async {
            lock(&self.life.disk).restored = None;
            Ok(())
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.life.phase.send_if_modified(|phase| {
            let open = *phase == Phase::Open;
            if open {
                *phase = Phase::Closing;
            }
            open
        });
        self.life.wake.notify_one();
        self.life.rooms.iter().for_each(|room| room.notify_waiters());
        Box::pin(async move {
            let ended = |phase: &Phase| matches!(phase, Phase::Closed | Phase::Dead);
            _ = self.life.phase.subscribe().wait_for(ended).await;
        })
    }
}
